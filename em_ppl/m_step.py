"""The M-step: the group that is most probable given every subject's posterior, and the score that it sets to 0.

Dempster, Laird & Rubin (1977, J. R. Stat. Soc. B 39, 1-38); for heavy tails Lange, Little & Taylor (1989). With weights
u (1 in a Normal group) and residuals r = x - X b, expectations over subjects' posteriors: b by generalised least
squares, S = sum E[u r r'] / N, N - 1 with the default `GroupPrior`. Shared parameters take a Newton step.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import scipy

from em_ppl.blocks import Likelihoods
from em_ppl.compiled import CompiledModel
from em_ppl.e_step import Posteriors
from em_ppl.group import FloatArray, Group, GroupPrior, HyperPrior
from em_ppl.small_matrices import product, transposed

SMALLEST_SD = 1e-6  # relative to the starting spread: keeps a covariance positive definite
LONGEST_STEP = 1.0  # of a coefficient or a shared parameter that is lengthened, in its units
SHARED_RIDGE = 1e-4  # information per unit: a shared parameter about which less is known stays where it is
# shares of the group's variance that trials resolve, 1 - Laplace variance / group variance
CREEPING = 0.2  # below it EM creeps, and takes scoring steps instead
COLLAPSING = 0.02  # below it the SD may be on its way to 0
NOTHING = 1e-6  # below it trials say nothing at all, and rounding would
NO_SPREAD = 1e-5  # an SD that goes to 0 stops where its share is this: 0 itself has no standard space


@dataclass(frozen=True)
class Moments:
    """Expectations over each subject's posterior, with the weights u of the group's distribution.

    Attributes
    ----------
    weight : ndarray
        E[u], (subject, parameter).
    first : ndarray
        E[u r], r the distance from the subject's location, (subject, parameter).
    second : ndarray
        E[u r r'], (subject, parameter, parameter); of independent parameters only the diagonal counts.
    """

    weight: FloatArray
    first: FloatArray
    second: FloatArray


def moments(group: Group, subjects: Posteriors) -> Moments:
    """Take the expectations."""
    r = (subjects.laplace.mode - group.location)[:, None] + subjects.away
    u = group.weight(subjects.points) * subjects.weights[:, :, None]
    weight, first = np.einsum("nkp->np", u), np.einsum("nkp,nkp->np", u, r)
    return Moments(weight, first, product(transposed(u * r), r))


def m_step(compiled: Likelihoods, group: Group, subjects: Posteriors, *, lengthened: bool = True) -> Group:
    """Return the next group; lengthened, further on than EM's own step where that would creep."""
    expected = moments(group, subjects)
    coefficients = group.coefficients + _regression_step(group, expected)
    covariances = _residual_covariances(group, expected, group.model.design @ (coefficients - group.coefficients))
    if isinstance(group.model.prior, HyperPrior):
        coefficients, covariances = _penalised(group, group.model.prior, expected, coefficients, covariances)
    elif lengthened:
        coefficients, covariances = _scoring_steps(group, subjects, expected, coefficients, covariances)
    shared = group.shared
    if len(shared):
        shared = shared + shared_step(compiled, group, subjects)
    smallest = SMALLEST_SD * group.model.unit[group.model.varying]
    return Group(group.model, coefficients, _no_thinner(covariances, smallest), shared)


def _regression_step(group: Group, expected: Moments) -> FloatArray:
    """How far generalised least squares moves b."""
    design, precision = group.model.design, group.precision[group.model.level]
    pulled = product(precision, design)  # (subject, parameter, coefficient)
    information = np.tensordot(pulled, expected.weight[:, :, None] * design, ([0, 1], [0, 1]))
    score = np.tensordot(expected.first, pulled, 2)
    prior_score, prior_information = coefficient_prior(group)
    return np.asarray(np.linalg.solve(information + np.diag(prior_information), score + prior_score))


def coefficient_prior(group: Group) -> tuple[FloatArray, FloatArray]:
    """Score and information of the group's prior by b, (coefficient,)."""
    model = group.model
    if not isinstance(model.prior, GroupPrior) or model.prior.mean_spread is None:
        return np.zeros_like(group.coefficients), np.zeros_like(group.coefficients)
    spread = model.prior.mean_spread * model.spread[model.varying][model.belongs_to] / model.typical
    return (model.coefficients_near(model.centre) - group.coefficients) / spread**2, spread**-2.0


def _residual_covariances(group: Group, expected: Moments, moved: FloatArray) -> FloatArray:
    """S of each class, when the locations have moved."""
    cross = np.einsum("ni,nj->nij", expected.first, moved)
    second = expected.second - cross - cross.transpose(0, 2, 1)
    second = second + np.einsum("ni,ni,nj->nij", expected.weight, moved, moved)
    fewer = group.model.prior.sd_shape - 1 if isinstance(group.model.prior, GroupPrior) else 0.0
    members = group.model.members
    covariances = np.einsum("cn,nij->cij", members, second) / (members.sum(1) - fewer)[:, None, None]
    return covariances if group.model.joint else covariances * np.eye(covariances.shape[-1])


def _penalised(
    group: Group, prior: HyperPrior, expected: Moments, coefficients: FloatArray, covariances: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Maximise the expected log density plus any log prior of the means and log SDs, independent parameters.

    The search begins at what is best without the prior.
    """
    k, n = len(coefficients), len(group.location)
    units = group.units[: k + covariances.shape[1]]
    squares = np.einsum("nii->ni", expected.second)

    def negative(scaled: FloatArray) -> tuple[float, FloatArray]:
        b, log_sd = np.split(scaled * units, [k])
        moved, precision = group.model.design @ (b - group.coefficients), np.exp(-2 * log_sd)
        rest = expected.first - expected.weight * moved
        left = (squares - (expected.first + rest) * moved).sum(0)
        vector = np.concatenate([b, log_sd, group.shared])
        log_prior, by_prior = prior.function(vector)
        value = n * log_sd.sum() + 0.5 * (left * precision).sum() - float(log_prior)
        slope = [-np.einsum("npk,np->k", group.model.design, rest * precision), n - left * precision]
        return value, (np.concatenate(slope) - by_prior[: len(scaled)]) * units

    start = np.concatenate([coefficients, 0.5 * np.log(np.einsum("cii->i", covariances))]) / units
    found = scipy.optimize.minimize(negative, start, jac=True, method="BFGS", options={"gtol": 1e-9 * n}).x * units
    return found[:k], np.diag(np.exp(2 * found[k:]))[None]


def _no_thinner(covariances: FloatArray, smallest_sd: FloatArray) -> FloatArray:
    """Keep covariances positive definite where the data leave no variance between subjects."""
    unit = np.outer(smallest_sd, smallest_sd)
    values, vectors = np.linalg.eigh(covariances / unit)
    scaled = vectors * np.sqrt(np.maximum(values, 1))[:, None, :]
    thin = values[:, :1, None] < 1
    return np.where(thin, scaled @ scaled.transpose(0, 2, 1) * unit, covariances)


# --- where EM creeps ------------------------------------------------------------------------------------------------


def resolved_share(group: Group, mode: FloatArray, covariance: FloatArray) -> FloatArray:
    """Share of the group's variance that trials resolve, mean of each class, in the space where the group is standard.

    Between 0 (the trials say nothing) and the identity (each subject is known exactly), (level, parameter, parameter).
    """
    return _mean_of_each_class(group, _shares(group, mode, covariance))


def _shares(group: Group, mode: FloatArray, covariance: FloatArray) -> FloatArray:
    """`resolved_share` of each subject, (subject, parameter, parameter)."""
    inverse = group.inverse_cholesky[group.model.level]
    left = product(product(inverse, covariance), transposed(inverse))
    share = np.eye(left.shape[-1]) - product(group.curvature(group.standardise(mode)), left)
    return (share + transposed(share)) / 2


def _mean_of_each_class(group: Group, values: FloatArray) -> FloatArray:
    """Mean over the subjects of each class, (subject, ...) -> (level, ...)."""
    members = group.model.members / group.model.members.sum(1)[:, None]
    return np.einsum("cn,n...->c...", members, values)


def _scoring_steps(
    group: Group, subjects: Posteriors, expected: Moments, coefficients: FloatArray, covariances: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Lengthen EM's step where trials resolve little, above all where an SD goes to 0, so that it gets there.

    EM moves a mean by the share of the way that trials resolve, and a variance by the share's square: as an SD goes to
    0 both creep. Divided by these, they are steps of Fisher's scoring on the marginal likelihood, and the fixed point
    is the same. The square is the mean of subjects' own: where few have all the information, or some a likelihood that
    curves up, it is far more than that of the mean share. The space is that in which the group is standard, along the
    parameters (diagonal) or the directions that trials resolve apart (full).
    """
    by_subject, creeps = _shares(group, subjects.laplace.mode, subjects.laplace.covariance), False
    shares, covariances = _mean_of_each_class(group, by_subject), covariances.copy()
    for level, share in enumerate(shares):
        axes = np.linalg.eigh(share)[1] if group.model.joint else np.eye(len(share))
        along = np.einsum("nik,ik->nk", np.tensordot(by_subject[group.model.level == level], axes, 1), axes)
        known = np.sqrt((along**2).mean(0))
        slow = (known > NOTHING) & (known < CREEPING)
        if not slow.any():
            continue
        creeps = True
        there, back = axes.T @ group.inverse_cholesky[level], group.cholesky[level] @ axes
        longer = np.where(slow, 1 / np.maximum(known, NOTHING), 1.0)
        step = (there @ covariances[level] @ there.T - np.eye(len(known))) * np.outer(longer, longer)
        variances = 1 + np.diag(step)
        variances = np.where(slow, np.clip(variances, np.minimum(NO_SPREAD * longer, 1.0), 4.0), variances)
        # what is on its way to 0 has no correlation to learn
        thin = slow & (known < COLLAPSING)
        sd = np.sqrt(variances)
        correlations = np.clip(np.where(thin[:, None] | thin, 0.0, step) / np.outer(sd, sd), -0.9, 0.9)
        np.fill_diagonal(correlations, 1.0)
        covariances[level] = back @ (_nearest_correlations(correlations) * np.outer(sd, sd)) @ back.T
    if creeps:
        coefficients = group.coefficients + _scored_regression_step(group, expected, shares)
    return coefficients, covariances


def _nearest_correlations(correlations: FloatArray) -> FloatArray:
    """Draw correlations towards 0 until they are those of something."""
    smallest = np.linalg.eigvalsh(correlations)[0]
    share = min(1.0, 0.9 / (1 - smallest)) if smallest < 0.1 else 1.0
    return np.eye(len(correlations)) + share * (correlations - np.eye(len(correlations)))


def _scored_regression_step(group: Group, expected: Moments, shares: FloatArray) -> FloatArray:
    """`_regression_step` with the information that trials have, its size where they have less than none.

    It is no longer than the SD of subjects' own estimates, nor than a unit.
    """
    values, vectors = np.linalg.eigh(shares)
    values = np.maximum(np.abs(values), NOTHING)
    known = (vectors * values[:, None, :]) @ vectors.transpose(0, 2, 1)
    inverse = group.inverse_cholesky
    resolved = (inverse.transpose(0, 2, 1) @ known @ inverse)[group.model.level]
    design, precision = group.model.design, group.precision[group.model.level]
    information = np.einsum("npk,npl->kl", design, resolved @ design)
    score = np.einsum("npk,np->k", design, np.einsum("npq,nq->np", precision, expected.first))
    prior_score, prior_information = coefficient_prior(group)
    step = np.linalg.solve(information + np.diag(prior_information), score + prior_score)
    moved = np.einsum("nij,nj->ni", inverse[group.model.level], group.model.design @ step)
    longest = np.sqrt(np.einsum("ni,nij,nj->n", moved, known[group.model.level], moved)).max()
    units = float(np.abs(step / group.units[: len(step)]).max())
    return np.asarray(step / max(longest, units / LONGEST_STEP, 1.0))


# --- shared parameters ----------------------------------------------------------------------------------------------


def shared_step(compiled: Likelihoods, group: Group, subjects: Posteriors) -> FloatArray:
    """Newton's step of the shared parameters on the marginal likelihood, the rest of the group held."""
    unit = group.model.unit[group.model.shared]
    information, score = shared_information(compiled, group, subjects), subjects.shared_score.sum(0)
    if isinstance(group.model.prior, HyperPrior):
        places = slice(-len(group.shared), None)
        information = information + group.model.prior.information(group.to_vector())[places, places]
        score = score + prior_score(group)[places]
    values, vectors = np.linalg.eigh(information * np.outer(unit, unit))
    score = score * unit
    step = vectors @ ((vectors.T @ score) / (np.abs(values) + SHARED_RIDGE))
    return np.asarray(step * unit * min(1.0, LONGEST_STEP / max(float(np.abs(step).max()), 1e-300)))


def shared_information(compiled: Likelihoods, group: Group, subjects: Posteriors) -> FloatArray:
    """Information about the shared parameters, by Laplace's approximation, (shared, shared): H_ss - H_sx V H_xs."""
    laplace, shared = subjects.laplace, group.model.shared
    information = -np.einsum("nqi,nij,nrj->qr", laplace.cross, laplace.covariance, laplace.cross)
    step = 1e-3 * group.model.unit[shared]
    for q, side in enumerate(np.diag(step)):
        up, down = (
            compiled.map(slope_by_shared, replace(group, shared=group.shared + s), laplace.mode).sum(0)
            for s in (side, -side)
        )
        information[q] += (down - up) / (2 * step[q])
    return (information + information.T) / 2


def slope_by_shared(compiled: CompiledModel, group: Group, mode: FloatArray) -> FloatArray:
    """Gradient of each subject's log-likelihood by the shared parameters, (subject, shared)."""
    return compiled.value_and_gradient(group.complete(mode))[1][:, group.model.shared]


# --- the score ------------------------------------------------------------------------------------------------------


def complete_scores(group: Group, x: FloatArray) -> FloatArray:
    """Gradient of the group's log density at x, (subject, point, parameter), by its free numbers.

    Returns
    -------
    ndarray
        (subject, point, number), in the order of `Group.to_vector` without the shared parameters.
    """
    model, level = group.model, group.model.level
    z, away = group.standardise(x), x - group.location[:, None]
    pulled = product(group.pull(z), group.inverse_cholesky[level])  # u S^-1 r
    # by the log of a diagonal entry all of its row of L changes; by what is below it, per diagonal entry, one entry
    rows, columns = model.below
    diagonal = np.diagonal(group.cholesky, axis1=1, axis2=2)[level]
    by_log_diagonal = pulled * away - 1.0
    by_below = pulled[..., rows] * z[..., columns] * diagonal[:, None, rows]
    blocks = [by_log_diagonal, by_below]
    if model.n_levels > 1:
        blocks = [np.einsum("ln,nkc->nklc", model.members, block).reshape(*x.shape[:2], -1) for block in blocks]
    return np.concatenate([product(pulled, model.design), *blocks], axis=2)


def scores(group: Group, subjects: Posteriors) -> FloatArray:
    """Gradient of each subject's log evidence by the group's free numbers, (subject, number): Fisher's identity."""
    by_group = np.einsum("nk,nkc->nc", subjects.weights, complete_scores(group, subjects.points))
    return np.concatenate([by_group, subjects.shared_score], axis=1)


def group_score(group: Group, subjects: Posteriors) -> FloatArray:
    """Gradient of `group_log_posterior` by the group's free numbers."""
    return np.asarray(scores(group, subjects).sum(0) + prior_score(group))


def group_log_posterior(group: Group, subjects: Posteriors) -> float:
    """Return what EM climbs: the log evidence of all subjects plus the log prior of the group."""
    return float(subjects.log_evidence.sum() + log_prior(group))


def log_prior(group: Group) -> float:
    """Log density of the group's prior, up to a constant."""
    prior = group.model.prior
    if prior is None:
        return 0.0
    if isinstance(prior, HyperPrior):
        return prior.log_density(group.to_vector())
    score, information = coefficient_prior(group)
    of_means = np.divide(score**2, information, out=np.zeros_like(score), where=information > 0).sum()
    return float((prior.sd_shape - 1) * np.log(np.einsum("lii->li", group.cholesky)).sum() - 0.5 * of_means)


def prior_score(group: Group) -> FloatArray:
    """Gradient of the log density of the group's prior by the free numbers."""
    if isinstance(group.model.prior, HyperPrior):
        return group.model.prior.score(group.to_vector())
    by_coefficient, _ = coefficient_prior(group)
    log_diagonal = np.zeros(group.sd.size)
    if group.model.prior is not None:
        log_diagonal += group.model.prior.sd_shape - 1
    rest = len(group.to_vector()) - len(by_coefficient) - len(log_diagonal)
    return np.concatenate([by_coefficient, log_diagonal, np.zeros(rest)])
