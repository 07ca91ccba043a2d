"""Expectation-maximisation: the group, and every subject's parameters under it.

Huys et al. (2011, PLoS Comput. Biol. 7, e1002028) for the classic estimator; the corrected one replaces modes by
second-order posterior means, so that EM ends at a stationary point of the Laplace marginal likelihood; the exact one
integrates, and ends at that of the marginal likelihood itself.
"""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import asdict, replace
from functools import partial
from typing import Any

import numpy as np
import xarray as xr

from em_ppl.acceleration import GROWTH, Anderson
from em_ppl.blocks import Blocks, Likelihoods, is_stored
from em_ppl.checkpoint import Checkpoint, State, Step
from em_ppl.checks import check_choices, check_counts, check_numbers
from em_ppl.compiled import compile_model
from em_ppl.cores import at_most
from em_ppl.data import check_dataset, label_text
from em_ppl.design import make_design, make_group_model
from em_ppl.distributions import Distribution, Normal
from em_ppl.e_step import Posteriors, Scheme, e_step, make_scheme
from em_ppl.estimators import Estimator, ImportanceSampling, Quadrature
from em_ppl.fit_arguments import check_distribution, check_executor, check_group_is_the_models, check_kinds, check_prior
from em_ppl.group import COLLAPSED, Group, GroupPrior, Structure
from em_ppl.m_step import group_log_posterior, m_step
from em_ppl.model import ModelError, SubjectModel
from em_ppl.modes import Start
from em_ppl.newton import newton_step, step_by
from em_ppl.progress import Progress
from em_ppl.pyem import PyEMModel
from em_ppl.pymc_models import PyMCModel
from em_ppl.result import Fit
from em_ppl.start import MakeModel, search_widely, starting_group, starting_modes
from em_ppl.uncertainty import Uncertainty, uncertainty

__all__ = ["ConvergenceWarning", "fit"]

NO_FREEDOM = 0.05  # 1 - r^2, below which a correlation r is as good as at its bound
WORSE = 1.0  # log posterior that a bold step may lose
CAREFUL = 10  # steps that are no longer than EM's own, after a longer one has lost
NEAR = 1e-2  # change of the group at which EM is near its end: then exact EM begins
RUNAWAY = 1e10  # group SDs of the start: nobody's parameters are spread so far
STALLED = 100  # steps in a row that moved the group no less than one before them, while somebody's mode is not found
LATE = 30  # steps, after which EM looks for better modes before its end
PATIENCE = 10  # steps without coming near, after which EM looks for subjects that keep it from it
SMALL_STUDY = 20  # subjects: of so few everyone is integrated, if anybody is
MANY_HARD = 0.2  # of the subjects: where more are to be integrated, everyone is
FEW = 0.01  # of the subjects: if no more are to be integrated than were, the step of EM without them is one
CONTRACTS = 0.3  # share of a change that a step of Newton's leaves, if the information by which it is taken will do


class ConvergenceWarning(UserWarning):
    """A fit whose numbers need a second look; the message says why and what to do."""


