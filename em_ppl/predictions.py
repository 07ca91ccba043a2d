"""What a fit predicts: responses drawn, the probability of each, and how well these fit what was done.

One step ahead, a subject's next response is predicted from its own history. Free-running, it lives through a task
again, and learns from what it would have done itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray
from pytensor.tensor.random.basic import BernoulliRV, CategoricalRV

from em_ppl import compat
from em_ppl.compiled import CompiledModel
from em_ppl.data import inner_dims, widen
from em_ppl.inference_data import every_parameter
from em_ppl.model import Term
from em_ppl.progress import Progress
from em_ppl.pymc_models import PyMCModel
from em_ppl.responses import draw
from em_ppl.simulation import Play
from em_ppl.tasks import Task

if TYPE_CHECKING:
    from em_ppl.result import Fit

__all__ = ["deterministics", "predict", "quality", "response_probabilities"]

FloatArray = NDArray[np.float64]


def predict(
    fit: Fit, idata: Any, *, draws: int, task: Task | None, random_seed: int | None, progressbar: bool
) -> xr.Dataset:
    """See `Fit.predict`."""
    refuse_pymc_model(fit)
    seed = fit.settings["random_seed"] if random_seed is None else random_seed
    if idata is None:
        idata = fit.to_inference_data(draws=draws, chains=1, log_likelihood=False, random_seed=seed)
    posterior = compat.read_group(idata, "posterior")
    assert posterior is not None
    x = every_parameter(fit, posterior)
    x = x[np.linspace(0, len(x) - 1, min(draws, len(x))).astype(int)]
    generator = np.random.default_rng(seed)
    with Progress(show=progressbar) as progress:
        progress.say("compiling what draws responses")
        if task is None:
            return _one_step_ahead(fit, x, generator, progress)
        return _free_running(fit, x, task, generator, progress)


def _one_step_ahead(fit: Fit, x: FloatArray, generator: np.random.Generator, progress: Progress) -> xr.Dataset:
    compiled = fit.compiled
    variables = {}
    for term in _observed(compiled):
        present = compiled.subjects.present[term.name]
        drawn: list[FloatArray] = []
        for number, own in enumerate(x, start=1):
            values, _ = draw(compiled.functions, term, compiled.subjects, own, present, generator)
            drawn.append(np.full((*present.shape, *values.shape[1:]), np.nan))
            drawn[-1][present] = values
            progress.say(f"{term.name}: draw {number} of {len(x)}")
        variables[term.name] = (("draw", *fit.data[term.name].dims), np.array(drawn))
    return xr.Dataset(variables, coords={"draw": np.arange(len(x)), **fit.data.coords})


def _free_running(
    fit: Fit, x: FloatArray, task: Task, generator: np.random.Generator, progress: Progress
) -> xr.Dataset:
    """Let all draws of all subjects work at once."""
    labels = fit.subjects["subject"].values
    assert isinstance(fit.compiled, CompiledModel)
    everybody = np.ascontiguousarray(x.reshape(-1, x.shape[-1]))
    play = Play(fit.compiled.model, task, everybody, np.tile(labels, len(x)), fit.compile_kwargs)
    play.run(generator, progress)
    beyond = np.arange(task.n_trials) >= task.lengths_of(labels)[:, None]
    variables = {}
    for name, (inner, values) in play.labelled().items():
        own = values.reshape(len(x), len(labels), *values.shape[1:])
        variables[name] = ("draw", "subject", "trial", *inner), np.where(widen(beyond, own.ndim - 1), np.nan, own)
    return xr.Dataset(
        variables, coords={"draw": np.arange(len(x)), "subject": labels, "trial": np.arange(task.n_trials)}
    )


def response_probabilities(fit: Fit) -> xr.Dataset:
    """See `Fit.response_probabilities`."""
    variables: dict[str, Any] = {}
    for term, given, options in _predicted(fit):
        dims = fit.data[term.name].dims[: 1 + term.by_trial]
        variables[f"{term.name}_given"] = dims, np.exp(given)
        if options is not None:
            variables[term.name] = (*dims, f"{term.name}_option"), options
    return xr.Dataset(variables, coords=fit.data.coords)


def deterministics(fit: Fit) -> xr.Dataset:
    """See `Fit.deterministics`."""
    refuse_pymc_model(fit)
    compiled = fit.compiled
    named = compiled.functions.trace.deterministics
    if not named:
        raise ValueError(
            f'{compiled.model.name} names nothing on its way: write pm.Deterministic("prediction_error", ...) into its '
            "likelihood, and fit again."
        )
    said = compiled.functions.evaluate("deterministics", compiled.subjects, _medians(fit), None)
    known = np.arange(fit.data.sizes.get("trial", 1)) < compiled.subjects.n_trials[:, None]
    for term in _observed(compiled):
        known &= compiled.subjects.present[term.name] if term.by_trial else True
    variables = {}
    for one, values in zip(named, said, strict=True):
        inner = inner_dims(one.name, values.ndim - 1 - one.by_trial)
        if one.by_trial:  # without a response there may be a stand-in behind it
            values = np.where(widen(known, values.ndim), values, np.nan)
        variables[one.name] = (("subject", *["trial"] * one.by_trial, *inner), values)
    return xr.Dataset(variables, coords=fit.data.coords)


def quality(fit: Fit) -> pd.DataFrame:
    """See `Fit.quality`."""
    subjects = fit.subjects["subject"].values
    n, log_likelihood = np.zeros(len(subjects)), np.zeros(len(subjects))
    hits, chance = np.zeros(len(subjects)), np.zeros(len(subjects))
    for _, given, options in _predicted(fit):
        given = given.reshape(len(subjects), -1)
        n += (~np.isnan(given)).sum(1)
        log_likelihood += np.nansum(given, axis=1)
        if options is None:
            hits, chance = np.full_like(hits, np.nan), np.full_like(chance, np.nan)
            continue
        options = options.reshape(*given.shape, -1)
        best = options.max(-1, keepdims=True)
        # of options that are equally likely each is as good a guess
        right = np.isclose(np.exp(given), best[..., 0]) / np.maximum(np.isclose(options, best).sum(-1), 1)
        hits += right.sum(1)
        chance -= np.where(np.isnan(given), 0.0, np.log(np.maximum((options > 0).sum(-1), 1))).sum(1)
    with np.errstate(divide="ignore", invalid="ignore"):
        table = {
            "responses": n.astype(int),
            "log_likelihood": log_likelihood,
            "probability": np.exp(log_likelihood / n),
            "accuracy": hits / n,
            "pseudo_r2": 1 - log_likelihood / chance,
        }
    return pd.DataFrame(table, index=pd.Index(subjects, name="subject"))


def refuse_pymc_model(fit: Fit) -> None:
    """Raise ValueError for a fit whose likelihood PyMC holds."""
    if isinstance(fit.model, PyMCModel):
        raise ValueError(
            "this fit is of a PyMC model: predict by pm.sample_posterior_predictive, and let ArviZ draw the picture."
        )


def _medians(fit: Fit) -> FloatArray:
    """All parameters of the likelihood at the subjects' posterior medians, Gaussian space."""
    return fit.group.plain.complete(fit.subjects["posterior_mean"].values)


