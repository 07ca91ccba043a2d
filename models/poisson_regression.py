"""Poisson regression with one predictor, every subject with an intercept and a slope of its own.

Task: on each trial something is counted: errors, spikes, seizures, button presses. A generalised linear mixed model
with a log link: y ~ Poisson(exp(``intercept`` + ``slope`` x)).

Counts that vary more than a Poisson's (their variance above their mean, given x) leave standard errors too small.

Data, one row a trial:

- ``x`` (float): predictor; best centred
- ``y`` (int): count, 0 or more

Its parameters:

- ``intercept``, real: log of the expected count at x = 0
- ``slope``, real: change of the log of the expected count per unit of x

References
----------
Breslow, N. E., & Clayton, D. G. (1993). Approximate inference in generalized linear mixed models. Journal of the
American Statistical Association, 88, 9-25. https://doi.org/10.1080/01621459.1993.10594284
"""

from __future__ import annotations

import pymc as pm
import pytensor.tensor as pt

import em_ppl as em

from .linear_regression import task

__all__ = ["poisson_regression", "task"]


@em.subject_model(intercept=em.Real(), slope=em.Real())
def poisson_regression(intercept, slope, x, y):
    """One subject's counts."""
    pm.Poisson("y", mu=pt.exp(intercept + slope * x), observed=y)
