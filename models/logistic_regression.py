"""Logistic regression with one predictor, every subject with an intercept and a slope of its own.

Task: any with two possible responses, beside a predictor. A psychometric function, or a generalised linear mixed
model: P(y = 1) = sigmoid(``intercept`` + ``slope`` x).

Data, one row a trial:

- ``x`` (float): predictor; best centred
- ``y`` (int): response, 0 or 1

Its parameters:

- ``intercept``, real: log odds of y = 1 at x = 0
- ``slope``, real: change of the log odds per unit of x

References
----------
Breslow, N. E., & Clayton, D. G. (1993). Approximate inference in generalized linear mixed models. Journal of the
American Statistical Association, 88, 9-25. https://doi.org/10.1080/01621459.1993.10594284
"""

from __future__ import annotations

import pymc as pm

import em_ppl as em

from .linear_regression import task

__all__ = ["logistic_regression", "task"]


@em.subject_model(intercept=em.Real(), slope=em.Real())
def logistic_regression(intercept, slope, x, y):
    """One subject's answers, yes or no."""
    pm.Bernoulli("y", logit_p=intercept + slope * x, observed=y)
