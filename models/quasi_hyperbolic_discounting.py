"""Quasi-hyperbolic (beta-delta) discounting: exponential, but whatever does not come now counts for less.

Task: as in `hyperbolic_discounting`, but an amount A is worth V = A now and V = ``beta`` ``delta``^D A in D days. The
later amount is chosen with probability sigmoid(``tau`` (V later - V sooner)).

``beta`` shows best where choices between now and later are followed by the same choices between later and later still.
If the sooner amount always comes now, only the shape of the discounting tells it apart from ``delta``.

Data, one row a trial:

- ``choice`` (int): 1 for the later amount, 0 for the sooner one
- ``amount_sooner``, ``amount_later`` (float): in any unit, such as dollars
- ``delay_sooner``, ``delay_later`` (float): in any unit, such as days; 0 is now

Its parameters:

- ``beta`` above 0, log link: below 1, a bias for the present; 1 is exponential discounting
- ``delta`` in (0, 1), logit link: discount factor, per unit of delay
- ``tau`` above 0, log link: inverse temperature, per unit of amount

References
----------
Laibson, D. (1997). Golden eggs and hyperbolic discounting. Quarterly Journal of Economics, 112, 443-478.
https://doi.org/10.1162/003355397555253

McClure, S. M., Laibson, D. I., Loewenstein, G., & Cohen, J. D. (2004). Separate neural systems value immediate and
delayed monetary rewards. Science, 306, 503-507. https://doi.org/10.1126/science.1100907
"""

from __future__ import annotations

import pymc as pm
import pytensor.tensor as pt

import em_ppl as em

from .hyperbolic_discounting import task

__all__ = ["quasi_hyperbolic_discounting", "task"]


@em.subject_model(beta=em.Positive(), delta=em.Unit(start=0.99), tau=em.Positive())
def quasi_hyperbolic_discounting(beta, delta, tau, choice, amount_sooner, delay_sooner, amount_later, delay_later):
    """One subject's choices between sooner and later."""

    def value(amount, delay):
        return amount * pt.where(delay > 0, beta, 1.0) * delta**delay

    later, sooner = value(amount_later, delay_later), value(amount_sooner, delay_sooner)
    pm.Bernoulli("choice", logit_p=tau * (later - sooner), observed=choice)
