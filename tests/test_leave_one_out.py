"""Leaving a subject out: against fits that never saw it, and against the closed form."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pymc as pm
import pytest
from scipy import optimize, stats

import em_ppl as em


@em.subject_model(level=em.Real())
def normal(level, y):
    pm.Normal("y", level, 1.0, observed=y)


@pytest.mark.parametrize("estimator", ["corrected", "exact", "laplace"])
def test_groups_are_those_fitted_to_the_others(few_trials, estimator):
    data = few_trials.data.isel(subject=slice(30))
    fit = em.fit(few_trials.model, data, estimator=estimator, progressbar=False)
    left = fit.leave_one_subject_out(progressbar=False)
    assert left["converged"].all()
    for i in (0, 7, 29):
        others = em.fit(
            few_trials.model, data.isel(subject=np.delete(np.arange(30), i)), estimator=estimator, progressbar=False
        )
        se = np.sqrt(np.diag(others.group.free_covariance))
        np.testing.assert_allclose((left["group"][i] - others.group.free.values) / se, 0.0, atol=0.02)


def test_densities_are_the_closed_form():
    """y_i ~ N(m, s^2 + 1/5) by the means of 5 trials: the others' maximum by SciPy, and its density of the one left."""
    y = np.random.default_rng(2).normal(np.random.default_rng(3).normal(1.0, 1.5, (25, 1)), 1.0, (25, 5))
    fit = em.fit(normal, em.from_subjects([{"y": row} for row in y]), progressbar=False)
    left = fit.leave_one_subject_out(progressbar=False)

    def marginal(rows, m, log_s):
        covariance = np.exp(2 * log_s) * np.ones((5, 5)) + np.eye(5)
        return stats.multivariate_normal(np.full(5, m), covariance).logpdf(rows)

    for i in (0, 11):
        others = np.delete(y, i, axis=0)
        best = optimize.minimize(lambda v, others=others: -marginal(others, *v).sum(), [1.0, 0.0], tol=1e-10).x
        np.testing.assert_allclose(left["group"][i], best, atol=2e-3)
        np.testing.assert_allclose(left["log_density"][i], marginal(y[i], *best), atol=5e-3)
    assert (left["error"] < 5e-3).all()


def test_every_other_subject_must_still_determine_the_group():
    people = pd.DataFrame({"id": range(6), "kind": list("aaaaab")})
    trials = pd.DataFrame({"id": np.repeat(np.arange(6), 4), "y": np.random.default_rng(0).normal(size=24)})
    data = em.from_dataframe(trials, "id", people=people)
    fit = em.fit(normal, data, covariates="~ kind", progressbar=False)
    with pytest.raises(ValueError, match="without subject 5 the others do not determine every coefficient"):
        fit.leave_one_subject_out(progressbar=False)
    two = em.fit(normal, data.isel(subject=slice(2)), prior=em.GroupPrior(), progressbar=False)
    with pytest.raises(ValueError, match="without subject 0 a covariance has fewer than two subjects left"):
        two.leave_one_subject_out(progressbar=False)


def test_an_interrupt_keeps_what_has_been_done(few_trials, monkeypatch):
    fit = em.fit(few_trials.model, few_trials.data.isel(subject=slice(10)), progressbar=False)
    import em_ppl.leave_one_out as module

    real, calls = module.iterate, []

    def interrupted(*args, **kwargs):
        calls.append(1)
        done = real(*args, **kwargs)
        return replace(done, status="interrupted") if len(calls) == 4 else done

    monkeypatch.setattr(module, "iterate", interrupted)
    left = fit.leave_one_subject_out(progressbar=False)
    assert np.isfinite(left["log_density"][:3]).all()
    assert np.isnan(left["log_density"][3:]).all()
    assert left["converged"].values.tolist() == [True] * 3 + [False] * 7
