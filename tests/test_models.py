"""The zoo: each model's likelihood is what a plain loop says, what its simulator used, and finds the truth again.

The loops below are written apart from the models, in Gaussian space and in plain NumPy. They take complex numbers:
the imaginary part of f(x + i h) / h is the slope of f, exact to the last digits (the complex-step derivative).
"""

from __future__ import annotations

import importlib
import importlib.util
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import em_ppl as em
from em_ppl import models
from em_ppl.models.linear_regression import simulate as simulate_linear
from em_ppl.models.logistic_regression import simulate as simulate_logistic
from em_ppl.models.rescorla_wagner import simulate as simulate_rescorla_wagner
from em_ppl.models.rescorla_wagner_two_rates import simulate as simulate_two_rates
from em_ppl.models.risky_choice import design
from em_ppl.models.risky_choice import simulate as simulate_risky

# ---- one subject's log-likelihood, trial by trial; x is in Gaussian space, t holds the columns


def unit(x):
    return 1 / (1 + np.exp(-x))


def log_odds(z, yes):
    """Log probability of a yes (or no) whose log odds are z."""
    return -np.log(1 + np.exp(-z if yes else z))


def rescorla_wagner(x, t):
    return _learner(unit(x[0]), unit(x[0]), np.exp(x[1]), t)


def rescorla_wagner_two_rates(x, t):
    return _learner(unit(x[0]), unit(x[1]), np.exp(x[2]), t)


def _learner(up, down, beta, t):
    values, total = [0.0, 0.0], 0.0
    for c, r in zip(t["choice"], t["reward"], strict=True):
        total += log_odds(beta * (values[1] - values[0]), c == 1)
        error = r - values[c]
        values[c] = values[c] + (up if error.real > 0 else down) * error
    return total


def linear_regression(x, t):
    z = (t["y"] - x[0] - x[1] * t["x"]) / np.exp(x[2])
    return (-0.5 * z**2 - x[2] - 0.5 * np.log(2 * np.pi)).sum()


def logistic_regression(x, t):
    return sum(log_odds(x[0] + x[1] * a, y == 1) for a, y in zip(t["x"], t["y"], strict=True))


def risky_choice(x, t):
    rho, beta = {1: np.exp(x[0]), -1: np.exp(x[1])}, {1: np.exp(x[3]), -1: np.exp(x[4])}
    total = 0.0
    for choice, safe, risky, p, hidden in zip(*(t[k] for k in models.risky_choice.columns), strict=True):
        sign = 1 if risky > 0 else -1
        worth = [0.0 if v == 0 else sign * abs(v) ** rho[sign] for v in (safe, risky)]
        p = p - x[2] * 0.25 if hidden else p
        total += log_odds(beta[sign] * (p * worth[1] - worth[0]), choice == 1)
    return total


# ---- the designs


@dataclass(frozen=True)
class Case:
    """A model, its loop, its simulator, a group in Gaussian space (mean, SD), and the correlations to be reached."""

    loop: Callable
    simulate: Callable
    group: dict[str, tuple[float, float]]
    recovery: dict[str, float]

    @property
    def name(self):
        return self.loop.__name__

    @property
    def model(self):
        return getattr(models, self.name)

    def draw(self, n_subjects, seed):
        """Draw subjects: Gaussian space (subject, parameter), and their table in natural space."""
        mean, sd = np.array(list(self.group.values())).T
        x = np.random.default_rng(seed).normal(mean, sd, size=(n_subjects, len(mean)))
        natural = {name: self.model.parameters[name].to_natural(x[:, k]) for k, name in enumerate(self.group)}
        return x, pd.DataFrame(natural, index=[f"s{i}" for i in range(n_subjects)])


