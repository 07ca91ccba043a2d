"""Shrinkage: where each subject would be alone, where the group draws it, and where NUTS has it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from em_ppl.plots.style import ALONE, EM, GROUP, NUTS, legend_above, shown, tidy
from em_ppl.search import minimise
from em_ppl.translation import posterior_of

if TYPE_CHECKING:
    from em_ppl.result import Fit

FARTHEST = 4.0  # group SDs from the mean: a subject that alone would be farther out is drawn there, as an arrow


def plot_shrinkage(fit: Fit, nuts: Any = None) -> Any:
    """Draw how far the group draws each subject: its own maximum likelihood, its MAP by EM, and its mean by NUTS.

    Parameters
    ----------
    fit : Fit
        What `em_ppl.fit` returned.
    nuts : InferenceData or DataTree, optional
        From `Fit.sample`, or `pymc.sample` in the hierarchical model.

    Returns
    -------
    matplotlib.figure.Figure
        One panel per parameter, Gaussian space. An arrow marks a subject whose own estimate lies beyond the panel, or
        at a bound.

    Raises
    ------
    ValueError
        If the fit was loaded without its model, or `nuts` is of another one.

    Examples
    --------
    >>> import em_ppl as em
    >>> em.plot_shrinkage(fit, nuts).savefig("shrinkage.png")  # doctest: +SKIP
    """
    from matplotlib.figure import Figure

    names, group = fit.group.varying, fit.group.plain
    stages = {"alone (ML)": alone(fit), "EM-MAP": fit.subjects["mode"].values}
    if nuts is not None:
        means = posterior_of(fit, nuts)["gaussian"].mean(("chain", "draw")).sel(parameter=names)
        stages["NUTS mean"] = means.transpose("subject", "parameter").values
    figure = Figure(figsize=(1.2 + 2.8 * len(names), 4.2), layout="constrained")
    sd = np.sqrt((group.sd[group.model.level] ** 2).mean(0) + group.location.var(0))
    places = np.arange(len(stages))
    for k, (name, axes) in enumerate(zip(names, figure.subplots(1, len(names), squeeze=False)[0], strict=True)):
        centre = group.location[:, k].mean()
        values = np.array([stage[:, k] for stage in stages.values()])
        within = np.clip(values, centre - FARTHEST * sd[k], centre + FARTHEST * sd[k])
        axes.axhspan(centre - sd[k], centre + sd[k], color=GROUP, alpha=0.12, lw=0, label="group SD")
        axes.axhline(centre, color=GROUP, lw=1, label="group mean")
        axes.plot(places, within, "-", color=ALONE, lw=0.6, alpha=0.6)
        for place, color in zip(places, (ALONE, EM, NUTS), strict=False):
            inside = within[place] == values[place]
            axes.plot(np.full(inside.sum(), place), within[place][inside], "o", color=color, ms=3.5, mew=0)
            for beyond, marker in ((values[place] > within[place], "^"), (values[place] < within[place], "v")):
                axes.plot(np.full(beyond.sum(), place), within[place][beyond], marker, color=color, ms=5, mew=0)
        axes.set_xticks(places, list(stages))
        axes.set(xlim=(-0.3, len(stages) - 0.7), ylabel=f"{name}, Gaussian space")
        tidy(axes)
    legend_above(figure)
    return shown(figure)


def alone(fit: Fit) -> NDArray[np.float64]:
    """Every subject's own maximum likelihood, (subject, parameter), Gaussian space; as far as the search came.

    Shared parameters, covariates and the group's location are only where it begins, and what it is measured in.
    """
    compiled, group = fit.compiled, fit.group.plain
    varying, sd = group.model.varying, group.sd[group.model.level]

    def objective(z: Any, index: Any) -> Any:
        x = group.complete(group.location[index] + z * sd[index])
        value, gradient = compiled.value_and_gradient(x, index)
        return -value, -gradient[:, varying] * sd[index]

    start = (fit.subjects["mode"].values - group.location) / sd
    curvature = np.tile(np.eye(len(varying)), (len(start), 1, 1))
    found = minimise(objective, start, curvature, tolerance=1e-4, longest_step=3.0)
    return np.asarray(group.location + found.point * sd)
