"""PyTensor's scalar Ops as Python expressions that numba compiles."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from pytensor.graph.basic import Constant
from pytensor.scalar.basic import Cast, Composite, ScalarOp

from em_ppl.loops.code import ZERO, Code
from em_ppl.loops.lengths import fold, is_number

__all__ = ["cast", "literal", "write_scalar"]

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
    "Pow": "({0}) ** ({1})",
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


def write_scalar(op: ScalarOp, inputs: Sequence[str], code: Code, node: Any) -> list[str]:
    """Write what a scalar Op computes.

    Parameters
    ----------
    op : ScalarOp
        What to compute.
    inputs : sequence of str
        Names or literals.
    code : Code
        Where to write.
    node : Apply
        The node of the Op, or of the Elemwise that applies it.

    Returns
    -------
    list of str
        Names or literals of the outputs.
    """
    if isinstance(op, Composite):
        return _write_composite(op, inputs, code)
    name = _ALIASES.get(type(op).__name__, type(op).__name__)
    if name in ("Identity", "Second"):
        return [inputs[-1]]
    dtype = node.outputs[0].type.dtype
    if isinstance(op, Cast):
        return [cast(inputs[0], node.inputs[0].type.dtype, dtype, code)]
    if (known := _known(name, inputs, node, code)) is not None:
        return [known]
    if name == "Add":  # of what is known to be nothing, as gradients often are
        floats = [x for x, v in zip(inputs, node.inputs, strict=True) if v.type.dtype == dtype and x != ZERO]
        inputs = [x for x in inputs if x != ZERO] if floats else inputs
    if name in _CHAINS:
        return [code.assign(_CHAINS[name].join(inputs)) if len(inputs) > 1 else inputs[0]]
    if name == "Invert":
        return [code.assign(f"not {inputs[0]}" if dtype == "bool" else f"~{inputs[0]}")]
    if name not in _EXPRESSIONS:
        return [code.assign(f"{code.function(op, node)}({', '.join(inputs)})")]
    result = code.assign(_EXPRESSIONS[name].format(*inputs))
    if name in ("LT", "LE", "GT", "GE", "EQ"):
        code.comparisons[result] = name, inputs[0], inputs[1]
    if name == "Switch" and (of := _one_or_negative(inputs, code)):
        code.sizes[result] = of
    if name == "Clip" and is_number(inputs[1]) and is_number(inputs[2]):
        code.ranges[result] = int(inputs[1]), int(inputs[2])
    return [result]


def _known(name: str, inputs: Sequence[str], node: Any, code: Code) -> str | None:
    """Return the result of a scalar Op if no code is needed for it."""
    if name == "Switch" and (inputs[0] in ("True", "False") or inputs[1] == inputs[2]):
        k = 2 if inputs[0] == "False" else 1
        return cast(inputs[k], node.inputs[k].type.dtype, node.outputs[0].type.dtype, code)
    if any(np.dtype(v.type.dtype).kind == "f" for v in (*node.inputs, *node.outputs)):
        return None
    if name == "Switch" and inputs[0] in code.comparisons:  # the smaller or larger one, written at length
        comparison, x, y = code.comparisons[inputs[0]]
        if comparison != "EQ" and {x, y} == {*inputs[1:]}:
            smaller = (comparison in ("LT", "LE")) == (inputs[1] == x)
            return fold("Minimum" if smaller else "Maximum", [x, y])
    if name == "Abs" and inputs[0] in code.sizes:
        return code.sizes[inputs[0]]
    return fold(name, inputs)


def _one_or_negative(inputs: Sequence[str], code: Code) -> str | None:
    """Return a length that is written as -1 where it is 1, as PyTensor does where shapes are broadcast."""
    length = inputs[2]
    asked = code.comparisons.get(inputs[0]) == ("EQ", length, "1")
    return length if asked and inputs[1] == "-1" and fold("GE", [length, "0"]) == "True" else None


def _write_composite(op: Composite, inputs: Sequence[str], code: Code) -> list[str]:
    names = dict(zip(op.fgraph.inputs, inputs, strict=True))

    def name_of(variable: Any) -> str:
        if variable not in names and isinstance(variable, Constant):
            return literal(variable.data, variable.type.dtype)
        return names[variable]

    for node in op.fgraph.toposort():
        results = write_scalar(node.op, [name_of(v) for v in node.inputs], code, node)
        names.update(zip(node.outputs, results, strict=True))
    return [name_of(v) for v in op.fgraph.outputs]


def cast(value: str, before: str, after: str, code: Code) -> str:
    """Write a number of one dtype as one of another."""
    whole = np.dtype(before).kind in "iub"
    if before == after or (after == "int64" and whole and fold("Add", [value, "0"]) is not None):
        return value
    return code.assign(f"{value} != 0" if after == "bool" else f"np.{np.dtype(after).name}({value})")
