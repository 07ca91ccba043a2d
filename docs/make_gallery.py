"""The pictures of the zoo, docs/zoo/<model>.png: what each parameter does, and whether a fit finds it again.

    python docs/make_gallery.py [MODEL ...]

Tasks and groups are those with which the tests recover every model (tests/zoo). Above, behaviour of simulated people
whose parameter is low and high, 1.5 SDs of the group from its mean, all other parameters at their means. Below, 60
people drawn from the group: true parameters and estimated ones.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.colors import to_rgb
from PIL import Image

import em_ppl as em

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "tests"))
from zoo import ALL_CASES, Case  # noqa: E402

LOW, HIGH, TRUE = "#30618c", "#d1702a", "#8c8c8c"
AWAY = 1.5  # SDs of the group
EACH = 80  # people of each kind
PER_ROW = 3


@dataclass(frozen=True)
class View:
    """What to look at: mean of ``y`` over ``x``, each made of the data; names for places of x; the SD of y, too."""

    x_label: str
    x: Callable[[xr.Dataset], np.ndarray]
    y_label: str
    y: Callable[[xr.Dataset], np.ndarray]
    names: tuple[str, ...] = ()
    spread: bool = False


def trial(data: xr.Dataset) -> np.ndarray:
    """Return the number of each trial, (trial,)."""
    return np.arange(data.sizes["trial"])


def after_change(every: int) -> Callable[[xr.Dataset], np.ndarray]:
    """Trials since the last change of what is better; NaN before the first."""
    return lambda data: np.where(trial(data) < every, np.nan, trial(data) % every + 1.0)


def good(column: str, every: int) -> Callable[[xr.Dataset], np.ndarray]:
    """Whether the better option was taken: 1 at first, then 0 and 1 in turn."""
    return lambda data: data[column].values == (trial(data) // every + 1) % 2


def column(name: str) -> Callable[[xr.Dataset], np.ndarray]:
    """Return a column as it is."""
    return lambda data: data[name].values


def bins(name: str, edges: np.ndarray) -> Callable[[xr.Dataset], np.ndarray]:
    """Middles of the bins of a column."""
    return lambda data: ((edges[1:] + edges[:-1]) / 2)[np.digitize(data[name].values, edges[1:-1])]


def rank(values: Callable[[xr.Dataset], np.ndarray]) -> Callable[[xr.Dataset], np.ndarray]:
    """Places of the distinct values, 0, 1, ..."""
    return lambda data: np.unique(values(data), return_inverse=True)[1].reshape(np.shape(values(data)))


def previous(values: np.ndarray) -> np.ndarray:
    """Values of the trial before; NaN at first."""
    return np.concatenate([np.full_like(values[:, :1], np.nan, dtype=float), values[:, :-1]], axis=1)


def stays(name: str) -> Callable[[xr.Dataset], np.ndarray]:
    """Whether the same is chosen as on the trial before."""
    return lambda data: (data[name].values == previous(data[name].values)).astype(float)


def reward_and_transition(data: xr.Dataset) -> np.ndarray:
    """0, 1: rewarded after a common, a rare transition; 2, 3: not rewarded."""
    rare = data["choice1"].values != data["state2"].values
    return previous(2.0 * (data["reward"].values < 0.5) + rare)


def reward_and_start(data: xr.Dataset) -> np.ndarray:
    """0, 1: paid well, here and from the other starting point; 2, 3: paid badly."""
    other = data["start"].values != previous(data["start"].values)
    return 2.0 * (previous(data["reward"].values) < 0.5) + other


def switches(data: xr.Dataset) -> np.ndarray:
    """Whether the arm changes; NaN at the start of a block."""
    return np.where(data["block_start"].values == 1, np.nan, 1 - stays("choice")(data))


def each(values: np.ndarray, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Turn values into (place, whether the value is there), whose means are shares."""
    one_hot = values[..., None] == np.arange(len(places))
    return np.broadcast_to(places, one_hot.shape), np.where(np.isnan(values)[..., None], np.nan, one_hot)


RT_EDGES = np.linspace(-1.8, 1.8, 25)


def signed_times(data: xr.Dataset) -> np.ndarray:
    """Bins of response times, below 0 for the lower boundary; of stimuli that speak for the upper one."""
    signed = np.where(data["choice"].values == 1, 1, -1) * data["rt"].values
    return np.where(data["stimulus"].values > 0, np.digitize(signed, RT_EDGES[1:-1]), np.nan)


def ratings(data: xr.Dataset) -> np.ndarray:
    """Ratings of signals."""
    return np.where(data["signal"].values == 1, data["rating"].values, np.nan)


