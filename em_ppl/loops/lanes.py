"""What the code that `em_ppl.loops.wide` writes calls: functions of eight numbers at a time.

They mean what those of `math`, and of `em_ppl.loops.machine`, mean. Exponentials and logarithms are series, since the
processor has none: within a unit of the last digit.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from em_ppl.loops.machine import within
from em_ppl.loops.vectors import (
    ROUNDING,
    add,
    and_,
    ceil,
    choose,
    cos,
    divide,
    equal,
    exponent,
    fabs,
    floor,
    greater,
    greater_equal,
    lane,
    less,
    less_equal,
    load,
    mantissa,
    multiply,
    multiply_add,
    negative,
    not_,
    not_equal,
    or_,
    sin,
    sqrt,
    store,
    subtract,
    times_two_to,
    wide,
    xor,
)

__all__ = [
    "add",
    "and_",
    "ceil",
    "choose",
    "clip",
    "cos",
    "divide",
    "each1",
    "each2",
    "each3",
    "equal",
    "exp",
    "expm1",
    "fabs",
    "float64",
    "floor",
    "greater",
    "greater_equal",
    "isinf",
    "isnan",
    "lane",
    "less",
    "less_equal",
    "load",
    "log",
    "log1mexp",
    "log1p",
    "maximum",
    "minimum",
    "multiply",
    "negative",
    "not_",
    "not_equal",
    "or_",
    "power",
    "sigmoid",
    "sign",
    "sin",
    "softplus",
    "sqrt",
    "store",
    "subtract",
    "tanh",
    "wide",
    "xor",
]


@within
def each1(function: Any, m: Any, spare: Any, a: Any) -> Any:
    """Call a function of floats for each of the first m lanes; `spare` has room for a number of each lane."""
    for k in range(m):
        spare[k] = function(lane(a, k))
    return load(spare, ())


@within
def each2(function: Any, m: Any, spare: Any, a: Any, b: Any) -> Any:
    """`each1` of a function of two numbers."""
    for k in range(m):
        spare[k] = function(lane(a, k), lane(b, k))
    return load(spare, ())


@within
def each3(function: Any, m: Any, spare: Any, a: Any, b: Any, c: Any) -> Any:
    """`each1` of a function of three numbers."""
    for k in range(m):
        spare[k] = function(lane(a, k), lane(b, k), lane(c, k))
    return load(spare, ())


# --- choices --------------------------------------------------------------------------------------------------------


@within
def maximum(a: Any, b: Any) -> Any:
    """Return the larger one; NaN, if one is."""
    return choose((b > a) | (b != b), b, a)


@within
def minimum(a: Any, b: Any) -> Any:
    """Return the smaller one; NaN, if one is."""
    return choose((b < a) | (b != b), b, a)


@within
def clip(x: Any, low: Any, high: Any) -> Any:
    """Keep x between two bounds."""
    return choose(x < low, low, choose(x > high, high, x))


@within
def sign(x: Any) -> Any:
    """Return -1, 0 or 1; NaN, if it is."""
    return choose(x > 0.0, 1.0, choose(x < 0.0, -1.0, x))


@within
def isnan(x: Any) -> Any:
    """Whether it is NaN."""
    return x != x


@within
def isinf(x: Any) -> Any:
    """Whether it is infinite."""
    return fabs(x) == np.inf


@within
def float64(x: Any) -> Any:
    """Return 1 where it holds, else 0; or the float that it is."""
    return x * 1.0


# --- series ---------------------------------------------------------------------------------------------------------

_LOG2_E = math.log2(math.e)
_LN2, _LN2_REST = 0.6931471228599548, 5.7699990475432854e-08  # 24 digits, whose product with an exponent is exact
_E2, _E3, _E4, _E5, _E6, _E7, _E8, _E9, _E10, _E11, _E12, _E13 = (1 / math.factorial(k) for k in range(2, 14))
_SMALLEST, _LOG_LARGEST = float(np.finfo(float).tiny), math.log(np.finfo(float).max)


@within
def _parts(x: Any) -> Any:
    """Return k + ROUNDING, k being whole, and exp(r) - 1, for x = k log 2 + r and the smallest r; Taylor's series."""
    rounded = multiply_add(x, _LOG2_E, ROUNDING)
    k = rounded - ROUNDING
    r = multiply_add(k, -_LN2_REST, multiply_add(k, -_LN2, x))
    r2 = r * r
    r4 = r2 * r2
    low = multiply_add(r2, multiply_add(r, _E5, _E4), multiply_add(r, _E3, _E2))
    middle = multiply_add(r2, multiply_add(r, _E9, _E8), multiply_add(r, _E7, _E6))
    high = multiply_add(r2, multiply_add(r, _E13, _E12), multiply_add(r, _E11, _E10))
    return rounded, multiply_add(r2, multiply_add(r4, multiply_add(r4, high, middle), low), r)


