"""Newton's step on the marginal likelihood, which takes over where EM's own steps lead on slowly, or to and fro.

EM is safe far from the maximum and slow near one about which trials say little; Newton's method is the other way round
(as Lange 1995, Statistica Sinica 5, 1-18, who steers gradually from the one to the other).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from em_ppl.blocks import Likelihoods
from em_ppl.e_step import Posteriors, Scheme, e_step
from em_ppl.group import FloatArray, Group
from em_ppl.m_step import group_log_posterior, group_score
from em_ppl.search import descent
from em_ppl.uncertainty import information

__all__ = ["newton_step", "step_by"]

LONGEST_STEP = 1.0  # of any free number, in its units
SHARES = (1.0, 0.3, 0.1, 0.03)  # of the step, that are tried
THIN = 0.01  # share of an SD that other parameters leave to it, below which a correlation is on its way to its bound
MAY_LOSE = 1e-3  # log posterior that a step may lose
MAY_LOSE_CLOSER = 1.0  # that it may lose where it brings the score closer to 0


class Further(NamedTuple):
    """Where Newton's step leads, and the information by which it was taken, (number, number)."""

    group: Group
    subjects: Posteriors
    information: FloatArray


@np.errstate(invalid="ignore")  # what is no finite number is no better, nor is one infinity than another
def newton_step(
    compiled: Likelihoods, group: Group, subjects: Posteriors, scheme: Scheme, update: Group
) -> Further | None:
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
    Further
        Where what is to be maximised is no lower, or the score closer to 0: where expectations are approximate the one
        is not quite the slope of the other. None, if that is nowhere along the step, or if a correlation is about to
        reach its bound, where free numbers go to infinity.
    """
    if _thin(group):
        return None
    by_subject, of_prior = information(compiled, group, subjects, scheme)
    total = by_subject.sum(0) + of_prior
    before, step = group_log_posterior(group, subjects), _step(total, group, subjects)
    known, moved = np.isfinite(step), _bounded(step, group, update)

    def length(newton: FloatArray) -> float:
        return float(np.linalg.norm((newton / group.units)[known]))

    for share in SHARES:
        other = group.from_vector(group.to_vector() + share * moved)
        found = e_step(compiled, other, subjects.laplace.start, scheme, brisk=True)
        lost = before - group_log_posterior(other, found)
        if lost <= MAY_LOSE:
            return Further(other, found, total)
        if lost <= MAY_LOSE_CLOSER and length(_step(total, other, found)) < (1 - share / 2) * length(step):
            return Further(other, found, total)
    return None


def step_by(information: FloatArray, group: Group, subjects: Posteriors, update: Group) -> Group | None:
    """Step by what is known of another place close by; None, if a correlation is about to reach its bound."""
    if _thin(group):
        return None
    return group.from_vector(group.to_vector() + _bounded(_step(information, group, subjects), group, update))


def _thin(group: Group) -> bool:
    return bool((np.diagonal(group.cholesky, axis1=1, axis2=2) < THIN * group.sd).any())


def _step(information: FloatArray, group: Group, subjects: Posteriors) -> FloatArray:
    """Newton's step, uphill even where the likelihood curves up; NaN for numbers of which nothing is known."""
    known = np.flatnonzero(np.isfinite(information).all(1))
    curvature = (information + information.T)[np.ix_(known, known)] / 2
    scale = np.sqrt(np.maximum(np.abs(np.diag(curvature)), 1e-8 / group.units[known] ** 2))
    standard, score = curvature / np.outer(scale, scale), group_score(group, subjects)[known] / scale
    step = np.full(len(information), np.nan)
    step[known] = descent(standard[None], -score[None], np.inf)[0] / scale
    return step


def _bounded(step: FloatArray, group: Group, update: Group) -> FloatArray:
    """Go with EM where nothing is known, and not too far."""
    moved = np.where(np.isfinite(step), step, update.to_vector() - group.to_vector())
    return np.asarray(moved / max(1.0, float(np.abs(moved / group.units).max()) / LONGEST_STEP))
