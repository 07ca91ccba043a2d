"""Knowing that one knows: meta-d', the sensitivity that confidence in one's own answers shows.

Task: on each trial one of two stimuli is shown; the subject says which, then how sure it is, from 0 to 3. The answer
follows `signal_detection`, with sensitivity ``d`` and a ``criterion``. Confidence is that of an observer of another
sensitivity, meta-d' = ``m_ratio`` x ``d``, given the same answer: what this observer senses beyond its own criterion is
cut by three thresholds into four levels of confidence. Its criterion is ``m_ratio`` x ``criterion``, the same in units
of its sensitivity. An ``m_ratio`` of 1 means that confidence uses all that the answers use; below 1 some is lost.

The thresholds lie at the same distances from the criterion on either side, which halves their number; a subject who is
surer of one answer than of the other as such needs two sets. (HMeta-d leaves the criterion where it is, instead of
scaling it; it is the same where the criterion is 0.) Confidence on a finer scale is put into four levels first; for
fewer, copy this file and drop a step. Nothing tells ``m_ratio`` where ``d`` is near 0, and little where errors are
rare: the task should be neither a guess nor trivial.

Data, one row a trial:

- ``stimulus`` (int): which of the two, 0 or 1
- ``response`` (int): which the subject said, 0 or 1
- ``confidence`` (int): how sure it was, 0 to 3

Its parameters:

- ``d``, real: sensitivity of the answers, in SDs of what is sensed
- ``criterion``, real: response bias; above 0 the subject says 0 more readily
- ``m_ratio`` above 0, log link: metacognitive efficiency, meta-d' / d'
- ``step_1``, ``step_2``, ``step_3`` above 0, log link: from the criterion to the first threshold of confidence, and
  from each threshold to the next one

References
----------
Maniscalco, B., & Lau, H. (2012). A signal detection theoretic approach for estimating metacognitive sensitivity from
confidence ratings. Consciousness and Cognition, 21, 422-430. https://doi.org/10.1016/j.concog.2011.09.021

Fleming, S. M. (2017). HMeta-d: Hierarchical Bayesian estimation of metacognitive efficiency from confidence ratings.
Neuroscience of Consciousness, 2017, nix007. https://doi.org/10.1093/nc/nix007
"""

from __future__ import annotations

import numpy as np
import pymc as pm
import pytensor.tensor as pt

import em_ppl as em

from .signal_detection import log_ndtr
from .signal_detection_unequal import log_between

__all__ = ["meta_d", "task"]


@em.subject_model(
    d=em.Real(start=1.0),
    criterion=em.Real(),
    m_ratio=em.Positive(),
    step_1=em.Positive(start=0.5),
    step_2=em.Positive(start=0.5),
    step_3=em.Positive(start=0.5),
)
def meta_d(d, criterion, m_ratio, step_1, step_2, step_3, stimulus, response, confidence):
    """One subject's answers, and its confidence in each."""
    above = d * np.array([-0.5, 0.5]) - criterion  # mean of what either stimulus makes one sense, from the criterion
    pm.Bernoulli("response", logit_p=(log_ndtr(above) - log_ndtr(-above))[stimulus], observed=response)

    # the same for the observer of sensitivity meta-d', away from the criterion on the side of the answer
    beyond = m_ratio * pt.stack([-above, above], axis=1)  # (stimulus, response)
    thresholds = pt.cumsum(pt.stack([0.0, step_1, step_2, step_3]))
    log_p = log_between(thresholds - beyond[:, :, None])[:, :, 1:]  # on that side alone; Categorical makes their sum 1
    pm.Categorical("confidence", logit_p=log_p[stimulus, response], observed=confidence)


def task(n_trials: int = 200) -> em.Task:
    """Show the two stimuli equally often, at random.

    Parameters
    ----------
    n_trials : int
        Trials of each subject.

    Returns
    -------
    Task
        With the column stimulus.

    Examples
    --------
    >>> import em_ppl as em, pandas as pd
    >>> ann = {"d": 1.5, "criterion": 0.1, "m_ratio": 0.8, "step_1": 0.5, "step_2": 0.5, "step_3": 0.5}
    >>> people = pd.DataFrame([ann], index=["ann"])
    >>> em.simulate(meta_d, people, task(50), random_seed=1, progressbar=False).confidence.shape
    (1, 50)
    """

    def stimulus(subject, rng):
        return rng.integers(0, 2, size=subject.size)

    return em.Task(n_trials, stimulus=stimulus)
