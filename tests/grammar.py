"""Random likelihoods of one subject, and random data for them: what `test_properties` holds em_ppl to.

A likelihood is a body, which makes a number (a drive) of parameters and columns, and a response to it, at times two.
Parameters have any link that suits what they do. Real ones are multiplied by a column `unit`, one value a subject.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import pymc as pm
import pytensor
import pytensor.tensor as pt
from pytensor.compile.mode import Mode
from pytensor.compile.sharedvalue import SharedVariable
from pytensor.graph.traversal import ancestors
from pytensor.scalar.basic import autocast_float_as
from scipy import special

import em_ppl as em

PYTHON = Mode("py", "minimum_compile")  # nothing is simplified, nothing becomes machine code

# What a parameter does -> how it may be declared.
ROLES = {
    "real": [(em.Real, {}), (em.Real, {"spread": 2.0, "start": 0.3})],
    "positive": [(em.Positive, {}), (em.Positive, {"link": "softplus"}), (em.Interval, {"low": 0.05, "high": 6.0})],
    "unit": [
        (em.Unit, {}),
        (em.Unit, {"link": "probit"}),
        (em.Interval, {"low": 0.02, "high": 0.98}),
        (em.Interval, {"low": -0.1, "high": 0.9, "link": "probit"}),
    ],
}


class Body(NamedTuple):
    """Make a drive of parameters and columns."""

    parameters: dict[str, str]  # name -> role
    columns: tuple[str, ...]
    drive: Callable[..., Any]


class Response(NamedTuple):
    """A distribution of responses around a drive."""

    parameters: dict[str, str]
    observe: Callable[..., Any]  # (name, drive, the response's parameters, observed)
    discrete: bool = False


# --- bodies ---------------------------------------------------------------------------------------------------------


def scan(step, sequences, start, constants):
    return pytensor.scan(
        step, sequences=sequences, outputs_info=start, non_sequences=constants, strict=True, return_updates=False
    )


def before(states, start=0.0):
    """States before each trial."""
    first = pt.zeros_like(states[:1]) + start
    return pt.concatenate([first, states[:-1]])


def level(a, unit):
    return a * unit


def line(a, b, unit, x):
    return a * unit + b * x


def discounting(k, b, x, delay):
    return b * (x / (1 + k * delay) - 0.5)


def delta_rule(alpha, b, reward):
    q = scan(lambda r, q, alpha: q + alpha * (r - q), [reward], [pt.zeros(())], [alpha])
    return b * (before(q) - 0.5)


def two_arms(alpha, b, arm, reward):
    def learn(c, r, q, alpha):
        return pt.set_subtensor(q[c], q[c] + alpha * (r - q[c]))

    q = before(scan(learn, [arm, reward], [pt.zeros(2)], [alpha]), 0.5)
    return b * (q[:, 1] - q[:, 0])


def decaying_trace(alpha, a, unit, x):
    trace = scan(lambda x, m, alpha: alpha * m + x, [x], [pt.zeros(())], [alpha])
    return a * unit * pt.tanh(trace)


def kalman(k, a, unit, x):
    def update(x, mean, variance, k):
        gain = (variance + k) / (variance + k + 1)
        return mean + gain * (x - mean), (1 - gain) * (variance + k)

    mean, _ = scan(update, [x], [pt.zeros(()), pt.ones(())], [k])
    return a * unit + before(mean)


def two_back(alpha, a, unit, x):
    start = {"initial": pt.zeros(2), "taps": [-2, -1]}
    m = scan(lambda x, two_ago, one_ago, alpha: alpha * one_ago - 0.3 * two_ago + x, [x], [start], [alpha])
    return a * unit + pt.tanh(m)


def own_history(alpha, a, unit, y, seen):
    """Learn from one's own responses, where there is one."""

    def learn(y, seen, h, alpha):
        return pt.switch(pt.eq(seen, 1), h + alpha * (pt.tanh(y) - h), h)

    h = scan(learn, [y, seen], [pt.zeros(())], [alpha])
    return a * unit + before(h)


BODIES = [
    Body({"a": "real", "b": "any"}, ("unit", "x"), line),
    Body({"alpha": "unit", "b": "positive"}, ("arm", "reward"), two_arms),
    Body({"alpha": "unit", "a": "real"}, ("unit", "seen"), own_history),
    Body({"k": "positive", "b": "positive"}, ("x", "delay"), discounting),
    Body({"alpha": "unit", "a": "real"}, ("unit", "x"), decaying_trace),
    Body({"k": "positive", "a": "real"}, ("unit", "x"), kalman),
    Body({"a": "real"}, ("unit",), level),
    Body({"alpha": "unit", "b": "positive"}, ("reward",), delta_rule),
    Body({"alpha": "unit", "a": "real"}, ("unit", "x"), two_back),
]


# --- responses ------------------------------------------------------------------------------------------------------


