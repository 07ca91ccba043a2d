"""Hierarchical Bayesian inference against Piray's algorithm in plain loops, against EM, and against integrals."""

from dataclasses import replace

import numpy as np
import pymc as pm
import pytest
from hbi_by_hand import hbi
from helpers import normal_group
from scipy import integrate, stats

import em_ppl as em
from em_ppl import hbi as algorithm
from em_ppl.checkpoint import State
from em_ppl.e_step import Scheme
from em_ppl.em import iterate
from em_ppl.group import HyperPrior
from em_ppl.hbi import update_subjects
from em_ppl.mixture import MixturePrior, _begin, _start
from em_ppl.modes import Start, approximate
from em_ppl.progress import Progress

# What the updates of cbm in Python (github.com/payampiray/cbm_python, cbm/hbi_updates.py, commit e72193f) come to on
# the same 20 people, iterated until responsibilities change by less than 1e-13 (cbm itself stops earlier).
CBM_BOUND = -1087.9946183
CBM_MEANS = {"coin": [0.47295367], "sticky": [0.08232729, 1.45305753]}
CBM_ERRORS = {"coin": [0.21643276], "sticky": [0.067817, 0.18553674]}

TIGHT = {"tol": 1e-8, "max_iter": 2000, "progressbar": False}


def designs(data, *, stay):
    """Design matrices of the logistic regressions that the two models are."""
    last = data["last"].values
    return [np.column_stack([np.ones(len(row)), row][: 1 + stay]) for row in last]


@pytest.fixture(scope="module")
def some_people(mixed_people):
    return mixed_people.data.isel(subject=slice(5, 25))  # 10 of each kind


def test_piray_in_plain_loops(mixed_people, some_people):
    """Responsibilities, groups, hierarchical errors, lower bound; and cbm's own numbers."""
    both = [designs(some_people, stay=False), designs(some_people, stay=True)]
    responsibility, means, variances, errors, bounds = hbi(both, list(some_people["heads"].values))
    models = [mixed_people.coin, mixed_people.sticky]
    found = em.fit_mixture(models, some_people, estimator="laplace", prior=MixturePrior(b=1.0), **TIGHT)
    np.testing.assert_allclose(found.frequencies.responsibility, responsibility, atol=1e-5)
    for (name, q), mean, variance, error in zip(found.groups.items(), means, variances, errors, strict=True):
        np.testing.assert_allclose(q.a, mean, atol=1e-5, err_msg=name)
        np.testing.assert_allclose(q.variance, variance, rtol=1e-5, err_msg=name)
        np.testing.assert_allclose(q.standard_error, error, rtol=1e-5, err_msg=name)
    assert found.bound == pytest.approx(bounds[-1], abs=1e-5)
    assert found.bound == pytest.approx(CBM_BOUND, abs=1e-6)
    for name, q in found.groups.items():
        np.testing.assert_allclose(q.a, CBM_MEANS[name], atol=1e-6)
        np.testing.assert_allclose(q.standard_error, CBM_ERRORS[name], rtol=1e-5)


@pytest.mark.parametrize("estimator", ["laplace", "corrected"])
def test_one_model_is_em_with_the_hyperprior(mixed_people, some_people, estimator):
    """EM-Laplace whose group has log prior v log tau - s tau - b tau (mu - a0)^2 / 2, by the package's other M-step."""
    prior = MixturePrior()

    def log_density(vector):
        mean, log_sd = np.split(vector, 2)
        tau = np.exp(-2 * log_sd)
        by_mean = -prior.b * tau * mean
        by_log_sd = -2 * prior.v + 2 * prior.s * tau + prior.b * tau * mean**2
        value = (-2 * prior.v * log_sd - prior.s * tau - prior.b * tau * mean**2 / 2).sum()
        return [value, np.concatenate([by_mean, by_log_sd])]

    compiled = mixed_people.sticky.compile(some_people)
    group = normal_group(20, np.zeros(2), np.eye(2), prior=HyperPrior(log_density))
    start = approximate(compiled, group, Start(np.zeros((20, 2)), np.tile(np.eye(2), (20, 1, 1))))
    scheme = Scheme(estimator, em.Quadrature(3), 0)
    state = State(group, start.start, scheme)
    done = iterate(compiled, state, tol=1e-8, max_iter=500, progress=Progress(show=False)).found
    found = em.fit_mixture([mixed_people.sticky], some_people, estimator=estimator, **TIGHT)
    q = found.groups["sticky"]
    np.testing.assert_allclose(q.a, done.group.coefficients, atol=1e-6)
    np.testing.assert_allclose(q.variance, np.diag(done.group.covariances[0]), rtol=1e-5)
    np.testing.assert_allclose(found.subjects["sticky"]["mode"], done.subjects.laplace.mode, atol=1e-5)


@em.subject_model(level=em.Real(spread=2.0))
def level_of_noise(level, y):
    pm.Normal("y", level, 1.0, observed=y)


