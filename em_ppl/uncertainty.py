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

from dataclasses import dataclass

import numpy as np
import scipy

from em_ppl.blocks import Likelihoods
from em_ppl.compiled import CompiledModel
from em_ppl.e_step import Posteriors, Scheme, evaluate, expand, points_with, weigh
from em_ppl.estimators import ImportanceSampling, Rule
from em_ppl.group import FloatArray, Group
from em_ppl.m_step import complete_scores, prior_score, resolved_share, scores, shared_information
from em_ppl.modes import LaplaceApproximation, approximate
from em_ppl.small_matrices import cholesky, product, transposed

STEP = 1e-3  # of about a standard error: the error is of this order, rounding is of 1e-4
LONGEST_LOG_STEP = 1e-3  # of a log SD, where that is more
FEW = ImportanceSampling(draws=32, df=4)  # enough for a glance; the quantiles of this t have a closed form
FEW_SUMS = 2  # parameters: with these `bend_over` leaves nothing out
UNRESOLVED = 1e-3  # share of a parameter's variance that trials resolve: below it its SD is as good as 0


@dataclass(frozen=True)
class Uncertainty:
    """What is known of a group's free numbers (`Group.to_vector`).

    Attributes
    ----------
    by_subject : ndarray
        Information that each subject adds, (subject, number, number); NaN for an SD that is 0.
    covariance : ndarray
        Their sampling covariance, (number, number), NaN for those that the data do not determine.
    distance : ndarray
        About how far exact maximum likelihood is, in standard errors, (number,); 0 where the estimator is exact.
    elsewhere : ndarray
        About which share of each subject's posterior lies elsewhere than its Normal approximation says, (subject,).
    """

    by_subject: FloatArray
    covariance: FloatArray
    distance: FloatArray
    elsewhere: FloatArray

    @classmethod
    def unknown(cls, compiled: Likelihoods, group: Group) -> Uncertainty:
        """Make one of which nothing has been computed."""
        n = len(group.to_vector())
        nothing = np.full((compiled.shape[0], n, n), np.nan)
        return cls(nothing, nothing[0], nothing[0, 0], nothing[:, 0, 0])


def uncertainty(compiled: Likelihoods, group: Group, subjects: Posteriors, scheme: Scheme) -> Uncertainty:
    """Say how well the subjects determine the group, and how far the estimator's approximation led astray."""
    by_subject, of_prior = information(compiled, group, subjects, scheme)
    covariance = _invert(by_subject, of_prior, always=len(group.coefficients))
    if scheme.estimator == "exact":
        return Uncertainty(by_subject, covariance, np.zeros(len(covariance)), np.zeros(len(by_subject)))
    score, elsewhere = _glance(compiled, group, subjects.laplace, scheme.random_seed)
    # a glance would say little of those, but they have been integrated
    score[scheme.hard], elsewhere[scheme.hard] = scores(group, subjects)[scheme.hard], 0.0
    distance = distance_to_exact(score.sum(0) + prior_score(group), covariance)
    return Uncertainty(by_subject, covariance, distance, elsewhere)


