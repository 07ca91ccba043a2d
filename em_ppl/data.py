"""Data of many people: a long DataFrame, a list or a mapping of subjects -> one padded `xarray.Dataset`.

The Dataset has dims ``subject`` and ``trial`` (further dims allowed) and a coordinate ``n_trials`` that says how
many trials of each subject are real; what lies beyond is padding, and counts for nothing.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import ArrayLike, NDArray

__all__ = ["from_dataframe", "from_subjects"]

Array = NDArray[Any]

LARGEST = 1e60  # even its fifth power is still a number


def from_dataframe(
    frame: Any,
    subject: str,
    *,
    trial: str | None = None,
    stack: Mapping[str, Sequence[str]] | None = None,
    people: Any = None,
) -> xr.Dataset:
    """Turn a long table, one row a trial, into a Dataset with dims (subject, trial).

    Parameters
    ----------
    frame : DataFrame
        One row per trial. Rows of different subjects may be interleaved; the index is not used. Tables of polars,
        pyarrow and others will do that have a method ``to_pandas``.
    subject : str
        Column that says whose trial it is. Subjects keep the order in which they first appear.
    trial : str, optional
        Column that orders a subject's trials. Left out, rows are in order already.
    stack : mapping of str to sequence of str, optional
        New variables made of several columns side by side, with one more dimension:
        ``stack={"payoff": ["payoff_left", "payoff_right"]}`` gives ``payoff`` (subject, trial, payoff_column).
    people : DataFrame, optional
        What is known of each subject as a whole, such as age or diagnosis: one row a subject, named by a column
        `subject` or by the index. For the ``covariates`` of `fit`.

    Returns
    -------
    Dataset
        Every other column as a variable (subject, trial), those of `people` as (subject), and ``n_trials`` (subject).
        Integers stay integers, bools become 0 and 1; a missing value is NaN. A column called ``trial`` serves for the
        order only.

    Raises
    ------
    TypeError
        If `frame` is not a DataFrame.
    ValueError
        If there are no rows, a column is absent or occurs twice, column names have several levels, a subject is missing
        (in `people`, too), or the trial order is missing or repeated within a subject.

    Examples
    --------
    >>> import em_ppl as em, pandas as pd
    >>> trials = pd.DataFrame({"who": ["ann", "ann", "bo"], "choice": [0, 1, 1]})
    >>> data = em.from_dataframe(trials, subject="who")
    >>> data.n_trials.values
    array([2, 1])
    """
    frame = _as_pandas(frame, "from_dataframe needs")
    if not isinstance(subject, str) and subject not in list(frame.columns):
        raise TypeError(f"subject={subject!r} must be the name of one column.")
    stack = dict(stack or {})
    for name, parts in stack.items():
        if isinstance(parts, str):
            raise ValueError(f"stack: {name!r} needs a list of columns, not {parts!r}.")
    stacked = [column for columns in stack.values() for column in columns]
    _check_columns(frame, [subject, *([trial] if trial else []), *stacked])
    _refuse_missing(frame, subject, "Every row needs a subject.")
    if trial is not None:
        frame = _in_order(frame, subject, trial)

    codes, labels = pd.factorize(frame[subject], sort=False)
    plain = [column for column in frame.columns if column not in {subject, "trial", *stacked}]
    columns = {str(name): _as_array(frame[name]) for name in plain}
    for name, parts in stack.items():
        if name in columns:
            raise ValueError(f"stack makes a variable {name!r}, but there is a column of that name already.")
        columns[name] = np.column_stack([_as_array(frame[part]) for part in parts])

    rows = np.argsort(codes, kind="stable")
    edges = np.searchsorted(codes[rows], np.arange(len(labels) + 1))
    own = [{name: values[rows[a:b]] for name, values in columns.items()} for a, b in pairwise(edges)]
    data = _assemble(list(labels), own)
    for name, parts in stack.items():
        data = data.rename({f"{name}_dim_0": f"{name}_column"}).assign_coords({f"{name}_column": list(parts)})
    return data if people is None else data.assign(_of_people(people, subject, data))


def from_subjects(
    people: Mapping[Hashable, Any] | Iterable[Any],
    *,
    columns: Sequence[str] | None = None,
    subjects: Sequence[Hashable] | None = None,
) -> xr.Dataset:
    """Turn one entry per subject, pyEM's form among them, into a Dataset with dims (subject, trial).

    Parameters
    ----------
    people : mapping or iterable
        One entry a subject: a DataFrame, a mapping of column to array, or (as pyEM has it) a sequence of
        arrays, named by `columns`. Arrays are (trial, ...); a single number belongs to the subject as a whole.
        A mapping's keys are the subjects' labels.
    columns : sequence of str, optional
        Names of the arrays, needed where an entry is a bare sequence of arrays.
    subjects : sequence, optional
        Labels of the subjects, where `people` is no mapping; 0, 1, 2, ... if left out.

    Returns
    -------
    Dataset
        As from `from_dataframe`; an array (trial, a) becomes a variable (subject, trial, name_dim_0).

    Raises
    ------
    TypeError
        If `people` is one table: `from_dataframe` takes those.
    ValueError
        If there are no subjects, labels repeat, a subject has no trials, lacks a column, or has columns of
        different lengths, or subjects' arrays differ in their further dimensions.

    Examples
    --------
    >>> import em_ppl as em
    >>> pyem_data = [[[0, 1, 1], [1.0, 0.0, 1.0]], [[1, 0], [0.0, 0.0]]]
    >>> em.from_subjects(pyem_data, columns=["choice", "reward"]).sizes["trial"]
    3
    """
    if _is_table(people):
        raise TypeError("from_subjects needs one entry a subject; one table of all is for em.from_dataframe.")
    if columns is not None and len(set(columns)) < len(columns):
        raise ValueError(f"columns names {_first_repeated(columns)!r} twice.")
    if isinstance(people, Mapping):
        if subjects is not None:
            raise ValueError("the keys of a mapping are the subjects' labels: leave subjects=... out.")
        subjects, people = list(people), people.values()
    entries = list(people)
    labels = list(range(len(entries))) if subjects is None else list(subjects)
    if len(labels) != len(entries):
        raise ValueError(f"{len(labels)} subject labels for {len(entries)} subjects.")
    named = [_named_columns(entry, columns, label) for entry, label in zip(entries, labels, strict=True)]
    return _assemble(labels, named)


def _is_table(table: Any) -> bool:
    return isinstance(table, pd.DataFrame) or hasattr(table, "to_pandas")


def _as_pandas(table: Any, who: str) -> pd.DataFrame:
    """Take pandas' tables, and those that know the way there."""
    frame = table.to_pandas() if _is_table(table) and not isinstance(table, pd.DataFrame) else table
    if not isinstance(frame, pd.DataFrame):
        raise TypeError(
            f"{who} a pandas DataFrame, not {type(table).__name__}; a table of polars, pyarrow and others will do that "
            "has a method to_pandas (a lazy one: collect it first)."
        )
    return frame


