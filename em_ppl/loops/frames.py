"""Blocks of lines, and the loop at the end of a block, which takes up the next one where it can.

What a trial's value needs of the same trial is then computed in one go, and stays in the processor's registers. A loop
takes up no function of a function: a processor looks some hundred instructions ahead, and works on several trials at a
time only if each is short.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, TypeAlias

__all__ = ["BUFFER", "Block", "Frame", "Length", "OpenLoop", "Separate"]

Length: TypeAlias = "int | str"  # a number, or an expression for one

BUFFER = re.compile(r"\bb\d+\b")
_SUM = re.compile(r"\bs\d+\b")
_NAME = re.compile(r"\b[bsv]\d+\b")
_TARGET = re.compile(r"^([bsv]\d+)(?:\[.*?\])? \+?= ", re.MULTILINE)
# what takes many steps, one after the other; f_... is a function of PyTensor's
_SERIES = re.compile(r"\bmath\.(?:exp|expm1|log|log1p|tanh)\(|\b(?:sigmoid|softplus|log1mexp|f_\w+)\(|\*\*| / ")
_STORE = re.compile(r"^(b\d+)\[.*?\] \+?= ", re.MULTILINE)


class Separate(Exception):
    """A loop that is not to be part of the one before."""


@dataclass
class Block:
    """Lines under a header."""

    header: str
    items: list[str | Block]

    def text(self) -> str:
        """Write it in one piece."""
        return "\n".join([self.header, *(item if isinstance(item, str) else item.text() for item in self.items)])


@dataclass
class OpenLoop:
    """A loop at the end of a block, that may still take up another."""

    counter: str
    end: Length
    block: Block
    known: dict[str, str]
    after: list[str] = field(default_factory=list)  # lines that need the loop, and wait for its end

    def __post_init__(self) -> None:
        text = self.block.text()
        self.written = set(_STORE.findall(text)) | set(_SUM.findall(text))  # memory and sums
        self.used = set(BUFFER.findall(text))
        # what is written to only where the loop stands, or ahead of it, is done there
        ahead = re.compile(rf"{self.counter}|\({self.counter} \+ \d+\)")
        places = re.findall(r"^(b\d+)\[([^,\]]*).*\] \+?= ", text, re.MULTILINE)
        self.elsewhere = {buffer for buffer, first in places if not ahead.fullmatch(first)}
        self.late: set[str] = set()  # what hangs on a function's value
        for line in text.split("\n"):
            self._follow(line)

    def _follow(self, line: str) -> None:
        """Note whether what a line computes is late."""
        if (target := _TARGET.match(line)) and (_SERIES.search(line) or set(_NAME.findall(line)) & self.late):
            self.late.add(target[1])

    def precedes(self, text: str) -> bool:
        """Whether lines need this loop, or what waits for its end, or spoil what these need."""
        needs = set(_NAME.findall(text)) & self.written or set(_STORE.findall(text)) & self.used
        return bool(needs) or self._waits(text)

    def _waits(self, text: str) -> bool:
        """Whether lines need what waits, or spoil what that needs."""
        waiting = "\n".join(self.after)
        needs = set(_NAME.findall(text)) & set(_TARGET.findall(waiting))
        return bool(needs or set(_STORE.findall(text)) & set(BUFFER.findall(waiting)))

    def refuse(self, line: str) -> None:
        """Raise if the line needs what this loop has not done yet at the trial where it stands, or spoils it."""
        named, sums, places = set(BUFFER.findall(line)), set(_SUM.findall(line)), line
        touched = named & self.written
        if (stored := _STORE.match(line)) and stored[1] in self.used:
            touched.add(stored[1])
            places = f"{line}\n{self.block.text()}"
        firsts = [f for buffer in touched for f in re.findall(rf"\b{buffer}\b(?:\[([^,\]]*))?", places)]
        missing = named & self.elsewhere or sums & self.written or self._waits(line)
        # a processor works on as many trials at a time as it can look ahead: not on a function of a function of each
        long = _SERIES.search(line) and set(_NAME.findall(line)) & self.late
        if missing or long or any(f != self.counter for f in firsts):
            raise Separate
        self._follow(line)


@dataclass
class Frame:
    """The lines of one block, and the loop at its end that is still open."""

    items: list[str | Block] = field(default_factory=list)
    known: dict[str, str] = field(default_factory=dict)  # expression -> name
    made: dict[Any, Any] = field(default_factory=dict)  # what more than one node needs
    repeats: bool = False  # whether it is a loop's: memory may have changed since the time before
    open: OpenLoop | None = None

    def close(self) -> None:
        """Let the open loop take up no other."""
        if self.open is not None:
            self.items += [self.open.block, *self.open.after]
            self.open = None

    def append(self, item: str | Block) -> None:
        """Add lines: before the open loop if they do not need it; a single line may wait for its end."""
        if self.open is not None and self.open.precedes(item if isinstance(item, str) else item.text()):
            if isinstance(item, str):
                self.open.after.append(item)
                return
            self.close()
        self.items.append(item)
