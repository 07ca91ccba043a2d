"""Work on some of the subjects at a time: what it is given is taken apart, and what it returns is put together.

Arrays come and go in C order, as they come out of another process: NumPy adds up in another order where the order in
memory is another.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["join", "span", "split", "take"]

Index = NDArray[np.intp]


def split(n_subjects: int, size: int) -> list[Index]:
    """Part subjects into portions in a row, of at most so many, as alike as can be."""
    edges = np.linspace(0, n_subjects, -(-n_subjects // size) + 1).astype(int)
    return [np.arange(start, stop) for start, stop in pairwise(edges)]


def span(subjects: Index) -> slice:
    """Return subjects in a row as a slice, by which an array is not copied."""
    return slice(int(subjects[0]), int(subjects[-1]) + 1)


def take(arguments: Sequence[Any], subjects: Index | None = None) -> list[Any]:
    """Take some subjects, or all, of arrays with a row each, and of what has a `take` of its own."""
    chosen = arguments if subjects is None else [_take(argument, subjects) for argument in arguments]
    return [np.ascontiguousarray(a) if isinstance(a, np.ndarray) else a for a in chosen]


def _take(argument: Any, subjects: Index) -> Any:
    return argument[subjects] if isinstance(argument, np.ndarray) else argument.take(subjects)


def join(parts: Sequence[Any]) -> Any:
    """Put arrays with a row per subject together, and tuples and dataclasses of such."""
    first, kind = parts[0], type(parts[0])
    if first is None:
        return None
    if isinstance(first, np.ndarray):
        return np.ascontiguousarray(np.concatenate(parts) if len(parts) > 1 else first)
    if is_dataclass(first):
        return kind(**{f.name: join([getattr(part, f.name) for part in parts]) for f in fields(first)})
    return tuple(join(column) for column in zip(*parts, strict=True))
