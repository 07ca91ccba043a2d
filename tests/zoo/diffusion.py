"""Response times of diffusion processes."""

from __future__ import annotations

import numpy as np

from em_ppl.models.drift_diffusion import task
from zoo.case import Case, unit


def drift_diffusion(x, t):
    v, a, z, t0 = x[0], np.exp(x[1]), unit(x[2]), np.exp(x[3])
    total = 0.0
    for choice, rt, stimulus in zip(t["choice"], t["rt"], t["stimulus"], strict=True):
        drift, w = (-v * stimulus, 1 - z) if choice else (v * stimulus, z)
        time, shortest = rt - t0, (w * a) ** 2 / 100
        if time.real < shortest.real:  # 1 / time goes on along its tangent
            time = 1 / (1 / shortest - (time - shortest) / shortest**2)
        total += log_passage(time / a**2, w) - 2 * np.log(a) - drift * a * w - drift**2 * time / 2
    return total


def log_passage(time, w):
    """Log first-passage density at 0 between 0 and 1 from w, without drift: Navarro and Fuss (2009), 40 terms."""
    if time.real > 0.1:
        k = np.arange(1, 41)
        return np.log(np.pi * (k * np.exp(-((k * np.pi) ** 2) * time / 2) * np.sin(k * np.pi * w)).sum())
    images = w + 2 * np.arange(-20, 20)
    terms = images * np.exp((w**2 - images**2) / (2 * time))
    return np.log(terms.sum()) - w**2 / (2 * time) - np.log(2 * np.pi * time**3) / 2


CASES = [
    Case(
        drift_diffusion,
        task(120),
        {"v": (3.0, 1.0), "a": (0.4, 0.25), "z": (0.0, 0.3), "t0": (-1.2, 0.25)},
        {"v": 0.9, "a": 0.9, "z": 0.85, "t0": 0.95},
    ),
]
