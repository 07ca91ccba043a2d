"""Loops over numbers give what PyTensor gives for the same graph of one subject: value and gradient."""

import itertools
import math
import os
import re
from types import FunctionType, SimpleNamespace

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest
from scipy import special
from test_batching import DATA, FLOATS, GRAPHS, PYTHON, TYPES, N, T, rescorla_wagner, scan

from em_ppl.kernels import compile_kernel, write_source
from em_ppl.loops import NotWritable, machine
from em_ppl.loops.code import Array
from em_ppl.loops.lengths import fold
from em_ppl.loops.scans import _first_row
from em_ppl.loops.wide import LANES
from em_ppl.model import Column
from em_ppl.subjects import Subjects

pytestmark = pytest.mark.usefixtures("interpreted")

PARAMETERS = ("alpha", "beta")
KINDS = {
    name: Column(t.dtype, name != "shared", None in t.shape, tuple(n for n in t.shape if n is not None))
    for name, t in TYPES.items()
    if name not in PARAMETERS
}
# What is left to PyTensor, with the reason.
UNWRITTEN = {
    "closes_over_numbers": "shared variable",
    "mask_index": "mask",
    "linear_algebra": "not written as loops",
}


# Kernels are called as plain Python, which is quicker than to compile them.
PLAIN = {"math": math, "np": np}
PLAIN |= {name: FunctionType(getattr(machine, name).py_func.__code__, PLAIN) for name in machine.__all__}


def call_each(function, m, spare, *arguments):
    spare[:m] = [function(*each) for each in itertools.islice(np.broadcast(*arguments), m)]
    return spare.copy()


# What has lanes is an array here.
PLAIN["lanes"] = SimpleNamespace(
    **{name: getattr(np, name) for name in ("add", "subtract", "multiply", "divide", "power", "negative", "fabs")},
    **{name: getattr(np, name) for name in ("less", "less_equal", "greater", "greater_equal", "equal", "not_equal")},
    **{name: getattr(np, name) for name in ("exp", "expm1", "log", "log1p", "sin", "cos", "tanh", "sqrt", "sign")},
    **{name: getattr(np, name) for name in ("floor", "ceil", "isnan", "isinf", "maximum", "minimum", "clip")},
    and_=np.logical_and,
    or_=np.logical_or,
    xor=np.logical_xor,
    not_=np.logical_not,
    choose=np.where,
    float64=np.float64,
    sigmoid=special.expit,
    softplus=lambda x: np.logaddexp(0, x),
    log1mexp=lambda x: np.log(-np.expm1(x)),
    wide=lambda value: np.full(LANES, value),
    lane=lambda value, k: value[k] if np.ndim(value) else value,
    load=lambda array, index: array[index].copy(),
    store=lambda array, index, value: array.__setitem__(index, value),
    each1=call_each,
    each2=call_each,
    each3=call_each,
)


def scalars_and_slopes(graph):
    """Return inputs, and of a graph a number with its gradient by everything."""
    one = {name: t(name) for name, t in TYPES.items()}
    out = graph(SimpleNamespace(**one))
    cost = (out * pt.sin(out)).sum() if out.dtype == "float64" else out.sum().astype("float64")
    return one, [cost, *pytensor.grad(cost, [one[name] for name in FLOATS], disconnected_inputs="ignore")]


def written(graph, *, lanes=False, **settings):
    """Write the kernel of a graph; outputs by trial where the input is, which are left out where there are lanes."""
    one, outputs = scalars_and_slopes(graph)
    by_trial = [False, *(None in TYPES[name].shape for name in FLOATS)]
    if lanes:
        outputs = [output for output, trials in zip(outputs, by_trial, strict=True) if not trials]
        by_trial = [False] * len(outputs)
    columns = [(one[name], kind) for name, kind in KINDS.items()]
    return one, outputs, write_source([one[name] for name in PARAMETERS], columns, outputs, by_trial, **settings)


def run(source, index, n_trials):
    """Call a kernel as it stands."""
    names = dict(PLAIN)
    exec(source.text, names)
    outputs = [
        np.full((len(index), *[T] * by_trial, *shape), np.nan, dtype) for by_trial, shape, dtype in source.outputs
    ]
    x = np.column_stack([DATA[name] for name in PARAMETERS])[index]
    with np.errstate(all="ignore"):
        names["kernel"](index, x, n_trials, *(DATA[name] for name in KINDS), *outputs)
    return outputs


