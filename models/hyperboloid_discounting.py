"""Hyperboloid discounting: choice between sooner and later, by a hyperbola raised to a power.

Task: as in `hyperbolic_discounting`, with the same choice rule, but an amount A in D days is worth
V = A / (1 + ``k`` D)^``s``, the form of Green and Myerson (Rachlin's is A / (1 + k D^s)). ``s`` = 1 is hyperbolic;
below 1 the far future is discounted less than by a hyperbola.

``k`` and ``s`` trade off: over short delays only their product shows, and over long ones a larger ``k`` looks like a
larger ``s``. It takes delays from far below to far above 1 / ``k`` to tell them apart.

Data, one row a trial:

- ``choice`` (int): 1 for the later amount, 0 for the sooner one
- ``amount_sooner``, ``amount_later`` (float): in any unit, such as dollars
- ``delay_sooner``, ``delay_later`` (float): in any unit, such as days; 0 is now

Its parameters:

- ``k`` above 0, log link: discount rate, per unit of delay
- ``s`` above 0, log link: power; 1 is hyperbolic
- ``beta`` above 0, log link: inverse temperature, per unit of amount

References
----------
Myerson, J., & Green, L. (1995). Discounting of delayed rewards: Models of individual choice. Journal of the
Experimental Analysis of Behavior, 64, 263-276. https://doi.org/10.1901/jeab.1995.64-263

Green, L., & Myerson, J. (2004). A discounting framework for choice with delayed and probabilistic rewards.
Psychological Bulletin, 130, 769-792. https://doi.org/10.1037/0033-2909.130.5.769
"""

from __future__ import annotations

import pymc as pm

import em_ppl as em

from .hyperbolic_discounting import task

__all__ = ["hyperboloid_discounting", "task"]


@em.subject_model(k=em.Positive(start=0.01), s=em.Positive(), beta=em.Positive())
def hyperboloid_discounting(k, s, beta, choice, amount_sooner, delay_sooner, amount_later, delay_later):
    """One subject's choices between sooner and later."""

    def value(amount, delay):
        return amount * (1 + k * delay) ** -s

    later, sooner = value(amount_later, delay_later), value(amount_sooner, delay_sooner)
    pm.Bernoulli("choice", logit_p=beta * (later - sooner), observed=choice)
