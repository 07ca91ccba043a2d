"""Evidence: how probable the data are, subjects' parameters integrated out; and the information criteria made of it.

References
----------
Huys, Q. J. M., Cools, R., Gölzer, M., Friedel, E., Heinz, A., Dolan, R. J., & Dayan, P. (2011). Disentangling the roles
of approach, activation and valence in instrumental and Pavlovian responding. PLoS Computational Biology, 7, e1002028.
https://doi.org/10.1371/journal.pcbi.1002028

Delattre, M., Lavielle, M., & Poursat, M.-A. (2014). A note on BIC in mixed-effects models. Electronic Journal of
Statistics, 8, 456-475. https://doi.org/10.1214/14-EJS890
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
import xarray as xr

from em_ppl.advice import advise_on_distance
from em_ppl.compat import pareto_smooth
from em_ppl.compiled import CompiledModel
from em_ppl.data import label_text
from em_ppl.e_step import weigh
from em_ppl.estimators import ImportanceSampling, Rule
from em_ppl.group import FloatArray, Group
from em_ppl.m_step import complete_scores, prior_score
from em_ppl.modes import LaplaceApproximation, Start, approximate
from em_ppl.uncertainty import distance_to_exact

if TYPE_CHECKING:
    from em_ppl.result import Fit

__all__ = ["Evidence"]

REPLICATES = 8  # independent shifts of the Sobol points: the spread over them is the error
INTEGRATION = ImportanceSampling(draws=256)  # of each replicate
UNRELIABLE = 0.7  # Pareto k-hat


@dataclass(frozen=True, repr=False)
class Evidence:
    """Log marginal likelihood of a fit's subjects, and the criteria made of it; small criteria are good.

    With p(Y) the integrated evidence of all, k the number of the group's free numbers (coefficients of means,
    variances, covariances, shared parameters), T trials with a response and N subjects in all:

    - ``iaic`` is -2 log p(Y) + 2 k.
    - ``ibic`` is -2 log p(Y) + k log T: Huys et al. (2011), pyEM.
    - ``ibic_subjects`` is -2 log p(Y) + k log N, for a group's mean and SD are known the better the more subjects there
      are, not the more trials (Delattre et al. 2014). Take it to choose covariates of people.
    - ``bic`` integrates nothing, but takes each subject's parameters at its mode m_i as if it stood alone: the sum over
      subjects of -2 log p(y_i | m_i) + P log T_i, P varying parameters (and Q log T for Q shared ones).

    Values compare models of the same data only.

    Attributes
    ----------
    subjects : Dataset
        Per subject: ``laplace`` (Laplace's approximation), ``log_evidence`` (by importance sampling), its standard
        ``error`` (Monte-Carlo), and ``pareto_k`` (above 0.7 the posterior is far from the approximation that was
        sampled around, and neither is to be trusted).
    n_free, n_trials : int
        k and T.
    bic : float
        See above.
    distance : DataArray
        (free,), in standard errors: about how far exact maximum likelihood is from the fit's group (a Newton step on
        the integrated likelihood). What ``estimator="exact"`` would change.
    """

    subjects: xr.Dataset
    n_free: int
    n_trials: int
    bic: float
    distance: xr.DataArray

    @property
    def laplace(self) -> float:
        """Sum of Laplace's log evidences."""
        return float(self.subjects["laplace"].sum())

    @property
    def log_evidence(self) -> float:
        """Sum of the integrated log evidences."""
        return float(self.subjects["log_evidence"].sum())

    @property
    def error(self) -> float:
        """Standard error of `log_evidence`; subjects have points of their own, so that errors are independent."""
        return float(np.sqrt((self.subjects["error"] ** 2).sum()))

    @property
    def iaic(self) -> float:
        """Integrated AIC."""
        return -2 * self.log_evidence + 2 * self.n_free

    @property
    def ibic(self) -> float:
        """Integrated BIC that counts trials."""
        return -2 * self.log_evidence + self.n_free * float(np.log(self.n_trials))

    @property
    def ibic_subjects(self) -> float:
        """Integrated BIC that counts subjects."""
        return -2 * self.log_evidence + self.n_free * float(np.log(self.subjects.sizes["subject"]))

    @property
    def unreliable(self) -> list[Any]:
        """Subjects with a Pareto k-hat above 0.7."""
        return list(self.subjects["subject"].values[self.subjects["pareto_k"].values > UNRELIABLE])

    def summary(self) -> pd.Series:
        """Tabulate sums and criteria."""
        names = ("log_evidence", "error", "laplace", "iaic", "ibic", "ibic_subjects", "bic")
        return pd.Series({name: getattr(self, name) for name in names}, name="evidence")

    @property
    def advice(self) -> tuple[str, ...]:
        """What a careful reader should know before using the numbers; empty if all is well."""
        lines = []
        if self.unreliable:
            shown = ", ".join(map(label_text, self.unreliable[:5])) + (" ..." if len(self.unreliable) > 5 else "")
            lines.append(
                f"Pareto k-hat is above 0.7 for {len(self.unreliable)} subjects: {shown}. Their evidence is rough."
            )
        return (*lines, *advise_on_distance(self.distance.to_series().to_dict()))

    def __repr__(self) -> str:
        table = self.summary().to_string(float_format=lambda value: f"{value:.3f}")
        return "\n".join([table, *(f"! {line}" for line in self.advice)])


