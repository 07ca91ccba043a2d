"""Perception, confidence and counts."""

from __future__ import annotations

import numpy as np
from scipy.special import gammaln, log_ndtr, ndtr

from em_ppl.models.bayesian_observer import task as fish_task
from em_ppl.models.meta_d import task as confidence_task
from em_ppl.models.poisson_regression import task as count_task
from em_ppl.models.psychometric import task as intensity_task
from em_ppl.models.signal_detection import task as signal_task
from zoo.case import Case, unit


def between(low, high):
    """Probability of a standard Normal between two bounds, in the tail where it keeps its digits."""
    return ndtr(-low) - ndtr(-high) if low.real > 0 else ndtr(high) - ndtr(low)


def signal_detection(x, t):
    d, criterion = x
    total = 0.0
    for signal, yes in zip(t["signal"], t["response"], strict=True):
        above = (d / 2 if signal else -d / 2) - criterion
        total += log_ndtr(above if yes else -above)
    return total


def signal_detection_unequal(x, t):
    d, sigma, thresholds = x[0], np.exp(x[1]), x[2] + np.cumsum([0.0, *np.exp(x[3:])])
    total = 0.0
    for signal, k in zip(t["signal"], t["rating"], strict=True):
        z = [-np.inf, *((thresholds - d) / sigma if signal else thresholds), np.inf]
        total += np.log(between(z[k] + 0j, z[k + 1] + 0j))
    return total


def meta_d(x, t):
    d, criterion, m_ratio = x[0], x[1], np.exp(x[2])
    distances = np.cumsum(np.exp(x[3:]))
    total = 0.0
    for stimulus, said, k in zip(t["stimulus"], t["response"], t["confidence"], strict=True):
        mean = d / 2 if stimulus else -d / 2
        total += log_ndtr(mean - criterion if said else criterion - mean)
        # an observer of sensitivity meta-d', who says the same
        mean, criterion_2 = m_ratio * mean, m_ratio * criterion
        if said:
            bounds = [criterion_2, *(criterion_2 + distances), np.inf]
            p = between(bounds[k] - mean + 0j, bounds[k + 1] - mean + 0j)
            total += np.log(p) - log_ndtr(mean - criterion_2)
        else:
            bounds = [criterion_2, *(criterion_2 - distances), -np.inf]
            p = between(bounds[k + 1] - mean + 0j, bounds[k] - mean + 0j)
            total += np.log(p) - log_ndtr(criterion_2 - mean)
    return total


def psychometric(x, t):
    threshold, slope, lapse = x[0], np.exp(x[1]), 0.2 * unit(x[2])
    p = 0.5 + (0.5 - lapse) * unit(slope * (t["intensity"] - threshold))
    return np.log(np.where(t["correct"] == 1, p, 1 - p)).sum()


def poisson_regression(x, t):
    eta = x[0] + x[1] * t["x"]
    return (t["y"] * eta - np.exp(eta) - gammaln(t["y"] + 1)).sum()


def bayesian_observer(x, t):
    share, total = unit(x[0]), 0.0
    for fish, new_pond, choice in zip(t["fish"], t["new_pond"], t["choice"], strict=True):
        if new_pond:
            belief = np.ones(3) / 3
        belief = belief * np.where(np.arange(3) == fish, share, (1 - share) / 2)
        belief = belief / belief.sum()
        total += np.log(belief[choice])
    return total


STEP = (-0.7, 0.3)  # exp(-0.7) is half an SD of what is sensed

CASES = [
    Case(
        signal_detection,
        signal_task(200),
        {"d": (1.5, 0.6), "criterion": (0.2, 0.4)},
        {"d": 0.85, "criterion": 0.9},
    ),
    Case(
        signal_detection_unequal,
        signal_task(300),
        {
            "d": (1.3, 0.5),
            "sigma": (0.25, 0.3),
            "threshold": (-0.7, 0.4),
            "step_1": STEP,
            "step_2": STEP,
            "step_3": STEP,
            "step_4": STEP,
        },
        {"d": 0.85, "sigma": 0.8, "threshold": 0.9, "step_1": 0.75, "step_2": 0.8, "step_3": 0.8, "step_4": 0.75},
    ),
    Case(
        meta_d,
        confidence_task(300),
        {
            "d": (1.5, 0.4),
            "criterion": (0.1, 0.3),
            "m_ratio": (-0.2, 0.4),
            "step_1": STEP,
            "step_2": STEP,
            "step_3": STEP,
        },
        {"d": 0.8, "criterion": 0.9, "m_ratio": 0.75, "step_1": 0.85, "step_2": 0.8, "step_3": 0.8},
    ),
    Case(
        psychometric,
        intensity_task(35),
        {"threshold": (0.0, 0.5), "slope": (1.0, 0.5), "lapse": (-1.0, 1.0)},
        {"threshold": 0.8, "slope": 0.6, "lapse": 0.52},  # 20 other studies: lapse 0.76, SD 0.08, of which 3 below
    ),
    Case(
        poisson_regression,
        count_task(50),
        {"intercept": (1.0, 0.5), "slope": (0.3, 0.3)},
        {"intercept": 0.9, "slope": 0.9},
    ),
    Case(
        bayesian_observer,
        fish_task(6, 15),
        {"diagnosticity": (0.2, 0.6)},
        {"diagnosticity": 0.85},
    ),
]
