"""Write a PyTensor graph of one subject as plain loops over numbers, for numba to compile.

Small arrays of known shape, such as the values of two arms, become numbers with names of their own; what has a length
only the data know, such as a trial's, becomes a loop. Nothing inside a loop over trials allocates memory.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import singledispatch
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from pytensor.compile.ops import DeepCopyOp, ViewOp
from pytensor.graph.basic import Apply, Constant, Variable
from pytensor.raise_op import CheckAndRaise
from pytensor.scan.op import Scan
from pytensor.tensor import subtensor
from pytensor.tensor.basic import (
    Alloc,
    AllocEmpty,
    ARange,
    Join,
    MakeVector,
    ScalarFromTensor,
    Split,
    TensorFromScalar,
)
from pytensor.tensor.elemwise import CAReduce, DimShuffle, Elemwise
from pytensor.tensor.extra_ops import CumOp
from pytensor.tensor.math import Dot
from pytensor.tensor.shape import Reshape, Shape, Shape_i, SpecifyShape
from pytensor.tensor.special import LogSoftmax, Softmax

from em_ppl.batching import READ, WRITE, indices_of
from em_ppl.scalars import literal, write_scalar

__all__ = ["Array", "Code", "NotWritable", "write_graph"]

Length: TypeAlias = "int | str"  # a number, or the name of one
Index: TypeAlias = tuple[Length, ...]

UNROLLED = 32  # numbers that an array of known shape may have to become so many names
_IDENTITIES = {"Add": 0, "Mul": 1, "AND": True, "OR": False, "ScalarMaximum": -np.inf, "ScalarMinimum": np.inf}
_COMBINE = {
    "Add": "{0} + {1}",
    "Mul": "{0} * {1}",
    "AND": "{0} & {1}",
    "OR": "{0} | {1}",
    "ScalarMaximum": "maximum({0}, {1})",
    "ScalarMinimum": "minimum({0}, {1})",
}


class NotWritable(Exception):
    """The graph has an Op that is not written as loops; the message names it."""


@dataclass(frozen=True, eq=False)
class Array:
    """What the code knows of an array: how long it is, and how to read one of its numbers.

    Attributes
    ----------
    dtype : str
        Of its numbers.
    shape : tuple of int or str
        Lengths, or names of them.
    element : callable
        From an index to a name or literal; it may write a line to get there.
    buffer : str or None
        The name of memory that is this array's own.
    """

    dtype: str
    shape: Index
    element: Callable[[Index], str]
    buffer: str | None = None

    @property
    def unrolled(self) -> bool:
        """Whether it is so small that each of its numbers has a name."""
        return all(_unrolled_dimensions(self.shape))

    def scalar(self) -> str:
        """Read an array without dimensions."""
        return self.element(())


@dataclass
class Code:
    """Lines of a Python function, as they are written."""

    lines: list[str] = field(default_factory=list)
    functions: dict[str, Any] = field(default_factory=dict)  # that the lines call, by name
    depth: int = 0
    bounds: dict[str, Length] = field(default_factory=dict)  # loop counter -> where it ends
    _count: int = 0
    _known: list[dict[str, str]] = field(default_factory=lambda: [{}])  # expression -> name, in each open block

    def name(self, prefix: str = "v") -> str:
        """Return a new name."""
        self._count += 1
        return f"{prefix}{self._count}"

    def line(self, text: str) -> None:
        """Write a line."""
        self.lines.append("    " * self.depth + text)

    def assign(self, expression: str) -> str:
        """Name the value of an expression; the same name for the same expression."""
        for known in self._known:
            if expression in known:
                return known[expression]
        name = self.name()
        self.line(f"{name} = {expression}")
        self._known[-1][expression] = name
        return name

    @contextmanager
    def block(self, header: str) -> Iterator[None]:
        """Write what follows one level deeper."""
        self.line(f"{header}:")
        self.depth += 1
        self._known.append({})
        yield
        self._known.pop()
        self.depth -= 1

    @contextmanager
    def loops(self, shape: Index) -> Iterator[list[Index]]:
        """Loop over the long dimensions of a shape; the indices, of which the short ones are written out."""
        unrolled = _unrolled_dimensions(shape)
        names = [None if short else self.name("i") for short in unrolled]
        self.bounds.update({i: n for i, n in zip(names, shape, strict=True) if i is not None})
        with _nested(self.block(f"for {i} in range({n})") for i, n in zip(names, shape, strict=True) if i is not None):
            axes = [range(int(n)) if i is None else [i] for i, n in zip(names, shape, strict=True)]
            yield list(itertools.product(*axes))

    def forget(self, buffer: str) -> None:
        """Read again what is in memory that has been written to."""
        for known in self._known:
            for expression in [e for e in known if e.startswith(f"{buffer}[")]:
                del known[expression]

    def allocate(self, shape: Index, dtype: str) -> Array:
        """Make an array of any content."""
        name = self.name("b")
        self.line(f"{name} = np.empty({_tuple(shape)}, dtype=np.{np.dtype(dtype).name})")
        return self.memory(name, shape, dtype)

    def memory(self, name: str, shape: Index, dtype: str, lead: Index = ()) -> Array:
        """Return what is in memory, all of it or behind leading indices, as an array."""

        def element(index: Index) -> str:
            return self.assign(f"{name}[{', '.join(map(str, (*lead, *index))) or '()'}]")

        return Array(dtype, shape, element, None if lead else name)

    def named(self, names: NDArray[np.object_], dtype: str) -> Array:
        """Return numbers that have names or literals as an array."""

        def element(index: Index) -> str:
            at = next((d for d, i in enumerate(index) if isinstance(i, str)), None)
            if at is None:
                return str(names[index])
            options = [element((*index[:at], j, *index[at + 1 :])) for j in range(names.shape[at])]
            text = options[-1]
            for j, option in reversed(list(enumerate(options[:-1]))):
                text = f"choose({index[at]} == {j}, {option}, {text})"
            return self.assign(text)

        return Array(dtype, names.shape, element)

    def fill(self, shape: Index, dtypes: Sequence[str], values: Callable[[Index], Sequence[str]]) -> list[Array]:
        """Make arrays of one shape, whose numbers at each index the function writes."""
        if all(_unrolled_dimensions(shape)):
            names = [np.empty(shape, dtype=object) for _ in dtypes]
            for index in itertools.product(*(range(int(n)) for n in shape)):
                for array, value in zip(names, values(index), strict=True):
                    array[index] = value
            return [self.named(array, dtype) for array, dtype in zip(names, dtypes, strict=True)]
        arrays = [self.allocate(shape, dtype) for dtype in dtypes]
        with self.loops(shape) as indices:
            for index in indices:
                for array, value in zip(arrays, values(index), strict=True):
                    self.store(array, index, value)
        return arrays

    def store(self, array: Array, index: Index, value: str) -> None:
        """Write a number into memory."""
        self.line(f"{array.buffer}[{', '.join(map(str, index)) or '()'}] = {value}")

    def copy(self, array: Array) -> Array:
        """Put an array into memory of its own."""
        result = self.allocate(array.shape, array.dtype)
        with self.loops(array.shape) as indices:
            for index in indices:
                self.store(result, index, array.element(index))
        return result

    def check_equal(self, lengths: Sequence[Length]) -> Length:
        """Return the length that all of these are, the surest one; the code raises where they differ."""
        first = next((n for n in lengths if isinstance(n, int)), lengths[0])
        for other in lengths:
            if other != first:
                with self.block(f"if {other} != {first}"):
                    self.line("raise ValueError('arrays of different length')")
        return first

    def function(self, op: Any, node: Any) -> str:
        """Name PyTensor's own numba function of a scalar Op."""
        from pytensor.link.numba.dispatch.basic import numba_funcify_and_cache_key

        if getattr(op, "nfunc_spec", None) is None and "numba" not in repr(op):
            raise NotWritable(f"{op} has no numba function.")
        name = f"f_{type(op).__name__}_{len(node.inputs)}"
        self.functions[name] = numba_funcify_and_cache_key(op, node=node)[0]
        return name


