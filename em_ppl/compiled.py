"""Log-likelihood and gradient of all subjects at once, as plain functions of arrays.

Compiling is apart from running: what is compiled (`em_ppl.functions`) takes the data as inputs of any size, so that one
compilation serves every data set with the same columns (`CompiledModel.with_data`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from em_ppl.by_shape import is_jax
from em_ppl.cores import at_most, cores_in_use, in_threads
from em_ppl.data import (
    Seen,
    check_dataset,
    check_responses,
    label_text,
    read_column,
    real_trials,
    refuse_missing,
    trial_counts,
)
from em_ppl.functions import Functions, functions_of
from em_ppl.kernels import Kernel
from em_ppl.model import Column, ModelError, SubjectModel, Term, check_subject_model
from em_ppl.portions import join, span, split, take
from em_ppl.subjects import FEW_LENGTHS, LENGTH_STEP, FloatArray, Index, Subjects

__all__ = ["CompiledModel"]

Array = NDArray[Any]
Result = TypeVar("Result")

WORTHWHILE = 1500  # subjects for a thread of Python; fewer are spread over cores within machine code only
PORTION = 10_000  # subjects whose numbers are in work at a time: more would be slower, and need gigabytes


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
    _portions: dict[tuple[int, int], CompiledModel] = field(init=False, default_factory=dict, repr=False, compare=False)

    def with_data(self, data: xr.Dataset) -> CompiledModel:
        """Return the same compiled functions over other data with the same columns; nothing is compiled."""
        return compile_model(self.model, data, compile_kwargs=self.functions.compile_kwargs)

    def take(self, index: Index | slice) -> CompiledModel:
        """Return the same for some of the subjects; nothing is compiled or checked again."""
        return replace(self, data=self.data.isel(subject=index), subjects=self.subjects.take(index))

    def map(self, work: Callable[..., Result], *arguments: Any) -> Result:
        """Return ``work(compiled, *arguments)`` of all subjects: a portion a core, and no more than some thousands.

        Parameters
        ----------
        work : callable
            What it does for a subject hangs on no other subject. It takes a `CompiledModel` of some of them, and their
            share of the arguments; it returns an array with a row for each, or a tuple or dataclass of such.
        *arguments
            Arrays with a row per subject, or objects with a method ``take(subjects)``.
        """
        n, cores = self.shape[0], 1
        if self._kernel is not None:
            cores = max(1, min(cores_in_use(), n // WORTHWHILE))
        portions = split(n, min(PORTION, max(1, -(-n // cores))))
        if len(portions) <= 1:
            return join([work(self, *take(arguments))])
        cores = min(cores, len(portions))
        results: list[Any] = [None] * len(portions)

        def do(mine: range) -> None:
            with at_most(1 if cores > 1 else None):
                for k in mine:
                    results[k] = work(self._portion(span(portions[k])), *take(arguments, portions[k]))

        in_threads(do, [range(k, len(portions), cores) for k in range(cores)])
        return join(results)

    def _portion(self, who: slice) -> CompiledModel:
        """`take`, which xarray makes slow, once for each portion."""
        ends = who.start, who.stop
        if ends not in self._portions:
            self._portions[ends] = self.take(who)
        return self._portions[ends]

    @property
    def _kernel(self) -> Kernel | None:
        """Machine code of one subject, if that is what there is."""
        made = self.functions.compiled("value_and_gradient")
        return made if isinstance(made, Kernel) else None

    @property
    def observed(self) -> list[str]:
        """Names of the columns that the likelihood observes."""
        return [term.observes for term in self.functions.trace.terms if term.observes is not None]

    @property
    def shape(self) -> tuple[int, int]:
        """Number of subjects, number of parameters."""
        return self.data.sizes["subject"], len(self.model.parameters)

    @property
    def many_at_once(self) -> bool:
        """Whether several points of a subject, asked for in a row, cost about as much as one."""
        return self._kernel is not None and self._kernel.wide

    def compile(self, *, value_alone: bool = False) -> None:
        """Compile now what the first evaluations would compile; nothing, if it is compiled already."""
        start = np.array([[p.gaussian_start for p in self.model.parameters.values()]])
        self.functions.evaluate("value_and_gradient", self.subjects, start, np.array([0]))
        if value_alone:
            self.functions.evaluate("value", self.subjects, start, np.array([0]))

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
        names = [term.name for term in self.functions.trace.terms]
        values = self.functions.evaluate("pointwise", self.subjects, self._checked(x), None)
        return dict(zip(names, values, strict=True))

    def value_and_gradient(self, x: FloatArray, index: Index | None = None) -> tuple[FloatArray, FloatArray]:
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
        value, gradient = self.functions.evaluate("value_and_gradient", self.subjects, x, index)
        return value, gradient

    def value(self, x: FloatArray, index: Index) -> FloatArray:
        """Log-likelihood of some subjects, (n,): faster than `value_and_gradient`, once `compile` made it so."""
        if not self.functions.has("value"):
            return self.value_and_gradient(x, index)[0]
        [value] = self.functions.evaluate("value", self.subjects, x, index)
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
            trials = np.unique(np.argwhere(~np.isfinite(np.atleast_1d(logp[bad[0]])))[:, :1])
            if len(trials):
                every = len(trials) == trial_counts(self.data)[bad[0]] > 1  # as PyMC says of one choice out of range
                where = "every trial" if every else f"trial {self._trial_label(trials[0])}"
                text += f"; the first such term is {name!r}" + (f" in {where}" if np.ndim(logp) > 1 else "")
                break
        return text + (f" ({len(bad)} subjects in all)" if len(bad) > 1 else "")

    def _trial_label(self, trial: int) -> str:
        return label_text(self.data["trial"].values[trial] if "trial" in self.data.coords else trial)


def compile_model(
    model: SubjectModel,
    data: xr.Dataset,
    *,
    compile_kwargs: Mapping[str, Any] | None = None,
    seen: Mapping[str, Seen] | None = None,
) -> CompiledModel:
    """Bind a model to data; see `SubjectModel.compile`. Of a part of a study, `seen` says what all of it holds."""
    from em_ppl.python_models import PythonModel

    check_subject_model(model)
    if isinstance(model, PythonModel):
        return model.bind(data)
    data = check_dataset(data)
    read = {name: read_column(data, name, (seen or {}).get(name)) for name in model.columns}
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
        kinds=columns,
        length_step=FEW_LENGTHS if is_jax(functions.compile_kwargs) else LENGTH_STEP,
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
        compiled = replace(compiled, subjects=replace(subjects, equal_lengths=True))
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
        known = values if cells.all() else values[~cells]  # a block of subjects may have stand-ins only
        low, high = known.min(0), known.max(0)
        high = np.where(high > low, high, np.where(low > 0, low - 1, low + 1))
        values[cells] = np.where(values[cells] == low, high, low)
        columns[name] = np.concatenate([values, values[:, -extra:]], axis=1) if extra else values
    if extra:
        for name, mask in present.items():
            present[name] = np.pad(mask, ((0, 0), (0, extra))) if mask.ndim == 2 else mask
    return replace(subjects, columns=columns, present=present, n_trials=subjects.n_trials + extra)


def _describe(variable: xr.DataArray, values: Array) -> Column:
    by_subject, by_trial = ("subject" in variable.dims), ("trial" in variable.dims)
    return Column(str(values.dtype), by_subject, by_trial, shape=values.shape[by_subject + by_trial :])
