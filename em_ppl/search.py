"""The search for minima of many small functions at once."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from em_ppl.group import FloatArray, Index
from em_ppl.machine_code import Indices, Matrix, NewFlags, NewMatrix, NewTensor, NewVector, Vector, in_machine_code
from em_ppl.small_matrices import cholesky, downhill, transposed

__all__ = ["Minima", "descent", "minimise"]

Objective = Callable[[FloatArray, Index], tuple[FloatArray, FloatArray]]

MAX_LOOKS = 300
ARMIJO = 1e-4  # of what the slope promises a step must bring
SHORTER = 0.3  # share of a step that is tried when it does not lead down
SHORTEST = 1e-6  # share at which it is given up
ROUNDING = 1e-14  # share of a value that it may be wrong by
CLOSE = 1e-12  # twice the log posterior that is left to gain: a millionth of a posterior SD
STUCK = 5  # steps in a row that led no lower, each a tenth of the one before
FLAT = 1e-3  # curvature of a search's steps, the group's being 1


class Minima(NamedTuple):
    """Where a batched search ended: point, value, gradient, and whether it is a minimum."""

    point: FloatArray
    value: FloatArray
    gradient: FloatArray
    converged: NDArray[np.bool_]


@np.errstate(over="ignore", invalid="ignore")  # what is no finite number is seen to
def minimise(objective: Objective, z: FloatArray, hessian: FloatArray, tolerance: float, longest_step: float) -> Minima:
    """Minimise many small functions at once: damped BFGS, each row leaving when its gradient is small.

    Parameters
    ----------
    objective : callable
        ``objective(z[rows], rows) -> values, gradients``. A value or gradient that is no finite number means
        "not here": the step towards it is shortened.
    z : ndarray
        (row, dimension), starting points.
    hessian : ndarray
        (row, dimension, dimension), a guess; it need not be positive definite.
    tolerance : float
        Largest absolute gradient of a minimum.
    longest_step : float
        Largest Euclidean length of a step.
    """
    n, z, hessian = len(z), z.copy(), _positive(hessian)
    value, gradient, step = np.full(n, np.inf), np.zeros(z.shape), np.zeros(z.shape)
    share, stuck, memory, going = np.ones(n), np.zeros(n), np.empty(z.shape), np.arange(n)
    for _ in range(MAX_LOOKS):
        new = z[going] + share[going, None] * step[going]
        arrived, ended = np.zeros((2, len(going)), dtype=bool)
        here = z, value, gradient, hessian, share, stuck, memory
        _judge(going, new, *objective(new, going), tolerance, step, *here, arrived, ended)
        turns = going[arrived & ~ended]
        step[turns] = descent(hessian[turns], gradient[turns], longest_step)
        going = going[~ended]
        if not len(going):
            break
    # where rounding hides the rest of the gradient, a millionth of a posterior SD will do
    left = (descent(hessian, gradient, np.inf) * -gradient).sum(1)
    converged = np.isfinite(value) & ((np.abs(gradient).max(1) <= tolerance) | (left < CLOSE))
    return Minima(z, value, gradient, converged)


def _positive(hessian: FloatArray) -> FloatArray:
    """Take the curvature's absolute value: Newton's steps then lead down, and BFGS keeps it so."""
    hessian, (_, _, bent) = hessian.copy(), cholesky(hessian, FLAT)
    if bent.any():
        values, vectors = np.linalg.eigh(hessian[bent])
        hessian[bent] = (vectors * np.maximum(np.abs(values), FLAT)[:, None, :]) @ vectors.transpose(0, 2, 1)
    return hessian


def descent(hessian: FloatArray, g: FloatArray, longest: float) -> FloatArray:
    """Return Newton's steps, (row, dimension), downhill also where the Hessian curves down, and no longer than that."""
    _, inverse, bent = cholesky(hessian, FLAT)
    root, step = transposed(inverse), np.empty(g.shape)
    if bent.any():
        values, vectors = np.linalg.eigh(hessian[bent])
        root[bent] = vectors / np.sqrt(np.maximum(np.abs(values), FLAT))[:, None, :]
    downhill(np.arange(len(g)), root, g, longest, step)
    return step


@in_machine_code
def _judge(
    going: Indices,
    new: Matrix,
    values: Vector,
    gradients: Matrix,
    tolerance: float,
    step: Matrix,
    z: NewMatrix,
    value: NewVector,
    gradient: NewMatrix,
    hessian: NewTensor,
    share: NewVector,
    stuck: NewVector,
    memory: NewMatrix,
    arrived: NewFlags,
    ended: NewFlags,
) -> None:
    """Go where it was looked if it is low enough, else try a shorter share of the step.

    With the change y of the gradient along the way s the Hessian is updated, where that keeps it positive (BFGS).
    `stuck` counts steps in a row that led no lower. Say whose step has ended, and whose search.
    """
    p = new.shape[1]
    for j in range(len(going)):
        i = going[j]
        there, slope = values[j], 0.0
        for a in range(p):
            slope += step[i, a] * gradient[i, a]
            there += 0.0 * gradients[j, a]  # NaN, unless all are finite
        if not math.isfinite(there):
            there = math.inf
        rounding = ROUNDING * abs(value[i])
        if there > value[i] + ARMIJO * share[i] * slope + rounding and share[i] > SHORTEST:
            share[i] *= SHORTER
            continue
        arrived[j] = True
        share[i] = 1.0
        stuck[i] = 0.0 if there < value[i] else stuck[i] + 1
        sy, shs, ss, yy = 0.0, 0.0, 0.0, 0.0
        for a in range(p):
            s, y, hs = new[j, a] - z[i, a], gradients[j, a] - gradient[i, a], 0.0
            for b in range(p):
                hs += hessian[i, a, b] * (new[j, b] - z[i, b])
            memory[i, a] = hs
            sy, shs, ss, yy = sy + s * y, shs + s * hs, ss + s * s, yy + y * y
        low, steepest = there <= value[i] + rounding, 0.0
        learns = low and shs > 0.0 and sy > 1e-10 * math.sqrt(ss * yy)
        for a in range(p):
            y = gradients[j, a] - gradient[i, a]
            for b in range(p):
                if learns:
                    change = y * (gradients[j, b] - gradient[i, b]) / sy - memory[i, a] * memory[i, b] / shs
                    hessian[i, a, b] += change
                elif not low:  # no descent along this step: trust the model less
                    hessian[i, a, b] *= 10.0
        for a in range(p):
            if low:
                z[i, a] = new[j, a]
                gradient[i, a] = gradients[j, a] if there < math.inf else 0.0
            steepest = max(steepest, abs(gradient[i, a]))
        if low:
            value[i] = there
        ended[j] = steepest <= tolerance or stuck[i] >= STUCK or value[i] == math.inf