@contextmanager
def _nested(contexts: Iterator[Any]) -> Iterator[None]:
    """Open them one inside the other."""
    first = next(contexts, None)
    if first is None:
        yield
        return
    with first, _nested(contexts):
        yield


def _unrolled_dimensions(shape: Index) -> tuple[bool, ...]:
    """Which dimensions are short and known: the last ones that together have few numbers."""
    flags, size = [], 1
    for length in reversed(shape):
        short = isinstance(length, int) and size * max(length, 1) <= UNROLLED
        size *= max(int(length), 1) if short else 1
        flags.append(short)
    return tuple(reversed(flags))


def _tuple(shape: Index) -> str:
    return f"({', '.join(map(str, shape))}{',' if len(shape) == 1 else ''})"


# --- the graph ------------------------------------------------------------------------------------------------------


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
            arrays[variable] = _constant(variable, code)
        return arrays[variable]

    for node in nodes:
        if node.op.destroy_map:
            raise NotWritable(f"{node.op} works in place.")
        inputs = [array_of(v) if _is_array(v) else None for v in node.inputs]
        # memory that nothing else reads, and that was made here, may be written to
        inputs = [
            array if array is None or (uses[v] == 1 and v not in known) else replace(array, buffer=None)
            for v, array in zip(node.inputs, inputs, strict=True)
        ]
        arrays.update(zip(node.outputs, write(node.op, node, inputs, code), strict=True))
    return [array_of(v) for v in outputs]