def _of_people(people: Any, subject: str, data: xr.Dataset) -> dict[str, tuple[str, Array]]:
    """Bring a table with one row a subject into the order of the data's subjects."""
    people = _as_pandas(people, "people must be")
    _check_names_of_columns(people)
    table = people.set_index(subject) if subject in people.columns else people
    labels = data["subject"].values
    twice = table.index[table.index.duplicated()]
    if len(twice):
        raise ValueError(f"people has several rows for subject {label_text(twice[0])}: it needs one.")
    missing = [label for label in labels if label not in table.index]
    if missing:
        raise ValueError(
            f"people has no row for subject {label_text(missing[0])} ({len(missing)} in all): it names its rows by a "
            f"column {subject!r}, or by the index."
        )
    both = [str(name) for name in table.columns if str(name) in data.variables]
    if both:
        raise ValueError(f"people and the trials both have a column {both[0]!r}: rename or drop one.")
    table = table.loc[list(labels)]
    return {str(name): ("subject", _as_array(table[name])) for name in table.columns}


def _check_names_of_columns(frame: pd.DataFrame) -> None:
    if frame.columns.nlevels > 1:
        raise ValueError(
            f"the table's columns have names of {frame.columns.nlevels} levels, such as {frame.columns[0]}: give each "
            'one name, as in frame.columns = ["_".join(levels) for levels in frame.columns].'
        )
    names = [str(name) for name in frame.columns]  # 1 and "1" would be one variable
    if len(set(names)) < len(names):
        raise ValueError(f"column {_first_repeated(names)!r} occurs twice: rename or drop one.")


