"""Hyperbolic discounting: choice between a smaller amount sooner and a larger one later.

Task: on each trial ``amount_sooner`` in ``delay_sooner`` days, or ``amount_later`` in ``delay_later`` days. An amount A
in D days is worth V = A / (1 + ``k`` D), half of A after 1 / ``k`` days. The later amount is chosen with probability
sigmoid(``beta`` (V later - V sooner)). A day counts for less the later it is: as both amounts come nearer, preference
may turn round to the sooner one.

Data, one row a trial:

- ``choice`` (int): 1 for the later amount, 0 for the sooner one
- ``amount_sooner``, ``amount_later`` (float): in any unit, such as dollars
- ``delay_sooner``, ``delay_later`` (float): in any unit, such as days; 0 is now

Its parameters:

- ``k`` above 0, log link: discount rate, per unit of delay
- ``beta`` above 0, log link: inverse temperature, per unit of amount

References
----------
Mazur, J. E. (1987). An adjusting procedure for studying delayed reinforcement. In Quantitative Analyses of Behavior,
Vol. 5: The Effect of Delay and of Intervening Events on Reinforcement Value, 55-73. Erlbaum.
https://doi.org/10.4324/9781315825502

Kirby, K. N., Petry, N. M., & Bickel, W. K. (1999). Heroin addicts have higher discount rates for delayed rewards than
non-drug-using controls. Journal of Experimental Psychology: General, 128, 78-87.
https://doi.org/10.1037/0096-3445.128.1.78
"""

from __future__ import annotations

import numpy as np
import pymc as pm
from numpy.typing import ArrayLike

import em_ppl as em

__all__ = ["hyperbolic_discounting", "task"]


@em.subject_model(k=em.Positive(start=0.01), beta=em.Positive())
def hyperbolic_discounting(k, beta, choice, amount_sooner, delay_sooner, amount_later, delay_later):
    """One subject's choices between sooner and later."""

    def value(amount, delay):
        return amount / (1 + k * delay)

    later, sooner = value(amount_later, delay_later), value(amount_sooner, delay_sooner)
    pm.Bernoulli("choice", logit_p=beta * (later - sooner), observed=choice)


def task(
    *,
    amounts: ArrayLike = (0.2, 1.0, 5.0),
    waits: ArrayLike = (7.0, 30.0, 90.0, 180.0, 365.0),
    front_delays: ArrayLike = (0.0, 30.0),
    shares: ArrayLike = (0.3, 0.5, 0.7, 0.8, 0.9, 0.97),
) -> em.Task:
    """Make one trial of every combination of amount, wait, front delay and share: 180 as it is.

    All models of discounting can be fitted to it, and compared: it has amounts of several sizes, and sooner amounts
    that do not come at once.

    Parameters
    ----------
    amounts : array_like
        The later amounts; as they are, of 100 dollars, say.
    waits : array_like
        How much later than the sooner amount they come; as they are, in days.
    front_delays : array_like
        When the sooner amount comes.
    shares : array_like
        The sooner amount, as a share of the later one.

    Returns
    -------
    Task
        With the columns amount_sooner, delay_sooner, amount_later and delay_later.

    Examples
    --------
    >>> import em_ppl as em
    >>> people = em.draw_subjects(hyperbolic_discounting, {"k": (-4.5, 1.0), "beta": (1.5, 0.5)}, 2, random_seed=1)
    >>> em.simulate(hyperbolic_discounting, people, task(amounts=1.0), random_seed=1, progressbar=False).choice.shape
    (2, 60)
    """
    amount, wait, front_delay, share = map(np.ravel, np.meshgrid(amounts, waits, front_delays, shares, indexing="ij"))
    return em.Task(
        amount.size,
        amount_sooner=share * amount,
        delay_sooner=front_delay,
        amount_later=amount,
        delay_later=front_delay + wait,
    )
