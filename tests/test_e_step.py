"""Expectations over subjects' posteriors, against fine sums over a grid."""

import numpy as np
import pytest
from helpers import normal_group
from scipy import stats

import em_ppl as em
from em_ppl.compat import pareto_smooth
from em_ppl.e_step import Scheme, e_step, points_with
from em_ppl.modes import Start

MEAN, SD = 0.3, 1.2


def two_e_steps(compiled, group, scheme):
    """The second one has the curvature at the modes, which the shift needs."""
    n, p = group.location.shape
    plain = Scheme("corrected", em.Quadrature(), 0)
    first = e_step(compiled, group, Start(group.location, np.ones((n, p, p))), plain).laplace
    return e_step(compiled, group, first.start, scheme)


@pytest.fixture(scope="module")
def at(few_trials):
    """Compiled functions, and a group away from the estimate."""
    return few_trials.model.compile(few_trials.data), normal_group(60, [MEAN], [[SD**2]])


@pytest.mark.parametrize(
    ("integration", "tolerance"), [(em.Quadrature(), 1e-5), (em.Quadrature(5), 1e-2), (em.ImportanceSampling(), 5e-3)]
)
def test_integrated_moments_and_evidence_are_those_of_a_fine_sum(few_trials, at, integration, tolerance):
    found = two_e_steps(*at, Scheme("exact", integration, 0).laid(at[1]))
    prior = stats.norm(MEAN, SD).logpdf
    mean, variance = few_trials.posterior_moments(prior)
    np.testing.assert_allclose(found.mean[:, 0], mean, atol=tolerance)
    np.testing.assert_allclose(found.covariance[:, 0, 0], variance, atol=tolerance)
    np.testing.assert_allclose(found.log_evidence, few_trials.log_evidence(prior), atol=tolerance)


def test_second_order_is_nearer_the_truth_than_the_mode(few_trials, at):
    classic, corrected = (two_e_steps(*at, Scheme(name, em.Quadrature(), 0)) for name in ("laplace", "corrected"))
    mean, _ = few_trials.posterior_moments(stats.norm(MEAN, SD).logpdf)
    errors = [np.abs(found.mean[:, 0] - mean).max() for found in (classic, corrected)]
    assert errors[1] < 0.3 * errors[0]
    np.testing.assert_allclose(classic.mean, classic.laplace.mode, atol=1e-9)
    np.testing.assert_allclose(corrected.mean, corrected.laplace.mode - corrected.laplace.shift, atol=1e-9)


def test_hard_subjects_are_integrated_and_the_others_are_not(few_trials, at):
    plain = two_e_steps(*at, Scheme("corrected", em.Quadrature(), 0))
    exact = two_e_steps(*at, Scheme("exact", em.Quadrature(), 0).laid(at[1]))
    hard = np.array([3, 17])
    mixed = two_e_steps(*at, Scheme("corrected", em.Quadrature(), 0).laid(at[1], hard))
    easy = np.delete(np.arange(60), hard)
    for name in ("mean", "covariance", "log_evidence"):
        np.testing.assert_allclose(getattr(mixed, name)[hard], getattr(exact, name)[hard], atol=1e-8)
        np.testing.assert_allclose(getattr(mixed, name)[easy], getattr(plain, name)[easy], atol=1e-8)


def test_few_points_have_the_moments_that_they_were_given():
    generator = np.random.default_rng(0)
    first, roots = generator.normal(size=(5, 3)), generator.normal(size=(5, 3, 3))
    second = roots @ roots.transpose(0, 2, 1) + np.einsum("ni,nj->nij", first, first)
    away, weights = points_with(first, second)
    assert away.shape == (5, 7, 3)
    np.testing.assert_allclose(weights.sum(1), 1.0, atol=1e-8)
    np.testing.assert_allclose(np.einsum("nk,nki->ni", weights, away), first, atol=1e-8)
    np.testing.assert_allclose(np.einsum("nk,nki,nkj->nij", weights, away, away), second, atol=1e-8)


def test_a_smooth_function_is_expanded_to_second_order():
    first, second = np.array([[0.02]]), np.array([[[0.01]]])
    away, weights = points_with(first, second)
    np.testing.assert_allclose((weights * np.exp(away[:, :, 0])).sum(), 1 + 0.02 + 0.5 * 0.01, atol=1e-7)


def test_weights_too_wild_to_be_smoothed_are_numbers_and_are_flagged():
    """Log weights that reach over thousands: one draw has all the weight."""
    log_weights = np.random.default_rng(0).normal(-7000.0, 3000.0, (4, 512))
    log_weights[0] = -7400 + np.random.default_rng(0).exponential(150, (3, 512))[2]
    log_weights[0, 0] = -6300
    smoothed, k = pareto_smooth(log_weights)
    assert (k > 0.7).all()
    np.testing.assert_array_equal(smoothed.argmax(1), log_weights.argmax(1))
    assert not np.isnan(smoothed).any()
