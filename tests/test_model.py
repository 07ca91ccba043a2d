"""Definitions: what a likelihood may be made of, and that each means what PyMC says it means."""

import numpy as np
import pymc as pm
import pytensor
import pytensor.tensor as pt
import pytest
from helpers import QUICK
from pytensor.scalar.basic import autocast_float_as
from scipy import stats

import em_ppl as em

pytestmark = pytest.mark.usefixtures("interpreted")


def people(n_trials=(7, 4, 5), **draw):
    """Make columns by functions of a generator and the number of trials."""
    generator = np.random.default_rng(5)
    return em.from_subjects([{name: make(generator, n) for name, make in draw.items()} for n in n_trials])


def positive(generator, n):
    return generator.uniform(0.2, 2.0, n)


def counts(generator, n):
    return generator.integers(0, 3, n)


def pairs(generator, n):
    return generator.normal(size=(n, 2))


def define(function, **parameters):
    return em.subject_model(**parameters or {"mu": em.Real(), "s": em.Positive()})(function)


def log_likelihoods_by_pymc(model, data, x):
    """Let PyMC evaluate the user's function in a model of its own, subject by subject, with numbers for parameters."""
    totals = []
    for i, n in enumerate(data["n_trials"].values):
        natural = {name: p.to_natural(x[i, k]) for k, (name, p) in enumerate(model.parameters.items())}
        columns = {name: data[name].values[i] for name in model.columns}
        columns = {name: v[:n] if np.ndim(v) else v for name, v in columns.items()}
        with pm.Model() as own, autocast_float_as("float64"):  # see em_ppl.functions
            model(**{name: pt.constant(v) for name, v in natural.items()}, **columns)
            totals.append(own.compile_logp(**QUICK)({}))
    return np.array(totals)


def check(model, data):
    """Compare values with PyMC's, slopes with differences."""
    compiled = model.compile(data, compile_kwargs=QUICK)
    x = np.random.default_rng(6).normal(scale=0.5, size=compiled.shape)
    np.testing.assert_allclose(compiled.log_likelihood(x), log_likelihoods_by_pymc(model, data, x), rtol=1e-9)
    steps = 1e-6 * np.eye(x.shape[1])
    slopes = [(compiled.log_likelihood(x + h) - compiled.log_likelihood(x - h)) / 2e-6 for h in steps]
    np.testing.assert_allclose(compiled.log_likelihood_gradient(x), np.transpose(slopes), rtol=1e-5, atol=1e-6)
    return compiled


# ---- distributions


def laplace(value, mu):
    return -pt.abs(value - mu) - np.log(2.0)


DISTRIBUTIONS = {
    "Normal": (positive, lambda mu, s, y: pm.Normal("y", mu, s, observed=y)),
    "StudentT": (positive, lambda mu, s, y: pm.StudentT("y", nu=4, mu=mu, sigma=s, observed=y)),
    "LogNormal": (positive, lambda mu, s, y: pm.LogNormal("y", mu, s, observed=y)),
    "Gamma": (positive, lambda mu, s, y: pm.Gamma("y", mu=pt.exp(mu), sigma=s, observed=y)),
    "Wald": (positive, lambda mu, s, y: pm.Wald("y", mu=pt.exp(mu), lam=s, observed=y)),
    "ExGaussian": (positive, lambda mu, s, y: pm.ExGaussian("y", mu=mu, sigma=s, nu=s, observed=y)),
    "Truncated": (positive, lambda mu, s, y: pm.Truncated("y", pm.Normal.dist(mu, s), lower=0.1, observed=y)),
    "Censored": (
        lambda generator, n: np.minimum(positive(generator, n), 1.0),
        lambda mu, s, y: pm.Censored("y", pm.Normal.dist(mu, s), lower=None, upper=1.0, observed=y),
    ),
    "Mixture": (
        positive,
        lambda mu, s, y: pm.Mixture("y", [0.3, 0.7], [pm.Normal.dist(mu, s), pm.Normal.dist(-mu, 2 * s)], observed=y),
    ),
    "Bernoulli": (
        lambda generator, n: generator.integers(0, 2, n),
        lambda mu, y: pm.Bernoulli("y", logit_p=mu, observed=y),
    ),
    "Poisson": (counts, lambda mu, y: pm.Poisson("y", pt.exp(mu), observed=y)),
    "NegativeBinomial": (counts, lambda mu, s, y: pm.NegativeBinomial("y", mu=pt.exp(mu), alpha=s, observed=y)),
    "Binomial": (counts, lambda mu, y: pm.Binomial("y", n=3, logit_p=mu, observed=y)),
    "BetaBinomial": (counts, lambda mu, s, y: pm.BetaBinomial("y", n=3, alpha=s, beta=pt.exp(mu), observed=y)),
    "Categorical": (counts, lambda mu, s, y: pm.Categorical("y", logit_p=pt.stack([mu, s, 0.0 * mu]), observed=y)),
    "OrderedLogistic": (
        counts,
        lambda mu, s, y: pm.OrderedLogistic("y", eta=mu, cutpoints=pt.stack([-s, s]), compute_p=False, observed=y),
    ),
    "MvNormal": (pairs, lambda mu, s, y: pm.MvNormal("y", mu=pt.stack([mu, -mu]), cov=s * pt.eye(2), observed=y)),
    "CustomDist": (positive, lambda mu, y: pm.CustomDist("y", mu, logp=laplace, observed=y)),
}


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_any_distribution_with_a_logp(name):
    draw, likelihood = DISTRIBUTIONS[name]
    own = {"mu": em.Real(), "s": em.Positive()}
    taken = likelihood.__code__.co_varnames
    model = define(likelihood, **{k: p for k, p in own.items() if k in taken})
    assert check(model, people(y=draw)).functions.together.batched


