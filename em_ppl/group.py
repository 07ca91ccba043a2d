"""The group: a Normal in Gaussian space, its M-step, and how well the subjects determine it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from em_ppl.modes import Posteriors

FloatArray = NDArray[np.float64]
Structure = Literal["diagonal", "full"]

SMALLEST_SD = 1e-6  # relative to the starting spread: keeps a covariance positive definite
COLLAPSED = 0.05  # of the SD that the search began with: then it is the SD that is small, not what the trials say
# shares of the group's variance that trials resolve, 1 - Laplace variance / group variance
CREEPING = 0.02  # below it EM creeps, and takes scoring steps instead
NOTHING = 1e-6  # below it trials say nothing at all, and rounding would
NO_SPREAD = 1e-5  # an SD that goes to 0 stops where its share is this: 0 itself has no standard Normal space


@dataclass(frozen=True)
class Group:
    """A Normal over subjects' parameters, Gaussian space.

    Attributes
    ----------
    mean : ndarray
        (parameter,)
    covariance : ndarray
        (parameter, parameter)
    structure : {"diagonal", "full"}
        Whether parameters may covary.
    """

    mean: FloatArray
    covariance: FloatArray
    structure: Structure

    @cached_property
    def cholesky(self) -> FloatArray:
        """L with L L' = covariance."""
        return np.linalg.cholesky(self.covariance)

    @cached_property
    def precision(self) -> FloatArray:
        """Inverse covariance, exactly symmetric."""
        inverse = np.linalg.inv(self.cholesky)
        return np.asarray(inverse.T @ inverse)

    @property
    def sd(self) -> FloatArray:
        """Standard deviations, (parameter,)."""
        return np.sqrt(np.diag(self.covariance))

    def log_density(self, x: FloatArray) -> FloatArray:
        """Log density of each row of x, with constants."""
        z = self.standardise(x)
        log_determinant = 2 * np.log(np.diag(self.cholesky)).sum()
        return np.asarray(-0.5 * ((z**2).sum(1) + log_determinant + len(self.mean) * np.log(2 * np.pi)))

    def standardise(self, x: FloatArray) -> FloatArray:
        """Carry x to the space in which the group is standard Normal, row by row."""
        return np.asarray((x - self.mean) @ np.linalg.inv(self.cholesky).T)

    def unstandardise(self, z: FloatArray) -> FloatArray:
        """Undo `standardise`."""
        return self.mean + z @ self.cholesky.T

    # EM is a fixed-point map on vectors: means, log Cholesky diagonal, and what stands below it

    def to_vector(self, unit: FloatArray) -> FloatArray:
        """Free numbers of the group: means and log SDs in `unit`, then (full) the Cholesky factor's lower part."""
        factor = self.cholesky
        diagonal = np.diag(factor)
        parts = [self.mean / unit, np.log(diagonal / unit)]
        if self.structure == "full":
            parts.append((factor / diagonal[:, None])[self._below])
        return np.concatenate(parts)

    def from_vector(self, vector: FloatArray, unit: FloatArray) -> Group:
        """Make the group of the same structure that `to_vector` described."""
        p = len(self.mean)
        factor = np.eye(p)
        if self.structure == "full":
            factor[self._below] = vector[2 * p :]
        factor *= (np.exp(vector[p : 2 * p]) * unit)[:, None]
        return Group(vector[:p] * unit, factor @ factor.T, self.structure)

    @property
    def _below(self) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        return np.tril_indices(len(self.mean), -1)

    def distance(self, other: Group, unit: FloatArray) -> float:
        """Largest difference in any free number, means in `unit`."""
        return float(np.abs(self.to_vector(unit) - other.to_vector(unit)).max())

    def maximise(self, subjects: Posteriors, smallest_sd: FloatArray) -> Group:
        """M-step: the group that is most probable given every subject's posterior.

        With modes m, Laplace covariances V and shifts w from mode to mean (0 for the classic estimator),
        mu = mean(m - w) and S = mean[V + r r' - w r' - r w'], r = m - mu: the step of Huys et al. (2011) for w = 0,
        otherwise one whose fixed point is a stationary point of the Laplace marginal likelihood. Variances divide by
        the number of subjects. Where trials resolve next to nothing of them, see `_scoring_steps`.
        """
        w = subjects.shift
        mean = (subjects.mode - w).mean(0)
        r = subjects.mode - mean
        cross = np.einsum("ni,nj->ij", w, r)
        covariance = (subjects.covariance.sum(0) + np.einsum("ni,nj->ij", r, r) - cross - cross.T) / len(r)
        if self.structure == "diagonal":
            covariance = np.diag(np.diag(covariance))
        mean, covariance = self._scoring_steps(subjects, mean, covariance)
        return Group(mean, _no_thinner(covariance, smallest_sd), self.structure)

    def _scoring_steps(
        self, subjects: Posteriors, mean: FloatArray, covariance: FloatArray
    ) -> tuple[FloatArray, FloatArray]:
        """Lengthen EM's step where an SD goes to 0, so that it gets there.

        EM moves a mean by the share of the way that trials resolve, and a log variance by the share's square: as an
        SD goes to 0 both creep. Divided by these, they are steps of Fisher's scoring on the marginal likelihood, and
        the fixed point is the same. The space is that in which the group is standard Normal, along the parameters
        (diagonal) or the directions that trials resolve apart (full).
        """
        inverse = np.linalg.inv(self.cholesky)
        share = np.eye(len(mean)) - inverse @ subjects.covariance.mean(0) @ inverse.T
        known, axes = np.linalg.eigh(share) if self.structure == "full" else (np.diag(share), np.eye(len(mean)))
        creeps = (known > NOTHING) & (known < CREEPING)
        if not creeps.any():
            return mean, covariance
        there = axes.T @ inverse
        back = self.cholesky @ axes
        step, variances = there @ (mean - self.mean), there @ covariance @ there.T
        for j in np.flatnonzero(creeps):
            longest = known[j] ** -0.5  # the SD of subjects' own estimates
            step[j] = np.clip(step[j] / known[j], -longest, longest)
            variance = 1 + (variances[j, j] - 1) / known[j] ** 2
            variances[j, :] = variances[:, j] = 0.0
            variances[j, j] = np.clip(variance, min(NO_SPREAD / known[j], 1.0), 4.0)
        return self.mean + back @ step, back @ variances @ back.T


