"""Learners of bandits: forgetting, habit, surprise, actors and critics, counterfactuals and uncertainty."""

from __future__ import annotations

import numpy as np
from scipy.special import log_ndtr

from em_ppl.models.actor_critic import task as pairs_task
from em_ppl.models.kalman_bandit import task as blocks_task
from em_ppl.models.rescorla_wagner import task as bandit_task
from em_ppl.models.reversal_counterfactual import task as reversal_task
from zoo.case import Case, log_odds, unit
from zoo.two_arms import REVERSALS


def rescorla_wagner_forgetting(x, t):
    alpha, forgetting, beta = unit(x[0]), unit(x[1]), np.exp(x[2])
    values, total = [0.0, 0.0], 0.0
    for c, r in zip(t["choice"], t["reward"], strict=True):
        total += log_odds(beta * (values[1] - values[0]), c == 1)
        values[c] = (1 - alpha) * values[c] + alpha * r
        values[1 - c] = (1 - forgetting) * values[1 - c]
    return total


def rescorla_wagner_perseveration(x, t):
    alpha, beta, stickiness = unit(x[0]), np.exp(x[1]), x[2]
    values, last, total = [0.0, 0.0], None, 0.0
    for c, r in zip(t["choice"], t["reward"], strict=True):
        appeal = [beta * value + (stickiness if arm == last else 0.0) for arm, value in enumerate(values)]
        total += log_odds(appeal[1] - appeal[0], c == 1)
        values[c] = values[c] + alpha * (r - values[c])
        last = c
    return total


def pearce_hall(x, t):
    kappa, eta, beta = unit(x[0]), unit(x[1]), np.exp(x[2])
    values, associability, total = [0.0, 0.0], [1.0, 1.0], 0.0
    for c, r in zip(t["choice"], t["reward"], strict=True):
        total += log_odds(beta * (values[1] - values[0]), c == 1)
        error = r - values[c]
        size = error if error.real > 0 else -error
        values[c] = values[c] + kappa * associability[c] * error
        associability[c] = eta * size + (1 - eta) * associability[c]
    return total


def actor_critic(x, t):
    alpha_critic, alpha_actor = unit(x[0]), np.exp(x[1])
    value, weight, total = dict.fromkeys(range(4), 0.0), {}, 0.0
    for pair, c, r in zip(t["pair"], t["choice"], t["reward"], strict=True):
        total += log_odds(weight.get((pair, 1), 0.0) - weight.get((pair, 0), 0.0), c == 1)
        error = r - value[pair]
        value[pair] = value[pair] + alpha_critic * error
        weight[pair, c] = weight.get((pair, c), 0.0) + alpha_actor * error
    return total


def reversal_counterfactual(x, t):
    alpha, counterfactual, beta = unit(x[0]), unit(x[1]), np.exp(x[2])
    values, total = [0.0, 0.0], 0.0
    for c, r in zip(t["choice"], t["reward"], strict=True):
        total += log_odds(beta * (values[1] - values[0]), c == 1)
        values[c] = values[c] + alpha * (r - values[c])
        values[1 - c] = values[1 - c] + alpha * counterfactual * (-r - values[1 - c])
    return total


def kalman_bandit(x, t):
    """Beliefs by counts: after n rewards a Normal posterior has the precision 1 + n / noise."""
    total = 0.0
    for start, c, r in zip(t["block_start"], t["choice"], t["reward"], strict=True):
        if start:
            n, rewards = np.zeros(2), np.zeros(2)
        precision = 1 + n / 0.1
        mean, sd = rewards / 0.1 / precision, 1 / np.sqrt(precision)
        v, ru, tu = mean[1] - mean[0], sd[1] - sd[0], np.hypot(*sd)
        z = x[0] * v + x[1] * ru + x[2] * v / tu
        total += log_ndtr(z if c == 1 else -z)
        n[c] += 1
        rewards[c] += r
    return total


CASES = [
    Case(
        rescorla_wagner_forgetting,
        bandit_task(200, reward_probability=REVERSALS),
        {"alpha": (-0.3, 1.0), "forgetting": (-1.0, 1.0), "beta": (1.2, 0.5)},
        {"alpha": 0.8, "forgetting": 0.55, "beta": 0.85},
        expected_warning="the posterior of",  # a skewed subject is named, as it should be
    ),
    Case(
        rescorla_wagner_perseveration,
        bandit_task(200, reward_probability=REVERSALS),
        {"alpha": (-0.3, 1.0), "beta": (1.2, 0.5), "stickiness": (0.5, 0.7)},
        {"alpha": 0.7, "beta": 0.8, "stickiness": 0.85},
        expected_warning="the posterior of",
    ),
    Case(
        pearce_hall,
        bandit_task(200, reward_probability=REVERSALS),
        {"kappa": (0.8, 1.0), "eta": (0.0, 1.0), "beta": (1.6, 0.5)},
        {"kappa": 0.7, "eta": 0.65, "beta": 0.85},
        expected_warning="the posterior of",
    ),
    Case(
        actor_critic,
        pairs_task(160),
        {"alpha_critic": (-1.0, 1.0), "alpha_actor": (-0.5, 0.6)},
        {"alpha_critic": 0.6, "alpha_actor": 0.9},
        expected_warning="the posterior of",
    ),
    Case(
        reversal_counterfactual,
        reversal_task(200),
        {"alpha": (0.0, 1.0), "counterfactual": (-0.5, 1.2), "beta": (0.7, 0.5)},
        {"alpha": 0.8, "counterfactual": 0.5, "beta": 0.9},
    ),
    Case(
        kalman_bandit,
        blocks_task(20, 10),
        {"w_value": (0.7, 0.5), "w_directed": (0.5, 0.8), "w_random": (0.5, 0.3)},
        {"w_value": 0.6, "w_directed": 0.85, "w_random": 0.8},
    ),
]
