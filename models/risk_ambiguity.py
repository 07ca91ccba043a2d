"""Choice between a lottery and a fixed reference, at known and ambiguous odds: attitudes to risk and ambiguity.

Task: on each trial a lottery that pays ``amount`` with ``probability`` and else nothing, or a reference, which is the
same on all trials. Of some lotteries a share ``ambiguity`` of the odds is hidden. A lottery is worth
V = (probability - ``beta`` ambiguity / 2) amount^``alpha``, and is chosen over the reference with probability
sigmoid(``gamma`` (V - V reference)).

Data, one row a trial:

- ``choice`` (int): 1 for the lottery, 0 for the reference
- ``amount`` (float): what the lottery may pay, above 0; best in units of the reference
- ``probability`` (float): how likely; if ambiguous, the middle of what is possible
- ``ambiguity`` (float): share of the odds that is hidden, 0 to 1
- ``reference_amount`` (float): what the reference may pay, above 0
- ``reference_probability`` (float): how likely; 1 if it is sure

Its parameters:

- ``alpha`` in (0, 2), logit link: attitude to risk; below 1 is aversion
- ``beta``, real: attitude to ambiguity; above 0 is aversion; 1 takes the lowest of the possible odds for true
- ``gamma`` above 0, log link: inverse temperature, per unit of amount^alpha

References
----------
Levy, I., Snell, J., Nelson, A. J., Rustichini, A., & Glimcher, P. W. (2010). Neural representation of subjective value
under risk and ambiguity. Journal of Neurophysiology, 103, 1036-1047. https://doi.org/10.1152/jn.00853.2009
"""

from __future__ import annotations

import numpy as np
import pymc as pm

import em_ppl as em

__all__ = ["risk_ambiguity", "task"]


@em.subject_model(alpha=em.Interval(0.0, 2.0), beta=em.Real(), gamma=em.Positive())
def risk_ambiguity(alpha, beta, gamma, choice, amount, probability, ambiguity, reference_amount, reference_probability):
    """One subject's choices between a lottery and the reference."""
    lottery = (probability - beta * ambiguity / 2) * amount**alpha
    reference = reference_probability * reference_amount**alpha
    pm.Bernoulli("choice", logit_p=gamma * (lottery - reference), observed=choice)


def task(n_repeats: int = 6, *, reference_probability: float = 0.5) -> em.Task:
    """Make 30 lotteries like those of Levy et al. (2010): three odds, three ambiguities, five amounts.

    Parameters
    ----------
    n_repeats : int
        How often each lottery comes.
    reference_probability : float
        How likely the reference pays; 1 if it is sure.

    Returns
    -------
    Task
        With all columns but choice; amounts are in units of the reference.

    Examples
    --------
    >>> import em_ppl as em
    >>> group = {"alpha": (-0.3, 0.5), "beta": (0.4, 0.4), "gamma": (1.0, 0.4)}
    >>> people = em.draw_subjects(risk_ambiguity, group, 2, random_seed=1)
    >>> em.simulate(risk_ambiguity, people, task(1), random_seed=1, progressbar=False).choice.shape
    (2, 30)
    """
    odds = [(0.13, 0.0), (0.25, 0.0), (0.38, 0.0), (0.5, 0.24), (0.5, 0.5), (0.5, 0.74)]
    amounts = [1.0, 1.9, 3.6, 6.8, 13.0]
    probability, ambiguity = np.repeat(odds, len(amounts), axis=0).T
    return em.Task(
        30 * n_repeats,
        amount=np.tile(amounts, 6 * n_repeats),
        probability=np.tile(probability, n_repeats),
        ambiguity=np.tile(ambiguity, n_repeats),
        reference_amount=1.0,
        reference_probability=reference_probability,
    )