def information(
    compiled: Likelihoods, group: Group, subjects: Posteriors, scheme: Scheme
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
    slopes = _shared_slopes(compiled, group, subjects) if scheme.estimator == "exact" else None

    def score(other: Group) -> FloatArray:
        if slopes is None:
            work = score_nearby if other is group else settled_score
            return compiled.map(work, other, subjects.laplace, scheme)
        moved = not np.array_equal(other.shared, group.shared)
        return _complete_score(other, subjects, _shared_slopes(compiled, other, subjects) if moved else slopes)

    here = score(group)
    for k in np.flatnonzero(np.isfinite(steps)):
        there = group.from_vector(vector + np.where(np.arange(len(vector)) == k, steps, 0.0))
        by_subject[:, k] = (here - score(there)) / steps[k]
        of_prior[k] = (prior_score(group) - prior_score(there)) / steps[k]
    if slopes is not None:
        by_subject -= _variance_of_score(group, subjects, slopes)
    return by_subject, of_prior


def settled_score(compiled: CompiledModel, group: Group, near: LaplaceApproximation, scheme: Scheme) -> FloatArray:
    """Score under a group close by, its E-step done again, (subject, number)."""
    if len(compiled.model.parameters) > FEW_SUMS:  # so that third derivatives are taken with the covariance there
        near = approximate(compiled, group, near.start)
    return score_nearby(compiled, group, near, scheme)


def score_nearby(compiled: CompiledModel, group: Group, near: LaplaceApproximation, scheme: Scheme) -> FloatArray:
    """Score under a group, (subject, number), of whose posteriors these are good approximations."""
    there = approximate(compiled, group, near.start)  # a Newton step nearer to modes
    return scores(group, expand(compiled, group, there, scheme))


def _shared_slopes(compiled: Likelihoods, group: Group, subjects: Posteriors) -> FloatArray:
    """Slope of the log-likelihood by shared parameters at every point, (subject, point, shared)."""
    if not len(group.shared):
        return np.zeros((*subjects.weights.shape, 0))
    return compiled.map(evaluate, group, subjects.points)[1]


def _complete_score(group: Group, near: Posteriors, slopes: FloatArray) -> FloatArray:
    """Return the complete data's expected score under a group close by, over the posteriors as they are."""
    score = np.concatenate([complete_scores(group, near.points), slopes], axis=2)
    return np.einsum("nk,nkc->nc", near.weights, score)


def _variance_of_score(group: Group, subjects: Posteriors, slopes: FloatArray) -> FloatArray:
    """Variance of the complete data's score over each subject's posterior, (subject, number, number)."""
    score = np.concatenate([complete_scores(group, subjects.points), slopes], axis=2)
    score = score - np.einsum("nk,nkc->nc", subjects.weights, score)[:, None]
    return np.einsum("nk,nkc,nkd->ncd", subjects.weights, score, score, optimize=True)


def _steps(compiled: Likelihoods, group: Group, subjects: Posteriors) -> FloatArray:
    """About a thousandth of each free number's standard error; NaN for the log SD of a parameter without spread."""
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


def _glance(
    compiled: Likelihoods, group: Group, laplace: LaplaceApproximation, random_seed: int
) -> tuple[FloatArray, FloatArray]:
    """Score of each subject's integrated likelihood, (subject, number), and share of its posterior that is elsewhere.

    From few points. Their error is all but taken away by what is known: the same points give the score for the Normal
    approximations of the posteriors, too, of which the moments are known (a control variate).
    """
    rule = FEW.rule(group, np.random.default_rng(random_seed))
    return compiled.map(glance_at, group, laplace, rule)


def glance_at(
    compiled: CompiledModel, group: Group, laplace: LaplaceApproximation, rule: Rule
) -> tuple[FloatArray, FloatArray]:
    """`_glance` of a portion of the subjects."""
    away, log_volume = rule.place(group, laplace)
    points = laplace.mode[:, None] + away
    log_weights, shared_slope = weigh(compiled, group, points, log_volume)
    weights = scipy.special.softmax(log_weights, axis=1)
    normal = _normal_weights(laplace, away, log_volume)
    by_point = np.einsum("nk,nkc->nc", weights - normal, complete_scores(group, points))
    first = -laplace.shift
    known = points_with(first, laplace.covariance + np.einsum("ni,nj->nij", first, first))
    shared_score = np.einsum("nk,nkq->nq", weights, shared_slope)
    of_normal = scores(group, Posteriors(laplace, *known, laplace.log_evidence, shared_score))
    of_normal[:, : by_point.shape[1]] += by_point
    return of_normal, 0.5 * np.abs(weights - normal).sum(1)


def _normal_weights(laplace: LaplaceApproximation, away: FloatArray, log_volume: FloatArray) -> FloatArray:
    """Weights of points, 1 in sum, under the Normal approximations instead of the posteriors, (subject, point)."""
    _, inverse, _ = cholesky(laplace.covariance)
    z = product(away + laplace.shift[:, None], transposed(inverse))
    return np.asarray(scipy.special.softmax(log_volume - 0.5 * np.einsum("nki,nki->nk", z, z), axis=1))


def distance_to_exact(score: FloatArray, covariance: FloatArray) -> FloatArray:
    """How far a Newton step on the integrated likelihood moves the group, in standard errors, (number,).

    The score is that of the integrated likelihood (and the prior); the covariance is that of the numbers' sampling
    distribution.
    """
    known = np.isfinite(np.diag(covariance))
    distance, inner = np.full(len(score), np.nan), covariance[np.ix_(known, known)]
    distance[known] = inner @ score[known] / np.sqrt(np.diag(inner))
    return distance


def _invert(by_subject: FloatArray, of_prior: FloatArray, always: int) -> FloatArray:
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
