"""A text that says all of a PyTensor graph, the same in every process: graphs with the same text compute the same."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from pytensor.graph.basic import Constant, Variable
from pytensor.graph.op import HasInnerGraph, Op
from pytensor.graph.traversal import toposort
from pytensor.graph.type import Type
from pytensor.scalar.basic import ScalarOp
from pytensor.scan.op import Scan

__all__ = ["Unsayable", "signature"]

LIBRARIES = ("pytensor", "pymc")  # whose Ops are known by name and version


class Unsayable(Exception):
    """A graph holds something of which nobody knows what else it hangs on."""


def signature(inputs: Sequence[Variable[Any, Any]], outputs: Sequence[Variable[Any, Any]]) -> str:
    """Say what outputs are computed from inputs, and how; names of variables do not matter.

    Raises
    ------
    Unsayable
        If there is an Op of somebody else's, or one that does not say by ``__props__`` which of its kind it is, or a
        variable that is neither input nor computed.
    """
    places = {variable: f"input {k}" for k, variable in enumerate(inputs)}
    lines = [f"inputs {[_kind(v.type) for v in inputs]}"]

    def place(variable: Variable[Any, Any]) -> str:
        if variable not in places and isinstance(variable, Constant):
            return f"{_kind(variable.type)} {_said(variable.data)}"
        if variable not in places:
            raise Unsayable(f"{variable} comes from elsewhere.")
        return places[variable]

    for k, node in enumerate(toposort(outputs, blockers=inputs)):
        lines.append(f"{_op(node.op)} {[place(v) for v in node.inputs]} {[_kind(v.type) for v in node.outputs]}")
        places |= {variable: f"node {k} {j}" for j, variable in enumerate(node.outputs) if variable not in places}
    return "\n".join([*lines, f"outputs {[place(v) for v in outputs]}"])


def _kind(kind: Type) -> str:
    return f"{_name(type(kind))} {getattr(kind, 'dtype', None)} {getattr(kind, 'shape', None)}"


def _op(op: Op) -> str:
    """Say which Op it is."""
    if type(op).__module__.split(".")[0] not in LIBRARIES:
        raise Unsayable(f"{op} is of {type(op).__module__}.")
    inner = isinstance(op, HasInnerGraph)
    properties = ("info", "truncate_gradient") if isinstance(op, Scan) else getattr(op, "__props__", None)
    if properties is None and (inner or not isinstance(op, ScalarOp)):
        raise Unsayable(f"{op} does not say all of itself.")
    graph = signature(op.fgraph.inputs, op.fgraph.outputs) if inner else ""
    return f"{_name(type(op))} {[_said(getattr(op, name)) for name in properties or ()]} {graph}"


def _said(value: Any) -> str:
    """Say a property or a constant; what is equal only by where it lies cannot be said."""
    match value:
        case None | bool() | int() | float() | str() | np.dtype():
            return repr(value)
        case slice():
            return f"slice {_said((value.start, value.stop, value.step))}"
        case tuple() | list():
            return f"{type(value).__name__} {[_said(one) for one in value]}"
        case Mapping():
            return f"{type(value).__name__} {sorted((_said(key), _said(one)) for key, one in value.items())}"
        case np.ndarray() | np.generic():
            array = np.asarray(value)
            return f"array {array.dtype} {array.shape} {array.tobytes().hex()}"
        case Op():
            return _op(value)
        case Type():
            return _kind(value)
        case type():
            return _name(value)
        case _ if dataclasses.is_dataclass(value):
            fields = [_said(getattr(value, one.name)) for one in dataclasses.fields(value)]
            return f"{_name(type(value))} {fields}"
    raise Unsayable(f"{value!r} is of {type(value)}.")


def _name(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"
