"""Small matrices of one subject after the other, in machine code.

NumPy and LAPACK take longer to be called for such a matrix than to work on it, and threads wait for each other.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from em_ppl.machine_code import Indices, Matrix, NewFlags, NewMatrix, NewTensor, Tensor, in_machine_code

__all__ = ["cholesky", "downhill", "product", "product_with_itself", "roots", "transposed"]

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
    upper, inverses = np.empty(matrices.shape), np.empty(matrices.shape)
    others = np.zeros(len(matrices), dtype=bool)
    roots(np.arange(len(matrices)), matrices, least, upper, inverses, others)
    return transposed(inverses), transposed(upper), others


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


@in_machine_code
def roots(
    rows: Indices, matrices: Tensor, least: float, upper: NewTensor, inverses: NewTensor, others: NewFlags
) -> None:
    """Write R, upper triangular, with R R' the inverse of each matrix, and its own inverse: see `cholesky`."""
    p = matrices.shape[1]
    for i in rows:
        for a in range(p):
            square = matrices[i, a, a]
            for b in range(a):
                total = matrices[i, a, b]
                for c in range(b):
                    total -= inverses[i, c, a] * inverses[i, c, b]
                total *= upper[i, b, b]
                inverses[i, b, a] = total
                square -= total * total
            if not square > least:
                square = 1.0
                others[i] = True
            root = math.sqrt(square)
            inverses[i, a, a] = root
            upper[i, a, a] = 1 / root
            for b in range(a):
                total = 0.0
                for c in range(b, a):
                    total += inverses[i, c, a] * upper[i, b, c]
                upper[i, b, a] = -total / root
                upper[i, a, b] = 0.0
                inverses[i, a, b] = 0.0


@in_machine_code
def downhill(rows: Indices, root: Tensor, gradients: Matrix, longest: float, steps: NewMatrix) -> None:
    """Write - R R' of each gradient, no longer than that: Newton's steps, if R are roots of Hessians' inverses."""
    p = steps.shape[1]
    for i in rows:
        for a in range(p):
            steps[i, a] = 0.0
        for b in range(p):
            total = 0.0
            for a in range(p):
                total -= root[i, a, b] * gradients[i, a]
            for a in range(p):
                steps[i, a] += root[i, a, b] * total
        length = 0.0
        for a in range(p):
            length += steps[i, a] * steps[i, a]
        if length > longest * longest:
            for a in range(p):
                steps[i, a] *= longest / math.sqrt(length)


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
