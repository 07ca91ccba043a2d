"""One subject's posterior: the approximation that EM works with, over the draws of NUTS."""

from __future__ import annotations

from collections.abc import Hashable
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy

from em_ppl.data import label_text
from em_ppl.plots.style import EM, NUTS, legend_above, shown, tidy
from em_ppl.translation import posterior_of

if TYPE_CHECKING:
    from em_ppl.result import Fit

CIRCLE = np.linspace(0.0, 2 * np.pi, 200)


def plot_posterior(fit: Fit, nuts: Any, *, subject: Hashable, probability: float = 0.9) -> Any:
    """Draw the Normal approximation of one subject's posterior over the draws of NUTS, for each pair of parameters.

    Parameters
    ----------
    fit : Fit
        What `em_ppl.fit` returned.
    nuts : InferenceData or DataTree
        From `Fit.sample`, or `pymc.sample` in the hierarchical model.
    subject : label
        Whose.
    probability : float
        That the outer ellipse is to hold; the inner one holds half.

    Returns
    -------
    matplotlib.figure.Figure
        Gaussian space. On the diagonal the densities of single parameters.

    Raises
    ------
    ValueError
        If there is no such subject, or `nuts` is of another model.

    Examples
    --------
    >>> import em_ppl as em
    >>> em.plot_posterior(fit, nuts, subject="ann").savefig("ann.png")  # doctest: +SKIP
    """
    from matplotlib.figure import Figure

    labels = list(fit.subjects["subject"].values)
    if subject not in labels:
        raise ValueError(f"no subject {label_text(subject)}; the first is {label_text(labels[0])}.")
    names = fit.group.varying
    theirs = posterior_of(fit, nuts)["gaussian"].isel(subject=labels.index(subject)).sel(parameter=names)
    drawn = theirs.transpose("parameter", "chain", "draw").values.reshape(len(names), -1)
    own = fit.subjects.isel(subject=labels.index(subject))
    mean, covariance = own["posterior_mean"].values, own["posterior_covariance"].values

    figure = Figure(figsize=(1.2 + 2.2 * len(names), 0.8 + 2.0 * len(names)), layout="constrained")
    panels = figure.subplots(len(names), len(names), squeeze=False)
    for i, row in enumerate(panels):
        for j, axes in enumerate(row):
            if j > i:
                axes.set_axis_off()
            elif i == j:
                _draw_density(
                    axes, drawn[i], mean[i], np.sqrt(covariance[i, i]), label="EM" if len(names) == 1 else None
                )
            else:
                _draw_pair(axes, drawn[[j, i]], mean[[j, i]], covariance[np.ix_([j, i], [j, i])], probability)
            if i == len(names) - 1:
                axes.set_xlabel(f"{names[j]}, Gaussian space")
            if j == 0 and i > 0:
                axes.set_ylabel(f"{names[i]}, Gaussian space")
            tidy(axes)
    panels[0][0].set_title(f"subject {label_text(subject)}", fontsize=10, loc="left")
    legend_above(figure)
    return shown(figure)


def _draw_density(axes: Any, draws: Any, mean: float, sd: float, label: str | None) -> None:
    axes.hist(draws, bins=40, density=True, color=NUTS, alpha=0.35, label="NUTS")
    x = np.linspace(mean - 4 * sd, mean + 4 * sd, 200)
    axes.plot(x, scipy.stats.norm(mean, sd).pdf(x), color=EM, label=label)
    axes.set_yticks([])
    axes.set_ylim(bottom=0)


def _draw_pair(axes: Any, draws: Any, mean: Any, covariance: Any, probability: float) -> None:
    axes.plot(*draws, ".", color=NUTS, ms=2.5, alpha=0.4, mew=0, label="NUTS")
    unit = np.linalg.cholesky(covariance) @ np.stack([np.cos(CIRCLE), np.sin(CIRCLE)])
    for p, style in ((0.5, "--"), (probability, "-")):
        axes.plot(*(mean[:, None] + np.sqrt(scipy.stats.chi2.ppf(p, 2)) * unit), style, color=EM, label=f"EM, {p:.0%}")
    axes.plot(*mean, "+", color=EM, ms=9)
