"""Planners and creatures of habit."""

from __future__ import annotations

import numpy as np

from em_ppl.models.two_step_deterministic import task
from zoo.case import Case, log_odds, unit


def two_step_deterministic(x, t):
    alpha, trace, beta, weight, sticky = unit(x[0]), unit(x[1]), np.exp(x[2]), [unit(x[3]), unit(x[4])], x[5]
    habit, planet = np.full((2, 2), 0.5 + 0j), np.full(2, 0.5 + 0j)
    total, last = 0.0, None
    for s, c, r, stake in zip(t["start"], t["choice"], t["reward"], t["stake"], strict=True):
        net = weight[stake] * planet + (1 - weight[stake]) * habit[s]
        same = 0.0 if last is None or last[0] != s else (1.0 if last[1] == 1 else -1.0)
        total += log_odds(beta * (net[1] - net[0]) + sticky * same, c == 1)
        habit[s, c] += alpha * (planet[c] - habit[s, c])
        surprise = r - planet[c]
        habit[s, c] += alpha * trace * surprise
        planet[c] += alpha * surprise
        last = (s, c)
    return total


CASES = [
    Case(
        two_step_deterministic,
        task(280),
        {
            "alpha": (0.5, 0.8),
            "lambda_": (0.0, 1.3),
            "beta": (1.8, 0.4),
            "w_low": (-0.8, 1.2),
            "w_high": (-0.2, 1.2),
            "stickiness": (0.3, 0.5),
        },
        {"alpha": 0.7, "lambda_": 0.3, "beta": 0.7, "w_low": 0.6, "w_high": 0.6, "stickiness": 0.7},
        # lambda is next to unknown where w is high: its SD is said to be uncertain
        expected_warning=r"the posterior of|exact maximum likelihood .*: log_sd\[lambda_\] by",
    ),
]
