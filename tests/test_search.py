"""The search on functions whose minima are known."""

import numpy as np
from scipy import optimize

from em_ppl.search import minimise


def rows(values_and_gradients):
    """Make an objective of a function of points alone."""
    return lambda z, index: values_and_gradients(z)


def test_quadratics_end_at_their_minima():
    generator = np.random.default_rng(0)
    roots = generator.normal(size=(50, 3, 3))
    a, centre = roots @ roots.transpose(0, 2, 1) + 0.1 * np.eye(3), generator.normal(size=(50, 3)) * 5

    def objective(z, index):
        away = z - centre[index]
        gradient = np.einsum("nij,nj->ni", a[index], away)
        return 0.5 * (away * gradient).sum(1), gradient

    found = minimise(objective, np.zeros((50, 3)), np.tile(np.eye(3), (50, 1, 1)), 1e-9, 3.0)
    assert found.converged.all()
    np.testing.assert_allclose(found.point, centre, atol=1e-6)


def test_rosenbrocks_valley_is_followed_to_its_end():
    def rosenbrock(z):
        return np.array([optimize.rosen(row) for row in z]), np.array([optimize.rosen_der(row) for row in z])

    start = np.array([[-1.2, 1.0], [2.0, -2.0], [0.0, 0.0]])
    found = minimise(rows(rosenbrock), start, np.tile(100 * np.eye(2), (3, 1, 1)), 1e-6, 3.0)
    assert found.converged.all()
    np.testing.assert_allclose(found.point, 1.0, atol=1e-5)


def test_where_a_function_is_no_number_the_step_is_shortened():
    def log_barrier(z):  # -log z + z, NaN at z <= 0
        with np.errstate(invalid="ignore", divide="ignore"):
            return (z - np.log(z))[:, 0], 1 - 1 / z

    found = minimise(rows(log_barrier), np.array([[1e-2], [30.0]]), np.ones((2, 1, 1)), 1e-8, 100.0)
    assert found.converged.all()
    np.testing.assert_allclose(found.point, 1.0, rtol=1e-6)


def test_a_function_without_a_minimum_is_not_called_converged():
    found = minimise(rows(lambda z: (z[:, 0], np.ones_like(z))), np.zeros((1, 1)), np.ones((1, 1, 1)), 1e-6, 3.0)
    assert not found.converged.any()


def test_a_function_that_is_nowhere_finite_is_not_called_converged():
    nothing = rows(lambda z: (np.full(len(z), np.nan), np.full_like(z, np.nan)))
    found = minimise(nothing, np.zeros((2, 1)), np.ones((2, 1, 1)), 1e-6, 3.0)
    assert not found.converged.any()