@pytest.mark.parametrize("lanes", [False, True])
@pytest.mark.parametrize("graph", GRAPHS, ids=lambda g: g.__name__)
def test_loops_equal_pytensor(graph, lanes):
    """Three subjects, of whom one is asked about three times and one has fewer trials than there is room for."""
    if graph.__name__ in UNWRITTEN:
        with pytest.raises(NotWritable, match=UNWRITTEN[graph.__name__]):
            written(graph, lanes=lanes)
        return
    shorter = T if graph.__name__ == "counter_as_index" else T - 2  # that one counts to T whatever the length
    assert_equal_to_pytensor(graph, lanes, shorter)


def assert_equal_to_pytensor(graph, lanes, shorter=T - 2):
    one, outputs, source = written(graph, lanes=lanes)
    assert source.wide == lanes
    function = pytensor.function(list(one.values()), outputs, mode=PYTHON, on_unused_input="ignore")
    index, n_trials = np.array([2, 0, 1, 2, 2]), np.array([T, shorter, T])
    results = run(source, index, n_trials)
    for row, subject in enumerate(index):
        n = n_trials[subject]
        values = {name: x if name == "shared" else x[subject] for name, x in DATA.items()}
        cut = [x[:n] if None in TYPES[name].shape else x for name, x in values.items()]
        names = ["value", *(name for name in FLOATS if not (lanes and None in TYPES[name].shape))]
        for name, expected, result in zip(names, function(*cut), results, strict=True):
            mine = result[row, :n] if None in getattr(TYPES.get(name), "shape", ()) else result[row]
            np.testing.assert_allclose(mine, expected, rtol=1e-10, atol=1e-12, err_msg=name)


# what a step of a random program does to a table, (trial, 2), and a series, (trial,), of one subject
STEPS = [
    lambda x, y, v, t: (pt.inc_subtensor(x[t, v.choice], y), y),
    lambda x, y, v, t: (pt.set_subtensor(x[t, v.choice], y), y),
    lambda x, y, v, t: (pt.inc_subtensor(x[t, v.choice], x[t, 1 - v.choice]), y),
    lambda x, y, v, t: (pt.inc_subtensor(x[t, v.state % 2], x[::-1][:, 0]), y),
    lambda x, y, v, t: (pt.inc_subtensor(x[v.state], x), y),
    lambda x, y, v, t: (pt.inc_subtensor(x[1:], x[:-1]), y),
    lambda x, y, v, t: (pt.set_subtensor(x[:-1], x[1:]), y),
    lambda x, y, v, t: (pt.inc_subtensor(x[2:4], x[:2]), y),
    lambda x, y, v, t: (pt.set_subtensor(x[:, 1], y), y),
    lambda x, y, v, t: (pt.inc_subtensor(pt.set_subtensor(x[0, 0], y[1])[0 * t, 0 * t], y), y),
    lambda x, y, v, t: (pt.inc_subtensor(pt.set_subtensor(x[0, v.choice[0]], y[1])[0 * t, v.choice], y), y),
    lambda x, y, v, t: (x, pt.inc_subtensor(pt.zeros(2)[v.choice], y)[v.choice]),
    lambda x, y, v, t: (x, y + pt.inc_subtensor(pt.set_subtensor(pt.zeros(40)[3], y[0])[0 * t + 3], y)[3]),
    lambda x, y, v, t: (x[::-1], y),
    lambda x, y, v, t: (x + x.sum(axis=0) / 10, y),
    lambda x, y, v, t: (x / (1 + x**2), y),
    lambda x, y, v, t: (x, x[t, v.choice]),
    lambda x, y, v, t: (x, y + x.sum(axis=1)),
    lambda x, y, v, t: (x, pt.exp(-(y**2))),
    lambda x, y, v, t: (x, pt.log(1 + y**2)),
    lambda x, y, v, t: (x, pt.switch((y > -9).all(), y, 0.0) + y.mean()),
    lambda x, y, v, t: (x, pt.cumsum(y) / 5),
    lambda x, y, v, t: (x, y[::-1] * y),
    lambda x, y, v, t: (x, scan(lambda r, q, a: q + a * (r - q), [y], [pt.zeros(())], [v.alpha])),
]