def fit(
    model: SubjectModel | PyMCModel,
    data: xr.Dataset | Sequence[Any] | Mapping[Any, Any] | None = None,
    *,
    estimator: Estimator | Quadrature | ImportanceSampling = "corrected",
    covariance: Structure = "diagonal",
    covariates: str | Mapping[str, str] | None = None,
    covariance_by: str | None = None,
    distribution: Distribution | None = None,
    prior: GroupPrior | None = None,
    tol: float = 1e-5,
    max_iter: int = 500,
    random_seed: int = 0,
    progressbar: bool = True,
    cores: int | None = None,
    executor: Executor | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    compile_kwargs: Mapping[str, Any] | None = None,
) -> Fit:
    r"""Fit a group of subjects by EM-MAP.

    Each subject's parameters x are Normal(mu, S) in Gaussian space. The E-step finds every subject's mode and
    Laplace covariance under the group; the M-step renews the group; both repeat until the group stands still.

    Parameters
    ----------
    model : SubjectModel or PyMCModel
        One subject's likelihood, see `subject_model`; or a hierarchical model, see `from_pymc`, which has its data, its
        group and its priors.
    data : Dataset
        From `from_dataframe` or `from_subjects`, or your own with dims (subject, trial). Data that lie in a file, in
        dask chunks over subjects, are read chunk by chunk and never as a whole. For a model of `from_pyem` also pyEM's
        list of one list a subject.
    estimator : {"corrected", "laplace", "exact"}, Quadrature or ImportanceSampling
        How the E-step takes expectations over a subject's posterior. ``"laplace"`` takes each mode for a mean, as Huys
        et al. (2011), pyEM and emfit do. ``"corrected"`` takes the second-order posterior mean; it maximises the
        Laplace approximation of the marginal likelihood, as TMB and lme4 do, and is far less biased with few trials a
        subject. Who has a posterior too far from Normal for that is integrated; with many of these, or among few
        subjects, everyone is. ``"exact"`` maximises the marginal likelihood itself, by adaptive quadrature with up to
        three varying parameters and by importance sampling with more; give `Quadrature` or `ImportanceSampling` to
        choose.
    covariance : {"diagonal", "full"}
        Whether parameters may covary over subjects, in Gaussian space.
    covariates : str or mapping of str to str, optional
        A formula such as ``"~ age + diagnosis"`` for the group mean of every parameter, or a mapping from parameters to
        formulas (those left out have none). The data hold the covariates, one value a subject (see the `people` of
        `from_dataframe`). Coefficients are in Gaussian space.
    covariance_by : str, optional
        A covariate, such as a diagnosis, each value of which has a covariance of its own.
    distribution : Distribution, optional
        What subjects are drawn from: `Normal`, if left out; `StudentT`, `Cauchy` or `Laplace` for heavy tails, so that
        an outlying subject does not drag the rest.
    prior : GroupPrior, optional
        Of the group's means and SDs, for few subjects; none, if left out.
    tol : float
        EM has converged when no group mean moves by more than this many group SDs (of one that has gone to 0: 5 % of
        what it was at the start), no log SD by more than this number, no correlation r by more than this share of
        1 - r^2 (at least 0.05), and no shared parameter by more than this many of its spreads, in one unaccelerated
        step.
    max_iter : int
        Largest number of EM steps.
    random_seed : int
        For the further starting points of the mode search, and the draws of importance sampling. Equal seeds give equal
        bits.
    progressbar : bool
        Whether to show progress.
    cores : int, optional
        Cores of the processor to use; all, if left out. With an `executor`, cores of each worker; one, if left out. The
        numbers are the same bits.
    executor : concurrent.futures.Executor, optional
        Whose workers do what is done for each subject, in blocks: processes, a Dask cluster, MPI. The blocks are the
        chunks of `data` over subjects, such as ``data.chunk(subject=1000)`` makes (with dask); without, about 10,000
        trials each. A block travels to a worker that does not have it; the numbers are the same bits.
    checkpoint : path, optional
        A file that keeps the state of the fit (at most a tenth of the time goes into that). If the fit is stopped,
        whatever by, the same call goes on from there, and ends in the same bits; it does so, too, with another `tol` or
        a larger `max_iter`. A fit that was finished comes back at once. The file is of use until the fit is saved.
    compile_kwargs : mapping, optional
        Passed on to `pytensor.function`, which then compiles the likelihood of all subjects together; left out, this
        package makes machine code of one subject's, which is faster and runs on several cores.

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
        If the data do not fit the model, a covariate is missing or varies within a subject, an argument is none of
        its choices, or the checkpoint is another fit's.

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
    check_choices(covariance=(covariance, Structure))
    check_numbers(tol, max_iter, random_seed)
    check_counts(cores=1 if cores is None else cores)
    check_kinds(model, distribution, prior)
    check_executor(executor, model)
    if isinstance(model, PyEMModel) and isinstance(data, list | tuple | dict):
        data = model.read(data)
    varying = [name for name, parameter in model.parameters.items() if not parameter.shared]
    distribution = distribution or Normal()
    scheme = make_scheme(estimator, len(varying), distribution, random_seed)
    check_distribution(distribution, covariance, scheme)
    if isinstance(model, PyMCModel):
        check_group_is_the_models(data, covariance, covariates, covariance_by, distribution)
        design, chosen = model.design, prior or model.prior
    else:
        design, chosen = make_design(check_dataset(data), varying, covariates, covariance_by), prior
    check_prior(design, prior)
    started = time.perf_counter()
    about = {
        "model": model.name,
        "parameters": {name: asdict(parameter) for name, parameter in model.parameters.items()},
        "estimator": f"{scheme.estimator}, {scheme.integration!r}",
        "covariance": covariance,
        "covariates": [design.formulas, design.by],
        "distribution": repr(distribution),
        "prior": repr(chosen),
        "random_seed": int(random_seed),
    }
    with Progress(show=progressbar) as progress, at_most(cores), Checkpoint(checkpoint, about, tol) as kept:
        progress.say("compiling the likelihood and its gradient")
        if isinstance(model, PyMCModel):
            compiled: Likelihoods = model.compile(compile_kwargs=compile_kwargs)
        elif executor is not None or is_stored(data):
            compiled = Blocks(model, check_dataset(data), executor, cores=cores, compile_kwargs=compile_kwargs)
        else:
            compiled = compile_model(model, check_dataset(data), compile_kwargs=compile_kwargs)
        compiled.compile(value_alone=scheme.estimator == "exact" and len(varying) == len(model.parameters))
        compiled_at = time.perf_counter()
        make_model = partial(
            make_group_model,
            design,
            model.parameters,
            structure=covariance,
            distribution=distribution,
            prior=chosen,
        )
        progress.say("looking for a place to start")
        state = kept.resume(compiled, scheme, make_model) or starting_state(compiled, scheme, make_model)
        done = climb(compiled, state, scheme, distribution, tol=tol, max_iter=max_iter, progress=progress, kept=kept)
        group, subjects, scheme = done.found.group, done.found.subjects, done.found.scheme
        progress.say("standard errors")
        try:
            known = uncertainty(kept.remembering(compiled), group, subjects, scheme)
        except KeyboardInterrupt:
            known, done = Uncertainty.unknown(compiled, group), replace(done, status="interrupted")
        progress.step(len(done.change), done.log_evidence[-1], done.change[-1], tol)
    result = Fit.make(
        compiled,
        design,
        group,
        subjects,
        known,
        scheme,
        done.several_modes,
        compile_kwargs,
        status=done.status,
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


def starting_state(compiled: Likelihoods, scheme: Scheme, make_model: MakeModel) -> State:
    """Begin where a wide group around what suits everyone best expects the subjects."""
    group = starting_group(compiled, make_model)
    start = starting_modes(compiled, group, np.random.default_rng(scheme.random_seed))
    if scheme.estimator == "exact":
        group = replace(group, model=replace(group.model, distribution=Normal()))
        scheme = replace(scheme, estimator="corrected")
    return State(group, start, scheme)


def climb(
    compiled: Likelihoods, state: State, scheme: Scheme, distribution: Distribution, *, tol: float, **settings: Any
) -> State:
    """Iterate; exact EM begins where corrected EM with a Normal group has come near."""
    if state.scheme.estimator != scheme.estimator:
        state = iterate(compiled, state, tol=max(tol, NEAR), **settings)
        if state.status == "interrupted":
            return state
        near = state.found
        group = replace(near.group, model=replace(near.group.model, distribution=distribution))
        state = State(group, near.subjects.laplace.start, scheme.laid(group))
    return iterate(compiled, state, tol=tol, **settings)


def iterate(
    compiled: Likelihoods,
    state: State,
    *,
    tol: float,
    max_iter: int,
    progress: Progress,
    kept: Checkpoint | None = None,
) -> State:
    """Take steps until the group stands still, or comes no nearer to it."""
    try:
        while state.status not in ("converged", "stalled") and len(state.change) < max_iter:
            state = step(compiled, state, tol)
            if stalled(state, tol):
                state = replace(state, status="stalled")
            progress.step(len(state.change), state.log_evidence[-1], state.change[-1], tol)
            if kept is not None:
                kept.keep(state)
    except KeyboardInterrupt:
        if state.last is None:
            raise
        return replace(state, status="interrupted")
    return state


def stalled(state: State, tol: float) -> bool:
    """Whether EM goes round in circles about somebody without a mode: its smallest change lies far back.

    A change that led to another search is none.
    """
    if state.status == "converged" or state.found.subjects.laplace.converged.all():
        return False
    earlier, lately = [c for c in state.change[:-STALLED] if c >= tol], state.change[-STALLED:]
    return bool(earlier) and min(lately) >= min(earlier)


def step(compiled: Likelihoods, state: State, tol: float) -> State:
    """Take an E-step and an M-step, and say where the next ones begin."""
    iteration, group, scheme = len(state.change) + 1, state.group, state.scheme
    accelerate, information, careful_until = Anderson(state.points), state.information, state.careful_until
    closely = bool(state.change) and state.change[-1] < tol  # EM seemed to have ended
    subjects = e_step(compiled, group, state.start, scheme, brisk=not closely)
    if state.plain is not None and lost(compiled, group, subjects, state):
        group, subjects = retreat(compiled, state.plain, state)
        accelerate, information = Anderson(), None
        if group is not state.plain:
            careful_until = iteration + CAREFUL
    update = m_step(compiled, group, subjects, lengthened=iteration >= careful_until)
    refuse_runaway(compiled, group, subjects, update)

    change = distance(group, update)
    if state.change and change > CONTRACTS * state.change[-1]:
        information = None
    stays = State(
        group,
        subjects.laplace.start,
        scheme,
        Step(group, subjects, scheme),
        log_evidence=(*state.log_evidence, float(subjects.log_evidence.sum())),
        change=(*state.change, change),
        information=information,
        careful_until=careful_until,
        wide_searches=state.wide_searches,
        several_modes=state.several_modes,
    )
    if scheme.estimator == "corrected" and (change < NEAR or iteration > PATIENCE):
        chosen = choose_hard(group, subjects, scheme, near=change < NEAR)
        others, stays = np.setxor1d(chosen.hard, scheme.hard), replace(stays, scheme=chosen)
        if len(others) > FEW * len(subjects.laplace.mode):
            return stays
        if len(others):  # what they add to the log posterior is another number than before
            return replace(go_further(compiled, stays, update, accelerate), plain=None)
    if change < tol and iteration < careful_until:  # EM's own steps may be this small far from the end
        return replace(stays, careful_until=0)
    if change < tol and closely:
        return stand_still(compiled, stays)
    if iteration % LATE == 0:  # somebody's worse mode may be what keeps EM from its end
        there, moved = move_to_better_modes(compiled, stays)
        if moved:
            return there
    return go_further(compiled, stays, update, accelerate)


def go_further(compiled: Likelihoods, state: State, update: Group, accelerate: Anderson) -> State:
    """Begin the next step further on than EM's own would: by acceleration, or where that is slow by Newton's method."""
    group, subjects, scheme = state.group, state.found.subjects, state.scheme
    if state.information is not None and (near := step_by(state.information, group, subjects, update)) is not None:
        return replace(state, group=near, plain=update)
    # the information costs up to two E-steps for each of the group's numbers: it is for when as many have been taken
    if len(state.change) > 2 * len(group.units) and scheme.smooth:
        newton = newton_step(compiled, group, subjects, scheme, update)
        if newton is not None:
            start = newton.subjects.laplace.start
            return replace(state, group=newton.group, start=start, information=newton.information)
    extrapolated = accelerate(group.to_vector() / group.units, update.to_vector() / group.units)
    group = group.from_vector(extrapolated * group.units)
    return replace(state, group=group, plain=update, points=accelerate.points)


def stand_still(compiled: Likelihoods, state: State) -> State:
    """End, unless somebody has a more probable mode: then go on from there."""
    there, moved = move_to_better_modes(compiled, state)
    return there if moved else replace(there, status="converged")


def move_to_better_modes(compiled: Likelihoods, state: State) -> tuple[State, bool]:
    """Search widely, as long as that is allowed; say who has several modes, and whether anybody moved to a better."""
    if not state.wide_searches:
        return state, False
    generator = np.random.default_rng((state.scheme.random_seed, state.wide_searches))
    mode, better, several = search_widely(compiled, state.group, state.start, generator)
    state = replace(state, several_modes=several)
    if not better.any():
        return state, False
    start = Start(mode, state.start.curvature)
    return replace(state, start=start, wide_searches=state.wide_searches - 1), True


def lost(compiled: Likelihoods, group: Group, subjects: Posteriors, state: State) -> bool:
    """Whether a step went down what EM climbs; the classic estimator climbs nothing: whether it moves on much further.

    NaN is lost.
    """
    done = state.found
    if done.scheme.estimator == "laplace":
        return not distance(group, m_step(compiled, group, subjects, lengthened=False)) <= GROWTH * state.change[-1]
    return not group_log_posterior(group, subjects) >= group_log_posterior(done.group, done.subjects) - WORSE


def retreat(compiled: Likelihoods, plain: Group, state: State) -> tuple[Group, Posteriors]:
    """Step from where EM stood less boldly: without acceleration and, if that still loses, no further than EM does."""
    done = state.found
    group, start = plain, done.subjects.laplace.start
    subjects = e_step(compiled, group, start, done.scheme, brisk=True)
    if lost(compiled, group, subjects, state):
        group = m_step(compiled, done.group, done.subjects, lengthened=False)
        subjects = e_step(compiled, group, start, done.scheme, brisk=True)
    return group, subjects


def choose_hard(group: Group, subjects: Posteriors, scheme: Scheme, *, near: bool) -> Scheme:
    """Choose who is to be integrated, now that EM is near its end or does not find it.

    Where a posterior is no hill, or so skewed that its mean lies more than an SD from its mode, expansions around the
    mode jump from one step of EM to the next, and it may never end. Where one subject counts for much, or many are
    hard, the end would hang on who they are: then everyone is integrated. Who was hard on the way only is no longer
    when EM is near its end for the first time; from then on nobody is let off, so that EM does end.
    """
    laplace, n = subjects.laplace, len(subjects.laplace.mode)
    hard = np.flatnonzero(laplace.shortened | laplace.repaired)
    if scheme.chosen or not near:
        hard = np.union1d(scheme.hard, hard)
    if len(hard) and (n <= SMALL_STUDY or len(hard) > MANY_HARD * n):
        hard = np.arange(n)
    scheme = scheme.laid(group, hard) if len(hard) else replace(scheme, hard=hard)
    return replace(scheme, chosen=scheme.chosen or near)


def refuse_runaway(compiled: Likelihoods, group: Group, subjects: Posteriors, update: Group) -> None:
    """Raise where the group runs off to infinity behind a subject whose log-likelihood has no bound."""
    unit = group.model.unit[group.model.varying]
    spread = update.sd / unit
    if np.isfinite(spread).all() and spread.max() < RUNAWAY:
        return
    away = np.abs(subjects.laplace.mode - group.location) / unit
    who, which = np.unravel_index(np.where(np.isfinite(away), away, np.inf).argmax(), away.shape)
    name = [n for n, p in compiled.model.parameters.items() if not p.shared][which]
    raise ModelError(
        f"{compiled.model.name}: EM ran off to infinity in {name!r}, behind subject "
        f"{label_text(compiled.data['subject'].values[who])}: its log-likelihood has no maximum that the search could "
        "find. Look at its data and their unit, bound the parameter (em.Unit, em.Interval), or leave the subject out."
    )


def distance(group: Group, other: Group) -> float:
    """How far apart two groups are: see `tol` of `fit`."""
    model, correlations = group.model, group.correlations
    sd = np.maximum(group.sd, COLLAPSED * model.unit[model.varying])[model.level]
    of_means = np.abs((other.location - group.location) / sd)
    of_sds = np.abs(np.log(other.sd / group.sd))
    of_correlations = np.abs(other.correlations - correlations) / np.maximum(1 - correlations**2, NO_FREEDOM)
    of_shared = np.abs(other.shared - group.shared) / model.unit[model.shared]
    return float(max(part.max(initial=0.0) for part in (of_means, of_sds, of_correlations, of_shared)))