def _is_array(variable: Variable) -> bool:
    return hasattr(variable.type, "dtype")


def _constant(variable: Constant, code: Code) -> Array:
    data, dtype = np.asarray(variable.data), variable.type.dtype
    if data.ndim and not all(_unrolled_dimensions(data.shape)):
        values = ", ".join(literal(v, dtype) for v in data.ravel())
        name = code.assign(f"np.array([{values}], dtype=np.{np.dtype(dtype).name}).reshape({_tuple(data.shape)})")
        return replace(code.memory(name, data.shape, dtype), buffer=None)
    names = np.empty(data.shape, dtype=object)
    for index in np.ndindex(data.shape):
        names[index] = literal(data[index], dtype)
    return code.named(names, dtype)


@singledispatch
def write(op: Any, node: Apply, inputs: list[Any], code: Code) -> list[Array]:
    """Write what a node computes."""
    if isinstance(op, READ):
        return [_read(node, inputs, code)]
    if isinstance(op, WRITE):
        return [_write(node, inputs, code)]
    raise NotWritable(f"{op} is not written as loops.")


@write.register(DeepCopyOp)
@write.register(ViewOp)
@write.register(ScalarFromTensor)
@write.register(TensorFromScalar)
@write.register(SpecifyShape)
def _same(op: Any, node: Apply, inputs: list[Any], code: Code) -> list[Array]:
    return [replace(inputs[0], buffer=None)]


@write.register(CheckAndRaise)
def _check(op: CheckAndRaise, node: Apply, inputs: list[Any], code: Code) -> list[Array]:
    for condition in inputs[1:]:
        with code.block(f"if not {condition.scalar()}"):
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
        return write_scalar(op.scalar_op, at, code.assign, code.function, node)

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
    long = [d for d in axes if not _unrolled_dimensions(array.shape)[d]]
    start = _identity(kind, dtype)

    def total(index: Index) -> list[str]:
        full: list[Any] = [None] * len(array.shape)
        for d, i in zip(kept, index, strict=True):
            full[d] = i
        sums = code.name("s")
        code.line(f"{sums} = {start}")
        names = {d: code.name("i") for d in long}
        full = [names.get(d, i) for d, i in enumerate(full)]
        with _nested(code.block(f"for {names[d]} in range({array.shape[d]})") for d in long):
            short = [range(int(n)) if i is None else [i] for i, n in zip(full, array.shape, strict=True)]
            for at in itertools.product(*short):
                code.line(f"{sums} = {_COMBINE[kind].format(sums, array.element(at))}")
        return [sums]

    return code.fill(tuple(array.shape[d] for d in kept), [dtype], total)[0]


def _identity(kind: str, dtype: str) -> str:
    if kind.startswith("Scalar") and np.dtype(dtype).kind in "iu":
        limits = np.iinfo(dtype)
        return str(limits.min if kind == "ScalarMaximum" else limits.max)
    return literal(_IDENTITIES[kind], dtype)


