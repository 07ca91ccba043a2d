"""Linear regression with one predictor, every subject with a line and a residual SD of its own.

Task: any in which a number is measured again and again, beside a predictor. A mixed model with a random intercept, a
random slope and, unlike most, a random residual SD: y ~ Normal(``intercept`` + ``slope`` x, ``sigma``).

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

import pymc as pm

import em_ppl as em

__all__ = ["linear_regression", "task"]


@em.subject_model(intercept=em.Real(), slope=em.Real(), sigma=em.Positive())
def linear_regression(intercept, slope, sigma, x, y):
    """One subject's responses around a line."""
    pm.Normal("y", mu=intercept + slope * x, sigma=sigma, observed=y)


def task(n_trials: int = 30) -> em.Task:
    """Show every subject standard Normal predictors of its own.

    Parameters
    ----------
    n_trials : int
        Trials of each subject.

    Returns
    -------
    Task
        With the column x.

    Examples
    --------
    >>> import em_ppl as em
    >>> group = {"intercept": (0.0, 1.0), "slope": (2.0, 1.0), "sigma": (0.0, 0.3)}
    >>> people = em.draw_subjects(linear_regression, group, 2, random_seed=1)
    >>> em.simulate(linear_regression, people, task(20), random_seed=1, progressbar=False).y.shape
    (2, 20)
    """

    def x(subject, rng):
        return rng.normal(size=subject.size)

    return em.Task(n_trials, x=x)
