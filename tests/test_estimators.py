"""Points and weights: integrals that are known, whatever the Laplace approximation they are laid around."""

import numpy as np
import pytest
from helpers import laplace_at, normal_group
from scipy import stats

import em_ppl as em
from em_ppl.estimators import exact_integration

RULES = [em.Quadrature(9), em.ImportanceSampling(4096), em.ImportanceSampling(4096, df=np.inf)]


def moments(integration, group, laplace, log_density):
    """Integrate a density with the rule's points: its total, mean and covariance, by subject."""
    rule = integration.rule(group, np.random.default_rng(0))
    away, log_volume = rule.place(group, laplace)
    x = laplace.mode[:, None] + away
    weight = np.exp(log_density(x) + log_volume)
    total = weight.sum(1)
    mean = (weight[:, :, None] * x).sum(1) / total[:, None]
    centred = x - mean[:, None]
    covariance = np.einsum("nk,nki,nkj->nij", weight, centred, centred) / total[:, None, None]
    return total, mean, covariance


@pytest.mark.parametrize("integration", RULES, ids=str)
def test_a_normal_density_has_its_moments(integration):
    """Its mode is where the rule thinks it is, but it is 0.8 times as wide; and the rule's shift is not its own."""
    n, v = 4, np.array([[0.5, 0.2], [0.2, 0.3]])
    group = normal_group(n, [0.0, 0.0], 4 * np.eye(2))
    mode = np.random.default_rng(1).normal(size=(n, 2))
    laplace = laplace_at(mode, np.tile(v, (n, 1, 1)), shift=0.1 * np.ones((n, 2)))
    truth = stats.multivariate_normal(np.zeros(2), 0.64 * v)
    total, mean, covariance = moments(integration, group, laplace, lambda x: truth.logpdf(x - mode[:, None]))
    tolerance = 1e-2 if isinstance(integration, em.ImportanceSampling) else 2e-3
    np.testing.assert_allclose(total, 1.0, atol=tolerance)
    np.testing.assert_allclose(mean, mode, atol=tolerance)
    np.testing.assert_allclose(covariance, np.tile(0.64 * v, (n, 1, 1)), atol=tolerance)


def test_quadrature_is_exact_for_polynomials():
    """Order n integrates a Normal density times a polynomial of degree 2 n - 1."""
    group, one = normal_group(1, [0.0], [[1.0]]), np.ones((1, 1, 1))
    rule = em.Quadrature(5).rule(group, np.random.default_rng(0))
    away, log_volume = rule.place(group, laplace_at(np.zeros((1, 1)), one))
    x, weight = away[0, :, 0], np.exp(log_volume[0] + stats.norm.logpdf(away[0, :, 0]))
    for power, expected in enumerate([1, 0, 1, 0, 3, 0, 15, 0, 105, 0]):
        np.testing.assert_allclose((weight * x**power).sum(), expected, atol=1e-10)


@pytest.mark.parametrize("structure", ["diagonal", "full"])
def test_draws_reach_the_tails_of_a_heavy_tailed_group(structure):
    """A subject whose trials say nothing has the group for its posterior, however narrow the Laplace approximation."""
    n, s = 3, np.array([[2.0, 0.5], [0.5, 1.0]]) if structure == "full" else np.diag([2.0, 1.0])
    group = normal_group(n, [1.0, -1.0], s, structure, distribution=em.StudentT(5.0))
    laplace = laplace_at(group.location, np.tile(0.05 * np.eye(2), (n, 1, 1)))
    total, mean, covariance = moments(em.ImportanceSampling(2**14), group, laplace, group.log_density)
    np.testing.assert_allclose(total, 1.0, atol=0.02)
    np.testing.assert_allclose(mean, group.location, atol=0.05)
    np.testing.assert_allclose(covariance, np.tile(5 / 3 * s, (n, 1, 1)), atol=0.4)


def test_where_the_likelihood_curves_up_points_are_no_wider_than_the_group():
    group = normal_group(1, [0.0], [[1.0]])
    rule = em.Quadrature(9).rule(group, np.random.default_rng(0))
    wide, _ = rule.place(group, laplace_at(np.zeros((1, 1)), np.full((1, 1, 1), 1e6)))
    just, _ = rule.place(group, laplace_at(np.zeros((1, 1)), np.ones((1, 1, 1))))
    np.testing.assert_allclose(wide, just)


def test_subjects_have_points_of_their_own_and_keep_them():
    group, laplace = normal_group(3, [0.0], [[1.0]]), laplace_at(np.zeros((3, 1)), 0.5 * np.ones((3, 1, 1)))
    rule = em.ImportanceSampling(64).rule(group, np.random.default_rng(0))
    away, log_volume = rule.place(group, laplace)
    assert not np.allclose(away[0], away[1])
    some = np.array([2, 0])
    again, volume = rule.take(some).place(group.take(some), laplace.take(some))
    np.testing.assert_array_equal(again, away[some])
    np.testing.assert_array_equal(volume, log_volume[some])


def test_quadrature_is_chosen_while_its_points_are_few_and_reach_the_tails():
    kinds = {(p, d): type(exact_integration(p, d)) for p in (1, 2, 3, 4) for d in (em.Normal(), em.StudentT())}
    assert all(kinds[p, em.Normal()] is em.Quadrature for p in (1, 2, 3))
    assert kinds[4, em.Normal()] is em.ImportanceSampling
    assert all(kinds[p, em.StudentT()] is em.ImportanceSampling for p in (1, 2, 3, 4))


def test_draws_go_with_the_subject_whatever_the_order():
    integration, order = em.ImportanceSampling(64), np.array([2, 0, 3, 1])
    one = normal_group(4, [0.0, 0.0], np.eye(2))
    other = normal_group(4, [0.0, 0.0], np.eye(2), place=order)
    draws, others = (integration.rule(group, np.random.default_rng(0)).z for group in (one, other))
    assert not np.array_equal(draws[0], draws[1])
    np.testing.assert_array_equal(others, draws[order])
