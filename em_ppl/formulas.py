"""Formulas of covariates: what they read, and that they do nothing but compute.

Formulaic evaluates what stands in a formula as Python, and a file that holds a fit holds its formulas.
"""

from __future__ import annotations

import ast
from collections.abc import Container
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from formulaic.parser.types import Factor

__all__ = ["MEAN_ONLY", "variables"]

MEAN_ONLY = "~ 1"

COMPUTING = (
    ast.Constant,
    ast.Name,
    ast.Load,
    ast.Call,
    ast.keyword,
    ast.UnaryOp,
    ast.BinOp,
    ast.BoolOp,
    ast.Compare,
    ast.unaryop,
    ast.operator,
    ast.boolop,
    ast.cmpop,
    ast.List,
    ast.Tuple,
    ast.Dict,
)


def variables(formula: str, columns: Container[str]) -> set[str]:
    """Names of the columns that a formula reads, also within functions such as ``center(age)``.

    Raises
    ------
    ValueError
        If it cannot be read, or does more than compute: it may call formulaic's functions and NumPy's ufuncs.
    """
    names: set[str] = set()
    if formula == MEAN_ONLY:  # which need not be read: formulaic takes as long to import as the rest of em_ppl
        return names
    for factor in _factors(formula):
        if factor.eval_method is factor.EvalMethod.LOOKUP:
            names.add(factor.expr)
        elif factor.eval_method is factor.EvalMethod.PYTHON:
            tree = ast.parse(factor.expr, mode="eval").body
            _check(tree, formula)
            within = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
            names |= {name for name in within if name in columns}
    return names


def _factors(formula: str) -> set[Factor]:
    from formulaic import Formula, SimpleFormula
    from formulaic.errors import FormulaicError

    try:
        read = Formula(formula)
    except (FormulaicError, SyntaxError) as error:
        raise ValueError(f"covariates: {formula!r} cannot be read: {str(error).splitlines()[0]}") from error
    if not isinstance(read, SimpleFormula):
        raise ValueError(f"covariates: {formula!r} has several parts, and should have one, after '~'.")
    return {factor for term in read for factor in term.factors}


def _check(node: ast.AST, formula: str) -> None:
    """Refuse what is no arithmetic, comparison or call of a known function."""
    if not isinstance(node, COMPUTING) or (isinstance(node, ast.Call) and not _is_known(node.func)):
        raise ValueError(
            f"covariates: {formula!r} does more than compute with covariates ({ast.unparse(node)}): a formula may "
            "call formulaic's functions, such as center or C, and NumPy's, such as np.log. Compute the rest in a "
            "column of the data."
        )
    within = [*node.args, *node.keywords] if isinstance(node, ast.Call) else ast.iter_child_nodes(node)
    for child in within:
        _check(child, formula)


def _is_known(function: ast.expr) -> bool:
    """Whether it is formulaic's, ``contr.<one of its contrasts>`` or ``np.<a ufunc>``."""
    from formulaic.transforms import TRANSFORMS

    if isinstance(function, ast.Name):
        return function.id in TRANSFORMS
    if isinstance(function, ast.Attribute) and isinstance(function.value, ast.Name):
        of = function.value.id
        return (of == "np" and isinstance(getattr(np, function.attr, None), np.ufunc)) or (
            of == "contr" and not function.attr.startswith("_")
        )
    return False
