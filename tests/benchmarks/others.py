"""The same fit by other programs, side by side in one run: seconds of CPU, compiling left out.

    python tests/benchmarks/others.py [--subjects 100] [--only tmb nutpie pyem] [--pyem FOLDER] [--json FILE]

Rescorla-Wagner, 200 trials a subject. By hand: EM in numba with derivatives worked out on paper (limit.py). TMB: the
maximum of Laplace's marginal likelihood by `nlminb`, with standard errors (needs `Rscript` with TMB and a C++
compiler). nutpie: 4 x 1000 draws of the hierarchical model, tuning included (`pip install nutpie`). pyEM: its `EMfit`
with an objective as its examples have it (needs a checkout: --pyem). What is not here is left out.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import limit
import numpy as np
import pandas as pd
import xarray as xr
from speed import N_TRIALS, TOL, median_in_turn

import em_ppl as em
from em_ppl.models.rescorla_wagner import rescorla_wagner

sys.path.insert(0, str(Path(__file__).parents[1]))
from helpers import simulated_learners

TEMPLATE = """
#include <TMB.hpp>
template<class Type> Type objective_function<Type>::operator() () {
  DATA_IMATRIX(choice); DATA_MATRIX(reward);
  PARAMETER_VECTOR(mean); PARAMETER_VECTOR(log_sd); PARAMETER_MATRIX(x);
  Type nll = 0;
  for (int i = 0; i < choice.rows(); i++) {
    for (int k = 0; k < 2; k++) nll -= dnorm(x(i, k), mean(k), exp(log_sd(k)), true);
    Type alpha = invlogit(x(i, 0)), beta = exp(x(i, 1));
    vector<Type> q(2); q.setZero();
    for (int t = 0; t < choice.cols(); t++) {
      int c = choice(i, t);
      nll += logspace_add(Type(0), beta * (q(1 - c) - q(c)));
      q(c) += alpha * (reward(i, t) - q(c));
    }
  }
  return nll;
}
"""
SCRIPT = """
suppressMessages(library(TMB)); setwd("{folder}")
invisible(compile("rw.cpp", flags = "-O2 -w")); dyn.load(dynlib("rw"))
read <- function(file) unname(as.matrix(read.csv(file, header = FALSE)))
data <- list(choice = read("choice.csv"), reward = read("reward.csv"))
storage.mode(data$choice) <- "integer"
started <- proc.time()
start <- list(mean = c(0, 0), log_sd = c(0, 0), x = matrix(0, nrow(data$choice), 2))
f <- MakeADFun(data, start, random = "x", DLL = "rw", silent = TRUE)
found <- nlminb(f$par, f$fn, f$gr)
errors <- summary(sdreport(f), "fixed")
cat(sum((proc.time() - started)[1:2]), found$par[1:2], errors[1:2, 2])
"""


def tmb(data: xr.Dataset, _: Path | None) -> dict[str, Any] | None:
    """Maximise Laplace's marginal likelihood in R."""
    if shutil.which("Rscript") is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "rw.cpp").write_text(TEMPLATE)
        for name in ("choice", "reward"):
            np.savetxt(f"{folder}/{name}.csv", data[name].values.astype(int), fmt="%d", delimiter=",")
        command = ["Rscript", "-e", SCRIPT.format(folder=folder)]
        printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    seconds, *mean = map(float, printed.split()[-5:-2])
    return {"by": "TMB, Laplace", "s": seconds, "mean": mean}


def nutpie(data: xr.Dataset, _: Path | None) -> dict[str, Any] | None:
    """Sample the hierarchical model."""
    if find_spec("nutpie") is None:
        return None
    import nutpie

    compiled = nutpie.compile_pymc_model(rescorla_wagner.hierarchical(data))
    started = time.process_time()
    draws = nutpie.sample(compiled, draws=1000, chains=4, seed=1, progress_bar=False)
    seconds = time.process_time() - started
    return {"by": "nutpie, 4 x 1000 draws", "s": seconds, "mean": draws.posterior["group_mean"].mean(("chain", "draw"))}