def compute_evidence(fit: Fit) -> Evidence:
    """See `Fit.evidence`."""
    compiled, group, labels = fit.compiled, fit.group.plain, fit.subjects["subject"].values
    compiled.compile(value_alone=not len(group.shared))
    laplace = settle(compiled, group, fit.subjects["mode"].values)
    found = integrate_evidence(compiled, group, laplace, fit.settings["random_seed"])
    columns = {"laplace": laplace.log_evidence, "log_evidence": found.value, "error": found.error}
    columns["pareto_k"] = found.pareto_k
    trials = _count_trials(compiled)
    own = -2 * laplace.log_likelihood + len(fit.group.varying) * np.log(trials)
    return Evidence(
        subjects=xr.Dataset({k: ("subject", v) for k, v in columns.items()}, coords={"subject": labels}),
        n_free=fit.group.free.size,
        n_trials=int(trials.sum()),
        bic=float(own.sum() + len(group.shared) * np.log(trials.sum())),
        distance=fit.group.free.copy(
            data=distance_to_exact(found.score.sum(0) + prior_score(group), fit.group.free_covariance.values)
        ),
    )


def settle(compiled: CompiledModel, group: Group, mode: FloatArray) -> LaplaceApproximation:
    """Approximate every posterior around a mode that is known; twice, since the shift wants the curvature there."""
    return compiled.map(_settle, group, mode)


def _settle(compiled: CompiledModel, group: Group, mode: FloatArray) -> LaplaceApproximation:
    """`settle` of a portion of the subjects."""
    n, p = mode.shape
    first = approximate(compiled, group, Start(mode, np.zeros((n, p, p))))
    return approximate(compiled, group, first.start)


class Integrated(NamedTuple):
    """Log evidence of each subject, its standard error, Pareto k-hat, and its score by the group's free numbers."""

    value: FloatArray  # (subject,)
    error: FloatArray
    pareto_k: FloatArray
    score: FloatArray  # (subject, number)


def integrate_evidence(
    compiled: CompiledModel, group: Group, laplace: LaplaceApproximation, random_seed: int
) -> Integrated:
    """Integrate by importance sampling, each replicate with points of its own; some thousand subjects at a time."""
    generator = np.random.default_rng(random_seed)
    rules = [INTEGRATION.rule(group, generator) for _ in range(REPLICATES)]
    return Integrated(*compiled.map(_integrate_evidence, group, laplace, *rules))


def _integrate_evidence(
    compiled: CompiledModel, group: Group, laplace: LaplaceApproximation, *rules: Rule
) -> Integrated:
    """`integrate_evidence` of a portion of the subjects."""
    sums, weights, slopes = [], [], []
    for rule in map(replace, rules):  # copies: a rule keeps what it has drawn, which is large
        away, log_volume = rule.place(group, laplace)
        points = laplace.mode[:, None] + away
        log_weights, shared = weigh(compiled, group, points, log_volume)
        total = np.logaddexp.reduce(log_weights, axis=1)
        slope = np.concatenate([complete_scores(group, points), shared], axis=2)
        slopes.append(np.einsum("nk,nkc->nc", np.exp(log_weights - total[:, None]), slope))
        sums.append(total)
        weights.append(log_weights)
    value = np.logaddexp.reduce(sums, axis=0) - np.log(REPLICATES)
    relative = np.exp(sums - value)  # (replicate, subject)
    return Integrated(
        value=value,
        error=relative.std(axis=0, ddof=1) / np.sqrt(REPLICATES),
        pareto_k=pareto_smooth(np.concatenate(weights, axis=1))[1],
        score=np.einsum("rn,rnc->nc", relative, np.array(slopes)) / REPLICATES,
    )


def _count_trials(compiled: CompiledModel) -> FloatArray:
    """Trials of each subject in which something was observed, (subject,)."""
    present = [compiled.subjects.present[name].reshape(compiled.shape[0], -1) for name in compiled.observed]
    if not present:  # a likelihood of potentials alone
        return compiled.subjects.n_trials.astype(float)
    width = max(mask.shape[1] for mask in present)
    return np.logical_or.reduce([np.broadcast_to(mask, (len(mask), width)) for mask in present]).sum(1).astype(float)