def _check_columns(frame: pd.DataFrame, needed: Iterable[str]) -> None:
    _check_names_of_columns(frame)
    for column in needed:
        if column not in frame.columns:
            raise ValueError(f"no column {column!r} in the table; it has {', '.join(map(str, frame.columns))}.")
    if frame.empty:
        raise ValueError("the table has no rows: there is no one to fit.")


def _refuse_missing(frame: pd.DataFrame, column: str, advice: str) -> None:
    missing = np.flatnonzero(frame[column].isna())
    if len(missing):
        raise ValueError(f"column {column!r} is missing in row {missing[0]} ({len(missing)} in all). {advice}")


def _in_order(frame: pd.DataFrame, subject: str, trial: str) -> pd.DataFrame:
    _refuse_missing(frame, trial, "Every row needs its place in the order of trials.")
    twice = frame[frame.duplicated([subject, trial])]
    if len(twice):
        first = f"trial {label_text(twice[trial].iloc[0])} of subject {label_text(twice[subject].iloc[0])}"
        raise ValueError(
            f"{first} occurs more than once in column {trial!r} ({len(twice)} such rows): "
            "several sessions need a column that counts on."
        )
    return frame.sort_values(trial, kind="stable")


def _as_array(column: pd.Series | ArrayLike) -> Array:
    """Numbers as int64 or float64 (missing: NaN), all else as objects."""
    if np.ndim(column) != 1:  # type: ignore[arg-type]
        values = np.asarray(column)
    else:
        series, numbers = pd.Series(column), _as_numbers(pd.Series(column))
        if not pd.api.types.is_numeric_dtype(numbers.dtype):
            return np.asarray(series.to_numpy(dtype=object))
        values = numbers.to_numpy(dtype=float, na_value=np.nan) if numbers.hasnans else numbers.to_numpy()
    if values.dtype.kind == "u" and values.size and values.max() > np.iinfo(np.int64).max:
        return values.astype(np.float64)
    if values.dtype.kind in "biu":
        return values.astype(np.int64)
    return values.astype(np.float64) if values.dtype.kind == "f" else values.astype(object)


def _as_numbers(series: pd.Series) -> pd.Series:
    """See whether objects, categories or arrow's values are numbers, some of them missing perhaps (None, pd.NA)."""
    if series.dtype != object and not isinstance(series.dtype, pd.CategoricalDtype | pd.ArrowDtype):
        return series
    series = series.astype(object)
    series = series.where(series.notna(), np.nan).infer_objects()
    return series.convert_dtypes() if series.dtype == object else series  # bools, some of them missing


def _named_columns(entry: Any, columns: Sequence[str] | None, label: Hashable) -> dict[str, Array]:
    if _is_table(entry):
        frame = _as_pandas(entry, f"subject {label!r} needs")
        _check_names_of_columns(frame)
        entry = {str(name): frame[name] for name in frame.columns}
    if not isinstance(entry, Mapping):
        if columns is None:
            raise ValueError(
                f"subject {label!r} is a bare {type(entry).__name__}: name its arrays, as in "
                'columns=["choice", "reward"].'
            )
        if len(entry) != len(columns):
            raise ValueError(f"subject {label!r} has {len(entry)} arrays, but there are {len(columns)} columns.")
        entry = dict(zip(columns, entry, strict=True))
    arrays = {}
    for name, values in entry.items():
        try:
            arrays[str(name)] = _as_array(values)
        except ValueError as error:
            raise ValueError(f"{name!r} of subject {label!r} is no array of trials: {error}") from error
    return arrays


