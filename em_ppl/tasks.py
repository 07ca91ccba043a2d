"""What subjects are shown, and how the world answers them: the other half of an experiment.

A likelihood says how a subject responds to what has happened so far. A `Task` says what happens: it fills the columns
that the likelihood reads and does not observe. Together they are a simulator (`em_ppl.simulation`).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from em_ppl.checks import check_counts
from em_ppl.data import check_dataset, label_text, read_column, refuse_missing, trial_counts

__all__ = ["Task"]

Array = NDArray[Any]
Answer = Callable[..., ArrayLike]

ALWAYS = ("trial", "subject", "rng")  # what an answer may ask for besides columns


class Task:
    """An experiment: what is shown on each trial, and what follows a response.

    Parameters
    ----------
    n_trials : int
        Trials of each subject.
    **columns : array_like or callable
        Columns of the data besides the responses. An array is the same for all subjects: (trial, ...), or one number
        for all trials. A function is called on every trial, for all subjects at once, and asks for what it needs by the
        names of its arguments: columns and responses of that trial, each (subject, ...), ``trial`` (int), ``subject``
        (their positions, (subject,)), and ``rng``, a NumPy generator. It returns (subject, ...), or one value for all.

    Raises
    ------
    ValueError
        If a column has another number of trials, is missing somewhere, or a name cannot be used.

    Examples
    --------
    >>> import em_ppl as em, numpy as np
    >>> pays = np.array([0.2, 0.8])
    >>> em.Task(100, reward=lambda choice, rng: 1.0 * (rng.random(choice.shape) < pays[choice]))
    Task of 100 trials: reward (after choice)
    """

    def __init__(self, n_trials: int, **columns: ArrayLike | Answer) -> None:
        check_counts(n_trials=n_trials)
        for name in columns:
            if name in ALWAYS:
                raise ValueError(f"a column cannot be called {name!r}: answers ask for {', '.join(ALWAYS)} by name.")
        self.n_trials = int(n_trials)
        self.answers: dict[str, Answer] = {name: c for name, c in columns.items() if callable(c)}
        self.shown: dict[str, Array] = {
            name: _numbers(name, c, self.n_trials, "trial") for name, c in columns.items() if not callable(c)
        }
        for name, values in self.shown.items():
            if len(values) != n_trials:
                raise ValueError(f"column {name!r} of the task has {len(values)} trials, not n_trials={n_trials}.")
        self.subjects: Array | None = None  # labels, where each subject has a design of its own
        self.lengths: NDArray[np.int64] | None = None  # trials of each of these

    @classmethod
    def replay(cls, data: xr.Dataset, names: Iterable[str], **answers: Answer) -> Task:
        """Show every subject what it was shown in `data`.

        Parameters
        ----------
        data : Dataset
            As for `em_ppl.fit`.
        names : iterable of str
            The columns to be shown again. What was an answer to a response, such as a reward, belongs to `answers`: the
            response may be another one this time.
        **answers : callable
            As for `Task`.

        Returns
        -------
        Task
            For subjects with the labels of `data`, each with its own number of trials.

        Examples
        --------
        >>> import em_ppl as em
        >>> people = {"ann": {"offer": [1.0, 3.0], "choice": [0, 1]}, "bo": {"offer": [2.0], "choice": [1]}}
        >>> data = em.from_subjects(people)
        >>> em.Task.replay(data, ["offer"])
        Task of 2 trials: offer
        """
        data = check_dataset(data)
        task = cls(data.sizes.get("trial", 1), **answers)
        task.subjects, task.lengths = data["subject"].values, trial_counts(data)
        for name in names:
            values, _ = read_column(data, name)
            if data[name].dims[:2] != ("subject", "trial"):
                raise ValueError(
                    f"column {name!r} has dims {data[name].dims}: only what changes by trial can be replayed."
                )
            refuse_missing(data, name)
            task.shown[name] = values
        return task

    def __repr__(self) -> str:
        asked = {name: [a for a in asks(answer) if a not in ALWAYS] for name, answer in self.answers.items()}
        after = [f"{name} (after {', '.join(names)})" if names else name for name, names in asked.items()]
        return f"Task of {self.n_trials} trials: {', '.join([*self.shown, *after]) or 'responses alone'}"

    def shown_to(self, labels: Array) -> dict[str, Array]:
        """Return what is shown whatever is done, (subject, trial, ...), for subjects of these labels."""
        if self.subjects is None:
            return {name: np.broadcast_to(values, (len(labels), *values.shape)) for name, values in self.shown.items()}
        place = {label: i for i, label in enumerate(self.subjects.tolist())}
        rows = [place.get(label, -1) for label in labels.tolist()]
        if -1 in rows:
            stranger = labels[rows.index(-1)]
            raise ValueError(f"the task replays the trials of others: subject {label_text(stranger)} had none.")
        return {name: values[rows] for name, values in self.shown.items()}

    def lengths_of(self, labels: Array) -> NDArray[np.int64]:
        """Return the number of trials of subjects of these labels."""
        if self.subjects is None or self.lengths is None:
            return np.full(len(labels), self.n_trials)
        by_label = dict(zip(self.subjects.tolist(), self.lengths.tolist(), strict=True))
        return np.array([by_label[label] for label in labels.tolist()])

    def order(self, responses: Iterable[str]) -> list[str]:
        """Order answers and responses within a trial: each answer as soon as all that it asks for is there.

        Raises
        ------
        ValueError
            If an answer asks for what never comes.
        """
        known, waiting, script = {*self.shown, *ALWAYS}, dict(self.answers), list[str]()

        def fill() -> None:
            while ready := [name for name, answer in waiting.items() if known.issuperset(asks(answer))]:
                for name in ready:
                    del waiting[name]
                known.update(ready)
                script.extend(ready)

        fill()
        for response in responses:
            script.append(response)
            known.add(response)
            fill()
        for name, answer in waiting.items():
            never = [a for a in asks(answer) if a not in known]
            raise ValueError(
                f"column {name!r} of the task asks for {', '.join(map(repr, never))}, which never comes: there are "
                f"{', '.join(sorted(known))}."
            )
        return script

    def answer(self, name: str, given: Mapping[str, Any], n_subjects: int) -> Array:
        """Ask one answer for its values on one trial, (subject, ...)."""
        answer = self.answers[name]
        values = _numbers(name, answer(**{a: given[a] for a in asks(answer)}), n_subjects, "subject")
        if len(values) != n_subjects:
            raise ValueError(
                f"column {name!r} of the task answers with shape {values.shape}: it must be ({n_subjects}, ...), one "
                "row a subject."
            )
        return values


def asks(answer: Answer) -> list[str]:
    """Return the names of an answer's arguments; one with a default is a setting."""
    return [name for name, a in inspect.signature(answer).parameters.items() if a.default is a.empty]


def _numbers(name: str, values: ArrayLike, n: int, row: str) -> Array:
    """Read rows of numbers, or one number for n of them, as float64 or int64."""
    array = np.asarray(values)
    if array.dtype.kind not in "biuf":
        raise ValueError(f"column {name!r} of the task holds {array.dtype} values, not numbers.")
    if array.ndim == 0:
        array = np.full(n, array)
    if not np.isfinite(array).all():
        bad = np.argwhere(~np.isfinite(array))[0][0]
        raise ValueError(f"column {name!r} of the task is missing or infinite in {row} {bad}.")
    return array.astype(float if array.dtype.kind == "f" else np.int64)
