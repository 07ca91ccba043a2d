"""Planning alone in the two-step task: the hybrid model with a weight of 1 for model-based control.

Task: that of `two_step`, with actions of the first stage that lead to one of two states of the second, commonly or
rarely, and arms there whose odds drift. The value of an arm that was picked moves towards the reward at rate
``alpha2``, from 0. The value of an action is planned from these: 70 % of the value of the best arm of the state that is
common after it and 30 % of that of the other state (the best by the soft maximum of `two_step`). The first choice
follows softmax(``beta1`` value + ``stickiness`` for the last trial's action), the second softmax(``beta2`` value of the
arms of this state). Nothing is learnt of the actions themselves, so that the first stage has no learning rate.

Data, one row a trial:

- ``choice1`` (int): action of the first stage, 0 or 1
- ``state2`` (int): state of the second stage, 0 (common after action 0) or 1 (common after action 1)
- ``choice2`` (int): arm of the second stage, 0 or 1
- ``reward`` (float): what it paid; of the order of 1

Its parameters:

- ``alpha2`` in (0, 1), logit link: learning rate of the second stage
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

from .two_step import arm_values, last, lead, planned_values, task

__all__ = ["task", "two_step_model_based"]


@em.subject_model(
    alpha2=em.Unit(), beta1=em.Positive(start=3.0), beta2=em.Positive(start=3.0), stickiness=em.Real(spread=1.0)
)
def two_step_model_based(alpha2, beta1, beta2, stickiness, choice1, state2, choice2, reward):
    """One subject's choices at both stages, by planning."""
    arms = arm_values(alpha2, state2, choice2, reward)
    action = planned_values(arms)
    pm.Bernoulli("choice1", logit_p=beta1 * lead(action) + stickiness * last(choice1), observed=choice1)
    pm.Bernoulli("choice2", logit_p=beta2 * pt.switch(state2, lead(arms[:, 1]), lead(arms[:, 0])), observed=choice2)
