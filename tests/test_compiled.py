"""A compiled model: one compilation for every data set, the posterior in closed form, a user's own optimiser."""

import dataclasses

import numpy as np
import pymc as pm
import pytest
from helpers import QUICK
from scipy import optimize, stats

import em_ppl as em

Y = [np.random.default_rng(i).normal(i, 1.0, 4 + i) for i in range(5)]
DATA = em.from_subjects([{"y": y} for y in Y])


@em.subject_model(level=em.Real(), sigma=em.Positive())
def normal(level, sigma, y):
    pm.Normal("y", level, sigma, observed=y)


@pytest.fixture(scope="module")
def compiled():
    return normal.compile(DATA, compile_kwargs=QUICK)


def by_scipy(x, ys=Y):
    return np.array(
        [stats.norm(level, np.exp(log_sd)).logpdf(y).sum() for (level, log_sd), y in zip(x, ys, strict=True)]
    )


X = np.random.default_rng(3).normal(size=(5, 2))


def test_values_and_slopes(compiled):
    np.testing.assert_allclose(compiled.log_likelihood(X), by_scipy(X), rtol=1e-12)
    variance = np.exp(2 * X[:, 1])
    away = [y - level for y, level in zip(Y, X[:, 0], strict=True)]
    slopes = [[a.sum() / v, (a**2).sum() / v - len(a)] for a, v in zip(away, variance, strict=True)]
    np.testing.assert_allclose(compiled.log_likelihood_gradient(X), slopes, rtol=1e-10)


def test_posterior_adds_the_groups_density(compiled):
    mean, covariance = np.array([1.0, 0.5]), np.array([[2.0, 0.3], [0.3, 0.5]])
    expected = by_scipy(X) + stats.multivariate_normal(mean, covariance).logpdf(X)
    np.testing.assert_allclose(compiled.log_posterior(X, mean, covariance), expected, rtol=1e-12)
    pull = (X - mean) @ np.linalg.inv(covariance)
    slopes = compiled.log_likelihood_gradient(X) - pull
    np.testing.assert_allclose(compiled.log_posterior_gradient(X, mean, covariance), slopes, rtol=1e-12)


@pytest.mark.parametrize("covariance", [[[1.0, 2.0], [2.0, 1.0]], [[1.0, 0.5], [0.0, 1.0]], np.full((2, 2), np.nan)])
def test_a_covariance_that_is_none_is_refused(compiled, covariance):
    with pytest.raises(ValueError, match="symmetric and positive definite"):
        compiled.log_posterior(X, [0.0, 0.0], covariance)


def test_a_users_own_optimiser(compiled):
    mean, covariance = np.array([1.0, 0.0]), np.eye(2)
    shape = compiled.shape
    found = optimize.minimize(
        lambda x: -compiled.log_posterior(x.reshape(shape), mean, covariance).sum(),
        np.zeros(shape).ravel(),
        jac=lambda x: -compiled.log_posterior_gradient(x.reshape(shape), mean, covariance).ravel(),
    )
    gradient = compiled.log_posterior_gradient(found.x.reshape(shape), mean, covariance)
    assert np.abs(gradient).max() < 1e-3


def test_some_subjects_in_any_order(compiled):
    index = np.array([3, 0, 3])
    value, gradient = compiled.value_and_gradient(X[index], index)
    np.testing.assert_allclose(value, by_scipy(X)[index], rtol=1e-12)
    np.testing.assert_allclose(gradient, compiled.log_likelihood_gradient(X)[index], rtol=1e-12)


def test_trials_one_by_one(compiled):
    pointwise = compiled.pointwise_log_likelihood(X)["y"]
    assert pointwise.shape == (5, 8)
    for i, y in enumerate(Y):
        np.testing.assert_allclose(pointwise[i, : len(y)], stats.norm(X[i, 0], np.exp(X[i, 1])).logpdf(y), rtol=1e-12)
        assert (pointwise[i, len(y) :] == 0).all()


def test_one_compilation_serves_every_data_set(compiled):
    ys = [np.array([0.5, 1.5, 2.5]), np.array([9.0])]
    other = compiled.with_data(em.from_subjects([{"y": y} for y in ys]))
    assert other.functions is compiled.functions
    assert normal.compile(DATA, compile_kwargs=QUICK).functions is compiled.functions
    np.testing.assert_allclose(other.log_likelihood(X[:2]), by_scipy(X[:2], ys), rtol=1e-12)
    np.testing.assert_allclose(compiled.log_likelihood(X), by_scipy(X), rtol=1e-12)  # the first is as it was


def test_data_are_left_alone(compiled):
    before = DATA.copy(deep=True)
    with pytest.warns(em.ConvergenceWarning, match="the group SD of 'sigma' has gone to 0"):
        em.fit(normal, DATA, progressbar=False, compile_kwargs=QUICK)
    assert DATA.identical(before)


@pytest.mark.parametrize("chunk_size", [1, 2, 5])
def test_chunks_do_not_matter(compiled, chunk_size):
    small = dataclasses.replace(compiled, subjects=dataclasses.replace(compiled.subjects, chunk_size=chunk_size))
    np.testing.assert_array_equal(small.log_likelihood(X), compiled.log_likelihood(X))
    np.testing.assert_array_equal(small.log_likelihood_gradient(X), compiled.log_likelihood_gradient(X))
