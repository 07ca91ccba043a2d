"""The group: how subjects' parameters are distributed in Gaussian space.

Subject i's varying parameters scatter around its location X_i b with covariance S (or with the covariance of the class
that it belongs to); shared parameters are the same for all. Without covariates X_i is the identity and b the mean.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from em_ppl.distributions import Distribution
from em_ppl.small_matrices import product, transposed

__all__ = ["GroupPrior"]

FloatArray = NDArray[np.float64]
Index = NDArray[np.intp]
Structure = Literal["diagonal", "full"]

COLLAPSED = 0.05  # of the SD that the search began with: then it is the SD that is small, not what the trials say


@dataclass(frozen=True)
class GroupPrior:
    """A weakly informative prior of the group, for studies with few subjects (penalised EM).

    Parameters
    ----------
    mean_spread : float or None
        Each group mean is Normal around its parameter's starting value, with this many of the parameter's spreads as
        its SD (a covariate's coefficient likewise, around 0). None: flat, as for a `Real` that declares no spread.
    sd_shape : float
        The density of each group SD is proportional to SD^(sd_shape - 1): a Gamma distribution with a rate that goes to
        0. At 2, an SD of 0 is impossible and the group variance divides by N - 1 instead of N; at 1, the prior is flat.
        With a full covariance it is the density det(S)^((sd_shape - 1) / 2) (a Wishart).

    References
    ----------
    Chung, Y., Rabe-Hesketh, S., Dorie, V., Gelman, A., & Liu, J. (2013). A nondegenerate penalized likelihood estimator
    for variance parameters in multilevel models. Psychometrika, 78, 685-709. https://doi.org/10.1007/s11336-013-9328-2

    Examples
    --------
    >>> import em_ppl as em
    >>> em.GroupPrior(mean_spread=None)
    GroupPrior(mean_spread=None, sd_shape=2.0)
    """

    mean_spread: float | None = 3.0
    sd_shape: float = 2.0

    def __post_init__(self) -> None:
        if self.mean_spread is not None and not (isinstance(self.mean_spread, numbers.Real) and self.mean_spread > 0):
            raise ValueError(f"GroupPrior: mean_spread={self.mean_spread!r} must be a positive number, or None.")
        if not isinstance(self.sd_shape, numbers.Real) or not 1 <= self.sd_shape < np.inf:
            raise ValueError(f"GroupPrior: sd_shape={self.sd_shape!r} must be a number, at least 1.")


@dataclass(frozen=True)
class HyperPrior:
    """The priors that a `pymc.Model` has of its hyperparameters, as a log density of a group's free numbers.

    Attributes
    ----------
    function : callable
        From `Group.to_vector` to the log density, in PyMC's unconstrained space, and its gradient.
    """

    function: Callable[[FloatArray], list[FloatArray]]

    def __repr__(self) -> str:
        return "the model's own priors"

    def log_density(self, vector: FloatArray) -> float:
        """Log density at a group's free numbers."""
        return float(self.function(vector)[0])

    def score(self, vector: FloatArray) -> FloatArray:
        """Return its gradient."""
        return np.asarray(self.function(vector)[1])

    def information(self, vector: FloatArray) -> FloatArray:
        """Return its negative Hessian."""
        sides = 1e-5 * np.eye(len(vector))
        return np.array([(self.score(vector - side) - self.score(vector + side)) / 2e-5 for side in sides])


@dataclass(frozen=True, eq=False)
class GroupModel:
    """What a group can be: chosen by the user, and fixed while EM runs.

    Attributes
    ----------
    design : ndarray
        X, (subject, parameter, coefficient): each coefficient belongs to one varying parameter.
    level : ndarray of int
        Which covariance is whose, (subject,).
    structure : {"diagonal", "full"}
        Whether parameters may covary.
    distribution : Distribution
        What subjects are drawn from.
    prior : GroupPrior, HyperPrior or None
        Of the group's own numbers.
    varying, shared : ndarray of int
        Which of the declared parameters differ between subjects, and which do not.
    unit : ndarray
        What each declared parameter is measured in: a wide spread, Gaussian space.
    centre, spread : ndarray
        Starting value and spread as declared, (declared parameter,); a spread that is not declared is inf.
    place : ndarray of int
        Each subject's among all that are sorted by label, (subject,): what is drawn for each of them is given out in
        that order, whatever the order of the data.
    """

    design: FloatArray
    level: Index
    structure: Structure
    distribution: Distribution
    prior: GroupPrior | HyperPrior | None
    varying: Index
    shared: Index
    unit: FloatArray
    centre: FloatArray
    spread: FloatArray
    place: Index

    @property
    def joint(self) -> bool:
        """Whether one weight of a heavy-tailed distribution serves all parameters of a subject."""
        return self.structure == "full"

    @cached_property
    def n_levels(self) -> int:
        """Number of covariances."""
        return int(self.level.max()) + 1

    @cached_property
    def members(self) -> FloatArray:
        """Who belongs to which covariance, (level, subject), 0 and 1."""
        return (self.level == np.arange(self.n_levels)[:, None]).astype(float)

    @cached_property
    def belongs_to(self) -> Index:
        """Which varying parameter each coefficient is of, (coefficient,)."""
        return np.abs(self.design).sum(0).argmax(0)

    @cached_property
    def typical(self) -> FloatArray:
        """Root mean square of each coefficient's covariate, (coefficient,)."""
        return np.asarray(np.sqrt((self.design**2).sum(1).mean(0)))

    def coefficients_near(self, x: FloatArray) -> FloatArray:
        """Return the coefficients that bring every subject closest to x, (declared parameter,)."""
        n, p, k = self.design.shape
        return np.asarray(np.linalg.lstsq(self.design.reshape(n * p, k), np.tile(x[self.varying], n), rcond=None)[0])

    @cached_property
    def below(self) -> tuple[Index, Index]:
        """Where a Cholesky factor has free numbers below its diagonal."""
        n = len(self.varying) if self.structure == "full" else 0
        return np.tril_indices(n, -1)

    def take(self, subjects: Index) -> GroupModel:
        """Return the same for some of the subjects."""
        part = replace(self, design=self.design[subjects], level=self.level[subjects], place=self.place[subjects])
        # these are of the whole study, which some of its subjects may not show
        vars(part).update({name: getattr(self, name) for name in ("n_levels", "belongs_to", "typical")})
        return part


@dataclass(frozen=True, eq=False)
class Group:
    """A distribution of subjects' parameters, Gaussian space.

    Attributes
    ----------
    model : GroupModel
        What it can be.
    coefficients : ndarray
        b, (coefficient,); without covariates the mean, (parameter,).
    covariances : ndarray
        S of each class of subjects, (level, parameter, parameter); a scale matrix, where tails are heavy.
    shared : ndarray
        Parameters that are the same for all, (shared parameter,).
    """

    model: GroupModel
    coefficients: FloatArray
    covariances: FloatArray
    shared: FloatArray

    def take(self, subjects: Index) -> Group:
        """Return the same for some of the subjects."""
        covariances = np.ascontiguousarray(self.covariances)  # see em_ppl.portions
        return Group(self.model.take(subjects), self.coefficients, covariances, self.shared)

    @cached_property
    def location(self) -> FloatArray:
        """Where each subject is expected, (subject, parameter)."""
        return np.asarray(self.model.design @ self.coefficients)

    @cached_property
    def cholesky(self) -> FloatArray:
        """L with L L' = S, (level, parameter, parameter)."""
        return np.linalg.cholesky(self.covariances)

    @cached_property
    def inverse_cholesky(self) -> FloatArray:
        """Inverse of L, (level, parameter, parameter)."""
        return np.linalg.inv(self.cholesky)

    @cached_property
    def precision(self) -> FloatArray:
        """Inverse of S, exactly symmetric, (level, parameter, parameter)."""
        return self.inverse_cholesky.transpose(0, 2, 1) @ self.inverse_cholesky

    @cached_property
    def sd(self) -> FloatArray:
        """Standard deviations (scales, where tails are heavy), (level, parameter)."""
        return np.sqrt(np.diagonal(self.covariances, axis1=1, axis2=2))

    @property
    def correlations(self) -> FloatArray:
        """Of each class, (level, parameter, parameter)."""
        return self.covariances / (self.sd[:, :, None] * self.sd[:, None, :])

    # --- the space in which the group has location 0 and scale 1 ------------------------------------------------------

    def factor(self, rows: Index | None = None) -> FloatArray:
        """L of each subject, (subject, parameter, parameter)."""
        return self.cholesky[self.model.level if rows is None else self.model.level[rows]]

    def standardise(self, x: FloatArray, rows: Index | None = None) -> FloatArray:
        """Carry x, (subject, ..., parameter), to the space in which the group is standard."""
        away = x - _spread(self.location if rows is None else self.location[rows], x.ndim)
        level = self.model.level if rows is None else self.model.level[rows]
        return _along(self.inverse_cholesky[level], away)

    def unstandardise(self, z: FloatArray, rows: Index | None = None) -> FloatArray:
        """Undo `standardise`."""
        location = self.location if rows is None else self.location[rows]
        return _spread(location, z.ndim) + _along(self.factor(rows), z)

    def log_density(self, x: FloatArray) -> FloatArray:
        """Log density of x, (subject, ..., parameter), with constants; (subject, ...)."""
        return self.log_density_of_standardised(self.standardise(x))

    def log_density_of_standardised(self, z: FloatArray) -> FloatArray:
        """`log_density` of what has been standardised."""
        log_root = np.log(np.diagonal(self.cholesky, axis1=1, axis2=2)).sum(1)[self.model.level]
        constant = self.model.distribution.log_constant(z.shape[-1], self.model.joint)
        potential = self.model.distribution.potential(z, self.model.joint)
        return np.asarray(constant - log_root.reshape(-1, *[1] * (potential.ndim - 1)) - potential)

    def weight(self, x: FloatArray) -> FloatArray:
        """Return how much x, (subject, point, parameter), count; each as much as another, unless tails are heavy."""
        distribution = self.model.distribution
        if not distribution.heavy_tails:
            return np.ones_like(x)
        return distribution.weight(self.standardise(x), self.model.joint)

    def pull(self, z: FloatArray) -> FloatArray:
        """Gradient of the negative log density by z."""
        return np.asarray(self.model.distribution.weight(z, self.model.joint) * z)

    def curvature(self, z: FloatArray) -> FloatArray:
        """Hessian of the negative log density by z."""
        return self.model.distribution.curvature(z, self.model.joint)

    def complete(self, x: FloatArray) -> FloatArray:
        """Add the shared parameters to varying ones, (..., varying) -> (..., declared), in the order of declaration."""
        if not len(self.model.shared):
            return x
        declared = np.empty((*x.shape[:-1], len(self.model.varying) + len(self.model.shared)))
        declared[..., self.model.varying] = x
        declared[..., self.model.shared] = self.shared
        return declared

    # --- EM is a fixed-point map on vectors ---------------------------------------------------------------------------

    def to_vector(self) -> FloatArray:
        """Free numbers: b, the log of each L's diagonal, (full) what is below it per diagonal entry, shared ones."""
        diagonal = np.diagonal(self.cholesky, axis1=1, axis2=2)
        rows, columns = self.model.below
        below = (self.cholesky / diagonal[:, :, None])[:, rows, columns]
        return np.concatenate([self.coefficients, np.log(diagonal).ravel(), below.ravel(), self.shared])

    def from_vector(self, vector: FloatArray) -> Group:
        """Make the group that `to_vector` described."""
        k, (levels, p, _) = len(self.coefficients), self.covariances.shape
        rows, columns = self.model.below
        coefficients, log_diagonal, below, shared = np.split(vector, np.cumsum([k, levels * p, levels * len(rows)]))
        factor = np.tile(np.eye(p), (levels, 1, 1))
        factor[:, rows, columns] = below.reshape(levels, len(rows))
        factor *= np.exp(log_diagonal).reshape(levels, p, 1)
        return Group(self.model, coefficients, factor @ factor.transpose(0, 2, 1), shared)

    @property
    def units(self) -> FloatArray:
        """What each free number is measured in: parameters' spreads for b and shared ones, 1 for the rest."""
        model, (levels, p, _) = self.model, self.covariances.shape
        ones = np.ones(levels * (p + len(model.below[0])))
        of_coefficients = model.unit[model.varying][model.belongs_to] / model.typical
        return np.concatenate([of_coefficients, ones, model.unit[model.shared]])


def _along(matrix: FloatArray, x: FloatArray) -> FloatArray:
    """Multiply each subject's matrix by each of its vectors, (subject, ..., parameter)."""
    rows = x.reshape(len(x), math.prod(x.shape[1:-1]), x.shape[-1])
    return product(rows, transposed(matrix)).reshape(x.shape)


def _spread(location: FloatArray, ndim: int) -> FloatArray:
    """Give (subject, parameter) further dimensions between the two."""
    return location.reshape(len(location), *[1] * (ndim - 2), location.shape[1])
