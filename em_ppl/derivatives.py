"""Derivatives of subjects' log-likelihoods, and the steps that they lead to, in machine code.

x = location + L z, with L the Cholesky factor of a subject's group. Slopes are taken at x and a little to both sides
along the columns of L A, with A about a root of the Laplace covariance where the group is standard.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from em_ppl.machine_code import Matrix, NewFlags, NewMatrix, NewTensor, Places, Tensor, in_machine_code

__all__ = ["differences", "newton", "points_around"]

FloatArray = NDArray[np.float64]
Index = NDArray[np.intp]
Flags = NDArray[np.bool_]


def points_around(
    location: FloatArray,
    factor: FloatArray,
    z: FloatArray,
    along: FloatArray,
    declared: FloatArray,
    varying: Index,
    step: float,
) -> FloatArray:
    """Lay the points, (subject, point, declared parameter): x, then all on one side, then all on the other.

    Parameters
    ----------
    location, factor, z, along : ndarray
        See above; (subject, parameter) and (subject, parameter, parameter).
    declared : ndarray
        Declared parameters, of which the shared ones count.
    varying : ndarray of int
        Places of the others among them.
    step : float
        How far to go along each column.
    """
    n, p = z.shape
    points = np.empty((n, 2 * p + 1, len(declared)))
    points[:] = declared
    _points_around(location, factor, z, along, varying, step, points)
    return points


def differences(
    slopes: FloatArray, factor: FloatArray, inverse: FloatArray, varying: Index, step: float
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Take second and third derivatives.

    Parameters
    ----------
    slopes : ndarray
        At the points of `points_around`, (subject, point, declared parameter).
    factor, varying, step
        Of these.
    inverse : ndarray
        Of A, (subject, parameter, parameter).

    Returns
    -------
    slope : ndarray
        At x, (subject, declared parameter).
    second, third : ndarray
        See `em_ppl.modes.differentiate`.
    """
    (n, _, d), p = slopes.shape, len(varying)
    slope, second, third = np.empty((n, d)), np.empty((n, d, p)), np.empty((n, p, d))
    _differences(slopes, factor, inverse, varying, step, slope, second, third)
    return slope, second, third


def newton(
    factor: FloatArray,
    slope: FloatArray,
    curvature: FloatArray,
    varying: Index,
    pull: FloatArray,
    own: FloatArray,
    least: float,
    longest: float,
) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray, FloatArray, Flags]:
    """Take Newton's steps on negative log posteriors, where the group is standard.

    Parameters
    ----------
    factor, varying
        See `points_around`.
    slope, curvature : ndarray
        Of log-likelihoods, (subject, declared parameter), and of negative ones, (subject, parameter, parameter).
    pull, own : ndarray
        Gradient and Hessian of the group's negative log densities by z.
    least : float
        See `em_ppl.small_matrices.cholesky`.
    longest : float
        Largest length of a step.

    Returns
    -------
    gradient, hessian : ndarray
        By z, (subject, parameter) and (subject, parameter, parameter).
    root, inverse : ndarray
        R with R R' the Hessian's inverse, and its inverse, (subject, parameter, parameter), upper triangular.
    step : ndarray
        - R R' gradient, (subject, parameter), no longer than that.
    bent : ndarray of bool
        Whose Hessian is not positive definite: roots and steps mean nothing.
    """
    n, p = pull.shape
    gradient, step, bent = np.empty((n, p)), np.empty((n, p)), np.zeros(n, dtype=bool)
    hessian, root, inverse = np.empty((n, p, p)), np.empty((n, p, p)), np.zeros((n, p, p))
    _newton(factor, slope, curvature, varying, pull, own, least, longest, gradient, hessian, root, inverse, step, bent)
    return gradient, hessian, root, inverse, step, bent


@in_machine_code
def _points_around(
    location: Matrix, factor: Tensor, z: Matrix, along: Tensor, varying: Places, step: float, points: NewTensor
) -> None:
    n, p = z.shape
    for i in range(n):
        for a in range(p):
            here = location[i, a]
            for b in range(a + 1):
                here += factor[i, a, b] * z[i, b]
            points[i, 0, varying[a]] = here
            for c in range(p):
                side = 0.0
                for b in range(a + 1):
                    side += factor[i, a, b] * along[i, b, c]
                points[i, 1 + c, varying[a]] = here + step * side
                points[i, 1 + p + c, varying[a]] = here - step * side


