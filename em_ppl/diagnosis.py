"""Before NUTS: where its answer is likely to differ from a fit's, forecast from the fit.

One step of exact EM from where the fit ended shows what its approximation of the subjects' posteriors cost: integrated
posteriors give the score of the marginal likelihood, a Newton step the group that it would like better, and posteriors
integrated under that group the subjects. What is left is that EM maximises and NUTS averages: the mean of a log SD's
posterior lies above its mode.
"""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from em_ppl.e_step import Posteriors, integrate
from em_ppl.estimators import ImportanceSampling
from em_ppl.evidence import UNRELIABLE, settle
from em_ppl.group import FloatArray, Group, HyperPrior
from em_ppl.m_step import prior_score, scores

if TYPE_CHECKING:
    from em_ppl.result import Fit

__all__ = ["Diagnosis"]

LARGEST_SHIFT = 0.25  # posterior SDs, as of `em_ppl.agreement`
HARDLY_KNOWN = 0.5  # standard error of a log SD: then its posterior is skewed, and depends on the prior
LONGEST_STEP = 3.0  # standard errors that a Newton step is trusted for
HOLDS = "should hold"


@dataclass(frozen=True, repr=False)
class Diagnosis:
    """Where NUTS is likely to differ from a fit; made by `Fit.diagnose`.

    Attributes
    ----------
    group : DataFrame
        One row for each number of the group, on the scale of `em_ppl.agreement`: the ``estimate``, its standard error
        ``se``, the ``shift`` that is to be expected of EM against NUTS, in posterior SDs, and a ``forecast``.
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
    shift = (table["estimate"] - fit.group.quantities(better)["estimate"]) / table["se"]
    table["shift"] = shift - _averaging(fit, table["se"])
    table["forecast"] = [_forecast(str(name), row) for name, row in table.iterrows()]
    return Diagnosis(table, _subjects(fit, there), _notes(fit, here))


def _integrated(fit: Fit, group: Group, mode: FloatArray) -> Posteriors:
    rule = ImportanceSampling().rule(group, np.random.default_rng(fit.settings["random_seed"]))
    return integrate(fit.compiled, group, settle(fit.compiled, group, mode), rule)


def _newton_step(fit: Fit, group: Group, posteriors: Posteriors) -> Group:
    """Return the group that the integrated likelihood would like better."""
    covariance = fit.group.free_covariance.values
    known = np.isfinite(np.diag(covariance))
    inner, score = covariance[np.ix_(known, known)], scores(group, posteriors).sum(0) + prior_score(group)
    step = np.zeros(len(known))
    step[known] = inner @ score[known]
    longest = np.max(np.abs(step[known]) / np.sqrt(np.diag(inner)), initial=0.0)
    return group.from_vector(group.to_vector() + step * min(1.0, LONGEST_STEP / max(longest, 1e-300)))


def _averaging(fit: Fit, se: pd.Series) -> pd.Series:
    """How far the posterior mean of a log SD lies above its most likely value, in posterior SDs; 0 for all else.

    A prior that is flat in the SD grows with its log, which moves the mean by se^2 (less what a HalfNormal falls); the
    uncertainty of K coefficients of the mean, which the likelihood's maximum leaves out, by K / 2 N.
    """
    model = fit.group.plain.model
    above = pd.Series(0.0, index=se.index)
    if isinstance(model.prior, HyperPrior):  # what was maximised counts the prior of the log already
        return above
    logs = [name for name in se.index if name.startswith("log group_sd")]
    sd = fit.group.plain.sd
    falls = (sd / model.spread[model.varying]) ** 2
    share = np.bincount(model.belongs_to, minlength=sd.shape[1]) / (2 * model.members.sum(1)[:, None])
    above[logs] = se[logs] * np.maximum(1 - falls, 0.0).ravel() + share.ravel() / se[logs]
    return above


def _forecast(name: str, row: pd.Series) -> str:
    if not np.isfinite(row["se"]):
        return "doubtful: the data do not determine it" + (
            ", an SD that has gone to 0" if name.startswith("log group_sd") else ""
        )
    if name.startswith("log group_sd") and row["se"] > HARDLY_KNOWN:
        return "doubtful: hardly known, so that NUTS will say what the prior says"
    return _of_shift(row["shift"])


def _of_shift(shift: float) -> str:
    if not abs(shift) > LARGEST_SHIFT:
        return HOLDS
    return f"doubtful: about {abs(shift):.1f} SDs too {'low' if shift < 0 else 'high'}"


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
