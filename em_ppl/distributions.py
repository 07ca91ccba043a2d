"""How subjects scatter around the parameters that are expected of them: Normally, or with heavier tails.

All are mixtures of Normals over a scale: given its weight u, a subject is Normal with the covariance divided by u. What
EM needs of one is therefore the expected weight: far from the centre it is small, and an outlying subject drags little.
Everything here lives in the space where the group has location 0 and scale 1; z is (..., parameter).
"""

from __future__ import annotations

import numbers
from dataclasses import dataclass

import numpy as np
import scipy
from numpy.typing import NDArray

__all__ = ["Cauchy", "Distribution", "Laplace", "Normal", "StudentT"]

FloatArray = NDArray[np.float64]

PEAK = 0.1  # of the scale: so far from the centre a Laplace group's kink is rounded


class Distribution:
    """What a group is drawn from; made by `Normal`, `StudentT`, `Cauchy` or `Laplace`.

    `joint` says whether one weight serves all parameters of a subject (a full covariance: the multivariate form) or
    each parameter has its own (a diagonal one: independent).
    """

    heavy_tails = True
    smooth = True  # enough for a Laplace approximation

    def potential(self, z: FloatArray, joint: bool) -> FloatArray:
        """Negative log density without its constant, (...,)."""
        raise NotImplementedError

    def weight(self, z: FloatArray, joint: bool) -> FloatArray:
        """Return the expected weight u given z, (..., parameter); the gradient of the potential is u z."""
        raise NotImplementedError

    def curvature(self, z: FloatArray, joint: bool) -> FloatArray:
        """Hessian of the potential, (..., parameter, parameter)."""
        raise NotImplementedError

    def log_constant(self, n_parameters: int, joint: bool) -> float:
        """Log of what makes exp(-potential) a density."""
        raise NotImplementedError

    def reach(self, probability: float) -> float:
        """How far from the centre, in scales, a parameter lies with this probability at most."""
        raise NotImplementedError

    @property
    def covering(self) -> Normal | StudentT:
        """A distribution that can be drawn from, with tails no lighter."""
        raise NotImplementedError


@dataclass(frozen=True)
class Normal(Distribution):
    """The Normal distribution, the default.

    Examples
    --------
    >>> import em_ppl as em
    >>> em.Normal()
    Normal()
    """

    heavy_tails = False

    def potential(self, z: FloatArray, joint: bool) -> FloatArray:
        """See `Distribution`."""
        return np.asarray(0.5 * np.einsum("...i,...i->...", z, z))

    def weight(self, z: FloatArray, joint: bool) -> FloatArray:
        """See `Distribution`."""
        return np.ones_like(z)

    def curvature(self, z: FloatArray, joint: bool) -> FloatArray:
        """See `Distribution`."""
        return np.broadcast_to(np.eye(z.shape[-1]), (*z.shape, z.shape[-1]))

    def log_constant(self, n_parameters: int, joint: bool) -> float:
        """See `Distribution`."""
        return -0.5 * n_parameters * float(np.log(2 * np.pi))

    def reach(self, probability: float) -> float:
        """See `Distribution`."""
        return float(scipy.special.ndtri(0.5 + probability / 2))

    @property
    def covering(self) -> Normal | StudentT:
        """See `Distribution`."""
        return self

    def quantile(self, uniform: FloatArray, joint: bool) -> FloatArray:
        """Turn uniform numbers, (..., parameter + 1), into draws; a Normal has no use for the last."""
        return np.asarray(scipy.special.ndtri(uniform[..., :-1]))