def objective(
    params: np.ndarray, choices: np.ndarray, rewards: np.ndarray, prior: Any = None, output: str = "npl"
) -> Any:
    """Negative log posterior of one subject in the form of pyEM's examples."""
    lr, beta = 1 / (1 + np.exp(-params[0])), np.exp(params[1])
    ev, nll = np.zeros(2), 0.0
    for c, reward in zip(choices, rewards, strict=True):
        e = np.exp(beta * ev)
        nll -= np.log(e[c] / e.sum())
        ev[c] += lr * (reward - ev[c])
    return min(nll - prior["logpdf"](params), 1e7) if prior is not None else nll


def pyem(data: xr.Dataset, checkout: Path | None) -> dict[str, Any] | None:
    """Fit with pyEM, its version of 2023, subjects one after the other in this process."""
    if checkout is None:
        return None
    sys.path.insert(0, str(checkout))
    from joblib import parallel_config
    from pyEM.fitting import EMfit

    people = [[c, r] for c, r in zip(data["choice"].values.astype(int), data["reward"].values, strict=True)]
    np.random.seed(1)  # noqa: NPY002
    started = time.process_time()
    with parallel_config(backend="sequential"):
        _, _, posterior, *_ = EMfit(people, objective, ["alpha", "beta"], verbose=False)
    return {"by": "pyEM", "s": time.process_time() - started, "mean": posterior["mu"]}


def this_package(data: xr.Dataset) -> list[dict[str, Any]]:
    """Fit with this package, standard errors included, and by hand with neither; in turn."""
    arrays = data["choice"].values.astype(np.int64), data["reward"].values.astype(float)
    works: dict[str, Callable[[], Any]] = {}
    for estimator in ("laplace", "corrected"):
        settings = {"estimator": estimator, "tol": TOL, "progressbar": False, "cores": 1}
        works[f"em_ppl, {estimator}"] = partial(em.fit, rescorla_wagner, data, **settings)
        works[f"by hand, {estimator}"] = partial(limit.fit, *arrays, estimator == "corrected", TOL, 1000)
    found = [work() for work in works.values()]
    means = [fit.group.mean.values if isinstance(fit, em.Fit) else fit[0] for fit in found]
    seconds = median_in_turn(list(works.values()), time.process_time)
    return [{"by": by, "s": s, "mean": mean} for by, s, mean in zip(works, seconds, means, strict=True)]


OTHERS: dict[str, Callable[..., dict[str, Any] | None]] = {"tmb": tmb, "nutpie": nutpie, "pyem": pyem}


def side_by_side(n_subjects: int, names: Sequence[str], checkout: Path | None) -> pd.DataFrame:
    """Fit in all ways; over what this package takes for the same estimator."""
    warnings.simplefilter("ignore")
    data = simulated_learners(n_subjects, n_trials=N_TRIALS, random_seed=n_subjects)
    rows = this_package(data)
    rows += [row for name in names if (row := OTHERS[name](data, checkout)) is not None]
    mean = np.array([row.pop("mean") for row in rows])
    table = pd.DataFrame(rows).assign(**{"mean, alpha": mean[:, 0], "mean, beta": mean[:, 1]})
    for estimator in ("laplace", "corrected"):
        table[f"over em_ppl, {estimator}"] = table["s"] / table["s"][table["by"] == f"em_ppl, {estimator}"].item()
    return table


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--subjects", type=int, default=100)
    parser.add_argument("--only", nargs="+", choices=OTHERS, default=list(OTHERS))
    parser.add_argument("--pyem", type=Path)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    table = side_by_side(given.subjects, given.only, given.pyem)
    print(table.to_string(index=False, float_format="{:.4g}".format))
    if given.json:
        given.json.write_text(json.dumps(table.to_dict("records"), indent=1))


if __name__ == "__main__":
    main()