@write.register(Softmax)
@write.register(LogSoftmax)
def _softmax(op: Any, node: Apply, inputs: list[Any], code: Code) -> list[Array]:
    [array], axis = inputs, op.axis
    axes = range(len(array.shape)) if axis is None else [axis % len(array.shape)]
    largest = _reduced("ScalarMaximum", array, axes, array.dtype, code)

    def rest(index: Index) -> Index:
        return tuple(i for d, i in enumerate(index) if d not in axes)

    def below(index: Index) -> str:
        return code.assign(f"{array.element(index)} - {largest.element(rest(index))}")

    powers = code.fill(array.shape, ["float64"], lambda index: [code.assign(f"math.exp({below(index)})")])[0]
    total = _reduced("Add", powers, axes, "float64", code)

    def values(index: Index) -> list[str]:
        whole = total.element(rest(index))
        if isinstance(op, LogSoftmax):
            return [code.assign(f"{below(index)} - {code.assign(f'math.log({whole})')}")]
        return [code.assign(f"{powers.element(index)} / {whole}")]

    return code.fill(array.shape, ["float64"], values)


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
    [array], axis, sign = inputs, op.axis, "+" if op.mode == "add" else "*"
    if axis is None:
        if len(array.shape) != 1:
            raise NotWritable(f"{op} over all dimensions.")
        axis = 0
    axis %= len(array.shape)
    result = code.copy(array)
    others = (*array.shape[:axis], *array.shape[axis + 1 :])
    with code.loops(others) as indices:
        for rest in indices:
            step = code.name("i")
            with code.block(f"for {step} in range(1, {array.shape[axis]})"):
                here = ", ".join(map(str, (*rest[:axis], step, *rest[axis:])))
                before = ", ".join(map(str, (*rest[:axis], f"{step} - 1", *rest[axis:])))
                code.line(f"{result.buffer}[{here}] {sign}= {result.buffer}[{before}]")
    return [result]


# --- shapes ---------------------------------------------------------------------------------------------------------


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
    return code.fill((len(inputs),), [op.dtype], lambda index: [code.named(_atoms(inputs), op.dtype).element(index)])


def _atoms(inputs: Sequence[Array]) -> NDArray[np.object_]:
    return np.array([array.scalar() for array in inputs], dtype=object)


def _length(array: Array) -> Length:
    text = array.scalar()
    return int(text) if text.lstrip("-").isdigit() else text


@write.register(Alloc)
def _alloc(op: Alloc, node: Apply, inputs: list[Any], code: Code) -> list[Array]:
    value, *lengths = inputs
    stretch = node.inputs[0].type.broadcastable
    shape = tuple(_length(n) for n in lengths)
    lead = len(shape) - len(stretch)

    def element(index: Index) -> str:
        return str(value.element(tuple(0 if s else i for i, s in zip(index[lead:], stretch, strict=True))))

    return [Array(value.dtype, shape, element)]


@write.register(AllocEmpty)
def _alloc_empty(op: AllocEmpty, node: Apply, inputs: list[Any], code: Code) -> list[Array]:
    return [code.allocate(tuple(_length(n) for n in inputs), op.dtype)]


@write.register(ARange)
def _arange(op: ARange, node: Apply, inputs: list[Any], code: Code) -> list[Array]:
    start, stop, step = (array.scalar() for array in inputs)
    if step != "1" or np.dtype(op.dtype).kind not in "iu":
        raise NotWritable(f"{op} with a step of {step}.")
    known = start.lstrip("-").isdigit() and stop.lstrip("-").isdigit()
    if known:
        n: Length = max(0, int(stop) - int(start))
    else:  # a length has no need to be cut at 0
        n = stop if start == "0" else code.assign(f"max(0, {stop} - {start})")

    def element(index: Index) -> str:
        return str(index[0]) if start == "0" else code.assign(f"{start} + {index[0]}")

    return [Array(op.dtype, (n,), element)]


@write.register(Join)
def _join(op: Join, node: Apply, inputs: list[Any], code: Code) -> list[Array]:
    if hasattr(op, "axis"):
        axis, parts = op.axis, inputs
    else:
        axis, parts = int(inputs[0].scalar()), inputs[1:]
    axis %= len(parts[0].shape)
    lengths = [part.shape[axis] for part in parts]
    if all(isinstance(n, int) for n in lengths):
        total: Length = sum(map(int, lengths))
    else:
        total = code.assign(" + ".join(map(str, lengths)))
    others = [code.check_equal([p.shape[d] for p in parts]) for d in range(len(parts[0].shape)) if d != axis]
    shape = (*others[:axis], total, *others[axis:])
    dtype = node.outputs[0].type.dtype
    if all(_unrolled_dimensions(shape)):
        pieces = [np.empty(part.shape, dtype=object) for part in parts]
        for piece, part in zip(pieces, parts, strict=True):
            for index in np.ndindex(piece.shape):
                piece[index] = part.element(index)
        return [code.named(np.concatenate(pieces, axis=axis), dtype)]
    result = code.allocate(shape, dtype)
    offset: Length = 0
    for part in parts:
        with code.loops(part.shape) as indices:
            for index in indices:
                place = (*index[:axis], _plus(index[axis], offset), *index[axis + 1 :])
                code.store(result, place, part.element(index))
        offset = _plus(offset, part.shape[axis])
    return [result]


