"""The code as it is written, for several points of a subject at a time: what hangs on the parameters gets lanes.

What hangs on data alone, such as which arm was chosen, is the same for all lanes, and remains one number.
"""

from __future__ import annotations

import ast
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["LANES", "NotWide", "widen"]

LANES = 8  # points that are evaluated at a time

_OPERATORS: dict[type[ast.AST], str] = {
    ast.Add: "add",
    ast.Sub: "subtract",
    ast.Mult: "multiply",
    ast.Div: "divide",
    ast.Pow: "power",
    ast.BitAnd: "and_",
    ast.BitOr: "or_",
    ast.BitXor: "xor",
    ast.USub: "negative",
    ast.Not: "not_",
    ast.Lt: "less",
    ast.LtE: "less_equal",
    ast.Gt: "greater",
    ast.GtE: "greater_equal",
    ast.Eq: "equal",
    ast.NotEq: "not_equal",
}
# functions of `math`, NumPy and `em_ppl.loops.machine` that have lanes
_FUNCTIONS = {
    *("abs", "ceil", "choose", "clip", "cos", "exp", "expm1", "float64", "floor", "isinf", "isnan", "log", "log1mexp"),
    *("log1p", "maximum", "minimum", "sigmoid", "sign", "sin", "softplus", "sqrt", "tanh"),
}


class NotWide(Exception):
    """The code does something with parameters that has no lanes; the message says what."""


def widen(lines: Sequence[str]) -> list[str]:
    """Give lanes to what hangs on parameters.

    Parameters
    ----------
    lines : sequence of str
        As `Code.lines` returns them, in which a parameter is ``x[r, k]`` and an output ``out[r, ...]``.

    Returns
    -------
    list of str
        The same with calls of `em_ppl.loops.lanes`: parameters are ``rows[k]`` with lanes, and outputs of lane l are
        written to row r + l, if l < m.

    Raises
    ------
    NotWide
        If an index, a condition of a block or a whole number hangs on a parameter, or a function has no lanes.
    """
    tree = ast.parse("\n".join(lines))
    many = _hanging_on_parameters(tree)
    memory = {name: kind for name, kind in _kinds_of_memory(tree).items() if name in many}
    if not set(memory.values()) <= {"bool", "float64"}:
        raise NotWide("whole numbers that hang on parameters.")
    return ast.unparse(ast.fix_missing_locations(_Widener(many, memory).visit(tree))).split("\n")


def _target(statement: ast.AST) -> str | None:
    """Name what a statement writes to."""
    if not isinstance(statement, ast.Assign | ast.AugAssign):
        return None
    target = statement.targets[0] if isinstance(statement, ast.Assign) else statement.target
    return str((target.value if isinstance(target, ast.Subscript) else target).id)  # type: ignore[attr-defined]


def _names(tree: ast.AST) -> set[str]:
    return {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}


def _hanging_on_parameters(tree: ast.AST) -> set[str]:
    """Names of numbers and memory."""
    reads = [(target, _names(node.value)) for node in ast.walk(tree) if (target := _target(node)) is not None]  # type: ignore[attr-defined]
    many, before = {"x"}, 0
    while len(many) > before:
        before = len(many)
        many |= {target for target, names in reads if names & many and not target.startswith("out")}
    return many


def _kinds_of_memory(tree: ast.AST) -> dict[str, str]:
    """Types of the memory that is allocated, by name."""
    return {
        target: node.value.keywords[0].value.attr  # type: ignore[attr-defined]
        for node in ast.walk(tree)
        if (target := _target(node)) is not None and _calls(node.value, "empty")  # type: ignore[attr-defined]
    }


def _calls(node: ast.AST, function: str) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == function


def _of_lanes(function: str, *arguments: ast.expr) -> ast.Call:
    return ast.Call(ast.Attribute(ast.Name("lanes"), function), list(arguments), [])


