"""Expectation-maximisation with a Laplace E-step: the group, and every subject's parameters under it.

Huys et al. (2011, PLoS Comput. Biol. 7, e1002028) for the classic estimator; the corrected one replaces modes by
second-order posterior means, so that EM ends at a stationary point of the Laplace marginal likelihood.
"""

from __future__ import annotations

import numbers
import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import numpy as np
import xarray as xr

from em_ppl.acceleration import Anderson
from em_ppl.compiled import CompiledModel, compile_model
from em_ppl.group import COLLAPSED, SMALLEST_SD, FloatArray, Group, Structure
from em_ppl.model import ModelError, SubjectModel
from em_ppl.modes import Posteriors, differentiate, e_step, predict_modes
from em_ppl.progress import Progress
from em_ppl.result import Fit
from em_ppl.start import search_widely, starting_group

__all__ = ["ConvergenceWarning", "fit"]

Estimator = Literal["corrected", "laplace"]

WIDE_SEARCHES = 3  # how often EM may end, find a better mode for somebody, and go on


class ConvergenceWarning(UserWarning):
    """A fit whose numbers need a second look; the message says why and what to do."""


@dataclass
class Iterations:
    """Where EM stands, and how it came there."""

    group: Group
    subjects: Posteriors
    starting_sd: FloatArray
    log_evidence: list[float]
    change: list[float]
    status: str


def fit(
    model: SubjectModel,
    data: xr.Dataset,
    *,
    estimator: Estimator = "corrected",
    covariance: Structure = "diagonal",
    tol: float = 1e-5,
    max_iter: int = 500,
    random_seed: int = 0,
    progressbar: bool = True,
    compile_kwargs: Mapping[str, Any] | None = None,
) -> Fit:
    r"""Fit a group of subjects by EM-MAP.

    Each subject's parameters x are Normal(mu, S) in Gaussian space. The E-step finds every subject's mode and
    Laplace covariance under the group; the M-step renews the group; both repeat until the group stands still.

    Parameters
    ----------
    model : SubjectModel
        One subject's likelihood, see `subject_model`.
    data : Dataset
        From `from_dataframe` or `from_subjects`, or your own with dims (subject, trial).
    estimator : {"corrected", "laplace"}
        ``"laplace"`` takes each mode for a mean, as Huys et al. (2011), pyEM and emfit do. ``"corrected"`` takes
        the second-order posterior mean; it maximises the Laplace approximation of the marginal likelihood, as TMB
        and lme4 do, and is far less biased with few trials a subject.
    covariance : {"diagonal", "full"}
        Whether parameters may covary over subjects, in Gaussian space.
    tol : float
        EM has converged when no group mean moves by more than this many group SDs (of one that has gone to 0: 5 % of
        what it was at the start), and no log SD (or Cholesky entry) by more than this number, in one unaccelerated
        step.
    max_iter : int
        Largest number of EM steps.
    random_seed : int
        For the further starting points of the mode search. Equal seeds give equal bits.
    progressbar : bool
        Whether to show progress.
    compile_kwargs : mapping, optional
        Passed on to `pytensor.function`.

    Returns
    -------
    Fit
        The group, the subjects, and ways on.

    Raises
    ------
    ModelError
        If the model cannot work as it is written, or a subject's log-likelihood is -inf or NaN wherever the
        search begins.
    ValueError
        If the data do not fit the model, or an argument is none of its choices.

    Warns
    -----
    ConvergenceWarning
        If EM or a subject's mode search did not converge, a curvature was repaired, or the data say nothing about
        a parameter. Names who and what to do.

    Examples
    --------
    >>> import em_ppl as em, numpy as np, pymc as pm
    >>> @em.subject_model(level=em.Real())
    ... def normal(level, y):
    ...     pm.Normal("y", level, 1.0, observed=y)
    >>> y = np.array([[0.1, 1.3], [2.0, 3.2], [4.1, 4.5]])
    >>> data = em.from_subjects([{"y": row} for row in y])
    >>> fit = em.fit(normal, data, progressbar=False)
    >>> fit.group.mean.round(3).values  # the mean of all, 2.533
    array([2.533])
    """
    _check_choices(estimator=(estimator, Estimator), covariance=(covariance, Structure))
    _check_numbers(tol, max_iter, random_seed)
    started = time.perf_counter()
    with Progress(show=progressbar) as progress:
        progress.say("compiling the likelihood and its gradient")
        compiled = compile_model(model, data, compile_kwargs=compile_kwargs)
        compiled.compile()
        compiled_at = time.perf_counter()
        progress.say("looking for a place to start")
        generator = np.random.default_rng(random_seed)
        done = iterate(compiled, estimator, covariance, tol, max_iter, generator, progress)
    result = Fit.make(
        compiled,
        done.group,
        done.subjects,
        estimator=estimator,
        status=done.status,
        starting_sd=done.starting_sd.tolist(),
        log_evidence=done.log_evidence,
        change=done.change,
        tol=tol,
        random_seed=random_seed,
        seconds=time.perf_counter() - compiled_at,
        compile_seconds=compiled_at - started,
    )
    for message in result.advice:
        warnings.warn(message, ConvergenceWarning, stacklevel=2)
    return result


