"""Does a fit find what was put in? Simulate, fit, compare: parameter recovery, and calibration of intervals.

Wilson, R. C., & Collins, A. G. E. (2019). Ten simple rules for the computational modeling of behavioral data. eLife, 8,
e49547. Calibration: Talts, S., Betancourt, M., Simpson, D., Vehtari, A., & Gelman, A. (2018). Validating Bayesian
inference algorithms with simulation-based calibration. arXiv:1804.06788.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import scipy
import xarray as xr
from numpy.typing import NDArray

from em_ppl.checks import check_counts
from em_ppl.compat import read_group
from em_ppl.model import SubjectModel
from em_ppl.studies import fit_study, in_processes, make_study
from em_ppl.tasks import Task

__all__ = ["Recovery", "recover"]

FloatArray = NDArray[np.float64]
GroupSpec = Mapping[str, tuple[float, float]]

DRAWS = 400  # of each fit's posterior, among which the truth has a rank
COVER = 0.95


@dataclass(frozen=True)
class Recovery:
    """What was put in, and what was found; made by `em_ppl.recover`.

    Attributes
    ----------
    subjects : Dataset
        (repetition, subject, parameter), Gaussian space: ``truth``; ``estimate``, the posterior mean, and its ``sd``;
        ``rank``, the share of posterior draws that lie below the truth.
    group : Dataset
        (repetition, free), Gaussian space: the same of the free numbers of the group, SDs as their log. Here ``sd`` is
        the standard error.
    converged : DataArray
        (repetition,)
    """

    subjects: xr.Dataset
    group: xr.Dataset
    converged: xr.DataArray

    def summary(self) -> pd.DataFrame:
        """Tabulate how well subjects are recovered, one row a parameter, means over repetitions; Gaussian space.

        Returns
        -------
        DataFrame
            ``correlation`` of truth and estimate; ``bias`` and ``rmse`` of the estimate; ``coverage`` of 95 %
            intervals; ``shrinkage``, 1 - slope of the estimate on the truth: 0, if subjects stay where their trials put
            them, 1, if all are put at the group's mean.
        """
        truth, away = self.subjects["truth"], self.subjects["estimate"] - self.subjects["truth"]
        over = ["repetition", "subject"]
        slope = xr.cov(self.subjects["estimate"], truth, "subject") / truth.var("subject", ddof=1)
        return _table(
            "parameter",
            correlation=xr.corr(self.subjects["estimate"], truth, "subject").mean("repetition"),
            bias=away.mean(over),
            rmse=(away**2).mean(over) ** 0.5,
            coverage=_covered(self.subjects["rank"]).mean(over),
            shrinkage=1 - slope.mean("repetition"),
        )

    def group_summary(self) -> pd.DataFrame:
        """Tabulate how well the group is recovered, one row a free number; Gaussian space, SDs as their log.

        Returns
        -------
        DataFrame
            ``truth`` and ``estimate``, means over repetitions; ``bias`` and its Monte-Carlo ``error``; ``rmse``; the
            mean ``standard_error``, to be compared with ``rmse``; ``coverage`` of 95 % Wald intervals.
        """
        group = self.group
        away = group["estimate"] - group["truth"]
        z = scipy.stats.norm.ppf(0.5 + COVER / 2)
        return _table(
            "free",
            truth=group["truth"].mean("repetition"),
            estimate=group["estimate"].mean("repetition"),
            bias=away.mean("repetition"),
            error=away.std("repetition", ddof=1) / np.sqrt(away.sizes["repetition"]),
            rmse=(away**2).mean("repetition") ** 0.5,
            standard_error=group["sd"].mean("repetition"),
            coverage=(abs(away) < z * group["sd"]).mean("repetition"),
        )

    def __repr__(self) -> str:
        sizes, done = self.subjects.sizes, int(self.converged.sum())
        return (
            f"Recovery of {sizes['subject']} simulated subjects, {sizes['repetition']} repetitions, {done} converged; "
            "Gaussian space\n\nsubjects\n"
            f"{self.summary().to_string(float_format='{:.3f}'.format)}\n\ngroup\n"
            f"{self.group_summary().to_string(float_format='{:.3f}'.format)}"
        )

    def _repr_html_(self) -> str:
        tables = (self.summary().round(3).to_html(), self.group_summary().round(3).to_html())
        return f"<p>{repr(self).splitlines()[0]}</p>{tables[0]}{tables[1]}"


def recover(
    model: SubjectModel,
    task: Task,
    group: GroupSpec | Callable[[np.random.Generator], GroupSpec],
    n_subjects: int = 50,
    *,
    repetitions: int = 10,
    n_jobs: int = 1,
    random_seed: int = 0,
    progressbar: bool = True,
    **fit_kwargs: Any,
) -> Recovery:
    """Simulate subjects from a group, fit them, and compare what is found with what was put in.

    Parameters
    ----------
    model : SubjectModel
        How one subject responds.
    task : Task
        The experiment whose worth is in question.
    group : mapping of str to (float, float), or callable
        Mean and SD of every parameter, Gaussian space, as for `em_ppl.draw_subjects`. A function of a NumPy generator
        that draws such a mapping makes the recovery a calibration over a prior of groups.
    n_subjects : int
        Subjects in each repetition.
    repetitions : int
        How often.
    n_jobs : int
        Processes, as in joblib; -1 for all cores. Each compiles for itself, from the cache on disk.
    random_seed : int
        Equal seeds give equal results, however many processes there are.
    progressbar : bool
        Whether to show progress.
    **fit_kwargs
        Passed on to `em_ppl.fit`, such as ``estimator="exact"``.

    Returns
    -------
    Recovery
        Prints as two tables; `em_ppl.plot_recovery` and `em_ppl.plot_calibration` draw it.

    Raises
    ------
    ValueError
        If a number is out of range, or the group lacks a parameter.

    Examples
    --------
    >>> import em_ppl as em, pymc as pm
    >>> @em.subject_model(p=em.Unit())
    ... def coin(p, heads):
    ...     pm.Bernoulli("heads", p=p, observed=heads)
    >>> recovery = em.recover(coin, em.Task(100), {"p": (0.0, 1.0)}, 40, repetitions=3, progressbar=False)
    >>> round(float(recovery.summary()["correlation"]["p"]), 1)
    1.0
    """
    check_counts(repetitions=repetitions, n_subjects=n_subjects)
    seeds = np.random.SeedSequence(random_seed).spawn(repetitions)
    studies = in_processes(_study, seeds, (model, task, group, n_subjects, fit_kwargs), n_jobs, show=progressbar)
    subjects, of_group, converged = zip(*studies, strict=True)
    repetition = pd.RangeIndex(repetitions, name="repetition")
    return Recovery(
        subjects=xr.concat(subjects, repetition),
        group=xr.concat(of_group, repetition),
        converged=xr.DataArray(list(converged), {"repetition": repetition}, ("repetition",)),
    )


def _study(
    seed: Any, model: SubjectModel, task: Task, group: Any, n_subjects: int, fit_kwargs: Any
) -> tuple[xr.Dataset, xr.Dataset, bool]:
    """One repetition: the truth, what was found, and where the one lies in the posterior of the other."""
    generator = np.random.default_rng(seed)
    own = group(generator) if callable(group) else group
    people, data, fit_seed = make_study(model, own, task, n_subjects, generator, fit_kwargs)
    found = fit_study(model, data, fit_seed, fit_kwargs)
    drawn = read_group(found.to_inference_data(draws=DRAWS, chains=1, log_likelihood=False), "posterior")
    assert drawn is not None
    return (*_compare(model, own, people, found, drawn.isel(chain=0)), found.converged)


def _compare(
    model: SubjectModel, group: GroupSpec, people: pd.DataFrame, found: Any, drawn: xr.Dataset
) -> tuple[xr.Dataset, xr.Dataset]:
    varying = found.group.varying
    x = np.column_stack([model.parameters[name].to_gaussian(people[name]) for name in varying])
    truth = xr.DataArray(x, found.subjects["posterior_mean"].coords, ("subject", "parameter"))
    variance = np.diagonal(found.subjects["posterior_covariance"].values, axis1=1, axis2=2)
    subjects = xr.Dataset(
        {
            "truth": truth,
            "estimate": found.subjects["posterior_mean"],
            "sd": (("subject", "parameter"), np.sqrt(variance)),
            "rank": (drawn["gaussian"] < truth).mean("draw"),
        }
    )
    put_in = {f"mean[{name}]": group[name][0] for name in varying}
    put_in |= {f"log_sd[{name}]": np.log(group[name][1]) for name in varying}
    put_in |= {f"shared[{name}]": group[name][0] for name in model.parameters if name not in varying}
    estimate = found.group.free
    known = [str(name) for name in estimate["free"].values if name in put_in]
    sd = xr.zeros_like(estimate) + np.sqrt(np.diag(found.group.free_covariance.values))
    of_group = xr.Dataset({"estimate": estimate, "sd": sd}).sel(free=known)
    of_group["truth"] = ("free", [put_in[name] for name in known])
    of_group["rank"] = ("free", [float((_drawn_free(drawn, name) < put_in[name]).mean()) for name in known])
    return subjects, of_group


def _drawn_free(drawn: xr.Dataset, name: str) -> FloatArray:
    kind, parameter = name.removesuffix("]").split("[")
    if kind == "mean":
        return drawn["group_mean"].sel(parameter=parameter).values
    if kind == "log_sd":
        return np.log(drawn["group_sd"].sel(parameter=parameter).values)
    return drawn[f"{parameter}_gaussian"].values


def _covered(rank: xr.DataArray) -> xr.DataArray:
    """Whether the truth lies within the central interval of the draws."""
    return abs(rank - 0.5) < COVER / 2


def _table(index: str, **columns: xr.DataArray) -> pd.DataFrame:
    table = pd.DataFrame({name: column.to_series() for name, column in columns.items()})
    return table.rename_axis(index=index).loc[columns[next(iter(columns))][index].values]
