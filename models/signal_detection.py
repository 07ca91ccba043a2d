"""Yes or no in noise: signal detection with equal variances, sensitivity d' and a criterion.

Task: on each trial there is a signal or only noise, and the subject says yes or no. What it senses is Normal with SD 1,
its mean ``d`` / 2 on signal trials and -``d`` / 2 on noise trials. It says yes where this exceeds the ``criterion``:
P(yes | signal) = Phi(``d`` / 2 - ``criterion``), P(yes | noise) = Phi(-``d`` / 2 - ``criterion``), Phi being the
standard Normal distribution function.

For one subject alone the most likely values are d' = z(H) - z(F) and c = -(z(H) + z(F)) / 2, from the hit rate H and
the false-alarm rate F. These are infinite where a rate is 0 or 1; with a group around the subject none ever is.

Data, one row a trial:

- ``signal`` (int): 1 for a signal, 0 for noise
- ``response`` (int): 1 for yes, 0 for no

Its parameters:

- ``d``, real: sensitivity, in SDs of the noise; 0 is chance
- ``criterion``, real: response bias, in SDs of the noise; above 0 no is said more readily, below 0 yes

References
----------
Stanislaw, H., & Todorov, N. (1999). Calculation of signal detection theory measures. Behavior Research Methods,
Instruments, & Computers, 31, 137-149. https://doi.org/10.3758/BF03207704

DeCarlo, L. T. (1998). Signal detection theory and generalized linear models. Psychological Methods, 3, 186-205.
https://doi.org/10.1037/1082-989X.3.2.186
"""

from __future__ import annotations

import numpy as np
import pymc as pm
import pytensor.tensor as pt

import em_ppl as em

__all__ = ["signal_detection", "task"]


@em.subject_model(d=em.Real(start=1.0), criterion=em.Real())
def signal_detection(d, criterion, signal, response):
    """One subject's answers whether there was a signal."""
    above = d * (signal - 0.5) - criterion  # by how much the mean of what is sensed exceeds the criterion
    pm.Bernoulli("response", logit_p=log_ndtr(above) - log_ndtr(-above), observed=response)


def log_ndtr(z):
    """Log of the standard Normal distribution function, with all its digits and a finite slope however far out.

    Each branch sees only such z as it is meant for: the slope of the other one may be infinite.
    """
    low, high = pt.minimum(z, -1.0), pt.maximum(z, -1.0)
    tail = pt.log(0.5 * pt.erfcx(-low / np.sqrt(2.0))) - 0.5 * low**2
    return pt.switch(z < -1.0, tail, pt.log1p(-0.5 * pt.erfc(high / np.sqrt(2.0))))


def task(n_trials: int = 200) -> em.Task:
    """Show a signal on half of the trials, at random.

    Parameters
    ----------
    n_trials : int
        Trials of each subject.

    Returns
    -------
    Task
        With the column signal.

    Examples
    --------
    >>> import em_ppl as em
    >>> people = em.draw_subjects(signal_detection, {"d": (1.5, 0.5), "criterion": (0.2, 0.4)}, 2, random_seed=1)
    >>> em.simulate(signal_detection, people, task(50), random_seed=1, progressbar=False).response.shape
    (2, 50)
    """

    def signal(subject, rng):
        return rng.integers(0, 2, size=subject.size)

    return em.Task(n_trials, signal=signal)
