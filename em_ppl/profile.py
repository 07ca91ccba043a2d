"""Profile intervals: the values of one number that the likelihood, maximised over all others, does not reject.

Unlike Wald's they need not be symmetric, and an SD's may begin at 0.

References
----------
Venzon, D. J., & Moolgavkar, S. H. (1988). A method for computing profile-likelihood-based confidence intervals. Journal
of the Royal Statistical Society C, 37, 87-94. https://doi.org/10.2307/2347496
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import scipy

from em_ppl.e_step import Posteriors, e_step
from em_ppl.evidence import settle
from em_ppl.group import FloatArray, Index
from em_ppl.m_step import scores
from em_ppl.modes import approximate

if TYPE_CHECKING:
    from em_ppl.result import Fit

CLOSE = 1e-3  # in standard errors: how near Newton's steps come to the maximum over the rest
ACCURATE = 1e-3  # of the signed root of the likelihood ratio, at an end of the interval
MOST_STEPS = 30
FURTHEST = 10.0  # Wald intervals' lengths within which an end is looked for; beyond, there is none
VANISHING = 1e-3  # SD, in starting spreads, that is as good as 0


def profile_interval(fit: Fit, name: str, probability: float) -> tuple[float, float]:
    """See `Fit.profile_interval`."""
    if fit.settings["estimator"] == "laplace":
        raise ValueError('the classic estimator maximises no likelihood: fit with estimator="corrected" or "exact".')
    if fit.group.plain.model.prior is not None:
        raise ValueError("a fit with a prior maximises no likelihood alone: use fit.group.intervals().")
    if not 0 < probability < 1:
        raise ValueError(f"probability={probability!r} must lie between 0 and 1.")
    labels = [str(label) for label in fit.group.free["free"].values]
    known = np.flatnonzero(np.isfinite(np.diag(fit.group.free_covariance.values)))
    if name not in [labels[k] for k in known]:
        raise ValueError(
            f"{name!r} is no number that the fit determines; these are {', '.join(labels[k] for k in known)}."
        )
    profile = Profile(fit, known, labels.index(name))
    reach = float(np.sqrt(scipy.stats.chi2.ppf(probability, 1)))
    return profile.estimate - profile.end(-1, reach), profile.estimate + profile.end(1, reach)


class Profile:
    """The evidence at values of one number of the group, the others where they are best then."""

    def __init__(self, fit: Fit, known: Index, number: int) -> None:
        self.compiled, self.group, self.scheme = fit.compiled, fit.group.plain, fit.scheme
        self.vector, self.number, self.rest = self.group.to_vector(), number, known[known != number]
        self.estimate = float(self.vector[number])
        covariance = fit.group.free_covariance.values
        self.se = np.sqrt(np.diag(covariance))
        # Newton's step of the rest is (information of the rest)^-1 times their score
        cross = covariance[self.rest, number]
        own = covariance[np.ix_(self.rest, self.rest)]
        self.newton = own - np.outer(cross, cross) / covariance[number, number]
        self.drift = cross / covariance[number, number]  # of the rest, per step of the number
        laplace = settle(self.compiled, self.group, fit.subjects["mode"].values)
        self.subjects = e_step(self.compiled, self.group, laplace.start, self.scheme)
        self.highest = float(self.subjects.log_evidence.sum())

    def end(self, side: int, reach: float) -> float:
        """How far from the estimate the likelihood ratio's root is `reach`; inf, if nowhere.

        The root is all but linear, so that the secant rule needs few values.
        """
        unit = side * float(self.se[self.number])
        furthest = min(FURTHEST * reach, self.furthest_down / abs(unit) if side < 0 else np.inf)
        near, near_root, at = 0.0, 0.0, min(reach, furthest)
        for _ in range(MOST_STEPS):
            root = self.root(at * unit)
            slope = (root - near_root) / (at - near)
            if abs(root - reach) < ACCURATE:
                return abs(at * unit)
            if slope <= 0 or (root < reach and at == furthest):
                break
            if root < reach:
                near, near_root = at, root
            at = min(near + (reach - near_root) / slope, 2 * at, furthest)
        return np.inf

    @property
    def furthest_down(self) -> float:
        """How far a log SD may fall: to an SD that is as good as 0."""
        group, k = self.group, self.number - len(self.group.coefficients)
        if not 0 <= k < group.sd.size:
            return np.inf
        smallest = np.tile(VANISHING * group.model.unit[group.model.varying], group.model.n_levels)
        return float(max(self.estimate - np.log(smallest[k]), 1.0))

    def root(self, step: float) -> float:
        """Square root of the likelihood ratio when the number is moved by a step: distributed as a standard Normal.

        The rest is maximised by Newton's steps, halved while they lead down.
        """
        vector = self.vector.copy()
        vector[self.number] += step
        vector[self.rest] += self.drift * step
        subjects = self._posteriors(vector, self.subjects)
        for _ in range(MOST_STEPS):
            move = self.newton @ scores(self.group.from_vector(vector), subjects).sum(0)[self.rest]
            while move.size and np.abs(move / self.se[self.rest]).max() > CLOSE:
                further = vector.copy()
                further[self.rest] += move
                there = self._posteriors(further, subjects)
                if there.log_evidence.sum() > subjects.log_evidence.sum():
                    break
                move = move / 2
            else:
                break
            vector, subjects = further, there
        return float(np.sqrt(max(2 * (self.highest - subjects.log_evidence.sum()), 0.0)))

    def _posteriors(self, vector: FloatArray, near: Posteriors) -> Posteriors:
        """E-step, begun twice: third derivatives want the covariance under this group."""
        group = self.group.from_vector(vector)
        first = approximate(self.compiled, group, near.laplace.start)
        return e_step(self.compiled, group, first.start, self.scheme)
