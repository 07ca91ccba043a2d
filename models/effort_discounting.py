"""Effort discounting: choice between little effort for little and more effort for more, with a parabolic cost.

Task: on each trial ``reward_easy`` for ``effort_easy``, or ``reward_hard`` for ``effort_hard``. A reward R for an
effort E is worth V = R - ``k`` E^2: the greater an effort, the more a further step costs. The harder option is chosen
with probability sigmoid(``beta`` (V hard - V easy)).

Data, one row a trial:

- ``choice`` (int): 1 for the harder option, 0 for the easier one
- ``reward_easy``, ``reward_hard`` (float): such as credits
- ``effort_easy``, ``effort_hard`` (float): in levels or as a share of a subject's maximum; 0 is rest

Its parameters:

- ``k`` above 0, log link: cost of an effort of 1, in units of reward
- ``beta`` above 0, log link: inverse temperature, per unit of reward

References
----------
Hartmann, M. N., Hager, O. M., Tobler, P. N., & Kaiser, S. (2013). Parabolic discounting of monetary rewards by physical
effort. Behavioural Processes, 100, 192-196. https://doi.org/10.1016/j.beproc.2013.09.014

Chong, T. T.-J., Apps, M., Giehl, K., Sillence, A., Grima, L. L., & Husain, M. (2017). Neurocomputational mechanisms
underlying subjective valuation of effort costs. PLoS Biology, 15, e1002598.
https://doi.org/10.1371/journal.pbio.1002598
"""

from __future__ import annotations

import numpy as np
import pymc as pm

import em_ppl as em

__all__ = ["effort_discounting", "task"]


@em.subject_model(k=em.Positive(), beta=em.Positive())
def effort_discounting(k, beta, choice, reward_easy, effort_easy, reward_hard, effort_hard):
    """One subject's choices between more and less effort."""

    def value(reward, effort):
        return reward - k * effort**2

    hard, easy = value(reward_hard, effort_hard), value(reward_easy, effort_easy)
    pm.Bernoulli("choice", logit_p=beta * (hard - easy), observed=choice)


def task(n_repeats: int = 3) -> em.Task:
    """Offer 2 to 10 credits for effort of level 2 to 6, against 1 credit for level 1.

    Parameters
    ----------
    n_repeats : int
        How often each of the 25 offers comes.

    Returns
    -------
    Task
        With the columns reward_easy, effort_easy, reward_hard and effort_hard.

    Examples
    --------
    >>> import em_ppl as em
    >>> people = em.draw_subjects(effort_discounting, {"k": (-1.5, 0.5), "beta": (0.0, 0.5)}, 2, random_seed=1)
    >>> em.simulate(effort_discounting, people, task(1), random_seed=1, progressbar=False).choice.shape
    (2, 25)
    """
    reward, effort = map(np.ravel, np.meshgrid([2.0, 4.0, 6.0, 8.0, 10.0], [2.0, 3.0, 4.0, 5.0, 6.0]))
    return em.Task(
        25 * n_repeats,
        reward_easy=1.0,
        effort_easy=1.0,
        reward_hard=np.tile(reward, n_repeats),
        effort_hard=np.tile(effort, n_repeats),
    )
