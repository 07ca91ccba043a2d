"""The group: its density against SciPy's, its vectors, its units."""

import numpy as np
import pytest
from helpers import normal_group
from scipy import stats

import em_ppl as em
from em_ppl.m_step import complete_scores

GENERATOR = np.random.default_rng(11)


def covariance(p, seed):
    root = np.random.default_rng(seed).normal(size=(p, p))
    return root @ root.T + 0.3 * np.eye(p)


def group(structure, n=7, **settings):
    s = covariance(3, 1)
    return normal_group(n, [0.3, -1.0, 5.0], s if structure == "full" else np.diag(np.diag(s)), structure, **settings)


@pytest.mark.parametrize("structure", ["diagonal", "full"])
def test_density_is_scipys(structure):
    g, x = group(structure), GENERATOR.normal(size=(7, 3)) * 3
    np.testing.assert_allclose(g.log_density(x), stats.multivariate_normal(g.location[0], g.covariances[0]).logpdf(x))
    np.testing.assert_allclose(g.unstandardise(g.standardise(x)), x)
    np.testing.assert_allclose(g.precision[0], np.linalg.inv(g.covariances[0]))


def test_heavy_tails_are_multivariate_with_a_full_covariance_and_independent_with_a_diagonal_one():
    x = GENERATOR.normal(size=(7, 3)) * 3
    full = group("full", distribution=em.StudentT(3.0))
    expected = stats.multivariate_t(full.location[0], full.covariances[0], df=3.0).logpdf(x)
    np.testing.assert_allclose(full.log_density(x), expected)
    diagonal = group("diagonal", distribution=em.StudentT(3.0))
    expected = stats.t(3.0, diagonal.location[0], diagonal.sd[0]).logpdf(x).sum(1)
    np.testing.assert_allclose(diagonal.log_density(x), expected)


@pytest.mark.parametrize("distribution", [em.Normal(), em.StudentT(3.0), em.Laplace()])
def test_many_points_of_a_subject_have_the_density_of_each(distribution):
    g, x = group("diagonal", distribution=distribution), GENERATOR.normal(size=(7, 5, 3)) * 3
    together = g.log_density(x)
    assert together.shape == (7, 5)
    np.testing.assert_allclose(together[:, 2], g.log_density(x[:, 2]))
    np.testing.assert_allclose(g.unstandardise(g.standardise(x)), x)


@pytest.mark.parametrize("structure", ["diagonal", "full"])
def test_a_vector_holds_the_whole_group(structure):
    g = group(structure)
    again = g.from_vector(g.to_vector())
    np.testing.assert_allclose(again.coefficients, g.coefficients)
    np.testing.assert_allclose(again.covariances, g.covariances, atol=1e-12)
    assert len(g.to_vector()) == len(g.units) == (6 if structure == "diagonal" else 9)


def test_a_vector_holds_covariates_classes_and_shared_parameters():
    generator, n = np.random.default_rng(0), 9
    design = np.zeros((n, 2, 3))
    design[:, 0, 0] = 1.0
    design[:, 0, 1] = generator.normal(size=n)
    design[:, 1, 2] = 1.0
    settings = {"design": design, "level": np.arange(n) % 2, "varying": np.array([0, 2]), "shared": np.array([1])}
    settings |= dict.fromkeys(("unit", "centre", "spread"), np.array([1.0, 2.0, 4.0]))
    one = normal_group(n, [0.0, 0.0], np.eye(2), "full", **settings)
    covariances = np.array([covariance(2, 5), covariance(2, 6)])
    g = type(one)(one.model, np.array([1.0, -2.0, 3.0]), covariances, np.array([0.7]))
    again = g.from_vector(g.to_vector())
    for name in ("coefficients", "covariances", "shared"):
        np.testing.assert_allclose(getattr(again, name), getattr(g, name), atol=1e-12)
    assert len(g.to_vector()) == len(g.units) == 3 + 4 + 2 + 1
    np.testing.assert_allclose(g.location, np.column_stack([1.0 - 2.0 * design[:, 0, 1], np.full(n, 3.0)]))
    x = generator.normal(size=(n, 2))
    for i in range(n):
        expected = stats.multivariate_normal(g.location[i], covariances[i % 2]).logpdf(x[i])
        np.testing.assert_allclose(g.log_density(x)[i], expected)
    np.testing.assert_allclose(g.complete(x)[:, [0, 2]], x)
    np.testing.assert_allclose(g.complete(x)[:, 1], 0.7)
    some = np.array([4, 1])
    np.testing.assert_allclose(g.standardise(x[some], some), g.standardise(x)[some])
    part = g.take(np.array([0, 2]))  # of one class only, whose covariate may be anything
    assert part.model.n_levels == 2
    np.testing.assert_array_equal(part.units, g.units)
    np.testing.assert_array_equal(part.to_vector(), g.to_vector())
    np.testing.assert_allclose(complete_scores(part, x[[0, 2], None]), complete_scores(g, x[:, None])[[0, 2]])
