"""Time and memory of a fit to very many people, from memory and from a Zarr store that is never loaded whole.

    python tests/benchmarks/many_people.py [--subjects 10000 100000] [--trials 50] [--zarr] [--json FILE]

Rescorla-Wagner, 50 trials a person, simulated by `em_ppl.simulate` to Zarr, 10,000 people at a time. Each fit runs in a
process of its own, since what is measured is its largest memory, data included. For a million people say
``--subjects 1000000 --zarr``.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

import em_ppl as em
from em_ppl.models.rescorla_wagner import rescorla_wagner

PORTION = 10_000
GROUP = {"alpha": (0.0, 1.0), "beta": (1.0, 0.5)}
PAYS = np.array([0.3, 0.7])


def play(n_subjects: int, n_trials: int, store: str) -> None:
    """Let learners play a bandit that pays in 3 and 7 of 10, and store what they did."""
    task = em.Task(n_trials, reward=lambda choice, rng: 1.0 * (rng.random(choice.shape) < PAYS[choice]))
    for seed, start in enumerate(range(0, n_subjects, PORTION)):
        n_now = min(PORTION, n_subjects - start)
        people = em.draw_subjects(rescorla_wagner, GROUP, n_now, random_seed=seed).set_index(start + np.arange(n_now))
        data = em.simulate(rescorla_wagner, people, task, random_seed=seed, progressbar=False)
        data = data[["choice", "reward"]].astype({"choice": np.int8, "reward": np.float32}).chunk(subject=PORTION)
        data.to_zarr(store, **({"append_dim": "subject"} if start else {"mode": "w"}))


def fit(n_subjects: int, n_trials: int, store: str, lazily: bool) -> None:
    """Fit; print a line of JSON."""
    warnings.simplefilter("ignore", em.ConvergenceWarning)
    data = xr.open_zarr(store)
    if not lazily:
        data = data.compute()
    started, cpu = time.perf_counter(), time.process_time()
    done = em.fit(rescorla_wagner, data, progressbar=False)
    row = {
        "people": n_subjects,
        "trials": n_trials,
        "from": "zarr" if lazily else "memory",
        "time, s": time.perf_counter() - started,
        "CPU, s": time.process_time() - cpu,
        "memory, GB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6,
        "iterations": done.iterations,
        "status": done.settings["status"],
        "mean": done.group.mean.values.round(3).tolist(),
        "SE": done.group.mean_se.values.round(4).tolist(),
    }
    print(json.dumps(row))


def measure(sizes: Sequence[int], n_trials: int, sources: Sequence[str]) -> list[dict[str, Any]]:
    """Simulate so many people, and fit them, in a process of its own from each source."""
    rows = []
    for n in sizes:
        with tempfile.TemporaryDirectory() as folder:
            store, started = f"{folder}/people.zarr", time.perf_counter()
            play(n, n_trials, store)
            print(f"{n} people simulated in {time.perf_counter() - started:.0f} s", flush=True)
            for source in sources:
                command = [sys.executable, __file__, "--trials", str(n_trials), "--subjects", str(n)]
                command += ["--here", store, source]
                rows.append(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
    return rows


def exponent(rows: pd.DataFrame) -> float:
    """Power of the number of people with which CPU time grows."""
    first, last = rows.iloc[0], rows.iloc[-1]
    return float(np.log(last["CPU, s"] / first["CPU, s"]) / np.log(last["people"] / first["people"]))


def main() -> None:
    """Print a line for each fit."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--subjects", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--trials", type=int, default=50)
    parser.add_argument("--zarr", action="store_true", help="from Zarr only, as a million people need")
    parser.add_argument("--here", nargs=2, metavar=("STORE", "FROM"), help=argparse.SUPPRESS)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    if given.here:
        fit(given.subjects[0], given.trials, given.here[0], lazily=given.here[1] == "zarr")
        return
    rows = measure(given.subjects, given.trials, ["zarr"] if given.zarr else ["memory", "zarr"])
    table = pd.DataFrame(rows)
    print(table.to_string(index=False, float_format="{:.3g}".format))
    for source, part in table.groupby("from"):
        if len(part) > 1:
            print(f"from {source}, CPU grows as people^{exponent(part):.2f}")
    if given.json:
        given.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