def _assemble(labels: list[Any], people: list[dict[str, Array]]) -> xr.Dataset:
    """Pad every column to the longest subject, and stack subjects."""
    if not people:
        raise ValueError("there are no subjects.")
    nameless = [place for place, label in enumerate(labels) if label is None or label is pd.NA or label != label]
    if nameless:
        raise ValueError(f"the label of subject number {nameless[0]} is missing: every subject needs one.")
    if len(set(labels)) < len(labels):
        raise ValueError(f"subject {_first_repeated(labels)!r} occurs twice: labels must be unique.")
    _check_names(labels, people)
    lengths = np.array([_n_trials(p, label) for p, label in zip(people, labels, strict=True)])
    variables = {name: _pad(name, [p[name] for p in people], labels, int(lengths.max())) for name in people[0]}
    coords = {"subject": label_array(labels), "trial": np.arange(lengths.max()), "n_trials": ("subject", lengths)}
    return xr.Dataset(variables, coords=coords)


def _first_repeated(items: Sequence[Any]) -> Any:
    return next(item for i, item in enumerate(items) if item in items[:i])


def _check_names(labels: list[Any], people: list[dict[str, Array]]) -> None:
    """All subjects have the same columns, and each column is for all either by trial or a single value."""
    first = people[0]
    for name in ("subject", "n_trials"):
        if name in first:
            raise ValueError(f"the column name {name!r} is taken by the Dataset's own: rename the column.")
    for label, person in zip(labels, people, strict=True):
        if set(person) != set(first):
            odd = sorted(set(person) ^ set(first))
            raise ValueError(f"subject {label!r} and subject {labels[0]!r} do not have the same columns: {odd}.")
        for name, values in person.items():
            if (values.ndim == 0) != (first[name].ndim == 0):
                one, other = (label, labels[0]) if values.ndim == 0 else (labels[0], label)
                raise ValueError(
                    f"{name!r} is a single value for subject {one!r}, but an array over trials for subject {other!r}."
                )


def _n_trials(person: Mapping[str, Array], label: Hashable) -> int:
    lengths = {name: len(values) for name, values in person.items() if values.ndim}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"subject {label!r} has columns of different lengths: {lengths}.")
    n = next(iter(lengths.values()), 0)
    if n == 0:
        raise ValueError(f"subject {label!r} has no trials: leave it out, or give its trials missing responses.")
    return n


def _pad(name: str, arrays: list[Array], labels: list[Any], n_trials: int) -> tuple[tuple[str, ...], Array]:
    shapes = [a.shape[1:] if a.ndim else None for a in arrays]
    for label, shape in zip(labels, shapes, strict=True):
        if shape != shapes[0]:
            raise ValueError(
                f"{name!r} of subject {label!r} has shape {shape} a trial, that of {labels[0]!r} {shapes[0]}: "
                "further dimensions must agree."
            )
    dtype = np.result_type(*arrays)
    if shapes[0] is None:
        return ("subject",), np.stack(arrays).astype(dtype)
    fill = {"i": 0, "f": np.nan}.get(dtype.kind)
    padded = np.full((len(arrays), n_trials, *shapes[0]), fill, dtype=dtype)
    for row, values in zip(padded, arrays, strict=True):
        row[: len(values)] = values
    return ("subject", "trial", *(f"{name}_dim_{i}" for i in range(len(shapes[0])))), padded


