"""The E-step: every subject's posterior under the group, as weighted points around its mode.

Laplace's approximation comes first. Then ``"laplace"`` takes the mode for the mean; ``"corrected"`` goes to second
order; quadrature and importance sampling evaluate the likelihood at further points and leave the approximation behind.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from em_ppl.compat import pareto_smooth
from em_ppl.compiled import CompiledModel
from em_ppl.estimators import Rule
from em_ppl.group import FloatArray, Group
from em_ppl.modes import STENCIL, LaplaceApproximation, approximate


@dataclass(frozen=True)
class Posteriors:
    """Every subject's posterior under one group; Gaussian space.

    Attributes
    ----------
    laplace : LaplaceApproximation
        The Normal approximation around the mode.
    away : ndarray
        Points minus the mode, (subject, point, parameter).
    weights : ndarray
        Of the points, (subject, point), 1 in sum. An expectation of any h(x) is their weighted sum; to second order (of
        a smooth h), if the estimator is of second order.
    log_evidence : ndarray
        Log marginal likelihood, (subject,).
    shared_score : ndarray
        Its gradient by the shared parameters, (subject, shared parameter).
    pareto_k : ndarray or None
        Pareto k-hat of importance weights, (subject,): above 0.7 they are not to be trusted.
    """

    laplace: LaplaceApproximation
    away: FloatArray
    weights: FloatArray
    log_evidence: FloatArray
    shared_score: FloatArray
    pareto_k: FloatArray | None = None

    @property
    def points(self) -> FloatArray:
        """Where the points are, (subject, point, parameter)."""
        return self.laplace.mode[:, None] + self.away

    @property
    def mean(self) -> FloatArray:
        """Posterior means, (subject, parameter)."""
        return self.laplace.mode + np.einsum("nk,nki->ni", self.weights, self.away)

    @property
    def covariance(self) -> FloatArray:
        """Posterior covariances, (subject, parameter, parameter)."""
        centred = self.away - (self.mean - self.laplace.mode)[:, None]
        return np.einsum("nk,nki,nkj->nij", self.weights, centred, centred)


def e_step(
    compiled: CompiledModel, group: Group, start: FloatArray, curvature: FloatArray, estimator: Rule | str
) -> Posteriors:
    """Find every subject's posterior.

    Parameters
    ----------
    compiled : CompiledModel
        The likelihoods.
    group : Group
        The prior of each subject.
    start, curvature : ndarray
        Where the mode search begins, and about the curvature there; see `approximate`.
    estimator : Rule or {"corrected", "laplace"}
        How expectations are taken.
    """
    laplace = approximate(compiled, group, start, curvature)
    if isinstance(estimator, Rule):
        return integrate(compiled, group, laplace, estimator)
    if estimator == "laplace":
        laplace = replace(laplace, shift=np.zeros_like(laplace.mode), shortened=np.zeros_like(laplace.repaired))
    return expand(group, laplace)


def expand(group: Group, laplace: LaplaceApproximation) -> Posteriors:
    """Take expectations to second order: h(m) - w' dh/dx + 1/2 sum_ab V_ab d2h / dx_a dx_b, w the shift.

    With L L' = V, these derivatives are differences of h at m and m +- e l_j, so that the expectation is a weighted sum
    over these points. It is what the gradient of Laplace's evidence consists of.
    """
    root, shared = np.linalg.cholesky(laplace.covariance), group.model.shared
    along = np.linalg.solve(root, laplace.shift[:, :, None])[:, :, 0]  # w = sum of along_j l_j
    sides = STENCIL * root.transpose(0, 2, 1)
    away = np.concatenate([0 * laplace.mode[:, None], sides, -sides], axis=1)
    second, first = 0.5 / STENCIL**2, 0.5 * along / STENCIL
    centre = np.full((len(along), 1), 1 - 2 * second * along.shape[1])
    weights = np.concatenate([centre, second - first, second + first], axis=1)
    score = laplace.slope[:, shared] - 0.5 * laplace.bend[:, shared]
    score = score + np.einsum("nqi,ni->nq", laplace.cross, laplace.shift)
    return Posteriors(laplace, away, weights, laplace.log_evidence, score)


def integrate(compiled: CompiledModel, group: Group, laplace: LaplaceApproximation, rule: Rule) -> Posteriors:
    """Evaluate the posterior at the rule's points, scaled to each subject's second-order mean and Laplace covariance.

    Importance weights with a heavy tail are Pareto-smoothed (Vehtari et al. 2024, J. Mach. Learn. Res. 25(72)).
    """
    root = np.linalg.cholesky(laplace.covariance)
    away = np.einsum("nij,nkj->nki", root, rule.z) - laplace.shift[:, None]
    points = laplace.mode[:, None] + away
    log_likelihood, shared_slope = evaluate(compiled, group, points)
    log_weights = log_likelihood + group.log_density(points) + rule.log_weight
    log_weights += np.log(np.diagonal(root, axis1=1, axis2=2)).sum(1)[:, None]
    log_weights, pareto_k = _smooth(log_weights) if rule.drawn else (log_weights, None)
    log_evidence = np.logaddexp.reduce(log_weights, axis=1)
    weights = np.exp(log_weights - log_evidence[:, None])
    return Posteriors(laplace, away, weights, log_evidence, np.einsum("nk,nkq->nq", weights, shared_slope), pareto_k)


def _smooth(log_weights: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Pareto-smooth as far as k-hat asks for it: not at all up to 0.5, in full from 0.7 on.

    Weights of finite variance are best left alone, since smoothing undoes the evenness of Sobol points; in between, the
    two blend, so that EM remains a continuous map.
    """
    smoothed, k = pareto_smooth(log_weights)
    share = np.clip((k - 0.5) / 0.2, 0.0, 1.0)[:, None]
    possible = np.isfinite(log_weights)
    blend = share * np.where(possible, smoothed, 0.0) + (1 - share) * np.where(possible, log_weights, 0.0)
    return np.where(possible, blend, -np.inf), k


def evaluate(compiled: CompiledModel, group: Group, points: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Log-likelihood at points, (subject, point), -inf where it is no number; and its slope by shared parameters."""
    x, shared = group.complete(points), group.model.shared
    log_likelihood, slope = np.empty(x.shape[:2]), np.empty((*x.shape[:2], len(shared)))
    for k in range(x.shape[1]):
        log_likelihood[:, k], gradient = compiled.value_and_gradient(np.ascontiguousarray(x[:, k]))
        slope[:, k] = gradient[:, shared]
    return np.where(np.isfinite(log_likelihood), log_likelihood, -np.inf), np.where(np.isfinite(slope), slope, 0.0)
