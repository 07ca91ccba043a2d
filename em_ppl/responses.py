"""Responses, drawn from the distributions that a likelihood gives them.

Compiled code says what the parameters of a response's distribution are in every trial; NumPy draws. So simulation and
prediction wait for no further compiler, and a look at the parameters tells whether anything looked ahead.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from pytensor.tensor.random.op import RandomVariable

from em_ppl.functions import Functions
from em_ppl.model import ModelError, Term
from em_ppl.subjects import FloatArray, Subjects

__all__ = ["distribution", "draw"]

Array = NDArray[Any]


def distribution(functions: Functions, term: Term, subjects: Subjects, x: FloatArray) -> list[Array]:
    """Say how responses are distributed: the parameters, each (subject, trial, ...) or (subject, ...).

    Of what is drawn in several steps, such as a mixture, whose parameters are draws themselves, it is the
    log-probability of the responses that were given.
    """
    if _is_one_draw(term):
        return functions.evaluate(("distribution", term.name), subjects, x, None)
    return [functions.evaluate("pointwise", subjects, x, None)[functions.trace.terms.index(term)]]


def draw(
    functions: Functions,
    term: Term,
    subjects: Subjects,
    x: FloatArray,
    where: NDArray[np.bool_],
    generator: np.random.Generator,
) -> tuple[Array, list[Array]]:
    """Draw responses, each after the subject's own history.

    Parameters
    ----------
    functions, term
        Whose responses.
    subjects : Subjects
        The history.
    x : ndarray
        (subject, parameter), Gaussian space.
    where : ndarray of bool
        Which to draw, (subject, trial) or, of a term that has no trials, (subject,).
    generator : Generator
        Draws.

    Returns
    -------
    drawn : ndarray
        In the order of `where`.
    said : list of ndarray
        Their `distribution`, with the drawn for the given.

    Raises
    ------
    ModelError
        If a parameter of a distribution is NaN.
    """
    if not _is_one_draw(term):
        drawn, log_probability = functions.draw_by_graph(term, subjects, x, generator)
        return drawn[where], [log_probability[where]]
    parameters = [values[where] for values in distribution(functions, term, subjects, x)]
    for values in parameters:
        if np.isnan(values).any():
            who, *trial = np.argwhere(where)[np.argwhere(np.isnan(values))[0][0]]
            at = f", trial {trial[0]}" if trial else ""
            raise ModelError(
                f"{functions.name}: a parameter of the distribution of {term.name!r} is no number, so that nothing can "
                f"be drawn: subject number {who} (the first is 0){at}. Check the likelihood at these parameters."
            )
    op = term.random.owner.op  # type: ignore[union-attr]
    size = parameters[0].shape[: parameters[0].ndim - op.ndims_params[0]]
    return np.asarray(op.rng_fn(generator, *parameters, size)), parameters


def _is_one_draw(term: Term) -> bool:
    return isinstance(term.random.owner.op, RandomVariable)  # type: ignore[union-attr]
