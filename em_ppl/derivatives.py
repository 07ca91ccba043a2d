"""Derivatives of subjects' log-likelihoods, and the steps that they lead to.

x = location + L z, with L the Cholesky factor of a subject's group. Slopes are taken at x and a little to both sides
along the columns of L A, with A about a root of the Laplace covariance where the group is standard.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from em_ppl.machine_code import Matrix, NewMatrix, NewTensor, Places, Tensor, in_machine_code
from em_ppl.search import shortened
from em_ppl.small_matrices import cholesky, product, solve, transposed

__all__ = ["differences", "gradients", "hessians", "newton", "points_around"]

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


@np.errstate(over="ignore", invalid="ignore")  # whose Hessian is bent has no step
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
    gradient, hessian = gradients(factor, slope, varying, pull), hessians(factor, curvature, own)
    lower, inverse, bent = cholesky(hessian, least)
    root = transposed(inverse)
    return gradient, hessian, root, transposed(lower), shortened(-solve(root, gradient), longest), bent


def gradients(factor: FloatArray, slope: FloatArray, varying: Index, pull: FloatArray) -> FloatArray:
    """Gradients of negative log posteriors by z, (subject, parameter); arguments as for `newton`."""
    return pull - product(transposed(factor), slope[:, varying])


def hessians(factor: FloatArray, curvature: FloatArray, own: FloatArray) -> FloatArray:
    """Hessians of negative log posteriors by z, exactly symmetric, (subject, parameter, parameter)."""
    of_trials = product(transposed(factor), product(curvature, factor))
    return own + (of_trials + transposed(of_trials)) / 2


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
