"""Psychometric function with lapses: how often the right one of two alternatives is found.

Task: on each trial one of two alternatives holds a stimulus of some ``intensity``; the subject says which. It sees the
stimulus with probability F = sigmoid(``slope`` (``intensity`` - ``threshold``)). Where it does not it guesses, and is
right half of the time; where it does it still errs with probability ``lapse``:
P(correct) = 0.5 (1 - F) + (1 - ``lapse``) F = 0.5 + (0.5 - ``lapse``) F.

Only intensities at which the stimulus is always seen tell lapses from a flat slope. Without a ``lapse`` a few slips on
these easy trials would flatten the slope and shift the threshold.

Data, one row a trial:

- ``intensity`` (float): of the stimulus; best as a logarithm, and of the order of 1
- ``correct`` (int): 1 where the answer was right, else 0

Its parameters:

- ``threshold``, real: intensity at which the stimulus is seen half of the time (without lapses: 75 % correct)
- ``slope`` above 0, log link: change of the log odds of seeing per unit of intensity
- ``lapse`` in (0, 0.2), logit link: how often what was seen is answered wrongly

References
----------
Wichmann, F. A., & Hill, N. J. (2001). The psychometric function: I. Fitting, sampling, and goodness of fit. Perception
& Psychophysics, 63, 1293-1313. https://doi.org/10.3758/BF03194544
"""

from __future__ import annotations

import numpy as np
import pymc as pm
import pytensor.tensor as pt
from numpy.typing import ArrayLike

import em_ppl as em

__all__ = ["psychometric", "task"]

GUESS = 0.5  # how often a guess is right


@em.subject_model(threshold=em.Real(), slope=em.Positive(start=2.0), lapse=em.Interval(0.0, 0.2, start=0.05))
def psychometric(threshold, slope, lapse, intensity, correct):
    """One subject's answers, right or wrong."""
    z = slope * (intensity - threshold)
    seen, unseen = pt.sigmoid(z), pt.sigmoid(-z)
    right, wrong = GUESS * unseen + (1 - lapse) * seen, (1 - GUESS) * unseen + lapse * seen
    pm.Bernoulli("correct", logit_p=pt.log(right) - pt.log(wrong), observed=correct)


def task(n_repeats: int = 30, *, intensities: ArrayLike = (-2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0, 3.0)) -> em.Task:
    """Show some intensities over and over: the method of constant stimuli.

    Parameters
    ----------
    n_repeats : int
        How often each intensity comes.
    intensities : array_like
        They should reach from where stimuli are never seen to where they always are.

    Returns
    -------
    Task
        With the column intensity.

    Examples
    --------
    >>> import em_ppl as em
    >>> group = {"threshold": (0.0, 0.5), "slope": (1.0, 0.4), "lapse": (-1.5, 1.0)}
    >>> people = em.draw_subjects(psychometric, group, 2, random_seed=1)
    >>> em.simulate(psychometric, people, task(5), random_seed=1, progressbar=False).correct.shape
    (2, 40)
    """
    shown = np.tile(np.asarray(intensities, dtype=float), n_repeats)
    return em.Task(shown.size, intensity=shown)
