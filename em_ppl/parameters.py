"""Parameters of one subject, and the links that carry them from Gaussian space to natural space.

The group is Normal in Gaussian space (the whole real line); the likelihood reads natural space (a learning
rate in (0, 1)). A *link* is the strictly increasing map from the first to the second.
"""

from __future__ import annotations

import numbers
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pytensor.tensor as pt
import scipy
from numpy.typing import ArrayLike, NDArray
from pytensor.tensor import TensorVariable

__all__ = ["Interval", "Parameter", "Positive", "Real", "Unit"]

FloatArray = NDArray[np.float64]

LARGEST_EXPONENT = 700.0  # exp(710) overflows


class Link(NamedTuple):
    """A map from Gaussian space to (0, 1), to (0, inf) or to itself: on numbers, its inverse, on symbols."""

    natural: Callable[[FloatArray], FloatArray]
    gaussian: Callable[[FloatArray], FloatArray]
    symbolic: Callable[[TensorVariable], TensorVariable]


# SciPy loads its parts when they are first called, not when this file is imported
LINKS: dict[str, Link] = {
    "identity": Link(
        natural=lambda x: x,
        gaussian=lambda y: y,
        symbolic=lambda x: x,
    ),
    "log": Link(
        natural=lambda x: np.exp(np.minimum(x, LARGEST_EXPONENT)),
        gaussian=np.log,
        symbolic=lambda x: pt.exp(pt.minimum(x, LARGEST_EXPONENT)),
    ),
    "softplus": Link(
        natural=lambda x: np.logaddexp(0.0, x),
        gaussian=lambda y: y + np.log(-np.expm1(-y)),
        symbolic=pt.softplus,
    ),
    "logit": Link(
        natural=lambda x: scipy.special.expit(x),
        gaussian=lambda y: scipy.special.logit(y),
        symbolic=pt.sigmoid,
    ),
    "probit": Link(
        natural=lambda x: scipy.special.ndtr(x),
        gaussian=lambda y: scipy.special.ndtri(y),
        # erfc keeps its digits in the lower tail, where 1 + erf would cancel
        symbolic=lambda x: 0.5 * pt.erfc(-x / np.sqrt(2.0)),
    ),
}


@dataclass(frozen=True)
class Parameter:
    """A parameter of one subject, made by `Real`, `Positive`, `Unit` or `Interval`.

    Attributes
    ----------
    kind : str
        The function that made it.
    link : str
        The map from Gaussian to natural space.
    low, high : float
        Bounds in natural space; values lie strictly between them.
    start : float
        Where the search begins, natural space.
    spread : float or None
        Standard deviation of the group before the first iteration, Gaussian space. None: taken from the data.
    shared : bool
        Whether all subjects have the same value, estimated with the group; else each has its own.
    """

    kind: str
    link: str
    low: float
    high: float
    start: float
    spread: float | None
    shared: bool = False

    def __post_init__(self) -> None:
        for name in ("low", "high", "start", "spread"):
            value = getattr(self, name)
            if not isinstance(value, numbers.Real) and not (name == "spread" and value is None):
                raise TypeError(f"{self.kind}: {name}={value!r} is no number.")
        if not self.low < self.high:
            raise ValueError(f"{self.kind}: low={self.low} must lie below high={self.high}.")
        if not self.low < self.start < self.high:
            raise ValueError(
                f"{self.kind}: start={self.start} is outside ({self.low}, {self.high}); "
                "it is given in natural space and lies strictly inside."
            )
        if self.spread is not None and not 0 < self.spread < np.inf:
            raise ValueError(f"{self.kind}: spread={self.spread} must be a positive standard deviation.")
        if not isinstance(self.shared, bool):
            raise TypeError(f"{self.kind}: shared={self.shared!r} must be True or False.")

    @property
    def gaussian_start(self) -> float:
        """The starting value in Gaussian space."""
        return float(self.to_gaussian(self.start))

    @property
    def _stretch(self) -> tuple[float, float]:
        """Offset and factor that carry the link's own range to (low, high)."""
        return (self.low, self.high - self.low) if np.isfinite(self.high) else (0.0, 1.0)

    @property
    def _inside(self) -> tuple[float, float]:
        """The outermost natural values.

        However far out Gaussian space goes, a learning rate never becomes exactly 1 nor a slope 0 or infinite,
        which would turn a likelihood into -inf or NaN; the group pulls such subjects back.
        """
        lowest = np.finfo(float).tiny if self.low == 0 else np.nextafter(self.low, np.inf)
        return float(lowest), float(np.nextafter(self.high, -np.inf))

    def to_natural(self, x: ArrayLike) -> FloatArray:
        """Carry values from Gaussian to natural space.

        Parameters
        ----------
        x : array_like
            Gaussian space, any shape.

        Returns
        -------
        ndarray
            Natural space, the same shape, strictly between the bounds.

        Examples
        --------
        >>> import em_ppl as em
        >>> float(em.Unit().to_natural(0.0))
        0.5
        """
        offset, factor = self._stretch
        return np.clip(offset + factor * LINKS[self.link].natural(np.asarray(x, dtype=float)), *self._inside)

    def to_gaussian(self, value: ArrayLike) -> FloatArray:
        """Carry values from natural to Gaussian space: the inverse of `to_natural`.

        Raises
        ------
        ValueError
            If a value is not strictly between the bounds.

        Examples
        --------
        >>> import em_ppl as em
        >>> float(em.Positive().to_gaussian(1.0))
        0.0
        """
        natural = np.asarray(value, dtype=float)
        if not np.all((natural > self.low) & (natural < self.high)):
            raise ValueError(f"{self.kind}: {natural} is not strictly between {self.low} and {self.high}.")
        offset, factor = self._stretch
        return np.asarray(LINKS[self.link].gaussian((natural - offset) / factor))

    def symbolic(self, x: TensorVariable) -> TensorVariable:
        """`to_natural` as a PyTensor expression."""
        y = LINKS[self.link].symbolic(x)
        if self.link == "identity":
            return y
        offset, factor = self._stretch
        return pt.clip(y if (offset, factor) == (0.0, 1.0) else offset + factor * y, *map(np.float64, self._inside))


