"""Simulated studies: one is made, fitted, and made again, in several processes if there is much to do."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from em_ppl.cores import at_most
from em_ppl.em import ConvergenceWarning, fit
from em_ppl.model import SubjectModel
from em_ppl.progress import Progress
from em_ppl.result import Fit
from em_ppl.simulation import draw_subjects, simulate
from em_ppl.tasks import Task

__all__ = ["fit_study", "in_processes", "make_study"]


def make_study(
    model: SubjectModel,
    group: Mapping[str, tuple[float, float]],
    task: Task,
    n_subjects: int,
    generator: np.random.Generator,
    fit_kwargs: Mapping[str, Any],
) -> tuple[pd.DataFrame, xr.Dataset, int]:
    """Draw subjects, let them work, and draw the seed of a fit to what they did."""
    own_seed, data_seed, fit_seed = (int(s) for s in generator.integers(2**31, size=3))
    people = draw_subjects(model, group, n_subjects, random_seed=own_seed)
    compile_kwargs = fit_kwargs.get("compile_kwargs")
    data = simulate(model, people, task, random_seed=data_seed, compile_kwargs=compile_kwargs, progressbar=False)
    return people, data, fit_seed


def fit_study(model: SubjectModel, data: xr.Dataset, random_seed: int, fit_kwargs: Mapping[str, Any]) -> Fit:
    """Fit one of many studies: what a single fit would warn of belongs to their summary."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return fit(model, data, **{"random_seed": random_seed, "progressbar": False, **fit_kwargs})


def in_processes(
    study: Callable[..., Any], items: Sequence[Any], arguments: tuple[Any, ...], n_jobs: int, *, show: bool
) -> list[Any]:
    """Return ``study(item, *arguments)`` of every item, in order.

    Each process is sent its share of the items at once, so that it compiles what came with them once.
    """
    import joblib

    n_processes = min(joblib.effective_n_jobs(n_jobs), len(items))
    shares = [range(k, len(items), n_processes) for k in range(n_processes)]
    done: dict[int, Any] = {}
    with Progress(show=show) as progress:
        progress.say(f"{len(items)} repetitions")
        if n_processes == 1:
            for number in shares[0]:
                done[number] = study(items[number], *arguments)
                progress.say(f"{len(done)} of {len(items)} repetitions")
        else:
            run = joblib.Parallel(n_processes, return_as="generator_unordered")
            jobs = (joblib.delayed(_share)(study, [(k, items[k]) for k in share], arguments) for share in shares)
            for results in run(jobs):
                done |= results
                progress.say(f"{len(done)} of {len(items)} repetitions, {n_processes} processes")
    return [done[number] for number in range(len(items))]


def _share(study: Callable[..., Any], items: list[tuple[int, Any]], arguments: tuple[Any, ...]) -> dict[int, Any]:
    with at_most(1):  # the other cores have shares of their own
        return {number: study(item, *arguments) for number, item in items}
