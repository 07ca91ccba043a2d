"""Economic choice: delays, gambles, effort and fairness."""

from __future__ import annotations

import numpy as np
from scipy.special import ndtr

from em_ppl.models.effort_discounting import task as effort_task
from em_ppl.models.hyperbolic_discounting import task as delay_task
from em_ppl.models.prospect_theory import task as gamble_task
from em_ppl.models.risk_ambiguity import task as lottery_task
from em_ppl.models.ultimatum import task as offer_task
from zoo.case import Case, log_odds, unit


def hyperbolic_discounting(x, t):
    k = np.exp(x[0])
    return _delayed(lambda amount, delay: 1 / (1 + k * delay), np.exp(x[1]), t)


def exponential_discounting(x, t):
    r = np.exp(x[0])
    return _delayed(lambda amount, delay: np.exp(-r * delay), np.exp(x[1]), t)


def hyperboloid_discounting(x, t):
    k, s = np.exp(x[0]), np.exp(x[1])
    return _delayed(lambda amount, delay: 1 / (1 + k * delay) ** s, np.exp(x[2]), t)


def magnitude_discounting(x, t):
    m, c = x[0], x[1]
    return _delayed(lambda amount, delay: 1 / (1 + np.exp(c) * amount**m * delay), np.exp(x[2]), t)


def quasi_hyperbolic_discounting(x, t):
    beta, delta = np.exp(x[0]), unit(x[1])
    return _delayed(lambda amount, delay: 1.0 if delay == 0 else beta * delta**delay, np.exp(x[2]), t)


def _delayed(discount, beta, t):
    options = zip(t["amount_sooner"], t["delay_sooner"], t["amount_later"], t["delay_later"], strict=True)
    total = 0.0
    for choice, (a0, d0, a1, d1) in zip(t["choice"], options, strict=True):
        total += log_odds(beta * (a1 * discount(a1, d1) - a0 * discount(a0, d0)), choice == 1)
    return total


def prospect_theory(x, t):
    rho, loss_aversion, tau = 2 * ndtr(x[0]), 5 * ndtr(x[1]), 30 * ndtr(x[2])
    total = 0.0
    for gamble, gain, loss, cert in zip(t["gamble"], t["gain"], t["loss"], t["cert"], strict=True):
        won, lost, sure = (0.0 if a == 0 else abs(a) ** rho for a in (gain, loss, cert))
        total += log_odds(tau * (0.5 * won - 0.5 * loss_aversion * lost - sure), gamble == 1)
    return total


def effort_discounting(x, t):
    k, beta = np.exp(x[0]), np.exp(x[1])
    total = 0.0
    for trial, choice in enumerate(t["choice"]):
        easy, hard = (t[f"reward_{o}"][trial] - k * t[f"effort_{o}"][trial] ** 2 for o in ("easy", "hard"))
        total += log_odds(beta * (hard - easy), choice == 1)
    return total


def risk_ambiguity(x, t):
    alpha, beta, gamma = 2 * unit(x[0]), x[1], np.exp(x[2])
    total = 0.0
    for trial, choice in enumerate(t["choice"]):
        p = t["probability"][trial] - beta * t["ambiguity"][trial] / 2
        reference = t["reference_probability"][trial] * t["reference_amount"][trial] ** alpha
        total += log_odds(gamma * (p * t["amount"][trial] ** alpha - reference), choice == 1)
    return total


def ultimatum(x, t):
    alpha, beta, tau = np.exp(x)
    total = 0.0
    for own, accept in zip(t["offer"], t["accept"], strict=True):
        other = 1 - own
        utility = own - alpha * max(other - own, 0) - beta * max(own - other, 0)
        total += log_odds(tau * utility, accept == 1)
    return total


CASES = [
    Case(
        hyperbolic_discounting,
        delay_task(),
        {"k": (-4.5, 1.0), "beta": (1.5, 0.5)},
        {"k": 0.95, "beta": 0.85},
    ),
    Case(
        exponential_discounting,
        delay_task(),
        {"r": (-5.0, 1.0), "beta": (1.5, 0.5)},
        {"r": 0.95, "beta": 0.85},
    ),
    Case(
        hyperboloid_discounting,
        delay_task(),
        {"k": (-3.5, 1.0), "s": (-0.3, 0.4), "beta": (1.5, 0.5)},
        {"k": 0.8, "s": 0.7, "beta": 0.85},
    ),
    Case(
        magnitude_discounting,
        delay_task(),
        {"m": (-0.3, 0.3), "c": (-4.5, 1.0), "beta": (1.5, 0.5)},
        {"m": 0.65, "c": 0.9, "beta": 0.85},
    ),
    Case(
        quasi_hyperbolic_discounting,
        delay_task(),
        {"beta": (-0.3, 0.3), "delta": (5.0, 0.8), "tau": (1.5, 0.5)},
        {"beta": 0.85, "delta": 0.9, "tau": 0.85},
        expected_warning="the posterior of",  # somebody impatient, whose beta and delta trade off
    ),
    Case(
        prospect_theory,
        gamble_task(),
        {"rho": (-0.2, 0.25), "loss_aversion": (-0.6, 0.3), "tau": (-1.5, 0.3)},
        {"rho": 0.8, "loss_aversion": 0.9, "tau": 0.75},
    ),
    Case(
        effort_discounting,
        effort_task(),
        {"k": (-1.5, 0.5), "beta": (0.0, 0.5)},
        {"k": 0.9, "beta": 0.8},
    ),
    Case(
        risk_ambiguity,
        lottery_task(),
        {"alpha": (-0.3, 0.5), "beta": (0.4, 0.4), "gamma": (1.0, 0.4)},
        {"alpha": 0.8, "beta": 0.75, "gamma": 0.65},
    ),
    Case(
        ultimatum,
        offer_task(),
        {"alpha": (-0.5, 0.6), "beta": (-0.2, 0.4), "tau": (1.5, 0.3)},
        {"alpha": 0.8, "beta": 0.8, "tau": 0.75},
    ),
]
