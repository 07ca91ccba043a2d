"""Simulated subjects: the likelihood of one subject, asked for its next response, against a task that answers.

There is no second definition of a model here. On every trial the model's own likelihood, given all that has happened
to a subject so far, says how the next response is distributed. One is drawn, the task answers, the next trial begins.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from em_ppl.checks import check_counts
from em_ppl.data import inner_dims, label_array, label_text
from em_ppl.functions import Functions, functions_of
from em_ppl.model import Column, ModelError, SubjectModel, check_subject_model
from em_ppl.parameters import Parameter
from em_ppl.progress import Progress
from em_ppl.responses import distribution, draw
from em_ppl.subjects import Subjects
from em_ppl.tasks import Task

if TYPE_CHECKING:
    from em_ppl.result import Fit

__all__ = ["draw_subjects", "simulate"]

Array = NDArray[Any]
FloatArray = NDArray[np.float64]


def draw_subjects(
    model: SubjectModel, group: Mapping[str, tuple[float, float]], n_subjects: int, *, random_seed: int | None = None
) -> pd.DataFrame:
    """Draw subjects' parameters from a Normal group.

    Parameters
    ----------
    model : SubjectModel
        Whose parameters.
    group : mapping of str to (float, float)
        Mean and SD of every parameter, Gaussian space (``model.parameters["alpha"].to_gaussian(0.3)`` is where 0.3
        lies). An SD of 0 makes all subjects equal, as in a shared parameter.
    n_subjects : int
        How many.
    random_seed : int, optional
        Equal seeds give equal subjects.

    Returns
    -------
    DataFrame
        One row a subject, one column a parameter, natural space.

    Raises
    ------
    ValueError
        If `group` has not a mean and an SD of each parameter, or `n_subjects` is no positive whole number.

    Examples
    --------
    >>> import em_ppl as em, pymc as pm
    >>> @em.subject_model(p=em.Unit())
    ... def coin(p, heads):
    ...     pm.Bernoulli("heads", p=p, observed=heads)
    >>> people = em.draw_subjects(coin, {"p": (0.0, 1.0)}, 3, random_seed=1)
    >>> people["p"].round(2).tolist()
    [0.59, 0.69, 0.58]
    """
    check_counts(n_subjects=n_subjects)
    _check_names("group", group, model.parameters)
    for name, value in group.items():
        if np.shape(value) != (2,) or not np.isfinite(value).all() or value[1] < 0:
            raise ValueError(f"group: {name!r} needs (mean, SD), two numbers in Gaussian space; it has {value!r}.")
    generator = np.random.default_rng(random_seed)
    noise = generator.standard_normal((n_subjects, len(model.parameters)))
    natural = {
        name: parameter.to_natural(group[name][0] + group[name][1] * noise[:, k])
        for k, (name, parameter) in enumerate(model.parameters.items())
    }
    return pd.DataFrame(natural, index=pd.RangeIndex(n_subjects, name="subject"))


def simulate(
    model: SubjectModel,
    subjects: pd.DataFrame | Fit,
    task: Task,
    *,
    random_seed: int | None = None,
    compile_kwargs: Mapping[str, Any] | None = None,
    progressbar: bool = True,
) -> xr.Dataset:
    """Let subjects work on a task, each trial's responses drawn from the model's own likelihood.

    Parameters
    ----------
    model : SubjectModel
        How one subject responds.
    subjects : DataFrame or Fit
        Their parameters, natural space, one column each; the index labels the subjects. A fit's own subjects, at their
        posterior medians, if it is a fit: a free-running prediction of them.
    task : Task
        What they see, and what follows their responses. Columns that it makes besides those that the model reads are
        kept.
    random_seed : int, optional
        Equal seeds give equal data, with one version of NumPy, whose generators draw the responses.
    compile_kwargs : mapping, optional
        See `SubjectModel.compile`.
    progressbar : bool
        Whether to show progress.

    Returns
    -------
    Dataset
        Responses and the columns of the task, (subject, trial), ready for `em_ppl.fit`; and the parameters, (subject).

    Raises
    ------
    ModelError
        If a response cannot be drawn, or its likelihood looks ahead: at what follows it.
    ValueError
        If a parameter, or a column that the model reads, is of no one, or the task asks for what there is not.

    Notes
    -----
    The likelihood of all trials so far is evaluated on each, so that the time grows with the square of the number of
    trials. This buys that any likelihood can be simulated, and that no simulator can drift away from it.

    Examples
    --------
    >>> import em_ppl as em, pymc as pm, pandas as pd
    >>> @em.subject_model(p=em.Unit())
    ... def coin(p, heads):
    ...     pm.Bernoulli("heads", p=p, observed=heads)
    >>> people = pd.DataFrame({"p": [0.1, 0.9]}, index=["ann", "bo"])
    >>> data = em.simulate(coin, people, em.Task(100), random_seed=1, progressbar=False)
    >>> data.heads.mean("trial").values.round(1)
    array([0.1, 0.9])
    """
    check_subject_model(model)
    if not isinstance(task, Task):
        raise TypeError(f"task={task!r} must be an em.Task(...); to show trials again, em.Task.replay(data, [...]).")
    table = subjects if isinstance(subjects, pd.DataFrame) else _people_of(subjects)
    x, labels = _gaussian(model, table), label_array(list(table.index))
    with Progress(show=progressbar) as progress:
        play = Play(model, task, x, labels, compile_kwargs)
        play.run(np.random.default_rng(random_seed), progress)
    columns = {name: (("subject", "trial", *inner), values) for name, (inner, values) in play.labelled().items()}
    parameters = {name: ("subject", table[name].to_numpy(float)) for name in model.parameters}
    coords = {"subject": labels, "trial": np.arange(task.n_trials), "n_trials": ("subject", task.lengths_of(labels))}
    return xr.Dataset(columns | parameters, coords=coords)


class Play:
    """The columns so far, and the functions that draw what comes next."""

    def __init__(
        self, model: SubjectModel, task: Task, x: FloatArray, labels: Array, compile_kwargs: Mapping[str, Any] | None
    ) -> None:
        self.model, self.task, self.x, self.labels = model, task, x, labels
        shown = task.shown_to(labels)
        self.columns, self.functions = _rehearse(model, task, shown, len(x), compile_kwargs)
        self.terms = {term.name: term for term in self.functions.trace.terms}
        self.script = task.order(self.terms)
        self.said: dict[str, list[list[Array]]] = {name: [] for name in self.terms}
        self.subjects = Subjects(
            columns={name: self.columns[name] for name in model.columns},  # which are filled as time goes on
            present=dict.fromkeys(self.terms, np.ones((len(x), task.n_trials), dtype=bool)),
            n_trials=np.full(len(x), task.n_trials),
            kinds=self.functions.columns,
            equal_lengths=True,
        )

    def run(self, generator: np.random.Generator, progress: Progress) -> None:
        """Fill all columns, trial by trial; raise ModelError if a response depends on what came after it."""
        for trial in range(self.task.n_trials):
            self._fill(trial, generator)
            progress.say(f"trial {trial + 1} of {self.task.n_trials}")
        self._check_that_nothing_looked_ahead()

    def labelled(self) -> dict[str, tuple[tuple[str, ...], Array]]:
        """Return each column, (subject, trial, ...), with the names of its further dimensions."""
        return {name: (inner_dims(name, values.ndim - 2), values) for name, values in self.columns.items()}

    def _fill(self, trial: int, generator: np.random.Generator) -> None:
        now = {"trial": trial, "subject": np.arange(len(self.x)), "rng": generator}
        for name in self.script:
            if name in self.terms:
                where = np.zeros((len(self.x), self.task.n_trials), dtype=bool)
                where[:, trial] = True
                drawn, said = draw(self.functions, self.terms[name], self._until(trial + 1), self.x, where, generator)
                self.columns[name][:, trial] = drawn
                self.said[name].append(said)
            else:
                given = now | {key: values[:, trial] for key, values in self.columns.items()}
                answer = self.task.answer(name, given, len(self.x))
                if answer.dtype.kind == "f" and self.columns[name].dtype.kind != "f":
                    raise ValueError(
                        f"column {name!r} of the task answers in whole numbers on trial 0 and not so on trial {trial}, "
                        "where fractions would be lost: let it return floats throughout, as in 1.0 * (...)."
                    )
                self.columns[name][:, trial] = answer

    def _check_that_nothing_looked_ahead(self) -> None:
        """Compare what each response's distribution was when it was drawn to what it is now that all is known."""
        for name, term in self.terms.items():
            after = distribution(self.functions, term, self._until(self.task.n_trials), self.x)
            for k, values in enumerate(after):
                before = np.stack([said[k] for said in self.said[name]], axis=1)
                same = np.isclose(before, values, rtol=1e-6, atol=1e-8)
                if not same.all():
                    who, trial, *_ = np.argwhere(~same)[0]
                    raise ModelError(
                        f"{self.model.name}: the distribution of {name!r} in trial {trial} (subject "
                        f"{label_text(self.labels[who])}) was that of {_numbers(before[who, trial])} when the response "
                        f"was given, and is that of {_numbers(values[who, trial])} now that all is known. A response "
                        "may depend only on what came before it: is a value used that has already learnt from this "
                        "trial?"
                    )

    def _until(self, trial: int) -> Subjects:
        """Return the trials before this one."""
        return replace(self.subjects, n_trials=np.full(len(self.x), trial))


