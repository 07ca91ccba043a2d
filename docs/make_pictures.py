"""The picture on the first page, docs/em_and_nuts.png: one study fitted by EM and sampled by NUTS, and what each took.

    python docs/make_pictures.py

40 simulated learners, 200 trials each. Both clocks run from the call to the answer, compiling included, on two cores;
NUTS begins where the fit ended, which spares it half of its tuning.
"""

from __future__ import annotations

import time
import warnings
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np

import em_ppl as em
from em_ppl.models.rescorla_wagner import rescorla_wagner, task

EM, NUTS = "#30618c", "#d1702a"
QUANTILES = (0.05, 0.5, 0.95)


def timed(call: Any, **settings: Any) -> tuple[Any, float]:
    """Return what a call returns, and its seconds."""
    started = time.perf_counter()
    return call(**settings), time.perf_counter() - started


def main() -> None:
    """Simulate, fit, sample, draw."""
    warnings.simplefilter("ignore", em.ConvergenceWarning)
    group = {"alpha": (-0.5, 1.0), "beta": (1.2, 0.5)}
    people = em.draw_subjects(rescorla_wagner, group, 40, random_seed=1)
    data = em.simulate(rescorla_wagner, people, task(200), random_seed=1, progressbar=False)
    fit, em_seconds = timed(em.fit, model=rescorla_wagner, data=data, estimator="exact", cores=2, progressbar=False)
    nuts, nuts_seconds = timed(fit.sample, draws=1000, chains=4, cores=2, log_likelihood=False, progressbar=False)
    print(fit, em.agreement(fit, nuts), f"EM {em_seconds:.1f} s, NUTS {nuts_seconds:.0f} s", sep="\n\n")
    draws = {"EM": fit.to_inference_data(draws=1000, chains=4, log_likelihood=False), "NUTS": nuts}
    figure, axes = plt.subplots(1, 3, figsize=(8, 4.1), width_ratios=(1, 1.6, 1.6), layout="constrained")
    own = draws["EM"]["posterior"]
    for shift, colour, (name, idata) in zip((-0.16, 0.16), (EM, NUTS), draws.items(), strict=True):
        posterior = idata["posterior"]
        numbers = [posterior[v].sel(parameter=p) for v in ("group_mean", "group_sd") for p in ("alpha", "beta")]
        intervals(axes[0], [number.values.ravel() for number in numbers], shift, colour)
        for axis, parameter in zip(axes[1:], ("alpha", "beta"), strict=True):
            order = own[parameter].median(("chain", "draw")).argsort().values
            each = posterior[parameter].transpose("subject", ...).values.reshape(len(people), -1)
            intervals(axis, each[order], shift, colour, size=2.6)
        seconds = f"{em_seconds:.1f}" if name == "EM" else f"{nuts_seconds:.0f}"
        axes[1].plot([], [], "o-", color=colour, label=f"{name}: {seconds} seconds", markersize=4)
    axes[0].set_yticks(range(4), ["mean\nalpha", "mean\nbeta", "SD\nalpha", "SD\nbeta"])
    axes[0].invert_yaxis()
    axes[0].set_title("the group", fontsize=10)
    axes[0].set_xlabel("Gaussian space")
    for axis, parameter in zip(axes[1:], ("alpha", "beta"), strict=True):
        axis.set_title(f"40 people: {parameter}", fontsize=10)
        axis.set_xlabel("learning rate" if parameter == "alpha" else "inverse temperature")
        axis.set_yticks([])
    figure.legend(*axes[1].get_legend_handles_labels(), loc="outside upper center", ncols=2, frameon=False, fontsize=12)
    figure.savefig(Path(__file__).with_name("em_and_nuts.png"), dpi=150)


def intervals(axis: plt.Axes, draws: Any, shift: float, colour: str, size: float = 5) -> None:
    """Median and 90 % interval of each row, from below upwards or, for the group, from above downwards."""
    low, middle, high = np.quantile(np.asarray(draws), QUANTILES, axis=1)
    y = np.arange(len(middle)) + shift
    axis.hlines(y, low, high, color=colour, linewidth=size / 3)
    axis.plot(middle, y, "o", color=colour, markersize=size)


if __name__ == "__main__":
    plt.rcParams.update(
        {"axes.spines.top": False, "axes.spines.right": False, "savefig.facecolor": "white", "font.size": 9}
    )
    main()
