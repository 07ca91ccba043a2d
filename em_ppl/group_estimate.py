"""The group that a fit found: labelled, with standard errors, intervals and tests."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
import scipy
import xarray as xr

from em_ppl.design import Design
from em_ppl.group import FloatArray, Group
from em_ppl.parameters import Parameter

__all__ = ["GroupEstimate", "WaldTest"]

NODES, NODE_WEIGHTS = np.polynomial.hermite_e.hermegauss(61)


@dataclass(frozen=True)
class WaldTest:
    """A joint test that some coefficients are 0.

    Attributes
    ----------
    coefficients : tuple of str
        What was tested.
    chi2 : float
        b' Cov(b)^-1 b.
    df : int
        Degrees of freedom: the number of coefficients.
    p : float
        Upper tail of the chi-squared distribution.
    """

    coefficients: tuple[str, ...]
    chi2: float
    df: int
    p: float

    def __repr__(self) -> str:
        return f"Wald test of {', '.join(self.coefficients)}: chi2({self.df}) = {self.chi2:.3f}, p = {self.p:.3g}"


@dataclass(frozen=True, repr=False)
class GroupEstimate:
    """The group that a fit found, Gaussian space unless said otherwise.

    Standard errors come from the observed information of the marginal likelihood (see `em_ppl.uncertainty`); that of a
    function of the group by the delta method. They are NaN for what the data do not determine, such as an SD of 0.

    Attributes
    ----------
    plain : Group
        The numbers as the algorithm has them.
    design : Design
        Covariates and formulas.
    parameters : dict of str to Parameter
        All that the model declares, in order.
    free_covariance : DataArray
        (free, free_2), sampling covariance of `free`: the inverse observed information.
    """

    plain: Group
    design: Design
    parameters: dict[str, Parameter]
    free_covariance: xr.DataArray

    @property
    def varying(self) -> list[str]:
        """Names of the parameters that differ between subjects."""
        return [name for name, parameter in self.parameters.items() if not parameter.shared]

    @property
    def shared_names(self) -> list[str]:
        """Names of the parameters that are the same for all."""
        return [name for name, parameter in self.parameters.items() if parameter.shared]

    @property
    def mean(self) -> xr.DataArray:
        """Mean, (parameter,); with covariates, of the subjects at hand."""
        return self._by_parameter(_mean(self.plain))

    @property
    def mean_se(self) -> xr.DataArray:
        """Standard error of the mean, (parameter,); the uncertainty of the covariance is part of it."""
        slopes = np.zeros((len(self.free_covariance), len(self.varying)))
        slopes[: len(self.plain.coefficients)] = self.plain.model.design.mean(0).T
        return self._by_parameter(self._errors_by(slopes))

    @property
    def covariance(self) -> xr.DataArray:
        """Covariance over subjects, (parameter, parameter_2); with `covariance_by`, a leading dim of that name.

        A scale matrix, if the group's distribution has heavy tails.
        """
        return self._by_pair(self.plain.covariances)

    @property
    def sd(self) -> xr.DataArray:
        """Standard deviation (with heavy tails: scale) over subjects, (parameter,), or by class."""
        return self._by_parameter(self.plain.sd)

    @property
    def sd_se(self) -> xr.DataArray:
        """Standard error of `sd`."""
        return self._by_parameter(self._errors(_sd).reshape(self.plain.sd.shape))

    @property
    def correlation(self) -> xr.DataArray:
        """Correlation over subjects, (parameter, parameter_2), or by class."""
        return self._by_pair(self.plain.correlations)

    @property
    def correlation_se(self) -> xr.DataArray:
        """Standard error of `correlation`."""
        return self._by_pair(self._errors(_correlations).reshape(self.plain.covariances.shape))

    @property
    def coefficients(self) -> xr.DataArray:
        """Regression coefficients of the means, (coefficient,); without covariates the means themselves."""
        return self._labelled(self.plain.coefficients, "coefficient", self.design.labels)

    @property
    def coefficients_covariance(self) -> xr.DataArray:
        """Sampling covariance of `coefficients`, (coefficient, coefficient_2)."""
        k, labels = len(self.plain.coefficients), self.design.labels
        coords = {"coefficient": labels, "coefficient_2": labels}
        return xr.DataArray(self.free_covariance.values[:k, :k], coords, tuple(coords))

    @property
    def shared(self) -> xr.DataArray:
        """Parameters that are the same for all, (shared_parameter,), Gaussian space."""
        return self._labelled(self.plain.shared, "shared_parameter", self.shared_names)

    @property
    def shared_se(self) -> xr.DataArray:
        """Standard error of `shared`."""
        return self.shared.copy(data=self._errors(lambda group: group.shared))

    @property
    def free(self) -> xr.DataArray:
        """What was estimated, (free,).

        Coefficients of the means, log SDs (of a full covariance the log of the Cholesky factor's diagonal, which is the
        first parameter's log SD, and what is below that diagonal, each row over its diagonal entry), and the shared
        parameters.
        """
        return self._labelled(self.plain.to_vector(), "free", free_labels(self.plain, self.design, self.parameters))

    def coefficient_table(self, *, probability: float = 0.95) -> pd.DataFrame:
        """Tabulate the coefficients of the means, Gaussian space: one row each.

        Returns
        -------
        DataFrame
            ``estimate``, ``se``, ``z``, ``p`` (two-sided) and the interval's ``low`` and ``high`` (Wald).
        """
        estimate, se = self.plain.coefficients, np.sqrt(np.diag(self.coefficients_covariance))
        reach = scipy.special.ndtri(0.5 + probability / 2) * se
        p = 2 * scipy.special.ndtr(-np.abs(estimate / se))
        table = {"estimate": estimate, "se": se, "z": estimate / se, "p": p}
        table |= {"low": estimate - reach, "high": estimate + reach}
        return pd.DataFrame(table, index=pd.Index(self.design.labels, name="coefficient"))

    def wald_test(self, *names: str) -> WaldTest:
        """Test whether coefficients are 0, all together.

        Parameters
        ----------
        *names : str
            Coefficients (``"alpha: age"``), or terms of the formulas (``"age"``), which stand for their coefficients of
            all parameters.

        Raises
        ------
        ValueError
            If a name is neither, or no name is given.

        Examples
        --------
        >>> import em_ppl as em, pandas as pd, pymc as pm
        >>> @em.subject_model(level=em.Real())
        ... def normal(level, y):
        ...     pm.Normal("y", level, 1.0, observed=y)
        >>> people = [{"y": [a / 10 + 2 * (-1) ** a, a / 10], "age": a} for a in range(20, 60, 3)]
        >>> fit = em.fit(normal, em.from_subjects(people), covariates="~ age", progressbar=False)
        >>> fit.group.wald_test("age")
        Wald test of level: age: chi2(1) = 16.748, p = 4.27e-05
        """
        places: list[int] = []
        for name in names:
            own = [i for i, label in enumerate(self.design.labels) if label == name]
            own = own or [i for i, (_, term, _) in enumerate(self.design.coefficients) if term == name]
            if not own:
                raise ValueError(
                    f"{name!r} is no coefficient and no term; coefficients: {', '.join(self.design.labels)}."
                )
            places += [i for i in own if i not in places]
        if not places:
            raise ValueError(f"name a coefficient or a term to test: {', '.join(self.design.labels)}.")
        b, covariance = self.plain.coefficients[places], self.coefficients_covariance.values[np.ix_(places, places)]
        chi2 = float(b @ np.linalg.solve(covariance, b))
        labels = tuple(self.design.labels[i] for i in places)
        return WaldTest(labels, chi2, len(places), float(scipy.special.chdtrc(len(places), chi2)))

    def predict(self, people: pd.DataFrame, *, probability: float = 0.95) -> pd.DataFrame:
        """Predict the parameters of people of whom no trial is known, from their covariates.

        Parameters
        ----------
        people : DataFrame
            One row a person, with the covariates of the formulas (and of `covariance_by`).
        probability : float
            Of the intervals.

        Returns
        -------
        DataFrame
            Index (person, parameter). Gaussian space: ``mean`` expected of such people, its ``mean_se``, and ``sd``
            (with heavy tails: scale) of people around it. Natural space: ``median``, and an interval from ``low`` to
            ``high`` for one such person, the uncertainty of the mean included.

        Raises
        ------
        ValueError
            If a covariate is absent, missing, or a category that the fit has not seen.

        Examples
        --------
        >>> import em_ppl as em, pandas as pd, pymc as pm
        >>> @em.subject_model(level=em.Real())
        ... def normal(level, y):
        ...     pm.Normal("y", level, 1.0, observed=y)
        >>> people = [{"y": [a / 10 + 2 * (-1) ** a, a / 10], "age": a} for a in range(20, 60, 3)]
        >>> fit = em.fit(normal, em.from_subjects(people), covariates="~ age", progressbar=False)
        >>> fit.group.predict(pd.DataFrame({"age": [20, 60]}))["mean"].round(1).tolist()
        [2.2, 5.8]
        """
        x, level = self.design.matrix(people), self.design.level(people)
        mean = x @ self.plain.coefficients
        variance = np.einsum("npk,kl,npl->np", x, self.coefficients_covariance.values, x)
        sd, distribution = self.plain.sd[level], self.plain.model.distribution
        of_mean = scipy.special.ndtri(0.5 + probability / 2) * np.sqrt(variance)
        half = np.hypot(distribution.reach(probability) * sd, of_mean)
        link = [self.parameters[name].to_natural for name in self.varying]
        median, low, high = (
            np.column_stack([to_natural(values[:, k]) for k, to_natural in enumerate(link)])
            for values in (mean, mean - half, mean + half)
        )
        columns = {"mean": mean, "mean_se": np.sqrt(variance), "sd": sd, "median": median, "low": low, "high": high}
        index = pd.MultiIndex.from_product([people.index, self.varying], names=["person", "parameter"])
        return pd.DataFrame({name: values.ravel() for name, values in columns.items()}, index=index)

    def intervals(self, *, probability: float = 0.95) -> pd.DataFrame:
        """Tabulate everything that was estimated, with Wald intervals on both scales.

        Intervals are symmetric where the sampling distribution is closest to Normal: means, coefficients and shared
        parameters as they are, SDs on a log, correlations on Fisher's scale.

        Parameters
        ----------
        probability : float
            How often the intervals should cover.

        Returns
        -------
        DataFrame
            ``estimate``, ``se``, ``low``, ``high`` in Gaussian space, and the same in natural space: of a mean the
            group's median there, of an SD the SD over people there (NaN with heavy tails), of a shared parameter
            itself.
        """
        if not 0 < probability < 1:
            raise ValueError(f"probability={probability!r} must lie between 0 and 1.")
        reach = float(scipy.special.ndtri(0.5 + probability / 2))
        rows = pd.concat([self._location_rows(reach), self._spread_rows(reach)])
        return rows.astype(float)

    def quantities(self, plain: Group | None = None) -> pd.DataFrame:
        """Tabulate the group's numbers on the scales on which their sampling distribution is closest to Normal.

        Means, coefficients and shared parameters in Gaussian space, SDs as logs, correlations on Fisher's scale; with
        the names of `em_ppl.agreement`.

        Returns
        -------
        DataFrame
            ``estimate`` and ``se``, of this group (or another, with the errors of this one).
        """
        place = "group_coefficients" if self.design.has_covariates else "group_mean"
        levels = [f"{label}, " for label in self.design.levels] or [""]
        pairs = [f"{self.varying[j]}, {self.varying[i]}" for i, j in zip(*self.plain.model.below, strict=True)]
        names = [
            *(f"{place}[{label}]" for label in self.design.labels),
            *(f"log group_sd[{level}{name}]" for level in levels for name in self.varying),
            *(f"group_correlation[{level}{pair}]" for level in levels for pair in pairs),
            *(f"{name}_gaussian" for name in self.shared_names),
        ]
        return pd.DataFrame(
            {"estimate": _quantities(plain or self.plain), "se": self._errors(_quantities)}, index=pd.Index(names)
        )

    def __repr__(self) -> str:
        return self.intervals().to_string(float_format=lambda value: f"{value:.4g}", na_rep="")

    def _repr_html_(self) -> str:
        table: str = self.intervals().to_html(float_format=lambda value: f"{value:.4g}", border=0, na_rep="")
        return table

    # --- the rows of `intervals` --------------------------------------------------------------------------------------

    def _location_rows(self, reach: float) -> pd.DataFrame:
        """Means, coefficients, shared parameters: symmetric in Gaussian space, carried to natural space by the link."""
        mean, shared = (self.mean, self.mean_se), (self.shared, self.shared_se)
        table = {}
        for (estimates, errors), names in ((mean, self.varying), (shared, self.shared_names)):
            for name, x, se in zip(names, estimates.values, errors.values, strict=True):
                link, ends = self.parameters[name].to_natural, np.array([x - reach * se, x + reach * se])
                slope = (link(x + 1e-5) - link(x - 1e-5)) / 2e-5
                kind = "mean" if name in self.varying else "shared"
                table[f"{kind}[{name}]"] = [x, se, *ends, float(link(x)), slope * se, *link(ends)]
        if self.design.has_covariates:
            own = self.coefficient_table()
            for label, b, se in zip(own.index, own["estimate"], own["se"], strict=True):
                table[f"coefficient[{label}]"] = [b, se, b - reach * se, b + reach * se, *[np.nan] * 4]
        return pd.DataFrame.from_dict(table, orient="index", columns=COLUMNS)

    def _spread_rows(self, reach: float) -> pd.DataFrame:
        """SDs, symmetric in their log; correlations, symmetric on Fisher's scale."""
        sd, sd_se = self.plain.sd.ravel(), self.sd_se.values.ravel()
        natural = self._natural_sds(self.plain).ravel()
        natural_se = self._errors(lambda group: self._natural_sds(group).ravel())
        names = [f"{name}{level}" for level in self._level_labels for name in self.varying]
        table = {
            f"sd[{name}]": [*_log_interval(a, b, reach), *_log_interval(c, d, reach)]
            for name, a, b, c, d in zip(names, sd, sd_se, natural, natural_se, strict=True)
        }
        rows, columns = self.plain.model.below
        fisher = self._errors(lambda group: np.arctanh(group.correlations[:, rows, columns]).ravel())
        pairs = [(level, i, j) for level in range(len(self._level_labels)) for i, j in zip(rows, columns, strict=True)]
        for (level, i, j), se in zip(pairs, fisher, strict=True):
            r = self.plain.correlations[level, i, j]
            ends = np.tanh(np.arctanh(r) + np.array([-reach, reach]) * se)
            name = f"correlation[{self.varying[j]}, {self.varying[i]}{self._level_labels[level]}]"
            table[name] = [r, (1 - r**2) * se, *ends, *[np.nan] * 4]
        return pd.DataFrame.from_dict(table, orient="index", columns=COLUMNS)

    def _natural_sds(self, group: Group) -> FloatArray:
        """SDs over people in natural space, (level, parameter), at the mean."""
        if group.model.distribution.heavy_tails:
            return np.full(group.sd.shape, np.nan)
        x = _mean(group)[:, None] + group.sd[:, :, None] * NODES
        values = np.stack([self.parameters[name].to_natural(x[:, k]) for k, name in enumerate(self.varying)], axis=1)
        weights = NODE_WEIGHTS / NODE_WEIGHTS.sum()
        centred = values - (values @ weights)[:, :, None]
        return np.asarray(np.sqrt(centred**2 @ weights))

    # --- helpers ------------------------------------------------------------------------------------------------------

    def _errors(self, quantity: Callable[[Group], FloatArray]) -> FloatArray:
        """Return standard errors of a function of the group, flattened; NaN if it hangs on what is undetermined."""
        vector, slopes = self.plain.to_vector(), []
        for side in np.diag(1e-5 * self.plain.units):
            up, down = (np.ravel(quantity(self.plain.from_vector(vector + s))) for s in (side, -side))
            slopes.append((up - down) / (2 * side.sum()))
        return self._errors_by(np.array(slopes))

    def _errors_by(self, jacobian: FloatArray) -> FloatArray:
        """`_errors` of what has these slopes by the free numbers, (number, quantity)."""
        covariance = self.free_covariance.values
        known = np.isfinite(np.diag(covariance))
        part = jacobian[known]
        variance = np.einsum("ak,ab,bk->k", part, covariance[np.ix_(known, known)], part)
        hangs = (np.abs(jacobian[~known]) * self.plain.units[~known, None] > 1e-9).any(0)
        return np.where(hangs, np.nan, np.sqrt(np.maximum(variance, 0.0)))

    @cached_property
    def _level_labels(self) -> list[str]:
        return [f", {level}" for level in self.design.levels] or [""]

    @staticmethod
    def _labelled(values: FloatArray, dim: str, labels: list[str]) -> xr.DataArray:
        return xr.DataArray(values, coords={dim: labels}, dims=dim)

    def _by_parameter(self, values: FloatArray) -> xr.DataArray:
        if values.ndim == 1 or self.design.by is None:
            return self._labelled(values.reshape(-1), "parameter", self.varying)
        coords = {self.design.by: self.design.levels, "parameter": self.varying}
        return xr.DataArray(values, coords, tuple(coords))

    def _by_pair(self, values: FloatArray) -> xr.DataArray:
        coords = {"parameter": self.varying, "parameter_2": self.varying}
        if self.design.by is None:
            return xr.DataArray(values[0], coords, tuple(coords))
        coords = {self.design.by: self.design.levels} | coords
        return xr.DataArray(values, coords, tuple(coords))


COLUMNS = ["estimate", "se", "low", "high", "natural", "natural_se", "natural_low", "natural_high"]


def free_labels(group: Group, design: Design, parameters: dict[str, Parameter]) -> list[str]:
    """Name the free numbers of a group, in the order of `Group.to_vector`."""
    varying = [name for name, parameter in parameters.items() if not parameter.shared]
    levels = [f", {level}" for level in design.levels] or [""]
    pairs = list(zip(*group.model.below, strict=True))
    # the first diagonal entry of a Cholesky factor is that parameter's SD, the others are conditional ones
    kinds = ["log_sd" if k == 0 or not group.model.joint else "log_cholesky" for k in range(len(varying))]
    return [
        *(f"mean[{label}]" for label in design.labels),
        *(f"{kind}[{name}{level}]" for level in levels for kind, name in zip(kinds, varying, strict=True)),
        *(f"cholesky[{varying[i]}, {varying[j]}{level}]" for level in levels for i, j in pairs),
        *(f"shared[{name}]" for name, parameter in parameters.items() if parameter.shared),
    ]


def _mean(group: Group) -> FloatArray:
    return group.location.mean(0)


def _sd(group: Group) -> FloatArray:
    return group.sd


def _correlations(group: Group) -> FloatArray:
    return group.correlations


def _quantities(group: Group) -> FloatArray:
    rows, columns = group.model.below
    fisher = np.arctanh(group.correlations[:, rows, columns])
    return np.concatenate([group.coefficients, np.log(group.sd).ravel(), fisher.ravel(), group.shared])


def _log_interval(value: float, se: float, reach: float) -> list[float]:
    """Estimate, standard error, and the ends of an interval that is symmetric in the log."""
    ratio = np.exp(reach * se / value) if value > 0 else np.nan
    return [value, se, value / ratio, value * ratio]
