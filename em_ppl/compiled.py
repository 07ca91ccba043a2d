"""Log-likelihood and gradient of all subjects at once, as plain functions of arrays.

Compiling is apart from running: the compiled functions take the data as inputs of any size, so that one
compilation serves every data set with the same columns (`CompiledModel.with_data`).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import pymc as pm
import pytensor
import pytensor.tensor as pt
import xarray as xr
from numpy.typing import ArrayLike, NDArray
from pytensor.graph.replace import graph_replace
from pytensor.graph.traversal import ancestors
from pytensor.tensor import TensorVariable
from pytensor.tensor.random.type import RandomType

from em_ppl.batching import NotBatchable, batch, batch_draws
from em_ppl.data import (
    check_dataset,
    check_responses,
    label_text,
    read_column,
    real_trials,
    refuse_missing,
    trial_counts,
)
from em_ppl.model import Column, Deterministic, ModelError, SubjectModel, Term, Trace, check_subject_model, stabilised

__all__ = ["BatchingWarning", "CompiledModel"]

Array = NDArray[Any]
FloatArray = NDArray[np.float64]

CHUNK = 128  # subjects per call: more fall out of the processor's cache
LENGTH_STEP = 0.75  # subjects within this ratio of trials share a call, padded to the longest


class BatchingWarning(UserWarning):
    """A likelihood is evaluated one subject at a time, because its graph cannot be batched."""


# --- the symbolic side --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Functions:
    """What is compiled once for a model and the kind of its columns.

    Inputs are x, the columns, and one mask per term; over all subjects if `batched`, else of one subject.
    """

    trace: Trace
    columns: dict[str, Column]
    batched: bool
    value: TensorVariable
    terms: list[TensorVariable]
    inputs: list[TensorVariable]
    compile_kwargs: dict[str, Any]
    _of_terms: dict[tuple[str, str], Any] = field(default_factory=dict)

    def _compile(
        self, outputs: Sequence[TensorVariable], further_inputs: Sequence[Any] = ()
    ) -> Callable[..., list[Array]]:
        # inputs of a kind are always arrays of the declared type: checking them again costs more than a small model
        settings = {"trust_input": True, "on_unused_input": "ignore"} | self.compile_kwargs
        function: Callable[..., list[Array]] = pytensor.function(
            [*self.inputs, *further_inputs], list(outputs), **settings
        )
        return function

    @cached_property
    def value_and_gradient(self) -> Callable[..., list[Array]]:
        gradient = pytensor.grad(self.value.sum(), self.inputs[0])
        return self._compile([self.value, gradient])

    @cached_property
    def value_alone(self) -> Callable[..., list[Array]]:
        """Two to three times as fast as with the gradient, where many points need none."""
        return self._compile([self.value])

    def draw(self, term: Term) -> TensorVariable:
        """Return a graph of `inputs` that draws what a term observes; raises NotBatchable if there is none."""
        return self._with_draws([term.random])[0]

    def _with_draws(self, outputs: Sequence[TensorVariable]) -> list[TensorVariable]:
        """Carry graphs of one subject that may draw over to `inputs`."""
        x = self.inputs[0]
        if not self.batched:
            return graph_replace(outputs, {v: x[k] for k, v in enumerate(self.trace.x)}, strict=False)
        columns = zip(self.trace.columns.values(), self.inputs[1:], strict=False)
        own = {one: together for one, together in columns if together is not one}
        return batch_draws(outputs, own | {v: x[:, k] for k, v in enumerate(self.trace.x)}, x.shape[0])

    def simulator(self, term: Term) -> tuple[Callable[..., list[Array]], int]:
        """Compile what draws responses, and say how many NumPy generators it asks for behind `inputs`.

        Outputs, (subject, trial): random responses, their log-probability, and that of the responses among the inputs.
        """
        if ("simulator", term.name) not in self._of_terms:
            value = term.random.clone()  # type: ignore[union-attr]
            outputs = [term.random, graph_replace(_logp(term, value), {value: term.random}), term.logp]
            outputs = self._with_draws(outputs)
            shared = [v for v in ancestors(outputs) if isinstance(v.type, RandomType) and v.owner is None]
            generators = [v.type() for v in shared]
            outputs = graph_replace(outputs, dict(zip(shared, generators, strict=True)))
            with warnings.catch_warnings():
                # numba says that it leaves what a CustomDist draws to Python, as it must
                warnings.filterwarnings("ignore", "Numba will use object mode", UserWarning)
                self._of_terms["simulator", term.name] = self._compile(outputs, generators), len(generators)
        return self._of_terms["simulator", term.name]

    def log_probability_of(self, term: Term) -> Callable[..., list[Array]]:
        """Compile the log-probability of one and the same response in every trial, the last input."""
        if ("option", term.name) not in self._of_terms:
            option = pt.scalar("option", dtype="int64")
            logp = _logp(term, pt.zeros_like(self.trace.columns[term.name]) + option)
            self._of_terms["option", term.name] = self._compile(self._with_draws([logp]), [option])
        return self._of_terms["option", term.name]

    @cached_property
    def pointwise(self) -> Callable[..., list[Array]]:
        return self._compile(self.terms)

    @cached_property
    def deterministics(self) -> Callable[..., list[Array]]:
        return self._compile(self._with_draws([named.value for named in self.trace.deterministics]))


def build_functions(model: SubjectModel, columns: dict[str, Column], compile_kwargs: dict[str, Any]) -> Functions:
    """Write the log-likelihood of all subjects; compile nothing yet."""
    trace = model.trace(columns)
    logps = [term.logp for term in trace.terms]
    masks = [pt.tensor(f"{t.name}_present", dtype="bool", shape=(None,) * t.by_trial) for t in trace.terms]
    own = [*(symbol for name, symbol in trace.columns.items() if columns[name].by_subject), *masks]
    try:
        batched = True
        x = pt.tensor("x", dtype="float64", shape=(None, len(trace.x)))
        together = {v: pt.tensor(v.name, dtype=v.type.dtype, shape=(None, *v.type.shape)) for v in own}
        logps = batch(logps, together | {v: x[:, k] for k, v in enumerate(trace.x)}, x.shape[0])
    except NotBatchable as reason:
        message = f"{model.name} is evaluated one subject at a time, many times slower: {reason}"
        warnings.warn(message, BatchingWarning, stacklevel=5)
        batched = False
        x = pt.tensor("x", dtype="float64", shape=(len(trace.x),))
        together = {v: v for v in own}
        logps = graph_replace(logps, {v: x[k] for k, v in enumerate(trace.x)})
    masks = [together[m] for m in masks]
    terms = [_masked(logp, mask) for logp, mask in zip(logps, masks, strict=True)]
    inputs = [x, *(together.get(s, s) for s in trace.columns.values()), *masks]
    value = sum((_sum_trials(term, int(batched)) for term in terms), start=pt.zeros(()))
    return Functions(trace, columns, batched, value, terms, inputs, compile_kwargs)


def functions_of(
    model: SubjectModel, columns: dict[str, Column], compile_kwargs: Mapping[str, Any] | None
) -> Functions:
    """Return what is, or will be, compiled for a model and the kind of its columns: once for all data."""
    settings = dict(compile_kwargs or {})
    key = (tuple(columns.items()), tuple((k, str(v)) for k, v in sorted(settings.items())))
    if key not in model._compiled:
        model._compiled[key] = build_functions(model, columns, settings)
    functions: Functions = model._compiled[key]
    return functions


def _logp(term: Term, value: TensorVariable) -> TensorVariable:
    """Log-probability of another response than the one that was given, after the same history; one subject."""
    return stabilised([pm.logp(term.random, value)])[0]


def _masked(logp: TensorVariable, mask: TensorVariable) -> TensorVariable:
    return pt.switch(mask.dimshuffle(*range(mask.ndim), *["x"] * (logp.ndim - mask.ndim)), logp, 0.0)


def _sum_trials(term: TensorVariable, lead: int) -> TensorVariable:
    return term.sum(axis=tuple(range(lead, term.ndim))) if term.ndim > lead else term


# --- the numerical side -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Subjects:
    """The arrays that a model reads, one row per subject, without NaN; and which terms count where."""

    columns: dict[str, Array]
    present: dict[str, NDArray[np.bool_]]
    n_trials: NDArray[np.int64]


@dataclass(frozen=True)
class CompiledModel:
    """A model compiled, with data: log-likelihood, log-posterior and gradients per subject.

    Everything takes and returns plain arrays over subjects, in the order of ``data.subject``, so that any
    optimiser or sampler can use it. Made by `SubjectModel.compile`.

    Attributes
    ----------
    model : SubjectModel
        The definition.
    data : Dataset
        The data, dims in order (subject, trial, ...).

    Examples
    --------
    >>> import em_ppl as em, numpy as np, pymc as pm
    >>> @em.subject_model(level=em.Real())
    ... def normal(level, y):
    ...     pm.Normal("y", level, 1.0, observed=y)
    >>> data = em.from_subjects({"ann": {"y": [0.0, 1.0]}, "bo": {"y": [2.0]}})
    >>> compiled = normal.compile(data)
    >>> compiled.log_likelihood(np.zeros((2, 1))).round(3)
    array([-2.338, -2.919])
    >>> compiled.log_likelihood_gradient(np.zeros((2, 1)))
    array([[1.],
           [2.]])
    """

    model: SubjectModel
    data: xr.Dataset
    functions: Functions = field(repr=False)
    subjects: Subjects = field(repr=False)
    equal_lengths: bool = False
    chunk_size: int = CHUNK

    def with_data(self, data: xr.Dataset) -> CompiledModel:
        """Return the same compiled functions over other data with the same columns; nothing is compiled."""
        return compile_model(self.model, data, compile_kwargs=self.functions.compile_kwargs)

    def take(self, index: NDArray[np.intp]) -> CompiledModel:
        """Return the same for some of the subjects; nothing is compiled or checked again."""
        own = {name: column.by_subject for name, column in self.functions.columns.items()}
        columns = {name: values[index] if own[name] else values for name, values in self.subjects.columns.items()}
        present = {name: mask[index] for name, mask in self.subjects.present.items()}
        subjects = Subjects(columns, present, self.subjects.n_trials[index])
        return replace(self, data=self.data.isel(subject=index), subjects=subjects)

    @property
    def observed(self) -> list[str]:
        """Names of the columns that the likelihood observes."""
        return [term.observes for term in self.functions.trace.terms if term.observes is not None]

    @property
    def shape(self) -> tuple[int, int]:
        """Number of subjects, number of parameters."""
        return self.data.sizes["subject"], len(self.model.parameters)

    def compile(self, *, value_alone: bool = False) -> None:
        """Compile now what the first evaluations would compile; nothing, if it is compiled already."""
        start = np.array([[p.gaussian_start for p in self.model.parameters.values()]])
        for name in ("value_and_gradient", "value_alone")[: 1 + value_alone]:
            list(self._run(getattr(self.functions, name), start, np.array([0])))  # numba compiles at the first call

    def log_likelihood(self, x: ArrayLike) -> FloatArray:
        """Log-likelihood of each subject.

        Parameters
        ----------
        x : array_like
            (subject, parameter), Gaussian space.

        Returns
        -------
        ndarray
            (subject,)
        """
        return self.value_and_gradient(self._checked(x))[0]

    def log_likelihood_gradient(self, x: ArrayLike) -> FloatArray:
        """Gradient of `log_likelihood` in Gaussian space, (subject, parameter)."""
        return self.value_and_gradient(self._checked(x))[1]

    def log_posterior(self, x: ArrayLike, mean: ArrayLike, covariance: ArrayLike) -> FloatArray:
        """Log-likelihood plus the group's log density, of each subject, with all constants.

        Parameters
        ----------
        x : array_like
            (subject, parameter), Gaussian space.
        mean, covariance : array_like
            The group, (parameter,) and (parameter, parameter), Gaussian space.

        Returns
        -------
        ndarray
            (subject,)
        """
        x, mean, covariance = self._checked(x), *self._checked_group(mean, covariance)
        away = np.linalg.solve(np.linalg.cholesky(covariance), (x - mean).T)
        log_determinant = np.linalg.slogdet(2 * np.pi * covariance)[1]
        return np.asarray(self.log_likelihood(x) - 0.5 * (away**2).sum(0) - 0.5 * log_determinant)

    def log_posterior_gradient(self, x: ArrayLike, mean: ArrayLike, covariance: ArrayLike) -> FloatArray:
        """Gradient of `log_posterior` in Gaussian space, (subject, parameter)."""
        x, mean, covariance = self._checked(x), *self._checked_group(mean, covariance)
        pull = np.linalg.solve(covariance, (x - mean).T).T
        return self.log_likelihood_gradient(x) - pull

    def pointwise_log_likelihood(self, x: ArrayLike) -> dict[str, FloatArray]:
        """Log-likelihood of every trial.

        Returns
        -------
        dict
            Name of the observed variable or potential -> (subject, trial, ...) or (subject,); 0 where a response
            is missing, and in padding.
        """
        return self.by_trial(self.functions.pointwise, self.functions.trace.terms, self._checked(x))

    def by_trial(
        self, function: Callable[..., list[Array]], terms: Sequence[Term | Deterministic], x: FloatArray
    ) -> dict[str, FloatArray]:
        """Call a function of x and the data that has one output a term; put together what it says of each trial."""
        result: dict[str, FloatArray] = {}
        for rows, outputs in self._run(function, x, np.arange(len(x))):
            for term, values in zip(terms, outputs, strict=True):
                if term.name not in result:
                    width = (self.data.sizes["trial"],) if term.by_trial else ()
                    result[term.name] = np.zeros((len(x), *width, *values.shape[1 + term.by_trial :]))
                place = (rows, slice(0, values.shape[1])) if term.by_trial else rows
                result[term.name][place] = values
        return result

    def value_and_gradient(self, x: FloatArray, index: NDArray[np.intp] | None = None) -> tuple[FloatArray, FloatArray]:
        """Log-likelihood and gradient of some subjects: the one call that everything hot goes through.

        Parameters
        ----------
        x : ndarray
            (n, parameter), float64, Gaussian space.
        index : ndarray of int, optional
            (n,), whose they are; all subjects, in order, if left out.

        Returns
        -------
        value : ndarray
            (n,)
        gradient : ndarray
            (n, parameter)
        """
        value, gradient = np.empty(len(x)), np.empty(x.shape)
        for rows, (v, g) in self._run(self.functions.value_and_gradient, x, index):
            value[rows], gradient[rows] = v, g
        return value, gradient

    def value(self, x: FloatArray, index: NDArray[np.intp]) -> FloatArray:
        """Log-likelihood of some subjects, (n,): faster than `value_and_gradient`, once `compile` made it so."""
        if "value_alone" not in vars(self.functions):
            return self.value_and_gradient(x, index)[0]
        value = np.empty(len(x))
        for rows, (v,) in self._run(self.functions.value_alone, x, index):
            value[rows] = v
        return value

    def _checked(self, x: ArrayLike) -> FloatArray:
        x = np.ascontiguousarray(x, dtype=float)
        if x.shape != self.shape:
            raise ValueError(f"x has shape {x.shape}; it must be (subject, parameter) = {self.shape}.")
        return x

    def _checked_group(self, mean: ArrayLike, covariance: ArrayLike) -> tuple[FloatArray, FloatArray]:
        mean, covariance = np.asarray(mean, dtype=float), np.asarray(covariance, dtype=float)
        n = len(self.model.parameters)
        if mean.shape != (n,) or covariance.shape != (n, n):
            raise ValueError(
                f"the group has a mean of shape {mean.shape} and a covariance of shape {covariance.shape}; "
                f"they must be ({n},) and ({n}, {n})."
            )
        if not np.allclose(covariance, covariance.T) or not np.all(np.linalg.eigvalsh(covariance) > 0):
            raise ValueError("the group's covariance must be symmetric and positive definite.")
        return mean, covariance

    def _run(
        self, function: Callable[..., list[Array]], x: FloatArray, index: NDArray[np.intp] | None
    ) -> Iterator[tuple[NDArray[np.intp], Sequence[Array]]]:
        """Call `function` on chunks of subjects of like length; yield the rows of x and its outputs."""
        chunks = self._all_chunks if index is None else self._chunks(index)
        for rows, inputs in chunks:
            if self.functions.batched:
                yield rows, function(x[rows], *inputs)
            else:
                single = [function(x[row], *(a[0] if own else a for a, own in zip(inputs, self._own, strict=True)))
                          for row in rows]  # fmt: skip
                yield rows, [np.stack(values) for values in zip(*single, strict=True)]

    @cached_property
    def _own(self) -> list[bool]:
        """Which inputs after x have a row per subject."""
        columns = [self.functions.columns[name].by_subject for name in self.functions.trace.columns]
        return columns + [True] * len(self.functions.trace.terms)

    @cached_property
    def _all_chunks(self) -> list[tuple[NDArray[np.intp], list[Array]]]:
        return list(self._chunks(np.arange(self.shape[0])))

    @cached_property
    def _padded_lengths(self) -> NDArray[np.int64]:
        """How many trials each subject is padded to.

        It is the same whoever else is in a chunk: sums over more or fewer zeros may differ in their last bits.
        """
        lengths: NDArray[np.int64] = self.subjects.n_trials
        if self.equal_lengths or not self.functions.batched:
            return lengths
        steps = np.floor(np.log(lengths.max() / lengths) / np.log(1 / LENGTH_STEP) + 1e-9)
        padded: NDArray[np.int64] = np.maximum(np.ceil(lengths.max() * LENGTH_STEP**steps), lengths).astype(np.int64)
        return padded

    def _chunks(self, index: NDArray[np.intp]) -> Iterator[tuple[NDArray[np.intp], list[Array]]]:
        lengths = self._padded_lengths[index]
        order = np.argsort(lengths, kind="stable")
        size = self.chunk_size if self.functions.batched else 1
        for group in np.split(order, np.flatnonzero(np.diff(lengths[order])) + 1):
            for start in range(0, len(group), size):
                rows = group[start : start + size]
                yield rows, self._inputs(index[rows], int(lengths[rows[0]]))

    def _inputs(self, who: NDArray[np.intp], n_trials: int) -> list[Array]:
        def cut(values: Array, by_trial: bool) -> Array:
            return np.ascontiguousarray(values[who, :n_trials] if by_trial else values[who])

        columns, trace = self.functions.columns, self.functions.trace
        values = [
            cut(self.subjects.columns[name], columns[name].by_trial)
            if columns[name].by_subject
            else self.subjects.columns[name]
            for name in trace.columns
        ]
        return values + [cut(self.subjects.present[term.name], term.by_trial) for term in trace.terms]

    def explain(self, x: FloatArray) -> str:
        """Say which subject, and which trial, has a log-likelihood that is no number at x."""
        values = self.log_likelihood(x)
        bad = np.flatnonzero(~np.isfinite(values))
        labels = self.data["subject"].values
        natural = ", ".join(
            f"{name}={p.to_natural(x[bad[0], k]):.4g}" for k, (name, p) in enumerate(self.model.parameters.items())
        )
        text = f"the log-likelihood of subject {label_text(labels[bad[0]])} is {values[bad[0]]} at {natural}"
        for name, logp in self.pointwise_log_likelihood(x).items():
            trials = np.argwhere(~np.isfinite(np.atleast_1d(logp[bad[0]])))
            if len(trials):
                at = f" in trial {self._trial_label(trials[0][0])}" if np.ndim(logp) > 1 else ""
                text += f"; the first such term is {name!r}{at}"
                break
        return text + (f" ({len(bad)} subjects in all)" if len(bad) > 1 else "")

    def _trial_label(self, trial: int) -> str:
        return label_text(self.data["trial"].values[trial] if "trial" in self.data.coords else trial)


def compile_model(
    model: SubjectModel, data: xr.Dataset, *, compile_kwargs: Mapping[str, Any] | None = None
) -> CompiledModel:
    """Bind a model to data; see `SubjectModel.compile`."""
    check_subject_model(model)
    data = check_dataset(data)
    read = {name: read_column(data, name) for name in model.columns}
    columns = {name: _describe(data[name], values) for name, (values, _) in read.items()}
    functions = functions_of(model, columns, compile_kwargs)
    terms = functions.trace.terms
    observed = {term.observes for term in terms}
    for name in model.columns:
        check_responses(data, name) if name in observed else refuse_missing(data, name)
    subjects = Subjects(
        columns={name: values for name, (values, _) in read.items()},
        present={term.name: _present(term, read, data) for term in terms},
        n_trials=trial_counts(data),
    )
    return _check_stand_ins(CompiledModel(model, data[list(model.columns)], functions, subjects))


def _present(term: Term, read: Mapping[str, tuple[Array, NDArray[np.bool_]]], data: xr.Dataset) -> NDArray[np.bool_]:
    """Return where a term counts: (subject, trial) or (subject,)."""
    if term.observes is None:
        present = real_trials(data)
    else:
        present = np.broadcast_to(
            read[term.observes][1], real_trials(data).shape[: max(read[term.observes][1].ndim, 1)]
        )
    return present if term.by_trial or present.ndim == 1 else present.any(1)


def _check_stand_ins(compiled: CompiledModel) -> CompiledModel:
    """Make sure that what stands in for a missing response, or for padding, changes no likelihood.

    A model that looks across trials (a mean over them, the last state) sees padding: it is then run on subjects
    of equal length only, without any. A model that learns from a response must say what a missing one teaches.
    """
    subjects, columns = compiled.subjects, compiled.functions.columns
    generator = np.random.default_rng(0)
    start = np.array([p.gaussian_start for p in compiled.model.parameters.values()])
    x = start + generator.normal(scale=0.5, size=compiled.shape)

    def unchanged(other: Subjects) -> NDArray[np.bool_]:
        before, after = compiled.log_likelihood(x), replace(compiled, subjects=other).log_likelihood(x)
        return np.isclose(before, after, rtol=1e-9, atol=1e-12, equal_nan=True)

    padded = ~real_trials(compiled.data)
    ragged = [name for name, column in columns.items() if column.by_subject and column.by_trial]
    if (
        padded.any()
        and ragged
        and not unchanged(_swapped(subjects, ragged, dict.fromkeys(ragged, padded), extra=1)).all()
    ):
        compiled = replace(compiled, equal_lengths=True)
    for name in (term.observes for term in compiled.functions.trace.terms if term.observes is not None):
        variable = compiled.data[name]
        missing = np.isnan(variable.values).any(axis=tuple(range(1 + columns[name].by_trial, variable.ndim)))
        missing = missing & ~padded if columns[name].by_trial else missing
        if not missing.any() or not columns[name].by_subject:
            continue
        same = unchanged(_swapped(subjects, [name], {name: missing}))
        if not same.all():
            who = int(np.flatnonzero(~same)[0])
            trial = f", trial {compiled._trial_label(int(missing[who].argmax()))}" if missing.ndim == 2 else ""
            raise ModelError(
                f"{name!r} is missing for subject {label_text(variable['subject'].values[who])}{trial}, but the model "
                f"also reads {name!r} for something else than its likelihood, such as learning. Say what happens in "
                f"such a trial: add a data column that marks present responses and use pt.switch(marked, new, old)."
            )
    return compiled


def _swapped(
    subjects: Subjects, names: Sequence[str], where: Mapping[str, NDArray[np.bool_]], extra: int = 0
) -> Subjects:
    """Put another value of the same column into some cells; lengthen all by `extra` trials of padding."""
    columns, present = dict(subjects.columns), dict(subjects.present)
    for name in names:
        values, cells = columns[name].copy(), where[name]
        low, high = values[~cells].min(0), values[~cells].max(0)
        high = np.where(high > low, high, np.where(low > 0, low - 1, low + 1))
        values[cells] = np.where(values[cells] == low, high, low)
        columns[name] = np.concatenate([values, values[:, -extra:]], axis=1) if extra else values
    if extra:
        for name, mask in present.items():
            present[name] = np.pad(mask, ((0, 0), (0, extra))) if mask.ndim == 2 else mask
    return Subjects(columns, present, subjects.n_trials + extra)


def _describe(variable: xr.DataArray, values: Array) -> Column:
    by_subject, by_trial = ("subject" in variable.dims), ("trial" in variable.dims)
    return Column(str(values.dtype), by_subject, by_trial, shape=values.shape[by_subject + by_trial :])
