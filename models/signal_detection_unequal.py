"""Confidence ratings in noise: signal detection with unequal variances, the whole ROC of a subject.

Task: as in `signal_detection`, but the subject rates from 0 (surely noise) to 5 (surely a signal), as in recognition
memory (new or old). What it senses is Normal: noise has mean 0 and SD 1, the signal mean ``d`` and SD ``sigma``. Five
thresholds cut it into the six ratings. The lowest is ``threshold``, each further one lies one step above the last. In
recognition memory ``sigma`` is mostly about 1.25: the z-transformed ROC has slope 1 / ``sigma``, not 1.

Yes and no alone do not tell an unequal variance from another sensitivity; this takes ratings, of which a subject uses
at least three. Ratings on a finer scale are put into six first; for fewer, copy this file and drop some steps.

Data, one row a trial:

- ``signal`` (int): 1 for a signal (an old item), 0 for noise (a new one)
- ``rating`` (int): confidence that it was a signal, 0 to 5

Its parameters:

- ``d``, real: mean of the signal, in SDs of the noise; 0 is chance if ``sigma`` is 1
- ``sigma`` above 0, log link: SD of the signal, in SDs of the noise
- ``threshold``, real: between ratings 0 and 1, in SDs of the noise, from the mean of the noise
- ``step_1``, ``step_2``, ``step_3``, ``step_4`` above 0, log link: from each threshold to the next one

References
----------
Dorfman, D. D., & Alf, E. (1969). Maximum-likelihood estimation of parameters of signal-detection theory and
determination of confidence intervals: Rating-method data. Journal of Mathematical Psychology, 6, 487-496.
https://doi.org/10.1016/0022-2496(69)90019-4

Wixted, J. T. (2007). Dual-process theory and signal-detection theory of recognition memory. Psychological Review, 114,
152-176. https://doi.org/10.1037/0033-295X.114.1.152
"""

from __future__ import annotations

import pymc as pm
import pytensor.tensor as pt

import em_ppl as em

from .signal_detection import log_ndtr, task

__all__ = ["signal_detection_unequal", "task"]


@em.subject_model(
    d=em.Real(start=1.0),
    sigma=em.Positive(),
    threshold=em.Real(start=-1.0),
    step_1=em.Positive(start=0.5),
    step_2=em.Positive(start=0.5),
    step_3=em.Positive(start=0.5),
    step_4=em.Positive(start=0.5),
)
def signal_detection_unequal(d, sigma, threshold, step_1, step_2, step_3, step_4, signal, rating):
    """One subject's confidence that there was a signal."""
    thresholds = threshold + pt.cumsum(pt.stack([0.0, step_1, step_2, step_3, step_4]))
    log_p = pt.stack([log_between(thresholds), log_between((thresholds - d) / sigma)])  # of ratings: noise, signal
    pm.Categorical("rating", logit_p=log_p[signal], observed=rating)


def log_between(edges):
    """Log probabilities that a standard Normal falls below the first edge, between neighbours, above the last.

    The edges ascend along the last dimension; there is one probability more than edges.
    """
    below, above = log_ndtr(edges), log_ndtr(-edges)
    # a difference of two small numbers keeps its digits, that of two numbers near 1 does not: take the shorter tail
    right = edges[..., :-1] + edges[..., 1:] > 0
    larger = pt.switch(right, above[..., :-1], below[..., 1:])
    smaller = pt.switch(right, above[..., 1:], below[..., :-1])
    return pt.concatenate([below[..., :1], pm.math.logdiffexp(larger, smaller), above[..., -1:]], axis=-1)
