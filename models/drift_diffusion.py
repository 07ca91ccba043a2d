"""Drift diffusion: choices and response times of one process that gathers noisy evidence up to a boundary.

Task: on each trial a stimulus speaks for one of two responses, more or less strongly, as moving dots of some coherence
do. Evidence gathers as a Wiener process with drift ``v`` x ``stimulus``. It starts at the share ``z`` of the way from
the lower boundary to the upper one; these are ``a`` apart. The boundary that it reaches first is the choice, when it
does so, ``t0`` later, the response time. (`em_ppl.models.wiener` has the density of these times and draws them.)

Its units: seconds, and evidence of which the noise has SD 1 per square root of a second. Where papers take 0.1 as the
SD of the noise, their drift and their boundaries are a tenth of those here. The model is the plain one, the same on
every trial: it has no variability of drift, start or non-decision time between trials.

What the design identifies. A wide ``a`` and a small ``v`` both make slow responses. They differ by the errors, of which
there must be some. ``z`` and ``v`` come apart best where stimuli speak now for one, now for the other response, and
choices are coded by response. Coded as wrong and right, with a ``stimulus`` of 1 throughout, ``z`` is a head start for
being right.

No response is faster than ``t0``, so that one fast guess holds it down and bends all the rest. Leave out, as is usual,
responses faster than some 0.2 s: choice and time both missing. HDDM mixes a share of contaminants in instead. Here the
likelihood is that of the process alone, which one can look up. A response before ``t0``, such as a fit meets while it
searches, is not quite impossible but very unlikely, the more so the earlier it is.

Data, one row a trial:

- ``choice`` (int): 1 for the upper boundary, 0 for the lower
- ``rt`` (float): response time, seconds
- ``stimulus`` (float): its strength, above 0 where it speaks for the upper boundary; of the order of 1

Its parameters:

- ``v``, real: drift per unit of ``stimulus``: how well evidence is gathered
- ``a`` above 0, log link: distance of the boundaries: caution
- ``z`` in (0, 1), logit link: where the process starts, as a share of this distance; above 0.5 the upper is preferred
- ``t0`` above 0, log link: time for seeing and moving, seconds

References
----------
Ratcliff, R. (1978). A theory of memory retrieval. Psychological Review, 85, 59-108.
https://doi.org/10.1037/0033-295X.85.2.59

Palmer, J., Huk, A. C., & Shadlen, M. N. (2005). The effect of stimulus strength on the speed and accuracy of a
perceptual decision. Journal of Vision, 5(5), 1. https://doi.org/10.1167/5.5.1
"""

from __future__ import annotations

import pymc as pm
from numpy.typing import ArrayLike

import em_ppl as em

from . import wiener

__all__ = ["drift_diffusion", "task"]


@em.subject_model(v=em.Real(start=1.0), a=em.Positive(start=1.5), z=em.Unit(), t0=em.Positive(start=0.2))
def drift_diffusion(v, a, z, t0, choice, rt, stimulus):
    """One subject's choices and response times."""
    drift = v * stimulus
    pm.Bernoulli("choice", logit_p=wiener.log_odds(drift, a, z), observed=choice)
    # given the choice; the two together are the density of first passages
    pm.CustomDist("rt", choice, drift, a, z, t0, logp=wiener.log_density, random=wiener.draw, observed=rt)


def task(n_trials: int = 120, *, strengths: ArrayLike = (-1.0, -0.5, -0.25, 0.25, 0.5, 1.0)) -> em.Task:
    """Show stimuli of random strengths.

    Parameters
    ----------
    n_trials : int
        Trials of each subject.
    strengths : array_like
        Those that are shown; their sign says which response is right.

    Returns
    -------
    Task
        With the column stimulus.

    Examples
    --------
    >>> import em_ppl as em, pandas as pd
    >>> people = pd.DataFrame([{"v": 3.0, "a": 1.5, "z": 0.5, "t0": 0.3}], index=["ann"])
    >>> data = em.simulate(drift_diffusion, people, task(30), random_seed=1, progressbar=False)
    >>> data.rt.shape, bool((data.rt > 0.3).all())
    ((1, 30), True)
    """

    def stimulus(subject, rng):
        return rng.choice(strengths, size=subject.size)

    return em.Task(n_trials, stimulus=stimulus)