@within
def exp(x: Any) -> Any:
    """Exponential."""
    k, less_one = _parts(choose(x < -746.0, -746.0, x))
    tiny = x < -708.0  # of what follows a power of two, the result has not all digits
    result = times_two_to(1.0 + less_one, k + choose(tiny, 64.0, 0.0)) * choose(tiny, 2.0**-64, 1.0)
    return choose(x <= _LOG_LARGEST, result, x * np.inf)


@within
def expm1(x: Any) -> Any:
    """Return exp(x) - 1, precise near 0."""
    k, less_one = _parts(x)
    return choose(k == ROUNDING, less_one, exp(x) - 1.0)


@within
def _above_log(f: Any) -> Any:
    """Return f - log(1 + f), for 1 + f from sqrt(1/2) to sqrt(2)."""
    # log(1 + f) = 2 artanh(s) = 2 s (1 + s^2 / 3 + s^4 / 5 + ...), of which 2 s = f - s f
    s = f / (2.0 + f)
    z = s * s
    z2 = z * z
    z4 = z2 * z2
    low = multiply_add(z2, multiply_add(z, 2 / 9, 2 / 7), multiply_add(z, 2 / 5, 2 / 3))
    middle = multiply_add(z2, multiply_add(z, 2 / 17, 2 / 15), multiply_add(z, 2 / 13, 2 / 11))
    high = multiply_add(z2, 2 / 23, multiply_add(z, 2 / 21, 2 / 19))
    return s * (f - z * multiply_add(z4, multiply_add(z4, high, middle), low))


@within
def log(x: Any) -> Any:
    """Logarithm."""
    tiny = x < _SMALLEST
    larger = choose(tiny, x * 2.0**54, x)
    f, e = mantissa(larger) - 1.0, exponent(larger) - choose(tiny, 54.0, 0.0)
    result = multiply_add(e, _LN2, f - multiply_add(e, -_LN2_REST, _above_log(f)))
    return choose(x > 0.0, choose(x == np.inf, x, result), choose(x == 0.0, -np.inf, np.nan))


@within
def log1p(x: Any) -> Any:
    """Return log(1 + x), precise near 0."""
    u = 1.0 + x
    lost = choose((u > 0.0) & (u < np.inf), ((u - 1.0) - x) / u, 0.0)
    return log(u) - lost


@within
def power(x: Any, y: Any) -> Any:
    """Return x ** y."""
    x, y = wide(x), wide(y)
    size = choose((y == 0.0) | (x == 1.0), 1.0, exp(y * log(fabs(x))))
    whole, odd = floor(y) == y, floor(0.5 * y) != 0.5 * y
    of_negative = choose(whole, choose(odd, -1.0, 1.0), choose(x == -np.inf, 1.0, np.nan))
    return choose(x < 0.0, of_negative, 1.0) * size


@within
def tanh(x: Any) -> Any:
    """Hyperbolic tangent."""
    t = expm1(-2.0 * fabs(x))
    return choose(x < 0.0, 1.0, -1.0) * t / (2.0 + t)


@within
def sigmoid(x: Any) -> Any:
    """Return 1 / (1 + exp(-x))."""
    t = exp(negative(fabs(x)))  # as below: it is computed once for both
    return choose(x < 0.0, t, 1.0) / (1.0 + t)


@within
def softplus(x: Any) -> Any:
    """Return log(1 + exp(x))."""
    t = exp(negative(fabs(x)))
    large = t > math.sqrt(2) - 1
    f = choose(large, 0.5 * (t - 1.0), t)  # log(1 + t) = log(2) + log(1 + f)
    return maximum(x, 0.0) + (choose(large, math.log(2), 0.0) + (f - _above_log(f)))


@within
def log1mexp(x: Any) -> Any:
    """Return log(1 - exp(x)), x < 0."""
    return choose(x < -math.log(2), log1p(negative(exp(x))), log(negative(expm1(x))))
