"""A batched graph gives what one subject at a time gives: value and gradient."""

from types import SimpleNamespace

import numpy as np
import pymc as pm
import pytensor
import pytensor.tensor as pt
import pytest
from pytensor.compile.builders import OpFromGraph
from pytensor.compile.mode import Mode
from pytensor.graph.replace import _vectorize_node
from pytensor.graph.traversal import ancestors
from pytensor.scan.op import Scan
from pytensor.scan.utils import until
from pytensor.tensor.blockwise import Blockwise

DISPATCH_BEFORE = _vectorize_node.dispatch(Scan)
from em_ppl.batching import NotBatchable, batch  # noqa: E402

pytestmark = pytest.mark.usefixtures("interpreted")

PYTHON = Mode("py", "minimum_compile")  # nothing is compiled: each graph takes well under a second
N, T = 3, 7
RNG = np.random.default_rng(7)

# The inputs of one subject; `shared` is the same for all of them.
TYPES = {
    "alpha": pt.TensorType("float64", ()),
    "beta": pt.TensorType("float64", ()),
    "weights": pt.TensorType("float64", (2,)),
    "reward": pt.TensorType("float64", (None,)),
    "features": pt.TensorType("float64", (None, 2)),
    "choice": pt.TensorType("int64", (None,)),  # 0 or 1
    "state": pt.TensorType("int64", (None,)),  # -3 to 2: negative indices count from the end
    "shared": pt.TensorType("float64", (2,)),
}
DATA = {
    "alpha": RNG.uniform(0.2, 0.8, N),
    "beta": RNG.normal(size=N),
    "weights": RNG.normal(size=(N, 2)),
    "reward": RNG.normal(size=(N, T)),
    "features": RNG.normal(size=(N, T, 2)),
    "choice": RNG.integers(0, 2, (N, T)),
    "state": RNG.integers(-3, 3, (N, T)),
    "shared": RNG.normal(size=2),
}
FLOATS = [name for name, type_ in TYPES.items() if type_.dtype == "float64"]


def scan(step, sequences=None, start=None, constants=None, **kwargs):
    return pytensor.scan(
        step,
        sequences=sequences,
        outputs_info=start,
        non_sequences=constants,
        return_updates=False,
        **kwargs,
    )


# ---- graphs of one subject. `v` holds its inputs.


def rescorla_wagner(v):
    """Write a learning model the natural way."""

    def learn(c, r, q, alpha):
        return pt.set_subtensor(q[c], q[c] + alpha * (r - q[c]))

    q = scan(learn, [v.choice, v.reward], [pt.zeros(2)], [v.alpha], strict=True)
    before = pt.concatenate([pt.zeros((1, 2)), q[:-1]])
    return pm.logp(pm.Categorical.dist(logit_p=v.beta * before), v.choice)


def several_sequences_and_states(v):
    def step(r, f, c, q, m, alpha, beta):
        return q + alpha * (r - q) * pt.eq(c, 1), m * beta + f * q

    q, m = scan(step, [v.reward, v.features, v.choice], [0.5 * v.alpha, v.weights], [v.alpha, v.beta])
    return q[:, None] * m


def two_taps(v):
    def step(r, two_ago, one_ago, alpha):
        return alpha * one_ago - 0.3 * two_ago + r

    start = {"initial": v.weights, "taps": [-2, -1]}
    return scan(step, [v.reward], [start], [v.alpha], strict=True)


def two_taps_shared_start(v):
    return scan(lambda r, a, b: a - b * r, [v.reward], [{"initial": v.shared, "taps": [-2, -1]}])


def only_the_older_tap(v):
    start = {"initial": pt.stack([v.weights, v.shared]), "taps": [-2]}
    return scan(lambda f, two_ago: pt.tanh(two_ago + f), [v.features], [start])


def sequence_taps(v):
    rewards = {"input": v.reward, "taps": [-1, 0, 1]}
    return scan(lambda before, r, after, q: 0.5 * q + before * r - after, [rewards], [v.beta])


def matrix_state(v):
    def step(f, m):
        return 0.5 * m + pt.outer(f, f)

    return scan(step, [v.features], [pt.eye(2)])


def matrix_product(v):
    def step(f, m, w):
        return pt.tanh(m @ m + pt.outer(f, w @ m))

    return scan(step, [v.features], [pt.eye(2)], [v.weights])


def integer_state(v):
    """Count runs of equal choices: the state is an integer."""

    def step(c, last, run):
        return c, pt.switch(pt.eq(c, last), run + 1, pt.zeros_like(run))

    _, run = scan(step, [v.choice], [pt.as_tensor(np.int64(0)), pt.as_tensor(np.int64(0))])
    return run * v.beta


