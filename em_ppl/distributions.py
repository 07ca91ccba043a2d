"""How subjects scatter around the parameters that are expected of them: Normally, or with heavier tails.

All are mixtures of Normals over a scale: given its weight u, a subject is Normal with the covariance divided by u. What
EM needs of one is therefore the expected weight: far from the centre it is small, and an outlying subject drags little.
Everything here lives in the space where the group has location 0 and scale 1; z is (..., parameter).
"""

from __future__ import annotations

import numbers
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

__all__ = ["Cauchy", "Distribution", "Laplace", "Normal", "StudentT"]

FloatArray = NDArray[np.float64]

PEAK = 0.1  # of the scale: so far from the centre a Laplace group's kink is rounded


class Distribution:
    """What a group is drawn from; made by `Normal`, `StudentT`, `Cauchy` or `Laplace`.

    `joint` says whether one weight serves all parameters of a subject (a full covariance: the multivariate form) or
    each parameter has its own (a diagonal one: independent).
    """

    heavy_tails = True

    def potential(self, z: FloatArray, joint: bool) -> FloatArray:
        """Negative log density without its constant, (...,)."""
        raise NotImplementedError

    def weight(self, z: FloatArray, joint: bool) -> FloatArray:
        """Expected weight u given z, (..., parameter); the gradient of the potential is u z."""
        raise NotImplementedError

    def curvature(self, z: FloatArray, joint: bool) -> FloatArray:
        """Hessian of the potential, (..., parameter, parameter)."""
        raise NotImplementedError

    def log_constant(self, n_parameters: int, joint: bool) -> float:
        """Log of what makes exp(-potential) a density."""
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
        return np.asarray(0.5 * (z**2).sum(-1))

    def weight(self, z: FloatArray, joint: bool) -> FloatArray:
        """See `Distribution`."""
        return np.ones_like(z)

    def curvature(self, z: FloatArray, joint: bool) -> FloatArray:
        """See `Distribution`."""
        return np.broadcast_to(np.eye(z.shape[-1]), (*z.shape, z.shape[-1]))

    def log_constant(self, n_parameters: int, joint: bool) -> float:
        """See `Distribution`."""
        return -0.5 * n_parameters * float(np.log(2 * np.pi))


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
        gammas = special.gammaln((self.df + size) / 2) - special.gammaln(self.df / 2)
        return float(n_parameters // size * (gammas - 0.5 * size * np.log(self.df * np.pi)))


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
    """The Laplace (double-exponential) distribution, for independent parameters.

    Its log density has a kink at the centre, where no mode search and no curvature is at home. The kink is rounded
    within a tenth of the scale: abs(z) becomes sqrt(z^2 + 0.1^2), which is the symmetric hyperbolic distribution. Its
    scale is 1 / sqrt(2) of the standard deviation (before rounding).

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

    def potential(self, z: FloatArray, joint: bool) -> FloatArray:
        """See `Distribution`."""
        return np.asarray(np.sqrt(z**2 + PEAK**2).sum(-1))

    def weight(self, z: FloatArray, joint: bool) -> FloatArray:
        """See `Distribution`."""
        return np.asarray(1 / np.sqrt(z**2 + PEAK**2))

    def curvature(self, z: FloatArray, joint: bool) -> FloatArray:
        """See `Distribution`."""
        return np.asarray((PEAK**2 * self.weight(z, joint) ** 3)[..., None] * np.eye(z.shape[-1]))

    def log_constant(self, n_parameters: int, joint: bool) -> float:
        """See `Distribution`."""
        return float(-n_parameters * np.log(2 * PEAK * special.k1(PEAK)))
