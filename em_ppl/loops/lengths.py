"""Arithmetic of whole numbers that are known but for one, such as n, the subject's number of trials, at least 1.

What PyTensor writes about shapes (where a slice ends, whether an index is negative) comes out as a number, as n + 1, or
as true or false, and no code is needed for it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TypeAlias

__all__ = ["fold", "is_number"]

_LINEAR = re.compile(r"\((?:(-?\d+) \* )?(\w+) ([+-]) (\d+)\)")
Linear: TypeAlias = "tuple[int, str, int]"  # a, name, b: a times a name plus b; no name if a is 0


def is_number(text: str) -> bool:
    """Whether it is a whole number, written out."""
    return text.lstrip("-").isdigit()


def _read(text: str) -> Linear | None:
    if is_number(text):
        return 0, "", int(text)
    if text.isidentifier() and text not in ("True", "False"):
        return 1, text, 0
    if match := _LINEAR.fullmatch(text):
        a, name, sign, b = match.groups()
        return int(a or 1), name, int(b) * (-1 if sign == "-" else 1)
    return None


def _write(a: int, name: str, b: int) -> str:
    if a == 0:
        return str(b)
    if (a, b) == (1, 0):
        return name
    return f"({f'{a} * ' if a != 1 else ''}{name} {'-' if b < 0 else '+'} {abs(b)})"


def _sum(x: Linear, y: Linear, sign: int = 1) -> Linear | None:
    """Return x + y, or x - y; None, if they have different names."""
    if x[0] and y[0] and x[1] != y[1]:
        return None
    a = x[0] + sign * y[0]
    return a, (x[1] or y[1]) if a else "", x[2] + sign * y[2]


def _sign(number: Linear | None) -> tuple[bool | None, bool | None]:
    """Whether a number is > 0, and whether it is >= 0; None where that is not known. A counter is at least 0."""
    if number is None or (number[0] and number[1] != "n" and not number[1].startswith("i")):
        return None, None
    a, name, b = number
    least = 1 if name == "n" else 0

    def known(at_least: int) -> bool | None:
        if a >= 0 and a * least + b >= at_least:
            return True
        return False if a <= 0 and a * least + b < at_least else None

    return known(1), known(0)


def _compare(name: str, difference: Linear | None) -> bool | None:
    """Compare x to y, given x - y."""
    positive, not_negative = _sign(difference)
    if name in ("LT", "LE"):
        opposite = {"LT": not_negative, "LE": positive}[name]
        return None if opposite is None else not opposite
    if name in ("GT", "GE"):
        return positive if name == "GT" else not_negative
    if difference == (0, "", 0):
        return name == "EQ"
    return name == "NEQ" if positive or not_negative is False else None


def fold(name: str, inputs: Sequence[str]) -> str | None:
    """Write the result of a scalar Op of whole numbers and truth values, if no code is needed for it.

    Examples
    --------
    >>> fold("Add", ["n", "1"])
    '(n + 1)'
    >>> fold("Minimum", ["(n + 1)", "1"])
    '1'
    >>> fold("LT", ["n", "0"])
    'False'
    >>> fold("LT", ["n", "5"]) is None
    True
    """
    if name in ("AND", "OR") and (known := {"True", "False"}.intersection(inputs)) and len(inputs) == 2:
        decisive = "False" if name == "AND" else "True"
        return decisive if decisive in known else next((v for v in inputs if v not in known), inputs[0])
    numbers = [_read(text) for text in inputs]
    if not all(number is not None for number in numbers):
        return None
    x, *rest = [number for number in numbers if number is not None]
    y = rest[0] if rest else x
    match name:
        case "Add":
            total: Linear | None = x
            for number in rest:
                total = total and _sum(total, number)
            return total and _write(*total)
        case "Sub":
            difference = _sum(x, y, -1)
            return difference and _write(*difference)
        case "Neg":
            return _write(-x[0], x[1], -x[2])
        case "Mul" if len(rest) == 1 and 0 in (x[0], y[0]):
            return _write(x[0] * y[2] + x[2] * y[0], x[1] or y[1], x[2] * y[2])
        case "IntDiv" if y[0] == 0 and y[2] > 0 and x[0] % y[2] == 0:
            return _write(x[0] // y[2], x[1], x[2] // y[2])
        case "Mod" if y[0] == 0 and y[2] > 0 and x[0] % y[2] == 0:
            return str(x[2] % y[2])
        case "IntDiv" if y == (0, "", -1):
            return _write(x[0] * y[2], x[1], x[2] * y[2])
        case "Minimum" | "ScalarMinimum" | "Maximum" | "ScalarMaximum" if len(rest) == 1:
            larger, smaller = _sign(_sum(x, y, -1))[1], _sign(_sum(y, x, -1))[1]
            if larger or smaller:
                return inputs[0 if bool(larger) == name.endswith("Maximum") else 1]
        case "LT" | "LE" | "GT" | "GE" | "EQ" | "NEQ":
            known_result = _compare(name, _sum(x, y, -1))
            return None if known_result is None else str(known_result)
    return None