def no_state(v):
    return scan(lambda r, c, w: w[c] * r, [v.reward, v.choice], [None], [v.weights])


def state_and_no_state(v):
    def step(r, q, alpha):
        return q + alpha * (r - q), pt.exp(q)

    q, e = scan(step, [v.reward], [v.shared[0], None], [v.alpha])
    return q + e


def shared_and_own_states(v):
    """Mix a state that depends on no subject with one that only starts so."""

    def step(r, decay, q, shared):
        return decay * 0.9 + shared[1], q + decay * r

    decay, q = scan(step, [v.reward], [v.shared[0], pt.zeros(())], [v.shared])
    return pt.stack([decay, q])


def a_state_reached_late(v):
    """Which states need the subject axis is known only after following them twice."""

    def step(r, a, b, c):
        return a + b, b * c, c + r

    return pt.stack(scan(step, [v.reward], [v.shared[0], v.shared[1], pt.zeros(())]))


def only_shared(v):
    return scan(lambda q, s: q * 0.5 + s, None, [pt.zeros(2)], [v.shared], n_steps=4)


def steps_without_sequences(v):
    return scan(lambda q, alpha: q * alpha + 1, None, [v.beta], [v.alpha], n_steps=5)


def counter_as_index(v):
    def step(t, q, rewards):
        return t + 1, q + rewards[t]

    _, q = scan(step, None, [pt.as_tensor(np.int64(0)), v.beta], [v.reward], n_steps=T)
    return q


def backwards(v):
    return scan(lambda r, q: 0.7 * q + r, [v.reward], [v.beta], go_backwards=True)


def not_strict(v):
    """Close over a subject's and a shared variable."""
    return scan(lambda r, q: q + v.alpha * (r - q) + v.shared[0], [v.reward], [v.beta])


def closes_over_numbers(v):
    offset = pytensor.shared(np.array([0.5, -1.0]))
    return scan(lambda r, q: q * r + offset, [v.reward], [v.weights])


def last_step(v):
    return scan(lambda r, q: 0.7 * q + r, [v.reward], [v.beta])[-1]


def scan_in_scan(v):
    def inner(w, total, r):
        return total + pt.tanh(w * r)

    def outer(r, q, weights, shared):
        return 0.5 * q + scan(inner, [weights * shared], [q], [r])[-1]

    return scan(outer, [v.reward], [v.beta], [v.weights, v.shared])


def scan_in_scan_set(v):
    def inner(k, w, r):
        return pt.set_subtensor(w[k], w[k] * r)

    def outer(r, c, w):
        return scan(inner, [pt.stack([c, c - 1])], [w], [r])[-1]

    return scan(outer, [v.reward, v.choice], [v.weights])


def two_step_table(v):
    """Set and increment a table by state and action, negative states included."""

    def step(s, c, r, q, e, alpha):
        e = pt.inc_subtensor((0.5 * e)[s, c], 1.0)
        q = pt.set_subtensor(q[s, c], (1 - alpha) * q[s, c] + alpha * r) + 0.1 * e
        return q, e

    start = [pt.zeros((3, 2)), pt.zeros((3, 2))]
    q, _ = scan(step, [v.state, v.choice, v.reward], start, [v.alpha], strict=True)
    return q


def row_of_a_table(v):
    def step(s, f, q, alpha):
        return pt.set_subtensor(q[s], q[s] + alpha * (f - q[s]))

    return scan(step, [v.state, v.features], [pt.zeros((3, 2))], [v.alpha], strict=True)


def column_of_a_table(v):
    def step(c, r, q):
        return pt.inc_subtensor(q[:, c], r * q[:, 1 - c] + 1)

    return scan(step, [v.choice, v.reward], [pt.ones((3, 2))])


def long_axis(v):
    """Index an axis too long for one-hot arithmetic, and integers, which have no NaN."""

    def step(s, r, q, n):
        n = pt.inc_subtensor(n[s], 1)
        return pt.set_subtensor(q[s], q[s] * 0.5 + r * n[s]), n

    start = [pt.zeros((30, 2)), pt.zeros(3, dtype="int64")]
    return scan(step, [v.state, v.reward], start)[0]


def unknown_length(v):
    """Index an axis of no static length."""
    start = pt.zeros_like(v.reward[:3])
    return scan(lambda s, r, q: pt.inc_subtensor(q[s], r + q[s]), [v.state, v.reward], [start])


