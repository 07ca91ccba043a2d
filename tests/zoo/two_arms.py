"""Learners of two arms."""

from __future__ import annotations

import numpy as np

from em_ppl.models.rescorla_wagner import task
from zoo.case import Case, log_odds, unit

# the better arm changes every 25 trials: learning rates show at reversals
REVERSALS = np.where((np.arange(200) // 25 % 2 == 0)[:, None], [0.2, 0.8], [0.8, 0.2])


def rescorla_wagner(x, t):
    return _learner(unit(x[0]), unit(x[0]), np.exp(x[1]), t)


def rescorla_wagner_two_rates(x, t):
    return _learner(unit(x[0]), unit(x[1]), np.exp(x[2]), t)


def _learner(up, down, beta, t):
    values, total = [0.0, 0.0], 0.0
    for c, r in zip(t["choice"], t["reward"], strict=True):
        total += log_odds(beta * (values[1] - values[0]), c == 1)
        error = r - values[c]
        values[c] = values[c] + (up if error.real > 0 else down) * error
    return total


CASES = [
    Case(
        rescorla_wagner,
        task(200, reward_probability=REVERSALS),
        {"alpha": (-0.5, 1.0), "beta": (1.2, 0.5)},
        {"alpha": 0.8, "beta": 0.8},
    ),
    Case(
        rescorla_wagner_two_rates,
        task(200, reward_probability=REVERSALS),
        {"alpha_positive": (0.0, 1.0), "alpha_negative": (-0.7, 1.0), "beta": (1.2, 0.5)},
        {"alpha_positive": 0.7, "alpha_negative": 0.7, "beta": 0.7},
        expected_warning="the posterior of",  # a skewed subject is named, as it should be
    ),
]