@dataclass(frozen=True)
class StudentT(Distribution):
    """Student's t: an outlying subject does not drag the rest.

    Its scale is not its standard deviation, which is sqrt(df / (df - 2)) times as large and infinite up to df = 2.

    Parameters
    ----------
    df : float
        Degrees of freedom, above 0 and fixed: small means heavy tails; from 30 on it is all but Normal.

    References
    ----------
    Lange, K. L., Little, R. J. A., & Taylor, J. M. G. (1989). Robust statistical modeling using the t distribution.
    Journal of the American Statistical Association, 84, 881-896. https://doi.org/10.1080/01621459.1989.10478852

    Examples
    --------
    >>> import em_ppl as em
    >>> em.StudentT(df=4)
    StudentT(df=4)
    """

    df: float = 5.0

    def __post_init__(self) -> None:
        if not isinstance(self.df, numbers.Real) or not 0 < self.df < np.inf:
            raise ValueError(f"StudentT: df={self.df!r} must be a positive number.")

    def _squares(self, z: FloatArray, joint: bool) -> tuple[FloatArray, int]:
        """Squared distance of each block of parameters, and the size of a block."""
        return ((z**2).sum(-1, keepdims=True), z.shape[-1]) if joint else (z**2, 1)

    def potential(self, z: FloatArray, joint: bool) -> FloatArray:
        """See `Distribution`."""
        squares, size = self._squares(z, joint)
        return np.asarray(0.5 * (self.df + size) * np.log1p(squares / self.df).sum(-1))

    def weight(self, z: FloatArray, joint: bool) -> FloatArray:
        """See `Distribution`."""
        squares, size = self._squares(z, joint)
        return np.broadcast_to((self.df + size) / (self.df + squares), z.shape)

    def curvature(self, z: FloatArray, joint: bool) -> FloatArray:
        """See `Distribution`."""
        n, size = z.shape[-1], z.shape[-1] if joint else 1
        u = self.weight(z, joint)
        outer = (u * z)[..., :, None] * (u * z)[..., None, :]
        if not joint:
            outer = outer * np.eye(n)
        return np.asarray(u[..., None] * np.eye(n) - 2 / (self.df + size) * outer)

    def log_constant(self, n_parameters: int, joint: bool) -> float:
        """See `Distribution`."""
        size = n_parameters if joint else 1
        gammas = scipy.special.gammaln((self.df + size) / 2) - scipy.special.gammaln(self.df / 2)
        return float(n_parameters // size * (gammas - 0.5 * size * np.log(self.df * np.pi)))

    def reach(self, probability: float) -> float:
        """See `Distribution`."""
        return float(scipy.special.stdtrit(self.df, 0.5 + probability / 2))

    @property
    def covering(self) -> Normal | StudentT:
        """See `Distribution`."""
        return self

    def quantile(self, uniform: FloatArray, joint: bool) -> FloatArray:
        """Turn uniform numbers, (..., parameter + 1), into draws; the last gives a joint one its scale."""
        if not joint:
            return np.asarray(scipy.special.stdtrit(self.df, uniform[..., :-1]))
        weight = scipy.special.gammaincinv(self.df / 2, uniform[..., -1:]) * 2 / self.df
        return np.asarray(scipy.special.ndtri(uniform[..., :-1]) / np.sqrt(weight))


def Cauchy() -> StudentT:
    """Student's t with one degree of freedom: the heaviest tails; it has no mean and no standard deviation.

    Examples
    --------
    >>> import em_ppl as em
    >>> em.Cauchy()
    StudentT(df=1.0)
    """
    return StudentT(1.0)


@dataclass(frozen=True)
class Laplace(Distribution):
    """The Laplace (double-exponential) distribution, for independent parameters and the exact estimator.

    Its log density has a kink at the centre, which no Laplace approximation can follow: it needs ``estimator="exact"``.
    For the search the kink is rounded within a tenth of the scale: abs(z) becomes sqrt(z^2 + 0.1^2), which is the
    symmetric hyperbolic distribution. Its scale is 1 / sqrt(2) of the standard deviation (before rounding).

    References
    ----------
    Barndorff-Nielsen, O. (1977). Exponentially decreasing distributions for the logarithm of particle size.
    Proceedings of the Royal Society A, 353, 401-419. https://doi.org/10.1098/rspa.1977.0041

    Examples
    --------
    >>> import em_ppl as em
    >>> em.Laplace()
    Laplace()
    """

    smooth = False

    def potential(self, z: FloatArray, joint: bool) -> FloatArray:
        """See `Distribution`."""
        return np.asarray(np.sqrt(z**2 + PEAK**2).sum(-1))

    def weight(self, z: FloatArray, joint: bool) -> FloatArray:
        """See `Distribution`."""
        return np.asarray(1 / np.sqrt(z**2 + PEAK**2))

    def curvature(self, z: FloatArray, joint: bool) -> FloatArray:
        """Return that of the Normal with the same variance: its own is a needle at the centre, and 0 elsewhere."""
        return np.ones_like(z)[..., None] * (0.5 * np.eye(z.shape[-1]))

    def log_constant(self, n_parameters: int, joint: bool) -> float:
        """See `Distribution`."""
        return float(-n_parameters * np.log(2 * PEAK * scipy.special.k1(PEAK)))

    def reach(self, probability: float) -> float:
        """See `Distribution`; the rounded peak is counted as sharp."""
        return -float(np.log1p(-probability))

    @property
    def covering(self) -> Normal | StudentT:
        """See `Distribution`."""
        return StudentT(5.0)
