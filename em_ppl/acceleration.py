"""Anderson acceleration of a fixed-point iteration (Walker & Ni 2011, SIAM J. Numer. Anal. 49, 1715-1735)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

MEMORY = 3
LONGEST_EXTRAPOLATION = 1.0  # largest change of any coordinate beyond the plain step
GROWTH = 2.0  # of the residual: then what was remembered is of another place, and is forgotten


class Anderson:
    """Extrapolate the points of ``image = f(point)`` towards the fixed point.

    Examples
    --------
    >>> import numpy as np
    >>> accelerate, x = Anderson(), np.array([1.0])
    >>> for _ in range(6):
    ...     x = accelerate(x, np.cos(x))
    >>> x.round(6)  # 43 plain steps
    array([0.739085])
    """

    def __init__(self, points: tuple[tuple[FloatArray, FloatArray], ...] = ()) -> None:
        self.points = points  # and their images, as far as they are remembered

    def __call__(self, point: FloatArray, image: FloatArray) -> FloatArray:
        """Return the next point to try."""
        if self.points:
            last_point, last_image = self.points[-1]
            if np.abs(image - point).max() > GROWTH * np.abs(last_image - last_point).max():
                self.points = ()
        self.points = (*self.points[-MEMORY:], (point, image))
        if len(self.points) == 1:
            return image
        points, images = (np.array(values) for values in zip(*self.points, strict=True))
        residuals = images - points
        weights = np.linalg.lstsq(np.diff(residuals, axis=0).T, residuals[-1], rcond=1e-10)[0]
        step: FloatArray = -weights @ np.diff(images, axis=0)
        shorten = min(1.0, LONGEST_EXTRAPOLATION / max(float(np.abs(step).max()), 1e-300))
        return np.asarray(image + shorten * step)