@pytest.mark.parametrize("lanes", [False, True])
@pytest.mark.parametrize("seed", range(int(os.environ.get("EXAMPLES", "12"))))
def test_random_programs_equal_pytensor(seed, lanes):
    """Whichever loops take up which, and whatever is read again or not. More by `EXAMPLES=200 pytest ...`."""
    chosen = np.random.default_rng(seed).choice(len(STEPS), size=7)

    def program(v):
        x, y, before = v.features * v.beta, v.reward, []
        for step in chosen:
            x, y = STEPS[step](x, y, v, pt.arange(v.reward.shape[0]))
            before.append(y)
        return before[2] + y * x[:, 0] + x[:, 1]

    assert_equal_to_pytensor(program, lanes)


def test_a_trial_is_computed_in_one_go():
    """Rescorla-Wagner: both exponentials of the softmax in one loop, what follows from their logarithm in another.

    Nothing asks for memory in them; the logarithm of one trial does not wait for its exponentials.
    """
    text = written(rescorla_wagner)[2].text
    loops = re.split(r"^ {8}for i\d+ in range", text, flags=re.MULTILINE)[1:]
    assert [loop.count("math.exp") for loop in loops if "math.exp" in loop] == [2]
    assert not any("math.exp" in loop and "math.log" in loop for loop in loops)
    assert not any("np.empty" in line for line in text.split("\n") if line.startswith(" " * 12))
    assert len(loops) <= 7


def test_compiled_code_does_the_same():
    source = written(rescorla_wagner)[2]
    kernel = compile_kernel(source)
    subjects = Subjects({name: DATA[name] for name in KINDS}, {}, np.full(N, T), KINDS)
    index = np.array([1, 2, 0, 1])
    x = np.column_stack([DATA[name] for name in PARAMETERS])
    for mine, plain in zip(kernel(subjects, x[index], index), run(source, index, subjects.n_trials), strict=True):
        np.testing.assert_allclose(mine, plain, rtol=1e-12)


# ---- indices


def value_at(function, q, index):
    """Evaluate ``function(q, index)`` for each subject."""
    level, row, i = pt.dscalar(), pt.TensorType("float64", np.shape(q)[1:])(), pt.lscalar()
    columns = [(row, Column("float64", True, False, np.shape(q)[1:])), (i, Column("int64", True, False, ()))]
    out = function(row, i)
    source = write_source([level], columns, [out + 0 * level], [False])
    names = dict(PLAIN)
    exec(source.text, names)
    result = np.zeros((len(q), *source.outputs[0][1]))
    nothing = np.arange(len(q))
    names["kernel"](nothing, np.zeros((len(q), 1)), nothing + 1, q, np.array(index), result)
    return result


@pytest.mark.parametrize("length", [3, 40])
def test_negative_index_counts_from_the_end(length):
    q = np.tile(np.arange(1.0, length + 1), (4, 1))
    assert value_at(lambda q, i: q[i], q, [0, 2, -1, -length]).tolist() == [1, 3, length, 1]


@pytest.mark.parametrize("length", [3, 40])
@pytest.mark.parametrize(
    "function",
    [
        lambda q, i: q[i],
        lambda q, i: q[pt.stack([i, i - 1])],
        lambda q, i: pt.set_subtensor(q[i], 7.0),
        lambda q, i: pt.inc_subtensor(q[i], 7.0),
        lambda q, i: pt.inc_subtensor(q[pt.stack([i, 0])], 7.0),
    ],
    ids=["read", "read several", "set", "increment", "increment several"],
)
def test_index_out_of_range_is_nan_for_that_subject_alone(function, length):
    value = value_at(function, np.ones((3, length)), [1, length, -length - 1])
    assert np.isnan(value.reshape(3, -1)).any(axis=1).tolist() == [False, True, True]


def test_index_out_of_range_of_integers_raises():
    with pytest.raises(IndexError, match="an index, such as a choice, is out of range"):
        value_at(lambda q, i: q[i % 3] * pt.arange(3)[i], np.ones((2, 3)), [0, 3])


@pytest.mark.parametrize(
    "function",
    [
        lambda y: pt.set_subtensor(y[1:], y).sum(),
        lambda y: pt.inc_subtensor(y[:-2], y[1:]).sum(),
        lambda y: (y[1:] + y).sum(),
    ],
    ids=["set", "increment", "add"],
)
def test_arrays_that_do_not_fit_raise(function):
    """Nothing is read or written beyond the end."""
    level, y = pt.dscalar(), pt.dvector()
    source = write_source([level], [(y, Column("float64", True, True, ()))], [function(y) + 0 * level], [False])
    names = dict(PLAIN)
    exec(source.text, names)
    with pytest.raises(ValueError, match="different length"):
        names["kernel"](np.array([0]), np.zeros((1, 1)), np.array([4]), np.ones((1, 4)), np.zeros(1))


