"""Reading and writing parts of arrays, by slices, numbers, and arrays of numbers, as NumPy does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pytensor.graph.basic import Apply, Constant
from pytensor.tensor import subtensor

from em_ppl.batching import READ, WRITE, indices_of
from em_ppl.loops.code import Array, Code, Index, Length, NotWritable, is_unrolled, meant
from em_ppl.loops.graph import constant, write
from em_ppl.loops.lengths import fold, is_number
from em_ppl.loops.scalars import cast


@dataclass(frozen=True)
class At:
    """One number of a dimension, and whether there is one: an expression, or None if that is sure."""

    place: Length
    inside: str | None = None


@dataclass(frozen=True)
class Range:
    """Part of a dimension."""

    start: Length
    step: int
    length: Length

    def place(self, i: Length, code: Code) -> Length:
        """Return the index into the whole."""
        if self.step == 1:
            return code.calculate("Add", i, self.start)
        if isinstance(i, int):
            return code.calculate("Add", self.start, self.step * i)
        scaled = fold("Mul", [str(self.step), str(i)])
        return code.calculate("Add", self.start, scaled or code.assign(f"{self.step} * {i}"))


def resolve_at(value: str, length: Length, code: Code) -> At:
    """Resolve an index, of which a negative one counts from the end."""
    if is_number(value):
        i = int(value)
        if isinstance(length, int):
            return At(i % length) if -length <= i < length else At(0, "False")
        place = i if i >= 0 else code.calculate("Add", length, i)
        spare = code.calculate("Sub", length, i + 1) if i >= 0 else place
        return At(place, None if code.calculate("Minimum", spare, 0) == 0 else code.assign(f"{spare} >= 0"))
    if code.ends.get(value) == length:
        return At(value)  # the counter of a loop over this very dimension
    if value in code.ranges and isinstance(length, int):
        low, high = code.ranges[value]
        if low >= 0 and high < length:
            return At(value)
    place = code.assign(f"choose({value} < 0, {value} + {length}, {value})")
    return At(place, code.assign(f"({place} >= 0) & ({place} < {length})"))


def resolve_range(index: slice, length: Length, code: Code, value: Callable[[Any], str | None]) -> Range:
    """Resolve a slice as Python does."""
    start, stop, step = (value(part) for part in (index.start, index.stop, index.step))
    if step is not None and not is_number(step):
        raise NotWritable("a slice whose step is no constant.")
    by = int(step or 1)
    low: Length = 0 if by > 0 else -1
    high = length if by > 0 else code.calculate("Sub", length, 1)

    def bound(given: str | None, left_out: Length) -> Length:
        if given is None:
            return left_out
        below: Length = given
        if code.calculate("Minimum", given, 0) != 0:  # it may be negative
            wrapped = code.calculate("Add", given, length)
            negative = code.calculate("Maximum", given, -1) == -1
            below = wrapped if negative else code.assign(f"choose({given} < 0, {wrapped}, {given})")
        return code.calculate("Maximum", low, code.calculate("Minimum", high, below))

    first, last = (bound(start, low), bound(stop, high)) if by > 0 else (bound(start, high), bound(stop, low))
    span = code.calculate("Sub", last, first) if by > 0 else code.calculate("Sub", first, last)
    if abs(by) > 1:
        rounded = code.calculate("Add", span, abs(by) - 1)
        span = rounded // abs(by) if isinstance(rounded, int) else code.assign(f"{rounded} // {abs(by)}")
    return Range(first, by, code.calculate("Maximum", 0, span))


@dataclass(frozen=True)
class Selection:
    """What an index selects: for each index into the result, one into the whole."""

    shape: Index
    resolve: Callable[[Index], list[At]]
    rows: Range | None  # which rows, if it is all of them that it selects


@dataclass(frozen=True)
class Part:
    """One part of an index: "new", "slice", "at" or "array"; what it is; and how long its dimension."""

    kind: str
    what: Any = None
    length: Length = 1


def select(node: Apply, shape: Index, inputs: Sequence[Any], code: Code) -> Selection:
    """Resolve the index of a node that reads or writes an array of this shape."""
    parts = _parts(node, shape, dict(zip(node.inputs, inputs, strict=True)), code)
    arrays = [part.what for part in parts if part.kind == "array"]
    kinds = [part.kind for part in parts]
    first = kinds.index("array") if arrays else 0
    together = all(kind == "array" for kind in kinds[first : first + len(arrays)])
    depth = max((len(stretch) for _, stretch in arrays), default=0)
    common = []
    for d in range(-depth, 0):
        own = [array.shape[d] for array, stretch in arrays if len(stretch) >= -d and not stretch[d]]
        common.append(code.check_equal(own) if own else 1)
    plain = [(k, part.length if part.kind == "new" else part.what.length) for k, part in enumerate(parts)
             if part.kind in ("new", "slice")]  # fmt: skip
    # NumPy puts dimensions of index arrays in the place of these, or first where something stands between them
    lead = sum(k < first for k, _ in plain) if together else 0
    lengths = [n for _, n in plain]
    result = (*lengths[:lead], *common, *lengths[lead:]) if arrays else tuple(lengths)

    def resolve(index: Index) -> list[At]:
        own, rest = index[lead : lead + depth], [*index[:lead], *index[lead + depth :]]
        places, counters = [], iter(rest)
        for part in parts:
            if part.kind == "new":
                next(counters)
            elif part.kind == "slice":
                places.append(At(part.what.place(next(counters), code)))
            elif part.kind == "at":
                places.append(part.what)
            else:
                array, stretch = part.what
                mine = own[depth - len(stretch) :]
                text = array.element(tuple(0 if s else i for i, s in zip(mine, stretch, strict=True)))
                places.append(resolve_at(text, part.length, code))
        return places

    return Selection(result, resolve, _rows(parts))


def _parts(node: Apply, shape: Index, arrays: dict[Any, Any], code: Code) -> list[Part]:
    def array_of(part: Any) -> Array:
        array = arrays.get(part)
        if array is None:
            if not isinstance(part, Constant):
                raise NotWritable(f"{node.op} with an index that is computed inside it.")
            array = constant(part, code)
        return array

    def value(part: Any) -> str | None:
        return None if part is None else str(part) if isinstance(part, int) else array_of(part).scalar()

    given = indices_of(node, node.inputs)
    given += [slice(None)] * (len(shape) - sum(part is not None for part in given))
    advanced = not isinstance(node.op, subtensor.Subtensor | subtensor.IncSubtensor)
    parts, lengths = [], iter(shape)
    for part in given:
        if part is None:
            parts.append(Part("new"))
            continue
        length = next(lengths)
        if isinstance(part, slice):
            parts.append(Part("slice", resolve_range(part, length, code, value), length))
        elif not advanced:
            parts.append(Part("at", resolve_at(str(value(part)), length, code), length))
        elif part.type.dtype == "bool":
            raise NotWritable(f"{node.op} with a mask.")
        else:
            parts.append(Part("array", (array_of(part), part.type.broadcastable), length))
    return parts


def _rows(parts: Sequence[Part]) -> Range | None:
    """Return the rows that are selected, in order, if they are whole."""
    ranges = [part.what for part in parts if part.kind == "slice" and part.what.step == 1]
    whole = all((r.start, r.length) == (0, part.length) for r, part in zip(ranges[1:], parts[1:], strict=False))
    return ranges[0] if ranges and len(ranges) == len(parts) and whole else None


def _inside(places: Sequence[At]) -> str | None:
    conditions = [place.inside for place in places if place.inside is not None]
    return " & ".join(conditions) if conditions else None


def _raise_outside(inside: str, node: Apply, code: Code) -> None:
    with code.block(f"if not ({inside})"):
        code.line(f"raise IndexError({str(node.op)[:60] + ': an index, such as a choice, is out of range.'!r})")


def _read(op: Any, node: Apply, inputs: list[Any], code: Code) -> list[Array]:
    """NaN where an index is out of range, for which numbers that are no floats have no room: they raise."""
    whole = inputs[0]
    selection = select(node, whole.shape, inputs, code)

    def element(index: Index) -> str:
        places = selection.resolve(index)
        inside = _inside(places)
        if inside is not None and "float" not in whole.dtype:
            _raise_outside(inside, node, code)
            inside = None
        if inside is None:
            return str(whole.element(tuple(p.place for p in places)))
        safe = tuple(p.place if p.inside is None else code.assign(f"choose({p.inside}, {p.place}, 0)") for p in places)
        return code.assign(f"choose({inside}, {whole.element(safe)}, np.nan)")

    return [Array(whole.dtype, selection.shape, element)]


def _write(op: Any, node: Apply, inputs: list[Any], code: Code) -> list[Array]:
    """Set or increment; where an index is out of range all becomes NaN, or it raises."""
    whole, values = inputs[:2]
    selection = select(node, whole.shape, inputs, code)
    stretch = node.inputs[1].type.broadcastable
    lead = len(selection.shape) - len(stretch)
    code.check_fit(values.shape, stretch, selection.shape)

    def value(index: Index) -> str:
        text = values.element(tuple(0 if s else i for i, s in zip(index[lead:], stretch, strict=True)))
        return cast(text, values.dtype, whole.dtype, code)  # what is forwarded has not been in memory

    if is_unrolled(whole.shape) and is_unrolled(selection.shape):
        return [_write_names(node, whole, selection, value, code)]
    if selection.rows is not None and not whole.buffer:
        return [_with_rows(op, whole, selection.rows, value, code)]
    result = whole if whole.buffer else code.copy(whole)

    def body(indices: list[Index]) -> None:
        for index in indices:
            places, text = selection.resolve(index), value(index)
            inside = _inside(places)
            if inside is not None and "float" not in whole.dtype:
                _raise_outside(inside, node, code)
                inside = None
            place = tuple(p.place for p in places)
            if inside is None:
                _put(op, result, place, text, code)
                continue
            with code.block(f"if {inside}"):
                code.store(result, place, text, add=not op.set_instead_of_inc)
            with code.block("else"):
                code.store(result, ("...",), "np.nan")

    code.loops(selection.shape, body)
    return [code.memory(str(result.buffer), whole.shape, whole.dtype)]


def _with_rows(op: Any, whole: Array, rows: Range, value: Callable[[Index], str], code: Code) -> Array:
    """Read numbers where they are: those of some rows as they were written, or incremented."""
    stop = code.calculate("Add", rows.start, rows.length)

    def element(index: Index) -> str:
        row = index[0]

        def new() -> str:
            text = value((code.calculate("Sub", row, rows.start), *index[1:]))
            return text if op.set_instead_of_inc else code.plus(whole.element(index), text)

        behind = fold("GE", [str(row), str(rows.start)]) or f"({row} >= {rows.start})"
        ahead = fold("LT", [str(row), str(stop)]) or f"({row} < {stop})"
        condition = fold("AND", [behind, ahead]) or f"{behind} & {ahead}"
        return code.either(condition, new, lambda: whole.element(index))

    return Array(whole.dtype, whole.shape, element)


def _put(op: Any, result: Array, place: Index, text: str, code: Code) -> None:
    """Write one number; where it is one of few that are known each is written, so that nothing need be read again."""
    add = not op.set_instead_of_inc
    if not (options := code.among_few(str(result.buffer), place, result.shape)):
        code.store(result, place, text, add=add)
    for at, condition, old in options:
        new = code.plus(old, text) if add else text
        code.store(result, at, code.assign(f"choose({condition}, {new}, {old})"))


def _write_names(node: Apply, whole: Array, selection: Selection, value: Callable[[Index], str], code: Code) -> Array:
    """Write into an array whose numbers have names: new names."""
    shape = tuple(map(int, whole.shape))
    names = np.empty(shape, dtype=object)
    for index in np.ndindex(shape):
        names[index] = whole.element(index)
    for index in np.ndindex(tuple(map(int, selection.shape))):
        places, new = selection.resolve(index), value(index)
        inside = _inside(places)
        if inside is not None and "float" not in whole.dtype:
            _raise_outside(inside, node, code)
            inside = None
        place = tuple(p.place for p in places)
        for where, condition in meant(place, [isinstance(i, str) for i in place], shape):
            at = tuple(map(int, where))
            text = new if node.op.set_instead_of_inc else code.plus(names[at], new)
            names[at] = code.assign(f"choose({condition}, {text}, {names[at]})") if condition else text
        if inside is not None:
            for at in np.ndindex(shape):
                names[at] = code.assign(f"choose({inside}, {names[at]}, np.nan)")
    return code.named(names, whole.dtype)


for _op in READ:
    write.register(_op, _read)
for _op in WRITE:
    write.register(_op, _write)
