"""Turn the PyTensor graph of one subject into the same graph over all subjects.

A Scan over trials stays ONE Scan: its inner graph is batched, its states carry the subject axis.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from functools import reduce
from itertools import accumulate, pairwise
from operator import and_, or_
from typing import Any, TypeAlias

import numpy as np
import pytensor.tensor as pt
from pytensor.compile.builders import OpFromGraph
from pytensor.graph.basic import Apply, Constant, Variable
from pytensor.graph.replace import _vectorize_node
from pytensor.graph.traversal import toposort
from pytensor.raise_op import CheckAndRaise
from pytensor.scalar.basic import ScalarOp
from pytensor.scan.op import Scan
from pytensor.scan.utils import expand_empty
from pytensor.tensor import subtensor
from pytensor.tensor.basic import (
    Alloc,
    AllocEmpty,
    ARange,
    Eye,
    Join,
    Nonzero,
    ScalarFromTensor,
    Split,
    TensorFromScalar,
)
from pytensor.tensor.blockwise import Blockwise
from pytensor.tensor.elemwise import Elemwise
from pytensor.tensor.extra_ops import Repeat, Unique
from pytensor.tensor.math import Dot
from pytensor.tensor.random.op import RandomVariable
from pytensor.tensor.shape import Reshape, Shape, Shape_i, SpecifyShape
from pytensor.tensor.type import TensorType
from pytensor.tensor.type_other import MakeSlice
from pytensor.tensor.variable import TensorVariable

# A PyTensor variable, as a rule a tensor: PyTensor's own annotations do not know which.
Tensor: TypeAlias = Any

# PyTensor 2 has further Ops for the index that is one vector.
READ = tuple(
    getattr(subtensor, name)
    for name in ("Subtensor", "AdvancedSubtensor", "AdvancedSubtensor1")
    if hasattr(subtensor, name)
)
WRITE = tuple(
    getattr(subtensor, name)
    for name in ("IncSubtensor", "AdvancedIncSubtensor", "AdvancedIncSubtensor1")
    if hasattr(subtensor, name)
)
# The inputs that decide the shape of an Op's result: they must be the same for all subjects.
_SHAPED_BY: dict[type, slice] = {
    Alloc: slice(1, None),
    AllocEmpty: slice(None),
    ARange: slice(None),
    Eye: slice(None),
    MakeSlice: slice(None),
    Nonzero: slice(None),
    Repeat: slice(1, None),
    Reshape: slice(1, None),
    SpecifyShape: slice(1, None),
    Split: slice(1, None),
    Unique: slice(None),
}
_ONE_HOT_MAX = 16  # entries that the indexed axes may have together


class NotBatchable(Exception):
    """The graph of one subject cannot become a graph over all subjects; the message says why."""


def batch(
    outputs: Sequence[TensorVariable],
    replace: Mapping[TensorVariable, TensorVariable],
    size: TensorVariable,
) -> list[TensorVariable]:
    """Batch the graph of one subject over a leading subject dimension.

    Parameters
    ----------
    outputs
        What to compute, for one subject.
    replace
        Maps inputs of one subject to variables with one more, leading, dimension.
        All other inputs are shared by the subjects.
    size
        The number of subjects, an integer scalar.

    Returns
    -------
    list of TensorVariable
        The outputs, each with the leading subject dimension.

    Raises
    ------
    NotBatchable
        If an Op in the graph cannot be batched; the message names it and says why.
    """
    _refuse_random(outputs)
    return batch_draws(outputs, replace, size)


def batch_draws(
    outputs: Sequence[TensorVariable],
    replace: Mapping[TensorVariable, TensorVariable],
    size: TensorVariable,
) -> list[TensorVariable]:
    """Batch a graph that draws random numbers: as `batch`, and every subject has its own draws."""
    return [_over_subjects(out, new, size) for out, new in zip(outputs, _walk(outputs, replace, size), strict=True)]


def _walk(outputs: Sequence[Tensor], replace: Mapping[Tensor, Tensor], size: Tensor) -> list[Tensor]:
    """Rebuild ``outputs`` on ``replace``; what depends on no batched input stays unbatched."""
    new = dict(replace)
    for node in toposort(outputs, blockers=list(replace)):
        # PyTensor 3 freezes inner graphs; a frozen node cannot be part of a new graph.
        if any(inp in new for inp in node.inputs) or not isinstance(node, Apply) or isinstance(node.op, RandomVariable):
            inputs = [new.get(inp, inp) for inp in node.inputs]
            for old, out in zip(node.outputs, _batch_node(node, inputs, size), strict=True):
                new.setdefault(old, out)
    return [new.get(out, out) for out in outputs]


def _batch_node(node: Apply, inputs: list[Tensor], size: Tensor) -> list[Tensor]:
    """Return the outputs of ``node`` on new inputs, of which some may be batched."""
    op = node.op
    batched = [_is_batched(new, old) for new, old in zip(inputs, node.inputs, strict=True)]
    if isinstance(op, RandomVariable):
        return _draw(node, inputs, size)
    if not any(batched):
        return list(op.make_node(*inputs).outputs)
    if any(batched[_SHAPED_BY.get(type(op), slice(0))]):
        what = "number of steps of a Scan" if isinstance(op, AllocEmpty) else "shape of its result"
        raise NotBatchable(f"{op}: the {what} differs between subjects.")
    match op:
        case Scan():
            return _scan(node, inputs, batched, size)
        case Blockwise(core_op=Scan()):
            raise NotBatchable(f"{op}: a vectorized Scan loops over its batch; write it in the Scan.")
        case OpFromGraph():
            return _walk(op.inner_outputs, dict(zip(op.inner_inputs, inputs, strict=True)), size)
        case Shape():  # all subjects have the same shape
            return [inputs[0].shape[1:]]
        case Shape_i():
            return [inputs[0].shape[op.i + 1]]
        case ScalarFromTensor() | TensorFromScalar():  # batched, both are a vector
            return [inputs[0]]
        case ScalarOp():
            return list(Elemwise(op).make_node(*map(pt.as_tensor_variable, inputs)).outputs)
        case Join():  # PyTensor would loop over subjects where only some inputs are batched
            pairs = zip(node.inputs, inputs, strict=True)
            inputs = [_over_subjects(old, new, size) if old.type.ndim else new for old, new in pairs]
        case Dot():
            return [_dot(*inputs)]
        case CheckAndRaise() if getattr(op, "can_be_replaced_by_ninf", False):
            return [_check_each_subject(node, *inputs)]
        case _ if isinstance(op, READ):
            return [_read(node, inputs, size)]
        case _ if isinstance(op, WRITE):
            return [_write(node, inputs, size)]
    return _vectorize(node, inputs)


def _vectorize(node: Apply, inputs: list[Tensor]) -> list[Tensor]:
    """Let PyTensor batch an ordinary node."""
    try:
        result = _vectorize_node(node.op, node, *inputs)
    except (NotImplementedError, TypeError, ValueError) as error:
        raise NotBatchable(f"{node.op}: PyTensor cannot vectorize it ({error}).") from error
    return result.outputs if isinstance(result, Apply) else list(result)


def _refuse_random(outputs: Sequence[Tensor]) -> None:
    """Raise if a likelihood draws something, or what is inside its Scans and other inner graphs."""
    for node in toposort(outputs):
        core = getattr(node.op, "core_op", node.op)
        if isinstance(core, RandomVariable) or hasattr(core, "default_output_and_rng"):
            raise NotBatchable(f"{node.op}: a likelihood may not draw random numbers.")
        _refuse_random(getattr(core, "inner_outputs", ()))


def _draw(node: Apply, inputs: list[Tensor], size: Tensor) -> list[Tensor]:
    """Draw for every subject: parameters are aligned behind the subject, as they are for one from the right."""
    op, (rng, shape, *parameters) = node.op, inputs
    ndim = _ndim(node.outputs[1]) - op.ndim_supp
    aligned = []
    for old, new, core in zip(node.inputs[2:], parameters, op.ndims_params, strict=True):
        new = _over_subjects(old, new, size)
        aligned.append(_expand(new, 1, ndim - (_ndim(old) - core)))
    if _ndim(shape):  # of one subject, as long as it was said
        shape = pt.concatenate([pt.atleast_1d(size), shape])
    return list(op.make_node(rng, shape, *aligned).outputs)


def _ndim(x: Tensor) -> int:
    return getattr(x.type, "ndim", 0)


def _is_batched(new: Tensor, old: Tensor) -> bool:
    return _ndim(new) > _ndim(old)


def _over_subjects(old: Tensor, new: Tensor, size: Tensor) -> Tensor:
    """Give ``new`` the leading subject dimension if it has none."""
    return new if _is_batched(new, old) else pt.alloc(new, size, *(new.shape[i] for i in range(new.ndim)))


def _expand(x: Tensor, at: int, n: int) -> Tensor:
    """Insert ``n`` dimensions of length one before dimension ``at``."""
    return x.dimshuffle(*range(at), *["x"] * n, *range(at, x.ndim))


def _dot(x: Tensor, y: Tensor) -> Tensor:
    """Multiply matrices; a product with one row or column is elementwise.

    The sums of a subject are then in the same order whoever else is in the batch, which BLAS does
    not promise.
    """
    if x.type.shape[-2] == 1 or y.type.shape[-1] == 1:
        return (x[..., :, :, None] * y[..., None, :, :]).sum(axis=-2)
    return pt.matmul(x, y)


def _check_each_subject(node: Apply, x: Tensor, ok: Tensor) -> Tensor:
    """Give a subject whose parameters are out of bounds -inf, and the others their value.

    PyMC compiles the check to this; PyTensor would let one subject's parameters decide for all.
    """
    ok = pt.as_tensor_variable(ok)
    return pt.switch(_expand(ok, ok.ndim, _ndim(node.inputs[0])), x, np.array(-np.inf, x.dtype))


# ---- indexing


def indices_of(node: Apply, inputs: Sequence[Tensor]) -> list[Any]:
    """Return the index of a subtensor node as the user wrote it: variables, slices and None."""
    flat = inputs[1:] if isinstance(node.op, READ) else inputs[2:]
    idx_list = getattr(node.op, "idx_list", None)
    index = flat if idx_list is None else subtensor.indices_from_subtensor(flat, idx_list)
    return [_as_python(i) for i in index]


def _as_python(index: Any) -> Any:
    """Turn the slice and None variables of PyTensor 2 into slices and None."""
    if isinstance(index, Variable) and index.owner is not None and isinstance(index.owner.op, MakeSlice):
        return slice(*(_as_python(i) for i in index.owner.inputs))
    if isinstance(index, Constant) and (index.data is None or isinstance(index.data, slice)):
        return index.data
    return index


def _refuse_index(node: Apply, old: Sequence[Any], new: Sequence[Any]) -> None:
    for before, after in zip(old, new, strict=True):
        if isinstance(before, slice):
            bounds = [(getattr(before, part), getattr(after, part)) for part in ("start", "stop", "step")]
            if any(isinstance(o, Variable) and _is_batched(n, o) for o, n in bounds):
                raise NotBatchable(f"{node.op}: a slice differs between subjects.")
        elif isinstance(before, Variable) and before.type.dtype == "bool" and _is_batched(after, before):
            raise NotBatchable(f"{node.op}: the shape of its result differs between subjects.")


def _select(node: Apply, x: Tensor, inputs: Sequence[Tensor], size: Tensor) -> tuple[Tensor, list[int], Tensor | None]:
    """Index the batched ``x``.

    The order, passed to ``dimshuffle``, puts the subject first and the rest as for one subject. The last result
    says which of each subject's own indices are in range, (subject, dimensions of the index); numba would read
    and write beyond the end of ``x`` without a word.
    """
    old, new = indices_of(node, node.inputs), indices_of(node, inputs)
    _refuse_index(node, old, new)
    advanced = [isinstance(i, Variable) and _is_advanced(node) for i in old]
    depth = max(
        (1 if i.dtype == "bool" else _ndim(i) for i, a in zip(old, advanced, strict=True) if a),
        default=0,
    )
    first = advanced.index(True) if any(advanced) else 0
    after = advanced[first:]
    consecutive = sum(advanced) == (after.index(False) if False in after else len(after))

    if not any(_is_batched(n, o) for n, o in zip(new, old, strict=True) if isinstance(o, Variable)):
        selected = x[(slice(None), *new)]
        subject_axis = 0 if consecutive else depth
        order = [subject_axis, *(i for i in range(selected.ndim) if i != subject_axis)]
        return selected, order, None

    subject = _expand(pt.arange(size), 1, depth)
    aligned, valid = _in_range(x, old, new, depth)
    if "float" not in x.dtype:  # has no NaN to say it with
        check = CheckAndRaise(IndexError, f"{node.op}: an index, such as a choice, is out of range.")
        aligned = [check(i, valid.all()) if isinstance(i, Variable) else i for i in aligned]
    selected = x[(subject, *aligned)]
    # NumPy puts the dimensions of the index first; for one subject they may follow some slices.
    before = sum(not isinstance(i, Variable) for i in old[:first]) if consecutive else 0
    order = list(range(1 + depth, 1 + depth + before)) + list(range(1, 1 + depth))
    return selected, [0, *order, *range(1 + depth + before, selected.ndim)], valid


def _in_range(x: Tensor, old: Sequence[Any], new: Sequence[Any], depth: int) -> tuple[list[Any], Tensor]:
    """Align subjects' indices with each other, clip them to the length of their axis, and say which were inside."""
    aligned, valid, axis = [], [], 1
    for before, index in zip(old, new, strict=True):
        if isinstance(before, Variable) and _is_batched(index, before):
            index = _expand(index, 1, depth - _ndim(before))
            length = x.shape[axis]
            valid.append(pt.ge(index, -length) & pt.lt(index, length))
            index = pt.clip(index, -length, length - 1)
        aligned.append(index)
        axis += 0 if index is None else 1
    return aligned, reduce(and_, valid)


