"""Prospect theory for gambles at even odds: loss aversion, curvature of utility, and noise.

Task: on each trial a sure amount ``cert``, or a gamble that pays ``gain`` or costs ``loss`` at even odds. With
u(x) = x^``rho``, the gamble is worth (u(gain) - ``loss_aversion`` u(loss)) / 2, the sure amount u(cert), and the gamble
is accepted with probability sigmoid(``tau`` x the difference).

Gambles of a gain and a loss, against nothing, tell at which ratio of gain to loss a subject begins to accept:
``loss_aversion``^(1 / ``rho``). Gambles of a gain alone, against a sure gain, tell ``rho`` apart.

Columns, parameters and their bounds are those of hBayesDM's ra_prospect, where ``loss_aversion`` is called lambda.

Data, one row a trial:

- ``gamble`` (int): 1 where the gamble was chosen, 0 for the sure amount
- ``gain`` (float): what the gamble may pay, at least 0, in dollars
- ``loss`` (float): what it may cost; 5 and -5 are the same
- ``cert`` (float): the sure amount, at least 0

Its parameters:

- ``rho`` in (0, 2), probit link: curvature of utility; below 1 means risk aversion for gains
- ``loss_aversion`` in (0, 5), probit link: weight of a loss against a gain of the same size
- ``tau`` in (0, 30), probit link: inverse temperature, per unit of utility

References
----------
Sokol-Hessner, P., Hsu, M., Curley, N. G., Delgado, M. R., Camerer, C. F., & Phelps, E. A. (2009). Thinking like a
trader selectively reduces individuals' loss aversion. PNAS, 106, 5035-5040. https://doi.org/10.1073/pnas.0806761106
"""

from __future__ import annotations

import numpy as np
import pymc as pm
import pytensor.tensor as pt

import em_ppl as em

__all__ = ["prospect_theory", "task"]


@em.subject_model(
    rho=em.Interval(0.0, 2.0, link="probit"),
    loss_aversion=em.Interval(0.0, 5.0, start=1.0, link="probit"),
    tau=em.Interval(0.0, 30.0, start=1.0, link="probit"),
)
def prospect_theory(rho, loss_aversion, tau, gamble, gain, loss, cert):
    """One subject's choices between a sure amount and a gamble."""

    def utility(x):
        return pt.where(x > 0, pt.where(x > 0, x, 1.0) ** rho, 0.0)  # 0 ** rho has no finite slope in rho

    worth = 0.5 * (utility(gain) - loss_aversion * utility(pt.abs(loss)))
    pm.Bernoulli("gamble", logit_p=tau * (worth - utility(cert)), observed=gamble)


def task(n_repeats: int = 1) -> em.Task:
    """Make 140 trials much like those of Sokol-Hessner et al. (2009).

    In 120 the gamble is of a gain and a loss, and the sure amount is nothing; in 20 it is of a gain and nothing, and
    the sure amount is a quarter to a bit more than half of the gain.

    Parameters
    ----------
    n_repeats : int
        How often each trial comes.

    Returns
    -------
    Task
        With the columns gain, loss and cert, in dollars.

    Examples
    --------
    >>> import em_ppl as em
    >>> group = {"rho": (-0.1, 0.2), "loss_aversion": (-0.5, 0.3), "tau": (-1.5, 0.3)}
    >>> people = em.draw_subjects(prospect_theory, group, 2, random_seed=1)
    >>> em.simulate(prospect_theory, people, task(), random_seed=1, progressbar=False).gamble.shape
    (2, 140)
    """
    mixed, multiple = map(np.ravel, np.meshgrid([2, 4, 5, 6, 8, 9, 10, 12], np.arange(2, 17) / 8))
    alone, share = map(np.ravel, np.meshgrid([4, 8, 12, 20, 28], [0.25, 0.35, 0.45, 0.55]))
    return em.Task(
        140 * n_repeats,
        gain=np.tile(np.concatenate([mixed, alone]).astype(float), n_repeats),
        loss=np.tile(np.concatenate([mixed * multiple, np.zeros(20)]), n_repeats),
        cert=np.tile(np.concatenate([np.zeros(120), alone * share]), n_repeats),
    )
