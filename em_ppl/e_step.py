"""The E-step: every subject's posterior under the group, as weighted points around its mode.

Laplace's approximation comes first. Then ``"laplace"`` takes the mode for the mean; ``"corrected"`` goes to second
order; ``"exact"`` evaluates the likelihood at further points and leaves the approximation behind, as ``"corrected"``
does for single subjects whose posterior is no hill that a second order could follow.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property, partial

import numpy as np

from em_ppl.blocks import Likelihoods
from em_ppl.checks import check_choices
from em_ppl.compat import pareto_smooth
from em_ppl.compiled import CompiledModel
from em_ppl.distributions import Distribution
from em_ppl.estimators import Estimator, ImportanceSampling, Quadrature, Rule, exact_integration
from em_ppl.group import FloatArray, Group, Index
from em_ppl.modes import LaplaceApproximation, Start, approximate
from em_ppl.places import STENCIL
from em_ppl.small_matrices import cholesky, product, transposed

THIN = 1e-8  # share of Laplace's covariance that is added to integrated second moments


@dataclass(frozen=True)
class Scheme:
    """How expectations over subjects' posteriors are taken.

    Attributes
    ----------
    estimator : {"corrected", "laplace", "exact"}
        See `em_ppl.fit`.
    integration : Quadrature or ImportanceSampling
        For all subjects, or for those that the second order does not suit.
    random_seed : int
        For points that are drawn.
    hard : ndarray of int
        Subjects that ``"corrected"`` integrates.
    rule : Rule or None
        The points of everyone, once they are laid (drawn when they are first needed).
    chosen : bool
        Whether it was near the end of EM that these were found to be hard.
    """

    estimator: Estimator
    integration: Quadrature | ImportanceSampling
    random_seed: int
    hard: Index = field(default_factory=lambda: np.arange(0))
    rule: Rule | None = None
    chosen: bool = False

    @property
    def smooth(self) -> bool:
        """Whether what EM climbs is smooth: the classic estimator climbs nothing, and draws make it rough."""
        return self.estimator != "laplace" and not (self.rule is not None and self.rule.drawn)

    def laid(self, group: Group, hard: Index | None = None) -> Scheme:
        """Lay the points, if that has not been done, and say who is hard."""
        rule = self.rule or self.integration.rule(group, np.random.default_rng(self.random_seed))
        return replace(self, rule=rule, hard=self.hard if hard is None else hard)

    @cached_property
    def rule_of_hard(self) -> Rule:
        """The points of those who are hard."""
        assert self.rule is not None
        return self.rule.take(self.hard)

    def take(self, subjects: Index) -> Scheme:
        """Return the same for some of the subjects, in order."""
        hard = np.flatnonzero(np.isin(subjects, self.hard))
        return replace(self, hard=hard, rule=None if self.rule is None else self.rule.take(subjects))


def make_scheme(
    estimator: Estimator | Quadrature | ImportanceSampling, n_varying: int, distribution: Distribution, random_seed: int
) -> Scheme:
    """Say how expectations are taken; raises ValueError for an estimator that there is not."""
    if isinstance(estimator, Quadrature | ImportanceSampling):
        return Scheme("exact", estimator, random_seed)
    check_choices(estimator=(estimator, Estimator))
    return Scheme(estimator, exact_integration(n_varying, distribution), random_seed)


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
        """Posterior covariances, (subject, parameter, parameter); to second order V - w w', Laplace's less."""
        centred = self.away - (self.mean - self.laplace.mode)[:, None]
        return np.einsum("nk,nki,nkj->nij", self.weights, centred, centred)


def e_step(
    compiled: Likelihoods,
    group: Group,
    start: Start,
    scheme: Scheme,
    *,
    brisk: bool = False,
) -> Posteriors:
    """Find every subject's posterior.

    Parameters
    ----------
    compiled : CompiledModel
        The likelihoods.
    group : Group
        The prior of each subject.
    start : Start
        Where the search for modes begins.
    scheme : Scheme
        How expectations are taken.
    brisk : bool
        Whether EM is still on its way, and derivatives a little beside the modes will do; see `approximate`.
    """
    return compiled.map(partial(find_posteriors, brisk=brisk), group, start, scheme)


def find_posteriors(compiled: CompiledModel, group: Group, start: Start, scheme: Scheme, *, brisk: bool) -> Posteriors:
    """`e_step` of a portion of the subjects."""
    laplace = approximate(compiled, group, start, brisk=brisk)
    if scheme.estimator == "exact":
        assert scheme.rule is not None
        return integrate(compiled, group, laplace, scheme.rule)
    if scheme.estimator == "laplace":
        laplace = replace(laplace, shift=np.zeros_like(laplace.mode), shortened=np.zeros_like(laplace.repaired))
    return expand(compiled, group, laplace, scheme)


def expand(compiled: CompiledModel, group: Group, laplace: LaplaceApproximation, scheme: Scheme) -> Posteriors:
    """Take expectations to second order: h(m) - w' dh/dx + 1/2 sum_ab V_ab d2h / dx_a dx_b, w the shift.

    It is what the gradient of Laplace's evidence consists of. For subjects that are hard, the integrated first and
    second moments about the mode take the place of -w and V.
    """
    first, second, log_evidence = -laplace.shift, laplace.covariance, laplace.log_evidence
    shared = group.model.shared
    score = laplace.slope[:, shared] - 0.5 * laplace.bend[:, shared]
    score = score + np.einsum("nqi,ni->nq", laplace.cross, laplace.shift)
    if (who := scheme.hard).size:
        whole = integrate(compiled.take(who), group.take(who), laplace.take(who), scheme.rule_of_hard)
        second, log_evidence = second.copy(), log_evidence.copy()
        first[who] = np.einsum("nk,nki->ni", whole.weights, whole.away)
        # where few draws have all the weight their moments alone span no space
        second[who] *= THIN
        second[who] += np.einsum("nk,nki,nkj->nij", whole.weights, whole.away, whole.away)
        log_evidence[who], score[who] = whole.log_evidence, whole.shared_score
    return Posteriors(laplace, *points_with(first, second), log_evidence, score)


def points_with(first: FloatArray, second: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Lay points around 0 with weights, so that first and second moments are these.

    With L L' the second moments, the points are 0 and +- e l_j: a weighted sum of h is then made of its value and its
    first and second differences at 0, which is the expectation to second order.
    """
    root, inverse, others = cholesky(second)
    if others.any():
        raise np.linalg.LinAlgError("second moments that are not positive definite.")
    along = product(inverse, first) / (2 * STENCIL)
    sides, each = STENCIL * transposed(root), 0.5 / STENCIL**2
    away = np.concatenate([0 * first[:, None], sides, -sides], axis=1)
    centre = np.full((len(first), 1), 1 - 2 * each * first.shape[1])
    return away, np.concatenate([centre, each + along, each - along], axis=1)