def _poison(valid: Tensor | None, x: Tensor) -> Tensor:
    """Put NaN where an index was out of range; ``valid`` has the leading dimensions of ``x``."""
    if valid is None or "float" not in x.dtype:
        return x
    return pt.switch(_expand(valid, valid.ndim, x.ndim - valid.ndim), x, np.nan)


def _is_advanced(node: Apply) -> bool:
    return not isinstance(node.op, subtensor.Subtensor | subtensor.IncSubtensor)


def _read(node: Apply, inputs: list[Tensor], size: Tensor) -> Tensor:
    x = inputs[0] if _is_batched(inputs[0], node.inputs[0]) else _expand(inputs[0], 0, 1)
    if (hot := _one_hot(node, inputs)) is not None:
        selected = pt.switch(hot.mask, x, np.array(0, x.dtype)).sum(axis=hot.axes)
        return selected + hot.poison(x.dtype, selected.ndim)
    x = _over_subjects(node.inputs[0], inputs[0], size)
    selected, order, valid = _select(node, x, inputs, size)
    return _poison(valid, selected).dimshuffle(order)


def _write(node: Apply, inputs: list[Tensor], size: Tensor) -> Tensor:
    """Set or increment: ``x[index] = y``."""
    (old_x, old_y), (x, y) = node.inputs[:2], inputs[:2]
    y = y if _is_batched(y, old_y) else _expand(y, 0, 1)
    is_set = node.op.set_instead_of_inc
    if (hot := _one_hot(node, inputs)) is not None:
        x = x if _is_batched(x, old_x) else _expand(x, 0, 1)
        y = _expand(y, 1, x.ndim - len(hot.axes) - y.ndim)
        for axis in hot.axes:
            y = _expand(y, axis, 1)
        new = pt.switch(hot.mask, y if is_set else x + y, x) + hot.poison(x.dtype, x.ndim)
        return new.astype(x.dtype)
    selected, order, valid = _select(node, _over_subjects(old_x, x, size), inputs, size)
    y = _expand(y, 1, selected.ndim - y.ndim).dimshuffle([order.index(i) for i in range(len(order))])
    unique = getattr(node.op, "ignore_duplicates", False)
    written = pt.inc_subtensor(selected, y, set_instead_of_inc=is_set, ignore_duplicates=unique)
    return _poison(None if valid is None else valid.all(axis=tuple(range(1, valid.ndim))), written)


