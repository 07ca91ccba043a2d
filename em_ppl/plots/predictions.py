"""Posterior predictive check: responses as the fit would draw them, beside those that were given."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from em_ppl.data import widen
from em_ppl.plots.style import EM, legend_above, shown, tidy
from em_ppl.predictions import refuse_pymc_model

if TYPE_CHECKING:
    from em_ppl.result import Fit
    from em_ppl.tasks import Task

DRAWS = 200
BINS = 20  # of trials, if there are more
MOST_OPTIONS = 6  # whole numbers up to so many values are taken for options, each with its own share


def plot_predictions(
    fit: Fit,
    idata: Any = None,
    *,
    task: Task | None = None,
    var_name: str | None = None,
    probability: float = 0.9,
    random_seed: int = 0,
) -> Any:
    """Draw observed responses over predicted ones: on average trial by trial, and for every subject.

    Parameters
    ----------
    fit : Fit
        What `em_ppl.fit` returned.
    idata : InferenceData or DataTree, optional
        Draws of the posterior, such as those of `Fit.sample`; left out, of the fit.
    task : Task, optional
        Left out, each response is predicted one step ahead, after the subject's own history: a learner that copies
        itself looks well. With the task that the data come from, subjects live through it again, free-running.
    var_name : str, optional
        The observed variable; the first, if left out.
    probability : float
        Of the predictive bands and intervals.
    random_seed : int
        Of the draws.

    Returns
    -------
    matplotlib.figure.Figure
        Left: mean response over subjects, by trial. Right: each subject's mean response, predicted against observed.
        Of a choice between more than two options each option's share, one row of panels each.

    Raises
    ------
    ValueError
        If the fit was loaded without its model, is of a PyMC model, there is no such observed variable, or the task has
        another number of trials than the data.

    Examples
    --------
    >>> import em_ppl as em
    >>> em.plot_predictions(fit).savefig("predictions.png")  # doctest: +SKIP
    """
    from matplotlib.figure import Figure

    refuse_pymc_model(fit)
    name = fit.settings["observed"][0] if var_name is None else var_name
    if name not in fit.settings["observed"]:
        raise ValueError(f"no observed variable {name!r}; the fit has {', '.join(fit.settings['observed'])}.")
    predicted = fit.predict(idata, draws=DRAWS, task=task, random_seed=random_seed, progressbar=False)[name].values
    values, present = fit.data[name].values.astype(float), fit.compiled.subjects.present[name]
    observed = np.where(widen(present, values.ndim), values, np.nan)
    if predicted.shape[1:] != observed.shape:
        raise ValueError(f"the task has {predicted.shape[2]} trials, the data have {observed.shape[1]}.")
    if observed.ndim == 1:  # one response a subject
        observed, predicted = observed[:, None], predicted[..., None]
    series = _series(name, observed, predicted)
    figure = Figure(figsize=(7.8, 0.5 + 3.1 * len(series)), layout="constrained")
    for row, (label, (given, drawn)) in zip(
        figure.subplots(len(series), 2, squeeze=False), series.items(), strict=True
    ):
        _by_trial(row[0], label, given, drawn, probability)
        _by_subject(row[1], label, given, drawn, probability)
    legend_above(figure)
    return shown(figure)


def _series(
    name: str, observed: NDArray[np.float64], predicted: NDArray[np.float64]
) -> dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """Return what is averaged: the response itself, or the share of each of its options, or each of its parts."""
    if observed.ndim > 2:
        parts = range(observed.shape[2])
        return {f"{name}, part {k}": (observed[:, :, k], predicted[..., k]) for k in parts}
    options = np.unique(observed[~np.isnan(observed)])
    if (options % 1).any() or not 2 < len(options) <= MOST_OPTIONS:
        return {f"mean {name}": (observed, predicted)}

    def share(values: NDArray[np.float64], option: float) -> NDArray[np.float64]:
        return np.where(np.isnan(values), np.nan, values == option)

    return {
        f"share of {name} = {option:.0f}": (share(observed, option), share(predicted, option)) for option in options
    }


def _by_trial(axes: Any, label: str, given: Any, drawn: Any, probability: float) -> None:
    edges = np.unique(np.linspace(0, given.shape[1], min(BINS, given.shape[1]) + 1).astype(int))
    bins = [slice(a, b) for a, b in pairwise(edges)]
    middle = [(b.start + b.stop + 1) / 2 for b in bins]
    mean = np.array([np.nanmean(given[:, b]) for b in bins])
    means = np.array([np.nanmean(drawn[:, :, b], axis=(1, 2)) for b in bins])
    low, high = np.quantile(means, [(1 - probability) / 2, (1 + probability) / 2], axis=1)
    axes.fill_between(middle, low, high, color=EM, alpha=0.25, lw=0, label=f"predicted, {probability:.0%}")
    axes.plot(middle, means.mean(1), "-", color=EM, lw=1, label="predicted, mean")
    axes.plot(middle, mean, "o", color="black", ms=3, label="observed")
    axes.set(xlabel="trial", ylabel=f"{label}, all subjects")
    tidy(axes)


def _by_subject(axes: Any, label: str, given: Any, drawn: Any, probability: float) -> None:
    mean, means = np.nanmean(given, axis=1), np.nanmean(drawn, axis=2)
    low, high = np.quantile(means, [(1 - probability) / 2, (1 + probability) / 2], axis=0)
    axes.vlines(mean, low, high, color=EM, alpha=0.4, lw=1.2)
    axes.plot(mean, means.mean(0), "o", color=EM, ms=3.5, mew=0)
    ends = [min(mean.min(), low.min()), max(mean.max(), high.max())]
    axes.plot(ends, ends, color="black", lw=0.8, ls="--")
    axes.set(xlabel=f"{label}, observed", ylabel="predicted, subject by subject")
    tidy(axes)
