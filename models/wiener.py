"""A Wiener process (Brownian motion) between two boundaries: which one it reaches, and when.

Not a model by itself but what models of response times are made of, such as `drift_diffusion`. The process starts at
the share ``z`` of the way from the lower boundary, at 0, to the upper one, at ``a``. It drifts with speed ``v``; its
noise has SD 1 per square root of a second. A response comes ``t0`` seconds after the process gets to a boundary.

The boundary and the time are drawn one after the other: first which boundary is reached (`log_odds`), then when, given
which (`log_density`, `draw`). Together these are the first-passage density of the literature.

References
----------
Navarro, D. J., & Fuss, I. G. (2009). Fast and accurate calculations for first-passage times in Wiener diffusion models.
Journal of Mathematical Psychology, 53, 222-230. https://doi.org/10.1016/j.jmp.2009.02.003

Michael, J. R., Schucany, W. R., & Haas, R. W. (1976). Generating random variates using transformations with multiple
roots. The American Statistician, 30, 88-90. https://doi.org/10.1080/00031305.1976.10479147
"""

from __future__ import annotations

import numpy as np
import pytensor.tensor as pt

__all__ = ["draw", "log_density", "log_odds"]

EDGE = 1e-9  # a start nearer to a boundary, as a share of the way between them, is taken to be there
SWITCH = 0.3  # between the series for short times and the one for long times; both have 14 digits there


def log_odds(v, a, z):
    """Log odds of the upper boundary against the lower one."""
    drift = v * a
    return drift + pt.log(z) - pt.log1p(-z) + _log_sinhc(drift * z) - _log_sinhc(drift * (1 - z))


def log_density(rt, choice, v, a, z, t0):
    """Log density of the response time, given which boundary is reached (0 the lower, 1 the upper).

    To get as far as d in less than d^2 / 100 seconds has a probability below exp(-40), for drifts with abs(v) d < 9. At
    such times, and before ``t0``, 1 / time is continued by its tangent. So the log density is finite everywhere, and
    lower the more time is wanting: a search that puts ``t0`` behind a response is driven back.
    """
    w = pt.clip(pt.switch(choice, 1 - z, z), EDGE, 1 - EDGE)  # how far it is to the boundary, as a share of a
    away = pt.switch(choice, -v, v)
    shortest, time = (w * a) ** 2 / 100, rt - t0
    time = 1 / (1 / pt.maximum(time, shortest) + pt.maximum(shortest - time, 0) / shortest**2)
    log_passage = _log_standard(time / a**2, w, pt) - 2 * pt.log(a) - away * a * w - away**2 * time / 2
    log_probability = -pt.softplus(pt.switch(choice, -1, 1) * log_odds(v, a, z))
    return log_passage - log_probability


def draw(choice, v, a, z, t0, rng, size=None):
    """Draw response times, given which boundary is reached: exactly, by rejection.

    Given the boundary, the sign of the drift makes no difference: let it be towards the boundary. Were there no other
    boundary, the times would be inverse Gaussian. Such a time is kept with the probability that a process which takes
    so long has not met the other boundary before: the ratio of the two densities.
    """
    shape = np.broadcast_shapes(*map(np.shape, (choice, v, a, z, t0)), size or ())
    choice, v, a, z, t0 = (np.broadcast_to(x, shape) for x in (choice, v, a, z, t0))
    # from next to the other boundary most are stopped there; the times of the rest hardly depend on how near it is
    w = np.clip(np.where(choice, 1 - z, z), EDGE, 0.999).ravel()
    drift, time, left = np.abs(v * a).ravel(), np.empty(w.size), np.arange(w.size)
    while left.size:
        proposed = _inverse_gaussian(drift[left], w[left], rng)
        unstopped = np.log(w[left]) - w[left] ** 2 / (2 * proposed) - 0.5 * np.log(2 * np.pi) - 1.5 * np.log(proposed)
        kept = np.log(rng.random(left.size)) < _log_standard(proposed, w[left], np) - unstopped
        time[left[kept]] = proposed[kept]
        left = left[~kept]
    return t0 + a**2 * time.reshape(shape)


def _log_standard(time, w, xp):
    """Log first-passage density at 0 of a process without drift between 0 and 1 that starts at w.

    By Navarro and Fuss's series for short and for long times, each with what is common to its terms taken out of the
    sum, and shown only such times as it is meant for: elsewhere its slope may be no number. ``xp`` is NumPy or
    pytensor.tensor.
    """
    short, long = xp.minimum(time, SWITCH), xp.maximum(time, SWITCH)
    early = sum((w + 2 * k) * xp.exp(-2 * k * (k + w) / short) for k in (0, -1, 1, -2, 2))
    late = sum(k * xp.sin(k * np.pi * w) * xp.exp((1 - k**2) * np.pi**2 * long / 2) for k in (1, 2, 3, 4))
    return xp.where(
        time < SWITCH,
        xp.log(early) - w**2 / (2 * short) - 0.5 * np.log(2 * np.pi) - 1.5 * xp.log(short),
        xp.log(np.pi * late) - np.pi**2 * long / 2,
    )


def _log_sinhc(y):
    """Log of sinh(y) / y."""
    y = pt.sqrt(y**2 + 1e-12)  # it is even; at 0 its slope would be 0 / 0
    return y + pt.log(-pt.expm1(-2 * y) / (2 * y))


def _inverse_gaussian(drift, w, rng):
    """Draw first-passage times over a distance w, with a drift towards it that may be 0 (Michael et al.)."""
    rate, noise = drift / w, rng.standard_normal(w.size) ** 2 / (2 * w**2)
    root = 1 / (rate + noise + np.sqrt(noise * (2 * rate + noise)))
    other = rng.random(w.size) * (1 + rate * root) > 1
    return np.where(other, 1 / np.where(other, rate**2 * root, 1), root)
