"""Where EM begins: a group around the parameters that suit everyone best, and subjects' modes from several starts."""

from __future__ import annotations

from functools import partial

import numpy as np
from numpy.typing import NDArray

from em_ppl.blocks import Likelihoods
from em_ppl.compiled import CompiledModel
from em_ppl.data import label_places
from em_ppl.group import FloatArray, Group
from em_ppl.modes import Minima, find_modes, minimise

POOLED_SUBJECTS = 64  # enough to say where the group is
POOLED_SPREAD = 3.0  # how far from a parameter's starting value the group may begin, in its spreads
EXTRA_STARTS = 4
WIDE_SEARCHES = 3  # how often EM may end, find a better mode for somebody, and go on
APART = 0.1  # group SDs between modes that count as two
COMPARABLE = 3.0  # log posterior, by which a second mode may be lower: then it has a say
ROUGH = 1e-2  # a gradient of this, in group SDs, leaves 1e-4 of the log-posterior open at most


def starting_point(compiled: Likelihoods) -> tuple[FloatArray, FloatArray]:
    """Find the pooled mode, the parameters of everyone were all subjects the same, and a wide spread around it.

    A `Real` parameter can be in any unit, so its spread comes from the data too: from the scores of the subjects
    at the pooled mode, g, and their median information h (one subject's likelihood may jump there), var(g) / h^2
    estimates the variance of the subjects' own estimates.

    Returns
    -------
    start, spread : ndarray
        (declared parameter,), Gaussian space.
    """
    parameters = list(compiled.model.parameters.values())
    start = np.array([p.gaussian_start for p in parameters])
    spread = np.array([p.spread or 1.0 for p in parameters])
    from_data = np.array([p.spread is None for p in parameters])
    pull = np.where(from_data, 1e-6, POOLED_SPREAD**-2)
    in_order = label_places(compiled.data["subject"].values).argsort()
    chosen = np.unique(np.linspace(0, compiled.shape[0] - 1, POOLED_SUBJECTS).astype(np.intp))
    some = compiled.take(np.sort(in_order[chosen]))  # the same, whatever the order of the data
    n_subjects = some.shape[0]

    def scores(z: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Evaluate everybody at each of some points, one after the other."""
        x = np.tile(start + np.atleast_2d(z) * spread, (n_subjects, 1))
        value, gradient = some.value_and_gradient(x, np.repeat(np.arange(n_subjects), len(np.atleast_2d(z))))
        return value, gradient * spread

    def pooled(z: FloatArray, _: NDArray[np.intp]) -> tuple[FloatArray, FloatArray]:
        value, gradient = scores(z[0])
        return 0.5 * (pull * z**2).sum(1) - value.sum(), pull * z - gradient.sum(0)

    def information(z: FloatArray) -> FloatArray:
        """Return each subject's, (subject, parameter, parameter)."""
        sides = 1e-3 * np.concatenate([-np.eye(len(z)), np.eye(len(z))])
        slopes = scores(z + sides)[1].reshape(n_subjects, 2, len(z), len(z))
        slopes = (slopes[:, 0] - slopes[:, 1]) / 2e-3
        return np.where(np.isfinite(slopes), (slopes + slopes.transpose(0, 2, 1)) / 2, 0.0)

    origin = np.zeros(len(start))
    # in what the trials of one subject resolve, whatever the unit of the parameter; the first look goes by its unit
    for _ in range(3):
        resolved = np.median(np.diagonal(information(origin), axis1=1, axis2=2), axis=0)
        spread = np.where(from_data & (resolved > 0), spread / np.sqrt(np.where(resolved > 0, resolved, 1.0)), spread)
    hessian = information(origin).sum(0) + np.diag(pull)
    found = minimise(pooled, origin[None], hessian[None], tolerance=1e-3 * n_subjects, longest_step=np.inf)
    z = found.point[0] if np.isfinite(found.value[0]) else origin
    h, noise = np.median(np.diagonal(information(z), axis1=1, axis2=2), axis=0), scores(z)[1].var(0)
    known = from_data & (h > 0) & np.isfinite(noise)
    safe = np.where(known, h, 1.0)
    return start + z * spread, np.where(known, spread * np.sqrt(np.maximum(noise / safe**2, 1 / safe)), spread)


def search_widely(
    compiled: Likelihoods, group: Group, x: FloatArray, curvature: FloatArray, generator: np.random.Generator
) -> tuple[FloatArray, NDArray[np.bool_], NDArray[np.bool_]]:
    """Search each subject's mode from further points of the group, the same for all, and keep the best.

    Modes are found roughly only, which is enough to tell one from another; the E-step that follows polishes them.

    Returns
    -------
    x : ndarray
        (subject, parameter), about the most probable mode found.
    better : ndarray of bool
        Whose is more probable than the one that the search from `x` finds.
    several : ndarray of bool
        Who has another mode that is about as probable.
    """
    starts = generator.standard_normal((EXTRA_STARTS, x.shape[1]))
    return compiled.map(partial(search_from, starts=starts), group, x, curvature)


def search_from(
    compiled: CompiledModel, group: Group, x: FloatArray, curvature: FloatArray, *, starts: FloatArray
) -> tuple[FloatArray, NDArray[np.bool_], NDArray[np.bool_]]:
    """`search_widely` from given points, (start, parameter), where the group is standard."""
    n, k = len(x), len(starts)
    best = find_modes(compiled, group, x, curvature, tol=ROUGH)
    point, value = best.point.copy(), best.value.copy()
    rival, several = best.point.copy(), np.zeros(n, dtype=bool)
    who = np.repeat(np.arange(n), k)  # a subject's searches side by side
    begin = group.unstandardise(np.tile(starts, (n, 1)), who)
    searches = find_modes(compiled, group, begin, curvature[who], who=who, tol=ROUGH)
    for each in range(k):
        other = Minima._make(values[each::k] for values in searches)
        differs = are_two(best, other)
        rival[differs], several = other.point[differs], several | differs
        lower = other.converged & ~(value <= other.value + ROUGH)
        point[lower], value[lower] = other.point[lower], other.value[lower]
    if (who := np.flatnonzero(several)).size:  # or two places on one flat top
        part, own = compiled.take(who), group.take(who)
        pair = [find_modes(part, own, own.unstandardise(found[who]), curvature[who]) for found in (best.point, rival)]
        several[who] = are_two(*pair)
    return group.unstandardise(point), value < best.value, several


@np.errstate(invalid="ignore")  # where both are infinite
def are_two(one: Minima, other: Minima) -> NDArray[np.bool_]:
    """Whose searches ended at two modes that are about as probable."""
    apart = np.linalg.norm(one.point - other.point, axis=1) > APART
    found, alike = one.converged & other.converged, np.abs(one.value - other.value) < COMPARABLE
    return np.asarray(found & apart & alike)
