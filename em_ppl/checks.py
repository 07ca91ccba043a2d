"""Checks of arguments that many functions take."""

from __future__ import annotations

import numbers
from typing import Any

__all__ = ["check_counts"]


def check_counts(**counts: Any) -> None:
    """Raise ValueError for an argument that is no positive whole number."""
    for name, number in counts.items():
        if not isinstance(number, numbers.Integral) or number < 1:
            raise ValueError(f"{name}={number!r} must be a whole number, at least 1.")