def label_array(labels: Sequence[Any]) -> Array:
    """Labels of any hashable type as a one-dimensional array; tuples stay tuples."""
    plain = all(isinstance(label, str) for label in labels) or all(
        isinstance(label, int | float | np.number) and not isinstance(label, bool) for label in labels
    )
    if plain:
        return np.asarray(labels)
    array = np.empty(len(labels), dtype=object)
    array[:] = labels
    return array


def label_places(labels: ArrayLike | pd.Index) -> NDArray[np.intp]:
    """Return each label's place among all that are sorted; those that may be of any type are sorted as text."""
    index = pd.Index(labels, tupleize_cols=False)
    return pd.factorize(index.astype(str) if index.dtype == object else index, sort=True)[0]


# --- what a model reads of a Dataset -----------------------------------------------------------------------------


def check_dataset(data: Any) -> xr.Dataset:
    """Check a ready Dataset, and put its dims in order: subject, trial, others."""
    if not isinstance(data, xr.Dataset):
        raise TypeError(
            f"data is a {type(data).__name__}, not an xarray.Dataset: "
            "make one by em.from_dataframe or em.from_subjects."
        )
    if "subject" not in data.dims:
        raise ValueError(f"data has dims {', '.join(map(str, data.dims))}, but no dim 'subject'.")
    if data.sizes["subject"] == 0:
        raise ValueError("there are no subjects.")
    if "subject" not in data.coords:
        data = data.assign_coords(subject=np.arange(data.sizes["subject"]))
    if "n_trials" in data.data_vars:
        data = data.set_coords("n_trials")
    index = data.indexes["subject"]
    if not index.is_unique:
        raise ValueError(f"subject {index[index.duplicated()][0]!r} occurs twice: labels must be unique.")
    if "n_trials" in data.coords and data["n_trials"].dims != ("subject",):
        raise ValueError(f"n_trials has dims {data['n_trials'].dims}: it must have one number per subject.")
    n_trials, most = trial_counts(data), data.sizes.get("trial", 1)
    for i in np.flatnonzero((n_trials < 1) | (n_trials > most)):
        label = label_text(data["subject"].values[i])
        raise ValueError(f"subject {label} has n_trials={n_trials[i]}: it must lie in 1 ... {most}.")
    for name, variable in data.data_vars.items():
        if "trial" in variable.dims and "subject" not in variable.dims:
            raise ValueError(f"column {name!r} has a dim 'trial' but no dim 'subject': broadcast it over subjects.")
    return data.transpose("subject", "trial", ..., missing_dims="ignore")


def trial_counts(data: xr.Dataset) -> NDArray[np.int64]:
    """Return each subject's number of trials, (subject,)."""
    if "n_trials" in data:
        counts = np.asarray(data["n_trials"].values)
        if counts.dtype.kind not in "iuf" or (counts % 1 != 0).any():
            raise ValueError(f"n_trials counts trials, in whole numbers; it holds {counts.tolist()}.")
        return counts.astype(np.int64)
    return np.full(data.sizes["subject"], data.sizes.get("trial", 1), dtype=np.int64)


def real_trials(data: xr.Dataset) -> NDArray[np.bool_]:
    """Return which trials are no padding, (subject, trial)."""
    return np.arange(data.sizes.get("trial", 1)) < trial_counts(data)[:, None]


class Seen(NamedTuple):
    """What a column holds over all subjects, which decides how it is read: a part of them may not show it."""

    value: Array  # one that is present, (...)
    gaps: bool  # whether a trial that is no padding has none
    whole: bool  # whether all are whole numbers, of a size that PyMC holds

    @classmethod
    def all_of(cls, parts: Sequence[Seen]) -> Seen | None:
        """Put together what parts of the subjects show; None if there is no value at all."""
        shown = [part for part in parts if part.value.size]
        if not shown:
            return None
        return cls(shown[0].value, any(part.gaps for part in parts), all(part.whole for part in shown))


