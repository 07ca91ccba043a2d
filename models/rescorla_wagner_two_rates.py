"""Rescorla-Wagner learning with one learning rate for good news and one for bad.

Task and choice rule as in `rescorla_wagner`: a bandit with two arms, softmax(``beta`` q), values that begin at 0. The
value of the chosen arm moves by ``alpha_positive`` where the reward was above it, by ``alpha_negative`` where below.

Data, one row a trial:

- ``choice`` (int): the arm, 0 or 1
- ``reward`` (float): what it paid; of the order of 1

Its parameters:

- ``alpha_positive`` in (0, 1), logit link: learning rate after a positive prediction error
- ``alpha_negative`` in (0, 1), logit link: learning rate after a negative prediction error
- ``beta`` above 0, log link: inverse temperature, per unit of reward

References
----------
Frank, M. J., Moustafa, A. A., Haughey, H. M., Curran, T., & Hutchison, K. E. (2007). Genetic triple dissociation
reveals multiple roles for dopamine in reinforcement learning. PNAS, 104, 16311-16316.
https://doi.org/10.1073/pnas.0706111104

Lefebvre, G., Lebreton, M., Meyniel, F., Bourgeois-Gironde, S., & Palminteri, S. (2017). Behavioural and neural
characterization of optimistic reinforcement learning. Nature Human Behaviour, 1, 0067.
https://doi.org/10.1038/s41562-017-0067
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

__all__ = ["rescorla_wagner_two_rates", "simulate"]


@em.subject_model(alpha_positive=em.Unit(), alpha_negative=em.Unit(), beta=em.Positive())
def rescorla_wagner_two_rates(alpha_positive, alpha_negative, beta, choice, reward):
    """One subject's choices between two arms, learnt by two learning rates."""

    def learn(c, r, q, alpha_positive, alpha_negative):
        error = r - q[c]
        alpha = pt.switch(error > 0, alpha_positive, alpha_negative)
        return pt.set_subtensor(q[c], q[c] + alpha * error)

    q = pytensor.scan(
        learn,
        sequences=[choice, reward],
        outputs_info=[pt.zeros(2)],
        non_sequences=[alpha_positive, alpha_negative],
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
        Columns alpha_positive, alpha_negative and beta, natural space; the index labels the subjects.
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
    >>> people = pd.DataFrame({"alpha_positive": [0.2, 0.5], "alpha_negative": [0.1, 0.3], "beta": [3.0, 5.0]})
    >>> data = simulate(people, n_trials=50, random_seed=1)
    >>> data.choice.shape
    (2, 50)
    """
    rng = np.random.default_rng(random_seed)
    pays = np.broadcast_to(reward_probability, (n_trials, 2))
    people = {}
    for label, positive, negative, beta in subjects[["alpha_positive", "alpha_negative", "beta"]].itertuples(name=None):
        choice, reward, probability = np.zeros(n_trials, dtype=int), np.zeros(n_trials), np.zeros(n_trials)
        q = np.zeros(2)
        for t in range(n_trials):
            p = softmax(beta * q)
            c = choice[t] = rng.choice(2, p=p)
            probability[t] = p[c]
            reward[t] = rng.random() < pays[t, c]
            error = reward[t] - q[c]
            q[c] += (positive if error > 0 else negative) * error
        people[label] = {"choice": choice, "reward": reward, "choice_probability": probability}
    return em.from_subjects(people)
