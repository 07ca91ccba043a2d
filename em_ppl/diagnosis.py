"""Before NUTS: where its answer is likely to differ from a fit's, forecast from the fit.

One step of exact EM from where the fit ended shows what its approximation of the subjects' posteriors cost: integrated
posteriors give the score of the marginal likelihood, a Newton step the group that it would like better, and posteriors
integrated under that group the subjects. What is left is that EM maximises and NUTS averages, which matters for the
SDs: their posterior is integrated on a grid.
"""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from em_ppl.agreement import LARGEST_SHIFT, SD_RATIOS
from em_ppl.e_step import Posteriors, integrate
from em_ppl.estimators import ImportanceSampling
from em_ppl.evidence import UNRELIABLE, settle
from em_ppl.group import FloatArray, Group, HyperPrior
from em_ppl.hierarchy import prior_of_coefficients, scales
from em_ppl.m_step import coefficient_prior, group_score
from em_ppl.uncertainty import distance_to_exact

if TYPE_CHECKING:
    from em_ppl.result import Fit

__all__ = ["Diagnosis"]

FEWEST_KNOWN = 0.1  # of the group's precision, that a subject's trials are taken to have at least
GRID = np.linspace(-9.0, 3.0, 601)  # of a log SD, around its estimate
LONGEST_STEP = 3.0  # standard errors that a Newton step is trusted for
HOLDS = "should hold"


@dataclass(frozen=True, repr=False)
class Diagnosis:
    """Where NUTS is likely to differ from a fit; made by `Fit.diagnose`.

    Attributes
    ----------
    group : DataFrame
        One row for each number of the group, on the scale of `em_ppl.agreement`: the ``estimate``, its standard error
        ``se``, the ``shift`` that is to be expected of EM against NUTS, in posterior SDs, and ``sd_ratio``, its SD over
        NUTS's (1, where nothing else is known); a ``forecast`` in words.
    subjects : DataFrame
        One row for each parameter: ``known``, the share of the group's variance that trials resolve; root mean square
        ``shift`` of the subjects' means to be expected; ``forecast``.
    notes : tuple of str
        Subjects whose posterior is far from Normal.
    """

    group: pd.DataFrame
    subjects: pd.DataFrame
    notes: tuple[str, ...]

    @property
    def holds(self) -> bool:
        """Whether everything is forecast to hold."""
        return bool((pd.concat([self.group["forecast"], self.subjects["forecast"]]) == HOLDS).all())

    def __repr__(self) -> str:
        tables = [table.to_string(float_format=_digits) for table in (self.group, self.subjects)]
        return "\n\n".join(tables) + "".join(f"\n! {note}" for note in self.notes)

    def _repr_html_(self) -> str:
        tables = "".join(table.to_html(float_format=_digits, border=0) for table in (self.group, self.subjects))
        return tables + "".join(f"<p>{escape(note)}</p>" for note in self.notes)


def diagnose(fit: Fit) -> Diagnosis:
    """See `Fit.diagnose`."""
    compiled, group = fit.compiled, fit.group.plain
    compiled.compile(value_alone=not len(group.shared))
    here = _integrated(fit, group, fit.subjects["mode"].values)
    better = _newton_step(fit, group, here)
    there = _integrated(fit, better, here.mean)
    table = fit.group.quantities()
    start, spread = scales(compiled)
    averaged = pd.concat([_coefficients(fit, table, start, spread), _log_sds(fit, here, spread[group.model.varying])])
    averaged = averaged.reindex(table.index)
    sd = averaged["sd"].fillna(table["se"])
    moved = table["estimate"] - fit.group.quantities(better)["estimate"]
    table["shift"] = ((moved - averaged["above"].fillna(0.0)) / sd).where(np.isfinite(table["se"]))
    table["sd_ratio"] = table["se"] / sd
    table["forecast"] = [_forecast(str(name), row) for name, row in table.iterrows()]
    return Diagnosis(table, _subjects(fit, there), _notes(fit, here))