def look_at(data: xr.Dataset, name: str) -> Seen:
    """See what a column, or some subjects' part of it, holds; raises what `read_column` raises, but for no value."""
    values, real, present = _cells(data, name)
    known = values[present]
    whole = bool((known % 1 == 0).all()) and not _is_long(known)
    return Seen(known[0] if len(known) else known, bool((real & ~present).any()), whole)


def read_column(data: xr.Dataset, name: str, seen: Seen | None = None) -> tuple[Array, NDArray[np.bool_]]:
    """Read one column for a model: no NaN left in it, and where a value is present.

    Padding and missing values take the value of a present one, so that a likelihood is never asked about a value
    that cannot occur. `em_ppl.compiled` checks that it does not matter which.

    Parameters
    ----------
    data : Dataset
        Checked by `check_dataset`.
    name : str
        A data variable.
    seen : Seen, optional
        What all subjects' column holds, where these are some of them.

    Returns
    -------
    values : ndarray
        (subject, trial, ...), (subject, ...) or, shared by all, (...); int64 or float64.
    present : ndarray
        (subject, trial) or (subject,) or (), False where the value is missing or padding.

    Raises
    ------
    ValueError
        If the column is absent, is no number, or has no value at all.
    """
    values, _, present = _cells(data, name)
    if present.all() and seen is None:
        return values, present
    seen = seen or Seen.all_of([look_at(data, name)])
    if seen is None:
        raise ValueError(f"column {name!r} has no value at all: there is nothing to fit.")
    return _fill(values, present, seen), present


def require_column(data: xr.Dataset, name: str) -> None:
    """Raise if a model reads a column that there is not."""
    if name not in data:
        known = ", ".join(str(v) for v in data.data_vars)
        raise ValueError(f"the model reads a column {name!r} that the data do not have; they have {known}.")


def _cells(data: xr.Dataset, name: str) -> tuple[Array, NDArray[np.bool_], NDArray[np.bool_]]:
    """Return a column's values, which cells are no padding, and which have a value."""
    require_column(data, name)
    variable = data[name]
    values = np.asarray(variable.values)
    real = _real_cells(data, variable)
    if values.dtype.kind not in "biuf":
        _refuse_objects(data, variable, widen(real, values.ndim))
    as_float = values.dtype.kind == "f" or _is_long(values)
    values = values.astype(np.float64 if as_float else np.int64)
    return values, real, real & ~np.isnan(values).any(axis=tuple(range(real.ndim, values.ndim)))


def _is_long(values: Array) -> bool:
    """Whether there are integers beyond 32 bits, of which PyMC would drop the rest: they are read as floats."""
    return bool(values.size) and bool(max(abs(float(values.min())), abs(float(values.max()))) > np.iinfo(np.int32).max)


def _refuse_objects(data: xr.Dataset, variable: xr.DataArray, real: NDArray[np.bool_]) -> None:
    """Raise, and show the first that is no number."""
    values, first = variable.values, ""
    for place in map(tuple, np.argwhere(np.broadcast_to(real, values.shape))):
        if not _is_number(values[place]):
            first = f" (the first is {label_text(values[place])} at {_place(data, variable, place)})"
            break
    raise ValueError(
        f"column {variable.name!r} holds {values.dtype} values, not numbers{first}: code it as integers first, or as "
        "NaN where it is missing."
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, np.timedelta64)


def _refuse_huge(data: xr.Dataset, variable: xr.DataArray, real: NDArray[np.bool_]) -> None:
    """Raise if a column has numbers whose products no float holds."""
    values = variable.values
    if values.size and max(abs(float(values.min())), abs(float(values.max()))) <= LARGEST:  # which no NaN is
        return
    huge = np.isfinite(values) & (np.abs(values.astype(float)) > LARGEST) & real
    if huge.any():
        at = tuple(np.argwhere(huge)[0])
        raise ValueError(
            f"column {variable.name!r} is {values[at]:.3g} at {_place(data, variable, at)} "
            f"({int(huge.sum())} in all): computing with numbers beyond {LARGEST:.0e} overflows. If it stands for a "
            "missing value, make it NaN; else take a larger unit."
        )


