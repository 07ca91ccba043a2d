"""Modes, and derivatives there, against closed forms; the repair rule."""

import numpy as np
import pymc as pm
import pytest
from helpers import normal_group, simulated_learners
from scipy import optimize

import em_ppl as em
from em_ppl.models.rescorla_wagner import rescorla_wagner
from em_ppl.modes import (
    Start,
    approximate,
    bend_over,
    look_around,
    step_to_modes,
)
from em_ppl.places import stand
from em_ppl.small_matrices import product_with_itself

# ---- derivatives


@em.subject_model(rate=em.Positive())
def counts(rate, y):
    pm.Poisson("y", rate, observed=y)


@pytest.fixture(scope="module")
def poisson():
    y = np.random.default_rng(1).poisson(3.0, (20, 6))
    return counts.compile(em.from_subjects([{"y": row} for row in y])), y


def test_derivatives_of_a_poisson_likelihood_are_its_closed_forms(poisson):
    # n counts of sum s at log rate x: -log p = n exp(x) - s x + const, and all higher derivatives are n exp(x)
    compiled, y = poisson
    x = np.linspace(-1.0, 2.0, 20)[:, None]
    rate = 6 * np.exp(x)
    np.testing.assert_allclose(compiled.log_likelihood_gradient(x), y.sum(1, keepdims=True) - rate, rtol=1e-10)
    scale, everyone = (1 / (rate + 1))[:, :, None], np.arange(20)
    group = normal_group(20, [0.0], [[1.0]])
    here = stand(group, x.copy(), rate[:, :, None], everyone)  # the points lie as far apart as its posterior is wide
    look_around(compiled, group, here, everyone, everyone)
    np.testing.assert_array_equal(here.log_likelihood, compiled.log_likelihood(x))
    np.testing.assert_array_equal(here.slope, compiled.log_likelihood_gradient(x))
    np.testing.assert_allclose(here.along, np.sqrt(scale))
    np.testing.assert_allclose(here.second[:, 0], rate, rtol=1e-6)
    np.testing.assert_allclose(here.third[:, 0], scale[:, 0] * rate, rtol=1e-3)
    bend = bend_over(4 * scale, np.sqrt(scale), 1 / np.sqrt(scale), here.third, np.array([0]))
    np.testing.assert_allclose(bend, 4 * scale[:, 0] * rate, rtol=1e-3)


@pytest.mark.parametrize(("n", "same"), [(1, True), (2, True), (3, False)])
def test_third_derivatives_are_summed_over_another_covariance_than_that_of_the_points(n, same):
    """Of -log p = exp(a'x) + exp(b'x) third derivatives are known: with two parameters every sum is, with three not."""
    generator = np.random.default_rng(n)
    a, b, x = generator.normal(size=(3, n))
    root = np.linalg.cholesky(0.1 * np.eye(n) + 0.1)
    covariance = root @ (np.eye(n) + 0.5 * np.corrcoef(generator.normal(size=(n, 9))).reshape(n, n)) @ root.T
    weights = np.exp([a @ x, b @ x])
    third = sum(w * np.einsum("i,j,k", c, c, c) for w, c in zip(weights, (a, b), strict=True))
    along = np.einsum("aj,bj,abk->jk", root, root, third)
    found = bend_over(covariance[None], root[None], np.linalg.inv(root)[None], along[None], np.arange(n))
    expected = np.einsum("ab,abk->k", covariance, third)
    assert np.allclose(found, expected, rtol=1e-12) is same
    np.testing.assert_allclose(found[0], expected, rtol=0.2)


def settled(compiled, group):
    """The second approximation has the curvature at the modes, which the shift needs."""
    first = approximate(compiled, group, Start(np.full((20, 1), 1.0), np.full((20, 1, 1), 18.0)))
    return approximate(compiled, group, first.start)


def test_laplace_approximation_of_a_poisson_likelihood(poisson):
    compiled, y = poisson
    found = settled(compiled, normal_group(20, [1.0], [[0.25]]))
    assert found.converged.all()
    for i, s in enumerate(y.sum(1)):
        mode = optimize.brentq(lambda x, s=s: s - 6 * np.exp(x) - (x - 1.0) / 0.25, -5, 5, xtol=1e-12)
        variance = 1 / (6 * np.exp(mode) + 4)
        np.testing.assert_allclose(found.mode[i], mode, atol=1e-7)
        np.testing.assert_allclose(found.covariance[i], variance, rtol=1e-6)
        np.testing.assert_allclose(found.shift[i], 0.5 * variance**2 * 6 * np.exp(mode), rtol=1e-3)


def test_laplace_approximation_in_a_heavy_tailed_group(poisson):
    """A Student-t group: mode, variance and shift from the log-posterior's derivatives in closed form."""
    compiled, y = poisson
    found = settled(compiled, normal_group(20, [1.0], [[0.25]], distribution=em.StudentT(3.0)))
    assert found.converged.all()
    for i, s in enumerate(y.sum(1)):

        def slope(x, s=s):
            z = (x - 1.0) / 0.5
            return s - 6 * np.exp(x) - 4 * z / (3 + z**2) / 0.5

        mode = optimize.brentq(slope, -5, 5, xtol=1e-12)
        second = -(slope(mode + 1e-4) - slope(mode - 1e-4)) / 2e-4
        third = -(slope(mode + 1e-3) - 2 * slope(mode) + slope(mode - 1e-3)) / 1e-6
        np.testing.assert_allclose(found.mode[i], mode, atol=1e-7)
        np.testing.assert_allclose(found.covariance[i], 1 / second, rtol=1e-5)
        np.testing.assert_allclose(found.shift[i], 0.5 * third / second**2, rtol=1e-3)