def bernoulli(name, drive, observed):
    pm.Bernoulli(name, logit_p=drive, observed=observed)


def bernoulli_with_lapses(name, drive, lapse, observed):
    pm.Bernoulli(name, p=lapse / 2 + (1 - lapse) * pm.math.sigmoid(drive), observed=observed)


def categorical(name, drive, observed):
    drive = drive + pt.zeros(observed.shape)
    pm.Categorical(name, logit_p=pt.stack([0.5 * drive, -drive, pt.zeros_like(drive)], axis=-1), observed=observed)


def normal(name, drive, spread, observed):
    pm.Normal(name, drive, spread, observed=observed)


def normal_of_known_spread(name, drive, observed):
    pm.Normal(name, drive, 0.8, observed=observed)


def student(name, drive, spread, observed):
    pm.StudentT(name, nu=4, mu=drive, sigma=spread, observed=observed)


def poisson(name, drive, observed):
    pm.Poisson(name, pt.softplus(drive) + 0.01, observed=observed)


def negative_binomial(name, drive, spread, observed):
    pm.NegativeBinomial(name, mu=pt.exp(0.5 * drive), alpha=spread, observed=observed)


def binomial(name, drive, observed):
    pm.Binomial(name, 5, logit_p=drive, observed=observed)


def beta(name, drive, spread, observed):
    p = pm.math.sigmoid(drive)
    pm.Beta(name, 0.5 + 3 * spread * p, 0.5 + 3 * spread * (1 - p), observed=observed)


def gamma(name, drive, spread, observed):
    pm.Gamma(name, alpha=0.5 + spread, beta=pt.exp(-0.3 * drive), observed=observed)


def lognormal(name, drive, observed):
    pm.LogNormal(name, 0.3 * drive, 0.5, observed=observed)


def exponential(name, drive, observed):
    pm.Exponential(name, pt.exp(0.3 * drive), observed=observed)


RESPONSES = [
    Response({}, bernoulli, discrete=True),
    Response({"lapse": "unit"}, bernoulli_with_lapses, discrete=True),
    Response({}, categorical, discrete=True),
    Response({"spread": "positive"}, normal),
    Response({}, normal_of_known_spread),
    Response({"spread": "positive"}, student),
    Response({}, poisson, discrete=True),
    Response({"spread": "positive"}, negative_binomial, discrete=True),
    Response({}, binomial, discrete=True),
    Response({"spread": "positive"}, beta),
    Response({"spread": "positive"}, gamma),
    Response({}, lognormal),
]
SECOND = [Response({}, lognormal), Response({}, exponential), Response({}, bernoulli, discrete=True)]


