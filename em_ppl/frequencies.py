"""How frequent is each model among people? Random-effects comparison of models, from log evidences alone.

Subject n's data come from model k with probability f_k, and f is Dirichlet. With l_nk the log evidence of subject n
under model k, r_nk the probability that model k made its data (its responsibility) and alpha0 the prior's counts,
alternate

    r_nk ~ exp(l_nk + E[log f_k]), 1 in sum over k,     E[log f_k] = psi(alpha_k) - psi(sum_k alpha_k)
    alpha_k = alpha0_k + sum_n r_nk

which raises a lower bound of the log evidence of the whole table at every step:

    L = sum_n log sum_k exp(l_nk + E[log f_k]) - KL(Dirichlet(alpha) || Dirichlet(alpha0)).

That all models are equally frequent has the log evidence L0 = sum_n log mean_k exp(l_nk). The Bayes omnibus risk, its
posterior probability, is 1 / (1 + exp(L - L0)).

References
----------
Stephan, K. E., Penny, W. D., Daunizeau, J., Moran, R. J., & Friston, K. J. (2009). Bayesian model selection for group
studies. NeuroImage, 46, 1004-1017. https://doi.org/10.1016/j.neuroimage.2009.03.025

Rigoux, L., Stephan, K. E., Friston, K. J., & Daunizeau, J. (2014). Bayesian model selection for group studies -
revisited. NeuroImage, 84, 971-985. https://doi.org/10.1016/j.neuroimage.2013.08.065

Soch, J., & Allefeld, C. (2016). Exceedance probabilities for the Dirichlet distribution. arXiv:1611.01439
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
import scipy
from numpy.typing import NDArray

from em_ppl.checks import check_positive
from em_ppl.data import label_text
from em_ppl.show import as_html, as_text

__all__ = ["FrequenciesByGroup", "ModelFrequencies", "frequencies_by_group", "model_frequencies"]

FloatArray = NDArray[np.float64]

CONVERGED = 1e-10  # change of all counts
MAX_STEPS = 100_000


@dataclass(frozen=True, repr=False)
class ModelFrequencies:
    """How frequent each model is; made by `model_frequencies`.

    Attributes
    ----------
    counts : Series
        alpha, the Dirichlet's counts, by model.
    responsibility : DataFrame
        (subject, model): probability that the model made the subject's data.
    bound, null_bound : float
        L and L0: log evidence of any frequencies (its lower bound), and of equal ones.
    """

    counts: pd.Series
    responsibility: pd.DataFrame
    bound: float
    null_bound: float

    @property
    def frequency(self) -> pd.Series:
        """Posterior mean of the frequencies."""
        return self.counts / self.counts.sum()

    @cached_property
    def exceedance(self) -> pd.Series:
        """Probability that the model is more frequent than any other."""
        return pd.Series(exceedance_probabilities(self.counts.to_numpy()), self.counts.index)

    @property
    def omnibus_risk(self) -> float:
        """Posterior probability that all models are equally frequent (Rigoux et al. 2014)."""
        return float(scipy.special.expit(self.null_bound - self.bound))

    @property
    def protected_exceedance(self) -> pd.Series:
        """Exceedance probability, unless all models are equally frequent."""
        return self.exceedance * (1 - self.omnibus_risk) + self.omnibus_risk / len(self.counts)

    def summary(self) -> pd.DataFrame:
        """Tabulate by model, the most frequent one first."""
        columns = ("frequency", "exceedance", "protected_exceedance")
        table = pd.DataFrame(
            {"count": self.responsibility.sum(axis=0)} | {name: getattr(self, name) for name in columns}
        )
        return table.sort_values("frequency", ascending=False, kind="stable").rename_axis("model")

    def __repr__(self) -> str:
        return as_text(self._headline, [self.summary()], digits=".3f")

    def _repr_html_(self) -> str:
        return as_html(self._headline, [self.summary()], digits=".3f")

    @property
    def _headline(self) -> str:
        return (
            f"Frequencies of {len(self.counts)} models among {len(self.responsibility)} subjects; "
            f"probability that all are equal (omnibus risk) {self.omnibus_risk:.3f}"
        )


@dataclass(frozen=True, repr=False)
class FrequenciesByGroup:
    """Whether groups of people differ in how frequent models are; made by `frequencies_by_group`.

    Attributes
    ----------
    by_group : dict
        `ModelFrequencies` of each group.
    together : ModelFrequencies
        Of all people.
    """

    by_group: dict[Any, ModelFrequencies]
    together: ModelFrequencies

    @property
    def probability_differ(self) -> float:
        """Posterior probability that frequencies differ between groups; before the data it was 1/2."""
        return float(scipy.special.expit(sum(group.bound for group in self.by_group.values()) - self.together.bound))

    def summary(self) -> pd.DataFrame:
        """Tabulate the frequencies, (model, group)."""
        return pd.DataFrame({group: found.frequency for group, found in self.by_group.items()}).rename_axis("model")

    def __repr__(self) -> str:
        return as_text(self._headline, [self.summary()], digits=".3f")

    def _repr_html_(self) -> str:
        return as_html(self._headline, [self.summary()], digits=".3f")

    @property
    def _headline(self) -> str:
        sizes = ", ".join(f"{group} ({len(found.responsibility)})" for group, found in self.by_group.items())
        return f"Model frequencies of {sizes}; probability that they differ {self.probability_differ:.3f}"


def model_frequencies(log_evidence: Any, *, alpha: float = 1.0) -> ModelFrequencies:
    """Estimate how frequent each model is among people, each of whom may have another one.

    Parameters
    ----------
    log_evidence : DataFrame or what `pandas.DataFrame` takes
        (subject, model): log evidence of each subject's data under each model, such as ``em.compare(fits).evidence``,
        or -BIC / 2 of other software.
    alpha : float
        Counts of the Dirichlet prior, the same for all models; 1 is uniform.

    Returns
    -------
    ModelFrequencies
        Frequencies, exceedance and protected exceedance probabilities, omnibus risk, responsibilities.

    Raises
    ------
    ValueError
        If there are fewer than two models or subjects, a name occurs twice, a value is no finite number, or alpha is
        not positive.

    References
    ----------
    Stephan et al. (2009), Rigoux et al. (2014): see `em_ppl.frequencies`.

    Examples
    --------
    >>> import em_ppl as em
    >>> found = em.model_frequencies({"rw": [-50.0, -61.0, -40.0], "rw2": [-55.0, -65.0, -39.5]})
    >>> found.frequency.round(3).to_dict()
    {'rw': 0.737, 'rw2': 0.263}
    """
    check_positive(alpha=alpha)
    table = _check_table(log_evidence)
    prior = np.full(table.shape[1], float(alpha))
    return _fit(table, prior)


def frequencies_by_group(
    log_evidence: Any, groups: Mapping[Any, Any] | pd.Series, *, alpha: float = 1.0
) -> FrequenciesByGroup:
    """Ask whether groups of people, such as patients and controls, differ in how frequent models are.

    Parameters
    ----------
    log_evidence : DataFrame or what `pandas.DataFrame` takes
        As for `model_frequencies`.
    groups : mapping or Series
        The group of each subject, by its label.
    alpha : float
        As for `model_frequencies`.

    Returns
    -------
    FrequenciesByGroup
        Frequencies in each group, and the probability that they differ: of two hypotheses, one Dirichlet for all or one
        a group.

    Raises
    ------
    ValueError
        As `model_frequencies`; if a subject has no group, or there are fewer than two.
    TypeError
        If groups have no labels: subjects are matched by label, never by position.

    References
    ----------
    Rigoux et al. (2014), section "Between-group comparison".

    Examples
    --------
    >>> import em_ppl as em, pandas as pd
    >>> table = pd.DataFrame({"rw": [0.0] * 20, "rw2": [9.0] * 10 + [-9.0] * 10})
    >>> groups = {n: "patient" if n < 10 else "control" for n in range(20)}
    >>> em.frequencies_by_group(table, groups).probability_differ > 0.99
    True
    """
    if not isinstance(groups, Mapping | pd.Series):
        raise TypeError("groups must name each subject's group by its label: a mapping, or a Series.")
    check_positive(alpha=alpha)
    table = _check_table(log_evidence)
    member = pd.Series(groups).reindex(table.index)
    if member.isna().any():
        raise ValueError(f"subject {label_text(member.index[member.isna()][0])} has no group.")
    if member.nunique() < 2:
        raise ValueError(f"all subjects are in one group, {label_text(member.iloc[0])}: there is nothing to compare.")
    prior = np.full(table.shape[1], float(alpha))
    by_group = {group: _fit(table[member == group], prior) for group in sorted(member.unique())}
    return FrequenciesByGroup(by_group, _fit(table, prior))


def _check_table(log_evidence: Any) -> pd.DataFrame:
    table = pd.DataFrame(log_evidence)
    n, k = table.shape
    if k < 2 or n < 2:
        raise ValueError(f"frequencies need two models and two subjects or more; here are {k} and {n}.")
    for what, names in (("model", table.columns), ("subject", table.index)):
        if names.has_duplicates:
            raise ValueError(f"{what} {label_text(names[names.duplicated()][0])} occurs twice.")
    values = table.to_numpy(dtype=float)
    if not np.isfinite(values).all():
        i, j = np.argwhere(~np.isfinite(values))[0]
        raise ValueError(
            f"the log evidence of subject {label_text(table.index[i])} under model {label_text(table.columns[j])} is "
            f"{values[i, j]}: leave the subject out of all models, or look at its fit."
        )
    return table.astype(float)


def _fit(table: pd.DataFrame, prior: FloatArray) -> ModelFrequencies:
    """Alternate responsibilities and counts until both stand still."""
    evidence, counts = table.to_numpy(), prior
    for _ in range(MAX_STEPS):
        log_joint = evidence + expected_log_frequency(counts)
        responsibility = scipy.special.softmax(log_joint, axis=1)
        before, counts = counts, prior + responsibility.sum(0)
        if np.abs(counts - before).max() < CONVERGED:
            break
    log_joint = evidence + expected_log_frequency(counts)
    bound = scipy.special.logsumexp(log_joint, axis=1).sum() - dirichlet_divergence(counts, prior)
    null = scipy.special.logsumexp(evidence, axis=1).sum() - len(table) * np.log(table.shape[1])
    return ModelFrequencies(
        pd.Series(counts, table.columns, name="counts"),
        pd.DataFrame(responsibility, table.index, table.columns),
        float(bound),
        float(null),
    )


def expected_log_frequency(counts: FloatArray) -> FloatArray:
    """E[log f] of a Dirichlet, (model,)."""
    return np.asarray(scipy.special.psi(counts) - scipy.special.psi(counts.sum()))


def dirichlet_divergence(counts: FloatArray, prior: FloatArray) -> float:
    """KL divergence of a Dirichlet from its prior."""
    log_gamma = scipy.special.gammaln
    each = log_gamma(prior) - log_gamma(counts) + (counts - prior) * expected_log_frequency(counts)
    return float(log_gamma(counts.sum()) - log_gamma(prior.sum()) + each.sum())


def exceedance_probabilities(counts: FloatArray) -> FloatArray:
    """Probability of each component of a Dirichlet to be the largest, by integration (Soch & Allefeld 2016).

    A Dirichlet is a set of independent Gamma variables over their sum: component k exceeds all others with probability
    E[prod_j F_j(x)], x ~ Gamma(counts_k).
    """

    def below(u: float, k: int) -> float:
        return float(scipy.special.gammainc(np.delete(counts, k), scipy.special.gammaincinv(counts[k], u)).prod())

    found = [scipy.integrate.quad(below, 0, 1, args=(k,), limit=200, epsabs=1e-10)[0] for k in range(len(counts))]
    return np.asarray(found) / sum(found)