def test_the_shift_goes_most_of_the_way_from_mode_to_mean(poisson):
    """The posterior mean by a fine sum over a grid."""
    compiled, y = poisson
    found = settled(compiled, normal_group(20, [1.0], [[0.25]]))
    x = np.linspace(-3, 5, 20001)
    for i, s in enumerate(y.sum(1)):
        log_density = s * x - 6 * np.exp(x) - 2 * (x - 1.0) ** 2
        weight = np.exp(log_density - log_density.max())
        mean = (weight * x).sum() / weight.sum()
        assert abs(found.mode[i, 0] - found.shift[i, 0] - mean) < 0.1 * abs(found.mode[i, 0] - mean)


# ---- the repair rule


def test_curvature_that_is_no_maximums_becomes_the_groups_own_in_that_direction():
    group = normal_group(2, np.zeros(2), np.diag([4.0, 9.0]))
    # in the group's units: curvature 1 + 3 along the first, 1 - 5 along the second parameter
    curvature = np.array([np.diag([3.0 / 4.0, -5.0 / 9.0]), np.diag([3.0 / 4.0, 1.0 / 9.0])])
    here = stand(group, np.zeros((2, 2)), curvature, np.arange(2))
    assert here.repaired.tolist() == [True, False]
    np.testing.assert_allclose(here.root @ here.inverse_root, np.tile(np.eye(2), (2, 1, 1)), atol=1e-12)
    covariance = product_with_itself(group.factor() @ here.root)
    np.testing.assert_allclose(covariance[0], np.diag([1.0, 9.0]), atol=1e-12)
    np.testing.assert_allclose(covariance[1], np.diag([1.0, 4.5]), atol=1e-12)


def test_newton_s_steps_and_the_search_find_the_same(monkeypatch):
    """Learners, from far off; what looks around at each step, and what does so at the end only."""
    compiled = rescorla_wagner.compile(simulated_learners(40, n_trials=50, random_seed=1))
    group = normal_group(40, [0.0, 1.0], [[1.0, 0.2], [0.2, 0.3]])
    start, curvature = np.full((40, 2), -1.0), np.zeros((40, 2, 2))
    assert compiled.many_at_once
    evaluated = []
    for _ in range(2):
        one = approximate(compiled, group, Start(start, curvature))
        evaluated.append(approximate(compiled, group, one.start))
        monkeypatch.setattr(type(compiled), "many_at_once", False)
    newton, search = evaluated
    assert newton.converged.all()
    assert search.converged.all()
    np.testing.assert_allclose(newton.mode, search.mode, atol=2e-6)
    np.testing.assert_allclose(newton.covariance, search.covariance, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(newton.shift, search.shift, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(newton.log_evidence, search.log_evidence, atol=1e-6)


# ---- the last step without a look


def test_a_last_short_step_need_not_be_looked_at(poisson):
    """What the derivatives say is there is there: to the third order of the step."""
    compiled, _ = poisson
    group = normal_group(20, [1.0], [[0.25]])
    exact = settled(compiled, group)
    start = exact.mode + 2e-3 * np.sqrt(exact.covariance[:, 0])
    brisk, strict = (approximate(compiled, group, Start(start, exact.curvature), brisk=how) for how in (True, False))
    assert brisk.converged.all()
    np.testing.assert_allclose(brisk.curvature[:, 0], 6 * np.exp(start), rtol=1e-6)  # where it was looked
    np.testing.assert_allclose(strict.curvature[:, 0], 6 * np.exp(strict.mode), rtol=1e-6)
    for name, atol in (("mode", 1e-6), ("slope", 1e-4), ("log_likelihood", 1e-7)):
        np.testing.assert_allclose(getattr(brisk, name), getattr(strict, name), atol=atol)
    assert (np.abs(start - strict.mode) > 1e-4).all()


def test_newtons_steps_are_shortened_until_they_lead_down(poisson):
    """From far below the mode, where the likelihood is all but straight, the first one leads far beyond it."""
    compiled, y = poisson
    group, everyone = normal_group(20, [1.0], [[4.0]]), np.arange(20)
    here = stand(group, np.full((20, 1), -0.75), np.zeros((20, 1, 1)), everyone)
    look_around(compiled, group, here, everyone, everyone)
    start = group.unstandardise(here.z)
    whole = start + (y.sum(1, keepdims=True) - 6 * np.exp(start) - (start - 1) / 4) / (6 * np.exp(start) + 0.25)
    log_posterior = [compiled.log_likelihood(x) - (x[:, 0] - 1) ** 2 / 8 for x in (start, whole)]
    assert (log_posterior[1] < log_posterior[0]).all()
    assert not len(step_to_modes(compiled, group, here, 1e-6, 0.0))
    at = group.unstandardise(here.z)
    np.testing.assert_allclose(y.sum(1, keepdims=True) - 6 * np.exp(at) - (at - 1) / 4, 0, atol=1e-5)