def refuse_missing(data: xr.Dataset, name: str) -> None:
    """Raise if a column that must be complete has a missing or infinite value, or one too large to compute with."""
    variable, real = data[name], _real_cells(data, data[name])
    _refuse_huge(data, variable, widen(real, variable.ndim))
    bad = ~np.isfinite(variable.values) & widen(real, variable.ndim)
    if not bad.any():
        return
    where = _place(data, variable, tuple(np.argwhere(bad)[0]))
    raise ValueError(
        f"column {name!r} is missing or infinite at {where} ({int(bad.sum())} in all). "
        "Only a column that the likelihood observes may have missing values: fill it in, or leave the trial out. "
        "(In a Dataset of your own, a coordinate n_trials per subject marks where padding begins.)"
    )


def check_responses(data: xr.Dataset, name: str) -> None:
    """Raise if an observed column has an infinite or huge value, or misses a part of a trial's values."""
    variable, real = data[name], _real_cells(data, data[name])
    _refuse_huge(data, variable, widen(real, variable.ndim))
    infinite = np.isinf(variable.values) & widen(real, variable.ndim)
    if infinite.any():
        where = _place(data, variable, tuple(np.argwhere(infinite)[0]))
        raise ValueError(
            f"column {name!r} is infinite at {where} ({int(infinite.sum())} in all). "
            "If it stands for a missing response, make it NaN."
        )
    missing = np.isnan(variable.values)
    part = missing & ~missing.all(axis=tuple(range(real.ndim, missing.ndim)), keepdims=True)
    if part.any():
        inner, place = variable.dims[real.ndim], tuple(np.argwhere(part)[0])
        raise ValueError(
            f"column {name!r} is missing for a part of {inner!r} at {_place(data, variable, place)}: a response is "
            f"missing whole or not at all. (If {inner!r} counts trials, call it 'trial'.)"
        )


def _place(data: xr.Dataset, variable: xr.DataArray, index: tuple[int, ...]) -> str:
    """Say which cell of a variable it is, by labels where there are some."""
    parts = [
        f"{dim} {label_text(data[dim].values[i]) if dim in data.coords else i}"
        for dim, i in zip(variable.dims, index, strict=False)
    ]
    return ", ".join(parts) or "its only value"


def _real_cells(data: xr.Dataset, variable: xr.DataArray) -> NDArray[np.bool_]:
    """Return which cells are no padding: (subject, trial), (subject,) or ()."""
    if "trial" in variable.dims and "subject" in variable.dims:
        return real_trials(data)
    return np.ones(data.sizes["subject"] if "subject" in variable.dims else (), dtype=bool)


def _fill(values: Array, present: NDArray[np.bool_], seen: Seen) -> Array:
    """Replace padding and missing responses by the subject's first present one (or, failing that, anyone's)."""
    stand_in = seen.value
    if present.ndim == 2:
        first = values[np.arange(len(values)), present.argmax(1)]
        stand_in = np.where(widen(present.any(1), first.ndim), first, seen.value)[:, None]
    filled = np.where(widen(present, values.ndim), values, stand_in)
    # an integer column with missing values reaches us as floats
    return filled.astype(np.int64) if seen.gaps and seen.whole else filled


def inner_dims(name: str, n: int) -> tuple[str, ...]:
    """Name n dimensions of a variable that nobody has named, as PyMC and ArviZ would."""
    return tuple(f"{name}_dim_{k}" for k in range(n))


def widen(mask: NDArray[np.bool_], ndim: int) -> NDArray[np.bool_]:
    """Append dimensions of length 1."""
    return mask.reshape(mask.shape + (1,) * (ndim - mask.ndim))


def label_text(label: Any) -> str:
    """Write a label as a person would write it (numpy scalars unwrapped)."""
    return repr(label.item() if isinstance(label, np.generic) else label)
