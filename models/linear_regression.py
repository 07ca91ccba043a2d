"""Linear regression with one predictor, every subject with a line and a residual SD of its own.

A mixed model with a random intercept, a random slope and, unlike most, a random residual SD:
y ~ Normal(``intercept`` + ``slope`` x, ``sigma``).

Data, one row a trial:

- ``x`` (float): predictor; best centred
- ``y`` (float): response

Its parameters:

- ``intercept``, real: expected response at x = 0
- ``slope``, real: change of y per unit of x
- ``sigma`` above 0, log link: SD of the residuals

References
----------
Laird, N. M., & Ware, J. H. (1982). Random-effects models for longitudinal data. Biometrics, 38, 963-974.
https://doi.org/10.2307/2529876
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import pymc as pm
import xarray as xr

import em_ppl as em

__all__ = ["linear_regression", "simulate"]


@em.subject_model(intercept=em.Real(), slope=em.Real(), sigma=em.Positive())
def linear_regression(intercept, slope, sigma, x, y):
    """One subject's responses around a line."""
    pm.Normal("y", mu=intercept + slope * x, sigma=sigma, observed=y)


def simulate(subjects: pd.DataFrame, *, n_trials: int = 30, random_seed: int | None = None) -> xr.Dataset:
    """Draw responses to standard Normal predictors.

    Parameters
    ----------
    subjects : DataFrame
        Columns intercept, slope and sigma, natural space; the index labels the subjects.
    n_trials : int
        Trials of each subject.
    random_seed : int, optional
        Equal seeds give equal data.

    Returns
    -------
    Dataset
        x and y; (subject, trial).

    Examples
    --------
    >>> import pandas as pd
    >>> people = pd.DataFrame({"intercept": [0.0, 1.0], "slope": [2.0, -1.0], "sigma": [0.5, 1.0]})
    >>> data = simulate(people, n_trials=20, random_seed=1)
    >>> data.y.shape
    (2, 20)
    """
    rng = np.random.default_rng(random_seed)
    people = {}
    for label, intercept, slope, sigma in subjects[["intercept", "slope", "sigma"]].itertuples(name=None):
        x = rng.normal(size=n_trials)
        people[label] = {"x": x, "y": rng.normal(intercept + slope * x, sigma)}
    return em.from_subjects(people)
