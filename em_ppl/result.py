"""What a fit returns: the group, the subjects, how it went; it shows itself, saves itself, and leads on."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from em_ppl.advice import advise
from em_ppl.compiled import CompiledModel
from em_ppl.group import FloatArray, Group, GroupUncertainty, Structure, uncertainty
from em_ppl.model import SubjectModel
from em_ppl.modes import Posteriors
from em_ppl.parameters import Parameter

__all__ = ["Fit", "GroupEstimate"]


@dataclass(frozen=True)
class GroupEstimate:
    """The group that a fit found, Gaussian space unless said otherwise.

    Attributes
    ----------
    mean : DataArray
        (parameter,)
    covariance : DataArray
        (parameter, parameter_2)
    free : DataArray
        (free,), what was estimated: means, log Cholesky diagonal (log SDs, if diagonal), and for a full covariance
        the Cholesky factor below its diagonal, each row over its diagonal entry.
    free_covariance : DataArray
        (free, free_2), sampling covariance of `free`: the inverse observed information of the Laplace evidence.
    structure : {"diagonal", "full"}
        Whether parameters may covary.
    """

    mean: xr.DataArray
    covariance: xr.DataArray
    free: xr.DataArray
    free_covariance: xr.DataArray
    structure: Structure

    @property
    def sd(self) -> xr.DataArray:
        """Standard deviation over subjects, (parameter,)."""
        return self.mean.copy(data=np.sqrt(np.diag(self.covariance)))

    @property
    def correlation(self) -> xr.DataArray:
        """Correlation over subjects, (parameter, parameter_2)."""
        sd = self.sd.values
        return self.covariance / np.outer(sd, sd)

    @property
    def mean_se(self) -> xr.DataArray:
        """Standard error of the mean, (parameter,); the uncertainty of the covariance is part of it."""
        return self.mean.copy(data=self._standard_errors[: self.mean.size])

    @property
    def sd_se(self) -> xr.DataArray:
        """Standard error of the SD, (parameter,), by the delta method."""
        p = self.mean.size
        if self.structure == "diagonal":
            return self.mean.copy(data=self._standard_errors[p : 2 * p] * self.sd.values)
        plain, free = self.plain, self.free.values
        steps = 1e-6 * np.eye(len(free))
        slopes = [
            plain.from_vector(free + s, np.ones(p)).sd - plain.from_vector(free - s, np.ones(p)).sd for s in steps
        ]
        jacobian = np.array(slopes).T / 2e-6
        with np.errstate(invalid="ignore"):
            return self.mean.copy(data=np.sqrt(np.diag(jacobian @ self.free_covariance.values @ jacobian.T)))

    @property
    def plain(self) -> Group:
        """The group as the algorithm has it."""
        return Group(self.mean.values, self.covariance.values, self.structure)

    @property
    def _standard_errors(self) -> FloatArray:
        return GroupUncertainty(self.free.values, self.free_covariance.values).standard_errors


@dataclass(frozen=True)
class Fit:
    """The result of `em_ppl.fit`.

    Attributes
    ----------
    group : GroupEstimate
        Mean, covariance, SD, correlation and standard errors of the group, labelled.
    subjects : Dataset
        Per subject, labelled. Gaussian space: ``mode`` (MAP), ``posterior_mean`` (the mode, shifted to second order
        by ``estimator="corrected"``), ``laplace_covariance``, ``slope`` (gradient of the log-posterior at the mode).
        ``natural``: the posterior mean carried to natural space, a posterior median there. ``log_likelihood``,
        ``log_posterior`` (with the group's density) and ``log_evidence``; ``converged``, ``repaired``, ``shortened``.
    history : Dataset
        ``log_evidence`` and ``change`` of the group, per iteration.
    parameters : dict of str to Parameter
        In the order of declaration.
    data : Dataset
        The columns that the model read.
    settings : dict
        Model name, estimator, status, tolerance, seed, seconds.
    model : SubjectModel or None
        None for a fit that was loaded without its model.
    """

    group: GroupEstimate
    subjects: xr.Dataset
    history: xr.Dataset
    parameters: dict[str, Parameter]
    data: xr.Dataset
    settings: dict[str, Any]
    model: SubjectModel | None = None

    @classmethod
    def make(
        cls,
        compiled: CompiledModel,
        group: Group,
        subjects: Posteriors,
        *,
        log_evidence: Sequence[float],
        change: Sequence[float],
        **settings: Any,
    ) -> Fit:
        """Label what EM found."""
        names = list(compiled.model.parameters)
        iteration = {"iteration": np.arange(1, len(change) + 1)}
        history = {"log_evidence": ("iteration", list(log_evidence)), "change": ("iteration", list(change))}
        return cls(
            group=_label_group(group, uncertainty(group, subjects), names),
            subjects=_label_subjects(compiled, group, subjects),
            history=xr.Dataset(history, coords=iteration),
            parameters=dict(compiled.model.parameters),
            data=compiled.data,
            settings={
                "model": compiled.model.name,
                "observed": [t.observes for t in compiled.functions.trace.terms if t.observes is not None],
                **settings,
            },
            model=compiled.model,
        )

    @property
    def converged(self) -> bool:
        """Whether EM and every subject's mode search ended where they should."""
        return self.settings["status"] == "converged" and bool(self.subjects["converged"].all())

    @property
    def iterations(self) -> int:
        """Number of EM steps."""
        return self.history.sizes["iteration"]

    @property
    def log_evidence(self) -> float:
        """Log marginal likelihood of all subjects, subjects' parameters integrated out by Laplace's approximation."""
        return float(self.subjects["log_evidence"].values.sum())

    @property
    def advice(self) -> tuple[str, ...]:
        """What a careful reader should know before using the numbers; empty if all is well."""
        return advise(self)

    def summary(self) -> pd.DataFrame:
        """Tabulate the group: one row per parameter.

        Returns
        -------
        DataFrame
            ``median``: the group's median in natural space. ``mean``, ``sd`` and their standard errors: Gaussian space.
            ``known``: share of the group's variance that the trials resolve, 1 - mean Laplace variance / group
            variance (1: each subject is known exactly; 0: the trials say nothing about this parameter).
        """
        group = self.group
        variances = np.diagonal(self.subjects["laplace_covariance"].values, axis1=1, axis2=2)
        parameters = list(self.parameters.values())
        table = {
            "link": [p.link for p in parameters],
            "median": [float(p.to_natural(m)) for p, m in zip(parameters, group.mean.values, strict=True)],
            "mean": group.mean.values,
            "mean_se": group.mean_se.values,
            "sd": group.sd.values,
            "sd_se": group.sd_se.values,
            "known": 1 - variances.mean(0) / np.diag(group.covariance),
        }
        return pd.DataFrame(table, index=pd.Index(list(self.parameters), name="parameter"))

    def to_inference_data(
        self,
        *,
        draws: int = 500,
        chains: int = 2,
        random_seed: int | None = None,
        log_likelihood: bool = True,
        progressbar: bool = True,
    ) -> Any:
        """Turn the fit into ArviZ InferenceData.

        Draws are independent, from the Normal approximations of the group and of each subject given the group's
        estimate. Groups and dims are named as in a hierarchical model sampled by PyMC, see `em_ppl.inference_data`.

        Parameters
        ----------
        draws, chains : int
            As in `pymc.sample`; chains are no Markov chains here, only what ArviZ expects.
        random_seed : int, optional
            Seed of the draws; the fit's own, if left out.
        log_likelihood : bool
            Whether to add the log-likelihood of every trial and draw, for ``az.loo``; it is the largest part, and
            the first time it is compiled.
        progressbar : bool
            Whether to show progress on the log-likelihood.

        Returns
        -------
        InferenceData or DataTree
            `arviz.InferenceData` with ArviZ 0.23 (Python 3.11), `xarray.DataTree` with ArviZ 1.

        Raises
        ------
        ValueError
            If the fit was loaded without its model and `log_likelihood` is asked for, or `draws` or `chains` is no
            positive whole number.
        """
        from em_ppl.inference_data import to_inference_data

        return to_inference_data(
            self,
            draws=draws,
            chains=chains,
            random_seed=random_seed,
            log_likelihood=log_likelihood,
            progressbar=progressbar,
        )

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Save as netCDF, all or nothing; `em_ppl.load` brings back the same bits.

        The file is InferenceData without draws: ArviZ and xarray read it too.

        Returns
        -------
        Path
            Where it is.
        """
        from em_ppl.inference_data import save

        return save(self, path)

    def __repr__(self) -> str:
        table = self.summary().to_string(float_format=_digits)
        return "\n".join([self._headline, "", table, *(f"! {line}" for line in self.advice)])

    def _repr_html_(self) -> str:
        from html import escape

        table = self.summary().to_html(float_format=_digits, border=0)
        warnings = "".join(f"<li>{escape(line)}</li>" for line in self.advice)
        return f"<p><b>{escape(self._headline)}</b></p>{table}" + (f"<ul>{warnings}</ul>" if warnings else "")

    @property
    def _headline(self) -> str:
        s = self.settings
        end = "converged" if self.converged else "NOT CONVERGED"
        return (
            f"EM-MAP fit of {s['model']} ({s['estimator']}, {self.group.structure} covariance): "
            f"{self.subjects.sizes['subject']} subjects, {int(self.subjects['n_trials'].sum())} trials\n"
            f"{end} after {self.iterations} iterations in {s['seconds']:.2f} s "
            f"(+ {s['compile_seconds']:.1f} s compiling); log evidence {self.log_evidence:.3f}"
        )


def _digits(value: float) -> str:
    return f"{value:.4g}"


def _label_group(group: Group, error: GroupUncertainty, names: list[str]) -> GroupEstimate:
    below = [f"cholesky[{names[i]}, {names[j]}]" for i, j in zip(*group._below, strict=True)]
    free = [f"mean[{n}]" for n in names] + [f"log_sd[{n}]" for n in names] + below
    free = free[: len(error.vector)]
    square = {"parameter": names, "parameter_2": names}
    return GroupEstimate(
        mean=xr.DataArray(group.mean, coords={"parameter": names}, dims="parameter", name="mean"),
        covariance=xr.DataArray(group.covariance, square, ("parameter", "parameter_2"), name="covariance"),
        free=xr.DataArray(error.vector, coords={"free": free}, dims="free", name="free"),
        free_covariance=xr.DataArray(
            error.covariance, {"free": free, "free_2": free}, ("free", "free_2"), name="free_covariance"
        ),
        structure=group.structure,
    )


def _label_subjects(compiled: CompiledModel, group: Group, found: Posteriors) -> xr.Dataset:
    names = list(compiled.model.parameters)
    row, square = ("subject", "parameter"), ("subject", "parameter", "parameter_2")
    mean = found.mode - found.shift
    natural = np.column_stack([p.to_natural(mean[:, k]) for k, p in enumerate(compiled.model.parameters.values())])
    variables = {
        "natural": (row, natural),
        "mode": (row, found.mode),
        "posterior_mean": (row, mean),
        "laplace_covariance": (square, found.covariance),
        "slope": (row, found.slope - (found.mode - group.mean) @ group.precision),
        "log_likelihood": ("subject", found.log_likelihood),
        "log_posterior": ("subject", found.log_likelihood + found.log_prior),
        "log_evidence": ("subject", found.log_evidence),
        "n_trials": ("subject", compiled.subjects.n_trials),
        "converged": ("subject", found.converged),
        "repaired": ("subject", found.repaired),
        "shortened": ("subject", found.shortened),
    }
    coords = {"subject": compiled.data["subject"].values, "parameter": names, "parameter_2": names}
    return xr.Dataset(variables, coords=coords)