SWAP = View("trials after a reversal", after_change(25), "better arm", good("choice", 25))
WAIT = View(
    "wait, days",
    rank(lambda data: data["delay_later"].values - data["delay_sooner"].values),
    "later amount",
    column("choice"),
    ("7", "30", "90", "180", "365"),
)
STAY = View(
    "last trial",
    reward_and_transition,
    "same first action",
    stays("choice1"),
    ("+\ncommon", "+\nrare", "-\ncommon", "-\nrare"),
)
EDGES = np.linspace(-2.2, 2.2, 12)
VIEWS = {
    "rescorla_wagner": SWAP,
    "rescorla_wagner_two_rates": SWAP,
    "rescorla_wagner_forgetting": SWAP,
    "rescorla_wagner_perseveration": SWAP,
    "pearce_hall": SWAP,
    "reversal_counterfactual": SWAP,
    "actor_critic": View("trial", lambda data: trial(data) // 16 * 16 + 8, "better picture", column("choice")),
    "kalman_bandit": View("trial of the block", lambda data: trial(data) % 10 + 1, "changes arms", switches),
    "two_step": STAY,
    "two_step_model_based": STAY,
    "two_step_model_free": STAY,
    "two_step_deterministic": View(
        "last trial: pay, and start",
        reward_and_start,
        "same spaceship",
        stays("choice"),
        ("+\nsame", "+\nother", "-\nsame", "-\nother"),
    ),
    "go_nogo_pavlovian": View(
        "cue", column("cue"), "go", column("go"), ("go\nwin", "go\navoid", "no-go\nwin", "no-go\navoid")
    ),
    "hgf_binary": View("trials after a change", after_change(20), "likelier outcome", good("y", 20)),
    "hyperbolic_discounting": WAIT,
    "exponential_discounting": WAIT,
    "hyperboloid_discounting": WAIT,
    "magnitude_discounting": View(
        "later amount", rank(column("amount_later")), "later amount", column("choice"), ("0.2", "1", "5")
    ),
    "quasi_hyperbolic_discounting": View(
        "the sooner amount comes", rank(column("delay_sooner")), "later amount", column("choice"), ("now", "in 30 days")
    ),
    "prospect_theory": View(
        "loss / gain",
        lambda data: np.where(data["cert"].values > 0, np.nan, (data["loss"].values / data["gain"].values).round(3)),
        "gamble",
        column("gamble"),
    ),
    "effort_discounting": View("effort of the harder option", column("effort_hard"), "harder option", column("choice")),
    "risk_ambiguity": View(
        "odds, or share hidden",
        rank(lambda data: data["probability"].values + 10 * data["ambiguity"].values),
        "lottery",
        column("choice"),
        (".13", ".25", ".38", "24%", "50%", "74%"),
    ),
    "ultimatum": View("offer", column("offer"), "accepts", column("accept")),
    "risky_choice": View(
        "gamble",
        lambda data: 2 * (data["risky"].values < 0) + data["ambiguity"].values,
        "gambles",
        column("choice"),
        ("gain", "gain,\nhidden", "loss", "loss,\nhidden"),
    ),
    "signal_detection": View("", column("signal"), "says yes", column("response"), ("noise", "signal")),
    "signal_detection_unequal": View(
        "rating of a signal",
        lambda data: each(ratings(data), np.arange(6))[0],
        "share",
        lambda data: each(ratings(data), np.arange(6))[1],
    ),
    "meta_d": View(
        "confidence", column("confidence"), "is right", lambda data: data["response"].values == data["stimulus"].values
    ),
    "psychometric": View("intensity", column("intensity"), "is right", column("correct")),
    "poisson_regression": View("x", bins("x", EDGES), "count", column("y")),
    "linear_regression": View("x", bins("x", EDGES), "y, mean and SD", column("y"), spread=True),
    "logistic_regression": View("x", bins("x", EDGES), "y = 1", column("y")),
    "bayesian_observer": View(
        "fish of the pond",
        lambda data: trial(data) % 15 + 1,
        "right pond",
        lambda data: data["choice"].values == data["pond"].values,
    ),
    "drift_diffusion": View(
        "time, s (left: wrong)",
        lambda data: each(signed_times(data), (RT_EDGES[1:] + RT_EDGES[:-1]) / 2)[0],
        "share",
        lambda data: each(signed_times(data), (RT_EDGES[1:] + RT_EDGES[:-1]) / 2)[1],
    ),
}


def extremes(case: Case) -> pd.DataFrame:
    """Parameters of people of whom one parameter is low or high, natural space; labelled (parameter, side, number)."""
    rows = {}
    for name, (mean, sd) in case.group.items():
        for side, sign in (("low", -1), ("high", 1)):
            x = {k: m for k, (m, _) in case.group.items()} | {name: mean + sign * AWAY * sd}
            natural = {k: float(case.model.parameters[k].to_natural(v)) for k, v in x.items()}
            rows |= {f"{name} {side} {n}": natural for n in range(EACH)}
    return pd.DataFrame.from_dict(rows, orient="index")


def draw(case: Case) -> plt.Figure:
    """Simulate, fit, and draw."""
    people = em.draw_subjects(case.model, case.group, 60, random_seed=20)
    everyone = pd.concat([people.rename(index=str), extremes(case)])
    data = em.simulate(case.model, everyone, case.task, random_seed=21, progressbar=False)
    data = data.transpose("subject", "trial", ...)
    fit = em.fit(case.model, data.isel(subject=slice(60)), progressbar=False)
    names = list(case.group)
    per_row = 2 if len(names) == 4 else min(len(names), PER_ROW)
    n_rows = -(-len(names) // per_row)
    figure, axes = plt.subplots(2 * n_rows, per_row, figsize=(2.05 * per_row + 0.2, 3.9 * n_rows), squeeze=False)
    for axis in axes.ravel():
        axis.set_visible(False)
    for k, name in enumerate(names):
        above, below = axes[2 * (k // per_row), k % per_row], axes[2 * (k // per_row) + 1, k % per_row]
        behaviour(above, VIEWS[case.name], data, name, case)
        recovery(below, case.model.parameters[name].to_gaussian(people[name]), fit, name)
        if k % per_row == 0:
            above.set_ylabel(VIEWS[case.name].y_label)
            below.set_ylabel("estimated")
    return figure


def behaviour(axis: plt.Axes, view: View, data: xr.Dataset, name: str, case: Case) -> None:
    """Mean responses of those whose parameter is low, and high."""
    axis.set_visible(True)
    mean, sd = case.group[name]
    to_natural = case.model.parameters[name].to_natural
    for side, colour, sign in (("low", LOW, -1), ("high", HIGH, 1)):
        own = data.sel(subject=[f"{name} {side} {n}" for n in range(EACH)])
        y = np.asarray(view.y(own), dtype=float)
        x = np.broadcast_to(view.x(own), y.shape).ravel()
        table = pd.DataFrame({"x": x, "y": y.ravel()}).dropna().groupby("x")["y"]
        centre = table.mean()
        marker = "o" if len(centre) < 8 else ""
        axis.plot(centre.index, centre, color=colour, marker=marker, markersize=3, linewidth=1.4)
        if view.spread:
            axis.fill_between(
                centre.index, centre - table.std(), centre + table.std(), color=colour, alpha=0.2, linewidth=0
            )
        value = f"{float(to_natural(mean + sign * AWAY * sd)):.3g}"
        axis.text(0.5 + sign * 0.25, 1.03, value, color=colour, transform=axis.transAxes, ha="center", fontsize=8)
    axis.set_title(name, pad=15, fontsize=9, fontweight="bold")
    axis.set_xlabel(view.x_label, fontsize=8)
    if view.names:
        axis.set_xticks(range(len(view.names)), view.names, fontsize=7)
        axis.margins(x=0.12)


def recovery(axis: plt.Axes, true: pd.Series, fit: em.Fit, name: str) -> None:
    """Estimates over true parameters, Gaussian space."""
    axis.set_visible(True)
    found = fit.subjects["posterior_mean"].sel(parameter=name).values
    ends = [min(true.min(), found.min()), max(true.max(), found.max())]
    axis.plot(ends, ends, color=TRUE, linewidth=0.8)
    axis.plot(true, found, "o", color="black", markersize=2.2, alpha=0.6, markeredgewidth=0)
    axis.set_xlabel("true (Gaussian space)", fontsize=8)
    axis.text(0.04, 0.9, f"r = {np.corrcoef(true, found)[0, 1]:.2f}", transform=axis.transAxes, fontsize=8)


def save(figure: plt.Figure, path: Path) -> None:
    """Save with few colours, six steps from white to each, which makes a small file."""
    buffer = BytesIO()
    figure.savefig(buffer, dpi=100)
    plt.close(figure)
    few = Image.new("P", (1, 1))
    steps = [white + (1 - white) * np.array(to_rgb(c)) for c in (LOW, HIGH, "black") for white in np.linspace(0, 1, 6)]
    few.putpalette((255 * np.array(steps)).astype("uint8").tobytes())
    Image.open(buffer).convert("RGB").quantize(palette=few, dither=Image.Dither.NONE).save(path, optimize=True)


def main(only: list[str]) -> None:
    """Draw all models, or some."""
    warnings.simplefilter("ignore", em.ConvergenceWarning)
    plt.rcParams.update(
        {
            "axes.spines.top": False,
            "axes.spines.right": False,
            "figure.constrained_layout.use": True,
            "font.size": 8,
            "savefig.facecolor": "white",
        }
    )
    for case in ALL_CASES:
        if not only or case.name in only:
            save(draw(case), HERE / "zoo" / f"{case.name}.png")
            print(case.name, flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