def fixed_index_and_slices(v):
    def step(f, q):
        q = pt.set_subtensor(q[0], f)
        return pt.inc_subtensor(q[1:, 1], q[0, 0] * q[:2, 0])

    return scan(step, [v.features], [pt.ones((3, 2))])


def vector_index(v):
    return v.weights[v.choice] * v.shared[v.choice] + v.reward[::-1]


def index_by_trial_and_choice(v):
    return v.features[pt.arange(v.features.shape[0]), v.choice]


def index_then_slice(v):
    cube = v.features[:, None, :] * v.features[None, :, :]
    return cube[v.state, :, v.choice] + cube[v.choice][:, v.state].sum(axis=2)


def index_behind_a_slice(v):
    cube = v.features[:, None, :] * v.features[None, :, :]
    return pt.stack([cube[:, v.state].sum(axis=0), cube[:, :, v.choice][0].T[:, :2]])


def fixed_vector_index(v):
    order = np.array([1, 0, 1])
    cube = v.features[:, None, :] * v.features[None, :, :]
    return cube[order, :, order] + cube[:, order][..., order].sum(axis=0)[:, :1]


def mask_index(v):
    return v.weights[np.array([True, False])] + v.reward[np.arange(T) > 3]


def set_by_vector(v):
    x = pt.inc_subtensor(pt.zeros((3, 2))[v.state, v.choice], v.reward)
    x = pt.set_subtensor(x[np.array([0, 2])], v.weights)
    return pt.inc_subtensor(x[:, np.array([1, 1])], 2.0)


def set_behind_a_slice(v):
    x = pt.inc_subtensor(pt.zeros((2, 3))[:, v.state], v.features.T)
    return pt.set_subtensor(x[:, v.state[:1]], v.shared[:, None])


def set_in_a_shared_table(v):
    return pt.set_subtensor(pt.outer(v.shared, v.shared)[v.choice[0]], v.weights)


def switches(v):
    safe = pt.switch(v.reward > 0, v.reward, 1.0)
    return pt.switch(v.reward > 0, pt.log(safe), v.beta)


def joins_and_reshapes(v):
    x = pt.concatenate([v.shared, v.weights, v.reward])
    y = pt.stack([v.alpha, pt.constant(2.0), v.shared[0]])
    return pt.concatenate([x.reshape((-1, 1)), pt.tile(y, 2)[:, None], v.features[:, :1]])


def reductions_and_products(v):
    z = v.features @ v.weights + v.shared @ v.weights
    return pt.cumsum(z) + pt.logsumexp(z) + z.max() + (v.shared @ v.features.T)


def shapes_as_numbers(v):
    return v.reward / v.reward.shape[0] + pt.zeros(v.features.shape[1]).sum() + pt.ones_like(v.reward)


def op_from_graph(v):
    x, y = pt.vector(), pt.scalar()
    return OpFromGraph([x, y], [pt.exp(x * y), x.sum()])(v.reward, v.alpha)[0] + v.shared[0]


def scan_in_op_from_graph(v):
    x, y = pt.vector(), pt.scalar()
    total = scan(lambda r, q, y: q * y + r, [x], [pt.zeros(())], [y])
    return OpFromGraph([x, y], [total])(v.reward, v.alpha)


def linear_algebra(v):
    """Ordinary Ops that PyTensor wraps in a loop over subjects are right, if slow."""
    a = pt.eye(2) * 3 + pt.outer(v.weights, v.weights)
    return pt.linalg.solve(a, v.shared) + pt.linalg.det(a)


def pymc_densities(v):
    normal = pm.logp(pm.Normal.dist(v.beta, pt.exp(v.weights[0])), v.reward)
    bernoulli = pm.logp(pm.Bernoulli.dist(logit_p=v.beta * v.reward), v.choice)
    return normal + bernoulli


GRAPHS = [
    rescorla_wagner,
    several_sequences_and_states,
    two_taps,
    two_taps_shared_start,
    only_the_older_tap,
    sequence_taps,
    matrix_state,
    matrix_product,
    integer_state,
    no_state,
    state_and_no_state,
    shared_and_own_states,
    a_state_reached_late,
    only_shared,
    steps_without_sequences,
    counter_as_index,
    backwards,
    not_strict,
    closes_over_numbers,
    last_step,
    scan_in_scan,
    scan_in_scan_set,
    two_step_table,
    row_of_a_table,
    column_of_a_table,
    long_axis,
    unknown_length,
    fixed_index_and_slices,
    vector_index,
    index_by_trial_and_choice,
    index_then_slice,
    index_behind_a_slice,
    fixed_vector_index,
    mask_index,
    set_by_vector,
    set_behind_a_slice,
    set_in_a_shared_table,
    switches,
    joins_and_reshapes,
    reductions_and_products,
    shapes_as_numbers,
    op_from_graph,
    scan_in_op_from_graph,
    linear_algebra,
    pymc_densities,
]


