"""Many small matrices at once, (row, i, j).

Loops are over columns: LAPACK takes matrices one by one, and a call costs more than what it computes.
"""

from __future__ import annotations

import numpy as np

from em_ppl.group import FloatArray, Index

__all__ = ["inverse_roots", "product", "product_with_itself", "solve"]


def inverse_roots(matrices: FloatArray, least: float) -> tuple[FloatArray, Index]:
    """Find R with R R' the inverse of each symmetric matrix, by Cholesky's method.

    Parameters
    ----------
    matrices : ndarray
        (row, dimension, dimension).
    least : float
        Smallest square on the diagonal of Cholesky's factor, with which a matrix counts as positive definite.

    Returns
    -------
    roots : ndarray
        (row, dimension, dimension), upper triangular.
    others : ndarray of int
        Rows that are not positive definite, whose roots mean nothing.
    """
    lower, inverse = np.zeros_like(matrices), np.zeros_like(matrices)
    definite = np.ones(len(matrices), dtype=bool)
    for j in range(matrices.shape[1]):
        column = matrices[:, j:, j]
        if j:
            column = column - (lower[:, j:, :j] @ lower[:, j, :j, None])[:, :, 0]
        positive = column[:, 0] > least
        definite &= positive
        diagonal = np.sqrt(np.where(positive, column[:, 0], 1.0))[:, None]
        lower[:, j:, j] = column / diagonal
        inverse[:, j, j] = 1 / diagonal[:, 0]
        if j:
            inverse[:, j, :j] = (lower[:, j, None, :j] @ inverse[:, :j, :j])[:, 0] / -diagonal
    return inverse.transpose(0, 2, 1), np.flatnonzero(~definite)


def product(matrices: FloatArray, vectors: FloatArray) -> FloatArray:
    """Multiply each matrix by its vector, (row, dimension)."""
    return np.asarray((matrices @ vectors[:, :, None])[:, :, 0])


def solve(roots: FloatArray, vectors: FloatArray) -> FloatArray:
    """Multiply R R', of which R are roots of the inverse of something, by a vector each."""
    return product(roots, product(roots.transpose(0, 2, 1), vectors))


def product_with_itself(roots: FloatArray) -> FloatArray:
    """Return R R' of each."""
    return np.asarray(roots @ roots.transpose(0, 2, 1))
