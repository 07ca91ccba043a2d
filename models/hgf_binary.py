"""Belief about a tendency that changes: the binary Hierarchical Gaussian Filter with two levels that learn.

Task: an outcome ``u``, 0 or 1, comes on each trial, and the subject predicts it beforehand. The tendency towards 1 is
believed to be a logit that takes a Normal step from trial to trial, whose variance is exp(``omega``). The belief about
this logit is Normal, with mean mu and variance sigma. Before the outcome, sigma grows by exp(``omega``), and
p = sigmoid(mu) is the predicted probability of a 1. After it, 1 / sigma grows by p (1 - p) and mu moves by
sigma (u - p): a prediction error, weighted by how unsure the subject was. Predictions follow the unit-square sigmoid
P(y = 1) = p^``zeta`` / (p^``zeta`` + (1 - p)^``zeta``).

Volatility, the third level of the full filter, is constant here; ``omega`` is what TAPAS writes as kappa2 mu3 + omega2.
The belief begins at mu = 0 and sigma = 0.1, the initial values of TAPAS.

What the design identifies. The log odds of a response are ``zeta`` mu. Both a larger omega and a larger zeta make
responses follow outcomes more closely; they come apart as only omega decides how fast belief turns after a tendency has
changed. Below omega = -10 or so the tendency is believed to stay the same for 200 trials, and a smaller omega makes
hardly any difference.

Data, one row a trial:

- ``u`` (int): the outcome, 0 or 1, seen after the response
- ``y`` (int): the response: the outcome that was predicted, 0 or 1

Its parameters:

- ``omega``, real: tonic log-volatility, log of the variance of the tendency's step, squared logits per trial
- ``zeta`` above 0, log link: inverse temperature of the response; at 1 predictions match probabilities

References
----------
Mathys, C., Daunizeau, J., Friston, K. J., & Stephan, K. E. (2011). A Bayesian foundation for individual learning under
uncertainty. Frontiers in Human Neuroscience, 5, 39. https://doi.org/10.3389/fnhum.2011.00039

Mathys, C. D., Lomakina, E. I., Daunizeau, J., Iglesias, S., Brodersen, K. H., Friston, K. J., & Stephan, K. E. (2014).
Uncertainty in perception and the Hierarchical Gaussian Filter. Frontiers in Human Neuroscience, 8, 825.
https://doi.org/10.3389/fnhum.2014.00825
"""

from __future__ import annotations

import numpy as np
import pymc as pm
import pytensor
import pytensor.tensor as pt

import em_ppl as em

__all__ = ["hgf_binary", "task"]

MU, SIGMA = 0.0, 0.1  # the belief before the first trial


@em.subject_model(omega=em.Real(start=-3.0, spread=1.5), zeta=em.Positive())
def hgf_binary(omega, zeta, u, y):
    """One subject's predictions of a binary outcome."""

    def learn(u, mu, sigma, omega):
        p = pt.sigmoid(mu)
        sigma = 1 / (1 / (sigma + pt.exp(omega)) + p * (1 - p))
        return mu + sigma * (u - p), sigma

    mu, _ = pytensor.scan(
        learn,
        sequences=[u],
        outputs_info=[pt.constant(MU, dtype="float64"), pt.constant(SIGMA, dtype="float64")],
        non_sequences=[omega],
        strict=True,
        return_updates=False,
    )
    before = pt.concatenate([[MU], mu[:-1]])  # what was believed when the response was given
    pm.Deterministic("prediction_error", u - pt.sigmoid(before))
    pm.Bernoulli("y", logit_p=zeta * before, observed=y)  # the unit-square sigmoid of p


def task(n_blocks: int = 10, n_trials: int = 20, *, probability: float = 0.8) -> em.Task:
    """Make blocks in which 1 is likely and unlikely in turn.

    Parameters
    ----------
    n_blocks : int
        How many.
    n_trials : int
        Trials of each block.
    probability : float
        Of 1 in the first block and every other one; of 0 in those between.

    Returns
    -------
    Task
        With the column u, the same for all subjects.

    Examples
    --------
    >>> import em_ppl as em, pandas as pd
    >>> people = pd.DataFrame([{"omega": -2.0, "zeta": 2.0}], index=["ann"])
    >>> em.simulate(hgf_binary, people, task(4), random_seed=1, progressbar=False).y.shape
    (1, 80)
    """
    of_1 = np.where(np.arange(n_blocks) % 2 == 0, probability, 1 - probability)
    u = np.random.default_rng(1).random(n_blocks * n_trials) < np.repeat(of_1, n_trials)
    return em.Task(n_blocks * n_trials, u=u)
