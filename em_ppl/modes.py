"""The E-step: every subject's mode under the group, and the Laplace approximation around it.

All subjects at once, each leaving the batch when its gradient is small. The search runs in the space where the
group is standard Normal, so that it does not depend on the units of the parameters.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from em_ppl.compiled import CompiledModel
from em_ppl.group import Group

FloatArray = NDArray[np.float64]
Index = NDArray[np.intp]
Objective = Callable[[FloatArray, Index], tuple[FloatArray, FloatArray]]

GRADIENT_TOLERANCE = 1e-6
MAX_STEPS = 100
LONGEST_STEP = 3.0  # in SDs of the group
STENCIL = 1e-3  # of a posterior SD: truncation 1e-7, rounding 1e-11 of the second derivative
LARGEST_SHIFT = 1.0  # in posterior SDs


@dataclass(frozen=True)
class Posteriors:
    """Laplace approximations of all subjects under one group; Gaussian space.

    Attributes
    ----------
    mode : ndarray
        (subject, parameter)
    covariance : ndarray
        Laplace covariance, (subject, parameter, parameter).
    shift : ndarray
        Mode minus posterior mean, to second order, (subject, parameter); 0 with the classic estimator.
    curvature : ndarray
        Hessian of the negative log-likelihood alone at the mode, (subject, parameter, parameter).
    slope : ndarray
        Gradient of the log-likelihood alone at the mode, (subject, parameter).
    log_likelihood, log_prior, log_evidence : ndarray
        (subject,)
    converged : ndarray of bool
        Whether the search ended at a mode.
    repaired : ndarray of bool
        Whether the curvature at the mode was no maximum's, and was repaired.
    shortened : ndarray of bool
        Whether the shift was longer than one posterior SD, and was cut to it.
    """

    mode: FloatArray
    covariance: FloatArray
    shift: FloatArray
    curvature: FloatArray
    slope: FloatArray
    log_likelihood: FloatArray
    log_prior: FloatArray
    log_evidence: FloatArray
    converged: NDArray[np.bool_]
    repaired: NDArray[np.bool_]
    shortened: NDArray[np.bool_]


class Minima(NamedTuple):
    """Where a batched search ended: point, value, gradient, and whether it is a minimum."""

    point: FloatArray
    value: FloatArray
    gradient: FloatArray
    converged: NDArray[np.bool_]


def e_step(
    compiled: CompiledModel, group: Group, start: FloatArray, curvature: FloatArray, *, corrected: bool
) -> Posteriors:
    """Find every subject's mode from `start`, and its Laplace approximation.

    Parameters
    ----------
    compiled : CompiledModel
        The likelihoods.
    group : Group
        The prior of each subject.
    start : ndarray
        (subject, parameter), where the searches begin.
    curvature : ndarray
        (subject, parameter, parameter), Hessian of the negative log-likelihood near there. A guess will do for all but
        the shift, which takes it for the one at the mode; while EM converges it becomes that.
    corrected : bool
        Whether to compute the shift from mode to mean.
    """
    found = find_modes(compiled, group, start, curvature)
    mode = group.unstandardise(found.point)
    slope = (found.point - found.gradient) @ np.linalg.inv(group.cholesky)  # of the log-likelihood
    curvature, bend = differentiate(compiled, mode, slope, scale=laplace_covariance(group, curvature)[0])
    covariance, repaired = laplace_covariance(group, curvature)
    shift, shortened = _shift(covariance, bend) if corrected else (np.zeros_like(mode), np.zeros(len(mode), dtype=bool))
    log_prior = group.log_density(mode)
    log_likelihood = 0.5 * (found.point**2).sum(1) - found.value
    log_determinant = np.linalg.slogdet(2 * np.pi * covariance)[1]
    return Posteriors(
        mode=mode,
        covariance=covariance,
        shift=shift,
        curvature=curvature,
        slope=slope,
        log_likelihood=log_likelihood,
        log_prior=log_prior,
        log_evidence=log_likelihood + log_prior + 0.5 * log_determinant,
        converged=found.converged,
        repaired=repaired,
        shortened=shortened,
    )


def predict_modes(group: Group, subjects: Posteriors) -> FloatArray:
    """Newton's step from the modes under another group towards those under this one; it evaluates nothing."""
    z = group.standardise(subjects.mode)
    slope = subjects.slope @ group.cholesky - z
    hessian = np.eye(z.shape[1]) + group.cholesky.T @ subjects.curvature @ group.cholesky
    return group.unstandardise(z + _newton_step(hessian, -slope, LONGEST_STEP))


