"""Write a PyTensor graph of one subject as plain loops over numbers, for numba to compile.

Small arrays of known shape, such as the values of two arms, become numbers with names of their own; what has a length
only the data know, such as a trial's, becomes a loop. Nothing inside a loop over trials allocates memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import singledispatch
from typing import Any

import numpy as np
from pytensor.compile.builders import OpFromGraph
from pytensor.compile.ops import DeepCopyOp, ViewOp
from pytensor.graph.basic import Apply, Constant, Variable
from pytensor.raise_op import CheckAndRaise
from pytensor.tensor import special
from pytensor.tensor.basic import ScalarFromTensor, TensorFromScalar
from pytensor.tensor.blockwise import Blockwise
from pytensor.tensor.elemwise import CAReduce, Elemwise
from pytensor.tensor.extra_ops import CumOp
from pytensor.tensor.math import Dot
from pytensor.tensor.shape import SpecifyShape

from em_ppl.loops.code import Array, Code, Index, Length, NotWritable, is_unrolled, tuple_of
from em_ppl.loops.lengths import fold
from em_ppl.loops.scalars import literal, write_scalar

__all__ = ["constant", "write", "write_graph"]

_IDENTITIES = {"Add": 0, "Mul": 1, "AND": True, "OR": False, "ScalarMaximum": -np.inf, "ScalarMinimum": np.inf}
_COMBINE = {
    "Add": "{0} + {1}",
    "Mul": "{0} * {1}",
    "AND": "{0} & {1}",
    "OR": "{0} | {1}",
    "ScalarMaximum": "maximum({0}, {1})",
    "ScalarMinimum": "minimum({0}, {1})",
}


def write_graph(
    nodes: Sequence[Apply], outputs: Sequence[Variable], known: dict[Variable, Array], code: Code
) -> list[Array]:
    """Write all nodes, sorted, and return the outputs.

    Parameters
    ----------
    nodes : sequence of Apply
        In an order in which they can be evaluated.
    outputs : sequence of Variable
        What to return.
    known : dict
        The inputs.
    code : Code
        Where to write.

    Raises
    ------
    NotWritable
        If a node cannot be written as loops.
    """
    uses: dict[Variable, int] = {}
    for variable in (*outputs, *(v for node in nodes for v in node.inputs)):
        uses[variable] = uses.get(variable, 0) + 1
    arrays = dict(known)

    def array_of(variable: Variable) -> Array:
        if variable not in arrays:
            if not isinstance(variable, Constant):
                raise NotWritable(f"{variable} is no input.")
            arrays[variable] = constant(variable, code)
        return arrays[variable]

    for node in nodes:
        if node.op.destroy_map:
            raise NotWritable(f"{node.op} works in place.")
        inputs = [array_of(v) if hasattr(v.type, "dtype") else None for v in node.inputs]
        # memory that nothing else reads, and that was made here, may be written to
        inputs = [
            array if array is None or (uses[v] == 1 and v not in known) else replace(array, buffer=None)
            for v, array in zip(node.inputs, inputs, strict=True)
        ]
        arrays.update(zip(node.outputs, write(node.op, node, inputs, code), strict=True))
    return [array_of(v) for v in outputs]


def constant(variable: Constant, code: Code) -> Array:
    """Write a constant: literals, or a table if it is large."""
    data, dtype = np.asarray(variable.data), variable.type.dtype
    if not is_unrolled(data.shape):
        values = ", ".join(literal(v, dtype) for v in data.ravel())
        name = code.assign(f"np.array([{values}], dtype=np.{np.dtype(dtype).name}).reshape({tuple_of(data.shape)})")
        return replace(code.memory(name, data.shape, dtype), buffer=None)
    names = np.empty(data.shape, dtype=object)
    for index in np.ndindex(data.shape):
        names[index] = literal(data[index], dtype)
    return code.named(names, dtype)


@singledispatch
def write(op: Any, node: Apply, inputs: list[Any], code: Code) -> list[Array]:
    """Write what a node computes; modules of this package register what they know."""
    raise NotWritable(f"{op} is not written as loops.")


@write.register(DeepCopyOp)
@write.register(ViewOp)
@write.register(ScalarFromTensor)
@write.register(TensorFromScalar)
@write.register(SpecifyShape)
def _same(op: Any, node: Apply, inputs: list[Any], code: Code) -> list[Array]:
    return [replace(inputs[0], buffer=None)]


@write.register(OpFromGraph)
def _inner_graph(op: OpFromGraph, node: Apply, inputs: list[Any], code: Code) -> list[Array]:
    known = {v: replace(array, buffer=None) for v, array in zip(op.fgraph.inputs, inputs, strict=True)}
    return write_graph(op.fgraph.toposort(), op.fgraph.outputs, known, code)


@write.register(CheckAndRaise)
def _check(op: CheckAndRaise, node: Apply, inputs: list[Any], code: Code) -> list[Array]:
    for condition in inputs[1:]:
        if (text := condition.scalar()) != "True":
            with code.block(f"if not {text}"):
                code.line(f"raise ValueError({str(op.msg)!r})")
    return [inputs[0]]


@write.register(Elemwise)
def _elemwise(op: Elemwise, node: Apply, inputs: list[Any], code: Code) -> list[Array]:
    stretched = [v.type.broadcastable for v in node.inputs]
    lengths: list[Length] = []
    for d in range(node.outputs[0].type.ndim):
        own = [a.shape[d] for a, s in zip(inputs, stretched, strict=True) if not s[d]]
        lengths.append(code.check_equal(own) if own else 1)

    def values(index: Index) -> list[str]:
        at = [
            array.element(tuple(0 if s else i for i, s in zip(index, stretch, strict=True)))
            for array, stretch in zip(inputs, stretched, strict=True)
        ]
        return write_scalar(op.scalar_op, at, code, node)

    return code.fill(tuple(lengths), [v.type.dtype for v in node.outputs], values)


@write.register(CAReduce)
def _reduce(op: CAReduce, node: Apply, inputs: list[Any], code: Code) -> list[Array]:
    [array], kind = inputs, type(op.scalar_op).__name__
    kind = {"Maximum": "ScalarMaximum", "Minimum": "ScalarMinimum"}.get(kind, kind)
    if kind not in _IDENTITIES:
        raise NotWritable(f"{op} is not written as loops.")
    axes = tuple(range(len(array.shape))) if op.axis is None else tuple(op.axis)
    return [_reduced(kind, array, axes, node.outputs[0].type.dtype, code)]


def _reduced(kind: str, array: Array, axes: Sequence[int], dtype: str, code: Code) -> Array:
    kept = [d for d in range(len(array.shape)) if d not in axes]
    over = tuple(array.shape[d] for d in axes)
    whole_numbers = np.dtype(array.dtype).kind in "iub"

    def combine(total: str, indices: list[Index], index: Index) -> str:
        for other in indices:
            places = dict(zip((*kept, *axes), (*index, *other), strict=True))
            value = array.element(tuple(places[d] for d in range(len(array.shape))))
            known = fold(kind, [total, value]) if total and whole_numbers else None
            total = known or (code.assign(_COMBINE[kind].format(total, value)) if total else value)
        return total

    def total(index: Index) -> list[str]:
        if is_unrolled(over) and over and 0 not in over:
            return [combine("", [tuple(map(int, i)) for i in np.ndindex(*map(int, over))], index)]
        total = code.name("s")
        code.line(f"{total} = {_identity(kind, dtype)}")

        def body(indices: list[Index]) -> None:
            code.line(f"{total} = {_COMBINE[kind].format(total, combine('', indices[:1], index))}")
            for other in indices[1:]:
                code.line(f"{total} = {_COMBINE[kind].format(total, combine('', [other], index))}")

        code.loops(over, body)
        return [total]

    return code.fill(tuple(array.shape[d] for d in kept), [dtype], total)[0]


def _identity(kind: str, dtype: str) -> str:
    if kind.startswith("Scalar") and np.dtype(dtype).kind in "iu":
        limits = np.iinfo(dtype)
        return str(limits.min if kind == "ScalarMaximum" else limits.max)
    return literal(_IDENTITIES[kind], dtype)


@write.register(special.Softmax)
@write.register(special.LogSoftmax)
def _softmax(op: Any, node: Apply, inputs: list[Any], code: Code) -> list[Array]:
    [array], axis = inputs, op.axis
    axes = tuple(range(len(array.shape))) if axis is None else (axis % len(array.shape),)

    def rest(index: Index) -> Index:
        return tuple(i for d, i in enumerate(index) if d not in axes)

    def below(largest: Array, index: Index) -> str:
        return code.assign(f"{array.element(index)} - {largest.element(rest(index))}")

    def parts() -> tuple[Array, Array, Array]:
        largest = _reduced("ScalarMaximum", array, axes, array.dtype, code)
        powers = code.fill(array.shape, ["float64"], lambda i: [code.assign(f"math.exp({below(largest, i)})")])[0]
        return largest, powers, _reduced("Add", powers, axes, "float64", code)

    # a model that observes choices asks for their probabilities and for the logarithms of these
    largest, powers, total = code.once(("softmax", array.element, axes), parts)

    def values(index: Index) -> list[str]:
        whole = total.element(rest(index))
        if isinstance(op, special.LogSoftmax):
            return [code.assign(f"{below(largest, index)} - {code.assign(f'math.log({whole})')}")]
        return [code.assign(f"{powers.element(index)} / {whole}")]

    return code.fill(array.shape, ["float64"], values)


def _softmax_gradient(op: Any, node: Apply, inputs: list[Any], code: Code) -> list[Array]:
    slope, powers = inputs
    axes = range(len(powers.shape)) if op.axis is None else [op.axis % len(powers.shape)]
    shape = tuple(map(code.check_equal, zip(slope.shape, powers.shape, strict=True)))

    def product(index: Index) -> str:
        return code.assign(f"{slope.element(index)} * {powers.element(index)}")

    total = _reduced("Add", Array("float64", shape, product), axes, "float64", code)

    def value(index: Index) -> list[str]:
        whole = total.element(tuple(i for d, i in enumerate(index) if d not in axes))
        return [code.assign(f"{product(index)} - {whole} * {powers.element(index)}")]

    return code.fill(shape, ["float64"], value)


if hasattr(special, "SoftmaxGrad"):  # PyTensor 2
    write.register(special.SoftmaxGrad, _softmax_gradient)


@write.register(Blockwise)
def _blockwise(op: Blockwise, node: Apply, inputs: list[Any], code: Code) -> list[Array]:
    if op.batch_ndim(node):
        raise NotWritable(f"{op} over further dimensions.")
    return write(op.core_op, node, inputs, code)


@write.register(Dot)
def _dot(op: Dot, node: Apply, inputs: list[Any], code: Code) -> list[Array]:
    left, right = inputs
    n = code.check_equal([left.shape[-1], right.shape[0]])
    k = len(left.shape) - 1
    product = Array(
        "float64",
        (*left.shape[:-1], *right.shape[1:], n),
        lambda i: code.assign(f"{left.element((*i[:k], i[-1]))} * {right.element((i[-1], *i[k:-1]))}"),
    )
    return [_reduced("Add", product, [len(product.shape) - 1], node.outputs[0].type.dtype, code)]


@write.register(CumOp)
def _cumulative(op: CumOp, node: Apply, inputs: list[Any], code: Code) -> list[Array]:
    [array], axis = inputs, op.axis
    if axis is None:
        if len(array.shape) != 1:
            raise NotWritable(f"{op} over all dimensions.")
        axis = 0
    axis %= len(array.shape)
    result, sign = code.allocate(array.shape, array.dtype), {"add": "+", "mul": "*"}[op.mode]

    def body(indices: list[Index]) -> None:
        for rest in indices:
            total = code.name("s")
            code.line(f"{total} = {'0' if op.mode == 'add' else '1'}{'.0' if 'float' in array.dtype else ''}")

            def step(at: list[Index], rest: Index = rest, total: str = total) -> None:
                for [i] in at:
                    index = (*rest[:axis], i, *rest[axis:])
                    code.line(f"{total} = {total} {sign} {array.element(index)}")
                    code.store(result, index, total)
                    code.forget(str(result.buffer))

            code.loops((array.shape[axis],), step)

    code.loops((*array.shape[:axis], *array.shape[axis + 1 :]), body)
    return [result]
