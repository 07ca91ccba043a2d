"""A subject's log-likelihood as a Python function, of which nothing is known but its values.

Where there is no gradient, it comes from differences; subjects are spread over processes. Whatever asks for values and
gradients only (fits, standard errors, evidences, comparisons) takes such a model as it takes any other.
"""

from __future__ import annotations

import inspect
import pickle
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from typing import Any, NoReturn, TypeAlias

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from em_ppl.compiled import CompiledModel
from em_ppl.cores import cores_in_use
from em_ppl.data import check_dataset, label_text, require_column, trial_counts
from em_ppl.group import FloatArray, Index
from em_ppl.model import ModelError, SubjectModel, arrives, check_signature
from em_ppl.parameters import Parameter
from em_ppl.subjects import Subjects
from em_ppl.travel import dumps

__all__ = ["PythonModel", "python_model"]

Case: TypeAlias = tuple[Any, ...]  # a subject's data, in the order of the model's columns

# Differences over five points, in steps of a thousandth of a spread: an error of 1e-11 is small enough for third
# derivatives to be taken from them.
STEP = 1e-3
PLACES, WEIGHTS = np.array([-2.0, -1.0, 1.0, 2.0]), np.array([1.0, -8.0, 8.0, -1.0]) / 12
WHOLE = "log_likelihood"  # the one term that a subject has
WORTHWHILE = 0.2  # seconds of work that are spread over processes


