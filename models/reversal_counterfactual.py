"""Reversal learning that also asks what the other arm would have paid: counterfactual (fictitious) updating.

Task: one of two arms wins most of the time, the other loses most of the time, and now and then they swap. On each trial
the subject picks an arm and wins 1 or loses 1. The value of the chosen arm moves towards the reward by a share
``alpha`` of the prediction error. The value of the other arm moves towards the opposite of the reward, which it would
have paid if one arm wins where the other loses, by ``counterfactual`` times that share. Values begin at 0; arms are
chosen with probability softmax(``beta`` q).

A subject who knows that arms swap can leave a bad arm for a good one without having tried it. At ``counterfactual`` = 0
there is no such knowledge, and this is `rescorla_wagner`. At 1 it is the fictitious update of the first paper below,
without its bias towards one arm (`prl_fictitious_woa` of the package hBayesDM). What the other arm would have paid is
inferred here. In tasks that show it, the subject would learn from what was shown instead.

The other arm learns no faster than the chosen one because choices could not tell: with the two rates exchanged, each
choice has the same probability as before, since one arm's value is then minus what the other's was.

Data, one row a trial:

- ``choice`` (int): the arm, 0 or 1
- ``reward`` (float): 1 for a win, -1 for a loss

Its parameters:

- ``alpha`` in (0, 1), logit link: learning rate of the chosen arm
- ``counterfactual`` in (0, 1), logit link: share of it by which the other arm learns, from what it would have paid
- ``beta`` above 0, log link: inverse temperature, per unit of reward

References
----------
Gläscher, J., Hampton, A. N., & O'Doherty, J. P. (2009). Determining a role for ventromedial prefrontal cortex in
encoding action-based value signals during reward-related decision making. Cerebral Cortex, 19, 483-495.
https://doi.org/10.1093/cercor/bhn098

Ahn, W.-Y., Haines, N., & Zhang, L. (2017). Revealing neurocomputational mechanisms of reinforcement learning and
decision-making with the hBayesDM package. Computational Psychiatry, 1, 24-57. https://doi.org/10.1162/CPSY_a_00002
"""

from __future__ import annotations

import pymc as pm
import pytensor
import pytensor.tensor as pt

import em_ppl as em

__all__ = ["reversal_counterfactual", "task"]


@em.subject_model(alpha=em.Unit(), counterfactual=em.Unit(), beta=em.Positive())
def reversal_counterfactual(alpha, counterfactual, beta, choice, reward):
    """One subject's choices between two arms that swap."""

    def learn(c, r, q, alpha, counterfactual):
        chosen = pt.eq(pt.arange(2), c)
        return q + alpha * pt.switch(chosen, r - q, counterfactual * (-r - q))

    q = pytensor.scan(
        learn,
        sequences=[choice, reward],
        outputs_info=[pt.zeros(2)],
        non_sequences=[alpha, counterfactual],
        strict=True,
        return_updates=False,
    )
    before = pt.concatenate([pt.zeros((1, 2)), q[:-1]])  # what was known when the choice was made
    pm.Categorical("choice", logit_p=beta * before, observed=choice)


def task(n_trials: int = 200, *, trials_between_reversals: int = 25, win_probability: float = 0.75) -> em.Task:
    """Make two arms that swap again and again.

    Parameters
    ----------
    n_trials : int
        Trials of each subject.
    trials_between_reversals : int
        How long an arm remains the better one.
    win_probability : float
        How often the better arm wins; the other one loses as often.

    Returns
    -------
    Task
        Answers each choice with a win or a loss.

    Examples
    --------
    >>> import em_ppl as em
    >>> group = {"alpha": (0.0, 1.0), "counterfactual": (0.0, 1.0), "beta": (0.5, 0.5)}
    >>> people = em.draw_subjects(reversal_counterfactual, group, 2, random_seed=1)
    >>> em.simulate(reversal_counterfactual, people, task(50), random_seed=1, progressbar=False).choice.shape
    (2, 50)
    """

    def reward(choice, trial, rng):
        better = (trial // trials_between_reversals + 1) % 2  # arm 1 begins
        wins = rng.random(choice.shape) < abs((choice != better) - win_probability)
        return 2.0 * wins - 1.0

    return em.Task(n_trials, reward=reward)