def _integrated(fit: Fit, group: Group, mode: FloatArray) -> Posteriors:
    rule = ImportanceSampling().rule(group, np.random.default_rng(fit.settings["random_seed"]))
    return integrate(fit.compiled, group, settle(fit.compiled, group, mode), rule)


def _newton_step(fit: Fit, group: Group, posteriors: Posteriors) -> Group:
    """Return the group that the integrated likelihood would like better."""
    covariance = fit.group.free_covariance.values
    distance = np.nan_to_num(distance_to_exact(group_score(group, posteriors), covariance))
    trusted = min(1.0, LONGEST_STEP / max(np.abs(distance).max(), 1e-300))
    return group.from_vector(group.to_vector() + trusted * distance * np.sqrt(np.nan_to_num(np.diag(covariance))))


def _coefficients(fit: Fit, table: pd.DataFrame, start: FloatArray, spread: FloatArray) -> pd.DataFrame:
    """Posterior of the coefficients of the means, were the likelihood Normal: mean above EM's maximum, and SD.

    NUTS's priors take the place of the fit's own, if it has one.
    """
    group = fit.group.plain
    names = table.index[: len(group.coefficients)]
    se = table.loc[names, "se"].to_numpy()
    if isinstance(group.model.prior, HyperPrior):
        return pd.DataFrame({"above": 0.0, "sd": se}, index=names)
    centre, sd = prior_of_coefficients(group.model, fit.group.design, fit.parameters, start, spread)
    own_score, own_information = coefficient_prior(group)
    precision = se**-2.0 - own_information + sd**-2.0
    above = ((centre - group.coefficients) / sd**2 - own_score) / precision
    return pd.DataFrame({"above": above, "sd": precision**-0.5}, index=names)


def _log_sds(fit: Fit, posteriors: Posteriors, spread: FloatArray) -> pd.DataFrame:
    """Posterior of each log SD under NUTS's priors: mean above where EM's maximum is, and SD.

    Each subject's trials are summarised by a Normal likelihood, as in `Fit.to_inference_data`; one parameter at a time,
    the mean is then integrated out by hand, and the log SD on a grid.
    """
    group, model = fit.group.plain, fit.group.plain.model
    variance = np.diagonal(posteriors.covariance, axis1=1, axis2=2)
    prior = group.sd[model.level] ** 2
    # variance of each subject's own estimate; one that is skewed may be less sure after its trials than before
    noise = 1 / np.maximum(1 / variance - 1 / prior, FEWEST_KNOWN / prior)
    centre = group.location + (posteriors.mean - group.location) * (1 + noise / prior)
    rows = {}
    for level, label in enumerate([f"{value}, " for value in fit.group.design.levels] or [""]):
        own = model.level == level
        for k, name in enumerate(fit.group.varying):
            grid = np.log(group.sd[level, k]) + GRID
            columns = _basis(model.design[own, k][:, model.belongs_to == k])
            of_sd, of_mean = _log_likelihood_of_sd(centre[own, k], noise[own, k], columns, np.exp(2 * grid))
            own_prior = _own_log_prior(fit, k, grid)
            hyper = isinstance(model.prior, HyperPrior)
            weight = of_sd + of_mean + (own_prior if hyper else grid - 0.5 * np.exp(2 * grid) / spread[k] ** 2)
            p = np.exp(weight - weight.max())
            p /= p.sum()
            mean = p @ grid
            above = mean - _peak(grid, weight if hyper else of_sd + own_prior)
            rows[f"log group_sd[{label}{name}]"] = {"above": above, "sd": np.sqrt(p @ (grid - mean) ** 2)}
    return pd.DataFrame.from_dict(rows, orient="index")


