"""Speed, as ratios measured side by side in one run; compiling is left out.

    python tests/benchmarks/speed.py [--subjects 100 500 2000] [--only limit cores growth] [--json FILE]
        [--picture FILE]

limit: Rescorla-Wagner as the zoo has it, 200 trials a subject. CPU time of `em_ppl.fit` with its standard errors, over
that of EM with the same estimator and tolerance written by hand in numba (limit.py). "alike": the ratio without what
the EM by hand does not do, standard errors and the search for second modes. "evaluations": of log-likelihood and
gradient, a subject; "their share": of the time.

cores: the same fits, time on one core over time on all; and that of their log-likelihood alone, whose threads never
wait for one another: what the machine gives.

growth: logistic regression with P parameters; how the time of one E-step with all differences (`approximate`), and that
of a fit, grow with P, with trials T and with subjects N: exponents, from one end of the range to the other.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from inspect import Parameter, Signature
from pathlib import Path
from typing import Any
from unittest import mock

import limit
import numpy as np
import pandas as pd
import pymc as pm
import pytensor.tensor as pt
import xarray as xr
from scipy.special import expit

import em_ppl as em
from em_ppl.compiled import CompiledModel
from em_ppl.cores import at_most, cores_in_use
from em_ppl.models.rescorla_wagner import rescorla_wagner
from em_ppl.modes import Start, approximate
from em_ppl.uncertainty import Uncertainty

sys.path.insert(0, str(Path(__file__).parents[1]))
from helpers import simulated_learners

N_TRIALS, REPEATS, TOL = 200, 15, 1e-5
LOOKS = 50  # of each subject in a row, by one thread
SIZES = [  # (P, T, N) of which one grows
    [(p, 200, 100) for p in (2, 5, 10, 20)],
    [(3, t, 100) for t in (50, 500, 5000)],
    [(3, 100, n) for n in (100, 1000, 10000)],
]


def median_in_turn(functions: Sequence[Callable[[], Any]], clock: Callable[[], float]) -> list[float]:
    """Seconds of a typical call of each, one after the other: other users of the machine come and go."""
    seconds = np.full((REPEATS, len(functions)), np.nan)
    for row in seconds:
        for k, function in enumerate(functions):
            started = clock()
            function()
            row[k] = clock() - started
    return [float(value) for value in np.median(seconds, axis=0)]


def compare(n_subjects: int) -> list[dict[str, Any]]:
    """Fit so many subjects in both ways, by both estimators."""
    data = simulated_learners(n_subjects, n_trials=N_TRIALS, random_seed=n_subjects)
    choice, reward = data["choice"].values.astype(np.int64), data["reward"].values.astype(float)
    rows = []
    for estimator in ("laplace", "corrected"):
        settings = {"estimator": estimator, "tol": TOL, "progressbar": False, "cores": 1}
        mean, _, iterations = limit.fit(choice, reward, estimator == "corrected", TOL, 1000)
        ours = em.fit(rescorla_wagner, data, **settings)
        apart = np.abs((ours.group.mean.values - mean) / ours.group.mean_se.values).max()
        works = [
            partial(limit.fit, choice, reward, estimator == "corrected", TOL, 1000),
            partial(em.fit, rescorla_wagner, data, **settings),
            partial(fit_alike, data, settings),
        ]
        by_hand, own, bare = median_in_turn(works, time.process_time)
        count, share = evaluations(data, settings)
        with alike():
            bare_count, _ = evaluations(data, settings)
        rows.append(
            {
                "subjects": n_subjects,
                "estimator": estimator,
                "em_ppl, s": own,
                "by hand, s": by_hand,
                "ratio": own / by_hand,
                "alike": bare / by_hand,
                "evaluations": count,
                "their share": share,
                "alike, evaluations": bare_count,
                "iterations": ours.iterations,
                "by hand, iterations": iterations,
                "apart, SE": apart,
            }
        )
    return rows


@contextmanager
def alike() -> Iterator[None]:
    """Leave standard errors and the search for second modes out of fits."""

    def no_errors(compiled: Any, group: Any, *_: Any) -> Uncertainty:
        return Uncertainty.unknown(compiled, group)

    def no_search(compiled: Any, group: Any, near: Start, *_: Any) -> tuple[Any, Any, Any]:
        return near.mode, *np.zeros((2, len(near.mode)), dtype=bool)

    with mock.patch("em_ppl.em.uncertainty", no_errors), mock.patch("em_ppl.em.search_widely", no_search):
        yield


def fit_alike(data: xr.Dataset, settings: dict[str, Any]) -> em.Fit:
    """Fit without these."""
    with alike():
        return em.fit(rescorla_wagner, data, **settings)


def evaluations(data: xr.Dataset, settings: dict[str, Any]) -> tuple[float, float]:
    """How often a fit evaluates a subject's log-likelihood and gradient, and the share of its time that this takes."""
    plain, counted, seconds = CompiledModel.value_and_gradient, [], []

    def counting(compiled: CompiledModel, x: Any, index: Any = None) -> Any:
        counted.append(len(x))
        started = time.process_time()
        found = plain(compiled, x, index)
        seconds.append(time.process_time() - started)
        return found

    started = time.process_time()
    with mock.patch.object(CompiledModel, "value_and_gradient", counting):
        em.fit(rescorla_wagner, data, **settings)
    return sum(counted) / data.sizes["subject"], sum(seconds) / (time.process_time() - started)


