"""Planning or habit: the deterministic two-step task, model-based and model-free control and the stakes.

Task: each trial begins at one of two starting points, with two spaceships each. At either, spaceship 0 flies to planet
0 and spaceship 1 to planet 1, always. The planet pays a reward that drifts from trial to trial; the stake of the trial
is low or high. What was found on a planet tells a planner about the spaceships of BOTH starting points. A habit learns
about the spaceship that was taken: generalising from one starting point to the other is the mark of planning.

Planets have a value that learns by prediction errors at rate ``alpha``; this is also the model-based value of the
spaceships that fly there. A spaceship's model-free value learns at the same rate from the value of the planet, and from
the planet's own prediction error with eligibility ``lambda_``. Choices follow
softmax(``beta`` (w model-based + (1 - w) model-free) + ``stickiness`` for the spaceship taken on the last trial), where
w is ``w_low`` or ``w_high`` by the stake. All values begin at 0.5, the middle of the rewards.

Data, one row a trial:

- ``start`` (int): the starting point, 0 or 1
- ``choice`` (int): the spaceship, and so the planet, 0 or 1
- ``reward`` (float): what the planet paid, between 0 and 1
- ``stake`` (int): 0 for a low stake, 1 for a high one

Its parameters:

- ``alpha`` in (0, 1), logit link: learning rate
- ``lambda_`` in (0, 1), logit link: eligibility of the spaceship for what the planet pays
- ``beta`` above 0, log link: inverse temperature, per unit of reward
- ``w_low``, ``w_high`` in (0, 1), logit link: weight of model-based control where the stake is low, where it is high
- ``stickiness``, real: log odds of taking the same spaceship again

References
----------
Kool, W., Cushman, F. A., & Gershman, S. J. (2016). When does model-based control pay off? PLoS Computational Biology,
12, e1005090. https://doi.org/10.1371/journal.pcbi.1005090

Kool, W., Gershman, S. J., & Cushman, F. A. (2017). Cost-benefit arbitration between multiple reinforcement-learning
systems. Psychological Science, 28, 1321-1333. https://doi.org/10.1177/0956797617708288
"""

from __future__ import annotations

import numpy as np
import pymc as pm
import pytensor
import pytensor.tensor as pt

import em_ppl as em

__all__ = ["task", "two_step_deterministic"]


@em.subject_model(
    alpha=em.Unit(),
    lambda_=em.Unit(),
    beta=em.Positive(start=3.0),
    w_low=em.Unit(),
    w_high=em.Unit(),
    stickiness=em.Real(spread=1.0),
)
def two_step_deterministic(alpha, lambda_, beta, w_low, w_high, stickiness, start, choice, reward, stake):
    """One subject's choices of spaceships."""

    def learn(s, c, r, ship, planet, alpha, lambda_):
        surprise = r - planet[c]
        learnt = ship[s, c] + alpha * (planet[c] - ship[s, c] + lambda_ * surprise)
        return pt.set_subtensor(ship[s, c], learnt), pt.set_subtensor(planet[c], planet[c] + alpha * surprise)

    begin = [pt.full((2, 2), 0.5, dtype="float64"), pt.full(2, 0.5, dtype="float64")]
    after = pytensor.scan(
        learn,
        sequences=[start, choice, reward],
        outputs_info=begin,
        non_sequences=[alpha, lambda_],
        strict=True,
        return_updates=False,
    )
    # what was known when the choice was made, of spaceship 1 less that of spaceship 0
    ship, planet = (pt.concatenate([q[None], later[:-1]]) for q, later in zip(begin, after, strict=True))
    model_based = planet[:, 1] - planet[:, 0]
    model_free = pt.switch(start, ship[:, 1, 1] - ship[:, 1, 0], ship[:, 0, 1] - ship[:, 0, 0])
    again = pt.switch(pt.eq(start[1:], start[:-1]), 2.0 * choice[:-1] - 1.0, 0.0)  # another start has other spaceships
    w = pt.switch(stake, w_high, w_low)
    logit = beta * (w * model_based + (1 - w) * model_free) + stickiness * pt.concatenate([[0.0], again])
    pm.Bernoulli("choice", logit_p=logit, observed=choice)


def task(n_trials: int = 200) -> em.Task:
    """Make rewards that drift between 0 and 1, and starting points and stakes at random.

    Parameters
    ----------
    n_trials : int
        Trials of each subject.

    Returns
    -------
    Task
        With the columns start and stake, and an answer to each choice; rewards drift alike for all subjects.

    Examples
    --------
    >>> import em_ppl as em, pandas as pd
    >>> ann = {"alpha": 0.6, "lambda_": 0.5, "beta": 6.0, "w_low": 0.4, "w_high": 0.8, "stickiness": 0.3}
    >>> people = pd.DataFrame([ann], index=["ann"])
    >>> em.simulate(two_step_deterministic, people, task(50), random_seed=1, progressbar=False).choice.shape
    (1, 50)
    """
    steps = np.random.default_rng(1).normal(0.0, 0.2, size=(n_trials, 2))
    walk = np.array([0.3, 0.7]) + np.cumsum(steps, axis=0)
    pays = np.abs((walk + 1) % 2 - 1)  # turns back at 0 and at 1

    def start(subject, rng):
        return rng.integers(0, 2, size=subject.size)

    def stake(subject, rng):
        return rng.integers(0, 2, size=subject.size)

    def reward(choice, trial):
        return pays[trial, choice]

    return em.Task(n_trials, start=start, stake=stake, reward=reward)