@dataclass(frozen=True, eq=False, repr=False)
class PythonModel(SubjectModel):
    """A likelihood of one subject that is a Python function; made by `python_model` or `em_ppl.from_pyem`.

    Attributes
    ----------
    function : callable
        The user's function.
    parameters : dict of str to Parameter
        In the order of declaration.
    columns : tuple of str
        The data columns that the function reads.
    gradient : callable or None
        Its derivatives by the parameters.
    """

    gradient: Callable[..., Any] | None = None

    def __repr__(self) -> str:
        return super().__repr__().replace("<subject model", "<Python model")

    def __reduce__(self) -> tuple[Any, ...]:
        return arrives(self, type(self), self.function, self.parameters, self.columns, self.gradient)

    def log_likelihood(self, x: FloatArray, case: Case) -> Any:
        """Log-likelihood of one subject at x, (parameter,), Gaussian space."""
        return self.function(*self._natural(x), *case)

    def slope(self, x: FloatArray, case: Case) -> FloatArray:
        """Gradient of `log_likelihood` by x, from the user's by the natural parameters."""
        assert self.gradient is not None
        natural = np.asarray(self.gradient(*self._natural(x), *case), dtype=float)
        if natural.shape != x.shape:
            raise ModelError(f"{self.name}: its gradient has shape {natural.shape}; it must be {x.shape}.")
        ahead = x[:, None] + STEP * PLACES
        per_x = [p.to_natural(row) @ WEIGHTS for p, row in zip(self.parameters.values(), ahead, strict=True)]
        return natural * np.array(per_x) / STEP

    def _natural(self, x: FloatArray) -> list[float]:
        return [float(p.to_natural(value)) for p, value in zip(self.parameters.values(), x, strict=True)]

    def bind(self, data: xr.Dataset) -> PythonLikelihoods:
        """Take the data: see `SubjectModel.compile`."""
        data = check_dataset(data)
        for name in self.columns:
            require_column(data, name)
        own = data[list(self.columns)]
        inner = max([int(np.prod(v.shape[2:])) for v in own.values() if "trial" in v.dims], default=1)
        n_trials = trial_counts(own) * inner
        everyone = {WHOLE: np.ones(len(n_trials), dtype=bool)}
        return PythonLikelihoods(self, own, Functionless(self.name), Subjects({}, everyone, n_trials))  # type: ignore[arg-type]

    def hierarchical(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Refuse: there is no graph of it."""
        refuse(self.name)

    def trace(self, columns: Any) -> NoReturn:
        """Refuse: there is no graph of it."""
        refuse(self.name)


@dataclass(frozen=True)
class PythonLikelihoods(CompiledModel):
    """`CompiledModel` of a Python function: the same functions, each call of which calls it once or more a subject."""

    model: PythonModel
    _pace: dict[str, float] = field(default_factory=lambda: {"seconds": 0.0, "tasks": 1e-9}, repr=False)

    @property
    def observed(self) -> list[str]:
        """See `CompiledModel`; what is a response is not known."""
        return []

    def with_data(self, data: xr.Dataset) -> CompiledModel:
        """See `CompiledModel`."""
        return self.model.compile(data)

    def take(self, index: Index | slice) -> CompiledModel:
        """See `CompiledModel`."""
        return replace(self, data=self.data.isel(subject=index), subjects=self.subjects.take(index))

    @property
    def _kernel(self) -> None:
        """See `CompiledModel`."""
        return None

    def compile(self, *, value_alone: bool = False) -> None:
        """See `CompiledModel`; here, the function is called once."""
        x = np.array([[p.gaussian_start for p in self.model.parameters.values()]])
        self.value(x, np.array([0]))

    def pointwise_log_likelihood(self, x: ArrayLike) -> dict[str, FloatArray]:
        """See `CompiledModel`; a whole subject is one term."""
        return {WHOLE: self.value(np.asarray(x, dtype=float), np.arange(len(self.cases)))}

    def value(self, x: FloatArray, index: Index) -> FloatArray:
        """See `CompiledModel`."""
        return self._evaluate(_value, x, index)[:, 0]

    def value_and_gradient(self, x: FloatArray, index: Index | None = None) -> tuple[FloatArray, FloatArray]:
        """See `CompiledModel`."""
        found = self._evaluate(_value_and_slope, x, np.arange(len(x)) if index is None else index)
        return found[:, 0], np.ascontiguousarray(found[:, 1:])

    @cached_property
    def cases(self) -> list[Case]:
        """Each subject's data, without padding."""
        columns = [
            (self.data[name].values, "subject" in self.data[name].dims, "trial" in self.data[name].dims)
            for name in self.model.columns
        ]
        return [
            tuple(_own(values, i, int(n), by_subject, by_trial) for values, by_subject, by_trial in columns)
            for i, n in enumerate(trial_counts(self.data))
        ]

    def _evaluate(self, work: Callable[..., FloatArray], x: FloatArray, index: Index) -> FloatArray:
        """Call ``work(model, x, case, label)`` for each row, in processes if it takes its time; (row, ...)."""
        labels = self.data["subject"].values
        tasks = [(row, self.cases[who], labels[who]) for row, who in zip(x, index, strict=True)]
        expected = len(tasks) * self._pace["seconds"] / self._pace["tasks"]
        n = min(cores_in_use(), len(tasks)) if expected > WORTHWHILE else 1
        if n == 1:
            started = time.perf_counter()
            found = _each(work, self.model, tasks)
            self._pace["seconds"] += time.perf_counter() - started
            self._pace["tasks"] += len(tasks)
            return found
        import joblib

        parts = [tasks[edges[0] : edges[-1] + 1] for edges in np.array_split(np.arange(len(tasks)), n)]
        each = joblib.delayed(_each_there)
        return np.concatenate(joblib.Parallel(n_jobs=n)(each(work, self._packed, part) for part in parts))

    @cached_property
    def _packed(self) -> bytes:
        return dumps(self.model)


def _own(values: NDArray[Any], i: int, n: int, by_subject: bool, by_trial: bool) -> Any:
    """One subject's values of a column; text as NumPy makes it of a list."""
    own = values[i] if by_subject else values
    own = own[:n] if by_trial else own
    return np.array(own.tolist()) if own.dtype == object else own


def _each(work: Callable[..., FloatArray], model: PythonModel, tasks: Sequence[tuple[Any, ...]]) -> FloatArray:
    return np.array([work(model, *task) for task in tasks])


def _each_there(work: Callable[..., FloatArray], packed: bytes, tasks: Sequence[tuple[Any, ...]]) -> FloatArray:
    return _each(work, _unpacked(packed), tasks)


@lru_cache(maxsize=4)
def _unpacked(packed: bytes) -> PythonModel:
    model: PythonModel = pickle.loads(packed)
    return model


def _value(model: PythonModel, x: FloatArray, case: Case, label: Any) -> FloatArray:
    return np.array([_call(model, x, case, label)])


def _value_and_slope(model: PythonModel, x: FloatArray, case: Case, label: Any) -> FloatArray:
    value = _call(model, x, case, label)
    if model.gradient is not None:
        return np.concatenate([[value], model.slope(x, case)])
    steps = STEP * np.array([p.spread for p in model.parameters.values()])
    around = [[_call(model, x + place * side, case, label) for place in PLACES] for side in np.diag(steps)]
    return np.concatenate([[value], [_difference(value, row) for row in np.array(around)] / steps])


def _difference(value: float, around: FloatArray) -> float:
    """Change per step; where some of the points are out of range, from those that are not."""
    if np.isfinite(around).all():
        return float(around @ WEIGHTS)
    if not np.isfinite(value):
        return np.nan
    if np.isfinite(around[2]):
        return float(around[2] - value)
    return float(value - around[1]) if np.isfinite(around[1]) else np.nan


def _call(model: PythonModel, x: FloatArray, case: Case, label: Any) -> float:
    own = tuple(part.copy() if isinstance(part, np.ndarray) else part for part in case)  # which a function may change
    try:
        value = model.log_likelihood(x, own)
    except Exception as error:
        error.add_note(f"This came from {model.name!r}, of subject {label_text(label)} at {x} in Gaussian space.")
        raise
    if not np.isscalar(value) and np.ndim(value) != 0:
        raise ModelError(f"{model.name} returned an array of shape {np.shape(value)} for subject {label_text(label)}.")
    try:
        return float(value)
    except TypeError as error:
        raise ModelError(
            f"{model.name} returned {value!r} for subject {label_text(label)}: it must be a number."
        ) from error


class Functionless:
    """Stands where a model's compiled graphs are, and says that there are none."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, attribute: str) -> NoReturn:
        if attribute.startswith("__"):  # copy and pickle ask for some
            raise AttributeError(attribute)
        refuse(self._name)


def refuse(name: str) -> NoReturn:
    """Say what a Python function cannot do."""
    raise ModelError(
        f"{name} is a Python function, of which only the log-likelihood is known. Simulation, prediction, recovery, "
        "leave-one-trial-out and NUTS need the distribution of each response: write the likelihood in PyMC, for "
        "em.subject_model, which is many times faster, too (docs/coming_from_pyem.md)."
    )


# --- how they are made ------------------------------------------------------------------------------------------------


def python_model(
    *, gradient: Callable[..., Any] | None = None, **parameters: Parameter
) -> Callable[[Callable[..., Any]], PythonModel]:
    """Declare the parameters of a Python function that returns a subject's log-likelihood.

    For likelihoods that cannot be written in PyMC, or are written already: with NumPy, numba, JAX, or anything else.
    It is fitted by values alone, or by its own gradient.

    Parameters
    ----------
    gradient : callable, optional
        Of the same arguments: the derivatives of the log-likelihood by the parameters, natural space, in the order of
        their declaration. Left out, differences over four further points for each parameter are taken.
    **parameters : Parameter
        `Real` (with a spread), `Positive`, `Unit` or `Interval`, one for each parameter.

    Returns
    -------
    callable
        A decorator that turns a function of parameters (numbers, natural space) and data columns (arrays of one
        subject's trials, as they are in the data: also with NaN, text, or further dimensions) into a `PythonModel`.

    Raises
    ------
    ModelError
        If the function does not take a declared parameter, has no data column, or a `Real` has no spread.

    Examples
    --------
    >>> import em_ppl as em, numpy as np
    >>> def slope(p, heads):
    ...     return [heads.sum() / p - (1 - heads).sum() / (1 - p)]
    >>> @em.python_model(p=em.Unit(), gradient=slope)
    ... def coin(p, heads):
    ...     return heads.sum() * np.log(p) + (1 - heads).sum() * np.log(1 - p)
    >>> data = em.from_subjects([{"heads": [0, 1, 1]}, {"heads": [0, 0]}, {"heads": [1, 1, 1, 0]}])
    >>> coin.compile(data).log_likelihood(np.zeros((3, 1))).round(3)
    array([-2.079, -1.386, -2.773])
    """

    def decorate(function: Callable[..., Any]) -> PythonModel:
        columns = check_signature(function, parameters)
        order = [*parameters, *columns]
        if list(inspect.signature(function).parameters)[: len(order)] != order:
            raise ModelError(f"{function.__name__} must take its parameters first, in order: ({', '.join(order)}).")
        check_spreads(function.__name__, parameters)
        return PythonModel(function, dict(parameters), columns, gradient=gradient)

    return decorate


def check_spreads(name: str, parameters: Mapping[str, Parameter]) -> None:
    """Raise ModelError where differences would have no scale."""
    for parameter, declared in parameters.items():
        if declared.spread is None:
            raise ModelError(
                f"{name}: the Real parameter {parameter!r} needs a spread, the SD between people that is to be "
                "expected, since differences are taken in steps of a thousandth of it: em.Real(spread=...)."
            )
