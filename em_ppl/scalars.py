"""PyTensor's scalar Ops as Python expressions that numba compiles."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from pytensor.graph.basic import Constant
from pytensor.scalar.basic import Cast, Composite, ScalarOp

__all__ = ["literal", "write_scalar"]

# Each argument is a name or a literal. NaN stays NaN.
_EXPRESSIONS: dict[str, str] = {
    "Abs": "abs({0})",
    "AND": "{0} & {1}",
    "Ceil": "np.ceil({0})",
    "Clip": "clip({0}, {1}, {2})",
    "Cos": "math.cos({0})",
    "EQ": "{0} == {1}",
    "Erf": "math.erf({0})",
    "Erfc": "math.erfc({0})",
    "Exp": "math.exp({0})",
    "Expm1": "math.expm1({0})",
    "Floor": "np.floor({0})",
    "GE": "{0} >= {1}",
    "GT": "{0} > {1}",
    "GammaLn": "math.lgamma({0})",
    "Identity": "{0}",
    "IntDiv": "{0} // {1}",
    "IsInf": "math.isinf({0})",
    "IsNan": "math.isnan({0})",
    "LE": "{0} <= {1}",
    "LT": "{0} < {1}",
    "Log": "math.log({0})",
    "Log1mexp": "log1mexp({0})",
    "Log1p": "math.log1p({0})",
    "Mod": "{0} % {1}",
    "NEQ": "{0} != {1}",
    "Neg": "-{0}",
    "OR": "{0} | {1}",
    "Pow": "{0} ** {1}",
    "Reciprocal": "1.0 / {0}",
    "ScalarMaximum": "maximum({0}, {1})",
    "ScalarMinimum": "minimum({0}, {1})",
    "Second": "{1}",
    "Sigmoid": "sigmoid({0})",
    "Sign": "sign({0})",
    "Sin": "math.sin({0})",
    "Softplus": "softplus({0})",
    "Sqr": "{0} * {0}",
    "Sqrt": "math.sqrt({0})",
    "Sub": "{0} - {1}",
    "Switch": "choose({0}, {1}, {2})",
    "Tanh": "math.tanh({0})",
    "TrueDiv": "{0} / {1}",
    "XOR": "{0} ^ {1}",
}
_CHAINS = {"Add": " + ", "Mul": " * "}
_ALIASES = {"Maximum": "ScalarMaximum", "Minimum": "ScalarMinimum"}


def literal(value: Any, dtype: str) -> str:
    """Write a number of this dtype."""
    if dtype == "bool":
        return str(bool(value))
    if np.dtype(dtype).kind in "iu":
        return str(int(value))
    if not np.isfinite(value):
        return "np.nan" if np.isnan(value) else f"({'-' if value < 0 else ''}np.inf)"
    return f"({float(value)!r})"


def write_scalar(
    op: ScalarOp, inputs: Sequence[str], assign: Callable[[str], str], call: Callable[[Any, Any], str], node: Any
) -> list[str]:
    """Write what a scalar Op computes.

    Parameters
    ----------
    op : ScalarOp
        What to compute.
    inputs : sequence of str
        Names or literals.
    assign : callable
        Gives an expression a name.
    call : callable
        Gives the name of a compiled function for an Op that has no expression here.
    node : Apply
        The node of the Op, or of the Elemwise that applies it.

    Returns
    -------
    list of str
        Names or literals of the outputs.
    """
    if isinstance(op, Composite):
        return _write_composite(op, inputs, assign, call)
    name = _ALIASES.get(type(op).__name__, type(op).__name__)
    if name in _CHAINS:
        return [assign(_CHAINS[name].join(inputs))]
    if isinstance(op, Cast):
        return [assign(_cast(inputs[0], node.outputs[0].type.dtype))]
    if name == "Invert":
        return [assign(f"not {inputs[0]}" if node.inputs[0].type.dtype == "bool" else f"~{inputs[0]}")]
    if name in ("Identity", "Second"):
        return [inputs[-1]]
    if name in _EXPRESSIONS:
        return [assign(_EXPRESSIONS[name].format(*inputs))]
    return [assign(f"{call(op, node)}({', '.join(inputs)})")]


def _write_composite(
    op: Composite, inputs: Sequence[str], assign: Callable[[str], str], call: Callable[[Any, Any], str]
) -> list[str]:
    names = dict(zip(op.fgraph.inputs, inputs, strict=True))

    def name_of(variable: Any) -> str:
        if variable not in names and isinstance(variable, Constant):
            return literal(variable.data, variable.type.dtype)
        return names[variable]

    for node in op.fgraph.toposort():
        results = write_scalar(node.op, [name_of(v) for v in node.inputs], assign, call, node)
        names.update(zip(node.outputs, results, strict=True))
    return [name_of(v) for v in op.fgraph.outputs]


def _cast(value: str, dtype: str) -> str:
    if dtype == "bool":
        return f"{value} != 0"
    return f"np.{np.dtype(dtype).name}({value})"
