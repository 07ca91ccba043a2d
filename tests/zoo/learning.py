"""Learners with structure: two steps, cues that carry a valence, beliefs about a tendency that changes."""

from __future__ import annotations

import numpy as np

from em_ppl.models.go_nogo_pavlovian import task as cues_task
from em_ppl.models.hgf_binary import task as outcomes_task
from em_ppl.models.two_step import task as two_step_task
from zoo.case import Case, log_odds, unit


def two_step(x, t):
    alphas, trace, betas = (unit(x[0]), unit(x[1])), unit(x[2]), (np.exp(x[3]), np.exp(x[4]))
    return _two_step(alphas, trace, betas, unit(x[5]), x[6], t)


def two_step_model_based(x, t):
    return _two_step((0.0, unit(x[0])), 0.0, (np.exp(x[1]), np.exp(x[2])), 1.0, x[3], t)


def two_step_model_free(x, t):
    alphas, trace, betas = (unit(x[0]), unit(x[1])), unit(x[2]), (np.exp(x[3]), np.exp(x[4]))
    return _two_step(alphas, trace, betas, 0.0, x[5], t)


def _two_step(alphas, trace, betas, w, sticky, t):
    """State 0 is the first stage; the other two come commonly after action 0, after action 1."""
    q = np.zeros((3, 2), dtype=complex)
    total, last = 0.0, None
    for a, arrived, b, r in zip(t["choice1"], t["state2"] + 1, t["choice2"], t["reward"], strict=True):
        best = [0.02 * np.log(np.exp(q[s] / 0.02).sum()) for s in (1, 2)]  # the larger one, without a kink
        net = [
            betas[0] * (w * (0.7 * best[k] + 0.3 * best[1 - k]) + (1 - w) * q[0, k]) + (sticky if k == last else 0.0)
            for k in (0, 1)
        ]
        total += log_odds(net[1] - net[0], a == 1) + log_odds(betas[1] * (q[arrived, 1] - q[arrived, 0]), b == 1)
        surprise1, surprise2 = q[arrived, b] - q[0, a], r - q[arrived, b]
        q[0, a] += alphas[0] * surprise1
        q[arrived, b] += alphas[1] * surprise2
        q[0, a] += alphas[0] * trace * surprise2
        last = a
    return total


def go_nogo_pavlovian(x, t):
    alpha, rho, bias, pavlov, noise = unit(x[0]), {1: np.exp(x[1]), -1: np.exp(x[2])}, x[3], x[4], unit(x[5])
    q, v, total = {}, {}, 0.0
    for cue, go, outcome in zip(t["cue"], t["go"], t["outcome"], strict=True):
        w_go = q.get((cue, 1), 0.0) + bias + pavlov * v.get(cue, 0.0)
        p = (1 - noise) / (1 + np.exp(q.get((cue, 0), 0.0) - w_go)) + noise / 2
        total += np.log(p if go else 1 - p)
        felt = rho[int(outcome)] * outcome if outcome else 0.0
        q[cue, go] = (1 - alpha) * q.get((cue, go), 0.0) + alpha * felt
        v[cue] = (1 - alpha) * v.get(cue, 0.0) + alpha * felt
    return total


def hgf_binary(x, t):
    """TAPAS's names: hats are predictions, pi precisions."""
    omega, zeta = x[0], np.exp(x[1])
    mu2, sigma2, total = 0.0, 0.1, 0.0
    for u, y in zip(t["u"], t["y"], strict=True):
        muhat1 = unit(mu2)
        odds = muhat1**zeta, (1 - muhat1) ** zeta
        total += np.log(odds[0 if y else 1] / (odds[0] + odds[1]))
        pihat1, pihat2 = 1 / (muhat1 * (1 - muhat1)), 1 / (sigma2 + np.exp(omega))
        pi2 = pihat2 + 1 / pihat1
        mu2, sigma2 = mu2 + (u - muhat1) / pi2, 1 / pi2
    return total


CASES = [
    Case(
        two_step,
        two_step_task(200),
        {
            "alpha1": (0.0, 1.0),
            "alpha2": (0.0, 1.0),
            "lambda_": (0.3, 1.0),
            "beta1": (1.6, 0.4),
            "beta2": (1.3, 0.4),
            "w": (-0.3, 1.0),
            "stickiness": (0.3, 0.5),
        },
        {"alpha1": 0.6, "alpha2": 0.85, "lambda_": 0.6, "beta1": 0.65, "beta2": 0.8, "w": 0.55, "stickiness": 0.8},
        expected_warning="the posterior of",  # a skewed subject is named, as it should be
    ),
    Case(
        two_step_model_based,
        two_step_task(200),
        {"alpha2": (0.0, 1.0), "beta1": (1.6, 0.4), "beta2": (1.3, 0.4), "stickiness": (0.3, 0.5)},
        {"alpha2": 0.85, "beta1": 0.55, "beta2": 0.8, "stickiness": 0.85},
        expected_warning="the posterior of",
    ),
    Case(
        two_step_model_free,
        two_step_task(200),
        {
            "alpha1": (0.0, 1.0),
            "alpha2": (0.0, 1.0),
            "lambda_": (0.3, 1.0),
            "beta1": (1.3, 0.4),
            "beta2": (1.3, 0.4),
            "stickiness": (0.3, 0.5),
        },
        {"alpha1": 0.7, "alpha2": 0.85, "lambda_": 0.7, "beta1": 0.55, "beta2": 0.8, "stickiness": 0.85},
        expected_warning="the posterior of",
    ),
    Case(
        go_nogo_pavlovian,
        cues_task(60),
        {
            "alpha": (-1.0, 0.8),
            "rho_reward": (1.6, 0.5),
            "rho_punishment": (1.6, 0.5),
            "go_bias": (0.5, 1.0),
            "pavlovian_bias": (0.4, 0.4),
            "xi": (-2.0, 1.0),
        },
        {"alpha": 0.6, "rho_reward": 0.6, "rho_punishment": 0.6, "go_bias": 0.85, "pavlovian_bias": 0.8, "xi": 0.7},
        expected_warning="the posterior of",
    ),
    Case(
        hgf_binary,
        outcomes_task(10, 20),
        {"omega": (-2.0, 1.0), "zeta": (0.7, 0.5)},
        {"omega": 0.8, "zeta": 0.8},
        expected_warning="the posterior of",
    ),
]
