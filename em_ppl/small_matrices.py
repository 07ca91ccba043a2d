"""Small matrices of one subject after the other, in machine code.

NumPy and LAPACK take longer to be called for such a matrix than to work on it, and threads wait for each other.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from em_ppl.machine_code import NewFlags, NewTensor, Tensor, in_machine_code

__all__ = ["cholesky", "product", "product_with_itself", "solve", "transposed"]

FloatArray = NDArray[np.float64]


def cholesky(matrices: FloatArray, least: float = 0.0) -> tuple[FloatArray, FloatArray, NDArray[np.bool_]]:
    """Find L with L L' each symmetric matrix, and its inverse.

    Parameters
    ----------
    matrices : ndarray
        (row, dimension, dimension), of which the lower triangles are read.
    least : float
        A matrix counts as positive definite if all squares on the diagonal of L are more than this.

    Returns
    -------
    factors, inverses : ndarray
        (row, dimension, dimension), lower triangular.
    others : ndarray of bool
        Which matrices are not positive definite: their factors mean nothing.
    """
    factors, inverses = np.zeros(matrices.shape), np.zeros(matrices.shape)
    others = np.zeros(len(matrices), dtype=bool)
    _cholesky(matrices, least, factors, inverses, others)
    return factors, inverses, others


def product(matrices: FloatArray, others: FloatArray) -> FloatArray:
    """Multiply each matrix by its vector, (row, dimension), or by another matrix, (row, dimension, column)."""
    if others.ndim == 2:
        return product(matrices, others[:, :, None])[:, :, 0]
    if (len(matrices), matrices.shape[2]) != others.shape[:2]:  # machine code would read beyond them
        raise ValueError(f"matrices of shape {matrices.shape} cannot be multiplied by others of {others.shape}.")
    products = np.empty((*matrices.shape[:2], others.shape[2]))
    _products(matrices, others, products)
    return products


def transposed(matrices: FloatArray) -> FloatArray:
    """Return the transpose of each."""
    return matrices.transpose(0, 2, 1)


def product_with_itself(roots: FloatArray) -> FloatArray:
    """Return R R' of each."""
    return product(roots, transposed(roots))


def solve(roots: FloatArray, vectors: FloatArray) -> FloatArray:
    """Multiply R R', of which R are roots of the inverse of something, by a vector each."""
    return product(roots, product(transposed(roots), vectors))


@in_machine_code
def _cholesky(matrices: Tensor, least: float, factors: NewTensor, inverses: NewTensor, others: NewFlags) -> None:
    n, p = matrices.shape[:2]
    for i in range(n):
        for a in range(p):
            square = matrices[i, a, a]
            for b in range(a):
                total = matrices[i, a, b]
                for c in range(b):
                    total -= factors[i, a, c] * factors[i, b, c]
                total *= inverses[i, b, b]
                factors[i, a, b] = total
                square -= total * total
            if not square > least:
                square = 1.0
                others[i] = True
            root = math.sqrt(square)
            factors[i, a, a] = root
            inverses[i, a, a] = 1 / root
            for b in range(a):
                total = 0.0
                for c in range(b, a):
                    total += factors[i, a, c] * inverses[i, c, b]
                inverses[i, a, b] = -total / root


@in_machine_code
def _products(matrices: Tensor, others: Tensor, products: NewTensor) -> None:
    n, p, q = matrices.shape
    for i in range(n):
        for a in range(p):
            for c in range(others.shape[2]):
                total = 0.0
                for b in range(q):
                    total += matrices[i, a, b] * others[i, b, c]
                products[i, a, c] = total