def iterate(
    compiled: CompiledModel,
    estimator: Estimator,
    structure: Structure,
    tol: float,
    max_iter: int,
    generator: np.random.Generator,
    progress: Progress,
) -> Iterations:
    """Alternate E-step and M-step, accelerated, until the group stands still."""
    group = starting_group(compiled, structure)
    unit, smallest_sd = group.sd, SMALLEST_SD * group.sd
    mode, curvature = starting_modes(compiled, group, generator)
    accelerate, wide_searches = Anderson(), WIDE_SEARCHES
    done: Iterations | None = None
    evidences: list[float] = []
    changes: list[float] = []
    status = "max_iter"
    try:
        for iteration in range(1, max_iter + 1):
            subjects = e_step(compiled, group, mode, curvature, corrected=estimator == "corrected")
            update = group.maximise(subjects, smallest_sd)

            evidences.append(float(subjects.log_evidence.sum()))
            changes.append(group.distance(update, np.maximum(group.sd, COLLAPSED * unit)))
            done = Iterations(group, subjects, unit, evidences, changes, "interrupted")
            progress.step(iteration, evidences[-1], changes[-1], tol)
            mode, curvature = subjects.mode, subjects.curvature

            if changes[-1] < tol:
                status = "converged"
                if not wide_searches:
                    break
                mode, better = search_widely(compiled, group, mode, curvature, generator)
                if not better.any():
                    break
                # somebody has a more probable mode than the one that EM followed: go on from there
                wide_searches, accelerate, status = wide_searches - 1, Anderson(), "max_iter"
                continue

            extrapolated = accelerate(group.to_vector(unit), update.to_vector(unit))
            group = group.from_vector(extrapolated, unit)
            mode = predict_modes(group, subjects)
    except KeyboardInterrupt:
        if done is None:
            raise
        return done
    assert done is not None  # max_iter >= 1
    return replace(done, status=status)


def starting_modes(
    compiled: CompiledModel, group: Group, generator: np.random.Generator
) -> tuple[FloatArray, FloatArray]:
    """Search from the group mean and from further points of the wide starting group; keep the best."""
    mean = np.tile(group.mean, (compiled.shape[0], 1))
    slope = compiled.value_and_gradient(mean)[1]
    scale = np.tile(group.covariance, (len(mean), 1, 1))
    curvature, _ = differentiate(compiled, mean, slope, scale)
    mode, _ = search_widely(compiled, group, mean, curvature, generator)
    if not np.isfinite(compiled.log_likelihood(mode)).all():
        raise ModelError(
            f"{compiled.model.name}: {compiled.explain(mode)}. No starting point gave this subject a finite "
            "log-likelihood: check its data, and the bounds of the likelihood."
        )
    return mode, curvature


def _check_numbers(tol: float, max_iter: int, random_seed: int) -> None:
    if not isinstance(tol, numbers.Real) or not 0 < tol < 1:
        raise ValueError(f"tol={tol!r} must be a number between 0 and 1.")
    if not isinstance(max_iter, numbers.Integral) or max_iter < 1:
        raise ValueError(f"max_iter={max_iter!r} must be a whole number, at least 1.")
    if not isinstance(random_seed, numbers.Integral) or random_seed < 0:
        raise ValueError(f"random_seed={random_seed!r} must be a whole number, at least 0.")


def _check_choices(**choices: tuple[str, Any]) -> None:
    for name, (value, kind) in choices.items():
        if not isinstance(value, str) or value not in get_args(kind):
            raise ValueError(f"{name}={value!r} is not one of {', '.join(map(repr, get_args(kind)))}.")
