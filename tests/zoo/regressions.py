"""Regressions, one per subject."""

from __future__ import annotations

import numpy as np

from em_ppl.models.linear_regression import task as linear_task
from em_ppl.models.logistic_regression import task as logistic_task
from zoo.case import Case, log_odds


def linear_regression(x, t):
    z = (t["y"] - x[0] - x[1] * t["x"]) / np.exp(x[2])
    return (-0.5 * z**2 - x[2] - 0.5 * np.log(2 * np.pi)).sum()


def logistic_regression(x, t):
    return sum(log_odds(x[0] + x[1] * a, y == 1) for a, y in zip(t["x"], t["y"], strict=True))


CASES = [
    Case(
        linear_regression,
        linear_task(30),
        {"intercept": (1.0, 0.5), "slope": (-2.0, 1.0), "sigma": (0.0, 0.4)},
        {"intercept": 0.85, "slope": 0.95, "sigma": 0.9},
    ),
    Case(
        logistic_regression,
        logistic_task(100),
        {"intercept": (0.3, 0.8), "slope": (1.0, 0.8)},
        {"intercept": 0.8, "slope": 0.8},
    ),
]