def integrate(compiled: CompiledModel, group: Group, laplace: LaplaceApproximation, rule: Rule) -> Posteriors:
    """Evaluate the posterior at the rule's points around each subject's Laplace approximation.

    Importance weights with a heavy tail are Pareto-smoothed (Vehtari et al. 2024, J. Mach. Learn. Res. 25(72)).
    """
    away, log_volume = rule.place(group, laplace)
    log_weights, shared_slope = weigh(compiled, group, laplace.mode[:, None] + away, log_volume)
    log_weights, pareto_k = _smooth(log_weights) if rule.drawn else (log_weights, None)
    log_evidence = np.logaddexp.reduce(log_weights, axis=1)
    weights = np.exp(log_weights - log_evidence[:, None])
    return Posteriors(laplace, away, weights, log_evidence, np.einsum("nk,nkq->nq", weights, shared_slope), pareto_k)


def weigh(
    compiled: CompiledModel, group: Group, points: FloatArray, log_volume: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Return log weights of points that stand for these volumes (in sum the evidence), and slopes by shared parameters.

    Points are (subject, point, parameter), log volumes (subject, point).
    """
    log_likelihood, shared_slope = evaluate(compiled, group, points)
    return log_likelihood + group.log_density(points) + log_volume, shared_slope


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
    (n, k, _), shared = points.shape, group.model.shared
    x, who = group.complete(points).reshape(n * k, -1), np.repeat(np.arange(n), k)
    if len(shared):
        value, gradient = compiled.value_and_gradient(x, who)
        slope = np.where(np.isfinite(gradient), gradient, 0.0)[:, shared]
    else:
        value, slope = compiled.value(x, who), np.empty((n * k, 0))
    return np.where(np.isfinite(value), value, -np.inf).reshape(n, k), slope.reshape(n, k, -1)