@dataclass
class _Widener(ast.NodeTransformer):
    """Rewrites statements; `many` names and memory have lanes, of which memory is of some type."""

    many: set[str]
    memory: dict[str, str]

    # --- statements -------------------------------------------------------------------------------------------------

    def visit_For(self, node: ast.For) -> ast.AST:
        self._without(node.iter)
        node.body = list(map(self.visit, node.body))
        return node

    def visit_If(self, node: ast.If) -> ast.AST:
        self._without(node.test)
        node.body, node.orelse = list(map(self.visit, node.body)), list(map(self.visit, node.orelse))
        return node

    def visit_Raise(self, node: ast.Raise) -> ast.AST:
        return node

    def visit_Assign(self, node: ast.Assign) -> ast.AST:
        [target], name = node.targets, str(_target(node))
        if isinstance(target, ast.Subscript):
            self._without(target.slice)
        if name.startswith("out"):
            return self._output(target, node.value)
        if name not in self.many:
            return node
        if name in self.memory and isinstance(target, ast.Name):
            shape = node.value.args[0]  # type: ignore[attr-defined]
            shape.elts.append(ast.Constant(LANES))
            return ast.Assign([target], ast.Call(ast.Attribute(ast.Name("np"), "empty"), [shape], []))
        if isinstance(target, ast.Subscript):
            everywhere = isinstance(target.slice, ast.Constant) and target.slice.value is ...
            return node if everywhere else self._store(target, self._wide(node.value))
        node.value = self._wide(node.value)
        return node

    def visit_AugAssign(self, node: ast.AugAssign) -> ast.AST:
        assert isinstance(node.target, ast.Subscript)
        self._without(node.target.slice)
        if _target(node) not in self.many:
            return node
        return self._store(node.target, _of_lanes("add", self.visit(node.target), self._wide(node.value)))

    def _store(self, target: ast.Subscript, value: ast.expr) -> ast.AST:
        return ast.Expr(_of_lanes("store", target.value, self._index(target), value))

    def _output(self, target: ast.expr, value: ast.expr) -> ast.AST:
        place = ast.unparse(target).replace("[r", "[r + l", 1)
        return ast.parse(f"for l in range(m):\n    {place} = lanes.lane({ast.unparse(value)}, l)").body[0]

    # --- expressions ------------------------------------------------------------------------------------------------

    def _wide(self, value: ast.expr) -> ast.expr:
        """Return an expression that has lanes."""
        return self.visit(value) if _names(value) & self.many else _of_lanes("wide", value)

    def visit_Call(self, node: ast.Call) -> ast.AST:
        if not _names(node) & self.many:
            return node
        function = node.func.attr if isinstance(node.func, ast.Attribute) else node.func.id  # type: ignore[attr-defined]
        arguments = map(self.visit, node.args)
        if function in _FUNCTIONS:
            return _of_lanes(function if function != "abs" else "fabs", *arguments)
        if ast.unparse(node.func).startswith("np.") or len(node.args) > 3:
            raise NotWide(f"{ast.unparse(node)} hangs on parameters.")
        return _of_lanes(f"each{len(node.args)}", node.func, ast.Name("m"), ast.Name("spare"), *arguments)

    def visit_BinOp(self, node: ast.BinOp) -> ast.AST:
        return self._operator(node, node.op, node.left, node.right)

    def visit_UnaryOp(self, node: ast.UnaryOp) -> ast.AST:
        return self._operator(node, node.op, node.operand)

    def visit_Compare(self, node: ast.Compare) -> ast.AST:
        return self._operator(node, node.ops[0], node.left, node.comparators[0])

    def _operator(self, node: ast.expr, operator: ast.AST, *operands: ast.expr) -> ast.AST:
        if not _names(node) & self.many:
            return node
        if type(operator) not in _OPERATORS:
            raise NotWide(f"{ast.unparse(node)} has no lanes.")
        return _of_lanes(_OPERATORS[type(operator)], *map(self.visit, operands))

    def visit_Subscript(self, node: ast.Subscript) -> ast.AST:
        name = node.value.id  # type: ignore[attr-defined]
        if name == "x":
            [_, k] = node.slice.elts  # type: ignore[attr-defined]
            return _of_lanes("load", ast.Name("rows"), ast.Tuple([k]))
        place = self._index(node)
        if name not in self.many:
            return node
        read = _of_lanes("load", node.value, place)
        return read if self.memory[name] != "bool" else _of_lanes("not_equal", read, ast.Constant(0.0))

    def _index(self, node: ast.Subscript) -> ast.Tuple:
        """Return a place in memory as a tuple."""
        self._without(node.slice)
        return node.slice if isinstance(node.slice, ast.Tuple) else ast.Tuple([node.slice])

    def _without(self, node: ast.AST) -> None:
        """Refuse a place or a condition that hangs on parameters."""
        if _names(node) & self.many:
            raise NotWide(f"a place or a condition hangs on parameters: {ast.unparse(node)}")
