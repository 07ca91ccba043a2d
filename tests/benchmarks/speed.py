"""Speed, as ratios of CPU time measured side by side in one run.

    python tests/benchmarks/speed.py [--subjects 100 500 2000] [--json FILE]

Rescorla-Wagner as the zoo has it, 200 trials a subject: `em_ppl.fit` with its standard errors, compiling left out,
against `limit`, EM with the same estimator and tolerance written by hand in numba.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import limit
import numpy as np
import pandas as pd

import em_ppl as em
from em_ppl.models.rescorla_wagner import rescorla_wagner

sys.path.insert(0, str(Path(__file__).parents[1]))
from helpers import simulated_learners

N_TRIALS, REPEATS, TOL = 200, 5, 1e-5


def fastest(function: Callable[[], Any]) -> float:
    """CPU seconds of the fastest of several calls, after one that warms up."""
    function()
    seconds = []
    for _ in range(REPEATS):
        started = time.process_time()
        function()
        seconds.append(time.process_time() - started)
    return min(seconds)


def compare(n_subjects: int) -> list[dict[str, Any]]:
    """Fit so many subjects in both ways, by both estimators."""
    data = simulated_learners(n_subjects, n_trials=N_TRIALS, random_seed=n_subjects)
    choice, reward = data["choice"].values.astype(np.int64), data["reward"].values.astype(float)
    rows = []
    for estimator in ("laplace", "corrected"):
        mean, _, iterations = limit.fit(choice, reward, estimator == "corrected", TOL, 1000)
        ours = em.fit(rescorla_wagner, data, estimator=estimator, tol=TOL, progressbar=False)
        apart = np.abs((ours.group.mean.values - mean) / ours.group.mean_se.values).max()
        by_hand = fastest(lambda e=estimator: limit.fit(choice, reward, e == "corrected", TOL, 1000))
        own = fastest(lambda e=estimator: em.fit(rescorla_wagner, data, estimator=e, tol=TOL, progressbar=False))
        rows.append(
            {
                "subjects": n_subjects,
                "estimator": estimator,
                "em_ppl, s": own,
                "by hand, s": by_hand,
                "ratio": own / by_hand,
                "iterations": ours.iterations,
                "by hand, iterations": iterations,
                "apart, SE": apart,
            }
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--subjects", type=int, nargs="+", default=[100, 500, 2000])
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    warnings.simplefilter("ignore", em.ConvergenceWarning)
    table = pd.DataFrame([row for n in given.subjects for row in compare(n)])
    print(table.to_string(index=False, float_format="{:.3g}".format))
    if given.json:
        given.json.write_text(json.dumps(table.to_dict("records"), indent=1))


if __name__ == "__main__":
    main()
