"""Evidence against integrals known apart from the package; its error, its warning, the criteria."""

import warnings
from dataclasses import replace

import numpy as np
import pymc as pm
import pytensor.tensor as pt
import pytest
from helpers import normal_group
from scipy import stats

import em_ppl as em
from em_ppl.e_step import integrate
from em_ppl.evidence import integrate_evidence, settle


def test_error_covers_95_percent_of_subjects(few_trials, make_successes):
    """Against a fine sum: the t distribution's 97.5 % point with 7 degrees of freedom is 2.36."""
    inside = []
    for seed in range(5):
        study = make_successes(60, 8, seed=seed)
        fit = em.fit(study.model, study.data, random_seed=seed, progressbar=False)
        prior = stats.norm(fit.group.mean.item(), fit.group.sd.item()).logpdf
        exact, found = study.log_evidence(prior), fit.evidence.subjects
        inside += list(np.abs(found["log_evidence"] - exact) < stats.t(7).ppf(0.975) * found["error"])
        assert abs(fit.evidence.log_evidence - exact.sum()) < 4 * fit.evidence.error
    assert np.mean(inside) > 0.92  # of 300 subjects: 2.4 standard errors below 0.95


def test_sampling_agrees_with_quadrature_within_its_error(learner_fits):
    """Two parameters: importance sampling against Gauss-Hermite of order 25."""
    fit = learner_fits["corrected"]
    compiled, group = fit.compiled, fit.group.plain
    laplace = settle(compiled, group, fit.subjects["mode"].values)
    value, error = integrate_evidence(compiled, group, laplace, 0)[:2]
    rule = em.Quadrature(25).rule(group, np.random.default_rng(0))
    exact = integrate(compiled, group, laplace, rule).log_evidence
    assert (np.abs(value - exact) < stats.t(7).ppf(0.975) * error).mean() > 0.9  # of 60: 1.8 standard errors
    assert np.abs(value - exact).max() < 0.02


def test_summed_evidence_and_criteria(few_trials):
    fit = em.fit(few_trials.model, few_trials.data, progressbar=False)
    evidence = fit.evidence
    assert evidence is fit.evidence  # computed once
    np.testing.assert_allclose(evidence.laplace, fit.log_evidence, rtol=1e-8)
    log_p = evidence.log_evidence
    assert evidence.n_free == 2
    assert evidence.n_trials == 60  # rows; each holds 8 of a binomial
    assert evidence.iaic == pytest.approx(-2 * log_p + 4)
    assert evidence.ibic == evidence.ibic_subjects == pytest.approx(-2 * log_p + 2 * np.log(60))
    mode = fit.subjects["mode"].values[:, 0]
    own = stats.binom.logpmf(few_trials.k, 8, 1 / (1 + np.exp(-mode)))
    assert evidence.bic == pytest.approx((-2 * own + np.log(1)).sum())
    assert list(evidence.summary().index)[:2] == ["log_evidence", "error"]
    assert "ibic_subjects" in repr(evidence)


def test_criteria_count_trials_and_every_free_number(learner_fits):
    fit = learner_fits["corrected"]
    assert fit.evidence.n_trials == 60 * 120
    assert fit.evidence.n_free == 4
    mode = fit.subjects["mode"].values
    own = fit.compiled.log_likelihood(mode)
    assert fit.evidence.bic == pytest.approx(-2 * own.sum() + 60 * 2 * np.log(120))


# ---- posteriors that are far from Normal


@em.subject_model(a=em.Real(spread=1.0), b=em.Real(spread=1.0))
def banana(a, b, y, odd):
    """Where odd: b is known given a squared, along a valley that curves. Else: both are known."""
    straight = -0.5 * ((a - y) / 0.3) ** 2 - 0.5 * (b / 0.3) ** 2
    curved = -0.5 * ((b - 2.0 * a**2 + 1.0) / 0.05) ** 2
    pm.Potential("p", pt.switch(pt.eq(odd, 1), curved, straight))