def _plus(a: Length, b: Length) -> Length:
    if isinstance(a, int) and isinstance(b, int):
        return a + b
    return b if a == 0 else a if b == 0 else f"{a} + {b}"


@write.register(Split)
def _split(op: Split, node: Apply, inputs: list[Any], code: Code) -> list[Array]:
    array, axis = inputs[0], int(op.axis if hasattr(op, "axis") else inputs[1].scalar())
    sizes, parts, offset = inputs[-1], [], 0
    axis %= len(array.shape)
    for k in range(op.len_splits):
        text = sizes.element((k,))
        n: Length = int(text) if text.isdigit() else text

        def element(index: Index, offset: Length = offset) -> str:
            at = _plus(index[axis], offset)
            at = code.assign(at) if isinstance(at, str) and "+" in at else at
            return str(array.element((*index[:axis], at, *index[axis + 1 :])))

        parts.append(Array(array.dtype, (*array.shape[:axis], n, *array.shape[axis + 1 :]), element))
        offset = _plus(offset, n)  # type: ignore[assignment]
    code.check_equal([array.shape[axis], offset])
    return parts


@write.register(Reshape)
def _reshape(op: Reshape, node: Apply, inputs: list[Any], code: Code) -> list[Array]:
    array, sizes = inputs
    shape: list[Length] = []
    for k in range(op.ndim):
        text = sizes.element((k,))
        shape.append(int(text) if text.lstrip("-").isdigit() else text)
    size = _product(array.shape, code)
    if -1 in shape:
        others = _product(tuple(n for n in shape if n != -1), code)
        known = isinstance(size, int) and isinstance(others, int)
        shape[shape.index(-1)] = size // others if known else code.assign(f"{size} // max({others}, 1)")  # type: ignore[operator]
    code.check_equal([size, _product(tuple(shape), code)])

    def element(index: Index) -> str:
        flat: Length = 0
        for i, n in zip(index, shape, strict=True):
            flat = flat * n + i if all(isinstance(v, int) for v in (flat, n, i)) else f"({flat} * {n} + {i})"  # type: ignore[operator]
        flat = code.assign(flat) if isinstance(flat, str) else flat
        at: list[Length] = []
        for n in reversed(array.shape):
            if isinstance(flat, int) and isinstance(n, int):
                at.append(flat % n)
                flat //= n
            else:
                at.append(code.assign(f"{flat} % {n}"))
                flat = code.assign(f"{flat} // {n}")
        return str(array.element(tuple(reversed(at))))

    return [Array(array.dtype, tuple(shape), element)]


def _product(shape: Index, code: Code) -> Length:
    if all(isinstance(n, int) for n in shape):
        return math.prod(map(int, shape))
    return code.assign(" * ".join(map(str, shape)))


# --- indices --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _At:
    """One number of a dimension, and the name of whether there is one; None, if that is sure."""

    place: Length
    inside: str | None = None


@dataclass(frozen=True)
class _Range:
    """Part of a dimension."""

    start: Length
    step: int
    length: Length

    def place(self, i: Length, code: Code) -> Length:
        """Return the index into the whole."""
        if isinstance(i, int) and isinstance(self.start, int):
            return self.start + self.step * i
        scaled = _plus(i, 0) if self.step == 1 else f"{self.step} * {i}"
        at = _plus(self.start, scaled)
        return at if at == i else code.assign(str(at))


def _at(value: str, length: Length, code: Code) -> _At:
    """Resolve an index, of which a negative one counts from the end."""
    if value.lstrip("-").isdigit():
        i = int(value)
        if isinstance(length, int):
            return _At(i % length) if -length <= i < length else _At(0, "False")
        place: Length = i if i >= 0 else code.assign(f"{length} - {-i}")
        return _At(place, code.assign(f"{length} > {i}" if i >= 0 else f"{place} >= 0"))
    place = code.assign(f"choose({value} < 0, {value} + {length}, {value})")
    return _At(place, code.assign(f"({place} >= 0) & ({place} < {length})"))