def find_modes(
    compiled: CompiledModel, group: Group, start: FloatArray, curvature: FloatArray, *, tol: float = GRADIENT_TOLERANCE
) -> Minima:
    """Search every subject's mode, in the space where the group is standard Normal."""
    factor = group.cholesky

    def objective(z: FloatArray, index: Index) -> tuple[FloatArray, FloatArray]:
        everyone = len(index) == compiled.shape[0]
        value, gradient = compiled.value_and_gradient(group.unstandardise(z), None if everyone else index)
        return 0.5 * (z**2).sum(1) - value, z - gradient @ factor

    hessian = np.eye(len(factor)) + factor.T @ curvature @ factor
    tolerance = max(tol * min(1.0, group.sd.min()), 1e-10)  # holds in both spaces
    return minimise(objective, group.standardise(start), hessian, tolerance, LONGEST_STEP)


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
    active = np.arange(len(z))
    f, g = _finite(objective(z, active))
    for _ in range(MAX_STEPS):
        active = active[np.isfinite(f[active]) & (np.abs(g[active]).max(1) > tolerance)]
        if not len(active):
            break
        step = _newton_step(hessian[active], g[active], longest_step)
        new, f_new, g_new, moved = _backtrack(objective, z[active], step, f[active], g[active], active)
        hessian[active] = _bfgs(hessian[active], new - z[active], g_new - g[active])
        hessian[active[~moved]] *= 10.0  # no descent along this step: trust the model less
        z[active], f[active], g[active] = new, f_new, g_new
    # where rounding hides the rest of the gradient, a millionth of a posterior SD will do
    left = (_newton_step(hessian, g, np.inf) * -g).sum(1)
    return Minima(z, f, g, np.isfinite(f) & ((np.abs(g).max(1) <= tolerance) | (left < 1e-12)))


def _finite(values: tuple[FloatArray, FloatArray]) -> tuple[FloatArray, FloatArray]:
    f, g = values
    bad = ~(np.isfinite(f) & np.isfinite(g).all(1))
    return np.where(bad, np.inf, f), np.where(bad[:, None], 0.0, g)


def _positive(hessian: FloatArray) -> FloatArray:
    """Take the curvature's absolute value: Newton's steps then lead down, and BFGS keeps it so."""
    values, vectors = np.linalg.eigh(hessian)
    return (vectors * np.maximum(np.abs(values), 1e-3)[:, None, :]) @ vectors.transpose(0, 2, 1)


def _newton_step(hessian: FloatArray, g: FloatArray, longest: float) -> FloatArray:
    values, vectors = np.linalg.eigh(hessian)
    inverse = 1 / np.maximum(np.abs(values), 1e-3)  # rounding may leave BFGS's matrix with a negative value
    step = -np.einsum("nij,nj,nkj,nk->ni", vectors, inverse, vectors, g, optimize=True)
    length = np.sqrt((step**2).sum(1, keepdims=True))
    return np.asarray(step * np.minimum(1.0, longest / np.maximum(length, 1e-300)))


def _backtrack(
    objective: Objective, z: FloatArray, step: FloatArray, f: FloatArray, g: FloatArray, rows: Index
) -> tuple[FloatArray, FloatArray, FloatArray, NDArray[np.bool_]]:
    """Shorten steps until each one descends (Armijo); rows that never do stay where they are."""
    new = z + step
    f_new, g_new = _finite(objective(new, rows))
    slope = (step * g).sum(1)
    rounding = 1e-14 * np.abs(f)
    fraction = 1.0
    for _ in range(12):
        high = np.flatnonzero(f_new > f + 1e-4 * fraction * slope + rounding)
        if not len(high):
            break
        fraction *= 0.3
        new[high] = z[high] + fraction * step[high]
        f_new[high], g_new[high] = _finite(objective(new[high], rows[high]))
    moved = f_new <= f + rounding
    keep = moved[:, None]
    return np.where(keep, new, z), np.where(moved, f_new, f), np.where(keep, g_new, g), moved


