"""Small matrices, against NumPy one by one."""

import numpy as np
import pytest

from em_ppl.small_matrices import cholesky, downhill, product, product_with_itself, transposed


@pytest.mark.parametrize("n", [1, 2, 3, 8])
def test_cholesky(n):
    generator = np.random.default_rng(n)
    definite = product_with_itself(generator.normal(size=(40, n, n))) + 0.1 * np.eye(n)
    turned = np.linalg.qr(generator.normal(size=(n, n)))[0]
    bent = turned @ np.diag([-0.5, *np.arange(1.0, n)]) @ turned.T
    factors, inverses, others = cholesky(np.array([*definite, bent, np.full((n, n), np.nan)]), 1e-8)
    assert others.tolist() == [False] * 40 + [True, True]
    np.testing.assert_allclose(factors[:40], np.linalg.cholesky(definite), rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(inverses[:40] @ factors[:40], np.tile(np.eye(n), (40, 1, 1)), atol=1e-10)
    for triangular in (factors, inverses):
        np.testing.assert_array_equal(triangular, np.tril(triangular))
    # the same bits, whoever else is there
    np.testing.assert_array_equal(cholesky(definite[7:8])[1], inverses[7:8])


def test_least_square_on_the_diagonal():
    matrices = np.array([np.diag([1.0, 1e-4]), np.diag([1.0, 1e-2]), np.diag([0.0, 1.0])])
    assert cholesky(matrices, 1e-3)[2].tolist() == [True, False, True]


def test_product():
    generator = np.random.default_rng(0)
    matrices, others, vectors = (generator.normal(size=shape) for shape in ((5, 3, 2), (5, 2, 4), (5, 2)))
    np.testing.assert_allclose(product(matrices, others), matrices @ others)
    np.testing.assert_allclose(product(matrices, vectors), [m @ v for m, v in zip(matrices, vectors, strict=True)])
    # views, too
    np.testing.assert_allclose(product(transposed(others), transposed(matrices)), transposed(matrices @ others))
    np.testing.assert_allclose(product(matrices[::2], vectors[::2]), product(matrices, vectors)[::2])


def test_matrices_that_do_not_fit_are_refused():
    matrices = np.ones((5, 3, 2))
    for others in (np.ones((5, 3, 4)), np.ones((4, 2, 4)), np.ones((1, 2)), np.ones((5, 1))):
        with pytest.raises(ValueError, match=r"of shape \(5, 3, 2\) cannot be multiplied"):
            product(matrices, others)


@pytest.mark.parametrize("n", [1, 2, 5])
def test_downhill(n):
    generator = np.random.default_rng(n)
    matrices = product_with_itself(generator.normal(size=(5, n, n))) + np.eye(n)
    root, (gradients, steps) = transposed(cholesky(matrices)[1]), generator.normal(size=(2, 5, n))
    whole = np.array([-np.linalg.solve(matrix, vector) for matrix, vector in zip(matrices, gradients, strict=True)])
    lengths, before = np.linalg.norm(whole, axis=1, keepdims=True), steps.copy()
    longest = float(np.median(lengths))
    some, others = np.array([0, 2, 4]), np.array([1, 3])
    downhill(some, root, gradients, longest, steps)
    np.testing.assert_allclose(steps[some], (whole * np.minimum(1, longest / lengths))[some])
    np.testing.assert_array_equal(steps[others], before[others])
    downhill(others, root, gradients, np.inf, steps)
    np.testing.assert_allclose(steps[others], whole[others])
