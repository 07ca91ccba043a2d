"""Learning that speeds up after surprises: the Pearce-Hall hybrid, with an associability of each arm.

Task: a bandit with two arms, as in `rescorla_wagner`; choices by softmax(``beta`` q), values that begin at 0. Each arm
has an associability, which begins at 1. The value of the chosen arm moves by ``kappa`` x its associability x the
prediction error. Then its associability moves towards the size of this prediction error, by a share ``eta``. An arm
that surprises is learnt about fast, one that pays as expected slowly.

At ``eta`` = 0 this is `rescorla_wagner` at rate ``kappa``. What the design identifies: ``eta`` only shows in how
learning slows down while all goes as expected and picks up when it does not, so that the better arm has to change again
and again. Even then little is learnt of ``eta`` in subjects who learn slowly or choose nearly at random, and little of
``kappa`` in those who learn fast.

Data, one row a trial:

- ``choice`` (int): the arm, 0 or 1
- ``reward`` (float): what it paid; of the order of 1, so that associabilities are as well

Its parameters:

- ``kappa`` in (0, 1), logit link: learning rate per unit of associability
- ``eta`` in (0, 1), logit link: how fast the associability follows surprise
- ``beta`` above 0, log link: inverse temperature, per unit of reward

References
----------
Li, J., Schiller, D., Schoenbaum, G., Phelps, E. A., & Daw, N. D. (2011). Differential roles of human striatum and
amygdala in associative learning. Nature Neuroscience, 14, 1250-1252. https://doi.org/10.1038/nn.2904

Pearce, J. M., & Hall, G. (1980). A model for Pavlovian learning: Variations in the effectiveness of conditioned but not
of unconditioned stimuli. Psychological Review, 87, 532-552. https://doi.org/10.1037/0033-295X.87.6.532
"""

from __future__ import annotations

import pymc as pm
import pytensor
import pytensor.tensor as pt

import em_ppl as em

from .rescorla_wagner import task

__all__ = ["pearce_hall", "task"]


@em.subject_model(kappa=em.Unit(), eta=em.Unit(), beta=em.Positive())
def pearce_hall(kappa, eta, beta, choice, reward):
    """One subject's choices between two arms, learnt the faster the more they surprise."""

    def learn(c, r, q, associability, kappa, eta):
        error = r - q[c]
        surprise = pt.abs(error) - associability[c]
        learnt = pt.set_subtensor(q[c], q[c] + kappa * associability[c] * error)
        return learnt, pt.set_subtensor(associability[c], associability[c] + eta * surprise)

    q, _ = pytensor.scan(
        learn,
        sequences=[choice, reward],
        outputs_info=[pt.zeros(2), pt.ones(2)],
        non_sequences=[kappa, eta],
        strict=True,
        return_updates=False,
    )
    before = pt.concatenate([pt.zeros((1, 2)), q[:-1]])  # what was known when the choice was made
    pm.Deterministic("prediction_error", reward - pt.switch(choice, before[:, 1], before[:, 0]))
    pm.Categorical("choice", logit_p=beta * before, observed=choice)
