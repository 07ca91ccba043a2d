"""Which model describes the people best? Fits of the same data side by side.

References
----------
Yao, Y., Vehtari, A., Simpson, D., & Gelman, A. (2018). Using stacking to average Bayesian predictive distributions.
Bayesian Analysis, 13, 917-1007. https://doi.org/10.1214/17-BA1091 (weights)
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from em_ppl.checks import check_choices
from em_ppl.compat import loo_of_responses, read_group
from em_ppl.data import label_text
from em_ppl.em import ConvergenceWarning
from em_ppl.frequencies import ModelFrequencies, model_frequencies
from em_ppl.group import FloatArray
from em_ppl.progress import Progress
from em_ppl.result import Fit
from em_ppl.show import as_html, as_text

__all__ = ["Comparison", "check_same_responses", "compare"]

Criterion = Literal["ibic", "ibic_subjects", "iaic", "loso", "loo"]
OF_EVIDENCE = ("ibic", "ibic_subjects", "iaic")  # -2 log evidence and a penalty: small is good
LARGE_ERROR = 0.5  # Monte-Carlo error of a log evidence, in all
STACKING_STEPS = 10_000


@dataclass(frozen=True, repr=False)
class Comparison:
    """Fits of the same data side by side; made by `em_ppl.compare`.

    Attributes
    ----------
    table : DataFrame
        One row a model, the best first. ``log_evidence`` with its Monte-Carlo ``error``, ``laplace``, ``n_free``,
        ``iaic``, ``ibic``, ``ibic_subjects``: as in `Evidence`. ``loso``: log density of each subject's data under the
        group of the others, summed. ``loo``: of each response given all others (PSIS-LOO), summed. ``diff``: how much
        worse than the best, in the units of the criterion that sorts; ``dse``: standard error of that difference, from
        its variation over subjects. ``weight``: exp(-diff / 2), 1 in sum, for criteria made of the evidence (with iBIC,
        about the posterior probability of the model); stacking weights, for those that leave out. ``warning``: see
        `advice`.
    subjects : Dataset
        (subject, model): ``log_evidence``, ``error``, ``pareto_k``; ``loso`` and ``loo``, if they were asked for.
    by : str
        The criterion that sorts.
    advice : tuple of str
        What a careful reader should know before using the numbers; empty if all is well.
    """

    table: pd.DataFrame
    subjects: xr.Dataset
    by: Criterion
    advice: tuple[str, ...]

    @property
    def evidence(self) -> pd.DataFrame:
        """Log evidence, (subject, model)."""
        return self.subjects["log_evidence"].to_pandas()

    @cached_property
    def frequencies(self) -> ModelFrequencies:
        """How frequent each model is among people (random effects): `model_frequencies` of the log evidences.

        Of the densities of left-out subjects instead, if they sort: the evidence of subjects under a group that was
        fitted to them favours, if slightly, the larger of two nested models.
        """
        return model_frequencies(self.subjects["loso"].to_pandas() if self.by == "loso" else self.evidence)

    def __repr__(self) -> str:
        return as_text(self._headline, [self.table], self.advice, digits=".2f")

    def _repr_html_(self) -> str:
        return as_html(self._headline, [self.table], self.advice, digits=".2f")

    @property
    def _headline(self) -> str:
        n, k = (self.subjects.sizes[dim] for dim in ("subject", "model"))
        return f"{k} models of {n} subjects, best first by {self.by}"


def compare(
    fits: Mapping[str, Fit],
    *,
    by: Criterion = "ibic",
    loso: bool = False,
    loo: bool = False,
    progressbar: bool = True,
) -> Comparison:
    """Compare fits of the same data.

    Parameters
    ----------
    fits : mapping of str to Fit
        Two fits or more. Subjects are matched by their labels; their responses, and which of them are missing, must be
        the same.
    by : {"ibic", "ibic_subjects", "iaic", "loso", "loo"}
        What sorts the table. Take ``"ibic_subjects"`` for models that differ in covariates of people (see `Evidence`);
        ``"loso"`` asks how well new people are predicted, ``"loo"`` how well further trials of the same people are.
    loso : bool
        Whether to leave out one subject after the other (a short fit each).
    loo : bool
        Whether to leave out one response after the other, by Pareto-smoothed importance sampling from 1000 draws.
    progressbar : bool
        Whether to show progress.

    Returns
    -------
    Comparison
        Prints as a table. Its ``frequencies`` are the random-effects comparison over subjects.

    Raises
    ------
    ValueError
        If there are fewer than two fits, subjects or responses differ, or a fit was loaded without its model.

    Warns
    -----
    ConvergenceWarning
        If a fit did not converge, or a number is not to be trusted; says whose.

    Examples
    --------
    >>> import em_ppl as em, numpy as np, pymc as pm
    >>> @em.subject_model(level=em.Real())
    ... def constant(level, y):
    ...     pm.Normal("y", level, 1.0, observed=y)
    >>> @em.subject_model(level=em.Real(), slope=em.Real())
    ... def rising(level, slope, time, y):
    ...     pm.Normal("y", level + slope * time, 1.0, observed=y)
    >>> time, rng = np.arange(20.0), np.random.default_rng(0)
    >>> lines = rng.normal([0.0, 0.3], [1.0, 0.1], (30, 2))
    >>> data = em.from_subjects([{"time": time, "y": a + b * time + rng.normal(size=20)} for a, b in lines])
    >>> fits = {model.name: em.fit(model, data, progressbar=False) for model in (constant, rising)}
    >>> em.compare(fits, progressbar=False).table["rank"].to_dict()
    {'rising': 0, 'constant': 1}
    """
    check_choices(by=(by, Criterion))
    _check_fits(fits)
    names, labels = list(fits), next(iter(fits.values())).subjects["subject"].values
    columns: dict[str, list[xr.DataArray]] = {}
    responses: list[FloatArray] = []
    advice: list[str] = []
    with Progress(show=progressbar) as progress:
        for name, fit in fits.items():
            progress.say(f"{name}: evidence")
            for column in ("log_evidence", "error", "pareto_k"):
                columns.setdefault(column, []).append(fit.evidence.subjects[column].sel(subject=labels))
            advice += [f"{name}: {line}" for line in _advise(fit)]
            if loso or by == "loso":
                progress.say(f"{name}: leaving one subject out after the other")
                left_out = fit.leave_one_subject_out(progressbar=False)
                columns.setdefault("loso", []).append(left_out["log_density"].sel(subject=labels))
                advice += [f"{name}: {line}" for line in _advise_on_loso(left_out)]
            if loo or by == "loo":
                progress.say(f"{name}: leaving one response out after the other")
                elpd, unreliable = _leave_responses_out(fit)
                columns.setdefault("loo", []).append(elpd.groupby("subject").sum().to_xarray().sel(subject=labels))
                responses.append(elpd.sort_index().to_numpy())
                if unreliable:
                    advice.append(f"{name}: Pareto k-hat of PSIS-LOO is too large for {unreliable} responses.")
    dims, coords = ("subject", "model"), {"subject": labels, "model": names}
    subjects = xr.Dataset({k: (dims, np.column_stack([v.values for v in each])) for k, each in columns.items()}, coords)
    warned = [any(line.startswith(f"{name}: ") for line in advice) for name in names]
    table = _tabulate(fits, subjects, by, np.column_stack(responses) if responses else None)
    table["warning"] = pd.Series(warned, names).reindex(table.index)
    for line in advice:
        warnings.warn(line, ConvergenceWarning, stacklevel=2)
    return Comparison(table, subjects, by, tuple(advice))


def _tabulate(
    fits: Mapping[str, Fit], subjects: xr.Dataset, by: Criterion, responses: FloatArray | None
) -> pd.DataFrame:
    """Sum over subjects, and set every model against the best."""
    wanted = ("log_evidence", "error", "laplace", "n_free", "iaic", "ibic", "ibic_subjects")
    table = pd.DataFrame({name: {k: getattr(fit.evidence, k) for k in wanted} for name, fit in fits.items()}).T
    table = table.astype({"n_free": int})
    for column in ("loso", "loo"):
        if column in subjects:
            table[column] = subjects[column].sum("subject", skipna=False).to_series()
    penalised = by in OF_EVIDENCE
    table = table.sort_values(by, ascending=penalised, kind="stable").rename_axis("model")
    own = -2 * subjects["log_evidence"] if penalised else -subjects[by]
    beyond = (own - own.sel(model=table.index[0])).sel(model=table.index)
    table["diff"] = (table[by] - table[by].iloc[0]).abs()
    table["dse"] = np.sqrt(beyond.sizes["subject"]) * beyond.std("subject", ddof=1).values
    if penalised:
        weight = np.exp(-table["diff"] / 2)
        table["weight"] = weight / weight.sum()
    else:
        units = subjects["loso"].values if by == "loso" else responses
        assert units is not None
        table["weight"] = pd.Series(stacking_weights(units), list(fits)).reindex(table.index)
    table.insert(0, "rank", np.arange(len(table)))
    return table


def stacking_weights(log_density: FloatArray) -> FloatArray:
    """Weights of the mixture of models that best predicts what was left out, (unit, model) -> (model,).

    EM for the weights of a mixture; the problem is concave.
    """
    density = np.exp(log_density - log_density.max(1, keepdims=True))
    weights = np.full(density.shape[1], 1 / density.shape[1])
    for _ in range(STACKING_STEPS):
        joint = density * weights
        new = (joint / joint.sum(1, keepdims=True)).mean(0)
        if np.abs(new - weights).max() < 1e-9:
            break
        weights = new
    return weights


def _leave_responses_out(fit: Fit) -> tuple[pd.Series, int]:
    """Log predictive density of every response, and how many are unreliable; the index has a level ``subject``."""
    idata = fit.to_inference_data(progressbar=False)
    log_likelihood, found, unreliable = read_group(idata, "log_likelihood"), [], 0
    assert log_likelihood is not None
    for name in log_likelihood:
        elpd, bad = loo_of_responses(idata, str(name))
        own = f"{name}_subject"  # where responses are listed, since some are missing
        who = elpd[own if own in elpd.coords else "subject"].broadcast_like(elpd).values.ravel()
        index = pd.MultiIndex.from_arrays([np.full(elpd.size, str(name)), who, np.arange(elpd.size)])
        found.append(pd.Series(elpd.values.ravel(), index.set_names(["variable", "subject", "response"])))
        unreliable += bad
    return pd.concat(found), unreliable


def _advise(fit: Fit) -> list[str]:
    lines = [] if fit.converged else ["the fit did not converge; see fit.advice."]
    lines += [line for line in fit.evidence.advice if "k-hat" in line]
    if fit.evidence.error > LARGE_ERROR:
        lines.append(f"the Monte-Carlo error of the log evidence is {fit.evidence.error:.1f}.")
    return lines


def _advise_on_loso(left_out: xr.Dataset) -> list[str]:
    lost = int((~left_out["converged"]).sum())
    return [f"the group without a subject did not converge for {lost} subjects."] if lost else []


def _check_fits(fits: Mapping[str, Fit]) -> None:
    if not isinstance(fits, Mapping):
        raise TypeError('compare takes a mapping of names to fits, such as {"one": fit_1, "two": fit_2}.')
    for name, fit in fits.items():
        if not isinstance(fit, Fit):
            raise TypeError(f"{name} is no fit: {fit!r}.")
        if fit.model is None:
            raise ValueError(f"{name} was loaded without its model: load it by em.load(path, model=...).")
    if len(fits) < 2:
        raise ValueError(f"compare needs two fits or more; it has {len(fits)}.")
    check_same_responses(
        {name: fit.data for name, fit in fits.items()}, [f.settings["observed"] for f in fits.values()]
    )


def check_same_responses(data: Mapping[str, xr.Dataset], observed: Sequence[Sequence[str]]) -> None:
    """Refuse models of other subjects or other responses: their evidences would not be of the same thing.

    Parameters
    ----------
    data : mapping of str to Dataset
        By the name of the model.
    observed : list of list of str
        What each model observes.
    """
    first, own = next(iter(data)), sorted(observed[0])
    labels = data[first]["subject"].values
    for name, columns in zip(data, observed, strict=True):
        other = data[name]["subject"].values
        for have, lack, who in ((first, other, labels), (name, labels, other)):
            missing = [label for label in who if label not in lack]
            if missing:
                raise ValueError(
                    f"{first} and {name} have other subjects: subject {label_text(missing[0])} is in {have} only "
                    f"({len(missing)} such). Fit all models to the same subjects."
                )
        if sorted(columns) != own:
            raise ValueError(f"{first} observes {', '.join(own)}, but {name} observes {', '.join(sorted(columns))}.")
        # a likelihood of potentials alone observes nothing: then all that both read must be the same
        for column in own or sorted(set(map(str, data[first])) & set(map(str, data[name]))):
            _check_same_column(first, name, data[first][column], data[name][column].sel(subject=labels))


def _check_same_column(first: str, name: str, mine: xr.DataArray, other: xr.DataArray) -> None:
    a, b = _numbers(_flat(mine), _flat(other))
    width = max(a.shape[1], b.shape[1])  # one may have padding that the other has not
    a, b = (np.pad(v, ((0, 0), (0, width - v.shape[1])), constant_values=np.nan) for v in (a, b))
    gone = np.isnan(a) != np.isnan(b)
    differs = gone | ~np.isclose(a, b, rtol=1e-12, atol=0, equal_nan=True)
    if differs.any():
        who = np.flatnonzero(differs.any(1))
        what = "is missing in one of them only" if gone[who[0]].any() else "differs"
        raise ValueError(
            f"{first} and {name} have other responses: {mine.name!r} of subject "
            f"{label_text(mine['subject'].values[who[0]])} {what} ({len(who)} such subjects). "
            "Fit all models to the same data."
        )


def _flat(values: xr.DataArray) -> NDArray[Any]:
    return np.asarray(values.transpose("subject", ...).values).reshape(values.sizes["subject"], -1)


def _numbers(a: NDArray[Any], b: NDArray[Any]) -> tuple[FloatArray, FloatArray]:
    """Return both as numbers; text, which functions may read, as the number of the word."""
    if a.dtype.kind in "biuf" and b.dtype.kind in "biuf":
        return a.astype(float), b.astype(float)
    codes = pd.factorize(np.concatenate([a.ravel().astype(str), b.ravel().astype(str)]))[0].astype(float)
    return codes[: a.size].reshape(a.shape), codes[a.size :].reshape(b.shape)
