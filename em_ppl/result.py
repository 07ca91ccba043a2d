"""What a fit returns: the group, the subjects, how it went; it shows itself, saves itself, and leads on."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from em_ppl.advice import advise
from em_ppl.blocks import Likelihoods
from em_ppl.compiled import CompiledModel
from em_ppl.data import trial_counts
from em_ppl.design import Design
from em_ppl.e_step import Posteriors, Scheme
from em_ppl.estimators import ImportanceSampling, Quadrature
from em_ppl.group import Group
from em_ppl.group_estimate import GroupEstimate, free_labels
from em_ppl.m_step import moments, resolved_share
from em_ppl.model import SubjectModel
from em_ppl.parameters import Parameter
from em_ppl.show import as_html, as_text
from em_ppl.uncertainty import Uncertainty

if TYPE_CHECKING:
    import pymc as pm

    from em_ppl.diagnosis import Diagnosis
    from em_ppl.evidence import Evidence
    from em_ppl.pymc_models import PyMCModel
    from em_ppl.tasks import Task

__all__ = ["Fit"]


@dataclass(frozen=True)
class Fit:
    """The result of `em_ppl.fit`.

    Attributes
    ----------
    group : GroupEstimate
        Mean, covariance, SD, correlation, coefficients and shared parameters, with standard errors and intervals.
    subjects : Dataset
        Per subject and varying parameter, labelled. Gaussian space: ``mode`` (MAP), ``posterior_mean`` (the mode,
        shifted to second order by ``estimator="corrected"``, integrated by ``"exact"``), ``laplace_covariance``,
        ``posterior_covariance`` (the same, or integrated), ``slope`` (gradient of the log-posterior at the mode).
        ``natural``: the posterior mean carried to natural space, a posterior median there. ``log_likelihood``,
        ``log_posterior`` (with the group's density) and ``log_evidence``; ``converged``; ``repaired``, where the
        curvature was; ``skewed``, where to second order mean and mode are more than an SD apart; ``integrated``, where
        the posterior was, by ``"corrected"`` only where it had to;
        ``several_modes``, where a second mode is about as probable; ``elsewhere``, the share of the posterior that is
        not where its Normal approximation says (from few points; 0 where it was integrated). In a heavy-tailed group
        ``weight``: a subject below 1 counts less than others.
    history : Dataset
        ``log_evidence`` and ``change`` of the group, per iteration (of exact EM: after corrected EM had come near).
    parameters : dict of str to Parameter
        In the order of declaration.
    data : Dataset
        The columns that the model read.
    information : DataArray
        (subject, free, free_2): what each subject adds to the information about the group's free numbers.
    settings : dict
        Model name, estimator, status, tolerance, seed, seconds.
    integration : Quadrature or ImportanceSampling
        How the exact estimator integrated, or the corrected one where it had to.
    model : SubjectModel or None
        None for a fit that was loaded without its model.
    compile_kwargs : mapping or None
        As given to `fit`.
    """

    group: GroupEstimate
    subjects: xr.Dataset
    history: xr.Dataset
    parameters: dict[str, Parameter]
    data: xr.Dataset
    information: xr.DataArray
    settings: dict[str, Any]
    integration: Quadrature | ImportanceSampling
    model: SubjectModel | PyMCModel | None = None
    compile_kwargs: Mapping[str, Any] | None = None

    @classmethod
    def make(
        cls,
        compiled: Likelihoods,
        design: Design,
        group: Group,
        subjects: Posteriors,
        known: Uncertainty,
        scheme: Scheme,
        several_modes: NDArray[np.bool_] | None,
        compile_kwargs: Mapping[str, Any] | None,
        *,
        log_evidence: Sequence[float],
        change: Sequence[float],
        **settings: Any,
    ) -> Fit:
        """Label what EM found."""
        parameters = dict(compiled.model.parameters)
        if several_modes is None:
            several_modes = np.zeros(compiled.shape[0], dtype=bool)
        iteration = {"iteration": np.arange(1, len(change) + 1)}
        history = {"log_evidence": ("iteration", list(log_evidence)), "change": ("iteration", list(change))}
        free = pd.Index(free_labels(group, design, parameters))
        coords = {"free": free, "free_2": free}
        return cls(
            group=GroupEstimate(group, design, parameters, xr.DataArray(known.covariance, coords, tuple(coords))),
            subjects=label_subjects(
                compiled, group, subjects, scheme, several_modes=several_modes, elsewhere=known.elsewhere
            ),
            history=xr.Dataset(history, coords=iteration),
            parameters=parameters,
            data=compiled.data,
            information=xr.DataArray(
                known.by_subject, {"subject": compiled.data["subject"].values, **coords}, ("subject", *coords)
            ),
            settings={
                "model": compiled.model.name,
                "estimator": scheme.estimator,
                "distance_to_exact": dict(zip(free, known.distance.tolist(), strict=True)),
                "observed": compiled.observed,
                **settings,
            },
            integration=scheme.integration,
            model=compiled.model,
            compile_kwargs=compile_kwargs,
        )

    @cached_property
    def compiled(self) -> CompiledModel:
        """The model's compiled functions on these data; raises ValueError for a fit loaded without its model."""
        if self.model is None:
            raise ValueError(
                "this fit was loaded without its model, so no likelihood can be computed: load it by "
                "em.load(path, model=...)."
            )
        return self.model.compile(self.data, compile_kwargs=self.compile_kwargs)

    @property
    def scheme(self) -> Scheme:
        """How expectations were taken, with the same points."""
        scheme = Scheme(self.settings["estimator"], self.integration, self.settings["random_seed"])
        hard = np.flatnonzero(self.subjects["integrated"].values)
        needed = scheme.estimator == "exact" or hard.size
        return scheme.laid(self.group.plain, hard) if needed else scheme

    @cached_property
    def evidence(self) -> Evidence:
        """Log marginal likelihood per subject and in all, by importance sampling, and information criteria.

        Computed when it is first asked for, from 8 x 256 points a subject, whatever the estimator was.

        Returns
        -------
        Evidence
            Per subject ``laplace``, ``log_evidence``, its standard ``error`` and ``pareto_k``; sums; iAIC, iBIC, BIC.

        Raises
        ------
        ValueError
            If the fit was loaded without its model.
        """
        from em_ppl.evidence import compute_evidence

        return compute_evidence(self)

    def profile_interval(self, name: str, *, probability: float = 0.95) -> tuple[float, float]:
        """Find the interval of one number of the group by its profile likelihood.

        Slower than the Wald intervals of ``fit.group.intervals()``, and better where the likelihood is lopsided: few
        subjects, an SD near 0.

        Parameters
        ----------
        name : str
            One of ``fit.group.free``, such as ``"mean[alpha]"``, ``"log_sd[alpha]"`` or ``"shared[sigma]"``.
        probability : float
            How often the interval should cover.

        Returns
        -------
        low, high : float
            In Gaussian space, an SD as its log; infinite where the likelihood never falls far enough (-inf for a log
            SD: an SD of 0 is not rejected).

        Raises
        ------
        ValueError
            If there is no such number, the fit was classic or had a prior, or it was loaded without its model.

        Examples
        --------
        >>> import em_ppl as em, pymc as pm
        >>> @em.subject_model(level=em.Real())
        ... def normal(level, y):
        ...     pm.Normal("y", level, 1.0, observed=y)
        >>> people = [{"y": [a / 10 + 2 * (-1) ** a, a / 10], "age": a} for a in range(20, 60, 3)]
        >>> fit = em.fit(normal, em.from_subjects(people), covariates="~ age", progressbar=False)
        >>> low, high = fit.profile_interval("mean[level: age]")
        >>> round(low, 3), round(high, 3)
        (0.044, 0.136)
        """
        from em_ppl.profile import profile_interval

        return profile_interval(self, name, probability)

    def leave_one_subject_out(self, *, progressbar: bool = True) -> xr.Dataset:
        """Predict each subject from a group fitted to all others.

        Every fit begins where a Newton step from this one expects it to end.

        Parameters
        ----------
        progressbar : bool
            Whether to show progress.

        Returns
        -------
        Dataset
            Per subject: ``log_density`` of its data under the others' group (integrated, with its standard ``error``),
            ``converged``, and ``group`` (subject, free), the free numbers of the group without it.

        Raises
        ------
        ValueError
            If the fit was loaded without its model, or too few subjects would be left.
        """
        from em_ppl.leave_one_out import leave_one_subject_out

        return leave_one_subject_out(self, progressbar=progressbar)

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
        """Log marginal likelihood of all subjects: integrated by the exact estimator, Laplace's by the others."""
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
            (``scale`` instead of ``sd``, if the group's distribution has heavy tails; by class, if covariances are.)
            ``known``: share of the group's variance that the trials resolve, 1 - mean Laplace variance / group
            variance (1: each subject is known exactly; 0: the trials say nothing about this parameter). A shared
            parameter has no spread.
        """
        group, parameters = self.group, self.parameters
        mean = pd.concat([group.mean.to_series(), group.shared.to_series()]).reindex(list(parameters))
        mean_se = pd.concat([group.mean_se.to_series(), group.shared_se.to_series()]).reindex(list(parameters))
        table = pd.DataFrame({"link": [p.link for p in parameters.values()]}, index=mean.index)
        table["median"] = [float(p.to_natural(m)) for p, m in zip(parameters.values(), mean, strict=True)]
        table["mean"], table["mean_se"] = mean, mean_se
        spread = "scale" if group.plain.model.distribution.heavy_tails else "sd"
        sd, sd_se = np.atleast_2d(group.sd.values), np.atleast_2d(group.sd_se.values)
        shares = resolved_share(group.plain, self.subjects["mode"].values, self.subjects["laplace_covariance"].values)
        for level, label in enumerate([f" {value}" for value in group.design.levels] or [""]):
            for column, values in (
                (spread, sd[level]),
                (f"{spread}_se", sd_se[level]),
                ("known", np.diag(shares[level])),
            ):
                table[f"{column}{label}"] = pd.Series(values, index=group.varying).reindex(list(parameters))
        table.index.name = "parameter"
        return table

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

        Draws are independent: the group from the Normal approximation of its sampling distribution, and each subject
        from its own given the drawn group, so that intervals of subjects carry the group's uncertainty. Groups and dims
        are named as in a hierarchical model sampled by PyMC, see `em_ppl.inference_data`.

        Parameters
        ----------
        draws, chains : int
            As in `pymc.sample`; chains are no Markov chains here, only what ArviZ expects. For ArviZ 1 to draw this
            beside NUTS in one picture, take as many of each as NUTS did.
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

    def predict(
        self,
        idata: Any = None,
        *,
        draws: int = 100,
        task: Task | None = None,
        random_seed: int | None = None,
        progressbar: bool = True,
    ) -> xr.Dataset:
        """Draw responses from the posterior predictive distribution.

        Parameters
        ----------
        idata : InferenceData or DataTree, optional
            Draws of the posterior, such as those of `sample`; left out, of this fit.
        draws : int
            How many draws of all subjects' parameters are used, each for one set of responses.
        task : Task, optional
            Left out, each response is predicted one step ahead, after the subject's own history. With a task, subjects
            live through it, and what they learn comes of what they would have done.
        random_seed : int, optional
            The fit's own, if left out.
        progressbar : bool
            Whether to show progress.

        Returns
        -------
        Dataset
            Each observed variable, (draw, subject, trial), and with a task its columns; NaN where there is no response.

        Raises
        ------
        ValueError
            If the fit was loaded without its model, or is of a PyMC model.

        Examples
        --------
        >>> import em_ppl as em, pymc as pm
        >>> @em.subject_model(level=em.Real())
        ... def normal(level, y):
        ...     pm.Normal("y", level, 1.0, observed=y)
        >>> people = [{"y": [a / 2, a / 2 + 1]} for a in range(100)]
        >>> fit = em.fit(normal, em.from_subjects(people), progressbar=False)
        >>> fit.predict(draws=10, progressbar=False).y.shape
        (10, 100, 2)
        >>> fit.predict(draws=10, task=em.Task(5), progressbar=False).y.shape
        (10, 100, 5)
        """
        from em_ppl.predictions import predict

        return predict(self, idata, draws=draws, task=task, random_seed=random_seed, progressbar=progressbar)

    def response_probabilities(self) -> xr.Dataset:
        """Tell how probable each response was, before it was given, at each subject's posterior median.

        Returns
        -------
        Dataset
            ``<name>_given`` (subject, trial): the probability (of a number: the density) of the response that was
            given. ``<name>`` (subject, trial, <name>_option): that of each option of a Bernoulli or Categorical
            response. NaN where there is none.

        Raises
        ------
        ValueError
            If the fit was loaded without its model, or is of a PyMC model.
        """
        from em_ppl.predictions import response_probabilities

        return response_probabilities(self)

    def deterministics(self) -> xr.Dataset:
        """Compute what the likelihood names by ``pm.Deterministic``, at each subject's posterior median.

        These are the regressors of model-based imaging: a value, a prediction error on every trial.

        Returns
        -------
        Dataset
            Each by its name, (subject, trial, ...), or (subject, ...) if it does not change by trial. NaN in trials
            without a response.

        Raises
        ------
        ValueError
            If the likelihood names nothing, or the fit was loaded without its model, or is of a PyMC model.

        Examples
        --------
        >>> import em_ppl as em, pymc as pm
        >>> @em.subject_model(level=em.Real())
        ... def normal(level, y):
        ...     pm.Deterministic("residual", y - level)
        ...     pm.Normal("y", level, 1.0, observed=y)
        >>> people = [{"y": [a / 2, a / 2 + 1]} for a in range(100)]
        >>> fit = em.fit(normal, em.from_subjects(people), progressbar=False)
        >>> fit.deterministics().residual.dims
        ('subject', 'trial')
        """
        from em_ppl.predictions import deterministics

        return deterministics(self)

    def quality(self) -> pd.DataFrame:
        """Tabulate how well the model describes each subject, at its posterior median.

        Returns
        -------
        DataFrame
            One row a subject: ``responses``; ``log_likelihood``; ``probability``, the geometric mean over responses;
            ``accuracy``, the share of responses that were the most probable option; ``pseudo_r2`` (McFadden 1974),
            1 - log-likelihood / that of a guess among the options that are possible. The last two are NaN where a
            response is no choice (Bernoulli or Categorical).

        Raises
        ------
        ValueError
            If the fit was loaded without its model, or is of a PyMC model.

        Examples
        --------
        >>> import em_ppl as em, pymc as pm
        >>> @em.subject_model(p=em.Unit())
        ... def coin(p, heads):
        ...     pm.Bernoulli("heads", p=p, observed=heads)
        >>> people = [{"heads": [1] * k + [0] * (20 - k)} for k in range(21)]
        >>> fit = em.fit(coin, em.from_subjects(people), progressbar=False)
        >>> fit.quality()["accuracy"].iloc[[0, 5, 20]].tolist()
        [1.0, 0.75, 1.0]
        """
        from em_ppl.predictions import quality

        return quality(self)

    def diagnose(self) -> Diagnosis:
        """Forecast where NUTS will differ from this fit, before it is run.

        Returns
        -------
        Diagnosis
            For each number of the group, and the subjects of each parameter, the shift that is to be expected in
            posterior SDs, and a forecast in words.

        Raises
        ------
        ValueError
            If the fit was loaded without its model.

        Examples
        --------
        >>> import em_ppl as em, pymc as pm
        >>> @em.subject_model(level=em.Real())
        ... def normal(level, y):
        ...     pm.Normal("y", level, 1.0, observed=y)
        >>> people = [{"y": [a / 2, a / 2 + 1]} for a in range(100)]
        >>> fit = em.fit(normal, em.from_subjects(people), progressbar=False)
        >>> fit.diagnose().group["forecast"].tolist()
        ['should hold', 'should hold']
        """
        from em_ppl.diagnosis import diagnose

        return diagnose(self)

    def hierarchical_model(
        self, *, priors: Mapping[str, Any] | None = None, centred: bool | Collection[str] | None = None
    ) -> pm.Model:
        """Make the full hierarchical `pymc.Model` of the same likelihood, data and group.

        Parameters
        ----------
        priors : mapping of str to distribution, optional
            As for `SubjectModel.hierarchical`.
        centred : bool or list of str, optional
            Parameters to be centred. Left out, those of which trials resolve more than half of the group's variance
            (``known`` in the summary), even if its SD were two standard errors smaller.

        Returns
        -------
        pymc.Model
            To be sampled by ``with fit.hierarchical_model(): pm.sample()``, or from the fit on by `sample`.

        Raises
        ------
        ModelError
            If the model cannot be batched over subjects.
        ValueError
            If the fit was loaded without its model, or a prior or a centred parameter is of no variable of it.
        """
        from em_ppl.sampling import hierarchical_model

        return hierarchical_model(self, priors, centred)

    def sample(
        self,
        *,
        draws: int = 1000,
        tune: int = 500,
        chains: int = 4,
        priors: Mapping[str, Any] | None = None,
        centred: bool | Collection[str] | None = None,
        target_accept: float = 0.85,
        random_seed: int | None = None,
        nuts_sampler: str = "pymc",
        log_likelihood: bool = True,
        progressbar: bool = True,
        **kwargs: Any,
    ) -> Any:
        """Sample the hierarchical model by NUTS, from where the fit is.

        The same as ``pm.sample`` in ``fit.hierarchical_model()``, but warm: chains begin at draws of the fit, and the
        mass matrix at its variances, so that half the tuning will do.

        Parameters
        ----------
        draws, tune, chains, target_accept, random_seed, progressbar
            As in `pymc.sample`, whose defaults are 1000 tuning steps and 0.8. The seed is the fit's own, if left out.
        priors, centred
            As for `hierarchical_model`.
        nuts_sampler : {"pymc", "nutpie", "numpyro", "blackjax"}
            As in `pymc.sample`. PyMC's own takes points and scales of the fit, the others points only.
        log_likelihood : bool
            Whether to add the log-likelihood of every response and draw, for ``az.loo``.
        **kwargs
            Passed on to `pymc.sample`, such as ``cores=2``.

        Returns
        -------
        InferenceData or DataTree
            With the names, dims and coords of `to_inference_data`.

        Raises
        ------
        ModelError
            If the model cannot be batched over subjects.
        ValueError
            If the fit was loaded without its model.
        """
        from em_ppl.sampling import sample

        return sample(
            self,
            draws=draws,
            tune=tune,
            chains=chains,
            priors=priors,
            centred=centred,
            target_accept=target_accept,
            random_seed=random_seed,
            nuts_sampler=nuts_sampler,
            log_likelihood=log_likelihood,
            progressbar=progressbar,
            **kwargs,
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
        return as_text(self._headline, self._tables, self.advice, digits=".4g")

    def _repr_html_(self) -> str:
        return as_html(self._headline, self._tables, self.advice, digits=".4g")

    @property
    def _tables(self) -> list[pd.DataFrame]:
        coefficients = [self.group.coefficient_table()] if self.group.design.has_covariates else []
        return [self.summary(), *coefficients]

    @property
    def _headline(self) -> str:
        s, model = self.settings, self.group.plain.model
        end = "converged" if self.converged else "NOT CONVERGED"
        how = [s["estimator"], f"{model.structure} covariance"]
        how += [repr(model.distribution)] if model.distribution.heavy_tails else []
        how += [repr(model.prior)] if model.prior is not None else []
        return (
            f"EM-MAP fit of {s['model']} ({', '.join(how)}): "
            f"{self.subjects.sizes['subject']} subjects, {int(self.subjects['n_trials'].sum())} trials\n"
            f"{end} after {self.iterations} iterations in {s['seconds']:.2f} s "
            f"(+ {s['compile_seconds']:.1f} s compiling); log evidence {self.log_evidence:.3f}"
        )


def label_subjects(
    compiled: Likelihoods, group: Group, found: Posteriors, scheme: Scheme, **further: NDArray[Any]
) -> xr.Dataset:
    """Label what the E-step, and what came after it, found about every subject: see `Fit.subjects`."""
    parameters = [p for p in compiled.model.parameters.items() if not p[1].shared]
    names, row, square = (
        [name for name, _ in parameters],
        ("subject", "parameter"),
        ("subject", "parameter", "parameter_2"),
    )
    laplace, n = found.laplace, compiled.shape[0]
    integrated = np.full(n, scheme.estimator == "exact")
    integrated[scheme.hard] = True
    # to second order, moments are known: summed over points they would only be rounded
    mean = np.where(integrated[:, None], found.mean, laplace.mode - laplace.shift)
    z = group.standardise(laplace.mode)
    pull = np.einsum("nj,nji->ni", group.pull(z), group.inverse_cholesky[group.model.level])
    variables = {
        "natural": (row, np.column_stack([p.to_natural(mean[:, k]) for k, (_, p) in enumerate(parameters)])),
        "mode": (row, laplace.mode),
        "posterior_mean": (row, mean),
        "laplace_covariance": (square, laplace.covariance),
        "posterior_covariance": (square, np.where(integrated[:, None, None], found.covariance, laplace.covariance)),
        "slope": (row, laplace.slope[:, group.model.varying] - pull),
        "log_likelihood": ("subject", laplace.log_likelihood),
        "log_posterior": ("subject", laplace.log_likelihood + laplace.log_prior),
        "log_evidence": ("subject", found.log_evidence),
        "n_trials": ("subject", trial_counts(compiled.data)),
        "converged": ("subject", laplace.converged),
        "repaired": ("subject", laplace.repaired),
        "skewed": ("subject", laplace.shortened),
        "integrated": ("subject", integrated),
        **{name: ("subject", values) for name, values in further.items()},
    }
    if group.model.distribution.heavy_tails:
        variables["weight"] = (row, moments(group, found).weight)
    coords = {"subject": compiled.data["subject"].values, "parameter": names, "parameter_2": names}
    return xr.Dataset(variables, coords=coords)
