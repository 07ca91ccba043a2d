"""Rescorla-Wagner learning with one learning rate for good news and one for bad.

Task: a bandit with two arms, as in `rescorla_wagner`; choices by softmax(``beta`` q), values that begin at 0. The
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

import pymc as pm
import pytensor
import pytensor.tensor as pt

import em_ppl as em

from .rescorla_wagner import task

__all__ = ["rescorla_wagner_two_rates", "task"]


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
    pm.Deterministic("prediction_error", reward - pt.switch(choice, before[:, 1], before[:, 0]))
    pm.Categorical("choice", logit_p=beta * before, observed=choice)