def _basis(columns: FloatArray) -> FloatArray:
    """Orthonormal columns that span the same: within a class of people some may be 0, or the same."""
    left, values, _ = np.linalg.svd(columns, full_matrices=False)
    return np.asarray(left[:, values > 1e-9 * values.max(initial=0.0)])


def _peak(grid: FloatArray, values: FloatArray) -> float:
    """Where a curve on a grid is highest, by a parabola through three points."""
    i = int(np.clip(values.argmax(), 1, len(grid) - 2))
    below, at, above = values[i - 1 : i + 2]
    bend = below - 2 * at + above
    return float(grid[i] + (0.5 * (below - above) / bend * (grid[1] - grid[0]) if bend < 0 else 0.0))


def _log_likelihood_of_sd(
    centre: FloatArray, noise: FloatArray, columns: FloatArray, variances: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Log likelihood of group variances, coefficients at their best; and what integrating these adds."""
    total = noise + variances[:, None]  # (variance, subject)
    information = np.einsum("nk,vn,nl->vkl", columns, 1 / total, columns)
    pulled = np.einsum("nk,vn,n->vk", columns, 1 / total, centre)
    best = np.linalg.solve(information, pulled[:, :, None])[:, :, 0]
    residual = centre - best @ columns.T
    return -0.5 * (np.log(total) + residual**2 / total).sum(1), -0.5 * np.linalg.slogdet(information)[1]


def _own_log_prior(fit: Fit, k: int, log_sd: FloatArray) -> FloatArray:
    """Log density by which the fit itself judged a log SD; 0 without a prior."""
    group, prior = fit.group.plain, fit.group.plain.model.prior
    if isinstance(prior, HyperPrior):
        vector, place = group.to_vector(), len(group.coefficients) + k
        at = np.arange(len(vector)) == place
        return np.array([prior.log_density(np.where(at, x, vector)) for x in log_sd])
    return (0.0 if prior is None else prior.sd_shape - 1) * log_sd


def _forecast(name: str, row: pd.Series) -> str:
    if not np.isfinite(row["se"]):
        collapsed = name.startswith("log group_sd")
        return f"doubtful: {'an SD that has gone to 0' if collapsed else 'the data do not determine it'}"
    found = []
    if abs(row["shift"]) > LARGEST_SHIFT:
        found.append(f"about {abs(row['shift']):.1f} SDs too {'low' if row['shift'] < 0 else 'high'}")
    if row["sd_ratio"] < SD_RATIOS[0]:
        found.append("too sure")
    elif row["sd_ratio"] > SD_RATIOS[1]:
        found.append("too unsure")
    return f"doubtful: {' and '.join(found)}" if found else HOLDS


def _subjects(fit: Fit, exact: Posteriors) -> pd.DataFrame:
    sd = np.sqrt(np.diagonal(exact.covariance, axis1=1, axis2=2))
    shift = np.sqrt((((fit.subjects["posterior_mean"].values - exact.mean) / sd) ** 2).mean(0))
    known = fit.summary().filter(like="known").loc[fit.group.varying].mean(axis=1)
    table = pd.DataFrame({"known": known.to_numpy(), "shift": shift})
    table.index = pd.Index([f"gaussian[{name}]" for name in fit.group.varying])
    table["forecast"] = [
        HOLDS if value <= LARGEST_SHIFT else f"doubtful: about {value:.1f} SDs off" for value in table["shift"]
    ]
    return table


def _notes(fit: Fit, posteriors: Posteriors) -> tuple[str, ...]:
    n = len(posteriors.mean)
    assert posteriors.pareto_k is not None
    counts = {
        "Pareto k-hat is above 0.7": int((posteriors.pareto_k > UNRELIABLE).sum()),
        "the curvature was repaired": int(fit.subjects["repaired"].sum()),
        "no mode was found": int((~fit.subjects["converged"]).sum()),
    }
    return tuple(f"{what} for {count} of {n} subjects" for what, count in counts.items() if count)


def _digits(value: float) -> str:
    return f"{value:.3g}"
