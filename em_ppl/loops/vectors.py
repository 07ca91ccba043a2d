"""Eight floats, or truth values, as one value of numba's: memory for them, and arithmetic, in vector instructions.

No lane hangs on another one: its numbers are the same bits whatever the others hold. Arithmetic and comparisons take
`Lanes` and `Flags` as they take floats and truth values, and spread one number over all lanes.
"""

from __future__ import annotations

import itertools
import operator
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import extending, types
from numba.core import cgutils
from numba.extending import lower_builtin, models, register_model, type_callable

from em_ppl.loops.wide import LANES

__all__ = [
    "ROUNDING",
    "add",
    "and_",
    "ceil",
    "choose",
    "cos",
    "divide",
    "equal",
    "exponent",
    "fabs",
    "floor",
    "greater",
    "greater_equal",
    "lane",
    "less",
    "less_equal",
    "load",
    "mantissa",
    "multiply",
    "multiply_add",
    "negative",
    "not_",
    "not_equal",
    "or_",
    "sin",
    "sqrt",
    "store",
    "subtract",
    "times_two_to",
    "wide",
    "xor",
]

intrinsic: Any = extending.intrinsic  # its declared type counts the context among the arguments

FLOATS = ir.VectorType(ir.DoubleType(), LANES)
BITS = ir.VectorType(ir.IntType(64), LANES)
TRUTHS = ir.VectorType(ir.IntType(1), LANES)
ROUNDING = 1.5 * 2.0**52  # what is added to it loses its fraction, and is found in its last bits


class Lanes(types.Type):
    """Floats, one a lane."""

    def __init__(self) -> None:
        super().__init__(name="Lanes")


class Flags(types.Type):
    """Truth values, one a lane."""

    def __init__(self) -> None:
        super().__init__(name="Flags")


lanes, flags = Lanes(), Flags()


@register_model(Lanes)
class _LanesModel(models.PrimitiveModel):
    def __init__(self, dmm: Any, fe_type: Any) -> None:
        super().__init__(dmm, fe_type, FLOATS)


@register_model(Flags)
class _FlagsModel(models.PrimitiveModel):
    def __init__(self, dmm: Any, fe_type: Any) -> None:
        super().__init__(dmm, fe_type, TRUTHS)


# --- one number for all ---------------------------------------------------------------------------------------------


def _spread(builder: Any, value: Any, kind: ir.VectorType) -> Any:
    zero = ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES)
    first = builder.insert_element(ir.Constant(kind, ir.Undefined), value, ir.Constant(ir.IntType(32), 0))
    return builder.shuffle_vector(first, ir.Constant(kind, ir.Undefined), zero)


def _floats(context: Any, builder: Any, value: Any, kind: Any) -> Any:
    """Make `Lanes` of what is one, or of flags (1 and 0), or of a number."""
    if kind is lanes:
        return value
    if kind is flags:
        return builder.uitofp(value, FLOATS)
    return _spread(builder, context.cast(builder, value, kind, types.float64), FLOATS)


def _truths(context: Any, builder: Any, value: Any, kind: Any) -> Any:
    """Make `Flags` of what is one, or of one truth value."""
    return value if kind is flags else _spread(builder, context.cast(builder, value, kind, types.boolean), TRUTHS)


def _is_truth(kind: Any) -> bool:
    return kind is flags or isinstance(kind, types.Boolean)


