"""EM beside NUTS: a forest of intervals, drawn by ArviZ."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from em_ppl import compat
from em_ppl.plots.style import shown
from em_ppl.pymc_models import PyMCModel

if TYPE_CHECKING:
    from em_ppl.result import Fit


def plot_forest(fit: Fit, nuts: Any, *, var_names: Sequence[str] = ("group_mean", "group_sd")) -> Any:
    """Draw intervals of a fit and of NUTS side by side; what `arviz.plot_forest` draws, in one call on any ArviZ.

    Parameters
    ----------
    fit : Fit
        What `em_ppl.fit` returned.
    nuts : InferenceData or DataTree
        From `Fit.sample`, or `pymc.sample` in the hierarchical model.
    var_names : sequence of str
        Variables, as in ArviZ: of the group, ``"group_median"`` too; of the subjects a parameter, such as ``"alpha"``.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ValueError
        If there is no such variable.

    Examples
    --------
    >>> import em_ppl as em
    >>> em.plot_forest(fit, nuts, var_names=["group_median", "alpha"]).savefig("forest.png")  # doctest: +SKIP
    """
    theirs = compat.read_group(nuts, "posterior")
    if theirs is None:
        raise ValueError("nuts has no posterior.")
    # as many draws as theirs: ArviZ 1 leaves out a model that has fewer
    draws, chains = theirs.sizes["draw"], theirs.sizes["chain"]
    ours = fit.to_inference_data(draws=draws, chains=chains, log_likelihood=False)
    posterior = compat.read_group(ours, "posterior")
    for name in var_names:
        if posterior is None or name not in posterior or name not in theirs:
            raise ValueError(f"no variable {name!r} in both; nuts has {', '.join(map(str, theirs))}.")
    figure = compat.plot_forest({"EM": ours, "NUTS": nuts}, list(var_names))
    if isinstance(fit.model, PyMCModel):
        return shown(figure)
    natural = [name in fit.parameters or name == "group_median" for name in var_names]
    spaces = "natural space" if all(natural) else "Gaussian space"
    if any(natural) and not all(natural):
        own = [name for name, is_natural in zip(var_names, natural, strict=True) if is_natural]
        spaces = f"Gaussian space; natural space: {', '.join(own)}"
    figure.supxlabel(spaces, fontsize=9)
    return shown(figure)