@dataclasses.dataclass(frozen=True)
class _OneHot:
    """Which entries of a batched tensor each subject's scalar indices select."""

    mask: Tensor  # subject first, dimensions of length one where not indexed
    axes: tuple[int, ...]
    valid: Tensor  # (subject,)

    def poison(self, dtype: str, ndim: int) -> Tensor:
        """Return what makes a result NaN where an index is out of range, when added to it."""
        nan = pt.switch(self.valid, np.array(0, dtype), np.array(np.nan, dtype))
        return _expand(nan, 1, ndim - 1)


def _one_hot(node: Apply, inputs: list[Tensor]) -> _OneHot | None:
    """Return the mask of scalar indices into short axes, or None for any other index.

    Reads, writes and their gradients are then elementwise. A learning model with ``q[c]`` (200
    trials, value and gradient, 100 subjects) takes 28 microseconds a subject this way and 32 with
    advanced indexing on numba, 60 and 160 in C; two scalar states take 20 and 32 to 42. Integers
    have no NaN to say that an index is out of range: they take the other way, which raises.
    """
    old_x: Tensor = node.inputs[0]
    old, new = indices_of(node, node.inputs), indices_of(node, inputs)
    axes = [axis for axis, i in enumerate(old) if isinstance(i, Variable)]
    plain = all(_ndim(i) == 0 if isinstance(i, Variable) else i == slice(None) for i in old)
    shared = not any(_is_batched(new[a], old[a]) for a in axes)
    lengths = [old_x.type.shape[a] for a in axes]
    if not plain or shared or None in lengths or math.prod(lengths) > _ONE_HOT_MAX or "float" not in old_x.dtype:
        return None
    masks: list[Tensor] = []
    valid: list[Tensor] = []
    for axis, length in zip(axes, lengths, strict=True):
        index: Tensor = pt.as_tensor_variable(new[axis]).astype("int64")
        valid.append(pt.ge(index, -length) & pt.lt(index, length))
        index = _expand(index, index.ndim, old_x.ndim)
        places = np.arange(length).reshape(-1, *[1] * (old_x.ndim - axis - 1))
        masks.append(pt.eq(index, places) | pt.eq(index, places - length))
    return _OneHot(reduce(and_, masks), tuple(a + 1 for a in axes), reduce(and_, valid))


