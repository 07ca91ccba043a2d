"""The search for minima of many small functions at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from em_ppl.group import FloatArray, Index
from em_ppl.small_matrices import cholesky, product, solve, transposed

__all__ = ["Minima", "descent", "minimise"]

Objective = Callable[[FloatArray, Index], tuple[FloatArray, FloatArray]]

MAX_STEPS = 100
ARMIJO = 1e-4  # of what the slope promises a step must bring
SHORTER = 0.3  # share of a step that is tried when it does not lead down
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
    z, hessian = z.copy(), _positive(hessian)
    active, stuck = np.arange(len(z)), np.zeros(len(z), dtype=int)
    f, g = _finite(objective(z, active))
    for _ in range(MAX_STEPS):
        active = active[np.isfinite(f[active]) & (np.abs(g[active]).max(1) > tolerance) & (stuck[active] < STUCK)]
        if not len(active):
            break
        step = descent(hessian[active], g[active], longest_step)
        new, f_new, g_new, moved = _backtrack(objective, z[active], step, f[active], g[active], active)
        hessian[active] = _bfgs(hessian[active], new - z[active], g_new - g[active])
        hessian[active[~moved]] *= 10.0  # no descent along this step: trust the model less
        stuck[active] = np.where(f_new < f[active], 0, stuck[active] + 1)
        z[active], f[active], g[active] = new, f_new, g_new
    # where rounding hides the rest of the gradient, a millionth of a posterior SD will do
    left = (descent(hessian, g, np.inf) * -g).sum(1)
    return Minima(z, f, g, np.isfinite(f) & ((np.abs(g).max(1) <= tolerance) | (left < CLOSE)))


def _finite(values: tuple[FloatArray, FloatArray]) -> tuple[FloatArray, FloatArray]:
    f, g = values
    bad = ~(np.isfinite(f) & np.isfinite(g).all(1))
    return np.where(bad, np.inf, f), np.where(bad[:, None], 0.0, g)


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
    root = transposed(inverse)
    if bent.any():
        values, vectors = np.linalg.eigh(hessian[bent])
        root[bent] = vectors / np.sqrt(np.maximum(np.abs(values), FLAT))[:, None, :]
    return shortened(-solve(root, g), longest)


def shortened(step: FloatArray, longest: float) -> FloatArray:
    """Make steps no longer than that."""
    length = np.sqrt((step**2).sum(1, keepdims=True))
    return np.asarray(step * np.minimum(1.0, longest / np.maximum(length, 1e-300)))


def _backtrack(
    objective: Objective, z: FloatArray, step: FloatArray, f: FloatArray, g: FloatArray, rows: Index
) -> tuple[FloatArray, FloatArray, FloatArray, NDArray[np.bool_]]:
    """Shorten steps until each one descends (Armijo); rows that never do stay where they are."""
    new = z + step
    f_new, g_new = _finite(objective(new, rows))
    slope = (step * g).sum(1)
    rounding = ROUNDING * np.abs(f)
    fraction = 1.0
    for _ in range(12):
        high = np.flatnonzero(f_new > f + ARMIJO * fraction * slope + rounding)
        if not len(high):
            break
        fraction *= SHORTER
        new[high] = z[high] + fraction * step[high]
        f_new[high], g_new[high] = _finite(objective(new[high], rows[high]))
    moved = f_new <= f + rounding
    keep = moved[:, None]
    return np.where(keep, new, z), np.where(moved, f_new, f), np.where(keep, g_new, g), moved


def _bfgs(hessian: FloatArray, s: FloatArray, y: FloatArray) -> FloatArray:
    """Update Hessians by the change y of the gradient along s, where that keeps them positive."""
    sy, hs = (s * y).sum(1), product(hessian, s)
    shs = (s * hs).sum(1)
    good = (sy > 1e-10 * np.sqrt((s**2).sum(1) * (y**2).sum(1))) & (shs > 0)
    sy, shs = np.where(good, sy, 1.0), np.where(good, shs, 1.0)
    change = y[:, :, None] * (y / sy[:, None])[:, None] - hs[:, :, None] * (hs / shs[:, None])[:, None]
    return hessian + np.where(good[:, None, None], change, 0.0)