# the better arm changes every 25 trials: learning rates show at reversals
REVERSALS = np.where((np.arange(200) // 25 % 2 == 0)[:, None], [0.2, 0.8], [0.8, 0.2])

CASES = [
    Case(
        rescorla_wagner,
        partial(simulate_rescorla_wagner, n_trials=200, reward_probability=REVERSALS),
        {"alpha": (-0.5, 1.0), "beta": (1.2, 0.5)},
        {"alpha": 0.8, "beta": 0.8},
    ),
    Case(
        rescorla_wagner_two_rates,
        partial(simulate_two_rates, n_trials=200, reward_probability=REVERSALS),
        {"alpha_positive": (0.0, 1.0), "alpha_negative": (-0.7, 1.0), "beta": (1.2, 0.5)},
        {"alpha_positive": 0.7, "alpha_negative": 0.7, "beta": 0.7},
    ),
    Case(
        linear_regression,
        partial(simulate_linear, n_trials=30),
        {"intercept": (1.0, 0.5), "slope": (-2.0, 1.0), "sigma": (0.0, 0.4)},
        {"intercept": 0.85, "slope": 0.95, "sigma": 0.9},
    ),
    Case(
        logistic_regression,
        partial(simulate_logistic, n_trials=100),
        {"intercept": (0.3, 0.8), "slope": (1.0, 0.8)},
        {"intercept": 0.8, "slope": 0.8},
    ),
    Case(
        risky_choice,
        partial(simulate_risky, trials=design(4)),
        {
            "rho_gain": (0.0, 0.3),
            "rho_loss": (-0.1, 0.35),
            "ambiguity_aversion": (0.2, 0.3),
            "beta_gain": (2.5, 0.5),
            "beta_loss": (2.2, 0.5),
        },
        {"rho_gain": 0.9, "rho_loss": 0.9, "ambiguity_aversion": 0.6, "beta_gain": 0.6, "beta_loss": 0.6},
    ),
]

every_model = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


@cache
def simulated(case_name: str) -> tuple[np.ndarray, xr.Dataset]:
    """Simulate 60 subjects, the same for all tests."""
    case = next(c for c in CASES if c.name == case_name)
    x, table = case.draw(60, seed=20)
    return x, case.simulate(table, random_seed=21)


def some_of_unequal_length(data: xr.Dataset) -> xr.Dataset:
    """Take five subjects, and end four of them early."""
    full = data.sizes["trial"]
    lengths = [full, full - 1, full // 2, full // 3, 9]
    return data.isel(subject=slice(5)).assign_coords(n_trials=("subject", lengths))


# ---- what must hold


def test_every_model_of_the_zoo_is_tested():
    assert sorted(models.__all__) == sorted(case.name for case in CASES)


@every_model
def test_declared_parameters_and_documentation(case):
    assert list(case.model.parameters) == list(case.group) == list(case.recovery)
    file = importlib.import_module(f"em_ppl.models.{case.name}")
    assert "https://doi.org/" in file.__doc__
    for name in (*case.model.parameters, *case.model.columns):
        assert f"``{name}``" in file.__doc__


@every_model
def test_log_likelihood_and_gradient_are_those_of_a_plain_loop(case):
    data = some_of_unequal_length(simulated(case.name)[1])
    x = case.draw(5, seed=3)[0]
    value, gradient = case.model.compile(data).value_and_gradient(x)
    for i, n in enumerate(data.n_trials.values):
        t = {name: data[name].values[i, :n] for name in case.model.columns}
        step = 1e-30j * np.eye(x.shape[1])
        np.testing.assert_allclose(value[i], case.loop(x[i], t), rtol=1e-10)
        np.testing.assert_allclose(
            gradient[i], [case.loop(x[i] + s, t).imag / 1e-30 for s in step], rtol=1e-10, atol=1e-10
        )


@every_model
def test_a_subject_alone_is_the_same_as_among_others(case):
    data = some_of_unequal_length(simulated(case.name)[1])
    x = case.draw(5, seed=3)[0]
    compiled = case.model.compile(data)
    value, gradient = compiled.value_and_gradient(x)
    for i, n in enumerate(data.n_trials.values):
        alone = compiled.with_data(data.isel(subject=[i], trial=slice(n))).value_and_gradient(x[[i]])
        np.testing.assert_allclose(value[[i]], alone[0], rtol=1e-10)
        np.testing.assert_allclose(gradient[[i]], alone[1], rtol=1e-10, atol=1e-12)


@every_model
def test_far_out_parameters_have_a_finite_likelihood_and_gradient(case):
    data = simulated(case.name)[1].isel(subject=slice(2))
    compiled = case.model.compile(data)
    for far in (-6.0, 6.0):
        for k in range(len(case.group)):
            x = np.tile([mean for mean, _ in case.group.values()], (2, 1))
            x[:, k] = far
            value, gradient = compiled.value_and_gradient(x)
            assert np.isfinite(value).all()
            assert np.isfinite(gradient).all()


@pytest.mark.parametrize("name", ["rescorla_wagner", "logistic_regression"])
def test_choices_that_are_all_but_sure_have_the_slope_of_their_log_odds(name):
    """Far out, the log-likelihood is the sum of the log odds of unlikely choices: doubling these doubles it."""
    case = next(c for c in CASES if c.name == name)
    compiled = case.model.compile(simulated(name)[1].isel(subject=slice(2)))
    x, further = np.tile([mean for mean, _ in case.group.values()], (2, 1)), np.zeros((2, len(case.group)))
    if name == "rescorla_wagner":
        x[:, 1], further[:, 1] = 18.0, np.log(2.0)  # exp(18): PyMC's log(softmax) is log(0) there
    else:
        x, further = 1000.0 * x, 1000.0 * x
    value, gradient = compiled.value_and_gradient(x)
    np.testing.assert_allclose(compiled.log_likelihood(x + further), 2 * value, rtol=1e-6)
    slope = value if name == "rescorla_wagner" else 2 * value  # per doubling: along log(beta), along x itself
    direction = further / (np.log(2.0) if name == "rescorla_wagner" else 1.0)
    np.testing.assert_allclose(
        (gradient * direction).sum(1), slope / (1 if name == "rescorla_wagner" else 2), rtol=1e-6
    )


@every_model
def test_likelihood_is_what_the_simulator_used(case):
    x, data = simulated(case.name)
    if case.name == "linear_regression":  # a density
        intercept, slope, sigma = x[:, :1], x[:, 1:2], np.exp(x[:, 2:])
        z = (data.y - intercept - slope * data.x) / sigma
        used = (-0.5 * z**2 - np.log(sigma * np.sqrt(2 * np.pi))).sum("trial")
    else:
        used = sum(np.log(data[name]).sum("trial") for name in data if str(name).endswith("_probability"))
    np.testing.assert_allclose(case.model.compile(data).log_likelihood(x), used, rtol=1e-10)


@every_model
def test_fit_finds_the_parameters_again(case):
    """60 subjects (seeds 20 and 21), the trials and groups of CASES; any warning is an error."""
    x, data = simulated(case.name)
    with warnings.catch_warnings():
        if case.name == "rescorla_wagner_two_rates":  # a skewed subject is named, as it should be
            warnings.filterwarnings("ignore", "the posterior of", em.ConvergenceWarning)
        fit = em.fit(case.model, data, progressbar=False)
    assert fit.converged
    found, table = fit.subjects["natural"].to_pandas(), fit.summary()
    truth = case.draw(60, seed=20)[1]
    assert list(found.index) == list(truth.index)
    for k, (name, least) in enumerate(case.recovery.items()):
        assert np.corrcoef(truth[name], found[name])[0, 1] > least, name
        assert abs(table["mean"][name] - x[:, k].mean()) < 3 * table["mean_se"][name], name
        assert table["known"][name] > 0.2, name


@every_model
def test_simulator_keeps_labels_and_seed(case):
    table = case.draw(3, seed=1)[1].rename(index={"s0": "ann"})
    first, again, other = (case.simulate(table, random_seed=seed) for seed in (5, 5, 6))
    assert list(first.subject.values) == ["ann", "s1", "s2"]
    xr.testing.assert_identical(first, again)
    assert not first.equals(other)
    assert set(case.model.columns) <= set(first.data_vars)


def test_a_sure_nothing_has_a_finite_gradient():
    trials = design().assign(safe=lambda t: t["safe"].where(t.index % 3 > 0, 0.0))
    case = next(c for c in CASES if c.name == "risky_choice")
    x, table = case.draw(4, seed=2)
    data = simulate_risky(table, trials=trials, random_seed=2)
    value, gradient = case.model.compile(data).value_and_gradient(x)
    assert np.isfinite(gradient).all()
    t = {name: data[name].values[0] for name in case.model.columns}
    np.testing.assert_allclose(value[0], case.loop(x[0], t), rtol=1e-10)


def test_risky_choice_is_identified_by_real_data():
    """300 people, 40 trials each, of cpm-toolbox: every parameter resolved, and where it was when this was written."""
    spec = importlib.util.find_spec("cpm")
    if spec is None:
        pytest.skip("cpm-toolbox, whose data these are, is not installed")
    path = Path(spec.submodule_search_locations[0]) / "datasets/data/risky_choices.csv"
    columns = {"safe_magnitudes": "safe", "risky_magnitudes": "risky", "risky_probability": "probability"}
    frame = pd.read_csv(path).rename(columns=columns)[["ppt", *models.risky_choice.columns]]
    with pytest.warns(em.ConvergenceWarning, match=r"log_sd\[beta_loss\] by \+.*estimator=\"exact\""):  # 40 trials
        fit = em.fit(models.risky_choice, em.from_dataframe(frame, subject="ppt"), progressbar=False)
    table = fit.summary()
    assert fit.converged
    assert (table["known"] > 0.3).all()
    np.testing.assert_allclose(table["median"], [1.068, 0.928, 0.223, 12.13, 8.80], rtol=5e-3)
    np.testing.assert_allclose(fit.log_evidence, -6257.46, atol=0.05)
