"""Ops that change shapes: none of them moves a number in memory, if it can be helped."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from pytensor.graph.basic import Apply
from pytensor.tensor.basic import Alloc, AllocEmpty, ARange, Join, MakeVector, Split
from pytensor.tensor.elemwise import DimShuffle
from pytensor.tensor.shape import Reshape, Shape, Shape_i

from em_ppl.loops.code import Array, Code, Index, Length, NotWritable, is_unrolled, length_of
from em_ppl.loops.graph import write


@write.register(DimShuffle)
def _dimshuffle(op: DimShuffle, node: Apply, inputs: list[Any], code: Code) -> list[Array]:
    [array], order = inputs, op.new_order
    shape = tuple(1 if d == "x" else array.shape[d] for d in order)
    at = {d: k for k, d in enumerate(order) if d != "x"}

    def element(index: Index) -> str:
        return str(array.element(tuple(index[at[d]] if d in at else 0 for d in range(len(array.shape)))))

    return [Array(array.dtype, shape, element)]


@write.register(Shape)
def _shape(op: Shape, node: Apply, inputs: list[Any], code: Code) -> list[Array]:
    return [code.named(np.array([str(n) for n in inputs[0].shape], dtype=object), "int64")]


@write.register(Shape_i)
def _shape_i(op: Shape_i, node: Apply, inputs: list[Any], code: Code) -> list[Array]:
    return [code.named(np.array(str(inputs[0].shape[op.i]), dtype=object), "int64")]


@write.register(MakeVector)
def _make_vector(op: MakeVector, node: Apply, inputs: list[Any], code: Code) -> list[Array]:
    return [code.named(np.array([array.scalar() for array in inputs], dtype=object), op.dtype)]


@write.register(Alloc)
def _alloc(op: Alloc, node: Apply, inputs: list[Any], code: Code) -> list[Array]:
    value, *lengths = inputs
    stretch = node.inputs[0].type.broadcastable
    shape = tuple(length_of(n.scalar()) for n in lengths)
    lead = len(shape) - len(stretch)
    code.check_fit(value.shape, stretch, shape)

    def element(index: Index) -> str:
        return str(value.element(tuple(0 if s else i for i, s in zip(index[lead:], stretch, strict=True))))

    return [Array(value.dtype, shape, element)]


@write.register(AllocEmpty)
def _alloc_empty(op: AllocEmpty, node: Apply, inputs: list[Any], code: Code) -> list[Array]:
    return [code.allocate(tuple(length_of(n.scalar()) for n in inputs), op.dtype)]


@write.register(ARange)
def _arange(op: ARange, node: Apply, inputs: list[Any], code: Code) -> list[Array]:
    start, stop, step = (array.scalar() for array in inputs)
    if step != "1" or np.dtype(op.dtype).kind not in "iu":
        raise NotWritable(f"{op} with a step of {step}.")
    n = code.calculate("Maximum", 0, code.calculate("Sub", stop, start))

    def element(index: Index) -> str:
        return str(index[0]) if start == "0" else str(code.calculate("Add", start, index[0]))

    return [Array(op.dtype, (n,), element)]


@write.register(Join)
def _join(op: Join, node: Apply, inputs: list[Any], code: Code) -> list[Array]:
    """Leave numbers where they are if they are few, or if one is put before the others, as what was known before."""
    axis, parts = (op.axis, inputs) if hasattr(op, "axis") else (int(inputs[0].scalar()), inputs[1:])
    axis %= len(parts[0].shape)
    ends: list[Length] = [0]
    for part in parts:
        ends.append(code.calculate("Add", ends[-1], part.shape[axis]))
    others = [code.check_equal([p.shape[d] for p in parts]) for d in range(len(parts[0].shape)) if d != axis]
    shape, dtype = (*others[:axis], ends[-1], *others[axis:]), node.outputs[0].type.dtype
    if not is_unrolled(shape) and (len(parts) > 2 or ends[1] != 1):
        return [_joined(parts, axis, ends, code.allocate(shape, dtype), code)]

    def element(index: Index) -> str:
        i = index[axis]
        if isinstance(i, int) and all(isinstance(end, int) for end in ends[:-1]):
            k = max(k for k, end in enumerate(ends[:-1]) if i >= int(end))
            return str(parts[k].element((*index[:axis], i - int(ends[k]), *index[axis + 1 :])))
        values = [
            part.element((*index[:axis], 0 if n == 1 else code.calculate("Sub", i, start), *index[axis + 1 :]))
            for part, start, n in zip(parts, ends, (part.shape[axis] for part in parts), strict=False)
        ]
        text = values[-1]
        for value, end in zip(reversed(values[:-1]), reversed(ends[1:-1]), strict=True):
            text = code.assign(f"choose({i} < {end}, {value}, {text})")
        return text

    return [Array(dtype, shape, element)]


def _joined(parts: list[Array], axis: int, ends: list[Length], result: Array, code: Code) -> Array:
    for part, start in zip(parts, ends, strict=False):

        def body(indices: list[Index], part: Array = part, start: Length = start) -> None:
            for index in indices:
                place = (*index[:axis], code.calculate("Add", index[axis], start), *index[axis + 1 :])
                code.store(result, place, part.element(index))

        code.loops(part.shape, body)
    return result


@write.register(Split)
def _split(op: Split, node: Apply, inputs: list[Any], code: Code) -> list[Array]:
    array, axis = inputs[0], int(op.axis if hasattr(op, "axis") else inputs[1].scalar())
    sizes, parts = inputs[-1], []
    axis %= len(array.shape)
    start: Length = 0
    for k in range(op.len_splits):
        n = length_of(sizes.element((k,)))

        def element(index: Index, start: Length = start) -> str:
            at = code.calculate("Add", index[axis], start)
            return str(array.element((*index[:axis], at, *index[axis + 1 :])))

        parts.append(Array(array.dtype, (*array.shape[:axis], n, *array.shape[axis + 1 :]), element))
        start = code.calculate("Add", start, n)
    code.check_equal([array.shape[axis], start])
    return parts


@write.register(Reshape)
def _reshape(op: Reshape, node: Apply, inputs: list[Any], code: Code) -> list[Array]:
    array, sizes = inputs
    shape = [length_of(sizes.element((k,))) for k in range(op.ndim)]
    size = _product(array.shape, code)
    if -1 in shape:
        others = _product(tuple(n for n in shape if n != -1), code)
        shape[shape.index(-1)] = code.calculate("IntDiv", size, code.calculate("Maximum", others, 1))
    code.check_equal([size, _product(shape, code)])

    def element(index: Index) -> str:
        flat: Length = 0
        for i, n in zip(index, shape, strict=True):
            flat = code.calculate("Add", code.calculate("Mul", flat, n), i)
        at: list[Length] = []
        for n in reversed(array.shape[1:]):
            at.append(code.calculate("Mod", flat, n))
            flat = code.calculate("IntDiv", flat, n)
        return str(array.element((flat, *reversed(at)) if array.shape else ()))

    return [Array(array.dtype, tuple(shape), element)]


def _product(shape: Sequence[Length], code: Code) -> Length:
    total: Length = 1
    for n in shape:
        total = code.calculate("Mul", total, n)
    return total
