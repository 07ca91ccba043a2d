"""Checks of arguments that many functions take."""

from __future__ import annotations

import numbers
from typing import Any

__all__ = ["check_counts", "check_positive"]


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
