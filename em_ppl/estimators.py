"""Where the exact E-step evaluates a subject's posterior: adaptive quadrature, and importance sampling.

Either lays points around each subject's Laplace approximation, with the log of the volume that each stands for: an
integral over the subject's parameters is the sum of exp(log volume) times the integrand.
"""

from __future__ import annotations

import numbers
from dataclasses import dataclass, replace
from functools import cache, cached_property
from typing import Literal, TypeAlias

import numpy as np
import scipy

from em_ppl.distributions import Distribution, Normal, StudentT
from em_ppl.group import FloatArray, Group, Index
from em_ppl.kept import kept
from em_ppl.modes import LaplaceApproximation
from em_ppl.small_matrices import product, transposed

__all__ = ["Estimator", "ImportanceSampling", "Quadrature"]

Estimator = Literal["corrected", "laplace", "exact"]

# points per parameter with which group parameters have three digits (tests/benchmarks/accuracy.py)
ORDERS = {1: 21, 2: 11, 3: 7}
FEWEST = 32  # draws


@dataclass(frozen=True)
class Grid:
    """Points and log volumes in the space where a Laplace approximation is standard, the same for all subjects.

    `drawn` says whether points are random, so that their weights need smoothing.
    """

    z: FloatArray  # (point, parameter)
    log_volume: FloatArray  # (point,)
    drawn: bool = False

    def place(self, group: Group, laplace: LaplaceApproximation) -> tuple[FloatArray, FloatArray]:
        """Return the points minus the modes, (subject, point, parameter), and their log volumes, (subject, point)."""
        root = _root(group, laplace)
        away = self.z @ root.transpose(0, 2, 1) - laplace.shift[:, None]
        return away, self.log_volume + _log_determinant(root)[:, None]

    def take(self, subjects: Index) -> Grid:
        """Return the same for some of the subjects."""
        return self


@dataclass(frozen=True)
class Draws:
    """Draws from each subject's Laplace approximation with the tails of `proposal`, and from a heavy-tailed group.

    A posterior can have the group's heavy tails, which no Laplace approximation reaches: half of the draws then come
    from the group (or what covers it), and weights are those of the mixture (Owen & Zhou 2000, J. Am. Stat. Assoc. 95).
    """

    points: FloatArray  # (draw, parameter + 1), uniform, the same for all
    shifts: FloatArray  # (subject, parameter + 1), what a subject adds to them
    proposal: Normal | StudentT
    covering: Normal | StudentT
    joint: bool  # whether `covering` has the multivariate form
    n_near: int  # draws from `proposal`, the first ones
    drawn: bool = True

    @cached_property
    def z(self) -> FloatArray:
        """Draws from `proposal`, (subject, draw, parameter)."""
        return self.proposal.quantile(self._uniform(self.points[: self.n_near]), joint=False)

    @cached_property
    def z_of_group(self) -> FloatArray:
        """Draws from `covering`, where the group is standard, (subject, draw, parameter); maybe none."""
        return self.covering.quantile(self._uniform(self.points[self.n_near :]), self.joint)

    def _uniform(self, points: FloatArray) -> FloatArray:
        shifted = points + self.shifts[:, None]
        return np.clip(shifted - np.floor(shifted), 1e-12, 1 - 1e-12)

    def place(self, group: Group, laplace: LaplaceApproximation) -> tuple[FloatArray, FloatArray]:
        """See `Grid`."""
        root, centre = _root(group, laplace), laplace.mode - laplace.shift
        x, z = product(self.z, transposed(root)) + centre[:, None], self.z
        if self.z_of_group.shape[1]:
            x = np.concatenate([x, group.unstandardise(self.z_of_group)], axis=1)
            z = product(x - centre[:, None], transposed(np.linalg.inv(root)))
        log_density = _log_density(self.proposal, z, joint=False) - _log_determinant(root)[:, None]
        if self.z_of_group.shape[1]:
            of_group = _log_density(self.covering, group.standardise(x), joint=self.joint)
            of_group -= _log_determinant(group.factor())[:, None]
            share = np.log([self.z.shape[1] / x.shape[1], self.z_of_group.shape[1] / x.shape[1]])
            log_density = np.logaddexp(share[0] + log_density, share[1] + of_group)
        return x - laplace.mode[:, None], -log_density - np.log(x.shape[1])

    def take(self, subjects: Index) -> Draws:
        """See `Grid`."""
        return replace(self, shifts=self.shifts[subjects])


Rule: TypeAlias = Grid | Draws
"""The points of a study, fixed while EM runs; made by `Quadrature` or `ImportanceSampling`."""


def _root(group: Group, laplace: LaplaceApproximation) -> FloatArray:
    """L with L L' the covariance to integrate with: Laplace's, but no wider than the group.

    A likelihood that curves up at the mode makes Laplace's wider than the group, without bound; the posterior is not.
    """
    factor = group.factor()
    inverse = group.inverse_cholesky[group.model.level]
    values, vectors = np.linalg.eigh(inverse @ laplace.covariance @ inverse.transpose(0, 2, 1))
    capped = factor @ (vectors * np.sqrt(np.minimum(values, 1.0))[:, None, :])
    return np.linalg.cholesky(capped @ capped.transpose(0, 2, 1))


