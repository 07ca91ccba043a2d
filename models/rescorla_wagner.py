"""Learning the values of two arms by prediction errors: Rescorla-Wagner with a softmax choice rule.

Task: a bandit with two arms. On each trial the subject picks an arm and sees its reward. The value q of the chosen
arm moves towards the reward by a share ``alpha`` of the prediction error; both values begin at 0. Arms are chosen
with probability softmax(``beta`` q).

Data, one row a trial:

- ``choice`` (int): the arm, 0 or 1
- ``reward`` (float): what it paid; of the order of 1

Its parameters:

- ``alpha`` in (0, 1), logit link: learning rate
- ``beta`` above 0, log link: inverse temperature, per unit of reward

References
----------
Daw, N. D. (2011). Trial-by-trial data analysis using computational models. In Decision Making, Affect, and Learning:
Attention and Performance XXIII. Oxford University Press. https://doi.org/10.1093/acprof:oso/9780199600434.003.0001

Wilson, R. C., & Collins, A. G. E. (2019). Ten simple rules for the computational modeling of behavioral data. eLife,
8, e49547. https://doi.org/10.7554/eLife.49547
"""

from __future__ import annotations

import numpy as np
import pymc as pm
import pytensor
import pytensor.tensor as pt
from numpy.typing import ArrayLike

import em_ppl as em

__all__ = ["rescorla_wagner", "task"]


@em.subject_model(alpha=em.Unit(), beta=em.Positive())
def rescorla_wagner(alpha, beta, choice, reward):
    """One subject's choices between two arms, learnt by one learning rate."""

    def learn(c, r, q, alpha):
        return pt.set_subtensor(q[c], q[c] + alpha * (r - q[c]))

    q = pytensor.scan(
        learn,
        sequences=[choice, reward],
        outputs_info=[pt.zeros(2)],
        non_sequences=[alpha],
        strict=True,
        return_updates=False,
    )
    before = pt.concatenate([pt.zeros((1, 2)), q[:-1]])  # what was known when the choice was made
    pm.Deterministic("prediction_error", reward - pt.switch(choice, before[:, 1], before[:, 0]))
    pm.Categorical("choice", logit_p=beta * before, observed=choice)


def task(n_trials: int = 200, *, reward_probability: ArrayLike = (0.3, 0.7)) -> em.Task:
    """Make a bandit whose arms pay 1 or 0.

    Parameters
    ----------
    n_trials : int
        Trials of each subject.
    reward_probability : array_like
        How often each arm pays: (arm,), or (trial, arm) where it changes.

    Returns
    -------
    Task
        Answers each choice with a reward.

    Examples
    --------
    >>> import em_ppl as em
    >>> people = em.draw_subjects(rescorla_wagner, {"alpha": (-0.5, 1.0), "beta": (1.2, 0.5)}, 2, random_seed=1)
    >>> em.simulate(rescorla_wagner, people, task(50), random_seed=1, progressbar=False).choice.shape
    (2, 50)
    """
    pays = np.broadcast_to(reward_probability, (n_trials, 2))

    def reward(choice, trial, rng):
        return 1.0 * (rng.random(choice.shape) < pays[trial, choice])

    return em.Task(n_trials, reward=reward)
