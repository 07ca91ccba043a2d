"""NUTS from a fit: where it begins, on which scales, and in which parametrisation.

A fit is a Normal approximation of the posterior that NUTS is to explore. Chains begin at draws of it, the mass matrix
at its variances, and each parameter is centred or not by how much the trials tell about single subjects.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pymc as pm
import pytensor
from numpy.typing import NDArray
from pymc.blocking import DictToArrayBijection
from pymc.step_methods.hmc.quadpotential import QuadPotentialDiagAdapt

from em_ppl import compat
from em_ppl.group import COLLAPSED, FloatArray, Group
from em_ppl.hierarchy import Priors, build_hierarchy
from em_ppl.inference_data import draw_groups, draw_subjects, log_likelihood_of
from em_ppl.progress import Progress
from em_ppl.pymc_models import PyMCModel
from em_ppl.translation import free_values, posterior_of, well_known

if TYPE_CHECKING:
    from em_ppl.result import Fit

SCALE_DRAWS = 400  # of the fit, that tell NUTS its scales
SCALE_WEIGHT = 50  # draws of the sampler that these count as
OF_NUTS = ("max_treedepth", "step_scale", "Emax")  # keywords of `pymc.sample` that go to its NUTS


def hierarchical_model(fit: Fit, priors: Priors | None, centred: bool | Collection[str] | None) -> pm.Model:
    """See `Fit.hierarchical_model`."""
    if isinstance(fit.model, PyMCModel):
        if priors is not None or centred is not None:
            raise ValueError("the model of em.from_pymc is as it is: change priors and parametrisation there.")
        return fit.model.pymc
    group = fit.group.plain.model
    chosen = well_known(fit) if centred is None else centred
    return build_hierarchy(fit.compiled, fit.group.design, group.structure, group.distribution, priors, chosen)


def sample(
    fit: Fit,
    *,
    priors: Priors | None,
    centred: bool | Collection[str] | None,
    target_accept: float,
    tune: int,
    chains: int,
    random_seed: int | None,
    nuts_sampler: str,
    log_likelihood: bool,
    progressbar: bool,
    **kwargs: Any,
) -> Any:
    """See `Fit.sample`."""
    model = hierarchical_model(fit, priors, centred)
    if progressbar:
        print(_describe(fit, model))
    seed = fit.settings["random_seed"] if random_seed is None else random_seed
    points = _points(fit, model, chains + SCALE_DRAWS, np.random.default_rng(seed))
    kwargs |= {"tune": tune, "chains": chains, "random_seed": seed, "progressbar": progressbar}
    own = {"target_accept": target_accept} | {name: kwargs.pop(name) for name in OF_NUTS if name in kwargs}
    own |= kwargs.pop("nuts", {})
    with model:
        if nuts_sampler == "pymc":
            kwargs["step"] = pm.NUTS(potential=_potential(model, points[chains:], tune, seed), **own)
        else:
            kwargs["nuts"] = own
        kwargs.setdefault("initvals", points[0] if nuts_sampler == "nutpie" else points[:chains])
        idata = pm.sample(nuts_sampler=nuts_sampler, **kwargs)
    if log_likelihood:
        posterior = posterior_of(fit, idata)
        with Progress(show=progressbar) as progress:
            idata = compat.add_group(idata, "log_likelihood", log_likelihood_of(fit, posterior, progress))
    return idata


def _describe(fit: Fit, model: pm.Model) -> str:
    line = "NUTS begins at draws of the fit and on its scales."
    if isinstance(fit.model, PyMCModel):
        return line
    free = {variable.name for variable in model.free_RVs}
    for kind, ending in (("Centred", "gaussian"), ("Non-centred", "offset")):
        names = [name for name in fit.group.varying if f"{name}_{ending}" in free]
        line += f" {kind}: {', '.join(names)}." if names else ""
    return line


# --- the fit in the variables of the model --------------------------------------------------------------------------


def _points(fit: Fit, model: pm.Model, n: int, generator: np.random.Generator) -> list[dict[str, FloatArray]]:
    """Draw from the fit: a value of each free variable, not yet transformed."""
    groups = [_with_room(group) for group in draw_groups(fit, n, generator)]
    subjects, _ = draw_subjects(fit, groups, generator)
    free = [variable.name for variable in model.free_RVs]
    drawn = (free_values(fit, group, x) for group, x in zip(groups, subjects, strict=True))
    return [{name: values[name] for name in free} for values in drawn]


def _with_room(group: Group) -> Group:
    """Give an SD that has gone to 0 room to move."""
    least = (COLLAPSED * group.model.unit[group.model.varying]) ** 2
    thin = np.diagonal(group.covariances, axis1=1, axis2=2) < least
    covariances = group.covariances + np.eye(len(least)) * (thin * least)[:, None, :]
    return Group(group.model, group.coefficients, covariances, group.shared)


def _potential(
    model: pm.Model, points: Iterable[Mapping[str, FloatArray]], tune: int, seed: int
) -> QuadPotentialDiagAdapt:
    """Make a mass matrix that begins with the fit's variances and learns from every draw."""
    transform = _transformation(model)
    flat = np.array([DictToArrayBijection.map(transform(point)).data for point in points])
    settings = {"initial_weight": SCALE_WEIGHT, "early_update": True, "adaptation_window": max(tune, 1)}
    variance = np.where(flat.var(0) > 1e-8, flat.var(0), 1.0)  # an SD that has gone to 0 is not drawn
    return QuadPotentialDiagAdapt(flat.shape[1], flat.mean(0), variance, rng=np.random.default_rng(seed), **settings)


def _transformation(model: pm.Model) -> Any:
    """Return a function of a point that gives it as NUTS sees it, transformed to the whole real line."""
    symbols = {variable.name: variable.type() for variable in model.free_RVs}
    outputs = {}
    for variable in model.free_RVs:
        transform, symbol = model.rvs_to_transforms[variable], symbols[variable.name]
        outputs[model.rvs_to_values[variable].name] = (
            symbol if transform is None else transform.forward(symbol, *variable.owner.inputs)
        )
    function = pytensor.function(list(symbols.values()), list(outputs.values()), mode="FAST_COMPILE")

    def transformed(point: Mapping[str, FloatArray]) -> dict[str, NDArray[Any]]:
        return dict(zip(outputs, function(*(point[name] for name in symbols)), strict=True))

    return transformed
