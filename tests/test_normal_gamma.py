"""What is believed of a group's mean and precision, against integrals and closed forms."""

import numpy as np
import pytest
from scipy import integrate, stats

from em_ppl.normal_gamma import NormalGamma

PRIOR = NormalGamma(np.array([0.0]), 1.0, 0.5, np.array([0.01]))


def log_density(q, mu, tau):
    of_tau = stats.gamma(q.nu, scale=1 / q.sigma[0]).logpdf(tau)
    return of_tau + stats.norm(q.a[0], 1 / np.sqrt(q.beta * tau)).logpdf(mu)


def expectation(q, function):
    """Of function(mu, tau) under q, by quantiles of tau and Gauss-Hermite points of mu."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(40)

    def given(u):
        tau = stats.gamma(q.nu, scale=1 / q.sigma[0]).ppf(u)
        values = function(q.a[0] + nodes / np.sqrt(q.beta * tau), tau)
        return weights @ values / np.sqrt(2 * np.pi)

    return integrate.quad(given, 0, 1, limit=200)[0]


def test_learning_is_bayes_theorem():
    """Subjects known exactly: posterior density over prior times likelihood is the same everywhere."""
    x = np.array([0.3, 1.1, -0.4, 2.0])
    q = PRIOR.learn(np.ones(4), x[:, None], np.zeros((4, 1)))
    ratios = [
        log_density(q, mu, tau) - log_density(PRIOR, mu, tau) - stats.norm(mu, tau**-0.5).logpdf(x).sum()
        for mu, tau in [(0.0, 1.0), (1.5, 0.3), (-1.0, 4.0)]
    ]
    np.testing.assert_allclose(ratios, ratios[0])


def test_weights_count_subjects():
    x, v = np.array([[0.3], [1.1], [5.0]]), np.array([[0.1], [0.2], [0.3]])
    twice = PRIOR.learn(np.array([2.0, 1.0, 0.0]), x, v)
    each = PRIOR.learn(np.ones(3), x[[0, 0, 1]], v[[0, 0, 1]])
    for name in ("a", "beta", "nu", "sigma"):
        np.testing.assert_allclose(getattr(twice, name), getattr(each, name))


def test_nobody_teaches_nothing():
    q = PRIOR.learn(np.zeros(3), np.ones((3, 1)), np.ones((3, 1)))
    assert (q.a[0], q.beta, q.nu, q.sigma[0]) == (0.0, 1.0, 0.5, 0.01)
    assert q.divergence(PRIOR) == pytest.approx(0)


def test_divergence_and_shrinkage_are_expectations():
    q = NormalGamma(np.array([0.7]), 6.0, 3.0, np.array([2.0]))
    p = NormalGamma(np.array([0.1]), 1.5, 1.2, np.array([0.8]))
    divergence = expectation(q, lambda mu, tau: log_density(q, mu, tau) - log_density(p, mu, tau))
    np.testing.assert_allclose(q.divergence(p), divergence, rtol=1e-6)
    x = 1.3
    expected = expectation(q, lambda mu, tau: stats.norm(mu, tau**-0.5).logpdf(x))
    plug_in = stats.norm(0.7, np.sqrt(q.variance[0])).logpdf(x)
    np.testing.assert_allclose(q.log_shrinkage, expected - plug_in, rtol=1e-6)


def test_draws_and_t_distribution():
    q = NormalGamma(np.array([0.7, -1.0]), 6.0, 3.0, np.array([2.0, 5.0]))
    mean, sd = q.draw(40_000, np.random.default_rng(0))
    for k in range(2):
        away = (mean[:, k] - q.a[k]) / q.standard_error[k]
        assert stats.kstest(away, stats.t(2 * q.nu).cdf).pvalue > 0.01
    np.testing.assert_allclose((1 / sd**2).mean(0), 1 / q.variance, rtol=0.02)


def test_like_makes_what_was_asked_for():
    q = PRIOR.like(12.0, np.array([0.4]), np.array([2.5]))
    assert (q.beta, q.nu) == (13.0, 6.5)
    np.testing.assert_allclose([q.a[0], q.variance[0]], [0.4, 2.5])