# ---- Scan


def _scan(node: Apply, inputs: list[Tensor], batched: list[bool], size: Tensor) -> list[Tensor]:
    """Batch the inner graph: one loop over trials, whose states carry the subject axis."""
    op, info = node.op, node.op.info
    _refuse_scan(op, batched)
    taps = [*info.mit_sot_in_slices, *info.sit_sot_in_slices]
    ends = list(accumulate([1, info.n_seqs, len(taps), info.n_nit_sot]))
    [n_steps], sequences, buffers, lengths, shared = _split(inputs, ends)
    _, sequence_flags, state_flags, _, _ = _split(batched, ends)
    sequences = [_swap(x) if f else x for x, f in zip(sequences, sequence_flags, strict=True)]
    inner_sequences = [x.type.clone(shape=x.type.shape[1:])() for x in sequences]
    inner_shared = [x.type() for x in (*shared, size)]  # the inner graph may need the size

    while True:  # a state needs the subject axis if its start or its update has it
        inner_inputs = [*inner_sequences, *_inner_states(op, taps, state_flags), *inner_shared]
        replace = dict(zip(op.inner_inputs, inner_inputs[:-1], strict=True))
        inner_outputs = _walk(op.inner_outputs, replace, inner_inputs[-1])
        flags = list(map(_is_batched, inner_outputs, op.inner_outputs))
        if state_flags == (state_flags := list(map(or_, state_flags, flags))):
            break

    for i, old in enumerate(op.inner_outputs[: len(taps)]):
        if state_flags[i]:
            update = _over_subjects(old, inner_outputs[i], inner_inputs[-1])
            inner_outputs[i] = _with_subjects(old).filter_variable(update)
            buffers[i] = _buffer(buffers[i], batched[ends[1] + i], -min(taps[i]), size)

    new_op = Scan(
        inner_inputs,
        inner_outputs,
        dataclasses.replace(info, n_non_seqs=info.n_non_seqs + 1),
        mode=op.mode,
        truncate_gradient=op.truncate_gradient,
        name=op.name,
        allow_gc=op.allow_gc,
        strict=op.strict,
    )
    outputs = new_op.make_node(n_steps, *sequences, *buffers, *lengths, *shared, size).outputs
    flags[: len(taps)] = state_flags
    return [_swap(x) if f else x for x, f in zip(outputs, flags, strict=True)]


