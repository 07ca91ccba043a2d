"""Newton's step on the marginal likelihood, which takes over where EM's own steps lead on slowly, or to and fro.

EM is safe far from the maximum and slow near one about which trials say little; Newton's method is the other way round
(as Lange 1995, Statistica Sinica 5, 1-18, who steers gradually from the one to the other).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from em_ppl.blocks import Likelihoods
from em_ppl.e_step import Posteriors, Scheme, e_step
from em_ppl.group import FloatArray, Group
from em_ppl.m_step import group_log_posterior, group_score
from em_ppl.modes import descent, predict_modes
from em_ppl.uncertainty import information

__all__ = ["newton_step"]

LONGEST_STEP = 1.0  # of any free number, in its units
SHARES = (1.0, 0.3, 0.1, 0.03)  # of the step, that are tried
THIN = 0.01  # share of an SD that other parameters leave to it, below which a correlation is on its way to its bound
MAY_LOSE = 1e-3  # log posterior that a step may lose
MAY_LOSE_CLOSER = 1.0  # that it may lose where it brings the score closer to 0


@np.errstate(invalid="ignore")  # what is no finite number is no better, nor is one infinity than another
def newton_step(
    compiled: Likelihoods, group: Group, subjects: Posteriors, scheme: Scheme, update: Group
) -> tuple[Group, Posteriors] | None:
    """Step towards the maximum of the log evidence plus the group's log prior.

    Parameters
    ----------
    compiled : CompiledModel or Blocks
        The likelihoods.
    group, subjects : Group, Posteriors
        Where EM stands.
    scheme : Scheme
        How expectations are taken; not the classic one, which maximises nothing.
    update : Group
        Where EM would go on to; so do SDs that have gone to 0, of which there is no information.

    Returns
    -------
    group, subjects : Group, Posteriors
        Where what is to be maximised is no lower, or the score closer to 0: where expectations are approximate the one
        is not quite the slope of the other. None, if that is nowhere along the step, or if a correlation is about to
        reach its bound, where free numbers go to infinity.
    """
    if (np.diagonal(group.cholesky, axis1=1, axis2=2) < THIN * group.sd).any():
        return None
    vector, solve = group.to_vector(), _solver(compiled, group, subjects, scheme)
    before, step = group_log_posterior(group, subjects), solve(group_score(group, subjects))
    known = np.isfinite(step)
    moved = np.where(known, step, update.to_vector() - vector)
    moved /= max(1.0, float(np.abs(moved / group.units).max()) / LONGEST_STEP)

    def length(newton: FloatArray) -> float:
        return float(np.linalg.norm((newton / group.units)[known]))

    for share in SHARES:
        other = group.from_vector(vector + share * moved)
        found = e_step(compiled, other, predict_modes(other, subjects.laplace), subjects.laplace.curvature, scheme)
        lost = before - group_log_posterior(other, found)
        if lost <= MAY_LOSE:
            return other, found
        if lost <= MAY_LOSE_CLOSER and length(solve(group_score(other, found))) < (1 - share / 2) * length(step):
            return other, found
    return None


def _solver(
    compiled: Likelihoods, group: Group, subjects: Posteriors, scheme: Scheme
) -> Callable[[FloatArray], FloatArray]:
    """Turn a score into Newton's step, uphill even where the likelihood curves up; NaN for what is not known."""
    by_subject, of_prior = information(compiled, group, subjects, scheme)
    total = by_subject.sum(0) + of_prior
    known = np.flatnonzero(np.isfinite(total).all(1))
    curvature = (total + total.T)[np.ix_(known, known)] / 2
    scale = np.sqrt(np.maximum(np.abs(np.diag(curvature)), 1e-8 / group.units[known] ** 2))
    standard = curvature / np.outer(scale, scale)

    def solve(score: FloatArray) -> FloatArray:
        step = np.full(len(total), np.nan)
        step[known] = descent(standard[None], -(score[known] / scale)[None], np.inf)[0] / scale
        return step

    return solve