def batched_output(graph):
    """Return the output over all subjects and its inputs."""
    one = {name: t(name) for name, t in TYPES.items()}
    many = {name: pt.TensorType(t.dtype, (None, *t.shape))(name) for name, t in TYPES.items()}
    many["shared"] = one["shared"]
    replace = {one[name]: many[name] for name in TYPES if name != "shared"}
    [out] = batch([graph(SimpleNamespace(**one))], replace, many["alpha"].shape[0])
    return out, many


def value_and_gradients(out, inputs, mode):
    wrt = [inputs[name] for name in FLOATS]
    cost = (out * pt.sin(out)).sum() if out.dtype == "float64" else out.sum()
    grads = pytensor.grad(cost, wrt, disconnected_inputs="ignore")
    with pytensor.config.change_flags(mode=mode):
        return pytensor.function(list(inputs.values()), [out, *grads], on_unused_input="ignore", mode=mode)


def check(graph):
    one = {name: t(name) for name, t in TYPES.items()}
    single = value_and_gradients(graph(SimpleNamespace(**one)), one, PYTHON)
    out, many = batched_output(graph)
    together = value_and_gradients(out, many, PYTHON)(*DATA.values())
    apart = [single(*(x if n == "shared" else x[i] for n, x in DATA.items())) for i in range(N)]
    for name, result, *parts in zip(["value", *FLOATS], together, *apart, strict=True):
        expected = np.sum(parts, axis=0) if name == "shared" else np.stack(parts)
        assert np.isfinite(expected).all()
        np.testing.assert_allclose(result, expected, rtol=1e-10, atol=1e-12, err_msg=name)
    return out


@pytest.mark.parametrize("graph", GRAPHS, ids=lambda g: g.__name__)
def test_batched_equals_one_at_a_time(graph):
    out = check(graph)
    ops = [v.owner.op for v in ancestors([out]) if v.owner]
    assert not any(isinstance(op, Blockwise) and isinstance(op.core_op, Scan) for op in ops)


@pytest.mark.long
@pytest.mark.usefixtures("machine_code")
def test_a_subject_is_the_same_in_any_batch_and_mode():
    out, many = batched_output(rescorla_wagner)
    f = value_and_gradients(out, many, pytensor.config.mode)
    together = f(*DATA.values())
    for compiled, plain in zip(together, value_and_gradients(out, many, PYTHON)(*DATA.values()), strict=True):
        np.testing.assert_allclose(compiled, plain, rtol=1e-10, atol=1e-12)
    for i in range(N):
        alone = f(*(x if name == "shared" else x[i : i + 1] for name, x in DATA.items()))
        for all_, one in zip(together[:-1], alone[:-1], strict=True):
            np.testing.assert_array_equal(all_[i : i + 1], one)


def test_output_that_depends_on_no_subject():
    x, xs = pt.vector("x"), pt.matrix("xs")
    [out] = batch([pt.constant(2.0)], {x: xs}, xs.shape[0])
    assert out.eval({xs: np.zeros((4, 2))}, mode=PYTHON).tolist() == [2.0] * 4


def test_dispatch_is_untouched():
    assert _vectorize_node.dispatch(Scan) is DISPATCH_BEFORE


# ---- indices


def indexed(function, q, index):
    """Return ``function(q, index)`` over subjects, and the gradient of its sum."""
    one_q, one_i = pt.TensorType("float64", np.shape(q)[1:])(), pt.lscalar()
    many_q, many_i = pt.TensorType("float64", (None, *np.shape(q)[1:]))(), pt.lvector()
    [out] = batch([function(one_q, one_i)], {one_q: many_q, one_i: many_i}, many_q.shape[0])
    f = pytensor.function([many_q, many_i], [out, pytensor.grad(out.sum(), many_q)], mode=PYTHON)
    return f(q, index)


Q = np.array([[1.0, 2.0, 3.0]] * 4)


def test_negative_index_counts_from_the_end():
    value, gradient = indexed(lambda q, i: q[i], Q, [0, 2, -1, -3])
    assert value.tolist() == [1, 3, 3, 1]
    assert gradient.argmax(axis=1).tolist() == [0, 2, 2, 0]