def test_a_negative_whole_number_to_a_power():
    value = value_at(lambda q, i: pt.pow(pt.constant(-2), i) * q[0], np.ones((3, 3)), [0, 1, 2])
    assert value.tolist() == [1, -2, 4]


@pytest.mark.parametrize(
    "function",
    [
        lambda i: pt.inc_subtensor(pt.zeros(2)[0], i),
        lambda i: pt.set_subtensor(pt.zeros(2)[0], i),
        lambda i: pt.inc_subtensor(pt.zeros(2)[:1], pt.stack([i])),
    ],
    ids=["increment", "set", "increment several"],
)
def test_whole_numbers_among_floats_are_floats(function):
    """Their squares are not cut to 64 bits."""
    value = value_at(lambda q, i: function(i)[0] * function(i)[0], np.ones((2, 3)), [4_000_000_000, 3])
    assert value.tolist() == [1.6e19, 9.0]


def test_a_state_that_no_step_takes_from_the_one_before_is_in_memory_as_a_whole():
    """Its rows are not those behind a first one."""
    state = Array("float64", ("n",), str)
    assert _first_row(state, [0, 1], [1], "n") == 0
    assert _first_row(state, [-1], [0], "n") == 0
    for ins, outs in (([0], [0]), ([1], [1]), ([0, 1, 2], [1, 2]), ([-2, -1], [0])):
        assert _first_row(state, ins, outs, "n") is None
    assert _first_row(state, [-1], [0], "(n + 1)") is None  # longer than what steps write


# ---- whole numbers


@pytest.mark.parametrize("op", ["Add", "Sub", "Minimum", "Maximum", "LT", "LE", "GT", "GE", "EQ", "NEQ"])
def test_what_is_known_of_lengths_is_true_of_every_length(op):
    symbol = {"Add": "+", "Sub": "-", "LT": "<", "LE": "<=", "GT": ">", "GE": ">=", "EQ": "==", "NEQ": "!="}
    texts = ["n", "(n + 1)", "(n - 2)", "(2 * n - 3)", "(-1 * n + 2)", "0", "1", "-3", "i", "(i + 1)"]
    known = 0
    for x, y in itertools.product(texts, texts):
        result = fold(op, [x, y])
        if result is None:
            continue
        known += 1
        plain = f"{op[:3].lower()}({x}, {y})" if op.startswith("M") else f"{x} {symbol[op]} {y}"
        for n, i in itertools.product(range(1, 7), range(5)):
            assert eval(result, {"n": n, "i": i}) == eval(plain, {"n": n, "i": i}), (op, x, y, n, i)
    assert known > 40


@pytest.mark.parametrize(("op", "symbol"), [("IntDiv", "//"), ("Mod", "%"), ("Mul", "*")])
def test_what_is_known_of_places_in_a_reshaped_array_is_true_of_every_place(op, symbol):
    texts = ["n", "(n - 2)", "(4 * n + 0)", "(2 * n - 3)", "(-6 * n + 5)", "i", "(4 * i + 3)", "(6 * i - 1)", "7", "-3"]
    known = 0
    for x, y in itertools.product(texts, ["1", "2", "3", "4"]):
        if (result := fold(op, [x, y])) is None:
            continue
        known += 1
        for n, i in itertools.product(range(1, 7), range(5)):
            assert eval(result, {"n": n, "i": i}) == eval(f"{x} {symbol} {y}", {"n": n, "i": i}), (op, x, y, n, i)
    assert known >= 20


@pytest.mark.parametrize("shape", [(-1, 2, 2), (2, -1, 2), (-1,), (-1, 4), (2, 2, -1)])
def test_reshaped_arrays_are_read_where_they_are(shape):
    """(trial, 2) -> any shape of as many numbers; 6 trials, so that each divides them."""

    def graph(v):
        x = pt.concatenate([v.features[:4] * v.alpha, pt.outer(v.weights, v.shared)])
        return pt.exp(x.reshape(shape)) * pt.arange(12).reshape(shape)

    assert_equal_to_pytensor(graph, lanes=False)