def spread_out(n_subjects: int) -> dict[str, Any]:
    """Fit on one core and on all, in turn; with what the machine gives code that has no overhead at all."""
    data = simulated_learners(n_subjects, n_trials=N_TRIALS, random_seed=n_subjects)
    fits = [partial(em.fit, rescorla_wagner, data, progressbar=False, cores=cores) for cores in (1, None)]
    compiled, n_cores = rescorla_wagner.compile(data), cores_in_use()
    parts = [compiled.take(who) for who in np.array_split(np.arange(n_subjects), n_cores)]

    def evaluate(part: CompiledModel) -> None:
        x = np.zeros(part.shape)
        with at_most(1):
            for _ in range(LOOKS):
                part.value_and_gradient(x)

    def evaluate_all() -> None:
        with ThreadPoolExecutor(n_cores) as pool:
            list(pool.map(evaluate, parts))

    works = [*fits, partial(evaluate, compiled), evaluate_all]
    one, all_cores, alone, alone_on_all = median_in_turn(works, time.perf_counter)
    return {
        "subjects": n_subjects,
        "cores": n_cores,
        "one, s": one,
        "all, s": all_cores,
        "ratio": one / all_cores,
        "of the likelihood alone": alone / alone_on_all,
    }


def regression(n_parameters: int) -> em.SubjectModel:
    """Make a logistic regression of so many parameters."""
    names = [f"b{k}" for k in range(n_parameters)]

    def likelihood(**given: Any) -> None:
        weights = pt.stack([given[name] for name in names])
        pm.Bernoulli("y", logit_p=(given["features"] * weights).sum(axis=1), observed=given["y"])

    arguments = [Parameter(name, Parameter.KEYWORD_ONLY) for name in (*names, "features", "y")]
    likelihood.__signature__ = Signature(arguments)  # type: ignore[attr-defined]
    return em.subject_model(**{name: em.Real(spread=1.0) for name in names})(likelihood)


def answers(n_parameters: int, n_trials: int, n_subjects: int) -> xr.Dataset:
    """Simulate a study of that model."""
    generator = np.random.default_rng(n_parameters)
    features = generator.normal(size=(n_subjects, n_trials, n_parameters)) / np.sqrt(n_parameters)
    weights = generator.normal(0.5, 1.0, size=(n_subjects, 1, n_parameters))
    y = (generator.random((n_subjects, n_trials)) < expit((features * weights).sum(-1))).astype(np.int64)
    dims = ("subject", "trial", "feature")
    return xr.Dataset({"features": (dims, features), "y": (dims[:2], y)}, coords={"subject": np.arange(n_subjects)})


