"""What was found against what was put in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import scipy

from em_ppl.plots.style import EM, GROUP, legend_above, shown, tidy

if TYPE_CHECKING:
    from em_ppl.confusion import Confusion
    from em_ppl.recovery import Recovery


def plot_recovery(recovery: Recovery) -> Any:
    """Draw every simulated subject's estimate against its truth.

    Parameters
    ----------
    recovery : Recovery
        What `em_ppl.recover` returned.

    Returns
    -------
    matplotlib.figure.Figure
        One panel a parameter, Gaussian space. On the dashed line the estimate is the truth; the solid one is the
        regression of the estimate on the truth, the flatter the more subjects are shrunk.

    Examples
    --------
    >>> import em_ppl as em
    >>> em.plot_recovery(recovery).savefig("recovery.png")  # doctest: +SKIP
    """
    from matplotlib.figure import Figure

    names, table = recovery.subjects["parameter"].values, recovery.summary()
    figure = Figure(figsize=(0.6 + 2.7 * len(names), 3.3), layout="constrained")
    for axes, name in zip(figure.subplots(1, len(names), squeeze=False)[0], names, strict=True):
        own = recovery.subjects.sel(parameter=name)
        truth, estimate = own["truth"].values.ravel(), own["estimate"].values.ravel()
        axes.plot(truth, estimate, ".", color=EM, alpha=max(0.15, min(0.7, 60 / len(truth))), mew=0, ms=6)
        ends = np.array([min(truth.min(), estimate.min()), max(truth.max(), estimate.max())])
        axes.plot(ends, ends, color="black", lw=0.8, ls="--", label="estimate = truth")
        line = scipy.stats.linregress(truth, estimate)
        axes.plot(ends, line.intercept + line.slope * ends, color=GROUP, lw=1.5, label="regression")
        axes.set(xlabel=f"{name}, truth", ylabel="estimate" if name == names[0] else "", xlim=ends, ylim=ends)
        axes.set_title(f"r = {table['correlation'][name]:.2f}", fontsize=10)
        axes.set_aspect("equal")
        tidy(axes)
    legend_above(figure)
    return shown(figure)


def plot_calibration(recovery: Recovery, *, probability: float = 0.95) -> Any:
    """Draw whether the truth's rank in the posterior is uniform, as it is if intervals cover as they say.

    Parameters
    ----------
    recovery : Recovery
        What `em_ppl.recover` returned.
    probability : float
        Of the band that holds the whole curve of as many independent uniform ranks (Kolmogorov). Subjects of one
        repetition share its group, so that their curves may leave it a little more often.

    Returns
    -------
    matplotlib.figure.Figure
        Cumulative share of ranks less that of uniform ones. A curve that is first above 0 and then below: posteriors
        are too narrow; first below, then above: too wide; all above: estimates too high; all below: too low.

    Examples
    --------
    >>> import em_ppl as em
    >>> em.plot_calibration(recovery).savefig("calibration.png")  # doctest: +SKIP
    """
    from matplotlib.figure import Figure

    panels = {"subjects": (recovery.subjects, "parameter"), "group": (recovery.group, "free")}
    figure = Figure(figsize=(8.4, 3.6), layout="constrained")
    grid = np.linspace(0, 1, 201)
    for axes, (title, (data, dim)) in zip(figure.subplots(1, 2), panels.items(), strict=True):
        n = data["rank"].sel({dim: data[dim].values[0]}).size
        width = scipy.stats.kstwo.ppf(probability, n)
        axes.axhspan(-width, width, color="0.9", lw=0)
        axes.axhline(0, color="black", lw=0.8, ls="--")
        for name in data[dim].values:
            ranks = np.sort(data["rank"].sel({dim: name}).values.ravel())
            share = np.searchsorted(ranks, grid, side="right") / n
            axes.plot(grid, share - grid, lw=1.3, label=str(name))
        axes.set(xlabel="rank of the truth", ylabel="share below - rank", title=f"{title} ({n} ranks each)")
        axes.legend(frameon=False, fontsize=8)
        tidy(axes)
    return shown(figure)


def plot_confusion(confusion: Confusion) -> Any:
    """Draw which model wins, by which model made the data.

    Parameters
    ----------
    confusion : Confusion
        What `em_ppl.confusion` returned.

    Returns
    -------
    matplotlib.figure.Figure
        Left: share of simulated studies. Right: share of subjects. Rows are the models that made the data.

    Examples
    --------
    >>> import em_ppl as em
    >>> em.plot_confusion(confusion).savefig("confusion.png")  # doctest: +SKIP
    """
    from matplotlib.figure import Figure

    names = confusion.models
    side = 1.6 + 0.75 * len(names)
    figure = Figure(figsize=(2 * side + 1, side + 0.4), layout="constrained")
    panels = {"studies, by iBIC": confusion.studies, "subjects, by evidence": confusion.subjects}
    for axes, (title, table) in zip(figure.subplots(1, 2), panels.items(), strict=True):
        axes.imshow(table.to_numpy(), cmap="Blues", vmin=0, vmax=1)
        for i, row in enumerate(table.to_numpy()):
            for j, share in enumerate(row):
                axes.text(j, i, f"{share:.2f}", ha="center", va="center", color="white" if share > 0.6 else "black")
        axes.set_xticks(range(len(names)), names, rotation=30, ha="right")
        axes.set_yticks(range(len(names)), names if title.startswith("studies") else [""] * len(names))
        axes.set(xlabel="best", title=title)
    figure.axes[0].set_ylabel("made the data")
    return shown(figure)
