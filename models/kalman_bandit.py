"""Exploration by uncertainty: a Kalman filter of two arms, an uncertainty bonus and Thompson sampling.

Task: block after block there are two new arms. The mean reward of each is drawn from a Normal distribution around 0
and then stays; rewards scatter around it. An ideal learner (a Kalman filter) knows the posterior mean and variance of
each arm. They begin each block at 0 and 1, and those of the chosen arm follow Bayes' rule. From them come V, the
difference of the means (arm 1 - arm 0), RU, the difference of the SDs (relative uncertainty), and TU, the root of the
sum of the variances (total uncertainty). Choices are a probit regression on these:
P(arm 1) = Phi(``w_value`` V + ``w_directed`` RU + ``w_random`` V / TU).

Directed exploration prefers the arm that is less known: ``w_directed`` above 0, an uncertainty bonus. Random
exploration is the more random the less is known: Thompson sampling, which draws from either posterior and takes the arm
with the larger draw, is ``w_random`` = 1 and the others 0. With ``w_value`` alone it does not matter how much is known.

What the design identifies. The learner has no parameters: with noise and prior given, beliefs follow from choices and
rewards. V and V / TU come apart only as TU falls within a block, so that ``w_value`` and ``w_random`` are harder to
tell from each other than ``w_directed`` from either.

Rewards are in units of the SD of arms' means, and the variance of the noise is 0.1 of theirs, as in the first paper's
learner (100 and 10 in squared points: divide points by 10).

Data, one row a trial:

- ``block_start`` (int): 1 for the first trial of a block, else 0
- ``choice`` (int): the arm, 0 or 1
- ``reward`` (float): what it paid, in SDs of the means of arms

Its parameters:

- ``w_value``, real: weight of V, probit units per unit of reward
- ``w_directed``, real: weight of RU, probit units per unit of reward
- ``w_random``, real: weight of V / TU, probit units

References
----------
Gershman, S. J. (2018). Deconstructing the human algorithms for exploration. Cognition, 173, 34-42.
https://doi.org/10.1016/j.cognition.2017.12.014

Daw, N. D., O'Doherty, J. P., Dayan, P., Seymour, B., & Dolan, R. J. (2006). Cortical substrates for exploratory
decisions in humans. Nature, 441, 876-879. https://doi.org/10.1038/nature04766
"""

from __future__ import annotations

import numpy as np
import pymc as pm
import pytensor
import pytensor.tensor as pt

import em_ppl as em

from .signal_detection import log_ndtr

__all__ = ["kalman_bandit", "task"]

NOISE = 0.1  # variance of rewards around an arm's mean, where means have the variance 1


@em.subject_model(w_value=em.Real(), w_directed=em.Real(), w_random=em.Real())
def kalman_bandit(w_value, w_directed, w_random, block_start, choice, reward):
    """One subject's choices between two arms, guided by what it believes and by how sure it is."""

    def learn(block_start, c, r, mean, variance):
        mean = pt.switch(block_start, 0.0, mean)
        variance = pt.switch(block_start, 1.0, variance)
        gain = variance[c] / (variance[c] + NOISE)
        learnt = pt.set_subtensor(mean[c], mean[c] + gain * (r - mean[c]))
        return learnt, pt.set_subtensor(variance[c], (1 - gain) * variance[c]), mean, variance

    _, _, mean, variance = pytensor.scan(  # as they were when the choice was made
        learn,
        sequences=[block_start, choice, reward],
        outputs_info=[pt.zeros(2), pt.ones(2), None, None],
        strict=True,
        return_updates=False,
    )
    value = mean[:, 1] - mean[:, 0]
    relative = pt.sqrt(variance[:, 1]) - pt.sqrt(variance[:, 0])
    total = pt.sqrt(variance.sum(axis=1))
    z = w_value * value + w_directed * relative + w_random * value / total
    pm.Bernoulli("choice", logit_p=log_ndtr(z) - log_ndtr(-z), observed=choice)


def task(n_blocks: int = 20, n_trials: int = 10) -> em.Task:
    """Make blocks with two new arms each, the same for all subjects.

    Parameters
    ----------
    n_blocks : int
        How many.
    n_trials : int
        Trials of each block.

    Returns
    -------
    Task
        With the column block_start, and an answer to each choice.

    Examples
    --------
    >>> import em_ppl as em, pandas as pd
    >>> people = pd.DataFrame([{"w_value": 1.0, "w_directed": 0.5, "w_random": 0.5}], index=["ann"])
    >>> em.simulate(kalman_bandit, people, task(4), random_seed=1, progressbar=False).choice.shape
    (1, 40)
    """
    means = np.random.default_rng(1).normal(size=(n_blocks, 2))

    def reward(choice, trial, rng):
        return rng.normal(means[trial // n_trials, choice], np.sqrt(NOISE))

    return em.Task(n_blocks * n_trials, block_start=np.tile(np.arange(n_trials) == 0, n_blocks), reward=reward)
