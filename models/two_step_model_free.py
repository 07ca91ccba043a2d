"""Habit alone in the two-step task: the hybrid model with a weight of 0 for model-based control, SARSA(lambda).

Task: that of `two_step`, with actions of the first stage that lead to one of two states of the second, commonly or
rarely, and arms there whose odds drift. The value of an arm that was picked moves towards the reward at rate
``alpha2``; that of the chosen action at rate ``alpha1`` towards
(1 - ``lambda_``) x the value of the arm that it led to + ``lambda_`` x the reward. All begin at 0. The first choice
follows softmax(``beta1`` value + ``stickiness`` for the last trial's action), the second
softmax(``beta2`` value of the arms of this state). Whether a transition was common or rare is of no account.

Data, one row a trial:

- ``choice1`` (int): action of the first stage, 0 or 1
- ``state2`` (int): state of the second stage, 0 or 1
- ``choice2`` (int): arm of the second stage, 0 or 1
- ``reward`` (float): what it paid; of the order of 1

Its parameters:

- ``alpha1``, ``alpha2`` in (0, 1), logit link: learning rate of the first, of the second stage
- ``lambda_`` in (0, 1), logit link: eligibility of the first action for the reward
- ``beta1``, ``beta2`` above 0, log link: inverse temperature of the first, of the second stage, per unit of reward
- ``stickiness``, real: log odds of taking the same first action again

References
----------
Daw, N. D., Gershman, S. J., Seymour, B., Dayan, P., & Dolan, R. J. (2011). Model-based influences on humans' choices
and striatal prediction errors. Neuron, 69, 1204-1215. https://doi.org/10.1016/j.neuron.2011.02.027
"""

from __future__ import annotations

import pymc as pm
import pytensor.tensor as pt

import em_ppl as em

from .two_step import arm_values, habit_values, last, lead, task

__all__ = ["task", "two_step_model_free"]


@em.subject_model(
    alpha1=em.Unit(),
    alpha2=em.Unit(),
    lambda_=em.Unit(),
    beta1=em.Positive(start=3.0),
    beta2=em.Positive(start=3.0),
    stickiness=em.Real(spread=1.0),
)
def two_step_model_free(alpha1, alpha2, lambda_, beta1, beta2, stickiness, choice1, state2, choice2, reward):
    """One subject's choices at both stages, by habit."""
    arms = arm_values(alpha2, state2, choice2, reward)
    action = habit_values(alpha1, lambda_, arms, choice1, state2, choice2, reward)
    pm.Bernoulli("choice1", logit_p=beta1 * lead(action) + stickiness * last(choice1), observed=choice1)
    pm.Bernoulli("choice2", logit_p=beta2 * pt.switch(state2, lead(arms[:, 1]), lead(arms[:, 0])), observed=choice2)
