"""Where subjects' searches stand, and the steps on to their modes, in machine code: one subject after the other.

x = location + L z, with L the Cholesky factor of a subject's group. The likelihoods' slopes are taken at x and a little
to both sides along the columns of L A, with A about a root of the Laplace covariance where the group is standard: first
differences give second derivatives, second differences third ones.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from em_ppl.group import FloatArray, Group, Index
from em_ppl.machine_code import (
    Indices,
    Matrix,
    NewFlags,
    NewMatrix,
    NewTensor,
    NewVector,
    Tensor,
    Vector,
    in_machine_code,
)
from em_ppl.search import ARMIJO, ROUNDING, SHORTER, descent
from em_ppl.small_matrices import downhill, roots, transposed

__all__ = ["Place", "lay", "look", "stand"]

NO_HILL = 1e-8  # curvature of a posterior, below which it has no maximum in that direction
LONGEST_STEP = 3.0  # in SDs of the group
STENCIL = 1e-3  # of a posterior SD: truncation 1e-7, rounding 1e-11 of the second derivative


class Place(NamedTuple):
    """Where searches stand, a row each; where the group is standard, but for derivatives of log-likelihoods."""

    z: FloatArray
    log_likelihood: FloatArray
    slope: FloatArray  # (row, declared parameter)
    second: FloatArray  # negative, (row, declared parameter, parameter); 0 where it is no number
    third: FloatArray  # negative, (row, direction, declared parameter): two times along the same column of L A
    along: FloatArray  # A
    inverse_along: FloatArray
    objective: FloatArray  # negative log posterior, less a constant; infinite where there is none
    gradient: FloatArray  # of the objective
    hessian: FloatArray
    root: FloatArray  # R, with R R' the Laplace covariance
    inverse_root: FloatArray
    step: FloatArray  # Newton's, downhill
    share: FloatArray  # of the step, that is tried next
    repaired: NDArray[np.bool_]  # whether the posterior is no hill there, and the root was repaired
    found: NDArray[np.bool_]  # whether it is a mode

    def put(self, rows: Index, other: Place) -> None:
        """Let some rows be another's."""
        for mine, its in zip(self, other, strict=True):
            mine[rows] = its


def stand(group: Group, z: FloatArray, curvature: FloatArray, who: Index, slope: FloatArray | None = None) -> Place:
    """Stand at z, where nobody has looked.

    Parameters
    ----------
    group : Group
        The prior of each subject.
    z : ndarray
        (row, parameter), where the group is standard; becomes the place's own.
    curvature : ndarray
        About the Hessian of each negative log-likelihood there, (row, parameter, parameter).
    who : ndarray of int
        Each row's subject.
    slope : ndarray, optional
        Gradient of each log-likelihood there, (row, declared parameter), NaN where it is not known: where it is, a step
        of Newton's is taken from z.
    """
    (n, p), d = z.shape, len(group.model.unit)
    here = Place(
        z=z,
        log_likelihood=np.full(n, -np.inf),
        slope=np.zeros((n, d)),
        second=np.zeros((n, d, p)),
        third=np.zeros((n, p, d)),
        along=np.zeros((n, p, p)),
        inverse_along=np.zeros((n, p, p)),
        objective=np.full(n, np.inf),
        gradient=np.zeros((n, p)),
        hessian=np.zeros((n, p, p)),
        root=np.zeros((n, p, p)),
        inverse_root=np.zeros((n, p, p)),
        step=np.zeros((n, p)),
        share=np.ones(n),
        repaired=np.zeros(n, dtype=bool),
        found=np.zeros(n, dtype=bool),
    )
    here.second[:, group.model.varying] = curvature
    if slope is not None:
        here.slope[:] = slope
    _newton(group, here, who, np.arange(n), z)
    if slope is not None:
        here.z[:] += np.where(np.isfinite(here.step), here.step, 0.0)  # where a slope is no number it begins at z
    here.step[:] = 0.0
    return here


def lay(group: Group, here: Place, who: Index, going: Index) -> tuple[FloatArray, FloatArray, Index]:
    """Lay points where some rows go next.

    Parameters
    ----------
    who, going : ndarray of int
        Each row's subject, and which rows.

    Returns
    -------
    z : ndarray
        Where they go, (row, parameter).
    points : ndarray
        (row, point, declared parameter): x, then all on one side, then all on the other.
    whose : ndarray of int
        (row, point)
    """
    (n, p), d = (len(going), here.z.shape[1]), here.slope.shape[1]
    z, points = np.empty((n, p)), np.empty((n, 2 * p + 1, d))
    model, declared = group.model, group.complete(here.z[0])
    group_of_each = group.location, group.cholesky, model.level, model.varying, declared
    _lay(going, who, *group_of_each, here.z, here.share, here.step, here.root, z, points)
    return z, points, np.tile(who[going, None], 2 * p + 1)


