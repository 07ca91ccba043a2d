"""Many small matrices at once, against NumPy one by one."""

import numpy as np
import pytest

from em_ppl.small_matrices import inverse_roots, product, product_with_itself, solve


@pytest.mark.parametrize("n", [1, 2, 3, 8])
def test_inverse_roots(n):
    generator = np.random.default_rng(n)
    definite = product_with_itself(generator.normal(size=(40, n, n))) + 0.1 * np.eye(n)
    turned = np.linalg.qr(generator.normal(size=(n, n)))[0]
    bent = turned @ np.diag([-0.5, *np.arange(1.0, n)]) @ turned.T
    roots, others = inverse_roots(np.array([*definite, bent, np.full((n, n), np.nan)]), 1e-8)
    assert others.tolist() == [40, 41]
    for matrix, root in zip(definite, roots[:40], strict=True):
        np.testing.assert_allclose(root @ root.T @ matrix, np.eye(n), atol=1e-9)
    np.testing.assert_array_equal(roots, np.triu(roots))
    # the same bits, whoever else is there
    np.testing.assert_array_equal(inverse_roots(definite[7:8], 1e-8)[0], roots[7:8])


def test_least_square_on_the_diagonal():
    matrices = np.array([np.diag([1.0, 1e-4]), np.diag([1.0, 1e-2]), np.diag([0.0, 1.0])])
    assert inverse_roots(matrices, 1e-3)[1].tolist() == [0, 2]


def test_product():
    generator = np.random.default_rng(0)
    matrices, vectors = generator.normal(size=(5, 3, 3)), generator.normal(size=(5, 3))
    expected = [matrix @ vector for matrix, vector in zip(matrices, vectors, strict=True)]
    np.testing.assert_allclose(product(matrices, vectors), expected)


def test_solve():
    generator = np.random.default_rng(0)
    matrices, vectors = product_with_itself(generator.normal(size=(5, 3, 3))) + np.eye(3), generator.normal(size=(5, 3))
    expected = [np.linalg.solve(matrix, vector) for matrix, vector in zip(matrices, vectors, strict=True)]
    np.testing.assert_allclose(solve(inverse_roots(matrices, 1e-8)[0], vectors), expected)
