"""Rescorla-Wagner learning that forgets the value of the arm that was not chosen.

Task: a bandit with two arms, as in `rescorla_wagner`; choices by softmax(``beta`` q), values that begin at 0. The
value of the chosen arm moves towards the reward by a share ``alpha`` of the prediction error. The value of the other
arm loses a share ``forgetting``: it falls back to 0, where it began.

At ``forgetting`` = 0 this is `rescorla_wagner`; where it equals ``alpha`` the other arm learns as if it had paid 0.
How rewards are coded therefore matters. With 1 and 0, forgetting makes an arm worse and looks much like a habit of
staying. With 1 and -1 bad memories fade as good ones do.

Data, one row a trial:

- ``choice`` (int): the arm, 0 or 1
- ``reward`` (float): what it paid; of the order of 1

Its parameters:

- ``alpha`` in (0, 1), logit link: learning rate of the chosen arm
- ``forgetting`` in (0, 1), logit link: share of its value that the other arm loses on each trial
- ``beta`` above 0, log link: inverse temperature, per unit of reward

References
----------
Ito, M., & Doya, K. (2009). Validation of decision-making models and analysis of decision variables in the rat basal
ganglia. Journal of Neuroscience, 29, 9861-9874. https://doi.org/10.1523/JNEUROSCI.6157-08.2009

Niv, Y., Daniel, R., Geana, A., Gershman, S. J., Leong, Y. C., Radulescu, A., & Wilson, R. C. (2015). Reinforcement
learning in multidimensional environments relies on attention mechanisms. Journal of Neuroscience, 35, 8145-8157.
https://doi.org/10.1523/JNEUROSCI.2978-14.2015
"""

from __future__ import annotations

import pymc as pm
import pytensor
import pytensor.tensor as pt

import em_ppl as em

from .rescorla_wagner import task

__all__ = ["rescorla_wagner_forgetting", "task"]


@em.subject_model(alpha=em.Unit(), forgetting=em.Unit(), beta=em.Positive())
def rescorla_wagner_forgetting(alpha, forgetting, beta, choice, reward):
    """One subject's choices between two arms, of which the one not chosen is forgotten."""

    def learn(c, r, q, alpha, forgetting):
        chosen = pt.eq(pt.arange(2), c)
        return q + pt.switch(chosen, alpha * (r - q), -forgetting * q)

    q = pytensor.scan(
        learn,
        sequences=[choice, reward],
        outputs_info=[pt.zeros(2)],
        non_sequences=[alpha, forgetting],
        strict=True,
        return_updates=False,
    )
    before = pt.concatenate([pt.zeros((1, 2)), q[:-1]])  # what was known when the choice was made
    pm.Deterministic("prediction_error", reward - pt.switch(choice, before[:, 1], before[:, 0]))
    pm.Categorical("choice", logit_p=beta * before, observed=choice)