def _rehearse(
    model: SubjectModel, task: Task, shown: Mapping[str, Array], n: int, compile_kwargs: Mapping[str, Any] | None
) -> tuple[dict[str, Array], Functions]:
    """Make an empty array for every column; its type is known once the first trial has been tried."""
    kinds = {name: Column(str(values.dtype), True, True, values.shape[2:]) for name, values in shown.items()}
    responses = [name for name in model.columns if name not in shown and name not in task.answers]
    kinds |= {name: Column("int64", True, True, ()) for name in responses}  # as a first guess
    for _ in range(2):  # a response's type shows when the likelihood is called, which asks for answers' types
        first = {name: np.zeros((n, *kind.shape), kind.dtype) for name, kind in kinds.items()}
        first |= {name: values[:, 0] for name, values in shown.items()}
        first |= {"trial": 0, "subject": np.arange(n), "rng": np.random.default_rng(0)}  # type: ignore[dict-item]
        for name in task.order(responses):
            if name in task.answers:
                first[name] = task.answer(name, first, n)
                kinds[name] = Column(str(first[name].dtype), True, True, first[name].shape[1:])
        functions = functions_of(model, {name: kinds[name] for name in model.columns}, compile_kwargs)
        _check_terms(model, functions, responses)
        for term in functions.trace.terms:
            kinds[term.name] = Column(_wide(term.random.dtype), True, True, ())  # type: ignore[union-attr]
    columns = {name: np.zeros((n, task.n_trials, *kind.shape), kind.dtype) for name, kind in kinds.items()}
    for name, values in shown.items():
        columns[name][:] = values
    return columns, functions