def _range(index: slice, length: Length, code: Code, value: Callable[[Any], str | None]) -> _Range:
    """Resolve a slice as Python does."""
    start, stop, step = (value(part) for part in (index.start, index.stop, index.step))
    if step is not None and not step.lstrip("-").isdigit():
        raise NotWritable("a slice whose step is no constant.")
    by = int(step or 1)
    given = [v for v in (start, stop) if v is not None]
    if isinstance(length, int) and all(v.lstrip("-").isdigit() for v in given):
        whole = range(length)[slice(*(None if v is None else int(v) for v in (start, stop)), by)]
        return _Range(whole.start, by, len(whole))
    low, high = (0, length) if by > 0 else (-1, code.assign(f"{length} - 1"))

    def bound(v: str | None, left_out: Length) -> Length:
        if v is None:
            return left_out
        if v == "0" and by > 0:
            return 0
        wrapped = v if v.isdigit() else f"choose({v} < 0, {v} + {length}, {v})"
        return code.assign(f"max({low}, min({high}, {wrapped}))")

    first, last = (bound(start, low), bound(stop, high)) if by > 0 else (bound(start, high), bound(stop, low))
    if by > 0 and first == 0 and by == 1:
        return _Range(0, 1, last)
    sign = 1 if by > 0 else -1
    return _Range(first, by, code.assign(f"max(0, ({last} - {first} + {by} - {sign}) // {by})"))


@dataclass(frozen=True)
class _Selection:
    """What an index selects: for each index into the result, one into the whole."""

    shape: Index
    resolve: Callable[[Index], list[_At]]


def _select(node: Apply, shape: Index, inputs: Sequence[Any], code: Code) -> _Selection:
    arrays = dict(zip(node.inputs, inputs, strict=True))
    parts = indices_of(node, node.inputs)
    parts += [slice(None)] * (len(shape) - sum(p is not None for p in parts))

    def value(part: Any) -> str | None:
        return None if part is None else str(part) if isinstance(part, int) else arrays_of(part).scalar()

    def arrays_of(part: Any) -> Array:
        array = arrays[part] if part in arrays else None
        if array is None:
            if not isinstance(part, Constant):
                raise NotWritable(f"{node.op} with an index that is computed inside it.")
            array = _constant(part, code)
        return array

    advanced = not isinstance(node.op, subtensor.Subtensor | subtensor.IncSubtensor)
    plan: list[tuple[str, Any, Length]] = []  # what each part of the index is, and how long the dimension
    axis = 0
    for part in parts:
        if part is None:
            plan.append(("new", None, 1))
            continue
        length, axis = shape[axis], axis + 1
        if isinstance(part, slice):
            plan.append(("slice", _range(part, length, code, value), length))
        elif not advanced:
            plan.append(("at", _at(str(value(part)), length, code), length))
        else:
            array = arrays_of(part)
            if array.dtype == "bool":
                raise NotWritable(f"{node.op} with a mask.")
            plan.append(("array", (array, part.type.broadcastable), length))
    kinds = [kind for kind, _, _ in plan]
    depth = max((len(s) for kind, (_, s) in ((k, w) for k, w, _ in plan if k == "array")), default=0)
    first = kinds.index("array") if "array" in kinds else 0
    together = "array" not in kinds[first:][kinds[first:].count("array") :] if depth or "array" in kinds else True
    common: list[Length] = []
    for d in range(depth):
        own = [
            array.shape[d - depth + len(s)]
            for array, s in (what for kind, what, _ in plan if kind == "array")
            if d - depth + len(s) >= 0 and not s[d - depth + len(s)]
        ]
        common.append(code.check_equal(own) if own else 1)
    result: list[Length] = []
    placed = "array" not in kinds
    if not placed and not together:
        result, placed = list(common), True
    for kind, what, _ in plan:
        if kind == "new":
            result.append(1)
        elif kind == "slice":
            result.append(what.length)
        elif kind == "array" and not placed:
            result, placed = [*result, *common], True

    def resolve(index: Index) -> list[_At]:
        rest, own = list(index), ()
        if "array" in kinds:
            at = sum(k in ("new", "slice") for k in kinds[:first]) if together else 0
            own, rest = index[at : at + depth], [*index[:at], *index[at + depth :]]
        places, k = [], 0
        for kind, what, length in plan:
            if kind == "at":
                places.append(what)
            elif kind == "array":
                array, stretch = what
                mine = own[depth - len(stretch) :]
                text = array.element(tuple(0 if s else i for i, s in zip(mine, stretch, strict=True)))
                sure = text in code.bounds and code.bounds[text] == length
                places.append(_At(text) if sure else _at(text, length, code))
            else:
                if kind == "slice":
                    places.append(_At(what.place(rest[k], code)))
                k += 1
        return places

    return _Selection(tuple(result), resolve)


