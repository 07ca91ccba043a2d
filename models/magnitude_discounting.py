"""Hyperbolic discounting with a magnitude effect: large amounts are discounted less than small ones.

Task: as in `hyperbolic_discounting`, with the same choice rule, but the discount rate k depends on the amount A:
log(k) = ``m`` log(A) + ``c``, and A in D days is worth V = A / (1 + k D). It takes amounts of several sizes to tell
``m``; at ``m`` = 0 all have the same rate.

Data, one row a trial:

- ``choice`` (int): 1 for the later amount, 0 for the sooner one
- ``amount_sooner``, ``amount_later`` (float): above 0; best in a unit that lies among them, such as 100 dollars:
  ``c`` is about an amount of 1, which should not have to be extrapolated
- ``delay_sooner``, ``delay_later`` (float): in any unit, such as days; 0 is now

Its parameters:

- ``m``, real: change of log(k) per unit of log(amount); below 0 if larger amounts are discounted less
- ``c``, real: log of the discount rate, per unit of delay, of an amount of 1
- ``beta`` above 0, log link: inverse temperature, per unit of amount

References
----------
Green, L., Myerson, J., & McFadden, E. (1997). Rate of temporal discounting decreases with amount of reward. Memory &
Cognition, 25, 715-723. https://doi.org/10.3758/BF03211314

Vincent, B. T. (2016). Hierarchical Bayesian estimation and hypothesis testing for delay discounting tasks. Behavior
Research Methods, 48, 1608-1620. https://doi.org/10.3758/s13428-015-0672-2
"""

from __future__ import annotations

import pymc as pm
import pytensor.tensor as pt

import em_ppl as em

from .hyperbolic_discounting import task

__all__ = ["magnitude_discounting", "task"]


@em.subject_model(m=em.Real(), c=em.Real(start=-4.5), beta=em.Positive())
def magnitude_discounting(m, c, beta, choice, amount_sooner, delay_sooner, amount_later, delay_later):
    """One subject's choices between sooner and later."""

    def value(amount, delay):
        k = pt.exp(m * pt.log(amount) + c)
        return amount / (1 + k * delay)

    later, sooner = value(amount_later, delay_later), value(amount_sooner, delay_sooner)
    pm.Bernoulli("choice", logit_p=beta * (later - sooner), observed=choice)
