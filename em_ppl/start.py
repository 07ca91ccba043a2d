"""Where EM begins: a group around the parameters that suit everyone best, and subjects' modes from several starts."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from em_ppl.blocks import Likelihoods
from em_ppl.compiled import CompiledModel
from em_ppl.data import label_places
from em_ppl.group import FloatArray, Group, GroupModel
from em_ppl.model import ModelError
from em_ppl.modes import Start, find_modes, look_around, step_to_modes
from em_ppl.places import STENCIL, stand
from em_ppl.search import ARMIJO, SHORTER, Minima, descent

MakeModel = Callable[[FloatArray], GroupModel]

POOLED_SUBJECTS = 64  # enough to say where the group is
POOLED_SPREAD = 3.0  # how far from a parameter's starting value the group may begin, in its spreads
LONGEST_STEP = 1.5  # of the way there, in spreads
EXTRA_STARTS = 4
WIDE_SEARCHES = 3  # how often EM may end, find a better mode for somebody, and go on
APART = 0.1  # group SDs between modes that count as two
COMPARABLE = 3.0  # log posterior, by which a second mode may be lower: then it has a say
ROUNDS_OF_SCALE = 3
MOST_LOOKS = 30  # at all pooled; where it stands then will do
ROUGH = 1e-2  # a gradient of this, in group SDs, leaves 1e-4 of the log-posterior open at most


def starting_group(compiled: Likelihoods, make_model: MakeModel) -> Group:
    """Make a wide group around the parameters that suit everyone best, were all subjects the same."""
    start, unit = starting_point(compiled)
    model = make_model(unit)
    covariances = np.tile(np.diag(unit[model.varying] ** 2), (model.n_levels, 1, 1))
    return Group(model, model.coefficients_near(start), covariances, start[model.shared])


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

    def look(z: FloatArray) -> Look:
        """Evaluate everybody at z and around it."""
        k = len(z)
        sides = STENCIL * np.eye(k)
        x = start + (z + np.concatenate([np.zeros((1, k)), sides, -sides])) * spread
        value, slope = some.value_and_gradient(np.tile(x, (n_subjects, 1)), np.repeat(np.arange(n_subjects), len(x)))
        value, slope = value.reshape(n_subjects, -1), slope.reshape(n_subjects, -1, k) * spread
        bend = (slope[:, k + 1 :] - slope[:, 1 : k + 1]) / (2 * STENCIL)
        return Look(value[:, 0], slope[:, 0], np.where(np.isfinite(bend), (bend + bend.transpose(0, 2, 1)) / 2, 0.0))

    z = np.zeros(len(start))
    here = look(z)
    # in what the trials of one subject resolve, whatever the unit of the parameter; the first look goes by its unit
    for _ in range(ROUNDS_OF_SCALE * from_data.any()):
        resolved = here.resolved
        spread = np.where(from_data & (resolved > 0), spread / np.sqrt(np.where(resolved > 0, resolved, 1.0)), spread)
        here = look(z)
    z, here = pooled_mode(look, z, here, pull, np.where(from_data, np.inf, LONGEST_STEP))
    h, noise = here.resolved, here.slope.var(0)
    known = from_data & (h > 0) & np.isfinite(noise)
    safe = np.where(known, h, 1.0)
    return start + z * spread, np.where(known, spread * np.sqrt(np.maximum(noise / safe**2, 1 / safe)), spread)


class Look(NamedTuple):
    """Derivatives of several subjects' log-likelihoods at the same point."""

    value: FloatArray  # (subject,)
    slope: FloatArray  # (subject, parameter)
    information: FloatArray  # (subject, parameter, parameter)

    @property
    def resolved(self) -> FloatArray:
        """Information that the median subject has about each parameter, (parameter,)."""
        return np.asarray(np.median(np.diagonal(self.information, axis1=1, axis2=2), axis=0))


def pooled_mode(
    look: Callable[[FloatArray], Look], z: FloatArray, here: Look, pull: FloatArray, longest: FloatArray
) -> tuple[FloatArray, Look]:
    """Take Newton's steps, shortened until they lead down; `pull` is a Normal prior's precision.

    No step is longer than `longest` in any parameter: from far off, curvatures that grow promise too much.
    """

    def objective(z: FloatArray, there: Look) -> tuple[float, FloatArray]:
        return float(0.5 * (pull * z**2).sum() - there.value.sum()), pull * z - there.slope.sum(0)

    f, g = objective(z, here)
    share = 1.0
    for _ in range(MOST_LOOKS):
        if not np.isfinite(f) or np.abs(g).max() < ROUGH * len(here.value):
            break
        [step] = descent((here.information.sum(0) + np.diag(pull))[None], g[None], np.inf)
        step /= max(1.0, float((np.abs(step) / longest).max()))
        there = look(z + share * step)
        f_there, g_there = objective(z + share * step, there)
        if f_there <= f + ARMIJO * share * (step @ g) and np.isfinite(g_there).all():
            z, here, f, g, share = z + share * step, there, f_there, g_there, 1.0
        else:
            share *= SHORTER
    return z, here


