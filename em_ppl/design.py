"""Covariates: who is expected where, and which covariance is whose.

A formula such as ``~ age + diagnosis`` becomes a design matrix with one row a subject; the group mean of a parameter is
then a regression on it, in Gaussian space.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pandas as pd
import xarray as xr

from em_ppl.data import label_array, label_places, label_text, real_trials
from em_ppl.distributions import Distribution
from em_ppl.formulas import MEAN_ONLY, variables
from em_ppl.group import FloatArray, GroupModel, GroupPrior, HyperPrior, Index, Structure
from em_ppl.parameters import Parameter

if TYPE_CHECKING:
    from formulaic import ModelSpec  # imported where a formula is read: it takes as long as the rest of em_ppl


class MeanOnly:
    """What formulaic makes of ``~ 1``, for those who have no covariates and need not wait for its import."""

    column_names = ("Intercept",)
    term_indices: ClassVar[Mapping[str, list[int]]] = {"1": [0]}


@dataclass(frozen=True)
class Design:
    """The covariates of all subjects, and the formulas that read them.

    Attributes
    ----------
    formulas : dict of str to str
        One for each varying parameter.
    by : str or None
        The covariate whose values have a covariance each.
    people : DataFrame
        The covariates, one row a subject.
    """

    formulas: dict[str, str]
    by: str | None
    people: pd.DataFrame

    @cached_property
    def specs(self) -> dict[str, ModelSpec | MeanOnly]:
        """What turns covariates into columns, by parameter."""
        specs: dict[str, ModelSpec | MeanOnly] = {}
        for name, formula in self.formulas.items():
            variables(formula, self.people)  # which checks it, wherever it comes from
            specs[name] = MeanOnly() if formula == MEAN_ONLY else _columns(formula, self.people).model_spec
        return specs

    @property
    def has_covariates(self) -> bool:
        """Whether any mean depends on a covariate."""
        return any(list(spec.column_names) != ["Intercept"] for spec in self.specs.values())

    @cached_property
    def coefficients(self) -> list[tuple[str, str, str]]:
        """Parameter, term and column of each coefficient."""
        return [
            (name, str(term), spec.column_names[i])
            for name, spec in self.specs.items()
            for term, places in spec.term_indices.items()
            for i in places
        ]

    @cached_property
    def labels(self) -> list[str]:
        """Names of the coefficients: the parameter's own, if its mean depends on nothing."""
        alone = {name for name, spec in self.specs.items() if list(spec.column_names) == ["Intercept"]}
        return [name if name in alone else f"{name}: {column}" for name, _, column in self.coefficients]

    @cached_property
    def levels(self) -> list[Any]:
        """Values of `by`, one covariance each."""
        return [] if self.by is None else list(pd.unique(self.people[self.by].sort_values()))

    def matrix(self, people: pd.DataFrame | None = None) -> FloatArray:
        """Return X, (subject, parameter, coefficient), of these subjects or of new ones."""
        people = self.people if people is None else self._check_new(people)
        blocks = [_columns(spec, people).to_numpy(dtype=float) for spec in self.specs.values()]
        x = np.zeros((len(people), len(blocks), sum(block.shape[1] for block in blocks)))
        edge = 0
        for parameter, block in enumerate(blocks):
            x[:, parameter, edge : edge + block.shape[1]] = block
            edge += block.shape[1]
        return x

    def level(self, people: pd.DataFrame | None = None) -> Index:
        """Return which covariance is whose, (subject,)."""
        people = self.people if people is None else self._check_new(people)
        if self.by is None:
            return np.zeros(len(people), dtype=np.intp)
        unknown = [value for value in people[self.by] if value not in self.levels]
        if unknown:
            raise ValueError(f"{self.by}={label_text(unknown[0])} is none of the fit's: {self.levels}.")
        return np.array([self.levels.index(value) for value in people[self.by]], dtype=np.intp)

    def _check_new(self, people: pd.DataFrame) -> pd.DataFrame:
        """Make sure that new people have every covariate."""
        for name in self.people.columns:
            if name not in people.columns:
                raise ValueError(f"the new people have no column {name!r}; they have {', '.join(people.columns)}.")
            missing = people[name].isna()
            if missing.any():
                raise ValueError(f"covariate {name!r} is missing for person {label_text(missing.idxmax())}.")
        return people


def make_design(
    data: xr.Dataset,
    varying: Sequence[str],
    covariates: str | Mapping[str, str] | None,
    covariance_by: str | None,
) -> Design:
    """Read formulas and covariates, and check that they determine what they should."""
    formulas = _formulas(varying, covariates)
    columns = [str(name) for name in data.variables]
    needed = {name for formula in formulas.values() for name in variables(formula, columns)}
    if covariance_by is not None:
        if not isinstance(covariance_by, str):
            raise TypeError(f"covariance_by={covariance_by!r} must be the name of one covariate.")
        needed.add(covariance_by)
    covariates_read = {name: _of_subjects(data, name) for name in sorted(needed)}
    design = Design(formulas, covariance_by, people_table(covariates_read, data["subject"].values))
    _check_columns(design)
    for value, n in zip(design.levels, np.bincount(design.level()), strict=False):
        if n < 2:
            raise ValueError(
                f"covariance_by={covariance_by!r}: {label_text(value)} is one subject only, which has no covariance. "
                "Merge classes, or leave covariance_by out."
            )
    return design