def _bfgs(hessian: FloatArray, s: FloatArray, y: FloatArray) -> FloatArray:
    """Update Hessians by the change y of the gradient along s, where that keeps them positive."""
    sy, hs = (s * y).sum(1), np.einsum("nij,nj->ni", hessian, s)
    shs = (s * hs).sum(1)
    good = (sy > 1e-10 * np.sqrt((s**2).sum(1) * (y**2).sum(1))) & (shs > 0)
    sy, shs = np.where(good, sy, 1.0), np.where(good, shs, 1.0)
    change = np.einsum("ni,nj->nij", y, y) / sy[:, None, None] - np.einsum("ni,nj->nij", hs, hs) / shs[:, None, None]
    return hessian + np.where(good[:, None, None], change, 0.0)


def differentiate(
    compiled: CompiledModel, x: FloatArray, slope: FloatArray, scale: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Second and third derivatives of the negative log-likelihoods from 2P + 1 gradients, one of them known.

    The points lie at x and x +- e l_j, with l_j the columns of a Cholesky factor of `scale`: first differences of the
    gradient give H l_j, second differences summed over j give t_k = sum_ab scale_ab d3f / dx_a dx_b dx_k.

    Parameters
    ----------
    compiled : CompiledModel
        The likelihoods.
    x : ndarray
        (subject, parameter)
    slope : ndarray
        (subject, parameter), gradient of the log-likelihoods at x.
    scale : ndarray
        (subject, parameter, parameter), about the Laplace covariance.

    Returns
    -------
    hessian : ndarray
        (subject, parameter, parameter); 0 where a gradient in the neighbourhood is no finite number.
    bend : ndarray
        t, (subject, parameter).
    """
    factor = np.linalg.cholesky(scale)
    along, bend = np.empty_like(factor), np.zeros_like(x)
    for j in range(x.shape[1]):
        side = STENCIL * factor[:, :, j]
        up, down = (-compiled.value_and_gradient(x + s)[1] for s in (side, -side))
        along[:, :, j] = (up - down) / (2 * STENCIL)
        bend += (up + 2 * slope + down) / STENCIL**2
    hessian = along @ np.linalg.inv(factor)
    finite = np.isfinite(hessian).all((1, 2)) & np.isfinite(bend).all(1)
    hessian = np.where(finite[:, None, None], (hessian + hessian.transpose(0, 2, 1)) / 2, 0.0)
    return hessian, np.where(finite[:, None], bend, 0.0)


def laplace_covariance(group: Group, curvature: FloatArray) -> tuple[FloatArray, NDArray[np.bool_]]:
    """Invert the posterior's Hessian, and say whose had to be repaired.

    In the space where the group is standard Normal the Hessian is 1 plus what the trials add. A direction in which
    it is not positive has no maximum there: it is given curvature 1, the group's own, as if the trials said
    nothing about it.
    """
    factor = group.cholesky
    hessian = np.eye(len(factor)) + factor.T @ curvature @ factor
    values, vectors = np.linalg.eigh(hessian)
    bad = values < 1e-8
    roots = factor @ (vectors / np.sqrt(np.where(bad, 1.0, values))[:, None, :])
    return roots @ roots.transpose(0, 2, 1), bad.any(1)


def _shift(covariance: FloatArray, bend: FloatArray) -> tuple[FloatArray, NDArray[np.bool_]]:
    """Mode minus mean, V t / 2, no longer than one posterior SD.

    Longer ones are beyond a second-order expansion; within it, V - w w' and so the group's covariance stay positive.
    """
    shift = 0.5 * np.einsum("nij,nj->ni", covariance, bend)
    length = np.sqrt(np.maximum(0.5 * (shift * bend).sum(1), 0))  # w' V^-1 w = w' t / 2
    long = length > LARGEST_SHIFT
    return shift / np.where(long, length / LARGEST_SHIFT, 1.0)[:, None], long
