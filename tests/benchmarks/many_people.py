"""Time and memory of a fit to very many people, all cores.

    python tests/benchmarks/many_people.py [--subjects 10000 100000] [--trials 50] [--json FILE]

Rescorla-Wagner, 50 trials a person. Each fit runs in a process of its own, since what is measured is its largest
memory, data included. A million people take a quarter of an hour on two cores: ``--subjects 1000000``.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr
from scipy.special import expit

import em_ppl as em
from em_ppl.models.rescorla_wagner import rescorla_wagner


def play(n_subjects: int, n_trials: int) -> xr.Dataset:
    """Let learners play a bandit that pays in 3 and 7 of 10, all at once."""
    generator, everyone = np.random.default_rng(1), np.arange(n_subjects)
    alpha, beta = expit(generator.normal(0.0, 1.0, n_subjects)), np.exp(generator.normal(1.0, 0.5, n_subjects))
    choice, reward = np.zeros((n_subjects, n_trials), dtype=np.int64), np.zeros((n_subjects, n_trials))
    q = np.zeros((n_subjects, 2))
    for t in range(n_trials):
        c = choice[:, t] = generator.random(n_subjects) < expit(beta * (q[:, 1] - q[:, 0]))
        c = c.astype(np.int64)
        reward[:, t] = generator.random(n_subjects) < np.array([0.3, 0.7])[c]
        q[everyone, c] += alpha * (reward[:, t] - q[everyone, c])
    dims = ("subject", "trial")
    return xr.Dataset({"choice": (dims, choice), "reward": (dims, reward)}, coords={"subject": everyone})


def fit(n_subjects: int, n_trials: int) -> None:
    """Simulate and fit; print a line of JSON."""
    warnings.simplefilter("ignore", em.ConvergenceWarning)
    data = play(n_subjects, n_trials)
    started, cpu = time.perf_counter(), time.process_time()
    done = em.fit(rescorla_wagner, data, progressbar=False)
    row = {
        "people": n_subjects,
        "trials": n_trials,
        "time, s": time.perf_counter() - started,
        "CPU, s": time.process_time() - cpu,
        "memory, GB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6,
        "of which data": data.nbytes / 1e9,
        "iterations": done.iterations,
        "status": done.settings["status"],
        "mean": done.group.mean.values.round(3).tolist(),
        "SE": done.group.mean_se.values.round(4).tolist(),
    }
    print(json.dumps(row))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--subjects", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--trials", type=int, default=50)
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    if given.here:
        fit(given.subjects[0], given.trials)
        return
    rows = []
    for n in given.subjects:
        command = [sys.executable, __file__, "--here", "--trials", str(given.trials), "--subjects", str(n)]
        rows.append(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
    table = pd.DataFrame(rows)
    print(table.to_string(index=False, float_format="{:.3g}".format))
    if len(table) > 1:
        slope = np.diff(np.log(table["CPU, s"].iloc[[0, -1]])) / np.diff(np.log(table["people"].iloc[[0, -1]]))
        print(f"\nCPU grows as people^{slope[0]:.2f}")
    if given.json:
        given.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
