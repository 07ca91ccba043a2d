"""Differences of cubic functions, which are exact but for rounding, and Newton's steps against NumPy's."""

import numpy as np
import pytest

from em_ppl.derivatives import differences, newton, points_around

STEP = 1e-2
VARYING = np.array([0, 2])  # the parameter in between is shared


@pytest.fixture
def study():
    """Negative log-likelihoods x'Hx / 2 + T(x, x, x) / 6 of five subjects, and where each one stands."""
    generator = np.random.default_rng(0)
    h, t = generator.normal(size=(5, 3, 3)), generator.normal(size=(5, 3, 3, 3))
    h = h + h.transpose(0, 2, 1)
    t = sum(t.transpose(0, *axes) for axes in ((1, 2, 3), (1, 3, 2), (2, 1, 3), (2, 3, 1), (3, 1, 2), (3, 2, 1)))
    location, z = generator.normal(size=(2, 5, 2))
    factor, along = np.tril(generator.normal(size=(5, 2, 2))), generator.normal(size=(5, 2, 2))
    return h, t, location, z, factor, along


def slopes_at(h, t, points):
    return -np.einsum("nij,nkj->nki", h, points) - 0.5 * np.einsum("nijl,nkj,nkl->nki", t, points, points)


def test_points_lie_on_both_sides_along_each_column(study):
    _, _, location, z, factor, along = study
    points = points_around(location, factor, z, along, np.array([9.0, 0.7, 9.0]), VARYING, STEP)
    assert points.shape == (5, 5, 3)
    np.testing.assert_array_equal(points[:, :, 1], 0.7)
    x, sides = location + np.einsum("nij,nj->ni", factor, z), STEP * factor @ along
    np.testing.assert_allclose(points[:, 0][:, VARYING], x)
    for k in range(2):
        np.testing.assert_allclose(points[:, 1 + k][:, VARYING], x + sides[:, :, k])
        np.testing.assert_allclose(points[:, 3 + k][:, VARYING], x - sides[:, :, k])


def test_derivatives_of_cubic_functions(study):
    h, t, location, z, factor, along = study
    points = points_around(location, factor, z, along, np.full(3, 0.7), VARYING, STEP)
    slope, second, third = differences(slopes_at(h, t, points), factor, np.linalg.inv(along), VARYING, STEP)
    x, root = points[:, 0], factor @ along
    np.testing.assert_array_equal(slope, slopes_at(h, t, points)[:, 0])
    np.testing.assert_allclose(second, (h + np.einsum("nijl,nl->nij", t, x))[:, :, VARYING], rtol=1e-9, atol=1e-9)
    by_two = t[:, VARYING][:, :, VARYING]
    np.testing.assert_allclose(third, np.einsum("nak,nbk,nabq->nkq", root, root, by_two), rtol=1e-7, atol=1e-7)


def test_where_a_slope_is_no_number_there_are_no_derivatives(study):
    h, t, location, z, factor, along = study
    points = points_around(location, factor, z, along, np.full(3, 0.7), VARYING, STEP)
    slopes = slopes_at(h, t, points)
    slopes[1, 3, 0], slopes[2, 0, 1] = np.inf, np.nan
    _, second, third = differences(slopes, factor, np.linalg.inv(along), VARYING, STEP)
    assert (
        [subject.any() for subject in second]
        == [subject.any() for subject in third]
        == [True, False, False, True, True]
    )


@pytest.mark.parametrize("p", [1, 2, 5])
def test_newtons_steps(p):
    generator = np.random.default_rng(p)
    roots, (slope, pull) = generator.normal(size=(6, p, p)), generator.normal(size=(2, 6, p))
    factor, own = np.tril(generator.normal(size=(6, p, p))), np.tile(2 * np.eye(p), (6, 1, 1))
    curvature = roots @ roots.transpose(0, 2, 1)
    curvature[5] = -1e3 * np.eye(p)
    shuffled = generator.permutation(p)
    gradient, hessian, root, inverse, step, bent = newton(
        factor, slope[:, np.argsort(shuffled)], curvature, shuffled, pull, own, 1e-8, 0.3
    )
    np.testing.assert_allclose(gradient, pull - np.einsum("nji,nj->ni", factor, slope), atol=1e-12)
    np.testing.assert_allclose(hessian, own + factor.transpose(0, 2, 1) @ curvature @ factor, rtol=1e-12, atol=1e-12)
    np.testing.assert_array_equal(hessian, hessian.transpose(0, 2, 1))
    assert bent.tolist() == [False] * 5 + [True]
    np.testing.assert_array_equal(root, np.triu(root))
    for k in range(5):
        np.testing.assert_allclose(root[k] @ root[k].T @ hessian[k], np.eye(p), atol=1e-9)
        np.testing.assert_allclose(root[k] @ inverse[k], np.eye(p), atol=1e-9)
        whole = -np.linalg.solve(hessian[k], gradient[k])
        np.testing.assert_allclose(step[k], whole * min(1.0, 0.3 / np.linalg.norm(whole)), rtol=1e-9)