def look(
    group: Group,
    here: Place,
    who: Index,
    going: Index,
    found: tuple[FloatArray, FloatArray, FloatArray],
    tolerance: float,
    nearly: float,
) -> Index:
    """Go where points were laid, unless that does not lead down; at a mode the search of a row ends.

    Parameters
    ----------
    who, going
        See `lay`.
    found : tuple of ndarray
        z of `lay`, and log-likelihoods and their slopes at its points, (row, point) and (row, point, declared).
    tolerance : float
        Largest gradient of a mode.
    nearly : float
        Where there is no more than this to gain, Newton's step is the last one, and is taken without a look.

    Returns
    -------
    ndarray of int
        Which rows go on.
    """
    (z, values, slopes), further = found, np.zeros(len(here.z), dtype=bool)
    possible = np.isfinite(values[:, 0]) & np.isfinite(slopes[:, 0]).all(1)
    potential = group.model.distribution.potential(z, group.model.joint)
    objective = np.where(possible, potential - values[:, 0], np.inf)
    if (high := ~_leads_down(here, going, objective)).any():
        further[going[high]] = True
        here.share[going[high]] *= SHORTER
        going, z, values, slopes = going[~high], z[~high], values[~high], slopes[~high]
        objective, possible = objective[~high], possible[~high]
    here.z[going], here.objective[going], here.share[going] = z, objective, 1.0
    here.log_likelihood[going] = np.where(possible, values[:, 0], -np.inf)
    of_group = group.cholesky, group.model.level[who], group.model.varying
    about, wanted = (here.root, here.inverse_root), (here.slope, here.second, here.third)
    _differentiate(going, slopes, *of_group, *about, here.along, here.inverse_along, *wanted)
    if not possible.all():
        _stand_still(group, here, who, going[~possible])
    _newton(group, here, who, going, z)
    goals = here.objective, here.step, here.gradient, here.second
    _arrive(going, *of_group, tolerance, nearly, *goals, here.z, here.log_likelihood, here.slope, here.found, further)
    return np.flatnonzero(further)


def _leads_down(here: Place, going: Index, objective: FloatArray) -> NDArray[np.bool_]:
    """Whether a step brings as much as its slope promises (Armijo), but for rounding; a first look does."""
    before = here.objective[going]
    promised = here.share[going] * np.einsum("np,np->n", here.step[going], here.gradient[going])
    return np.isinf(before) | (objective <= before + ARMIJO * promised + ROUNDING * np.abs(before))


def _stand_still(group: Group, here: Place, who: Index, rows: Index) -> None:
    """Let the slope be against the group's, where a log-likelihood has none: that of the posterior is 0."""
    inverse = group.inverse_cholesky[group.model.level[who[rows]]]
    here.slope[rows] = 0.0
    here.slope[np.ix_(rows, group.model.varying)] = np.einsum("nj,nji->ni", group.pull(here.z[rows]), inverse)


def _newton(group: Group, here: Place, who: Index, going: Index, z: FloatArray) -> None:
    """Take Newton's steps, downhill, from slopes and curvatures.

    A direction in which the Hessian is not positive has no maximum: it is given curvature 1 in the root, that of a
    Normal group, as if the trials said nothing about it.
    """
    bent, of_group = np.zeros(len(here.z), dtype=bool), (group.cholesky, group.model.level[who], group.model.varying)
    wanted = here.gradient, here.hessian, here.root
    _derive(going, group.pull(z), group.curvature(z), *of_group, here.slope, here.second, *wanted)
    roots(going, here.hessian, NO_HILL, here.root, here.inverse_root, bent)
    downhill(going, here.root, here.gradient, LONGEST_STEP, here.step)
    here.repaired[going] = False
    if bent.any():
        here.step[bent] = descent(here.hessian[bent], here.gradient[bent], LONGEST_STEP)
        values, vectors = np.linalg.eigh(here.hessian[bent])
        flat = values < NO_HILL
        widths = np.sqrt(np.where(flat, 1.0, values))[:, None, :]
        here.root[bent], here.inverse_root[bent] = vectors / widths, transposed(vectors * widths)
        here.repaired[bent] = flat.any(1)


@in_machine_code
def _lay(
    going: Indices,
    who: Indices,
    location: Matrix,
    factor: Tensor,
    level: Indices,
    varying: Indices,
    declared: Vector,
    start: Matrix,
    share: Vector,
    step: Matrix,
    root: Tensor,
    z: NewMatrix,
    points: NewTensor,
) -> None:
    p = len(varying)
    for j in range(len(going)):
        i = going[j]
        s = who[i]
        for k in range(2 * p + 1):
            for q in range(len(declared)):
                points[j, k, q] = declared[q]
        for a in range(p):
            z[j, a] = start[i, a] + share[i] * step[i, a]
        for a in range(p):
            x = location[s, a]
            for b in range(a + 1):
                x += factor[level[s], a, b] * z[j, b]
            points[j, 0, varying[a]] = x
            for c in range(p):
                side = 0.0
                for b in range(a + 1):
                    side += factor[level[s], a, b] * root[i, b, c]
                points[j, 1 + c, varying[a]] = x + STENCIL * side
                points[j, 1 + p + c, varying[a]] = x - STENCIL * side