def _log_density(distribution: Distribution, z: FloatArray, *, joint: bool) -> FloatArray:
    return distribution.log_constant(z.shape[-1], joint) - distribution.potential(z, joint)


def _log_determinant(root: FloatArray) -> FloatArray:
    return np.log(np.diagonal(root, axis1=1, axis2=2)).sum(1)


@dataclass(frozen=True)
class Quadrature:
    """Adaptive Gauss-Hermite quadrature around each subject's Laplace approximation.

    Parameters
    ----------
    order : int, optional
        Points per varying parameter; all their combinations are evaluated. Left out, 21, 11 or 7 with one, two or three
        parameters: enough for three digits of the group's.

    References
    ----------
    Liu, Q., & Pierce, D. A. (1994). A note on Gauss-Hermite quadrature. Biometrika, 81, 624-629.
    https://doi.org/10.1093/biomet/81.3.624

    Examples
    --------
    >>> import em_ppl as em
    >>> em.Quadrature(order=25)
    Quadrature(order=25)
    """

    order: int | None = None

    def __post_init__(self) -> None:
        if self.order is not None and (not isinstance(self.order, numbers.Integral) or self.order < 1):
            raise ValueError(f"Quadrature: order={self.order!r} must be a whole number, at least 1.")

    def rule(self, group: Group, generator: np.random.Generator) -> Rule:
        """Lay the points for subjects of such a group; nothing is random here."""
        n_parameters = len(group.model.varying)
        if self.order is None and n_parameters not in ORDERS:
            raise ValueError(
                f"Quadrature over {n_parameters} varying parameters has too many points: use em.ImportanceSampling(), "
                "or say order=... yourself."
            )
        if group.model.distribution.heavy_tails:
            raise ValueError("Quadrature does not reach the heavy tails of this group: use em.ImportanceSampling().")
        x, w = np.polynomial.hermite.hermgauss(self.order or ORDERS[n_parameters])
        grid = np.stack(np.meshgrid(*[x] * n_parameters, indexing="ij"), axis=-1).reshape(-1, n_parameters)
        one = np.log(w) + x**2 + 0.5 * np.log(2)
        weights = np.stack(np.meshgrid(*[one] * n_parameters, indexing="ij"), axis=-1).reshape(-1, n_parameters)
        return Grid(np.sqrt(2) * grid, weights.sum(1))


@dataclass(frozen=True)
class ImportanceSampling:
    """Importance sampling around each subject's Laplace approximation, by randomly shifted Sobol points.

    In a heavy-tailed group half of the points come from the group itself, whose tails a posterior can have. A subject
    keeps its points from one step of EM to the next, so that EM converges; subjects' shifts differ, so that their
    errors do not add up in the group.

    Parameters
    ----------
    draws : int
        Points per subject, a power of 2.
    df : float
        Degrees of freedom of the proposal, an independent Student-t for each parameter; ``inf`` for a Normal one.

    References
    ----------
    Geweke, J. (1989). Bayesian inference in econometric models using Monte Carlo integration. Econometrica, 57,
    1317-1339. https://doi.org/10.2307/1913710

    Cranley, R., & Patterson, T. N. L. (1976). Randomization of number theoretic methods for multiple integration. SIAM
    Journal on Numerical Analysis, 13, 904-914. https://doi.org/10.1137/0713071

    Examples
    --------
    >>> import em_ppl as em
    >>> em.ImportanceSampling(draws=1024)
    ImportanceSampling(draws=1024, df=5.0)
    """

    draws: int = 512
    df: float = 5.0

    def __post_init__(self) -> None:
        if not isinstance(self.draws, numbers.Integral) or self.draws < FEWEST or self.draws & (self.draws - 1):
            raise ValueError(
                f"ImportanceSampling: draws={self.draws!r} must be a power of 2, as Sobol points need, and at least "
                f"{FEWEST}, for the tail of the weights to be seen."
            )
        if not isinstance(self.df, numbers.Real) or not self.df > 0:
            raise ValueError(f"ImportanceSampling: df={self.df!r} must be a positive number, or inf.")

    def rule(self, group: Group, generator: np.random.Generator) -> Rule:
        """Draw the points of every subject of such a group."""
        model, (n, p) = group.model, group.location.shape
        points = _sobol_points(self.draws, p + 1)  # the last dimension is a joint Student-t's own scale
        shifts = generator.random((n, p + 1))[model.place.argsort().argsort()]
        proposal = Normal() if np.isinf(self.df) else StudentT(self.df)
        n_near = self.draws // 2 if model.distribution.heavy_tails else self.draws
        return Draws(points, shifts, proposal, model.distribution.covering, model.joint, n_near)


@cache
def _sobol_points(n: int, n_dimensions: int) -> FloatArray:
    """Scrambled once and for all, (n, dimension): kept, because `scipy.stats` takes longer to load than a fit takes."""
    name = f"sobol_{n}_{n_dimensions}_{scipy.__version__}"
    return kept(name, lambda: scipy.stats.qmc.Sobol(n_dimensions, rng=0).random(n))


def exact_integration(n_parameters: int, distribution: Distribution) -> Quadrature | ImportanceSampling:
    """Choose for "exact": quadrature as long as its points are few, and reach the group's tails."""
    few = n_parameters in ORDERS and not distribution.heavy_tails
    return Quadrature() if few else ImportanceSampling()