def people_table(columns: Mapping[str, Any], labels: Any) -> pd.DataFrame:
    """Put covariates into a table with one row a subject."""
    index = pd.Index(label_array(list(labels)), name="subject", tupleize_cols=False)
    return pd.DataFrame(dict(columns), index=index)


def make_group_model(
    design: Design,
    parameters: Mapping[str, Parameter],
    unit: FloatArray,
    structure: Structure,
    distribution: Distribution,
    prior: GroupPrior | HyperPrior | None,
) -> GroupModel:
    """Put together what a group can be."""
    declared = list(parameters.values())
    is_shared = np.array([parameter.shared for parameter in declared])
    return GroupModel(
        design=design.matrix(),
        level=design.level(),
        structure=structure,
        distribution=distribution,
        prior=prior,
        varying=np.flatnonzero(~is_shared),
        shared=np.flatnonzero(is_shared),
        unit=unit,
        centre=np.array([parameter.gaussian_start for parameter in declared]),
        spread=np.array([np.inf if parameter.spread is None else parameter.spread for parameter in declared]),
        place=label_places(design.people.index),
    )


def _formulas(varying: Sequence[str], covariates: str | Mapping[str, str] | None) -> dict[str, str]:
    if isinstance(covariates, Mapping):
        unknown = [name for name in covariates if name not in varying]
        if unknown:
            raise ValueError(
                f"covariates has a formula for {unknown[0]!r}; parameters that vary are {', '.join(varying)}."
            )
        chosen = {name: covariates.get(name, MEAN_ONLY) for name in varying}
    else:
        chosen = dict.fromkeys(varying, MEAN_ONLY if covariates is None else covariates)
    for formula in chosen.values():
        if not isinstance(formula, str) or not formula.strip().startswith("~"):
            raise ValueError(
                f"covariates: {formula!r} is no formula of covariates, such as '~ age + diagnosis', nor one formula "
                "for each parameter."
            )
    return chosen


def _of_subjects(data: xr.Dataset, name: str) -> Any:
    """Return one value a subject, from a column by subject or one that is the same in all of a subject's trials."""
    if name not in data:
        known = ", ".join(str(v) for v in data.data_vars)
        raise ValueError(f"covariate {name!r} is not in the data, which have {known}.")
    variable, labels = data[name], data["subject"].values
    if variable.dims not in (("subject",), ("subject", "trial")):
        raise ValueError(f"covariate {name!r} has dims {variable.dims}: it must have one value a subject.")
    values = variable.values
    if values.ndim == 2:
        first = values[:, :1]
        differs = ((values != first) & ~(pd.isna(values) & pd.isna(first)) & real_trials(data)).any(1)
        if differs.any():
            raise ValueError(
                f"covariate {name!r} differs between trials of subject {label_text(labels[differs.argmax()])}: "
                "a covariate has one value a subject."
            )
        values = values[:, 0]
    missing = pd.isna(values) | (np.isinf(values) if values.dtype.kind == "f" else False)
    if missing.any():
        raise ValueError(
            f"covariate {name!r} is missing or infinite for subject {label_text(labels[missing.argmax()])} "
            f"({int(missing.sum())} in all): fill it in, or leave the subject out."
        )
    return values


def _columns(formula: str | ModelSpec | MeanOnly, people: pd.DataFrame) -> Any:
    """Return the columns of one formula; a category that the fit has not seen is an error."""
    if formula == MEAN_ONLY or isinstance(formula, MeanOnly):
        return pd.DataFrame(1.0, people.index, list(MeanOnly.column_names))
    from formulaic import model_matrix
    from formulaic.errors import DataMismatchWarning, FormulaicError

    with warnings.catch_warnings():
        warnings.filterwarnings("error", category=DataMismatchWarning)
        try:
            return model_matrix(formula, people, na_action="raise")
        except DataMismatchWarning as error:
            raise ValueError(f"the new people have a category that the fit has not seen: {error}") from error
        except (FormulaicError, ValueError) as error:
            raise ValueError(f"covariates: {formula} cannot be evaluated: {str(error).splitlines()[0]}") from error


def _check_columns(design: Design) -> None:
    for name, formula in design.formulas.items():
        block = _columns(formula, design.people)
        if block.shape[1] == 0:
            raise ValueError(f"covariates: {formula!r} leaves the mean of {name!r} no coefficient; '~ 1' is the least.")
        if np.linalg.matrix_rank(block.to_numpy(dtype=float)) < block.shape[1]:
            raise ValueError(
                f"covariates: the columns of {formula!r} ({', '.join(block.columns)}) do not determine one another's "
                f"coefficients over these {len(block)} subjects: one is a combination of the others. Drop one."
            )
