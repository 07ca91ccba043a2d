"""Exponential discounting: choice between a smaller amount sooner and a larger one later, at a constant rate.

Task: as in `hyperbolic_discounting`, with the same choice rule, but an amount A in D days is worth V = A exp(-``r`` D).
Every day of waiting takes the same share of the value, so that preference does not turn round as both amounts come
nearer.

Data, one row a trial:

- ``choice`` (int): 1 for the later amount, 0 for the sooner one
- ``amount_sooner``, ``amount_later`` (float): in any unit, such as dollars
- ``delay_sooner``, ``delay_later`` (float): in any unit, such as days; 0 is now

Its parameters:

- ``r`` above 0, log link: discount rate, per unit of delay; exp(-r) is the discount factor
- ``beta`` above 0, log link: inverse temperature, per unit of amount

References
----------
Samuelson, P. A. (1937). A note on measurement of utility. Review of Economic Studies, 4, 155-161.
https://doi.org/10.2307/2967612
"""

from __future__ import annotations

import pymc as pm
import pytensor.tensor as pt

import em_ppl as em

from .hyperbolic_discounting import task

__all__ = ["exponential_discounting", "task"]


@em.subject_model(r=em.Positive(start=0.01), beta=em.Positive())
def exponential_discounting(r, beta, choice, amount_sooner, delay_sooner, amount_later, delay_later):
    """One subject's choices between sooner and later."""

    def value(amount, delay):
        return amount * pt.exp(-r * delay)

    later, sooner = value(amount_later, delay_later), value(amount_sooner, delay_sooner)
    pm.Bernoulli("choice", logit_p=beta * (later - sooner), observed=choice)
