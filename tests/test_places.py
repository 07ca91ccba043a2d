"""Steps of Newton's method on functions whose derivatives are known: cubic ones, of which differences are exact."""

from types import SimpleNamespace

import numpy as np
import pytest
from helpers import normal_group

from em_ppl.group import Group
from em_ppl.modes import look_around
from em_ppl.places import LONGEST_STEP, STENCIL, lay, stand
from em_ppl.search import SHORTER

N = 5
EVERYONE = np.arange(N)
VARYING, SHARED = np.array([0, 2]), np.array([1])  # the parameter in between is shared


class Cubic:
    """Negative log-likelihoods x'Hx / 2 + T(x, x, x) / 6 of some subjects."""

    def __init__(self, bend=1.0, seed=0):
        generator = np.random.default_rng(seed)
        h, t = generator.normal(size=(N, 3, 3)), generator.normal(size=(N, 3, 3, 3))
        self.h = h @ h.transpose(0, 2, 1) + 3 * np.eye(3)
        axes = ((1, 2, 3), (1, 3, 2), (2, 1, 3), (2, 3, 1), (3, 1, 2), (3, 2, 1))
        self.t = bend * sum(t.transpose(0, *order) for order in axes)

    def value_and_gradient(self, x, who):
        second, third = np.einsum("nij,nj->ni", self.h[who], x), np.einsum("nijk,nj,nk->ni", self.t[who], x, x)
        return -(x * (second / 2 + third / 6)).sum(1), -(second + third / 2)


@pytest.fixture
def group():
    settings = {"varying": VARYING, "shared": SHARED, "unit": np.ones(3)}
    made = normal_group(N, [0.3, -0.5], [[1.2, 0.4], [0.4, 0.7]], "full", **settings)
    return Group(made.model, made.coefficients, made.covariances, np.array([0.7]))


@pytest.fixture
def here(group):
    generator = np.random.default_rng(1)
    roots = generator.normal(size=(N, 2, 2))
    return stand(group, 0.5 * generator.normal(size=(N, 2)), roots @ roots.transpose(0, 2, 1), EVERYONE)


def test_points_lie_on_both_sides_along_each_column(group, here):
    some = np.array([4, 1])
    x = group.unstandardise(here.z)[some]
    sides = STENCIL * (group.cholesky[0] @ here.root[some])
    z, points, whose = lay(group, here, EVERYONE, some)
    np.testing.assert_array_equal(z, here.z[some])
    np.testing.assert_array_equal(whose, np.tile(some[:, None], 5))
    np.testing.assert_array_equal(points[:, :, 1], 0.7)
    np.testing.assert_allclose(points[:, 0][:, VARYING], x)
    for k in range(2):
        np.testing.assert_allclose(points[:, 1 + k][:, VARYING], x + sides[:, :, k])
        np.testing.assert_allclose(points[:, 3 + k][:, VARYING], x - sides[:, :, k])


def test_derivatives_of_cubic_functions(group, here):
    compiled, x, root = Cubic(), group.complete(group.unstandardise(here.z)), group.cholesky[0] @ here.root
    look_around(compiled, group, here, EVERYONE, EVERYONE)
    value, slope = compiled.value_and_gradient(x, EVERYONE)
    np.testing.assert_allclose(here.log_likelihood, value, rtol=1e-12)
    np.testing.assert_allclose(here.slope, slope, rtol=1e-12)
    second = compiled.h + np.einsum("nijk,nk->nij", compiled.t, x)
    np.testing.assert_allclose(here.second, second[:, :, VARYING], rtol=1e-8, atol=1e-8)
    by_two = compiled.t[:, VARYING][:, :, VARYING]
    np.testing.assert_allclose(here.third, np.einsum("nak,nbk,nabq->nkq", root, root, by_two), rtol=1e-6, atol=1e-6)


def test_where_a_slope_is_no_number_there_are_no_derivatives(group, here):
    cubic = Cubic()

    def with_holes(x, who):
        value, slope = cubic.value_and_gradient(x, who)
        slope[1 * 5 + 3, 0], slope[2 * 5, 1] = np.inf, np.nan  # beside the second subject, and at the third
        return value, slope

    look_around(SimpleNamespace(value_and_gradient=with_holes), group, here, EVERYONE, EVERYONE)
    known = [True, False, False, True, True]
    assert [subject.any() for subject in here.second] == [subject.any() for subject in here.third] == known
    assert np.isfinite(here.objective).tolist() == [True, True, False, True, True]
    # there, nothing draws anywhere
    assert here.log_likelihood[2] == -np.inf
    np.testing.assert_allclose(here.gradient[2], 0.0, atol=1e-12)


