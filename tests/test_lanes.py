"""Eight numbers at a time: what their functions compute, and which code can be written for them."""

import math
import operator

import numba
import numpy as np
import pytest
from scipy import special

from em_ppl.loops import lanes, wide
from em_ppl.loops.wide import LANES, NotWide, widen

SPECIAL = np.array(
    [0.0, 1.0, -1.0, np.inf, -np.inf, np.nan, 1e308, -1e308, 1e-308, 5e-324, 709.7, 710.0, -708.0, -745.0]
)
NUMBERS = np.random.default_rng(1).normal(scale=3.0, size=1000)
POSITIVE = np.exp(np.random.default_rng(2).uniform(-700, 700, size=1000))
NEAR_0 = np.random.default_rng(3).normal(scale=1e-6, size=200)


def of_lanes(function, *columns):
    """Call a function of lanes for each row of eight."""
    n = len(columns)

    @numba.njit(error_model="numpy")
    def call(arguments, results):
        for k in range(arguments.shape[1]):
            if n == 1:
                lanes.store(results, (k,), function(lanes.load(arguments, (0, k))))
            else:
                lanes.store(results, (k,), function(lanes.load(arguments, (0, k)), lanes.load(arguments, (1, k))))

    size = len(columns[0])
    rows = np.stack([np.resize(column, (-(-size // LANES), LANES)) for column in columns])
    results = np.empty(rows.shape[1:])
    call(rows, results)
    return results.ravel()[:size]


FUNCTIONS = {
    "exp": (np.exp, np.concatenate([NUMBERS, 200 * NUMBERS, SPECIAL])),
    "expm1": (np.expm1, np.concatenate([NUMBERS, NEAR_0, SPECIAL])),
    "log": (np.log, np.concatenate([POSITIVE, 1 + NEAR_0, SPECIAL])),
    "log1p": (np.log1p, np.concatenate([POSITIVE, NEAR_0, SPECIAL])),
    "tanh": (np.tanh, np.concatenate([NUMBERS, NEAR_0, SPECIAL])),
    # SciPy's is 0 where the result is denormal
    "sigmoid": (lambda x: np.exp(np.minimum(x, 0)) / (1 + np.exp(-np.abs(x))), np.concatenate([NUMBERS, SPECIAL])),
    "softplus": (lambda x: np.logaddexp(0.0, x), np.concatenate([NUMBERS, SPECIAL])),
    "log1mexp": (lambda x: np.where(x < -1, np.log1p(-np.exp(x)), np.log(-np.expm1(x))), -np.abs(NUMBERS)),
    "sqrt": (np.sqrt, np.concatenate([POSITIVE, SPECIAL])),
    "sin": (np.sin, NUMBERS),
    "cos": (np.cos, NUMBERS),
    "fabs": (np.abs, np.concatenate([NUMBERS, SPECIAL])),
    "negative": (np.negative, np.concatenate([NUMBERS, SPECIAL])),
    "floor": (np.floor, np.concatenate([NUMBERS, SPECIAL])),
    "ceil": (np.ceil, np.concatenate([NUMBERS, SPECIAL])),
    "sign": (np.sign, np.concatenate([NUMBERS, SPECIAL])),
    "isnan": (np.isnan, SPECIAL),
    "isinf": (np.isinf, SPECIAL),
}
PAIRS = np.array(np.meshgrid([*SPECIAL, *NUMBERS[:10]], [*SPECIAL, *NUMBERS[10:20]])).reshape(2, -1)
FUNCTIONS_OF_TWO = {
    "add": np.add,
    "subtract": np.subtract,
    "multiply": np.multiply,
    "divide": np.divide,
    "less": np.less,
    "less_equal": np.less_equal,
    "greater": np.greater,
    "greater_equal": np.greater_equal,
    "equal": np.equal,
    "not_equal": np.not_equal,
    "maximum": np.maximum,
    "minimum": np.minimum,
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_are_numpy_s_to_a_few_units_of_the_last_digit(name):
    expected, x = FUNCTIONS[name]
    with np.errstate(all="ignore"):
        np.testing.assert_allclose(of_lanes(getattr(lanes, name), x), expected(x), rtol=2e-15, atol=0)


@pytest.mark.parametrize("name", FUNCTIONS_OF_TWO)
def test_functions_of_two_are_numpy_s(name):
    with np.errstate(all="ignore"):
        expected = FUNCTIONS_OF_TWO[name](*PAIRS)
        np.testing.assert_array_equal(of_lanes(getattr(lanes, name), *PAIRS), expected)


@pytest.mark.parametrize("symbol", ["add", "sub", "mul", "truediv", "lt", "le", "gt", "ge", "eq", "ne"])
def test_symbols_do_what_the_functions_do(symbol):
    function = getattr(operator, symbol)
    with np.errstate(all="ignore"):
        np.testing.assert_array_equal(of_lanes(function, *PAIRS), function(*PAIRS))


def test_a_power_is_numpy_s():
    """Not at -0, whose powers are those of 0 here; an exponent multiplies what the logarithm is off by."""
    x, y = np.array(
        np.meshgrid(
            [0.0, 1.0, 2.0, -2.0, -1.5, np.inf, -np.inf, np.nan, 1e-300, 0.3], [0.0, 2.0, 3.0, -1.0, -2.0, 1.3, -0.7]
        )
    ).reshape(2, -1)
    with np.errstate(all="ignore"):
        np.testing.assert_allclose(of_lanes(lanes.power, x, y), np.power(x, y), rtol=2e-13)
        of_numbers = of_lanes(lanes.power, np.abs(NUMBERS[:500]), NUMBERS[500:])
        np.testing.assert_allclose(of_numbers, np.abs(NUMBERS[:500]) ** NUMBERS[500:], rtol=1e-14)


def test_truth_values_and_choices():
    @numba.njit
    def call(x, results):
        a, b = lanes.load(x, (0,)), lanes.load(x, (1,))
        up, on = a > 0.0, b > 0.0
        lanes.store(results, (0,), lanes.choose(up & on, a, b))
        lanes.store(results, (1,), lanes.choose(up | True, a, b))
        lanes.store(results, (2,), lanes.choose(up ^ on, 1.0, b))
        lanes.store(results, (3,), lanes.choose(lanes.not_(up), a, 2))
        lanes.store(results, (4,), lanes.choose(x[0, 0] > 1e9, a, b))  # one condition for all
        lanes.store(results, (5,), lanes.choose(lanes.choose(up, on, False), a, b))
        lanes.store(results, (6,), up * on)
        lanes.store(results, (7,), up + on)
        lanes.store(results, (8,), up * 3.0 + lanes.wide(True))
        lanes.store(results, (9,), lanes.float64(up) - on)

    x, results = NUMBERS[:16].reshape(2, 8).copy(), np.empty((10, LANES))
    call(x, results)
    a, b = x
    up, on = a > 0, b > 0
    expected = [np.where(up & on, a, b), a, np.where(up ^ on, 1.0, b), np.where(up, 2.0, a), b]
    expected += [np.where(up & on, a, b), up & on, up | on, up * 3.0 + 1, 1.0 * up - on]
    np.testing.assert_array_equal(results, expected)


def test_a_function_without_lanes_is_called_for_those_in_use():
    @numba.njit
    def call(x, spare, results):
        lanes.store(results, (0,), lanes.each1(math.erf, 3, spare, lanes.load(x, (0,))))
        lanes.store(results, (1,), lanes.each2(math.atan2, 8, spare, lanes.load(x, (0,)), 0.5))

    x, results = NUMBERS[:8].reshape(1, 8).copy(), np.empty((2, LANES))
    call(x, np.full(LANES, 7.0), results)
    np.testing.assert_allclose(results[0], [*special.erf(x[0, :3]), *[7.0] * 5], rtol=1e-15)
    np.testing.assert_allclose(results[1], np.arctan2(x[0], 0.5), rtol=1e-15)


@pytest.mark.parametrize("name", ["exp", "log1p", "power"])
def test_no_lane_hangs_on_another(name):
    function, x = getattr(lanes, name), np.abs(NUMBERS[:8])
    columns = [x, np.full(8, 0.7)][: 1 + (name == "power")]
    together = of_lanes(function, *columns)
    for k in range(8):
        others = SPECIAL[:8].copy()
        others[k] = x[k]
        assert of_lanes(function, others, *columns[1:])[k] == together[k]


# ---- what is written


def test_all_that_is_written_is_there():
    written = {*wide._OPERATORS.values(), *wide._FUNCTIONS - {"abs"}, "fabs", "each1", "each2", "each3"}
    assert written | {"lane", "load", "store", "wide"} == set(lanes.__all__)


def test_what_hangs_on_data_alone_remains_one_number():
    lines = [
        "b1 = np.empty((n, 2), dtype=np.float64)",
        "b2 = np.empty((n,), dtype=np.int64)",
        "s3 = 0.0",
        "for i4 in range(n):",
        "    v5 = c0[s, i4]",
        "    b2[i4] = v5 + 1",
        "    v6 = x[r, 0]",
        "    b1[i4, v5] = v6 * v5",
        "    b1[i4, 0] += v6",
        "    s3 = s3 + b1[i4, v5]",
        "out0[r] = s3",
    ]
    assert widen(lines) == [
        "b1 = np.empty((n, 2, 8))",
        "b2 = np.empty((n,), dtype=np.int64)",
        "s3 = lanes.wide(0.0)",
        "for i4 in range(n):",
        "    v5 = c0[s, i4]",
        "    b2[i4] = v5 + 1",
        "    v6 = lanes.load(rows, (0,))",
        "    lanes.store(b1, (i4, v5), lanes.multiply(v6, v5))",
        "    lanes.store(b1, (i4, 0), lanes.add(lanes.load(b1, (i4, 0)), v6))",
        "    s3 = lanes.add(s3, lanes.load(b1, (i4, v5)))",
        "for l in range(m):",
        "    out0[r + l] = lanes.lane(s3, l)",
    ]


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        (["v1 = x[r, 0]", "v2 = c0[v1]"], "a place or a condition hangs on parameters: v1"),
        (["v1 = x[r, 0]", "b2 = np.empty((3,), dtype=np.float64)", "b2[v1] = 1.0"], "a place or a condition"),
        (["v1 = x[r, 0]", "b2 = np.empty((3,), dtype=np.float64)", "b2[v1] += 1.0"], "a place or a condition"),
        (["v1 = x[r, 0] > 0.0", "if v1:", "    raise ValueError('no')"], "a place or a condition hangs on parameters"),
        (["v1 = x[r, 0]", "for i2 in range(v1):", "    v3 = 1.0"], "a place or a condition hangs on parameters"),
        (["v1 = x[r, 0]", "b2 = np.empty((3,), dtype=np.int64)", "b2[0] = v1"], "whole numbers"),
        (["v1 = x[r, 0]", "v2 = np.int64(v1)"], r"np.int64\(v1\) hangs on parameters"),
        (["v1 = x[r, 0]", "v2 = v1 // 2"], "v1 // 2 has no lanes"),
    ],
)
def test_what_has_no_lanes_says_so(lines, reason):
    with pytest.raises(NotWide, match=reason):
        widen(lines)
