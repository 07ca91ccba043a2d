"""How well the subjects determine the group: the observed information of the marginal likelihood.

Where the E-step integrates, by Louis's identity: the complete data's information less the variance of their score over
each subject's posterior. Where it is of second order, by differences of the score (Fisher's identity), whose Hessian is
then that of Laplace's likelihood. Either holds for any distribution of the group, covariates, shared parameters and
prior, and the uncertainty of the covariance is part of it.

References
----------
Louis, T. A. (1982). Finding the observed information matrix when using the EM algorithm. Journal of the Royal
Statistical Society B, 44, 226-233. https://doi.org/10.1111/j.2517-6161.1982.tb01203.x
"""

from __future__ import annotations

import numpy as np

from em_ppl.compiled import CompiledModel
from em_ppl.e_step import Posteriors, Scheme, evaluate, expand
from em_ppl.group import FloatArray, Group
from em_ppl.m_step import complete_scores, prior_score, resolved_share, scores, shared_information
from em_ppl.modes import approximate, predict_modes

STEP = 0.1  # of about a standard error
LONGEST_LOG_STEP = 0.1  # of a log SD, where that is more
UNRESOLVED = 1e-3  # share of a parameter's variance that trials resolve: below it its SD is as good as 0


def information(
    compiled: CompiledModel, group: Group, subjects: Posteriors, scheme: Scheme
) -> tuple[FloatArray, FloatArray]:
    """Observed information of the group's free numbers.

    Parameters
    ----------
    compiled, group, subjects
        Where EM ended.
    scheme : Scheme
        How expectations were taken. (The classic estimator has no likelihood: its information is the corrected one's.)

    Returns
    -------
    by_subject : ndarray
        What each subject adds, (subject, number, number); NaN for numbers that have no step: an SD that is 0.
    of_prior : ndarray
        What the group's prior adds, (number, number).
    """
    vector, steps = group.to_vector(), _steps(compiled, group, subjects)
    by_subject = np.full((compiled.shape[0], len(vector), len(vector)), np.nan)
    of_prior = np.zeros((len(vector), len(vector)))
    for k in np.flatnonzero(np.isfinite(steps)):
        side = np.zeros_like(vector)
        side[k] = steps[k]
        up, down = (group.from_vector(vector + s) for s in (side, -side))
        score = _complete_score if scheme.estimator == "exact" else _settled_score
        slope = score(compiled, down, subjects, scheme) - score(compiled, up, subjects, scheme)
        by_subject[:, k] = slope / (2 * steps[k])
        of_prior[k] = (prior_score(down) - prior_score(up)) / (2 * steps[k])
    if scheme.estimator == "exact":
        by_subject -= _variance_of_score(compiled, group, subjects)
    return by_subject, of_prior


def _settled_score(compiled: CompiledModel, group: Group, near: Posteriors, scheme: Scheme) -> FloatArray:
    """Score under a group close by, its E-step done again."""
    start = predict_modes(group, near.laplace)
    first = approximate(compiled, group, start, near.laplace.curvature)
    # once more, so that third derivatives are taken with the covariance there
    settled = approximate(compiled, group, first.mode, first.curvature)
    return scores(group, expand(compiled, group, settled, scheme))


def _complete_score(compiled: CompiledModel, group: Group, near: Posteriors, scheme: Scheme) -> FloatArray:
    """Return the complete data's expected score under a group close by, over the posteriors as they are."""
    shared = np.zeros((compiled.shape[0], 0))
    if len(group.shared):
        shared = np.einsum("nk,nkq->nq", near.weights, evaluate(compiled, group, near.points)[1])
    return np.concatenate([np.einsum("nk,nkc->nc", near.weights, complete_scores(group, near.points)), shared], axis=1)


def _variance_of_score(compiled: CompiledModel, group: Group, subjects: Posteriors) -> FloatArray:
    """Variance of the complete data's score over each subject's posterior, (subject, number, number)."""
    shared = (
        evaluate(compiled, group, subjects.points)[1] if len(group.shared) else np.zeros((*subjects.weights.shape, 0))
    )
    score = np.concatenate([complete_scores(group, subjects.points), shared], axis=2)
    score = score - np.einsum("nk,nkc->nc", subjects.weights, score)[:, None]
    return np.einsum("nk,nkc,nkd->ncd", subjects.weights, score, score, optimize=True)


def _steps(compiled: CompiledModel, group: Group, subjects: Posteriors) -> FloatArray:
    """About a tenth of each free number's standard error; NaN for the log SD of a parameter without spread."""
    members = group.model.members.sum(1)  # subjects of each class
    shares = resolved_share(group, subjects.laplace.mode, subjects.laplace.covariance)
    share = np.clip(np.diagonal(shares, axis1=1, axis2=2), 1e-6, 1.0)  # (level, parameter)
    of_mean = 1 / np.sqrt((members[:, None] * share / group.sd**2).sum(0))  # (parameter,)
    of_coefficient = of_mean[group.model.belongs_to] / group.model.typical
    of_log_sd = np.minimum(1 / (share * np.sqrt(2 * members[:, None])), LONGEST_LOG_STEP / STEP)
    of_log_sd = np.where(share < UNRESOLVED, np.nan, of_log_sd)
    of_below = np.repeat(1 / np.sqrt(members)[:, None], len(group.model.below[0]), axis=1)
    blocks = [of_coefficient, of_log_sd.ravel(), of_below.ravel()]
    if len(group.shared):
        known = np.abs(np.diag(shared_information(compiled, group, subjects)))
        blocks.append(1 / np.sqrt(known + group.model.unit[group.model.shared] ** -2))
    return STEP * np.concatenate(blocks)


def invert(by_subject: FloatArray, of_prior: FloatArray, always: int) -> FloatArray:
    """Invert the information of all subjects and the prior; NaN for numbers that it does not determine.

    These are dropped, the worst first, until the rest is positive definite: their covariance is that with the dropped
    ones held. The first `always` (the coefficients) are never dropped.
    """
    total = by_subject.sum(0) + of_prior
    total = (total + total.T) / 2
    kept = np.flatnonzero(np.isfinite(np.diag(total)))
    while True:
        part = total[np.ix_(kept, kept)]
        scale = np.sqrt(np.maximum(np.abs(np.diag(part)), 1e-300))
        values, vectors = np.linalg.eigh(part / np.outer(scale, scale))
        optional = kept >= always
        if values[0] > 1e-10 or not optional.any():
            break
        kept = np.delete(kept, np.argmax(np.where(optional, np.abs(vectors[:, 0]), -1.0)))
    covariance = np.full_like(total, np.nan)
    if values[0] > 1e-10:
        covariance[np.ix_(kept, kept)] = np.linalg.inv(part)
    return covariance