# ---- several terms, constants, dims


def test_several_observed_variables_and_a_potential():
    def likelihood(mu, s, choice, rt):
        pm.Bernoulli("choice", logit_p=mu, observed=choice)
        pm.LogNormal("rt", mu=pt.abs(mu), sigma=s, observed=rt)
        pm.Potential("penalty", -(mu**2))

    model = define(likelihood)
    data = people(choice=lambda g, n: g.integers(0, 2, n), rt=positive)
    compiled = check(model, data)
    x = np.zeros((3, 2)) + 0.3
    parts = compiled.pointwise_log_likelihood(x)
    assert {name: values.shape for name, values in parts.items()} == {"choice": (3, 7), "rt": (3, 7), "penalty": (3,)}
    total = parts["choice"].sum(1) + parts["rt"].sum(1) + parts["penalty"]
    np.testing.assert_allclose(total, compiled.log_likelihood(x))
    np.testing.assert_array_equal(parts["rt"][1, 4:], 0.0)  # padding


def test_what_is_observed_may_lead_to_what_is_observed_next():
    """As in any PyMC model: also where PyMC has to derive a log-probability (of 2 z + choice, z Normal)."""

    def likelihood(mu, s, choice, rt, doubt):
        chosen = pm.Bernoulli("choice", logit_p=mu, observed=choice)
        pm.Normal("rt", mu=mu + chosen, sigma=s, observed=rt)
        pm.CustomDist("doubt", mu, chosen, dist=lambda m, c, size: 2.0 * pm.Normal.dist(m) + c, observed=doubt)

    data = people(choice=lambda g, n: g.integers(0, 2, n), rt=positive, doubt=positive)
    value = define(likelihood).compile(data, compile_kwargs=QUICK).log_likelihood(np.tile([0.3, 0.0], (3, 1)))
    for k, n in enumerate(data["n_trials"].values):
        choice, rt, doubt = (data[name].values[k, :n] for name in ("choice", "rt", "doubt"))
        expected = stats.bernoulli(1 / (1 + np.exp(-0.3))).logpmf(choice.astype(int)).sum()
        expected += stats.norm(0.3 + choice).logpdf(rt).sum() + stats.norm(0.6 + choice, 2.0).logpdf(doubt).sum()
        assert value[k] == pytest.approx(expected)


def test_each_observed_variable_may_miss_its_own_trials():
    def likelihood(mu, s, choice, rt):
        pm.Bernoulli("choice", logit_p=mu, observed=choice)
        pm.LogNormal("rt", mu=0.0, sigma=s, observed=rt)

    data = em.from_subjects(
        [{"choice": [0, np.nan, 1], "rt": [0.5, 0.7, np.nan]}, {"choice": [1, 1], "rt": [np.nan, 1.5]}]
    )
    value = define(likelihood).compile(data, compile_kwargs=QUICK).log_likelihood(np.array([[0.4, 0.1], [-1.0, 0.2]]))
    p = 1 / (1 + np.exp([-0.4, 1.0]))
    expected = [
        np.log([1 - p[0], p[0]]).sum() + stats.lognorm(s=np.exp(0.1)).logpdf([0.5, 0.7]).sum(),
        2 * np.log(p[1]) + stats.lognorm(s=np.exp(0.2)).logpdf(1.5),
    ]
    np.testing.assert_allclose(value, expected, rtol=1e-12)


def test_look_up_tables_and_constants():
    table = np.array([[0.1, 0.5, 2.0], [1.0, -1.0, 0.3]])

    def likelihood(mu, s, stimulus, y):
        pm.Normal("y", mu * pt.constant(table)[1, stimulus] + pt.as_tensor(table[0])[stimulus], s, observed=y)

    check(define(likelihood), people(stimulus=counts, y=positive))


def test_further_dims_of_a_trial():
    def likelihood(mu, s, options, choice):
        pm.Categorical("choice", logit_p=s * (options @ pt.stack([mu, 1.0])), observed=choice)

    check(define(likelihood), people(options=lambda g, n: g.normal(size=(n, 3, 2)), choice=counts))


