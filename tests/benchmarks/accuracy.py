"""How far each estimator's group is from exact maximum likelihood, in standard errors, and at what cost.

    python tests/benchmarks/accuracy.py [--subjects 20 100 500] [--trials 200] [--studies 5]

Simulated Rescorla-Wagner learners (seeds 0, 1, ...): group mean of logit alpha 0 (SD 1), of log beta 1 (SD 0.5). The
reference is quadrature of order 21; tests/test_em.py shows that the default order, 11, maximises a likelihood summed by
brute force to three digits.
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pandas as pd

import em_ppl as em
from em_ppl.models.rescorla_wagner import rescorla_wagner

sys.path.insert(0, str(Path(__file__).parents[1]))
from helpers import simulated_learners

ESTIMATORS = {
    "laplace (classic EM-MAP)": "laplace",
    "corrected (default)": "corrected",
    "quadrature, 5 a parameter": em.Quadrature(5),
    "quadrature, 7 a parameter": em.Quadrature(7),
    "exact (quadrature, 11)": "exact",
    "importance sampling, 64 draws": em.ImportanceSampling(64),
    "importance sampling, 256 draws": em.ImportanceSampling(256),
    "importance sampling, 512 draws": em.ImportanceSampling(),
}


def compare(n_subjects: int, n_trials: int, n_studies: int) -> pd.DataFrame:
    """Return mean errors of (mean, SD) of both parameters, the root mean square in standard errors, and seconds."""
    rows: dict[str, list[np.ndarray]] = {name: [] for name in ESTIMATORS}
    for seed in range(n_studies):
        data = simulated_learners(n_subjects, n_trials, seed)
        settings = {"progressbar": False, "tol": 1e-6}
        exact = em.fit(rescorla_wagner, data, estimator=em.Quadrature(21), **settings).group
        se = np.sqrt(np.diag(exact.free_covariance))
        for name, estimator in ESTIMATORS.items():
            start = time.process_time()
            group = em.fit(rescorla_wagner, data, estimator=estimator, progressbar=False).group
            seconds = time.process_time() - start
            error = group.free.values - exact.free.values
            rows[name].append(np.array([*error, np.sqrt(np.mean((error / se) ** 2)), seconds]))
    columns = ["mean alpha", "mean beta", "log SD alpha", "log SD beta", "RMS / SE", "CPU s"]
    return pd.DataFrame({name: np.mean(own, axis=0) for name, own in rows.items()}, index=columns).T


def main() -> None:
    """Compare, and print one table for each number of subjects."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--subjects", type=int, nargs="+", default=[20, 100, 500])
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--studies", type=int, default=5)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore", em.ConvergenceWarning)
    for n in arguments.subjects:
        print(f"\n{n} subjects x {arguments.trials} trials: mean error of {arguments.studies} studies, Gaussian space")
        table = compare(n, arguments.trials, arguments.studies)
        print(table.to_string(float_format=lambda value: f"{value:.4f}"))


if __name__ == "__main__":
    main()