def _inside(places: Sequence[_At]) -> str | None:
    conditions = [p.inside for p in places if p.inside is not None]
    return " & ".join(conditions) if conditions else None


def _raise_outside(inside: str, node: Apply, code: Code) -> None:
    with code.block(f"if not ({inside})"):
        code.line(f"raise IndexError({str(node.op)[:60] + ': an index, such as a choice, is out of range.'!r})")


def _read(node: Apply, inputs: list[Any], code: Code) -> Array:
    """NaN where an index is out of range, for which numbers that are no floats have no room: they raise."""
    whole = inputs[0]
    selection = _select(node, whole.shape, inputs, code)

    def element(index: Index) -> str:
        places = selection.resolve(index)
        inside = _inside(places)
        if inside is None:
            return str(whole.element(tuple(p.place for p in places)))
        if "float" not in whole.dtype:
            _raise_outside(inside, node, code)
            return str(whole.element(tuple(p.place for p in places)))
        safe = tuple(p.place if p.inside is None else code.assign(f"choose({p.inside}, {p.place}, 0)") for p in places)
        return code.assign(f"choose({inside}, {whole.element(safe)}, np.nan)")

    return Array(whole.dtype, selection.shape, element)


def _write(node: Apply, inputs: list[Any], code: Code) -> Array:
    """Set or increment; where an index is out of range all becomes NaN, or it raises."""
    whole, values = inputs[:2]
    is_set = node.op.set_instead_of_inc
    selection = _select(node, whole.shape, [*inputs], code)
    stretch = node.inputs[1].type.broadcastable
    lead = len(selection.shape) - len(stretch)

    def value(index: Index) -> str:
        return str(values.element(tuple(0 if s else i for i, s in zip(index[lead:], stretch, strict=True))))

    if whole.unrolled and all(_unrolled_dimensions(selection.shape)):
        return _write_names(node, whole, selection, value, code)
    result = Array(whole.dtype, whole.shape, whole.element, whole.buffer) if whole.buffer else code.copy(whole)
    assert result.buffer is not None
    with code.loops(selection.shape) as indices:
        for index in indices:
            places = selection.resolve(index)
            inside = _inside(places)
            if inside is not None and "float" not in whole.dtype:
                _raise_outside(inside, node, code)
                inside = None
            text = value(index)
            if inside is not None:
                with code.block(f"if not ({inside})"):
                    code.line(f"{result.buffer}[...] = np.nan")
            with code.block(f"if {inside}") if inside is not None else _nested(iter(())):
                place = ", ".join(str(p.place) for p in places) or "()"
                code.line(f"{result.buffer}[{place}] {'' if is_set else '+'}= {text}")
    code.forget(result.buffer)
    return code.memory(result.buffer, whole.shape, whole.dtype)


def _write_names(node: Apply, whole: Array, selection: _Selection, value: Callable[[Index], str], code: Code) -> Array:
    shape = tuple(int(n) for n in whole.shape)
    names = np.empty(shape, dtype=object)
    for index in np.ndindex(shape):
        names[index] = whole.element(index)
    is_set = node.op.set_instead_of_inc
    for index in itertools.product(*(range(int(n)) for n in selection.shape)):
        places, new = selection.resolve(index), value(index)
        inside = _inside(places)
        if inside is not None and "float" not in whole.dtype:
            _raise_outside(inside, node, code)
            inside = None
        for at in itertools.product(
            *(range(n) if isinstance(p.place, str) else [p.place] for p, n in zip(places, shape, strict=True))
        ):
            text = new if is_set else f"{names[at]} + {new}"
            conditions = [f"({p.place} == {j})" for p, j in zip(places, at, strict=True) if isinstance(p.place, str)]
            if conditions:
                text = f"choose({' & '.join(conditions)}, {text}, {names[at]})"
            names[at] = text if text == new else code.assign(text)
        if inside is not None:
            for at in np.ndindex(shape):
                names[at] = code.assign(f"choose({inside}, {names[at]}, np.nan)")
    return code.named(names, whole.dtype)


# --- Scan -----------------------------------------------------------------------------------------------------------


