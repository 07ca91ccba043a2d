"""Every subject beside the group."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import scipy

from em_ppl.plots.style import EM, GROUP, legend_above, shown, tidy

if TYPE_CHECKING:
    from em_ppl.result import Fit


def plot_subjects(fit: Fit, *, probability: float = 0.9) -> Any:
    """Draw every subject's parameters with intervals, sorted, beside the group they come from.

    Parameters
    ----------
    fit : Fit
        What `em_ppl.fit` returned.
    probability : float
        Of the subjects' intervals, from the Normal approximation of each posterior, and of the group's band.

    Returns
    -------
    matplotlib.figure.Figure
        One panel per parameter, natural space. On a parameter with bounds the intervals are skewed, as they should be.

    Raises
    ------
    ImportError
        If matplotlib is not installed.

    Examples
    --------
    >>> import em_ppl as em
    >>> em.plot_subjects(em.load("fit.nc")).savefig("subjects.png")  # doctest: +SKIP
    """
    from matplotlib.figure import Figure

    parameters = {name: fit.parameters[name] for name in fit.group.varying}
    n_panels, group = len(parameters), fit.group.plain
    figure = Figure(figsize=(2.1 + 2.6 * n_panels, 4.6), layout="constrained")
    z = scipy.stats.norm.ppf(0.5 + probability / 2)
    mean = fit.subjects["posterior_mean"].values
    sd = np.sqrt(np.diagonal(fit.subjects["posterior_covariance"].values, axis1=1, axis2=2))
    rank = np.arange(1, len(mean) + 1)
    # people differ by their covariates, too
    reach, centre = group.model.distribution.reach(probability), group.location.mean(0)
    band = reach * np.sqrt((group.sd[group.model.level] ** 2).mean(0) + group.location.var(0))
    for k, (name, parameter) in enumerate(parameters.items()):
        axes = figure.add_subplot(1, n_panels, k + 1)
        order = np.argsort(mean[:, k])
        low, middle, high = (parameter.to_natural(mean[order, k] + side * sd[order, k]) for side in (-z, 0, z))
        axes.axvspan(
            *parameter.to_natural([centre[k] - band[k], centre[k] + band[k]]), color=GROUP, alpha=0.15, lw=0,
            label=f"group, {probability:.0%} of people",
        )  # fmt: skip
        axes.axvline(float(parameter.to_natural(centre[k])), color=GROUP, lw=1.5, label="group median")
        axes.hlines(
            rank, low, high, color=EM, alpha=0.35, lw=min(2.0, 150 / len(mean)),
            label=f"subject, {probability:.0%} interval",
        )  # fmt: skip
        axes.plot(middle, rank, ".", color=EM, ms=min(6.0, 3 + 60 / len(mean)), label="subject, median")
        axes.set(xlabel=name, ylim=(0, len(mean) + 1))
        if parameter.link == "log" and middle.max() > 20 * middle.min():
            axes.set_xscale("log")
        if k == 0:
            axes.set_ylabel("subjects, sorted by each parameter")
        else:
            axes.set_yticklabels([])
        tidy(axes)
    legend_above(figure)
    return shown(figure)