# --- models ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Likelihood:
    """A random model, with the means to draw data for it and to compute it without em_ppl."""

    number: int
    body: Body
    responses: dict[str, Response]  # by column
    parameters: dict[str, em.Parameter]

    def __repr__(self) -> str:
        parts = [self.body.drive.__name__, *(response.observe.__name__ for response in self.responses.values())]
        links = [f"{name}:{p.link}{' shared' if p.shared else ''}" for name, p in self.parameters.items()]
        return f"{self.number} {'+'.join(parts)} {' '.join(links)}"

    @property
    def columns(self) -> list[str]:
        """What it reads: first what it observes."""
        return [*self.responses, *self.body.columns]

    @property
    def has_unit(self) -> bool:
        """Whether the column `unit` sets the unit of a parameter that declares none by its spread."""
        return "a" in self.parameters and self.parameters["a"].spread is None

    def likelihood(self, **values: Any) -> None:
        """Register what is observed."""
        own = [name for name in inspect.signature(self.body.drive).parameters]
        drive = self.body.drive(**{name: values[name] for name in own})
        for name, response in self.responses.items():
            response.observe(name, drive, observed=values[name], **{p: values[p] for p in response.parameters})

    @cached_property
    def model(self) -> em.SubjectModel:
        """The same for em_ppl."""

        def function(**values: Any) -> None:
            self.likelihood(**values)

        kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
        names = [inspect.Parameter(name, kind) for name in [*self.parameters, *self.columns]]
        function.__signature__ = inspect.Signature(names)
        function.__name__ = function.__qualname__ = f"random_{self.number}"
        return em.subject_model(**self.parameters)(function)

    # --- without em_ppl -----------------------------------------------------------------------------------------------

    @cached_property
    def _pymc(self) -> tuple[Any, Any, list[SharedVariable]]:
        """Log-likelihood of each trial, and draws, as functions of natural parameters and one subject's columns."""
        natural = {name: pt.dscalar(name) for name in self.parameters}
        columns = {name: SYMBOLS[name]() for name in self.body.columns}
        columns |= {n: (pt.lvector if r.discrete else pt.dvector)() for n, r in self.responses.items()}
        inputs = [*natural.values(), *(columns[name] for name in self.columns)]
        with autocast_float_as("float64"), pm.Model() as model:  # PyTensor takes Python's 2.0 for a float32
            self.likelihood(**natural, **columns)
            terms = model.logp(vars=model.observed_RVs, sum=False)
        settings = {"mode": PYTHON, "on_unused_input": "ignore"}
        logp = pytensor.function(inputs, terms, **settings)
        draw = pytensor.function(inputs, model.observed_RVs, **settings)
        generators = [v for v in ancestors(model.observed_RVs) if isinstance(v, SharedVariable)]
        return logp, draw, generators

    def log_likelihood(self, x: np.ndarray, columns: dict[str, np.ndarray]) -> float:
        """Log-likelihood of one subject at x, Gaussian space: PyMC's, of the trials whose response is present."""
        present = {name: ~np.isnan(columns[name]) for name in self.responses}
        filled = columns | {
            n: np.where(present[n], columns[n], 0.5 if not r.discrete else 0).astype("int64" if r.discrete else float)
            for n, r in self.responses.items()
        }
        terms = self._pymc[0](*self.natural(x), *(filled[name] for name in self.columns))
        return sum(term[mask].sum() for term, mask in zip(terms, present.values(), strict=True))

    def natural(self, x: np.ndarray) -> list[float]:
        """Carry one subject's parameters to natural space, by SciPy."""
        link = {
            "identity": lambda x: x,
            "log": np.exp,
            "softplus": lambda x: np.log1p(np.exp(x)),
            "logit": special.expit,
            "probit": special.ndtr,
        }
        stretch = [(p.low, p.high - p.low) if np.isfinite(p.high) else (0.0, 1.0) for p in self.parameters.values()]
        values = zip(x, stretch, self.parameters.values(), strict=True)
        return [float(low + width * link[p.link](x)) for x, (low, width), p in values]

    def draw(self, lengths: list[int], gaps: list[float], seed: int) -> dict[str, dict[str, np.ndarray]]:
        """Draw people: how many trials each has, and what share of responses is missing."""
        rng = np.random.default_rng([self.number, seed])
        start = np.array([p.gaussian_start for p in self.parameters.values()])
        together = np.array([p.shared for p in self.parameters.values()])
        mean = start + rng.normal(scale=0.4, size=len(start))
        people = {}
        for i, (n, gap) in enumerate(zip(lengths, gaps, strict=True)):
            x = mean + np.where(together, 0.0, rng.normal(scale=0.7, size=len(start)))
            people[f"p{i}"] = self._draw_one(x, n, gap, rng)
        return people

    def _draw_one(self, x: np.ndarray, n: int, gap: float, rng: np.random.Generator) -> dict[str, np.ndarray]:
        columns = {name: DRAWN[name](rng, n) for name in self.body.columns}
        columns |= {
            name: rng.integers(0, 2, n).astype("int64" if r.discrete else float) for name, r in self.responses.items()
        }
        _, draw, generators = self._pymc
        for shared in generators:
            shared.set_value(rng.spawn(1)[0])
        drawn = draw(*self.natural(x), *(columns[name] for name in self.columns))
        for name, values in zip(self.responses, drawn, strict=True):
            missing = rng.random(n) < gap
            columns[name] = np.where(missing, np.nan, values) if missing.any() else values
        if "seen" in columns:
            columns["seen"] = (~np.isnan(columns["y"])).astype(int)
        return columns


SYMBOLS = {
    "unit": pt.dscalar,
    "x": pt.dvector,
    "delay": pt.dvector,
    "reward": pt.dvector,
    "arm": pt.lvector,
    "seen": pt.lvector,
}
DRAWN = {
    "unit": lambda rng, n: np.float64(1.0),
    "x": lambda rng, n: rng.normal(size=n),
    "delay": lambda rng, n: rng.uniform(0, 10, n),
    "reward": lambda rng, n: rng.integers(0, 2, n).astype(float),
    "arm": lambda rng, n: rng.integers(0, 2, n),
    "seen": lambda rng, n: np.ones(n, dtype=int),
}


def make(number: int) -> Likelihood:
    """Make one at random."""
    rng = np.random.default_rng(number)
    body = BODIES[number % len(BODIES)]  # so that a few have scans and closed forms
    first = RESPONSES[rng.integers(len(RESPONSES))]
    responses = {"y": first}
    if rng.random() < 0.3:
        responses["z"] = SECOND[rng.integers(len(SECOND))]
    roles = body.parameters | first.parameters
    parameters = {name: _declare(role, rng) for name, role in roles.items()}
    own = list(first.parameters)
    if own and rng.random() < 0.3:
        parameters[own[0]] = dataclasses.replace(parameters[own[0]], shared=True)
    return Likelihood(number, body, responses, parameters)


def _declare(role: str, rng: np.random.Generator) -> em.Parameter:
    role = role if role != "any" else list(ROLES)[rng.integers(len(ROLES))]
    kind, settings = ROLES[role][rng.integers(len(ROLES[role]))]
    return kind(**settings)