@write.register(Scan)
def _scan(op: Scan, node: Apply, inputs: list[Any], code: Code) -> list[Array]:
    info = op.info
    if info.as_while or info.n_untraced_sit_sot:
        raise NotWritable(f"{op} stops by a condition, or draws.")
    in_taps = [*info.mit_mot_in_slices, *info.mit_sot_in_slices, *info.sit_sot_in_slices]
    n_mit_mot, n_buffers, n_nit_sot = len(info.mit_mot_in_slices), len(in_taps), info.n_nit_sot
    out_taps = [*info.mit_mot_out_slices, *[(0,)] * (n_buffers - n_mit_mot)]
    steps = _length(inputs[0])
    ends = list(itertools.accumulate([1, info.n_seqs, n_buffers, n_nit_sot]))
    sequences, states, shared = inputs[1 : ends[1]], inputs[ends[1] : ends[2]], inputs[ends[3] :]
    buffers = [state if state.buffer else code.copy(state) for state in states]
    back = [-min(0, *taps) for taps in in_taps]
    for buffer, b, taps_in, taps_out in zip(buffers, back, in_taps, out_taps, strict=True):
        longest = max(*taps_in, *taps_out) + b
        with code.block(f"if {buffer.shape[0]} < {steps} + {longest}"):
            code.line("raise ValueError('a Scan has too little memory')")
    for sequence in sequences:
        if sequence.shape[0] != steps:
            with code.block(f"if {sequence.shape[0]} < {steps}"):
                code.line("raise ValueError('a sequence of a Scan is too short')")
    first = len(code.lines)
    step = code.name("i")
    with code.block(f"for {step} in range({steps})"):
        inner: list[Array] = [_row(sequence, step) for sequence in sequences]
        for k, (buffer, b, taps) in enumerate(zip(buffers, back, in_taps, strict=True)):
            for tap in taps:
                row = _row(buffer, code.assign(f"{step} + {b + tap}") if b + tap else step)
                if k < n_mit_mot and not row.unrolled:
                    row = code.copy(row)  # it is written to before all of it is read
                elif row.unrolled:
                    row = code.fill(row.shape, [row.dtype], lambda index, row=row: [row.element(index)])[0]
                inner.append(row)
        known = dict(zip(op.fgraph.inputs, [*inner, *shared], strict=True))
        outputs = write_graph(op.fgraph.toposort(), op.fgraph.outputs, known, code)
        places = [(buffer, b + tap) for buffer, b, taps in zip(buffers, back, out_taps, strict=True) for tap in taps]
        new = [_new_rows(op.fgraph.outputs[-n_nit_sot + k], outputs[-n_nit_sot + k], steps) for k in range(n_nit_sot)]
        rows = []
        for (shape, dtype), output in zip(new, outputs[len(places) :], strict=True):
            name = code.name("b")
            allocate = f"{name} = np.empty({_tuple(shape)}, dtype=np.{np.dtype(dtype).name})"
            if all(isinstance(n, int) for n in shape[1:]):
                code.lines.insert(first, "    " * (code.depth - 1) + allocate)
            else:  # how long a row is, is known inside only
                empty = f"{name} = np.empty({_tuple((0,) * len(shape))}, dtype=np.{np.dtype(dtype).name})"
                code.lines.insert(first, "    " * (code.depth - 1) + empty)
                with code.block(f"if {step} == 0"):
                    code.line(allocate)
            rows.append(code.memory(name, shape, dtype))
            places.append((rows[-1], 0))
        values = [_settled(output, code) for output in outputs]
        for (buffer, offset), value in zip(places, values, strict=True):
            at = f"{step} + {offset}" if offset else step
            with code.loops(value.shape) as indices:
                for index in indices:
                    code.store(buffer, (at, *index), value.element(index))
    for buffer in (*buffers, *rows):
        code.forget(str(buffer.buffer))
    return [*(code.memory(str(b.buffer), b.shape, b.dtype) for b in buffers), *rows]


def _row(array: Array, step: str) -> Array:
    return Array(array.dtype, array.shape[1:], lambda index: array.element((step, *index)))


def _settled(array: Array, code: Code) -> Array:
    """Read all numbers now, before memory is written to."""
    if array.unrolled:
        return code.fill(array.shape, [array.dtype], lambda index: [array.element(index)])[0]
    return array if array.buffer else code.copy(array)


def _new_rows(variable: Variable, output: Array, steps: Length) -> tuple[Index, str]:
    return (steps, *output.shape), variable.type.dtype
