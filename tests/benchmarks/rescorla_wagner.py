"""Rescorla-Wagner, 100 subjects x 200 trials: gradient and fit, as ratios of CPU time measured side by side.

    python tests/benchmarks/rescorla_wagner.py [--prototype FOLDER]

Gradient: the batched one-subject likelihood, written naturally (``q[c]``) and with scalar states, against the same
graphs with the subject axis written by hand. Fit: `em_ppl.fit` without compiling, against the prototype that the
package began from (``em.py`` in FOLDER), both to a change of 1e-4.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pymc as pm
import pytensor
import pytensor.tensor as pt
import xarray as xr

import em_ppl as em

sys.path.insert(0, str(Path(__file__).parents[1]))
from helpers import play_bandit

N_SUBJECTS, N_TRIALS, REPEATS = 100, 200, 7


@em.subject_model(alpha=em.Unit(), beta=em.Positive())
def natural(alpha, beta, choice, reward):
    """As the README writes it."""

    def learn(c, r, q, alpha):
        return pt.set_subtensor(q[c], q[c] + alpha * (r - q[c]))

    settings = {"sequences": [choice, reward], "outputs_info": [pt.zeros(2)], "non_sequences": [alpha]}
    q = pytensor.scan(learn, **settings, strict=True, return_updates=False)
    before = pt.concatenate([pt.zeros((1, 2)), q[:-1]])
    pm.Categorical("choice", logit_p=beta * before, observed=choice)


@em.subject_model(alpha=em.Unit(), beta=em.Positive())
def scalars(alpha, beta, choice, reward):
    """One scalar state per option."""

    def learn(c, r, q0, q1, alpha):
        return q0 + alpha * pt.eq(c, 0) * (r - q0), q1 + alpha * pt.eq(c, 1) * (r - q1)

    settings = {"sequences": [choice, reward], "outputs_info": [pt.zeros(())] * 2, "non_sequences": [alpha]}
    q0, q1 = pytensor.scan(learn, **settings, strict=True, return_updates=False)
    pm.Bernoulli("choice", logit_p=beta * pt.concatenate([pt.zeros(1), (q1 - q0)[:-1]]), observed=choice)


def scalars_by_hand() -> Callable[..., list[np.ndarray]]:
    """The graph of `scalars` with the subject axis written by hand: (subject,) states over (trial, subject) data."""
    x, choice, reward = pt.dmatrix("x"), pt.lmatrix("choice"), pt.dmatrix("reward")
    alpha, beta, start = pt.sigmoid(x[:, 0]), pt.exp(x[:, 1]), pt.zeros_like(x[:, 0])

    def learn(c, r, q0, q1, alpha):
        return q0 + alpha * pt.eq(c, 0) * (r - q0), q1 + alpha * pt.eq(c, 1) * (r - q1)

    settings = {"sequences": [choice.T, reward.T], "outputs_info": [start] * 2, "non_sequences": [alpha]}
    q0, q1 = pytensor.scan(learn, **settings, strict=True, return_updates=False)
    before = pt.concatenate([start[None], (q1 - q0)[:-1]])
    value = pm.logp(pm.Bernoulli.dist(logit_p=beta * before), choice.T).sum(0)
    return pytensor.function([x, choice, reward], [value, pytensor.grad(value.sum(), x)], trust_input=True)


def natural_by_hand() -> Callable[..., list[np.ndarray]]:
    """The graph of `natural` with the subject axis written by hand: ``q[subject, c]``."""
    x, choice, reward = pt.dmatrix("x"), pt.lmatrix("choice"), pt.dmatrix("reward")
    alpha, beta, start = pt.sigmoid(x[:, 0]), pt.exp(x[:, 1]), pt.zeros_like(x)

    def learn(c, r, q, alpha):
        own = q[pt.arange(q.shape[0]), c]
        return pt.set_subtensor(own, own + alpha * (r - own))

    settings = {"sequences": [choice.T, reward.T], "outputs_info": [start], "non_sequences": [alpha]}
    q = pytensor.scan(learn, **settings, strict=True, return_updates=False)
    before = pt.concatenate([start[None], q[:-1]])
    value = pm.logp(pm.Categorical.dist(logit_p=beta[:, None] * before), choice.T).sum(0)
    return pytensor.function([x, choice, reward], [value, pytensor.grad(value.sum(), x)], trust_input=True)


def cpu(call: Callable[[], object], repeats: int) -> float:
    """Seconds of CPU per call."""
    start = time.process_time()
    for _ in range(repeats):
        call()
    return (time.process_time() - start) / repeats


def learners() -> xr.Dataset:
    """Simulate, seed 1."""
    generator = np.random.default_rng(1)
    alpha = em.Unit().to_natural(generator.normal(0.2, 1.0, N_SUBJECTS))
    beta = em.Positive().to_natural(generator.normal(1.0, 0.5, N_SUBJECTS))
    return play_bandit(pd.DataFrame({"alpha": alpha, "beta": beta}), n_trials=N_TRIALS, random_seed=1)


def compare_gradients(data: xr.Dataset) -> None:
    """Print microseconds per subject, and ratios of medians."""
    x = np.random.default_rng(2).normal([0.2, 1.0], [1.0, 0.5], (N_SUBJECTS, 2))
    hand, arrays = scalars_by_hand(), [data["choice"].values, data["reward"].values]
    compiled = {model.name: model.compile(data) for model in (natural, scalars)}
    calls = {name: lambda c=c: c.value_and_gradient(x) for name, c in compiled.items()}
    calls["scalars by hand"] = lambda: hand(x, *arrays)
    hand_natural = natural_by_hand()
    calls["natural by hand"] = lambda: hand_natural(x, *arrays)
    for name, call in calls.items():  # also compiles
        np.testing.assert_allclose(call()[1], hand(x, *arrays)[1], rtol=1e-8, atol=1e-8, err_msg=name)
    times = {name: [] for name in calls}
    for _ in range(REPEATS):
        for name, call in calls.items():
            times[name].append(cpu(call, 50) / N_SUBJECTS * 1e6)
    medians = {name: float(np.median(t)) for name, t in times.items()}
    for name, median in medians.items():
        ratio = f"   {median / medians[twin]:.2f} x by hand" if (twin := f"{name} by hand") in medians else ""
        print(f"gradient, {name:15s} {median:6.1f} us a subject{ratio}")


def compare_fits(data: xr.Dataset, prototype: Path | None) -> None:
    """Print seconds of CPU, and ratios of medians."""
    for estimator in ("laplace", "corrected"):
        times: list[float] = []
        theirs: list[float] = []
        for _ in range(REPEATS):
            start = time.process_time()
            em.fit(natural, data, estimator=estimator, tol=1e-4, progressbar=False)
            times.append(time.process_time() - start)
            if prototype is not None:
                theirs.append(run_prototype(prototype, data, estimator))
        ours = float(np.median(times))
        ratio = f"   {ours / np.median(theirs):.2f} x the prototype's {np.median(theirs):.2f} s" if theirs else ""
        print(f"fit, {estimator:9s} {ours:.2f} s of CPU{ratio}")


def run_prototype(folder: Path, data: xr.Dataset, estimator: str) -> float:
    """Run the prototype's script in a process of its own; it prints its seconds of CPU, compiling left out."""
    with tempfile.TemporaryDirectory() as work:
        file = Path(work, "rw.npz")
        np.savez(file, choices=data["choice"].values, rewards=data["reward"].values)
        command = [sys.executable, folder / "em.py", file, *(["corrected"] if estimator == "corrected" else [])]
        printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return float(printed.split("cpu s")[1])


def main() -> None:
    """Compare."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--prototype", type=Path, help="folder of the prototype's em.py")
    prototype = parser.parse_args().prototype
    data = learners()
    compare_gradients(data)
    compare_fits(data, prototype)


if __name__ == "__main__":
    main()
