"""Distributions of a group against SciPy's, and against their own definition."""

import numpy as np
import pytest
from scipy import integrate, stats

import em_ppl as em

ALL = [em.Normal(), em.StudentT(3.0), em.Cauchy(), em.Laplace()]
Z = np.random.default_rng(0).normal(size=(50, 3)) * 3

every = pytest.mark.parametrize("distribution", ALL, ids=str)


def log_density(distribution, z, joint=False):
    return distribution.log_constant(z.shape[-1], joint) - distribution.potential(z, joint)


@every
def test_a_density_integrates_to_one(distribution):
    total, _ = integrate.quad(lambda x: np.exp(log_density(distribution, np.array([x]))), -np.inf, np.inf)
    np.testing.assert_allclose(total, 1.0, rtol=1e-6)


def test_normal_and_student_t_are_scipys():
    np.testing.assert_allclose(log_density(em.Normal(), Z), stats.norm.logpdf(Z).sum(-1))
    np.testing.assert_allclose(log_density(em.Cauchy(), Z), stats.cauchy.logpdf(Z).sum(-1))
    np.testing.assert_allclose(log_density(em.StudentT(3.0), Z), stats.t(3.0).logpdf(Z).sum(-1))
    expected = stats.multivariate_t(np.zeros(3), np.eye(3), df=3.0).logpdf(Z)
    np.testing.assert_allclose(log_density(em.StudentT(3.0), Z, joint=True), expected)


def test_laplace_is_scipys_but_for_its_peak():
    far = np.array([[-5.0], [2.0], [8.0]])
    np.testing.assert_allclose(log_density(em.Laplace(), far), stats.laplace.logpdf(far[:, 0]), atol=0.02)
    assert log_density(em.Laplace(), np.zeros((1, 1)))[0] < stats.laplace.logpdf(0.0)


@every
@pytest.mark.parametrize("joint", [False, True])
def test_weight_times_z_is_the_gradient(distribution, joint):
    for k, side in enumerate(1e-6 * np.eye(3)):
        slope = (distribution.potential(Z + side, joint) - distribution.potential(Z - side, joint)) / 2e-6
        np.testing.assert_allclose((distribution.weight(Z, joint) * Z)[:, k], slope, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("distribution", [d for d in ALL if d.smooth], ids=str)
@pytest.mark.parametrize("joint", [False, True])
def test_curvature_is_the_hessian(distribution, joint):
    def gradient(z):
        return distribution.weight(z, joint) * z

    for k, side in enumerate(1e-6 * np.eye(3)):
        row = (gradient(Z + side) - gradient(Z - side)) / 2e-6
        np.testing.assert_allclose(distribution.curvature(Z, joint)[:, k], row, rtol=1e-5, atol=1e-7)


@every
def test_an_outlier_weighs_little_if_tails_are_heavy(distribution):
    near, far = distribution.weight(np.array([[0.1], [10.0]]), False)[:, 0]
    assert (far < 0.2 * near) == distribution.heavy_tails


@pytest.mark.parametrize(
    ("distribution", "joint"), [(em.Normal(), False), (em.StudentT(3.0), False), (em.StudentT(3.0), True)]
)
def test_draws_have_the_distribution_of_their_density(distribution, joint):
    """The share of draws within a ball is the integral of the density over it."""
    uniform = np.random.default_rng(1).random((200_000, 3))
    z = distribution.quantile(uniform, joint)
    inside = ((z**2).sum(1) < 1).mean()

    def density(y, x):
        return np.exp(log_density(distribution, np.array([x, y]), joint))

    expected, _ = integrate.dblquad(density, -1, 1, lambda x: -np.sqrt(1 - x**2), lambda x: np.sqrt(1 - x**2))
    np.testing.assert_allclose(inside, expected, atol=5 * np.sqrt(0.25 / 200_000))


@pytest.mark.parametrize("distribution", ALL, ids=str)
def test_reach_holds_the_probability(distribution):
    reach = distribution.reach(0.9)
    inside, _ = integrate.quad(lambda x: np.exp(log_density(distribution, np.array([x]))), -reach, reach)
    np.testing.assert_allclose(inside, 0.9, atol=0.01 if distribution == em.Laplace() else 1e-6)