@pytest.mark.parametrize(
    "function",
    [
        lambda q, i: q[i],
        lambda q, i: pt.set_subtensor(q[i], 7.0),
        lambda q, i: pt.inc_subtensor(q[i], 7.0),
    ],
    ids=["read", "set", "increment"],
)
def test_index_out_of_range_is_nan_for_that_subject_alone(function):
    value, _ = indexed(function, Q, [0, 3, -4, -3])
    assert np.isnan(value.reshape(4, -1)).all(axis=1).tolist() == [False, True, True, False]
    assert np.isfinite(value[[0, 3]]).all()


@pytest.mark.parametrize(
    "function",
    [
        lambda q, i: q[i],
        lambda q, i: q[pt.stack([i, i - 1])],
        lambda q, i: pt.set_subtensor(q[i], 7.0),
        lambda q, i: pt.inc_subtensor(q[pt.stack([i, 0])], 7.0),
    ],
    ids=["read", "read several", "set", "increment several"],
)
def test_index_out_of_range_of_a_long_axis_is_nan_too(function):
    value, _ = indexed(function, np.ones((3, 40)), [0, 40, -41])
    assert np.isnan(value.reshape(3, -1)).any(axis=1).tolist() == [False, True, True]


def test_index_out_of_range_of_integers_raises():
    with pytest.raises(IndexError, match="an index, such as a choice, is out of range"):
        indexed(lambda q, i: q[i] * pt.arange(3)[i], Q, [0, 3, 0, 0])


@pytest.mark.parametrize("bad", [np.inf, -np.inf, np.nan])
def test_entries_that_are_not_selected_do_not_matter(bad):
    q = np.array([[1.0, bad], [bad, 2.0]])
    value, gradient = indexed(lambda q, i: q[i] ** 2, q, [0, 1])
    assert value.tolist() == [1, 4]
    assert gradient.tolist() == [[2, 0], [0, 4]]
    value, gradient = indexed(lambda q, i: pt.set_subtensor(q[1 - i], 5.0), q, [0, 1])
    assert value.tolist() == [[1, 5], [5, 2]]
    assert gradient.tolist() == [[1, 0], [0, 1]]


def test_parameters_out_of_bounds_concern_one_subject():
    sd, sds = pt.scalar(), pt.vector()
    [out] = batch([pm.logp(pm.Normal.dist(0, sd), 1.0)], {sd: sds}, sds.shape[0])
    value = pytensor.function([sds], out, mode=PYTHON)([1.0, -1.0])
    assert np.isfinite(value[0])
    assert value[1] == -np.inf


# ---- graphs that cannot be batched


def stops_when(v):
    return scan(lambda r, q: (q + r, until(q > 1)), [v.reward], [v.beta])


def own_number_of_steps(v):
    return scan(lambda q: q * 2, None, [v.beta], n_steps=v.choice[0])


def random_numbers_in_scan(v):
    rng = pytensor.shared(np.random.default_rng(1))

    def step(r):
        next_rng, draw = pt.random.normal(rng=rng).owner.outputs
        return draw * r, {rng: next_rng}

    return pytensor.scan(step, [v.reward])[0]


def random_numbers(v):
    return pt.random.normal(v.beta, 1)


def gradient_in_the_model(v):
    return pytensor.grad(scan(lambda r, q: q * r, [v.reward], [v.beta])[-1], v.beta)


def vectorized_scan(v):
    last = pt.vectorize(lambda q: scan(lambda q: q * 2, None, [q], n_steps=3), "()->(t)")
    return last(v.weights)


def own_length(v):
    return pt.arange(v.choice[0])


def own_slice(v):
    return v.reward[: v.choice[0]]


def own_mask(v):
    return v.reward[v.reward > 0].sum()


@pytest.mark.parametrize(
    ("graph", "reason"),
    [
        (stops_when, "stopping condition"),
        (own_number_of_steps, "number of steps of a Scan differs"),
        (random_numbers_in_scan, "random numbers"),
        (random_numbers, "random numbers"),
        (gradient_in_the_model, "gradient of another Scan"),
        (vectorized_scan, "loops over its batch"),
        (own_length, "shape of its result differs"),
        (own_slice, "slice differs"),
        (own_mask, "shape of its result differs"),
    ],
    ids=lambda x: getattr(x, "__name__", ""),
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # scan with updates
def test_not_batchable(graph, reason):
    with pytest.raises(NotBatchable, match=reason):
        batched_output(graph)