def _no_thinner(covariance: FloatArray, smallest_sd: FloatArray) -> FloatArray:
    """Keep a covariance positive definite where the data leave no variance between subjects."""
    values, vectors = np.linalg.eigh(covariance / np.outer(smallest_sd, smallest_sd))
    if values[0] >= 1:
        return covariance
    scaled = vectors * np.sqrt(np.maximum(values, 1))
    return scaled @ scaled.T * np.outer(smallest_sd, smallest_sd)


@dataclass(frozen=True)
class GroupUncertainty:
    """Normal approximation to the group's parameters: the means, log SDs and (full) correlation part.

    Attributes
    ----------
    vector : ndarray
        The estimate, as `Group.to_vector` with unit 1 has it.
    covariance : ndarray
        Its covariance, the inverse observed information. NaN for numbers that the data do not determine, an SD that
        has gone to 0 for instance; the others' is then that with these held fixed.
    """

    vector: FloatArray
    covariance: FloatArray

    @property
    def standard_errors(self) -> FloatArray:
        """Square roots of the diagonal."""
        with np.errstate(invalid="ignore"):
            return np.sqrt(np.diag(self.covariance))


def uncertainty(group: Group, subjects: Posteriors) -> GroupUncertainty:
    """Observed information of the group from the Laplace evidence, in closed form.

    Each subject is summarised by a Normal likelihood with centre y and covariance C, so that y ~ N(mu, S + C).
    Then W = (S + C)^-1 = S^-1 - S^-1 V S^-1 and W (y - mu) = S^-1 (m - mu): C, which need not be positive definite,
    is never formed. The uncertainty of S is part of it.
    """
    one, p = np.ones_like(group.mean), len(group.mean)
    vector, precision = group.to_vector(one), group.precision
    w = precision - precision @ subjects.covariance @ precision  # (subject, p, p)
    wr = (subjects.mode - subjects.shift - group.mean) @ precision
    slopes = _covariance_slopes(group, vector)  # dS / d(number), for the numbers after the means

    information = np.zeros((len(vector), len(vector)))
    information[:p, :p] = w.sum(0)
    for a, first in enumerate(slopes, start=p):
        first_wr = wr @ first
        information[:p, a] = information[a, :p] = np.einsum("nij,nj->i", w, first_wr)
        for b, second in enumerate(slopes, start=p):
            trace = np.einsum("nij,jk,nkl,li->", w, first, w, second, optimize=True)
            information[a, b] = np.einsum("ni,nij,nj->", first_wr, w, wr @ second, optimize=True) - 0.5 * trace
    return GroupUncertainty(vector, _invert_what_is_determined(information, always=p))


def _invert_what_is_determined(information: FloatArray, always: int) -> FloatArray:
    """Invert the information after dropping numbers, the worst first, until it is positive; the first `always` stay."""
    kept = np.arange(len(information))
    while True:
        part = information[np.ix_(kept, kept)]
        scale = np.sqrt(np.maximum(np.abs(np.diag(part)), 1e-300))
        values, vectors = np.linalg.eigh(part / np.outer(scale, scale))
        if values[0] > 1e-12 or len(kept) == always:
            break
        kept = np.delete(kept, always + np.abs(vectors[always:, 0]).argmax())
    covariance = np.full_like(information, np.nan)
    if values[0] > 1e-12:
        covariance[np.ix_(kept, kept)] = np.linalg.inv(part)
    return covariance


def _covariance_slopes(group: Group, vector: FloatArray) -> list[FloatArray]:
    """Differentiate the covariance by each free number after the means."""
    factor, p = group.cholesky, len(group.mean)
    slopes = []
    for k in range(p):  # log diagonal: scales row k of the factor
        row = np.zeros_like(factor)
        row[k] = factor[k]
        slopes.append(row @ factor.T + factor @ row.T)
    if group.structure == "full":
        for i, j in zip(*group._below, strict=True):
            cell = np.zeros_like(factor)
            cell[i, j] = factor[i, i]
            slopes.append(cell @ factor.T + factor @ cell.T)
    return slopes
