"""The code as it is written: lines, names, loops over trials, and memory."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from em_ppl.loops.frames import BUFFER, Block, Frame, Length, OpenLoop, Separate
from em_ppl.loops.lengths import fold, is_number

__all__ = [
    "Array",
    "Code",
    "Index",
    "Length",
    "NotWritable",
    "is_unrolled",
    "length_of",
    "meant",
    "tuple_of",
    "unrolled_dims",
]

Index: TypeAlias = tuple[Length, ...]
Made = TypeVar("Made")

UNROLLED = 32  # numbers that an array of known shape may have to become so many names
ZERO = "(0.0)"
FEW = 4  # numbers, of which one is chosen rather than read
_COMPUTED = re.compile(r"v\d+")
_ARITHMETIC = {
    **{"Add": "{} + {}", "Sub": "{} - {}", "Mul": "{} * {}", "IntDiv": "{} // {}", "Mod": "{} % {}"},
    **{"Minimum": "min({}, {})", "Maximum": "max({}, {})"},
}
# memory of a size that has but n in it, and tables of constants
_SAME_FOR_ALL = re.compile(r"b\d+ = np\.empty\([^iv]*, dtype=|v\d+ = np\.array\(\[")


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
        Lengths, or expressions for them.
    element : callable
        From an index to a name or literal; it may write a line to get there.
    buffer : str or None
        The name of memory that is this array's own.
    """

    dtype: str
    shape: Index
    element: Callable[[Index], str]
    buffer: str | None = None

    def scalar(self) -> str:
        """Read an array without dimensions."""
        return self.element(())


