"""Anderson acceleration: what theory promises of it on linear maps, and its safeguards."""

import numpy as np

from em_ppl.acceleration import GROWTH, LONGEST_EXTRAPOLATION, Anderson


def linear_map(eigenvalues, seed):
    """Return a contraction x -> A x + b and its fixed point."""
    generator = np.random.default_rng(seed)
    rotation = np.linalg.qr(generator.normal(size=(len(eigenvalues), len(eigenvalues))))[0]
    a = rotation @ np.diag(eigenvalues) @ rotation.T
    fixed_point = generator.normal(size=len(eigenvalues))
    return (lambda x: fixed_point + a @ (x - fixed_point)), fixed_point


def test_a_linear_map_in_as_many_dimensions_as_remembered_differences_is_solved():
    # Walker & Ni (2011): on linear maps, Anderson(m) is GMRES, which ends after as many steps as dimensions
    f, fixed_point = linear_map([0.9, 0.5, 0.2], seed=0)
    accelerate, x = Anderson(), fixed_point + 0.1
    for _ in range(5):
        x = accelerate(x, f(x))
    np.testing.assert_allclose(x, fixed_point, atol=1e-9)
    plain = fixed_point + 0.1
    for _ in range(5):
        plain = f(plain)
    assert np.abs(plain - fixed_point).max() > 0.01


def test_the_first_step_is_the_plain_one():
    np.testing.assert_array_equal(Anderson()(np.array([1.0]), np.array([3.0])), [3.0])


def test_an_extrapolation_is_no_longer_than_its_limit():
    f, _ = linear_map([0.9999], seed=1)
    accelerate, x = Anderson(), np.array([1e3])
    for _ in range(4):
        image = f(x)
        following = accelerate(x, image)
        assert np.abs(following - image).max() <= LONGEST_EXTRAPOLATION * (1 + 1e-12)
        x = following


def test_a_growing_residual_makes_it_forget():
    accelerate = Anderson()
    accelerate(np.array([0.0]), np.array([1.0]))
    image = np.array([2.0 + 1.1 * GROWTH])
    np.testing.assert_array_equal(accelerate(np.array([2.0]), image), image)


def test_points_that_repeat_do_no_harm():
    accelerate, x = Anderson(), np.array([1.0, 2.0])
    for _ in range(5):
        following = accelerate(x, x)
        np.testing.assert_array_equal(following, x)
