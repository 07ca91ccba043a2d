"""How EM went."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from em_ppl.plots.style import EM, shown, tidy

if TYPE_CHECKING:
    from em_ppl.result import Fit


def plot_convergence(fit: Fit) -> Any:
    """Draw the change of the group and the log evidence, iteration by iteration.

    Parameters
    ----------
    fit : Fit
        What `em_ppl.fit` returned.

    Returns
    -------
    matplotlib.figure.Figure
        Left the change on a log scale, with the tolerance; right how much log evidence is still to come.

    Examples
    --------
    >>> import em_ppl as em
    >>> em.plot_convergence(em.load("fit.nc")).savefig("convergence.png")  # doctest: +SKIP
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(7.6, 3.2), layout="constrained")
    iteration, tol = fit.history["iteration"].values, fit.settings["tol"]
    left, right = figure.subplots(1, 2)
    left.semilogy(iteration, np.maximum(fit.history["change"].values, 1e-16), "o-", color=EM, ms=3.5)
    left.axhline(tol, color="black", lw=0.8, ls="--")
    left.annotate(f"tol = {tol:g}", (iteration[0], tol), xytext=(0, 3), textcoords="offset points", fontsize=8)
    left.set(xlabel="iteration", ylabel="change of the group")
    right.plot(iteration, fit.history["log_evidence"].values, "o-", color=EM, ms=3.5)
    right.set(xlabel="iteration", ylabel="log evidence")
    right.ticklabel_format(useOffset=False)
    for axes in (left, right):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        tidy(axes)
    return shown(figure)
