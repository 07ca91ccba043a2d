"""Ultimatum game, the responder's side: inequity aversion with envy and guilt.

Task: on each trial somebody proposes how to share a pie of 1; the responder gets ``offer``, the proposer the rest, or
both nothing if the responder rejects. To accept is worth U = own - ``alpha`` (other - own) where the other gets more,
and U = own - ``beta`` (own - other) where the responder does; to reject is worth 0. Offers are accepted with
probability sigmoid(``tau`` U).

``alpha`` is identified by offers below half, ``beta`` by offers above half only: with a task that has none it stays
unknown. Up to ``beta`` = 1 all offers above half are better than nothing; it shows in how surely they are accepted.

Data, one row a trial:

- ``accept`` (int): 1 where the offer was accepted, else 0
- ``offer`` (float): the responder's share of the pie, 0 to 1

Its parameters:

- ``alpha`` above 0, log link: envy, what is lost per unit that the other is ahead
- ``beta`` above 0, log link: guilt, what is lost per unit that the responder is ahead
- ``tau`` above 0, log link: inverse temperature, per pie

References
----------
Fehr, E., & Schmidt, K. M. (1999). A theory of fairness, competition, and cooperation. Quarterly Journal of Economics,
114, 817-868. https://doi.org/10.1162/003355399556151
"""

from __future__ import annotations

import numpy as np
import pymc as pm
import pytensor.tensor as pt
from numpy.typing import ArrayLike

import em_ppl as em

__all__ = ["task", "ultimatum"]


@em.subject_model(alpha=em.Positive(), beta=em.Positive(), tau=em.Positive())
def ultimatum(alpha, beta, tau, accept, offer):
    """One subject's answers to offers."""
    ahead = 2 * offer - 1  # how much more the responder gets than the proposer
    inequity = pt.where(ahead > 0, beta * ahead, -alpha * ahead)
    pm.Bernoulli("accept", logit_p=tau * (offer - inequity), observed=accept)


def task(
    n_repeats: int = 10, *, offers: ArrayLike = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
) -> em.Task:
    """Make every offer, from next to nothing to the whole pie.

    Parameters
    ----------
    n_repeats : int
        How often each offer comes.
    offers : array_like
        The responder's shares of the pie.

    Returns
    -------
    Task
        With the column offer.

    Examples
    --------
    >>> import em_ppl as em
    >>> group = {"alpha": (-0.5, 0.5), "beta": (-0.3, 0.5), "tau": (1.5, 0.3)}
    >>> people = em.draw_subjects(ultimatum, group, 2, random_seed=1)
    >>> em.simulate(ultimatum, people, task(2), random_seed=1, progressbar=False).accept.shape
    (2, 22)
    """
    made = np.tile(np.asarray(offers, dtype=float), n_repeats)
    return em.Task(made.size, offer=made)