def Real(*, start: float = 0.0, spread: float | None = None, shared: bool = False) -> Parameter:
    """Declare any real number: natural and Gaussian space are the same.

    Parameters
    ----------
    start : float
        Where the search begins.
    spread : float, optional
        Group SD before the first iteration. Left out, it is taken from the data, since a real number can be
        in any unit.
    shared : bool
        Whether all subjects have the same value, such as a residual SD or a lapse rate.

    Examples
    --------
    >>> import em_ppl as em
    >>> em.Real(start=250.0).gaussian_start
    250.0
    """
    return Parameter("Real", "identity", -np.inf, np.inf, start, spread, shared)


def Positive(*, start: float = 1.0, spread: float = 1.5, link: str = "log", shared: bool = False) -> Parameter:
    """Declare a number above 0, such as an inverse temperature.

    Parameters
    ----------
    start : float
        Where the search begins, natural space.
    spread : float
        Group SD before the first iteration, Gaussian space.
    link : {"log", "softplus"}
        ``y = exp(x)``, or ``y = log(1 + exp(x))``, which grows linearly and is gentler on large values.
    shared : bool
        Whether all subjects have the same value, such as a residual SD or a lapse rate.

    Examples
    --------
    >>> import em_ppl as em
    >>> em.Positive(start=2.0, link="softplus").to_natural([-1.0, 0.0]).round(3)
    array([0.313, 0.693])
    """
    return Parameter("Positive", _one_of(link, "log", "softplus"), 0.0, np.inf, start, spread, shared)


def Unit(*, start: float = 0.5, spread: float = 1.5, link: str = "logit", shared: bool = False) -> Parameter:
    """Declare a number between 0 and 1, such as a learning rate.

    Parameters
    ----------
    start : float
        Where the search begins, natural space.
    spread : float
        Group SD before the first iteration, Gaussian space.
    link : {"logit", "probit"}
        The logistic function, or the standard Normal distribution function.
    shared : bool
        Whether all subjects have the same value, such as a residual SD or a lapse rate.

    Examples
    --------
    >>> import em_ppl as em
    >>> em.Unit(link="probit").to_natural([-1.96, 1.96]).round(3)
    array([0.025, 0.975])
    """
    return Parameter("Unit", _one_of(link, "logit", "probit"), 0.0, 1.0, start, spread, shared)


def Interval(
    low: float,
    high: float,
    *,
    start: float | None = None,
    spread: float = 1.5,
    link: str = "logit",
    shared: bool = False,
) -> Parameter:
    """Declare a number between two bounds.

    Parameters
    ----------
    low, high : float
        The bounds, natural space.
    start : float, optional
        Where the search begins, natural space; the middle if left out.
    spread : float
        Group SD before the first iteration, Gaussian space.
    link : {"logit", "probit"}
        As for `Unit`, stretched to the interval.
    shared : bool
        Whether all subjects have the same value, such as a residual SD or a lapse rate.

    Raises
    ------
    ValueError
        If a bound is not finite, or low is not below high.

    Examples
    --------
    >>> import em_ppl as em
    >>> float(em.Interval(0, 5).to_natural(0.0))
    2.5
    """
    if not (np.isfinite(low) and np.isfinite(high)):
        raise ValueError(f"Interval: low={low} and high={high} must be finite; use Positive or Real instead.")
    middle = (low + high) / 2 if start is None else start
    link = _one_of(link, "logit", "probit")
    return Parameter("Interval", link, float(low), float(high), middle, spread, shared)


def _one_of(link: str, *choices: str) -> str:
    if link not in choices:
        raise ValueError(f"link={link!r} is not one of {', '.join(map(repr, choices))}.")
    return link