def growth(n_parameters: int, n_trials: int, n_subjects: int) -> dict[str, Any]:
    """Time one E-step, with the differences that it takes, and a whole fit."""
    model, data = regression(n_parameters), answers(n_parameters, n_trials, n_subjects)
    settings = {"progressbar": False, "cores": 1}
    fit = em.fit(model, data, **settings)
    start = Start(fit.subjects["mode"].values, np.zeros((n_subjects, n_parameters, n_parameters)))
    with at_most(1):
        [e_step] = median_in_turn([partial(approximate, fit.compiled, fit.group.plain, start)], time.process_time)
    started = time.process_time()
    em.fit(model, data, **settings)
    return {
        "P": n_parameters,
        "T": n_trials,
        "N": n_subjects,
        "E-step, s": e_step,
        "fit, s": time.process_time() - started,
        "iterations": fit.iterations,
    }


def exponents(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Slopes of log time over the size that varies."""
    first, last = rows[0], rows[-1]
    varies = next(size for size in ("P", "T", "N") if first[size] != last[size])
    steps = np.log(last[varies] / first[varies])
    return {"varies": varies} | {t: np.log(last[t] / first[t]) / steps for t in ("E-step, s", "fit, s")}


def draw(studies: list[list[dict[str, Any]]], file: Path) -> None:
    """Draw times over each size, the others standing still."""
    import matplotlib.pyplot as plt

    names = {"P": "parameters", "T": "trials of each subject", "N": "subjects"}
    figure, axes = plt.subplots(1, 3, figsize=(10, 3.2), layout="constrained")
    for axis, rows in zip(axes, studies, strict=True):
        slopes, study = exponents(rows), pd.DataFrame(rows)
        for what, marker in (("E-step, s", "o"), ("fit, s", "s")):
            label = f"{what.removesuffix(', s')}: power {slopes[what]:.2f}"
            axis.loglog(study[slopes["varies"]], study[what], marker=marker, label=label)
        fixed = ", ".join(f"{size} = {study[size][0]}" for size in names if size != slopes["varies"])
        sizes = study[slopes["varies"]]
        axis.set_xticks(sizes, [f"{size:,}" for size in sizes])
        axis.set_xticks([], minor=True)
        axis.set(xlabel=f"{names[slopes['varies']]} ({fixed})")
        axis.legend(frameon=False)
    axes[0].set_ylabel("CPU time, s")
    figure.savefig(file, dpi=150)


def main() -> None:
    """Measure what is asked for, and print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--subjects", type=int, nargs="+", default=[100, 500, 2000])
    parser.add_argument("--only", nargs="+", choices=["limit", "cores", "growth"], default=["limit", "cores", "growth"])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--picture", type=Path, help="draw growth")
    given = parser.parse_args()
    warnings.simplefilter("ignore", em.ConvergenceWarning)
    tables: dict[str, list[dict[str, Any]]] = {}
    if "limit" in given.only:
        tables["limit"] = [row for n in given.subjects for row in compare(n)]
    if "cores" in given.only:
        tables["cores"] = [spread_out(n) for n in given.subjects]
    if "growth" in given.only:
        rows = [[growth(*sizes) for sizes in study] for study in SIZES]
        tables["growth"], tables["exponents"] = [row for study in rows for row in study], [exponents(s) for s in rows]
        if given.picture:
            draw(rows, given.picture)
    for name, rows_of_table in tables.items():
        print(f"\n{name}\n" + pd.DataFrame(rows_of_table).to_string(index=False, float_format="{:.3g}".format))
    if given.json:
        given.json.write_text(json.dumps(tables, indent=1))


if __name__ == "__main__":
    main()
