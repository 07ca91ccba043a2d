"""A fit in the variables of its hierarchical model, and what NUTS drew in the names of a fit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from em_ppl import compat
from em_ppl.distributions import StudentT
from em_ppl.group import FloatArray, Group
from em_ppl.hierarchy import factor_names
from em_ppl.m_step import resolved_share
from em_ppl.pymc_models import PyMCModel

if TYPE_CHECKING:
    from em_ppl.result import Fit

WELL_KNOWN = 0.5  # share of the group's variance that trials resolve, above which a parameter is centred


def well_known(fit: Fit) -> list[str]:
    """Return the parameters about which trials tell more of each subject than the group does: they are centred.

    Drawn from the group as they are, subjects that are well known leave the group free to move; others would make a
    funnel of it (Betancourt & Girolami, 2015, Current Trends in Bayesian Methodology with Applications, 79-101). The
    funnel is narrow where the group's SD is small, so that trials have to tell more even if it is two standard errors
    (of its log) smaller than estimated.
    """
    group, table = fit.group, fit.subjects
    shares = resolved_share(group.plain, table["mode"].values, table["laplace_covariance"].values)
    known = np.clip(np.diagonal(shares, axis1=1, axis2=2), 0.0, 1.0)
    smaller = np.exp(-2 * np.reshape(group.sd_se.values, known.shape) / group.plain.sd) ** 2
    known = known * smaller / (known * smaller + 1 - known)
    return [name for k, name in enumerate(group.varying) if (known[:, k] > WELL_KNOWN).all()]


def free_values(fit: Fit, group: Group, x: FloatArray) -> dict[str, FloatArray]:
    """Return a value of every variable that could be free in a fit's model, from a group and subjects.

    Parameters
    ----------
    fit : Fit
        For the names.
    group : Group
        A draw.
    x : ndarray
        A draw of the subjects, (subject, varying parameter).
    """
    if isinstance(fit.model, PyMCModel):
        return fit.model.values(group, x)
    packed = [factor[np.tril_indices(len(factor))] for factor in group.cholesky]
    by = fit.group.design.by is not None
    varying, shared = fit.group.varying, fit.group.shared_names
    return {
        "group_mean": group.location.mean(0),
        "group_coefficients": group.coefficients,
        "group_sd": group.sd if by else group.sd[0],
        **dict(zip(factor_names(fit.group.design), packed, strict=True)),
        **{f"{name}_gaussian": value for name, value in zip(shared, group.shared, strict=True)},
        **{f"{name}_gaussian": x[:, k] for k, name in enumerate(varying)},
        **{f"{name}_offset": offset for name, offset in zip(varying, _offsets(group, x).T, strict=True)},
    }


def posterior_of(fit: Fit, nuts: Any) -> xr.Dataset:
    """Return the posterior that NUTS drew from a fit's model, with the names of a fit's InferenceData.

    Raises
    ------
    ValueError
        If there is none, or it is of other subjects.
    """
    posterior = compat.read_group(nuts, "posterior")
    if posterior is not None and isinstance(fit.model, PyMCModel):
        posterior = fit.model.as_group(posterior)
    if posterior is None or "gaussian" not in posterior:
        raise ValueError("nuts has no posterior of this fit's hierarchical model.")
    labels = fit.subjects["subject"].values
    if [str(label) for label in posterior["subject"].values] != [str(label) for label in labels]:
        raise ValueError("nuts is not a posterior of this fit's hierarchical model: its subjects differ.")
    return posterior.assign_coords(subject=labels)  # PyMC makes text of labels that it does not know


def free_names(fit: Fit) -> list[str]:
    """Return the names of what is free in `Fit.hierarchical_model`, as it is without arguments."""
    if isinstance(fit.model, PyMCModel):
        return list(fit.model.values(fit.group.plain, fit.subjects["mode"].values))
    design, centred = fit.group.design, well_known(fit)
    full = fit.group.plain.model.structure == "full" and len(fit.group.varying) > 1
    return [
        "group_coefficients" if design.has_covariates else "group_mean",
        *(factor_names(design) if full else ["group_sd"]),
        *(f"{name}_{'gaussian' if name in centred else 'offset'}" for name in fit.group.varying),
        *(f"{name}_gaussian" for name in fit.group.shared_names),
    ]


def _offsets(group: Group, x: FloatArray) -> FloatArray:
    """Where subjects lie in a standard group; of a joint Student-t, each parameter given those before it."""
    z, distribution = group.standardise(x), group.model.distribution
    if not (group.model.joint and isinstance(distribution, StudentT)):
        return z
    before = np.cumsum(z**2, axis=1) - z**2
    return np.asarray(z / np.sqrt((distribution.df + before) / (distribution.df + np.arange(z.shape[1]))))