@intrinsic
def wide(_: Any, value: Any) -> Any:
    """Put a number into every lane."""
    result, make = (flags, _truths) if _is_truth(value) else (lanes, _floats)

    def build(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return make(context, builder, values[0], signature.args[0])

    return result(value), build


@intrinsic
def lane(_: Any, value: Any, which: Any) -> Any:
    """Return one lane; of a number, itself."""
    of_many = {lanes: types.float64, flags: types.boolean}

    def build(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        if value not in of_many:
            return values[0]
        return builder.extract_element(values[0], context.cast(builder, values[1], signature.args[1], types.int32))

    return of_many.get(value, value)(value, which), build


# --- memory ---------------------------------------------------------------------------------------------------------


def _place(context: Any, builder: Any, signature: Any, array: Any, index: Any) -> Any:
    """Point to the first lane of an array, (..., lane), at an index: a tuple of all others."""
    kind, at = signature.args[0], signature.args[1]
    parts = [context.cast(builder, builder.extract_value(index, k), t, types.intp) for k, t in enumerate(at)]
    made = context.make_array(kind)(context, builder, array)
    first = cgutils.get_item_pointer(context, builder, kind, made, [*parts, context.get_constant(types.intp, 0)])
    return builder.bitcast(first, FLOATS.as_pointer())


@intrinsic
def load(_: Any, array: Any, index: Any) -> Any:
    """Read lanes from an array of floats, (..., lane)."""

    def build(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return builder.load(_place(context, builder, signature, *values), align=8)

    return lanes(array, index), build


@intrinsic
def store(_: Any, array: Any, index: Any, value: Any) -> Any:
    """Write lanes into an array of floats, (..., lane)."""

    def build(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        content = _floats(context, builder, values[2], signature.args[2])
        builder.store(content, _place(context, builder, signature, *values[:2]), align=8)
        return context.get_dummy_value()

    return types.void(array, index, value), build


# --- arithmetic -----------------------------------------------------------------------------------------------------


def _of_floats(make: Callable[..., Any]) -> Any:
    """Make a function of one argument."""

    @intrinsic
    def function(_: Any, x: Any) -> Any:
        def build(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            return make(builder, _floats(context, builder, values[0], signature.args[0]))

        return lanes(x), build

    return function


def _operator(symbol: Any, of_floats: Any, of_truths: Any = None, result: Any = lanes) -> Any:
    """Make a function of two arguments: what it does with floats, and with truths. The symbol then does the same.

    Kernels call the function, since numba looks through all that a symbol can mean, each time.
    """

    def result_of(a: Any, b: Any) -> Any:
        if of_truths and _is_truth(a) and _is_truth(b):
            return flags
        return result if of_floats else None

    def build(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        truths = of_truths and all(map(_is_truth, signature.args))
        take, make = (_truths, of_truths) if truths else (_floats, of_floats)
        return make(builder, *(take(context, builder, v, t) for v, t in zip(values, signature.args, strict=True)))

    @intrinsic
    def function(_: Any, a: Any, b: Any) -> Any:
        found = result_of(a, b)
        return found and (found(a, b), build)

    def typer(_: Any) -> Any:
        return lambda a, b: result_of(a, b) if {a, b} & {lanes, flags} else None

    type_callable(symbol)(typer)
    for pair in itertools.product((lanes, flags, types.Number, types.Boolean), repeat=2):
        if lanes in pair or flags in pair:
            lower_builtin(symbol, *pair)(build)
    return function


def _comparison(symbol: Any, sign: str) -> Any:
    unequal = symbol is operator.ne  # NaN is not equal to itself
    method = ir.IRBuilder.fcmp_unordered if unequal else ir.IRBuilder.fcmp_ordered
    return _operator(symbol, lambda builder, a, b: method(builder, sign, a, b), result=flags)


def _llvm(name: str) -> Callable[..., Any]:
    """Call a function that LLVM has."""

    def make(builder: Any, *values: Any) -> Any:
        kind = ir.FunctionType(FLOATS, [FLOATS] * len(values))
        return builder.call(cgutils.get_or_insert_function(builder.module, kind, f"llvm.{name}.v{LANES}f64"), values)

    return make


add = _operator(operator.add, ir.IRBuilder.fadd, ir.IRBuilder.or_)
subtract = _operator(operator.sub, ir.IRBuilder.fsub)
multiply = _operator(operator.mul, ir.IRBuilder.fmul, ir.IRBuilder.and_)
divide = _operator(operator.truediv, ir.IRBuilder.fdiv)
and_ = _operator(operator.and_, None, ir.IRBuilder.and_)
or_ = _operator(operator.or_, None, ir.IRBuilder.or_)
xor = _operator(operator.xor, None, ir.IRBuilder.xor)
less, less_equal = _comparison(operator.lt, "<"), _comparison(operator.le, "<=")
greater, greater_equal = _comparison(operator.gt, ">"), _comparison(operator.ge, ">=")
equal, not_equal = _comparison(operator.eq, "=="), _comparison(operator.ne, "!=")
negative = _of_floats(ir.IRBuilder.fneg)
ceil, cos, fabs, floor, sin, sqrt = (_of_floats(_llvm(n)) for n in ("ceil", "cos", "fabs", "floor", "sin", "sqrt"))


@intrinsic
def not_(_: Any, x: Any) -> Any:
    """Whether it does not hold."""

    def build(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return builder.not_(_truths(context, builder, values[0], signature.args[0]))

    return flags(x), build


@intrinsic
def choose(_: Any, condition: Any, a: Any, b: Any) -> Any:
    """Return a where the condition holds, else b."""
    result, take = (flags, _truths) if _is_truth(a) and _is_truth(b) else (lanes, _floats)

    def build(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        where, *others = values
        if condition is not flags:
            where = context.cast(builder, where, condition, types.boolean)
        same = (take(context, builder, v, t) for v, t in zip(others, signature.args[1:], strict=True))
        return builder.select(where, *same)

    return result(condition, a, b), build


@intrinsic
def multiply_add(_: Any, a: Any, b: Any, c: Any) -> Any:
    """Return a b + c, rounded once where the processor can."""

    def build(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        same = (_floats(context, builder, v, t) for v, t in zip(values, signature.args, strict=True))
        return _llvm("fmuladd")(builder, *same)

    return lanes(a, b, c), build


# --- the parts of a float -------------------------------------------------------------------------------------------


def _all(kind: ir.VectorType, value: float) -> Any:
    return ir.Constant(kind, [value] * LANES)


ONE, HALF_ROOT, LAST = 1023 << 52, 0x3FE6A09E667F3BCD, (1 << 52) - 1  # bits of 1 and of sqrt(1/2); those of a fraction


def _from_half_root(builder: Any, x: Any) -> Any:
    """Move sqrt(1/2) to where a power of two is: to its bits."""
    return builder.add(builder.bitcast(x, BITS), _all(BITS, ONE - HALF_ROOT))


def _exponent(builder: Any, x: Any) -> Any:
    biased = builder.lshr(_from_half_root(builder, x), _all(BITS, 52))
    as_last_bits = builder.bitcast(builder.or_(biased, _all(BITS, (1023 + 52) << 52)), FLOATS)
    return builder.fsub(as_last_bits, _all(FLOATS, 2.0**52 + 1023))


def _mantissa(builder: Any, x: Any) -> Any:
    bits = builder.and_(_from_half_root(builder, x), _all(BITS, LAST))
    return builder.bitcast(builder.add(bits, _all(BITS, HALF_ROOT)), FLOATS)


exponent, mantissa = _of_floats(_exponent), _of_floats(_mantissa)  # of positive numbers; from sqrt(1/2) to sqrt(2)


@intrinsic
def times_two_to(_: Any, x: Any, k: Any) -> Any:
    """Return x 2**(k - ROUNDING), k - ROUNDING being whole, where x and the result are floats of full precision."""

    def build(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        both = (_floats(context, builder, v, t) for v, t in zip(values, signature.args, strict=True))
        bits, power = (builder.bitcast(one, BITS) for one in both)
        return builder.bitcast(builder.add(bits, builder.shl(power, _all(BITS, 52))), FLOATS)

    return lanes(x, k), build
