"""Does the fast answer hold? A fit by EM against the same model sampled by NUTS, number by number.

Compared is what EM takes to be Normal, on the scale on which it does so: group means, coefficients and shared
parameters in Gaussian space, SDs as logs, correlations on Fisher's scale, subjects in Gaussian space.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np
import pandas as pd
import scipy
import xarray as xr

from em_ppl import compat
from em_ppl.result import Fit
from em_ppl.translation import posterior_of

__all__ = ["Agreement", "agreement"]

# Vehtari et al. (2021): below this many effective draws, or above this R-hat, a chain supports no conclusion
FEWEST_DRAWS, LARGEST_R_HAT = 400, 1.01
# a shift of a quarter of a posterior SD leaves a 95 % interval 94 %; so does one that is 0.95 as wide
LARGEST_SHIFT = 0.25  # posterior SDs of NUTS
SD_RATIOS = (0.8, 1.25)
OUTLYING = 0.5  # posterior SDs by which a subject is named
DRAWS = 1000  # per chain, of a fit that comes without


@dataclass(frozen=True, repr=False)
class Agreement:
    """How far a fit by EM agrees with NUTS; made by `agreement`.

    Attributes
    ----------
    group : DataFrame
        One row for each number of the group. ``em`` and ``nuts``: posterior means. ``shift``: EM's minus NUTS's, in
        NUTS's SDs. ``sd_ratio``: EM's SD over NUTS's. ``distance``: Wasserstein's, in NUTS's SDs. ``r_hat`` and ``ess``
        of NUTS. ``verdict``.
    subjects : DataFrame
        One row for each parameter: root mean square ``shift`` of the subjects' means and the ``largest``, with
        ``whose`` it is; median ``sd_ratio`` and ``distance``; ``rank``, Spearman's correlation over subjects of the two
        means; the worst ``r_hat`` and ``ess``; ``verdict``.
    by_subject : Dataset
        ``shift``, ``sd_ratio``, ``distance``, ``r_hat`` and ``ess``, (subject, parameter).
    estimator : str
        What EM did.
    """

    group: pd.DataFrame
    subjects: pd.DataFrame
    by_subject: xr.Dataset
    estimator: str

    @property
    def holds(self) -> bool:
        """Whether every verdict is that it holds."""
        return bool((pd.concat([self.group["verdict"], self.subjects["verdict"]]) == HOLDS).all())

    def __repr__(self) -> str:
        tables = (table.to_string(float_format=_digits) for table in (self.group, self.subjects))
        return "\n\n".join([self._headline, *tables, RULE])

    def _repr_html_(self) -> str:
        tables = (table.to_html(float_format=_digits, border=0) for table in (self.group, self.subjects))
        return f"<p><b>{escape(self._headline)}</b></p>{''.join(tables)}<p>{escape(RULE)}</p>"

    @property
    def _headline(self) -> str:
        verdicts = pd.concat([self.group["verdict"], self.subjects["verdict"]])
        held = int((verdicts == HOLDS).sum())
        return f'EM (estimator="{self.estimator}") against NUTS: {held} of {len(verdicts)} hold'


HOLDS = "holds"
RULE = (
    f"holds: the mean within {LARGEST_SHIFT} of NUTS's SD and EM's SD {SD_RATIOS[0]} to {SD_RATIOS[1]} times NUTS's "
    f"(subjects: root mean square and median). No verdict where R-hat > {LARGEST_R_HAT} or ESS < {FEWEST_DRAWS}."
)


def agreement(em: Any, nuts: Any) -> Agreement:
    """Compare a fit by EM with the same model sampled by NUTS.

    Parameters
    ----------
    em : Fit, InferenceData or DataTree
        What `em_ppl.fit` returned, or its `Fit.to_inference_data`.
    nuts : InferenceData or DataTree
        From `Fit.sample`, or `pymc.sample` in the hierarchical model.

    Returns
    -------
    Agreement
        Tables with a verdict for each number of the group, and for the subjects of each parameter.

    Raises
    ------
    ValueError
        If the two have not the same variables, subjects or parameters.

    References
    ----------
    Vehtari, A., Gelman, A., Simpson, D., Carpenter, B., & Bürkner, P.-C. (2021). Rank-normalization, folding, and
    localization: An improved R-hat for assessing convergence of MCMC. Bayesian Analysis, 16, 667-718.
    https://doi.org/10.1214/20-BA1221

    Examples
    --------
    >>> import em_ppl as em
    >>> fit = em.load("fit.nc", model=model)  # doctest: +SKIP
    >>> em.agreement(fit, fit.sample())  # doctest: +SKIP
    """
    idata = em.to_inference_data(draws=DRAWS, chains=4, log_likelihood=False) if isinstance(em, Fit) else em
    ours = _posterior(idata, "em")
    theirs = posterior_of(em, nuts) if isinstance(em, Fit) else _posterior(nuts, "nuts")
    _check_same(ours, theirs)
    estimator = str(getattr(idata, "attrs", {}).get("inference_method", "em_?")).removeprefix("em_")
    group = pd.DataFrame(
        {
            name: {"em": float(a.mean()), "nuts": float(b.mean()), **_compare(a, b)}
            for (name, a), (_, b) in zip(_group_quantities(ours), _group_quantities(theirs), strict=True)
        }
    ).T
    theirs = theirs.assign_coords(subject=ours["subject"].values)  # PyMC makes text of labels that are no plain ones
    by_subject = _compare_subjects(ours["gaussian"], theirs["gaussian"])
    subjects = _summarise(by_subject, ours, theirs)
    helps = _exact_would_help(idata)
    for table in (group, subjects):
        table["verdict"] = [_verdict(str(name), row, estimator, helps) for name, row in table.iterrows()]
    return Agreement(group, subjects, by_subject, estimator)


def _posterior(idata: Any, which: str) -> xr.Dataset:
    posterior = compat.read_group(idata, "posterior")
    if posterior is None or "gaussian" not in posterior or "group_sd" not in posterior:
        raise ValueError(
            f"{which} has no posterior of a hierarchical model of em_ppl: it needs 'gaussian' and 'group_sd'."
        )
    return posterior


def _check_same(ours: xr.Dataset, theirs: xr.Dataset) -> None:
    for dim in ("subject", "parameter"):
        if [str(label) for label in ours[dim].values] != [str(label) for label in theirs[dim].values]:
            raise ValueError(f"em and nuts are not of the same model and data: their {dim}s differ.")
    names = [[name for name, _ in _group_quantities(posterior)] for posterior in (ours, theirs)]
    if names[0] != names[1]:
        odd = sorted(set(names[0]) ^ set(names[1]))
        raise ValueError(f"em and nuts are not of the same model: {', '.join(odd)} is in one of them only.")


def _group_quantities(posterior: xr.Dataset) -> Iterator[tuple[str, xr.DataArray]]:
    """Go through the numbers of the group, (chain, draw) each, on the scale on which EM takes them to be Normal."""
    location = "group_coefficients" if "group_coefficients" in posterior else "group_mean"
    yield from _entries(location, posterior[location])
    yield from _entries("log group_sd", xr.apply_ufunc(np.log, posterior["group_sd"]))
    if "group_correlation" in posterior:
        for label, values in _entries("group_correlation", posterior["group_correlation"]):
            first, second = (str(values[dim].item()) for dim in ("parameter", "parameter_2"))
            names = list(posterior["parameter"].values)
            if names.index(first) < names.index(second):
                yield label, xr.apply_ufunc(np.arctanh, values)
    varying = set(posterior["parameter"].values)
    for name, variable in posterior.data_vars.items():
        parameter = str(name).removesuffix("_gaussian")
        if variable.dims == ("chain", "draw") and parameter != name and parameter not in varying:
            yield str(name), variable


def _entries(name: str, variable: xr.DataArray) -> Iterator[tuple[str, xr.DataArray]]:
    dims = [dim for dim in variable.dims if dim not in ("chain", "draw")]
    stacked = variable.stack(entry=dims)
    for k in range(stacked.sizes["entry"]):
        one = stacked.isel(entry=k)
        labels = ", ".join(str(one[dim].item()) for dim in dims)
        yield f"{name}[{labels}]", one


def _compare(ours: xr.DataArray, theirs: xr.DataArray) -> dict[str, float]:
    """Compare two sets of draws, (chain, draw)."""
    mean, sd = float(theirs.mean()), float(theirs.std())
    dataset = theirs.drop_vars([c for c in theirs.coords if c not in ("chain", "draw")]).to_dataset(name="x")
    return {
        "shift": (float(ours.mean()) - mean) / sd,
        "sd_ratio": float(ours.std()) / sd,
        "distance": float(scipy.stats.wasserstein_distance(ours.values.ravel(), theirs.values.ravel())) / sd,
        "r_hat": float(compat.arviz().rhat(dataset)["x"]),
        "ess": float(compat.arviz().ess(dataset)["x"]),
    }


def _compare_subjects(ours: xr.DataArray, theirs: xr.DataArray) -> xr.Dataset:
    draws = ("chain", "draw")
    ours, theirs = (x.transpose(*draws, "subject", "parameter") for x in (ours, theirs))
    sd = theirs.std(draws)
    a, b = (x.values.reshape(-1, *x.shape[2:]) for x in (ours, theirs))
    # Wasserstein's distance is the mean distance of equally many sorted draws
    quantiles = (np.arange(200) + 0.5) / 200
    apart = np.abs(np.quantile(a, quantiles, axis=0) - np.quantile(b, quantiles, axis=0)).mean(0)
    diagnosed = theirs.to_dataset(name="x")
    return xr.Dataset(
        {
            "shift": (ours.mean(draws) - theirs.mean(draws)) / sd,
            "sd_ratio": ours.std(draws) / sd,
            "distance": (("subject", "parameter"), apart / sd.values),
            "r_hat": compat.arviz().rhat(diagnosed)["x"],
            "ess": compat.arviz().ess(diagnosed)["x"],
        }
    )


def _exact_would_help(idata: Any) -> bool:
    """Whether exact EM would move the group by more than agreement allows, as far as the fit knows."""
    ours = json.loads(getattr(idata, "attrs", {}).get("em_ppl", "{}"))
    distances = ours.get("settings", {}).get("distance_to_exact", {}).values()
    return any(abs(distance) > LARGEST_SHIFT for distance in distances)


def _summarise(table: xr.Dataset, ours: xr.Dataset, theirs: xr.Dataset) -> pd.DataFrame:
    rows = {}
    for name in table["parameter"].values:
        own = table.sel(parameter=name)
        worst = int(np.abs(own["shift"].values).argmax())
        means = [x["gaussian"].sel(parameter=name).mean(("chain", "draw")).values for x in (ours, theirs)]
        rows[f"gaussian[{name}]"] = {
            "shift": float(np.sqrt((own["shift"] ** 2).mean())),
            "largest": float(own["shift"][worst]),
            "whose": own["subject"].values[worst],
            "sd_ratio": float(own["sd_ratio"].median()),
            "distance": float(own["distance"].median()),
            "rank": float(scipy.stats.spearmanr(*means).statistic),
            "r_hat": float(own["r_hat"].max()),
            "ess": float(own["ess"].min()),
        }
    return pd.DataFrame.from_dict(rows, orient="index")


def _verdict(name: str, row: pd.Series, estimator: str, exact_would_help: bool) -> str:
    """Say in words what the numbers mean, and what to do."""
    if not (row["r_hat"] <= LARGEST_R_HAT and row["ess"] >= FEWEST_DRAWS):
        return f"no verdict: NUTS has not converged (R-hat {row['r_hat']:.2f}, ESS {row['ess']:.0f}); draw more"
    found = []
    if abs(row["shift"]) > LARGEST_SHIFT:
        shrinks = name.startswith("log group_sd") and row["shift"] < 0 and estimator == "laplace"
        where = "off" if name.startswith("gaussian[") else "too low" if row["shift"] < 0 else "too high"
        found.append("shrinks too much" if shrinks else f"is {where}")
    if row["sd_ratio"] < SD_RATIOS[0]:
        found.append("is too sure")
    elif row["sd_ratio"] > SD_RATIOS[1]:
        found.append("is too unsure")
    if not found:
        return HOLDS
    who = "MAP" if found[0] == "shrinks too much" else "EM"
    return f"{who} {' and '.join(found)}: use NUTS" + (' or estimator="exact"' if exact_would_help else "")


def _digits(value: float) -> str:
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"
