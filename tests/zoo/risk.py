"""Choices between safe and risky amounts."""

from __future__ import annotations

import numpy as np

from em_ppl.models.risky_choice import task
from zoo.case import Case, log_odds


def risky_choice(x, t):
    rho, beta = {1: np.exp(x[0]), -1: np.exp(x[1])}, {1: np.exp(x[3]), -1: np.exp(x[4])}
    total = 0.0
    for k, choice in enumerate(t["choice"]):
        sign = 1 if t["risky"][k] > 0 else -1
        worth = [0.0 if v == 0 else sign * abs(v) ** rho[sign] for v in (t["safe"][k], t["risky"][k])]
        p = t["probability"][k] - (x[2] * 0.25 if t["ambiguity"][k] else 0.0)
        total += log_odds(beta[sign] * (p * worth[1] - worth[0]), choice == 1)
    return total


CASES = [
    Case(
        risky_choice,
        task(4),
        {
            "rho_gain": (0.0, 0.3),
            "rho_loss": (-0.1, 0.35),
            "ambiguity_aversion": (0.2, 0.3),
            "beta_gain": (2.5, 0.5),
            "beta_loss": (2.2, 0.5),
        },
        {"rho_gain": 0.9, "rho_loss": 0.9, "ambiguity_aversion": 0.6, "beta_gain": 0.6, "beta_loss": 0.6},
    ),
]
