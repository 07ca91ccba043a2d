"""Independent pieces of work, one after the other or in several processes, with progress."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import joblib

from em_ppl.progress import Progress

__all__ = ["in_processes"]


def in_processes(
    study: Callable[..., Any], items: Sequence[Any], arguments: tuple[Any, ...], n_jobs: int, *, show: bool
) -> list[Any]:
    """Return ``study(item, *arguments)`` of every item, in order.

    Each process is sent its share of the items at once, so that it compiles what came with them once.
    """
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
    return {number: study(item, *arguments) for number, item in items}
