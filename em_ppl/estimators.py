"""How an E-step takes expectations over a subject's posterior.

All of them end in the same thing: points around the mode, with weights that sum to 1. What the M-step and the scores
need is a weighted sum over these, whatever the estimator.
"""

from __future__ import annotations

import numbers
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from scipy import special
from scipy.stats import qmc

from em_ppl.distributions import Normal, StudentT
from em_ppl.group import FloatArray

__all__ = ["Estimator", "ImportanceSampling", "Quadrature"]

Estimator = Literal["corrected", "laplace", "exact"]

# points per parameter with which group parameters have three digits (tests/benchmarks/accuracy.py)
ORDERS = {1: 21, 2: 11, 3: 7}


class Rule(NamedTuple):
    """Each subject's integral over standardised parameters as a sum: of f(z) it is that of exp(log_weight) f(z)."""

    z: FloatArray  # (subject, point, parameter)
    log_weight: FloatArray  # (subject, point)
    drawn: bool  # whether the points are random, and their weights to be smoothed


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

    def rule(self, n_subjects: int, n_parameters: int, generator: np.random.Generator) -> Rule:
        """Lay the points, the same for every subject; nothing is random here."""
        if self.order is None and n_parameters not in ORDERS:
            raise ValueError(
                f"Quadrature over {n_parameters} varying parameters has too many points: use em.ImportanceSampling(), "
                "or say order=... yourself."
            )
        x, w = np.polynomial.hermite.hermgauss(self.order or ORDERS[n_parameters])
        grid = np.stack(np.meshgrid(*[x] * n_parameters, indexing="ij"), axis=-1).reshape(-1, n_parameters)
        one = np.log(w) + x**2 + 0.5 * np.log(2)
        weights = np.stack(np.meshgrid(*[one] * n_parameters, indexing="ij"), axis=-1).reshape(-1, n_parameters)
        shape = (n_subjects, *grid.shape)
        return Rule(np.broadcast_to(np.sqrt(2) * grid, shape), np.broadcast_to(weights.sum(1), shape[:2]), False)


@dataclass(frozen=True)
class ImportanceSampling:
    """Importance sampling around each subject's Laplace approximation, by randomly shifted Sobol points.

    A subject keeps its points from one step of EM to the next, so that EM converges; subjects' shifts differ, so that
    their errors do not add up in the group.

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
        if not isinstance(self.draws, numbers.Integral) or self.draws < 2 or self.draws & (self.draws - 1):
            raise ValueError(f"ImportanceSampling: draws={self.draws!r} must be a power of 2, as Sobol points need.")
        if not isinstance(self.df, numbers.Real) or not self.df > 0:
            raise ValueError(f"ImportanceSampling: df={self.df!r} must be a positive number, or inf.")

    def rule(self, n_subjects: int, n_parameters: int, generator: np.random.Generator) -> Rule:
        """Draw every subject's points."""
        points = qmc.Sobol(n_parameters, rng=generator).random(self.draws)
        uniform = (points + generator.random((n_subjects, 1, n_parameters))) % 1.0
        uniform = np.clip(uniform, 1e-12, 1 - 1e-12)
        proposal: Normal | StudentT = Normal() if np.isinf(self.df) else StudentT(self.df)
        z = special.ndtri(uniform) if np.isinf(self.df) else special.stdtrit(self.df, uniform)
        log_density = proposal.log_constant(n_parameters, False) - proposal.potential(z, False)
        return Rule(z, -log_density - np.log(self.draws), True)


def exact_integration(n_parameters: int) -> Quadrature | ImportanceSampling:
    """Choose for "exact": quadrature as long as its points are few."""
    return Quadrature() if n_parameters in ORDERS else ImportanceSampling()
