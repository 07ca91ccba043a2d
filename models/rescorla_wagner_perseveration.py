"""Rescorla-Wagner learning with a tendency to repeat the last choice, whatever it paid.

Task: a bandit with two arms, as in `rescorla_wagner`: the value of the chosen arm moves towards the reward by a share
``alpha`` of the prediction error, and both values begin at 0. Arms are chosen with probability
softmax(``beta`` q + ``stickiness`` for the arm of the last trial). This is a choice kernel that remembers one choice.

A learner with a small ``alpha`` stays with an arm too, but because it has paid. Reversals tell the two apart. Where
perseveration is left out of a model with two learning rates, bad news seem to count for less than good news.

Data, one row a trial:

- ``choice`` (int): the arm, 0 or 1
- ``reward`` (float): what it paid; of the order of 1

Its parameters:

- ``alpha`` in (0, 1), logit link: learning rate
- ``beta`` above 0, log link: inverse temperature, per unit of reward
- ``stickiness``, real: log odds of choosing the same arm again where values are equal; below 0 for alternation

References
----------
Lau, B., & Glimcher, P. W. (2005). Dynamic response-by-response models of matching behavior in rhesus monkeys. Journal
of the Experimental Analysis of Behavior, 84, 555-579. https://doi.org/10.1901/jeab.2005.110-04

Rutledge, R. B., Lazzaro, S. C., Lau, B., Myers, C. E., Gluck, M. A., & Glimcher, P. W. (2009). Dopaminergic drugs
modulate learning rates and perseveration in Parkinson's patients in a dynamic foraging task. Journal of Neuroscience,
29, 15104-15114. https://doi.org/10.1523/JNEUROSCI.3524-09.2009

Sugawara, M., & Katahira, K. (2021). Dissociation between asymmetric value updating and perseverance in human
reinforcement learning. Scientific Reports, 11, 3574. https://doi.org/10.1038/s41598-020-80593-7
"""

from __future__ import annotations

import pymc as pm
import pytensor
import pytensor.tensor as pt

import em_ppl as em

from .rescorla_wagner import task

__all__ = ["rescorla_wagner_perseveration", "task"]


@em.subject_model(alpha=em.Unit(), beta=em.Positive(), stickiness=em.Real(spread=1.0))
def rescorla_wagner_perseveration(alpha, beta, stickiness, choice, reward):
    """One subject's choices between two arms, learnt and repeated."""

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
    last = pt.concatenate([[0.0], 2.0 * choice[:-1] - 1.0])  # 1 for arm 1, -1 for arm 0; the first trial has none
    pm.Bernoulli("choice", logit_p=beta * (before[:, 1] - before[:, 0]) + stickiness * last, observed=choice)