@dataclass
class Code:
    """Lines of a Python function, as they are written."""

    functions: dict[str, Any] = field(default_factory=dict)  # that the lines call, by name
    ends: dict[str, Length] = field(default_factory=dict)  # loop counter -> where it ends
    ranges: dict[str, tuple[int, int]] = field(default_factory=dict)  # name, or memory -> least and largest value
    comparisons: dict[str, tuple[str, str, str]] = field(default_factory=dict)  # name -> LT, LE, GT, GE or EQ, of what
    sizes: dict[str, str] = field(default_factory=dict)  # name -> its absolute value
    _frames: list[Frame] = field(default_factory=lambda: [Frame()])
    _guards: list[OpenLoop] = field(default_factory=list)  # loops that are taking up what is being written
    _count: int = 0

    def lines(self) -> tuple[list[str], list[str]]:
        """Return all lines but for those whose results nothing reads; what serves all subjects comes first."""
        [frame] = self._frames
        frame.close()
        items = _without_dead(frame.items)
        once = [item for item in items if isinstance(item, str) and _SAME_FOR_ALL.match(item)]
        return _rendered(once), _rendered([item for item in items if item not in once])

    # --- lines ------------------------------------------------------------------------------------------------------

    def name(self, prefix: str = "v") -> str:
        """Return a new name: v for numbers, b for memory, s for sums, i for counters."""
        self._count += 1
        return f"{prefix}{self._count}"

    def line(self, text: str) -> None:
        """Write a line."""
        for guard in self._guards:
            guard.refuse(text)
        self._frames[-1].append(text)

    def assign(self, expression: str) -> str:
        """Name the value of an expression; the same name for the same expression."""
        name = self.known(expression)
        if name is None:
            name = self.name()
            self.line(f"{name} = {expression}")
            self._frames[-1].known[expression] = name
        return name

    def known(self, expression: str) -> str | None:
        """Return the name of the value of an expression, or a literal, if it has been computed.

        What is in memory is known inside a loop only if the loop itself has read or written it: it may write to it.
        """
        for frame in reversed(self._frames):
            if expression in frame.known:
                return frame.known[expression]
            if frame.repeats and BUFFER.match(expression):
                return None
        return None

    def once(self, key: Any, make: Callable[[], Made]) -> Made:
        """Return what has been made under this key, or make it."""
        for frame in self._frames:
            if key in frame.made:
                found: Made = frame.made[key]
                return found
        return self._frames[-1].made.setdefault(key, make())

    def either(self, condition: str, a: Callable[[], str], b: Callable[[], str]) -> str:
        """Name one of two values, of which only that one is read."""
        if condition in ("True", "False"):
            return a() if condition == "True" else b()
        name = self.name()
        for header, value in ((f"if {condition}", a), ("else", b)):
            with self.block(header):
                self.line(f"{name} = {value()}")
        return name

    def calculate(self, op: str, *numbers: Length) -> Length:
        """Write arithmetic of whole numbers: Add, Sub, Mul, IntDiv, Mod, Minimum, Maximum."""
        texts = [str(number) for number in numbers]
        known = fold(op, texts)
        if known is None:
            return self.assign(_ARITHMETIC[op].format(*texts))
        return int(known) if is_number(known) else known

    def plus(self, a: str, b: str) -> str:
        """Add two numbers, of which one may be nothing."""
        return b if a == ZERO else a if b == ZERO else self.assign(f"{a} + {b}")

    @contextmanager
    def block(self, header: str) -> Iterator[None]:
        """Write what follows one level deeper."""
        for guard in self._guards:
            guard.refuse(header)
        self._frames.append(Frame())
        try:
            yield
        finally:
            frame = self._frames.pop()
        frame.close()
        self._frames[-1].append(Block(header, frame.items))

    def loop(self, end: Length, body: Callable[[str], None]) -> None:
        """Loop from 0; the body writes what is done at a counter. It may be called twice."""
        frame = self._frames[-1]
        if frame.open is not None and frame.open.end == end and self._taken_up(frame.open, body):
            return
        frame.close()
        counter = self.name("i")
        self.ends[counter] = end
        inner = Frame(repeats=True)
        self._frames.append(inner)
        try:
            body(counter)
        finally:
            self._frames.pop()
        inner.close()
        block = Block(f"for {counter} in range({end})", inner.items)
        frame.open = OpenLoop(counter, end, block, inner.known)

    def _taken_up(self, loop: OpenLoop, body: Callable[[str], None]) -> bool:
        """Write a body at the end of an open loop, if all that it reads is there by then."""
        inner, depth = Frame(known=dict(loop.known), repeats=True), len(self._frames)
        self._guards.append(loop)
        self._frames.append(inner)
        try:
            body(loop.counter)
        except Separate:
            return False
        finally:
            self._guards.pop()
            del self._frames[depth:]
        inner.close()
        block = Block(loop.block.header, [*loop.block.items, *inner.items])
        self._frames[-1].open = OpenLoop(loop.counter, loop.end, block, inner.known, loop.after)
        return True

    def loops(self, shape: Index, body: Callable[[list[Index]], None]) -> None:
        """Loop over the long dimensions of a shape; the body gets the indices, with the short ones written out."""
        unrolled = unrolled_dims(shape)
        long = [d for d, short in enumerate(unrolled) if not short]

        def inside(counters: tuple[str, ...]) -> None:
            if len(counters) < len(long):
                self.loop(shape[long[len(counters)]], lambda counter: inside((*counters, counter)))
                return
            names = dict(zip(long, counters, strict=True))
            axes = [[names[d]] if d in names else range(int(n)) for d, n in enumerate(shape)]
            body(list(itertools.product(*axes)))

        inside(())

    # --- memory -----------------------------------------------------------------------------------------------------

    def allocate(self, shape: Index, dtype: str) -> Array:
        """Make an array of any content."""
        name = self.name("b")
        self.line(f"{name} = np.empty({tuple_of(shape)}, dtype=np.{np.dtype(dtype).name})")
        return self.memory(name, shape, dtype)

    def memory(self, name: str, shape: Index, dtype: str, lead: Index = ()) -> Array:
        """Return what is in memory, all of it or behind leading indices, as an array."""

        def element(index: Index) -> str:
            if not lead and (options := self.among_few(name, index, shape)):
                _, conditions, values = zip(*options, strict=True)
                return self.assign(_choice(conditions, values))
            value = self.assign(_place(name, (*lead, *index)))
            if name in self.ranges:
                self.ranges[value] = self.ranges[name]
            return value

        return Array(dtype, shape, element, None if lead else name)

    def among_few(self, name: str, index: Index, shape: Index) -> list[tuple[Index, str, str]]:
        """Return the places that an index may mean, with conditions and values, if it chooses among few known ones."""
        pairs = zip(index, shape, strict=True)
        chosen = [isinstance(n, int) and n <= FEW and bool(_COMPUTED.fullmatch(str(i))) for i, n in pairs]
        options = meant(index, chosen, shape) if any(chosen) else []
        known = [(at, condition, self.known(_place(name, at))) for at, condition in options]
        found = [(at, condition, value) for at, condition, value in known if value is not None]
        return found if len(found) == len(options) else []

    def store(self, array: Array, index: Index, value: str, *, add: bool = False) -> None:
        """Write a number into memory, or add it to what is there."""
        buffer = str(array.buffer)
        place = _place(buffer, index)
        if add and (old := self.known(place)) is not None:
            value, add = self.plus(old, value), False
        self.ranges.pop(buffer, None)
        self.line(f"{place} {'+' if add else ''}= {value}")
        self.forget(buffer, index)
        if not add:
            self._frames[-1].known[place] = value

    def forget(self, buffer: str, index: Index = ()) -> None:
        """Read again what is in memory that has been written to: all of it, or what may be at an index."""
        for frame in self._frames:
            for known in (frame.known, frame.open.known if frame.open else {}):
                for place in [e for e in known if e.startswith(f"{buffer}[") and not _is_elsewhere(e, index)]:
                    del known[place]

    def named(self, names: NDArray[np.object_], dtype: str) -> Array:
        """Return numbers that have names or literals as an array."""

        def element(index: Index) -> str:
            at = next((d for d, i in enumerate(index) if isinstance(i, str)), None)
            if at is None:
                return str(names[tuple(map(int, index))])
            options = [element((*index[:at], j, *index[at + 1 :])) for j in range(names.shape[at])]
            return self.assign(_choice([f"{index[at]} == {j}" for j in range(len(options))], options))

        return Array(dtype, names.shape, element)

    def fill(self, shape: Index, dtypes: Sequence[str], values: Callable[[Index], Sequence[str]]) -> list[Array]:
        """Make arrays of one shape, whose numbers at each index the function writes."""
        if is_unrolled(shape):
            known = tuple(map(int, shape))
            names = [np.empty(known, dtype=object) for _ in dtypes]
            for place in np.ndindex(known):
                for own, value in zip(names, values(place), strict=True):
                    own[place] = value
            return [self.named(own, dtype) for own, dtype in zip(names, dtypes, strict=True)]
        arrays = [self.allocate(shape, dtype) for dtype in dtypes]
        stored: list[set[str]] = [set() for _ in dtypes]

        def body(indices: list[Index]) -> None:
            for index in indices:
                for array, seen, value in zip(arrays, stored, values(index), strict=True):
                    self.store(array, index, value)
                    seen.add(value)

        self.loops(shape, body)
        for array, seen in zip(arrays, stored, strict=True):
            if seen and all(value in self.ranges for value in seen):
                lows, highs = zip(*(self.ranges[value] for value in seen), strict=True)
                self.ranges[str(array.buffer)] = min(lows), max(highs)
        return arrays

    def copy(self, array: Array) -> Array:
        """Put an array into memory of its own."""
        result = self.allocate(array.shape, array.dtype)
        self.loops(array.shape, lambda indices: self._copy(array, result, indices))
        return result

    def _copy(self, array: Array, result: Array, indices: list[Index]) -> None:
        for index in indices:
            self.store(result, index, array.element(index))

    def check_equal(self, lengths: Sequence[Length]) -> Length:
        """Return the length that all of these are, the surest one; the code raises where they differ."""
        first = next((n for n in lengths if isinstance(n, int)), lengths[0])
        for other in lengths:
            if other != first and fold("EQ", [str(other), str(first)]) != "True":
                with self.block(f"if {other} != {first}"):
                    self.line("raise ValueError('arrays of different length')")
        return first

    def check_fit(self, shape: Index, stretched: Sequence[bool], into: Index) -> None:
        """Check that an array of this shape can be put `into` another one; the code raises where it cannot."""
        for length, stretch, room in zip(shape, stretched, into[len(into) - len(shape) :], strict=True):
            if not stretch:
                self.check_equal([room, length])

    def function(self, op: Any, node: Any) -> str:
        """Name PyTensor's own numba function of a scalar Op."""
        from pytensor.link.numba.dispatch.basic import numba_funcify_and_cache_key

        if getattr(op, "nfunc_spec", None) is None:
            raise NotWritable(f"{op} has no numba function.")
        # machine code is kept under the text that was written: the name says which function it is, and of what
        name = "_".join(["f", op.nfunc_spec[0].replace(".", "_"), *(v.type.dtype for v in node.inputs)])
        self.functions[name] = numba_funcify_and_cache_key(op, node=node)[0]
        return name


