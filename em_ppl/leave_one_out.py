"""Leave one subject out: how well the group of the others predicts a subject's data."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from em_ppl.checkpoint import State
from em_ppl.compiled import CompiledModel
from em_ppl.data import label_text
from em_ppl.e_step import Posteriors, Scheme, e_step
from em_ppl.em import iterate
from em_ppl.evidence import integrate_evidence, settle
from em_ppl.group import FloatArray, Group, GroupModel, Index
from em_ppl.m_step import scores
from em_ppl.progress import Progress

if TYPE_CHECKING:
    from em_ppl.result import Fit

LOOSE = 1e-3  # change, in SDs, at which a fit without one subject ends: it begins where it should end
MAX_ITER = 200


def leave_one_subject_out(fit: Fit, *, progressbar: bool) -> xr.Dataset:
    """See `Fit.leave_one_subject_out`."""
    compiled, group, labels = fit.compiled, fit.group.plain, fit.subjects["subject"].values
    _check(group.model, labels)
    scheme = fit.scheme
    mode = fit.subjects["mode"].values
    everyone = e_step(compiled, group, settle(compiled, group, mode).start, scheme)
    moved = _newton_steps(fit, scores(group, everyone))
    seed, n = fit.settings["random_seed"], len(labels)
    density, error, converged = np.full(n, np.nan), np.full(n, np.nan), np.zeros(n, dtype=bool)
    free = np.full((n, fit.group.free.size), np.nan)
    with Progress(show=progressbar) as progress:
        for i, label in enumerate(labels):
            progress.say(f"without subject {label_text(label)}, {i + 1} of {n}")
            start = group.from_vector(group.to_vector() + moved[i])
            done = _without(compiled, start, everyone, scheme, i)
            if done.status == "interrupted":
                break
            alone = np.array([i])
            of_others = replace(done.found.group, model=group.model.take(alone))
            laplace = settle(compiled.take(alone), of_others, mode[alone])
            predicted = integrate_evidence(compiled.take(alone), of_others, laplace, seed)
            density[alone], error[alone] = predicted.value, predicted.error
            converged[i], free[i] = done.status == "converged", done.found.group.to_vector()
    columns = {"log_density": density, "error": error, "converged": converged}
    variables = {name: ("subject", values) for name, values in columns.items()} | {"group": (("subject", "free"), free)}
    return xr.Dataset(variables, coords={"subject": labels, "free": fit.group.free["free"].values})


def _without(compiled: CompiledModel, start: Group, everyone: Posteriors, scheme: Scheme, i: int) -> State:
    """Fit the group to all subjects but one."""
    others: Index = np.delete(np.arange(compiled.shape[0]), i)
    return iterate(
        compiled.take(others),
        State(start.take(others), everyone.laplace.start.take(others), scheme.take(others), wide_searches=0),
        tol=LOOSE,
        max_iter=MAX_ITER,
        progress=Progress(show=False),
    )


def _newton_steps(fit: Fit, score: FloatArray) -> FloatArray:
    """How far a Newton step moves the group when a subject's score and information are taken away, (subject, free)."""
    covariance = fit.group.free_covariance.values
    known = np.isfinite(np.diag(covariance))
    total = np.linalg.inv(covariance[np.ix_(known, known)])
    left = total - fit.information.values[:, known][:, :, known]
    steps = np.zeros_like(score)
    steps[:, known] = -np.linalg.solve(left, score[:, known, None])[:, :, 0]
    return steps


def _check(model: GroupModel, labels: FloatArray) -> None:
    """Every group without one subject must still be determined."""
    for i, label in enumerate(labels):
        others = model.take(np.delete(np.arange(len(labels)), i))
        k = others.design.shape[2]
        if np.bincount(others.level, minlength=model.n_levels).min() < 2:
            raise ValueError(f"without subject {label_text(label)} a covariance has fewer than two subjects left.")
        if np.linalg.matrix_rank(others.design.reshape(-1, k)) < k:
            raise ValueError(
                f"without subject {label_text(label)} the others do not determine every coefficient of the covariates."
            )