@in_machine_code
def _differences(
    slopes: Tensor,
    factor: Tensor,
    inverse: Tensor,
    varying: Places,
    step: float,
    slope: NewMatrix,
    second: NewTensor,
    third: NewTensor,
) -> None:
    n, d, p = second.shape
    for i in range(n):
        finite = True
        for q in range(d):
            here = slopes[i, 0, q]
            slope[i, q] = here
            for a in range(p):
                bend, total = (2 * here - slopes[i, 1 + a, q] - slopes[i, 1 + p + a, q]) / step**2, 0.0
                third[i, a, q] = bend
                if not math.isfinite(bend):
                    finite = False
                for b in range(p):  # differences are the columns of H L A
                    total += (slopes[i, 1 + p + b, q] - slopes[i, 1 + b, q]) * inverse[i, b, a]
                second[i, q, a] = total / (2 * step)
            for a in range(p - 1, -1, -1):  # L is taken off from its last column on
                total = second[i, q, a]
                for b in range(a + 1, p):
                    total -= second[i, q, b] * factor[i, b, a]
                total /= factor[i, a, a]
                second[i, q, a] = total
                if not math.isfinite(total):
                    finite = False
        for a in range(p):
            for b in range(a):
                mean = (second[i, varying[a], b] + second[i, varying[b], a]) / 2
                second[i, varying[a], b] = mean
                second[i, varying[b], a] = mean
        if not finite:
            for q in range(d):
                for a in range(p):
                    second[i, q, a] = 0.0
                    third[i, a, q] = 0.0


@in_machine_code
def _newton(
    factor: Tensor,
    slope: Matrix,
    curvature: Tensor,
    varying: Places,
    pull: Matrix,
    own: Tensor,
    least: float,
    longest: float,
    gradient: NewMatrix,
    hessian: NewTensor,
    root: NewTensor,
    inverse: NewTensor,
    step: NewMatrix,
    bent: NewFlags,
) -> None:
    n, p = pull.shape
    for i in range(n):
        for a in range(p):
            total = pull[i, a]
            for b in range(a, p):
                total -= factor[i, b, a] * slope[i, varying[b]]
            gradient[i, a] = total
            for b in range(p):  # for now curvature L lies there
                total = 0.0
                for c in range(b, p):
                    total += curvature[i, a, c] * factor[i, c, b]
                root[i, a, b] = total
        for a in range(p):
            for b in range(a + 1):
                total = own[i, a, b]
                for c in range(a, p):
                    total += factor[i, c, a] * root[i, c, b]
                hessian[i, a, b] = total
                hessian[i, b, a] = total
        for a in range(p):  # Cholesky's factor is the inverse, transposed
            square = hessian[i, a, a]
            for b in range(a):
                total = hessian[i, a, b]
                for c in range(b):
                    total -= inverse[i, c, a] * inverse[i, c, b]
                total *= root[i, b, b]
                inverse[i, b, a] = total
                square -= total * total
            if not square > least:
                square = 1.0
                bent[i] = True
            inverse[i, a, a] = math.sqrt(square)
            root[i, a, a] = 1 / inverse[i, a, a]
            for b in range(a):
                root[i, a, b] = 0.0
                total = 0.0
                for c in range(b, a):
                    total += inverse[i, c, a] * root[i, b, c]
                root[i, b, a] = -total * root[i, a, a]
        length = 0.0
        for a in range(p):  # R' gradient lies there for now
            total = 0.0
            for b in range(a + 1):
                total += root[i, b, a] * gradient[i, b]
            step[i, a] = total
        for a in range(p):
            total = 0.0
            for b in range(a, p):
                total -= root[i, a, b] * step[i, b]
            step[i, a] = total
            length += total * total
        if length > longest * longest:
            for a in range(p):
                step[i, a] *= longest / math.sqrt(length)