def unrolled_dims(shape: Index) -> tuple[bool, ...]:
    """Which dimensions are short and known: the last ones that together have few numbers."""
    flags, size = [], 1
    for length in reversed(shape):
        short = isinstance(length, int) and size * max(length, 1) <= UNROLLED
        size *= max(int(length), 1) if short else 1
        flags.append(short)
    return tuple(reversed(flags))


def is_unrolled(shape: Index) -> bool:
    """Whether each number of an array of this shape has a name."""
    return all(unrolled_dims(shape))


def meant(index: Index, chosen: Sequence[bool], shape: Index) -> list[tuple[Index, str]]:
    """Return all places that an index may mean, of which some parts are known when the code runs, and when it does."""
    axes = [range(int(n)) if several else [i] for i, several, n in zip(index, chosen, shape, strict=True)]
    return [
        (at, " & ".join(f"({i} == {j})" for i, j, several in zip(index, at, chosen, strict=True) if several))
        for at in itertools.product(*axes)
    ]


def length_of(text: str) -> Length:
    """Read a length."""
    return int(text) if is_number(text) else text


def tuple_of(shape: Sequence[Length]) -> str:
    """Write a tuple."""
    return f"({', '.join(map(str, shape))}{',' if len(shape) == 1 else ''})"


def _place(name: str, index: Index) -> str:
    return f"{name}[{', '.join(map(str, index)) or '()'}]"