def test_bound_lies_just_below_the_exact_evidence():
    """One model, Normal data: the evidence is an integral over mean and precision of the group."""
    rng = np.random.default_rng(0)
    y = rng.normal(rng.normal(1.0, 1.5, 12)[:, None], 1.0, (12, 3))
    data = em.from_subjects([{"y": row} for row in y])
    found = em.fit_mixture([level_of_noise], data, prior=MixturePrior(b=1.0), **TIGHT)
    within = stats.norm.logpdf(y - y.mean(1, keepdims=True)).sum() + 12 * 0.5 * np.log(2 * np.pi / 3)
    precision = stats.gamma(0.5, scale=1 / (0.01 * 2.0**2))  # the rate is per squared spread

    def joint(mu, log_tau):
        tau = np.exp(log_tau)
        own = stats.norm.logpdf(y.mean(1), mu, np.sqrt(1 / tau + 1 / 3)).sum()
        return np.exp(own + precision.logpdf(tau) + log_tau + stats.norm.logpdf(mu, 0.0, tau**-0.5) - scale)

    scale = stats.norm.logpdf(y.mean(1), y.mean(), y.mean(1).std()).sum()
    exact = np.log(integrate.dblquad(joint, -9, 5, -6, 8, epsabs=1e-8)[0]) + scale + within
    assert exact - 0.5 < found.bound < exact


def test_standard_error_of_a_mean_by_integration():
    """One model, Normal data as noisy as people differ: the posterior SD of mu is an integral over tau."""
    rng = np.random.default_rng(1)
    y = rng.normal(rng.normal(1.0, 0.6, 30)[:, None], 1.0, (30, 3))
    data = em.from_subjects([{"y": row} for row in y])
    found = em.fit_mixture([level_of_noise], data, prior=MixturePrior(b=1.0), **TIGHT)
    q = found.groups["level_of_noise"]
    log_tau = np.linspace(-4, 8, 2001)
    tau = np.exp(log_tau)
    # given tau, means of 3 trials are Normal(mu, 1 / tau + 1 / 3), and mu has the prior Normal(0, 1 / tau)
    precision = 30 / (1 / tau + 1 / 3) + tau
    mean = 30 * y.mean() / (1 / tau + 1 / 3) / precision
    own = stats.norm.logpdf(y.mean(1)[:, None], 0.0, np.sqrt(1 / tau + 1 / 3)).sum(0)
    log_weight = own + 0.5 * precision * mean**2 - 0.5 * np.log(precision / tau)
    log_weight += stats.gamma(0.5, scale=1 / (0.01 * 2.0**2)).logpdf(tau) + log_tau
    weight = np.exp(log_weight - log_weight.max())
    weight /= weight.sum()
    spread = np.sqrt(weight @ (1 / precision + mean**2) - (weight @ mean) ** 2)
    standard_error = found.standard_errors["level_of_noise"][0]
    assert standard_error == pytest.approx(spread, rel=0.05)
    assert q.standard_error[0] < 0.75 * spread  # what Piray et al. take


@pytest.mark.parametrize(("estimator", "cases"), [("corrected", (1, 2, 3)), (em.Quadrature(7), (1, 2))])
def test_bound_rises_at_every_step(mixed_people, estimator, cases):
    for seed in cases:
        people = type(mixed_people)(20, 30, seed).data
        found = em.fit_mixture([mixed_people.coin, mixed_people.sticky], people, estimator=estimator, progressbar=False)
        assert found.converged
        steps = np.diff(found.history["bound"].values)
        assert steps.min() > -1e-7
        assert len(steps) >= 3


def test_the_end_is_a_maximum_of_the_bound(mixed_people, some_people):
    """No group nearby has a higher bound, each with posteriors of its own."""
    found = em.fit_mixture([mixed_people.coin, mixed_people.sticky], some_people, estimator="exact", **TIGHT)
    named = {"coin": mixed_people.coin, "sticky": mixed_people.sticky}
    settings = {"tol": 1e-5, "max_iter": 10}
    with Progress(show=False) as progress:
        problem, posteriors = _start(named, some_people, "exact", MixturePrior(), settings, 0, None, progress)
    near = _begin(problem, posteriors, np.ones((20, 2)))[1]
    vector = problem.to_vector(list(found.groups.values()))
    for k in range(len(vector) - 1):
        for away in (0.02, -0.02):
            moved = problem.from_vector(vector + away * (np.arange(len(vector)) == k))
            assert update_subjects(problem, moved, near).bound < found.bound
    back = problem.from_vector(vector)
    assert update_subjects(problem, back, near).bound == pytest.approx(found.bound, abs=1e-7)
    for q, original in zip(back, found.groups.values(), strict=True):
        for name in ("a", "beta", "nu", "sigma"):
            np.testing.assert_allclose(getattr(q, name), getattr(original, name))


def test_equal_models_share_everybody(mixed_people, some_people):
    """The same model twice: from equal starts each has half, and all are equally frequent."""
    twice = {"one": mixed_people.coin, "two": mixed_people.coin}
    found = em.fit_mixture(twice, some_people, progressbar=False)
    np.testing.assert_allclose(found.frequencies.responsibility, 0.5, atol=1e-9)
    np.testing.assert_allclose(found.frequencies.exceedance, 0.5, atol=1e-9)
    assert found.frequencies.omnibus_risk > 0.5


def test_an_interrupted_fit_keeps_what_it_has(mixed_people, some_people, monkeypatch):
    calls, real = [], algorithm.update_groups

    def interrupted(*args):
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return real(*args)

    monkeypatch.setattr(algorithm, "update_groups", interrupted)
    with pytest.warns(em.ConvergenceWarning, match="was interrupted after 3 iterations"):
        found = em.fit_mixture([mixed_people.coin, mixed_people.sticky], some_people, progressbar=False)
    assert not found.converged
    assert np.isfinite(found.bound)
    assert replace(found).history.sizes["iteration"] == 3
