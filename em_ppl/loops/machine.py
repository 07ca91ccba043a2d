"""Scalar functions that `em_ppl.loops` calls in what it writes; numba compiles them into it.

They are functions because numba takes long over code with many branches, and these have theirs outside of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeVar

import numba

__all__ = ["choose", "clip", "log1mexp", "maximum", "minimum", "sigmoid", "sign", "softplus"]

Function = TypeVar("Function", bound=Callable[..., Any])


def within(function: Function) -> Function:
    """Compile a function for calls from machine code only: what Python or C would call it by takes long to make."""
    settings = {"error_model": "numpy", "no_cpython_wrapper": True, "no_cfunc_wrapper": True}
    return numba.njit(**settings)(function)  # type: ignore[no-any-return, call-overload]


@within
def choose(condition: Any, a: Any, b: Any) -> Any:
    """Return a where the condition holds, else b."""
    return a if condition else b


@within
def maximum(a: Any, b: Any) -> Any:
    """Return the larger one; NaN, if one is."""
    return b if b > a or b != b else a


@within
def minimum(a: Any, b: Any) -> Any:
    """Return the smaller one; NaN, if one is."""
    return b if b < a or b != b else a


@within
def clip(x: Any, low: Any, high: Any) -> Any:
    """Keep x between two bounds."""
    return low if x < low else (high if x > high else x)


@within
def sign(x: Any) -> Any:
    """Return -1, 0 or 1; NaN, if it is."""
    return x if x != x else (1.0 if x > 0 else (-1.0 if x < 0 else 0.0))


@within
def sigmoid(x: Any) -> Any:
    """Return 1 / (1 + exp(-x))."""
    return 1.0 / (1.0 + math.exp(-x))


@within
def softplus(x: Any) -> Any:
    """Return log(1 + exp(x))."""
    if x < -37.0:
        return math.exp(x)
    if x < 18.0:
        return math.log1p(math.exp(x))
    return x + math.exp(-x) if x < 33.3 else float(x)


@within
def log1mexp(x: Any) -> Any:
    """Return log(1 - exp(x)), x < 0."""
    return math.log1p(-math.exp(x)) if x < -0.6931471805599453 else math.log(-math.expm1(x))