@in_machine_code
def _differentiate(
    going: Indices,
    slopes: Tensor,
    factor: Tensor,
    level: Indices,
    varying: Indices,
    root: Tensor,
    inverse_root: Tensor,
    along: NewTensor,
    inverse_along: NewTensor,
    slope: NewMatrix,
    second: NewTensor,
    third: NewTensor,
) -> None:
    """Take differences about the root by which the points were laid."""
    d, p = slopes.shape[2], len(varying)
    for j in range(len(going)):
        i = going[j]
        s, finite = level[i], True
        for a in range(p):
            for b in range(p):
                along[i, a, b] = root[i, a, b]
                inverse_along[i, a, b] = inverse_root[i, a, b]
        for q in range(d):
            here = slopes[j, 0, q]
            slope[i, q] = here
            for a in range(p):
                bend, total = (2 * here - slopes[j, 1 + a, q] - slopes[j, 1 + p + a, q]) / STENCIL**2, 0.0
                third[i, a, q] = bend
                for b in range(p):  # differences are the columns of H L A
                    total += (slopes[j, 1 + p + b, q] - slopes[j, 1 + b, q]) * inverse_along[i, b, a]
                second[i, q, a] = total / (2 * STENCIL)
                if not math.isfinite(bend):
                    finite = False
            for a in range(p - 1, -1, -1):  # L is taken off from its last column on
                total = second[i, q, a]
                for b in range(a + 1, p):
                    total -= second[i, q, b] * factor[s, b, a]
                total /= factor[s, a, a]
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
def _derive(
    going: Indices,
    pull: Matrix,
    own: Tensor,
    factor: Tensor,
    level: Indices,
    varying: Indices,
    slope: Matrix,
    second: Tensor,
    gradient: NewMatrix,
    hessian: NewTensor,
    half: NewTensor,
) -> None:
    """Take derivatives of the objective, to which the group adds `pull` and `own`."""
    p = len(varying)
    for j in range(len(going)):
        i = going[j]
        s = level[i]
        for a in range(p):
            total = pull[j, a]
            for b in range(a, p):
                total -= factor[s, b, a] * slope[i, varying[b]]
            gradient[i, a] = total
            for b in range(p):  # H L
                total = 0.0
                for c in range(b, p):
                    total += second[i, varying[a], c] * factor[s, c, b]
                half[i, a, b] = total
        for a in range(p):
            for b in range(a + 1):
                total = 0.0
                for c in range(a, p):
                    total += factor[s, c, a] * half[i, c, b]
                for c in range(b, p):
                    total += factor[s, c, b] * half[i, c, a]
                hessian[i, a, b] = own[j, a, b] + total / 2
                hessian[i, b, a] = hessian[i, a, b]


@in_machine_code
def _arrive(
    going: Indices,
    factor: Tensor,
    level: Indices,
    varying: Indices,
    tolerance: float,
    nearly: float,
    objective: Vector,
    step: Matrix,
    gradient: Matrix,
    second: Tensor,
    z: NewMatrix,
    log_likelihood: NewVector,
    slope: NewMatrix,
    found: NewFlags,
    further: NewFlags,
) -> None:
    """End searches at modes, or a short step before them: all but value and slope then remain those of before."""
    p = len(varying)
    for i in going:
        promised, steepest, curved = 0.0, 0.0, False  # a curvature of 0 may be one that could not be taken
        for a in range(p):
            promised -= step[i, a] * gradient[i, a]
            steepest = max(steepest, abs(gradient[i, a]))
            for b in range(p):
                if second[i, varying[a], b] != 0.0:
                    curved = True
        possible = objective[i] < math.inf
        if possible and steepest <= tolerance:
            found[i] = True
        elif possible and promised <= nearly and curved:
            found[i] = True
            for a in range(p):
                along = 0.0
                for b in range(a + 1):
                    along += factor[level[i], a, b] * step[i, b]
                # half of the slope from before this part of the step, and half of that from after it
                log_likelihood[i] += 0.5 * along * slope[i, varying[a]]
                for q in range(slope.shape[1]):
                    slope[i, q] -= second[i, q, a] * along
                log_likelihood[i] += 0.5 * along * slope[i, varying[a]]
                z[i, a] += step[i, a]
        else:
            further[i] = possible