def _check_terms(model: SubjectModel, functions: Functions, responses: list[str]) -> None:
    observed = [term.observes for term in functions.trace.terms]
    if None in observed:
        raise ModelError(
            f"{model.name}: a potential says how likely responses are, not how to draw them. Write it as an observed "
            "distribution, say pm.CustomDist with logp and random."
        )
    for name in responses:
        if name not in observed:
            raise ValueError(f"{model.name} reads a column {name!r} that the task does not have: em.Task({name}=...).")
    for term in functions.trace.terms:
        if term.name not in responses:
            raise ValueError(f"the task has a column {term.name!r}, which is {model.name}'s response: leave it out.")
        if not term.by_trial or term.random.ndim != 1:  # type: ignore[union-attr]
            raise ModelError(
                f"{model.name}: {term.name!r} is not one number a trial: it cannot be drawn trial by trial."
            )


def _numbers(values: Array) -> str:
    return np.array2string(values, precision=6, separator=", ", threshold=10)


def _wide(dtype: str) -> str:
    return "float64" if dtype.startswith("float") else "int64"


def _gaussian(model: SubjectModel, table: pd.DataFrame) -> FloatArray:
    """Carry subjects' parameters to Gaussian space, (subject, parameter)."""
    if table.empty:
        raise ValueError("there are no subjects.")
    if not table.index.is_unique:
        raise ValueError(f"subject {label_text(table.index[table.index.duplicated()][0])} occurs twice.")
    _check_names("subjects", table.columns, model.parameters)
    columns = []
    for name, parameter in model.parameters.items():
        try:
            columns.append(parameter.to_gaussian(table[name].to_numpy(float)))
        except ValueError as error:
            raise ValueError(f"subjects: {name!r} of {error}") from None
    x = np.column_stack(columns)
    if not np.isfinite(x).all():
        row, k = np.argwhere(~np.isfinite(x))[0]
        name, label = list(model.parameters)[k], label_text(table.index[row])
        raise ValueError(f"subjects: {name!r} of subject {label} is no finite number.")
    return x


def _people_of(fit: Fit) -> pd.DataFrame:
    """Tabulate a fit's subjects, shared parameters included."""
    table: pd.DataFrame = fit.subjects["natural"].transpose("subject", "parameter").to_pandas()
    for name in fit.parameters:
        if fit.parameters[name].shared:
            table[name] = float(fit.parameters[name].to_natural(fit.group.shared.sel(shared_parameter=name)))
    return table


def _check_names(what: str, given: Any, parameters: Mapping[str, Parameter]) -> None:
    for name in parameters:
        if name not in given:
            raise ValueError(f"{what} lacks the parameter {name!r}; it has {', '.join(map(str, given))}.")
