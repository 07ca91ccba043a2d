"""Standard errors against second differences of marginal likelihoods that are known apart from the package."""

import numpy as np
import pandas as pd
import pymc as pm
import pytest
from helpers import hessian
from scipy import stats

import em_ppl as em
import em_ppl.uncertainty
from em_ppl.evidence import settle
from em_ppl.uncertainty import _glance


@em.subject_model(level=em.Real(), slope=em.Real(), sigma=em.Positive(shared=True))
def line(level, slope, sigma, x, y):
    pm.Normal("y", level + slope * x, sigma, observed=y)


class Study:
    """Lines of 40 people in two classes, with a covariate of the level: the marginal likelihood is Normal."""

    def __init__(self, n=40, n_trials=6):
        generator = np.random.default_rng(5)
        self.age = generator.normal(0.0, 1.0, n)
        self.kind = np.arange(n) % 2
        self.x = generator.normal(size=(n, n_trials))
        level = 1.0 + 0.5 * self.age + np.where(self.kind == 1, 1.2, 0.6) * generator.normal(size=n)
        slope = -0.5 + 0.7 * generator.normal(size=n)
        self.y = level[:, None] + slope[:, None] * self.x + 0.8 * generator.normal(size=self.x.shape)
        ids = np.repeat(np.arange(n), n_trials)
        trials = pd.DataFrame({"id": ids, "x": self.x.ravel(), "y": self.y.ravel()})
        people = pd.DataFrame({"id": np.arange(n), "age": self.age, "kind": np.array(["a", "b"])[self.kind]})
        self.data = em.from_dataframe(trials, "id", people=people)

    def log_likelihood(self, vector):
        """Of the fit's free numbers: coefficients, L's log diagonals of a and of b, L21 / L22 of each, log sigma."""
        b, log_diagonal, below, log_sigma = vector[:3], vector[3:7].reshape(2, 2), vector[7:9], vector[9]
        total = 0.0
        for i, x in enumerate(self.x):
            k = self.kind[i]
            factor = np.exp(log_diagonal[k])[:, None] * np.array([[1.0, 0.0], [below[k], 1.0]])
            design = np.column_stack([np.ones_like(x), x])
            covariance = design @ factor @ factor.T @ design.T + np.exp(2 * log_sigma) * np.eye(len(x))
            mean = design @ np.array([b[0] + b[1] * self.age[i], b[2]])
            total += stats.multivariate_normal(mean, covariance).logpdf(self.y[i])
        return total


@pytest.fixture(scope="module")
def study():
    return Study()


@pytest.fixture(scope="module", params=["corrected", "exact"])
def line_fit(study, request):
    settings = {"covariates": {"level": "~ age"}, "covariance_by": "kind", "covariance": "full"}
    return em.fit(line, study.data, estimator=request.param, tol=1e-7, progressbar=False, **settings)


def test_the_fit_is_the_maximum_of_the_marginal_likelihood(study, line_fit):
    vector, se = line_fit.group.free.values, np.sqrt(np.diag(line_fit.group.free_covariance))
    np.testing.assert_allclose(line_fit.log_evidence, study.log_likelihood(vector), rtol=1e-6)
    sides = np.diag(1e-4 * se)
    slopes = [(study.log_likelihood(vector + s) - study.log_likelihood(vector - s)) / 2e-4 for s in sides]
    assert np.abs(slopes).max() < 1e-3  # score times standard error


def test_standard_errors_are_those_of_the_marginal_likelihood(study, line_fit):
    """Covariates, two full covariances, a shared parameter."""
    vector, covariance = line_fit.group.free.values, line_fit.group.free_covariance.values
    se = np.sqrt(np.diag(covariance))
    expected = np.linalg.inv(-hessian(study.log_likelihood, vector, 0.02 * se))
    np.testing.assert_allclose(se, np.sqrt(np.diag(expected)), rtol=0.01)
    scale = np.outer(se, se)
    np.testing.assert_allclose(covariance / scale, expected / scale, atol=0.02)


def test_standard_errors_of_exact_em_on_binomial_data(few_trials):
    fit = em.fit(few_trials.model, few_trials.data, estimator="exact", progressbar=False)
    vector, log_evidence, covariance = few_trials.maximum()
    np.testing.assert_allclose(fit.group.free, vector, atol=1e-4)
    np.testing.assert_allclose(fit.log_evidence, log_evidence, atol=1e-5)
    np.testing.assert_allclose(fit.group.free_covariance, covariance, rtol=0.01, atol=1e-4)


def test_standard_errors_in_a_heavy_tailed_group(make_successes):
    many = make_successes(60, 40, outliers=(7.0, -6.0))
    fit = em.fit(
        many.model, many.data, estimator=em.ImportanceSampling(4096), distribution=em.StudentT(4.0), progressbar=False
    )
    vector, log_evidence, covariance = many.maximum(stats.t(4.0).logpdf)
    se = np.sqrt(np.diag(covariance))
    np.testing.assert_allclose((fit.group.free - vector) / se, 0.0, atol=0.02)
    np.testing.assert_allclose(fit.log_evidence, log_evidence, atol=0.05)
    np.testing.assert_allclose(np.sqrt(np.diag(fit.group.free_covariance)), se, rtol=0.02)


def test_information_of_subjects_adds_up(line_fit):
    total = line_fit.information.sum("subject").values
    np.testing.assert_allclose(np.linalg.inv((total + total.T) / 2), line_fit.group.free_covariance, rtol=1e-6)


def test_the_score_of_the_integrated_likelihood_is_the_same_in_portions(line_fit, monkeypatch):
    """Subject by subject, of whom none shows both classes: posteriors are Normal, so that no draw matters."""
    compiled, group = line_fit.compiled, line_fit.group.plain
    laplace = settle(compiled, group, line_fit.subjects["mode"].values)
    whole = _glance(compiled, group, laplace, random_seed=0)[0].sum(0)
    monkeypatch.setattr(em_ppl.compiled, "PORTION", 1)
    parts = _glance(compiled, group, laplace, random_seed=0)[0].sum(0)
    np.testing.assert_allclose(parts[:-1], whole[:-1], atol=1e-6)  # of sigma, the last, the slope is not linear


def test_an_sd_that_has_gone_to_0_has_no_error_and_leaves_the_others_theirs(make_successes):
    """Subjects who do not differ: the mean's standard error is that of one binomial of all trials."""
    alike = make_successes(40, 20, sd=1e-6, seed=3)
    with pytest.warns(em.ConvergenceWarning, match="the group SD of 'level' has gone to 0"):
        fit = em.fit(alike.model, alike.data, progressbar=False)
    p = alike.k.sum() / (40 * 20)
    np.testing.assert_allclose(fit.group.mean_se, 1 / np.sqrt(40 * 20 * p * (1 - p)), rtol=0.01)
    assert np.isnan(fit.group.sd_se).all()
