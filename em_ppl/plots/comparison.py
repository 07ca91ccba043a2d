"""Which model: how frequent each is, whose it is, and by how much."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import scipy

from em_ppl.plots.style import EM, GROUP, legend_above, shown, tidy

if TYPE_CHECKING:
    from em_ppl.comparison import Comparison
    from em_ppl.frequencies import ModelFrequencies
    from em_ppl.mixture_result import Mixture

NAMED_SUBJECTS = 40  # more labels than this cannot be read


def plot_frequencies(found: ModelFrequencies | Mixture | Comparison) -> Any:
    """Draw how frequent each model is, and how probable that it is the most frequent.

    Parameters
    ----------
    found : ModelFrequencies, Mixture or Comparison
        What `model_frequencies`, `fit_mixture`, `fit_classes` or `compare` returned.

    Returns
    -------
    matplotlib.figure.Figure
        Left: posterior mean and 95 % interval of each model's frequency; the dashed line is 1 / K. Right: exceedance
        probability, and protected by the omnibus risk where there is one.

    Examples
    --------
    >>> import em_ppl as em
    >>> em.plot_frequencies(em.fit_mixture([one, two], data)).savefig("frequencies.png")  # doctest: +SKIP
    """
    from matplotlib.figure import Figure

    frequencies = _frequencies_of(found)
    counts = frequencies.counts
    place, k = np.arange(len(counts)), len(counts)
    figure = Figure(figsize=(7.6, 1.5 + 0.4 * k), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    share = scipy.stats.beta(counts, counts.sum() - counts)  # of a Dirichlet, each by itself
    low, high = share.ppf(0.025), share.ppf(0.975)
    left.barh(place, frequencies.frequency, color=EM, height=0.6)
    left.hlines(place, low, high, color="black", lw=1.2)
    left.axvline(1 / k, color="black", lw=0.8, ls="--")
    left.set(xlabel="frequency, 95 % interval", xlim=(0, 1), yticks=place, yticklabels=list(counts.index))
    left.invert_yaxis()
    right.barh(place, frequencies.exceedance, color="0.8", height=0.6, label="exceedance")
    if np.isfinite(frequencies.omnibus_risk):
        right.barh(place, frequencies.protected_exceedance, color=GROUP, height=0.3, label="protected")
    right.set(xlabel="probability to be the most frequent", xlim=(0, 1))
    for axes in (left, right):
        tidy(axes)
    legend_above(figure)
    return shown(figure)


def plot_attribution(found: ModelFrequencies | Mixture | Comparison) -> Any:
    """Draw each subject's probability of each model.

    Parameters
    ----------
    found : ModelFrequencies, Mixture or Comparison
        As for `plot_frequencies`.

    Returns
    -------
    matplotlib.figure.Figure
        One column a subject, ordered by its most probable model.

    Examples
    --------
    >>> import em_ppl as em
    >>> em.plot_attribution(em.fit_mixture([one, two], data)).savefig("attribution.png")  # doctest: +SKIP
    """
    from matplotlib.figure import Figure

    table = _frequencies_of(found).responsibility
    values = table.to_numpy()
    best = values.argmax(1)
    order = np.lexsort((-values.max(1), best))
    figure = Figure(figsize=(max(4.0, min(12.0, 1.5 + 0.13 * len(table))), 1.6 + 0.4 * len(table.columns)))
    figure.set_layout_engine("constrained")
    axes = figure.subplots()
    image = axes.imshow(values[order].T, cmap="Blues", vmin=0, vmax=1, aspect="auto", interpolation="nearest")
    axes.set_yticks(range(len(table.columns)), [str(name) for name in table.columns])
    if len(table) <= NAMED_SUBJECTS:
        axes.set_xticks(range(len(table)), [str(table.index[i]) for i in order], rotation=90, fontsize=7)
    else:
        axes.set_xticks([])
    axes.set_xlabel("subject")
    figure.colorbar(image, label="probability")
    return shown(figure)


def plot_evidence(comparison: Comparison) -> Any:
    """Draw, for every subject, how much more probable the best model makes its data than each other one.

    Parameters
    ----------
    comparison : Comparison
        What `em_ppl.compare` returned.

    Returns
    -------
    matplotlib.figure.Figure
        One panel for each model but the best: differences of log evidence (of log density, where subjects or responses
        were left out), ordered; to the right of 0 the best model is better. The dotted lines are 3: a Bayes factor of
        20.

    Examples
    --------
    >>> import em_ppl as em
    >>> em.plot_evidence(em.compare({"one": one, "two": two})).savefig("evidence.png")  # doctest: +SKIP
    """
    from matplotlib.figure import Figure

    column = comparison.by if comparison.by in comparison.subjects else "log_evidence"
    table = comparison.subjects[column].to_pandas()
    best, *others = comparison.table.index
    height = max(2.4, min(9.0, 1.2 + 0.11 * len(table)))
    figure = Figure(figsize=(1.2 + 3.0 * len(others), height), layout="constrained")
    for axes, name in zip(figure.subplots(1, len(others), squeeze=False)[0], others, strict=True):
        difference = (table[best] - table[name]).sort_values()
        colours = [EM if value > 0 else GROUP for value in difference]
        axes.barh(np.arange(len(difference)), difference, color=colours, height=0.8)
        axes.axvline(0, color="black", lw=0.8)
        for bayes_factor_20 in (-3, 3):
            axes.axvline(bayes_factor_20, color="black", lw=0.8, ls=":")
        axes.set_yticks([])
        if len(difference) <= NAMED_SUBJECTS:
            axes.set_yticks(np.arange(len(difference)), [str(label) for label in difference.index], fontsize=7)
        axes.set(xlabel=f"{best} - {name}", title=f"better for {(difference > 0).sum()} of {len(difference)}")
        tidy(axes)
    figure.axes[0].set_ylabel("subject")
    figure.suptitle(f"differences of {column.replace('_', ' ')}", fontsize=10)
    return shown(figure)


def _frequencies_of(found: ModelFrequencies | Mixture | Comparison) -> ModelFrequencies:
    own: Any = getattr(found, "frequencies", found)
    if not hasattr(own, "responsibility"):
        raise TypeError(f"{found!r} is no comparison, mixture or result of em.model_frequencies.")
    frequencies: ModelFrequencies = own
    return frequencies
