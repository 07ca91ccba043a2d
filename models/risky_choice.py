"""Choice between a sure amount and a gamble, for gains and losses, at known and ambiguous odds: prospect theory.

Task: on each trial one option pays ``safe`` for sure, the other ``risky`` with some probability and else nothing. Both
are gains or both are losses. On ambiguous trials half of the odds is hidden (the non-zero outcome has 25 to 75 %).
With u(x) = sign(x) abs(x)^rho and Levy's effective probability p - ``ambiguity_aversion`` x hidden / 2,
P(risky) = sigmoid(beta (p u(risky) - u(safe))), rho and beta being those of gains or of losses.

Which parameters this task identifies. No gamble mixes gains and losses, so nothing pits one against the other: the
lambda of prospect theory would only multiply the utilities of loss trials, as the inverse temperature does. It is
therefore written as what it is here, a sensitivity of its own for losses. Curvatures below 1 mean risk aversion for
gains and risk seeking for losses. Where all gambles are at 50 %, a curvature also stands for probability weighting.

Data, one row a trial:

- ``choice`` (int): 1 for the gamble, 0 for the sure amount
- ``safe`` (float): the sure amount, negative for losses; of the order of 1
- ``risky`` (float): the gamble's non-zero outcome
- ``probability`` (float): its probability; on ambiguous trials the middle of what is possible
- ``ambiguity`` (int): 1 where half of the odds is hidden, else 0

Its parameters:

- ``rho_gain``, ``rho_loss`` above 0, log link: curvature of utility for gains, for losses; 1 is linear
- ``ambiguity_aversion``, real: 1 where hidden odds count fully against the non-zero outcome, 0 where they do not
  matter, below 0 where they count for it (of losses, aversion to ambiguity thus speaks FOR the gamble)
- ``beta_gain``, ``beta_loss`` above 0, log link: sensitivity (inverse temperature) to gains, to losses, per unit

References
----------
Tversky, A., & Kahneman, D. (1992). Advances in prospect theory: Cumulative representation of uncertainty. Journal of
Risk and Uncertainty, 5, 297-323. https://doi.org/10.1007/BF00122574

Levy, I., Snell, J., Nelson, A. J., Rustichini, A., & Glimcher, P. W. (2010). Neural representation of subjective value
under risk and ambiguity. Journal of Neurophysiology, 103, 1036-1047. https://doi.org/10.1152/jn.00853.2009
"""

from __future__ import annotations

import numpy as np
import pymc as pm
import pytensor.tensor as pt

import em_ppl as em

__all__ = ["risky_choice", "task"]

HIDDEN = 0.5  # share of the odds that an ambiguous trial does not show


@em.subject_model(
    rho_gain=em.Positive(),
    rho_loss=em.Positive(),
    ambiguity_aversion=em.Real(),
    beta_gain=em.Positive(start=3.0),
    beta_loss=em.Positive(start=3.0),
)
def risky_choice(
    rho_gain, rho_loss, ambiguity_aversion, beta_gain, beta_loss, choice, safe, risky, probability, ambiguity
):
    """One subject's choices between a sure amount and a gamble."""

    def utility(x):
        size = pt.where(pt.eq(x, 0), 1.0, pt.abs(x))  # 0 ** rho has no finite slope in rho; sign(0) makes it 0 again
        return pt.sign(x) * size ** pt.where(x < 0, rho_loss, rho_gain)

    effective = probability - ambiguity_aversion * ambiguity * HIDDEN / 2
    beta = pt.where(risky < 0, beta_loss, beta_gain)
    pm.Bernoulli("choice", logit_p=beta * (effective * utility(risky) - utility(safe)), observed=choice)


def task(n_repeats: int = 1) -> em.Task:
    """Make 40 trials like those of the game "Scavenger" (data set risky_choices of cpm-toolbox).

    Parameters
    ----------
    n_repeats : int
        How often each trial comes.

    Returns
    -------
    Task
        With the columns safe, risky, probability and ambiguity.

    Examples
    --------
    >>> import em_ppl as em, pandas as pd
    >>> person = {"rho_gain": 0.9, "rho_loss": 0.8, "ambiguity_aversion": 0.2, "beta_gain": 9.0, "beta_loss": 7.0}
    >>> people = pd.DataFrame([person], index=["ann"])
    >>> em.simulate(risky_choice, people, task(), random_seed=1, progressbar=False).choice.shape
    (1, 40)
    """
    gain = np.array([0.30, 0.55, 0.36, 0.50, 0.42, 0.47, 0.33, 0.53, 0.39, 0.45])
    better = gain / [0.36, 0.39, 0.42, 0.44, 0.48, 0.52, 0.58, 0.65, 0.78, 1.15]
    return em.Task(
        40 * n_repeats,
        safe=np.tile([*gain, *-gain], 2 * n_repeats),
        risky=np.tile([*better, *-better], 2 * n_repeats),
        probability=0.5,
        ambiguity=np.tile(np.repeat([0, 1], 20), n_repeats),
    )