def _observed(compiled: CompiledModel) -> list[Term]:
    return [term for term in compiled.functions.trace.terms if term.observes is not None]


def _predicted(fit: Fit) -> Iterator[tuple[Term, FloatArray, FloatArray | None]]:
    """Each observed variable at the posterior medians: log-probability of what was given, probability of each option.

    NaN where there is no response; no options, if it is no choice among a few.
    """
    refuse_pymc_model(fit)
    compiled = fit.compiled
    x = _medians(fit)
    given = compiled.pointwise_log_likelihood(x)
    for term in _observed(compiled):
        missing = ~compiled.subjects.present[term.name]
        options = _option_probabilities(compiled, term, x)
        yield (
            term,
            np.where(missing, np.nan, given[term.name]),
            None if options is None else np.where(missing[..., None], np.nan, options),
        )


def _option_probabilities(compiled: CompiledModel, term: Term, x: FloatArray) -> FloatArray | None:
    """Probability of each option, (subject, trial, option); None of a response that is no choice among a few."""
    if not isinstance(term.random.owner.op, BernoulliRV | CategoricalRV):  # type: ignore[union-attr]
        return None
    present = compiled.subjects.present[term.name]
    options: list[FloatArray] = []
    while len(options) < 2 or (np.sum(options, axis=0)[present] < 1 - 1e-9).any():
        option = np.array(len(options))
        [said] = compiled.functions.evaluate(("option", term.name), compiled.subjects, x, None, option)
        options.append(np.exp(said))
    return np.stack(options, axis=-1)