def test_a_likelihood_of_all_trials_together():
    """A Gaussian process over a subject's trials: one term, which padding must not touch."""

    def likelihood(mu, s, time, y):
        kernel = pt.exp(-0.5 * (time[:, None] - time[None, :]) ** 2) + s * pt.eye(time.shape[0])
        pm.MvNormal("y", mu=mu * pt.ones_like(time), cov=kernel, observed=y)

    compiled = check(define(likelihood), people(time=lambda g, n: np.arange(n) / 2.0, y=positive))
    assert compiled.subjects.equal_lengths


def test_columns_of_a_subject_as_a_whole():
    def likelihood(mu, s, age, y):
        pm.Normal("y", mu + s * age, 1.0, observed=y)

    check(define(likelihood), people(age=lambda g, n: g.normal(), y=positive))


def test_a_potential_that_keeps_a_dimension_is_one_term():
    def likelihood(mu, y):
        pm.Potential("p", -0.5 * ((y - mu) ** 2).sum(keepdims=True))

    check(define(likelihood, mu=em.Real()), people(y=positive))


def test_integers_reach_the_likelihood_as_integers():
    kinds = {}

    def likelihood(mu, choice, y):
        kinds.update(choice=choice.dtype, y=y.dtype)
        pm.Normal("y", mu * choice, 1.0, observed=y)

    data = em.from_subjects([{"choice": np.array([0, 1], dtype="int8"), "y": np.array([1, 2], dtype="float32")}])
    define(likelihood, mu=em.Real()).compile(data, compile_kwargs=QUICK)
    assert kinds == {"choice": "int64", "y": "float64"}


# ---- the definition itself


def normal(mu, y, sigma=2.0):
    """Document me."""
    pm.Normal("y", mu, sigma, observed=y)


def test_an_argument_with_a_default_is_a_setting():
    model = define(normal, mu=em.Real())
    assert model.columns == ("y",)
    check(model, people(y=positive))


def test_it_remains_the_users_function():
    model = define(normal, mu=em.Real())
    assert model.__doc__ == "Document me."
    assert model.name == "normal"
    with pm.Model() as own:
        model(mu=0.5, y=np.array([1.0, 2.0]), sigma=1.0)
    np.testing.assert_allclose(own.compile_logp(**QUICK)({}), stats.norm(0.5, 1.0).logpdf([1.0, 2.0]).sum())


def test_it_is_called_once_and_touches_no_model_around_it():
    calls = []

    def likelihood(mu, y):
        calls.append(1)
        pm.Normal("y", mu, 1.0, observed=y)

    model, data = define(likelihood, mu=em.Real()), people(y=positive)
    with pm.Model() as around:
        model.compile(data, compile_kwargs=QUICK)
        model.compile(data.isel(subject=[0]), compile_kwargs=QUICK)
    assert len(calls) == 1
    assert not around.basic_RVs


@pytest.mark.parametrize("dtype", [None, "float32"])
def test_double_precision(dtype):
    """A loop that starts at a bare 0.5 is one of float64, not of PyTensor's own choice; float32 is refused."""

    @em.subject_model(alpha=em.Unit())
    def learner(alpha, choice, reward):
        q = pytensor.scan(
            lambda c, r, q, alpha: pt.set_subtensor(q[c], q[c] + alpha * (r - q[c])),
            sequences=[choice, reward],
            outputs_info=[pt.full(2, 0.5, dtype=dtype)],
            non_sequences=[alpha],
            return_updates=False,
        )
        pm.Categorical("choice", logit_p=q, observed=choice)

    data = em.from_subjects({"ann": {"reward": [1.0, 0.0], "choice": [0, 1]}})
    if dtype:
        with pytest.raises(em.ModelError, match=r"a loop computes in single precision.*dtype=\"float64\""):
            learner.compile(data)
    else:
        value = learner.compile(data, compile_kwargs=QUICK).log_likelihood([[np.log(1 / 9)]])  # alpha = .1
        expected = -np.log1p(np.exp(-0.05)) - np.log1p(np.exp(0.55 - 0.45))
        assert value[0] == pytest.approx(expected, rel=1e-13)


def test_numbers_that_python_wrote_are_exact():
    """A truncated Normal; PyTensor of its own accord takes the root of 2 for a float32, and is off by 1e-9 a trial."""

    @em.subject_model(mu=em.Real(spread=1.0), s=em.Positive())
    def truncated(mu, s, y):
        pm.Truncated("y", pm.Normal.dist(mu, s), lower=0.5, observed=y)

    y = np.array([0.5, 1.2, 3.0])
    value = truncated.compile(em.from_subjects([{"y": y}]), compile_kwargs=QUICK).log_likelihood([[0.3, np.log(0.7)]])
    expected = stats.truncnorm(0.2 / 0.7, np.inf, 0.3, 0.7).logpdf(y).sum()
    assert value[0] == pytest.approx(expected, rel=1e-13)