def _refuse_scan(op: Scan, batched: Sequence[bool]) -> None:
    reason = None
    if op.info.as_while:
        reason = "with a stopping condition (until), each subject may stop at another step"
    elif op.info.n_untraced_sit_sot:
        reason = "it updates a shared variable or draws random numbers"
    elif op.info.n_mit_mot:
        reason = "it is the gradient of another Scan"
    elif batched[0]:
        reason = "the number of steps of a Scan differs between subjects"
    if reason is not None:
        raise NotBatchable(f"{op}: {reason}.")


def _inner_states(op: Scan, taps: Sequence[Sequence[int]], flags: Sequence[bool]) -> list[Tensor]:
    """Return new inner inputs for the states: one per tap."""
    old = op.inner_inputs[op.info.n_seqs :]
    flags = [flag for flag, t in zip(flags, taps, strict=True) for _ in t]
    return [_with_subjects(x)() if f else x.type() for x, f in zip(old, flags, strict=False)]


def _with_subjects(x: Tensor) -> TensorType:
    return TensorType(x.type.dtype, (None, *x.type.shape))


def _buffer(x: Tensor, is_batched: bool, n_start: int, size: Tensor) -> Tensor:
    """Return the memory of a state, (time, subject, ...), of which only the start is set."""
    if is_batched:
        length, start = x.shape[1], _swap(x[:, :n_start])
    else:
        length, start = x.shape[0], x[:n_start]
        tail = [start.shape[i] for i in range(1, start.ndim)]
        start = pt.alloc(_expand(start, 1, 1), n_start, size, *tail)
    return expand_empty(start, length - n_start)


def _swap(x: Tensor) -> Tensor:
    """Swap the first two dimensions, subject and time."""
    return x.dimshuffle(1, 0, *range(2, x.ndim))


def _split(items: Sequence[Any], ends: Sequence[int]) -> list[list[Any]]:
    return [list(items[a:b]) for a, b in pairwise([0, *ends, len(items)])]