@em.subject_model(x=em.Real(spread=2.0))
def two_hills(x, y, odd):
    """Where odd: abs(x) is known, its sign is not."""
    pm.Potential("p", pt.switch(pt.eq(odd, 1), -0.5 * ((x**2 - 1.5) / 0.8) ** 2, -0.5 * ((x - y) / 0.5) ** 2))


@pytest.mark.parametrize("model", [banana, two_hills], ids=lambda model: model.name)
def test_k_hat_flags_the_subject_whose_posterior_is_no_hill(model):
    y = np.random.default_rng(1).normal(0.0, 1.0, 20)
    data = em.from_subjects([{"y": [v], "odd": [int(i == 7)]} for i, v in enumerate(y)])
    compiled = model.compile(data, compile_kwargs={"mode": "FAST_COMPILE"})
    p = len(model.parameters)
    group = normal_group(20, np.full(p, 0.1), np.eye(p))
    start = np.full((20, p), 0.1)
    start[:, 0] = 1.0
    k = integrate_evidence(compiled, group, settle(compiled, group, start), 0).pareto_k
    assert k[7] > 0.7
    assert np.delete(k, 7).max() < 0.5


def test_unreliable_subjects_are_named(few_trials):
    evidence = em.fit(few_trials.model, few_trials.data, progressbar=False).evidence
    assert evidence.unreliable == []
    assert "!" not in repr(evidence)
    k = evidence.subjects["pareto_k"].where(evidence.subjects["subject"] != 7, 0.8)
    odd = replace(evidence, subjects=evidence.subjects.assign(pareto_k=k))
    assert odd.unreliable == [7]
    assert "! Pareto k-hat is above 0.7 for 1 subjects: 7." in repr(odd)


def test_trials_without_a_response_do_not_count(few_trials):
    again = [np.nan if i < 30 else k for i, k in enumerate(few_trials.k)]
    data = em.from_subjects([{"n": [8, 8], "k": [k, other]} for k, other in zip(few_trials.k, again, strict=True)])
    fit = em.fit(few_trials.model, data, progressbar=False)
    assert fit.evidence.n_trials == 90


@pytest.mark.parametrize("estimator", ["laplace", "corrected", "exact"])
def test_the_distance_to_exact_maximum_likelihood_is_foretold(make_successes, estimator):
    """300 subjects x 6 trials: a Newton step from each estimator's group comes near the maximum found apart from it."""
    study = make_successes(300, 6, seed=11)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", em.ConvergenceWarning)
        fit = em.fit(study.model, study.data, estimator=estimator, progressbar=False)
    expected = study.maximum()[0]
    truth = (expected - fit.group.free.values) / np.sqrt(np.diag(fit.group.free_covariance))
    np.testing.assert_allclose(fit.evidence.distance, truth, rtol=0.25, atol=0.05)
    # the fit has had a glance, from fewer points, and both say so where it is far
    np.testing.assert_allclose(list(fit.settings["distance_to_exact"].values()), fit.evidence.distance, atol=0.3)
    said = [line for line in fit.advice if "exact maximum likelihood is about" in line]
    if estimator == "laplace":
        assert "log_sd[level] by +" in said[0]
        assert "log_sd[level] by +" in fit.evidence.advice[0]
    else:
        assert said == []


def test_evidence_needs_the_model(few_trials, tmp_path):
    fit = em.fit(few_trials.model, few_trials.data, progressbar=False)
    path = fit.save(tmp_path / "fit.nc")
    with pytest.raises(ValueError, match=r"loaded without its model.*em.load\(path, model=...\)"):
        em.load(path).evidence  # noqa: B018
    again = em.load(path, model=few_trials.model).evidence
    np.testing.assert_array_equal(again.subjects["log_evidence"], fit.evidence.subjects["log_evidence"])
