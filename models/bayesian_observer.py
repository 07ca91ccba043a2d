"""Which pond do these fish come from? Bayes' rule with a belief of one's own how much a fish tells.

Task: there are three ponds, each with fish of three colours. In a pond of colour k most fish have colour k (80 %), the
others have either other colour (10 % each). Fish after fish of one and the same pond is shown; after each one the
subject says which pond it is, without being told. Then comes another pond. The observer begins each pond with equal
beliefs and multiplies them, fish by fish, with how likely the fish is in each pond: ``diagnosticity`` for the pond of
its colour, (1 - ``diagnosticity``) / 2 for each other one. It chooses a pond as often as it believes in it.

An observer who knows the ponds has the ``diagnosticity`` that they have. Below this, beliefs move too slowly
(conservatism): each fish is held to tell less than it does. At 1/3 fish tell nothing; below, they speak against the
pond of their colour. In log odds beliefs move in equal steps, log(2 ``diagnosticity`` / (1 - ``diagnosticity``)). An
inverse temperature of the choice would multiply these, and could not be told from them: slow beliefs and noisy choices
are one and the same here. This is the model "bayes" of the package pyEM, whose lambda is ``diagnosticity``.

Data, one row a fish:

- ``fish`` (int): its colour, 0, 1 or 2
- ``new_pond`` (int): 1 for the first fish of a pond, else 0
- ``choice`` (int): the pond that the subject names after this fish, 0, 1 or 2

Its parameters:

- ``diagnosticity`` in (0, 1), logit link: the share of a pond's fish that is taken to have its colour

References
----------
Rhoads, S. A. (2023). pyEM: Expectation Maximization with MAP estimation in Python. Zenodo.
https://doi.org/10.5281/zenodo.10415396

Phillips, L. D., & Edwards, W. (1966). Conservatism in a simple probability inference task. Journal of Experimental
Psychology, 72, 346-354. https://doi.org/10.1037/h0023653
"""

from __future__ import annotations

import numpy as np
import pymc as pm
import pytensor
import pytensor.tensor as pt

import em_ppl as em

__all__ = ["bayesian_observer", "task"]


@em.subject_model(diagnosticity=em.Unit(start=0.6))
def bayesian_observer(diagnosticity, fish, new_pond, choice):
    """One subject's beliefs where the fish come from."""

    def bayes_rule(fish, new_pond, belief, diagnosticity):
        likelihood = pt.switch(pt.eq(pt.arange(3), fish), diagnosticity, (1 - diagnosticity) / 2)
        return pt.switch(new_pond, 0.0, belief) + pt.log(likelihood)

    belief = pytensor.scan(  # as logarithms, up to a constant
        bayes_rule,
        sequences=[fish, new_pond],
        outputs_info=[pt.zeros(3)],
        non_sequences=[diagnosticity],
        strict=True,
        return_updates=False,
    )
    pm.Categorical("choice", logit_p=belief, observed=choice)


def task(n_ponds: int = 6, n_fish: int = 15, *, share: float = 0.8) -> em.Task:
    """Fish in one pond after another.

    Parameters
    ----------
    n_ponds : int
        How many; their colours take turns.
    n_fish : int
        Fish shown of each pond.
    share : float
        Of a pond's fish that have its colour.

    Returns
    -------
    Task
        With the columns pond (its colour, which the subject does not see), fish and new_pond.

    Examples
    --------
    >>> import em_ppl as em
    >>> people = em.draw_subjects(bayesian_observer, {"diagnosticity": (0.2, 0.7)}, 2, random_seed=1)
    >>> em.simulate(bayesian_observer, people, task(3, 5), random_seed=1, progressbar=False).choice.shape
    (2, 15)
    """

    def fish(pond, rng):
        other = (pond + rng.integers(1, 3, size=pond.size)) % 3
        return np.where(rng.random(pond.size) < share, pond, other)

    return em.Task(
        n_ponds * n_fish,
        pond=np.repeat(np.arange(n_ponds) % 3, n_fish),
        new_pond=np.tile(np.arange(n_fish) == 0, n_ponds),
        fish=fish,
    )
