"""Checks of arguments that many functions take."""

from __future__ import annotations

import numbers
from typing import Any, get_args

__all__ = ["check_choices", "check_counts", "check_numbers", "check_positive"]


def check_choices(**choices: tuple[Any, Any]) -> None:
    """Raise ValueError for an argument, given with its `Literal` type, that is none of its choices."""
    for name, (value, kind) in choices.items():
        if not isinstance(value, str) or value not in get_args(kind):
            raise ValueError(f"{name}={value!r} is not one of {', '.join(map(repr, get_args(kind)))}.")


def check_counts(**counts: Any) -> None:
    """Raise ValueError for an argument that is no positive whole number."""
    for name, number in counts.items():
        if not isinstance(number, numbers.Integral) or number < 1:
            raise ValueError(f"{name}={number!r} must be a whole number, at least 1.")


def check_positive(**values: Any) -> None:
    """Raise ValueError for an argument that is no positive finite number."""
    for name, value in values.items():
        if not isinstance(value, numbers.Real) or not 0 < float(value) < float("inf"):
            raise ValueError(f"{name}={value!r} must be a positive number.")


def check_numbers(tol: float, max_iter: int, random_seed: int) -> None:
    """Raise ValueError for what cannot steer an iteration."""
    if not isinstance(tol, numbers.Real) or not 0 < tol < 1:
        raise ValueError(f"tol={tol!r} must be a number between 0 and 1.")
    check_counts(max_iter=max_iter)
    if not isinstance(random_seed, numbers.Integral) or random_seed < 0:
        raise ValueError(f"random_seed={random_seed!r} must be a whole number, at least 0.")
