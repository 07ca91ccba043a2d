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
import pandas as pd
import pymc as pm
import pytensor
import pytensor.tensor as pt
import xarray as xr
from numpy.typing import ArrayLike
from scipy.special import softmax

import em_ppl as em

__all__ = ["rescorla_wagner", "simulate"]


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
    pm.Categorical("choice", logit_p=beta * before, observed=choice)


def simulate(
    subjects: pd.DataFrame,
    *,
    n_trials: int = 200,
    reward_probability: ArrayLike = (0.3, 0.7),
    random_seed: int | None = None,
) -> xr.Dataset:
    """Let subjects play a bandit whose arms pay 1 or 0.

    Parameters
    ----------
    subjects : DataFrame
        Columns alpha and beta, natural space; the index labels the subjects.
    n_trials : int
        Trials of each subject.
    reward_probability : array_like
        How often each arm pays: (arm,), or (trial, arm) where it changes.
    random_seed : int, optional
        Equal seeds give equal data.

    Returns
    -------
    Dataset
        choice, reward and choice_probability, the probability that the choice made had; (subject, trial).

    Examples
    --------
    >>> import pandas as pd
    >>> people = pd.DataFrame({"alpha": [0.2, 0.5], "beta": [3.0, 5.0]}, index=["ann", "bo"])
    >>> data = simulate(people, n_trials=50, random_seed=1)
    >>> data.choice.shape
    (2, 50)
    """
    rng = np.random.default_rng(random_seed)
    pays = np.broadcast_to(reward_probability, (n_trials, 2))
    people = {}
    for label, alpha, beta in subjects[["alpha", "beta"]].itertuples(name=None):
        choice, reward, probability = np.zeros(n_trials, dtype=int), np.zeros(n_trials), np.zeros(n_trials)
        q = np.zeros(2)
        for t in range(n_trials):
            p = softmax(beta * q)
            c = choice[t] = rng.choice(2, p=p)
            probability[t] = p[c]
            reward[t] = rng.random() < pays[t, c]
            q[c] += alpha * (reward[t] - q[c])
        people[label] = {"choice": choice, "reward": reward, "choice_probability": probability}
    return em.from_subjects(people)