def starting_modes(compiled: Likelihoods, group: Group, generator: np.random.Generator) -> Start:
    """Search from the group mean; for whom that finds nothing, from further points of the wide starting group.

    EM looks for better modes of everyone when it is done.
    """
    starts = generator.standard_normal((EXTRA_STARTS, group.location.shape[1]))
    return compiled.map(partial(_first_modes, starts=starts), group)


def _first_modes(compiled: CompiledModel, group: Group, *, starts: FloatArray) -> Start:
    """`starting_modes` of a portion of the subjects."""
    mean, everyone = group.location, np.arange(compiled.shape[0])
    here = stand(group, np.zeros_like(mean), np.zeros((*mean.shape, mean.shape[1])), everyone)
    look_around(compiled, group, here, everyone, everyone)
    at_mean = here.second[:, group.model.varying]
    left = step_to_modes(compiled, group, here, ROUGH, ROUGH) if compiled.many_at_once else everyone
    curvature = here.second[:, group.model.varying]
    if len(left):
        curvature[left] = at_mean[left]
        found = find_modes(compiled, group, mean[left], curvature[left], who=left, tol=ROUGH)
        here.z[left], here.found[left] = found.point, found.converged
    mode = group.unstandardise(here.z)
    value, slope = compiled.value_and_gradient(group.complete(mode), everyone)  # the last steps were not looked at
    slope[left] = np.nan  # curvatures are those of elsewhere, by which no step is taken
    lost = np.flatnonzero(~(here.found & np.isfinite(value)))
    if lost.size:
        own = compiled.take(lost), group.take(lost), Start(mode[lost], curvature[lost])
        mode[lost], *_ = search_from(*own, starts=starts)
        slope[lost], x = np.nan, group.complete(mode)
        if not np.isfinite(compiled.value_and_gradient(x[lost], lost)[0]).all():
            raise ModelError(
                f"{compiled.model.name}: {compiled.explain(x)}. No starting point gave this subject a finite "
                "log-likelihood: check its data, and the bounds of the likelihood."
            )
    return Start(mode, curvature, slope)


def search_widely(
    compiled: Likelihoods, group: Group, near: Start, generator: np.random.Generator
) -> tuple[FloatArray, NDArray[np.bool_], NDArray[np.bool_]]:
    """Search each subject's mode from further points of the group, the same for all, and keep the best.

    Modes are found roughly only, which is enough to tell one from another; the E-step that follows polishes them.

    Returns
    -------
    x : ndarray
        (subject, parameter), about the most probable mode found.
    better : ndarray of bool
        Whose is more probable than the one that the search from `near` finds.
    several : ndarray of bool
        Who has another mode that is about as probable.
    """
    starts = generator.standard_normal((EXTRA_STARTS, near.mode.shape[1]))
    return compiled.map(partial(search_from, starts=starts), group, near)


def search_from(
    compiled: CompiledModel, group: Group, near: Start, *, starts: FloatArray
) -> tuple[FloatArray, NDArray[np.bool_], NDArray[np.bool_]]:
    """`search_widely` from given points, (start, parameter), where the group is standard."""
    n, k, curvature = len(near.mode), 1 + len(starts), near.curvature
    who = np.repeat(np.arange(n), k)  # a subject's searches side by side, the first from where they are
    z = np.concatenate([group.standardise(near.mode)[:, None], np.tile(starts, (n, 1, 1))], axis=1)
    begin = group.unstandardise(z.reshape(n * k, -1), who)
    found = find_modes(compiled, group, begin, curvature[who], who=who, tol=ROUGH)
    best, *others = (Minima._make(values[each::k] for values in found) for each in range(k))
    point, value = best.point.copy(), best.value.copy()
    rival, several = best.point.copy(), np.zeros(n, dtype=bool)
    for other in others:
        differs = are_two(best, other)
        rival[differs], several = other.point[differs], several | differs
        lower = other.converged & ~(value <= other.value + ROUGH)
        point[lower], value[lower] = other.point[lower], other.value[lower]
    if (who := np.flatnonzero(several)).size:  # or two places on one flat top
        part, own = compiled.take(who), group.take(who)
        pair = [find_modes(part, own, own.unstandardise(place[who]), curvature[who]) for place in (best.point, rival)]
        several[who] = are_two(*pair)
    return group.unstandardise(point), value < best.value, several


@np.errstate(invalid="ignore")  # where both are infinite
def are_two(one: Minima, other: Minima) -> NDArray[np.bool_]:
    """Whose searches ended at two modes that are about as probable."""
    apart = np.linalg.norm(one.point - other.point, axis=1) > APART
    found, alike = one.converged & other.converged, np.abs(one.value - other.value) < COMPARABLE
    return np.asarray(found & apart & alike)
