"""Work in portions on the cores of this machine, in threads: machine code holds no lock of Python's."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from functools import cache
from typing import TypeVar

__all__ = ["at_most", "cores_in_use", "in_threads"]

Portion = TypeVar("Portion")

_limit: ContextVar[int | None] = ContextVar("cores", default=None)


@contextmanager
def at_most(cores: int | None) -> Iterator[None]:
    """Use no more than so many cores; None changes nothing."""
    if cores is None:
        yield
        return
    token = _limit.set(cores)
    try:
        yield
    finally:
        _limit.reset(token)


def cores_in_use() -> int:
    """Return the number of cores that work is spread over: all that this process may use, or the limit."""
    return _limit.get() or _available()


@cache
def _available() -> int:
    import joblib

    return int(joblib.cpu_count())  # it knows of affinities, and of the limits of containers


def in_threads(work: Callable[[Portion], None], portions: Sequence[Portion]) -> None:
    """Do each portion of the work, at the same time, as if here; what one raises is raised."""
    if len(portions) == 1:
        work(portions[0])
        return
    first, *others = portions
    waiting = [_pool(os.getpid(), _available()).submit(copy_context().run, work, portion) for portion in others]
    try:
        work(first)
    finally:
        for future in waiting:
            future.exception()
    for future in waiting:
        future.result()


@cache
def _pool(process: int, cores: int) -> ThreadPoolExecutor:
    """Keep threads from one call to the next; a process that was forked needs its own."""
    return ThreadPoolExecutor(cores, thread_name_prefix="em_ppl")