@pytest.mark.parametrize("p", [1, 2, 5])
def test_newtons_steps(p):
    generator = np.random.default_rng(p)
    roots, (slope, z) = generator.normal(size=(6, p, p)), generator.normal(size=(2, 6, p))
    curvature, root = roots @ roots.transpose(0, 2, 1), np.tril(generator.normal(size=(p, p)))
    curvature[5], slope = -1e3 * np.eye(p), slope * np.array([[0.1], [0.1], [0.1], [100.0], [100.0], [1.0]])
    group = normal_group(6, np.zeros(p), root @ root.T + 0.1 * np.eye(p), "full")
    factor = group.cholesky[0]
    here = stand(group, z.copy(), curvature, np.arange(6), slope)
    gradient, hessian = z - slope @ factor, np.eye(p) + factor.T @ curvature @ factor
    np.testing.assert_allclose(here.gradient, gradient, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(here.hessian, hessian, rtol=1e-12, atol=1e-12)
    np.testing.assert_array_equal(here.hessian, here.hessian.transpose(0, 2, 1))
    assert here.repaired.tolist() == [False] * 5 + [True]
    lengths = []
    for k in range(5):
        np.testing.assert_allclose(here.root[k] @ here.root[k].T @ hessian[k], np.eye(p), atol=1e-9)
        np.testing.assert_allclose(here.root[k] @ here.inverse_root[k], np.eye(p), atol=1e-9)
        whole = -np.linalg.solve(hessian[k], gradient[k])
        lengths.append(np.linalg.norm(whole))
        np.testing.assert_allclose(here.z[k] - z[k], whole * min(1.0, LONGEST_STEP / lengths[k]), rtol=1e-8)
    assert min(lengths) < LONGEST_STEP < max(lengths)
    assert (here.z[5] - z[5]) @ gradient[5] < 0  # downhill, where it is no hill


def test_whose_slope_is_not_known_begins_at_z(group):
    compiled, z, curvature = Cubic(), np.full((N, 2), 0.1), np.tile(np.eye(2), (N, 1, 1))
    slope = np.ones((N, 3))
    slope[3] = np.nan
    here = stand(group, z.copy(), curvature, EVERYONE, slope)
    assert (here.z != z).any(1).tolist() == [True, True, True, False, True]
    look_around(compiled, group, here, EVERYONE, EVERYONE)
    assert np.isfinite(here.objective).all()
    np.testing.assert_array_equal(here.z[3], z[3])


def test_a_step_that_does_not_lead_down_is_tried_again_shorter(group, here):
    compiled = Cubic()
    look_around(compiled, group, here, EVERYONE, EVERYONE)
    before, here.step[2] = here.z.copy(), -here.step[2]
    going = look_around(compiled, group, here, EVERYONE, np.array([0, 2]))
    assert here.share.tolist() == [1.0, 1.0, SHORTER, 1.0, 1.0]
    assert (here.z != before).any(1).tolist() == [True, False, False, False, False]
    assert 2 in going
    assert not {1, 3, 4} & set(going)


def test_a_last_step_is_taken_without_a_look(group, here):
    """Where derivatives say all, as of quadratic functions, it leads to what is there."""
    compiled = Cubic(bend=0.0)
    assert not look_around(compiled, group, here, EVERYONE, EVERYONE, nearly=np.inf).size
    assert here.found.all()
    value, slope = compiled.value_and_gradient(group.complete(group.unstandardise(here.z)), EVERYONE)
    np.testing.assert_allclose(here.log_likelihood, value, rtol=1e-6)
    np.testing.assert_allclose(here.slope, slope, atol=1e-6)
    np.testing.assert_allclose(here.z - slope[:, VARYING] @ group.cholesky[0], 0.0, atol=1e-6)  # a mode


def test_a_search_ends_where_the_gradient_is_small(group, here):
    compiled = Cubic(bend=0.0)
    for _ in range(3):
        going = look_around(compiled, group, here, EVERYONE, EVERYONE, tolerance=1e-6)
    assert here.found.all()
    assert not going.size
    assert np.abs(here.gradient).max() <= 1e-6


def test_each_ones_numbers_are_the_same_bits_whoever_else_is_there(group, here):
    compiled, alone = Cubic(), stand(group, here.z[3:4].copy(), here.second[3:4, VARYING], EVERYONE[3:4])
    for _ in range(2):
        look_around(compiled, group, here, EVERYONE, EVERYONE)
        look_around(compiled, group, alone, EVERYONE[3:4], np.array([0]))
    for name, mine, its in zip(here._fields, alone, here, strict=True):
        np.testing.assert_array_equal(mine[0], its[3], err_msg=name)
