"""Logistic regression with one predictor, every subject with an intercept and a slope of its own.

A psychometric function, or a generalised linear mixed model: P(y = 1) = sigmoid(``intercept`` + ``slope`` x).

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

import numpy as np
import pandas as pd
import pymc as pm
import xarray as xr
from scipy.special import expit

import em_ppl as em

__all__ = ["logistic_regression", "simulate"]


@em.subject_model(intercept=em.Real(), slope=em.Real())
def logistic_regression(intercept, slope, x, y):
    """One subject's answers, yes or no."""
    pm.Bernoulli("y", logit_p=intercept + slope * x, observed=y)


def simulate(subjects: pd.DataFrame, *, n_trials: int = 60, random_seed: int | None = None) -> xr.Dataset:
    """Draw answers to standard Normal predictors.

    Parameters
    ----------
    subjects : DataFrame
        Columns intercept and slope; the index labels the subjects.
    n_trials : int
        Trials of each subject.
    random_seed : int, optional
        Equal seeds give equal data.

    Returns
    -------
    Dataset
        x, y and y_probability, the probability that the answer given had; (subject, trial).

    Examples
    --------
    >>> import pandas as pd
    >>> people = pd.DataFrame({"intercept": [0.0, 0.5], "slope": [2.0, 1.0]}, index=["ann", "bo"])
    >>> data = simulate(people, n_trials=20, random_seed=1)
    >>> data.y.shape
    (2, 20)
    """
    rng = np.random.default_rng(random_seed)
    people = {}
    for label, intercept, slope in subjects[["intercept", "slope"]].itertuples(name=None):
        x = rng.normal(size=n_trials)
        p = expit(intercept + slope * x)
        y = (rng.random(n_trials) < p).astype(int)
        people[label] = {"x": x, "y": y, "y_probability": np.where(y == 1, p, 1 - p)}
    return em.from_subjects(people)