def _is_elsewhere(place: str, index: Index) -> bool:
    """Whether a place in memory is surely not at an index: a number is another, or a loop's counter and one further."""
    parts = place[place.index("[") + 1 : -1].split(", ")
    pairs = zip(parts, map(str, index), strict=True) if len(parts) == len(index) else ()
    return any(
        (a != b and is_number(a) and is_number(b)) or a.startswith(f"({b} + ") or b.startswith(f"({a} + ")
        for a, b in pairs
    )


def _choice(conditions: Sequence[str], values: Sequence[str]) -> str:
    """Write the value whose condition holds; of the last one it is known that it does, if no other does."""
    text = values[-1]
    for condition, value in reversed(list(zip(conditions[:-1], values[:-1], strict=True))):
        text = f"choose({condition}, {value}, {text})"
    return text


# --- the end --------------------------------------------------------------------------------------------------------


def _without_dead(items: list[str | Block]) -> list[str | Block]:
    """Drop lines whose result nothing reads, until there are none."""
    while True:
        text = "\n".join(item if isinstance(item, str) else item.text() for item in items)
        stores = re.findall(r"^(b\d+)(?:\[.*?\])? \+?= (.*)$", text, re.MULTILINE)
        rest = re.sub(r"^b\d+(?:\[.*?\])? \+?=", "", text, flags=re.MULTILINE)
        read = set(BUFFER.findall(rest))
        indices = re.findall(r"^b\d+\[(.*?)\] \+?=", text, re.MULTILINE)
        dead = {buffer for buffer, _ in stores} - read - set(BUFFER.findall("\n".join(indices)))
        uses: dict[str, int] = {}
        for name in re.findall(r"\bv\d+\b", text):
            uses[name] = uses.get(name, 0) + 1
        dead |= {name for name, n in uses.items() if n == 1 and re.search(rf"^{name} = ", text, re.MULTILINE)}
        if not dead:
            return items
        items = _dropped(items, dead)


def _dropped(items: list[str | Block], dead: set[str]) -> list[str | Block]:
    kept: list[str | Block] = []
    for item in items:
        if isinstance(item, Block):
            inner = _dropped(item.items, dead)
            if inner:
                kept.append(Block(item.header, inner))
        elif not ((match := re.match(r"([bv]\d+)(?:\[.*?\])? \+?= ", item)) and match[1] in dead):
            kept.append(item)
    return kept


def _rendered(items: Sequence[str | Block], depth: int = 0) -> list[str]:
    lines = []
    for item in items:
        if isinstance(item, str):
            lines.append("    " * depth + item)
        else:
            lines.append("    " * depth + f"{item.header}:")
            lines += _rendered(item.items, depth + 1)
    return lines
