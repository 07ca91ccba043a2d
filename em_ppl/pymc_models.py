"""A hierarchical `pymc.Model` that somebody has already, read as a group and its subjects, to be fitted by EM.

Read are subject-level Normal variables with a subject dimension, centred (``Normal(mu, sd)``) or not (``mu + sd * z``
of a standard Normal z). Which hyperparameters make up the group's mean and SD, and which term of the likelihood is
whose, is found by evaluating the model, not by names or by the way in which it is written; what does not fit is named.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pymc as pm
import pytensor
import pytensor.tensor as pt
import xarray as xr
from numpy.typing import NDArray
from pytensor.graph.replace import graph_replace
from pytensor.graph.traversal import ancestors

from em_ppl.data import inner_dims, label_array
from em_ppl.design import Design
from em_ppl.group import FloatArray, Group, HyperPrior
from em_ppl.joint import JointModel, Terms, find_owners, join
from em_ppl.model import ModelError
from em_ppl.parameters import Parameter, Positive, Real, Unit
from em_ppl.roles import Hyper, Level, Roles, Symbol, compile_transform, label_of, read_levels, reference_values

__all__ = ["PyMCModel", "from_pymc"]


@dataclass(frozen=True, eq=False)
class PyMCModel:
    """A hierarchical PyMC model with its data, as EM sees it; made by `from_pymc`, fitted by ``em.fit(model)``.

    Attributes
    ----------
    pymc : pymc.Model
        The model itself.
    dim : str
        The dimension of the subjects.
    parameters : dict of str to Parameter
        Subject-level variables (varying), and variables that the likelihood reads for all subjects (shared).
    design : Design
        How the group's means hang on hyperparameters.
    prior : HyperPrior or None
        The model's own priors of its hyperparameters.
    terms : Terms
        The likelihood, taken apart.
    labels : list
        Of the subjects.
    levels, roles, shared
        The subject-level variables, what each hyperparameter is to them, and what the likelihood reads for all.
    """

    pymc: pm.Model
    dim: str
    parameters: dict[str, Parameter]
    design: Design
    prior: HyperPrior | None
    terms: Terms
    labels: list[Any]
    levels: list[Level]
    roles: Roles
    shared: list[Symbol]

    @property
    def name(self) -> str:
        """The PyMC model's name."""
        return self.pymc.name or "the PyMC model"

    @property
    def data(self) -> xr.Dataset:
        """Observed values, (subject, trial): a subject's, in the order in which they stand."""
        return self.compile().data

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the observed variables."""
        return tuple(str(name) for name in self.data.data_vars)

    def __repr__(self) -> str:
        means = ", ".join(f"{name} {formula}" for name, formula in self.design.formulas.items())
        shared = [name for name, parameter in self.parameters.items() if parameter.shared]
        rest = f"; shared: {', '.join(shared)}" if shared else ""
        return f"<{self.name}, {len(self.labels)} subjects along {self.dim!r}; means: {means}{rest}>"

    def compile(self, data: xr.Dataset | None = None, *, compile_kwargs: Mapping[str, Any] | None = None) -> JointModel:
        """Return the log-likelihood of every subject; `data` is the model's own."""
        observed = {rv.name: np.asarray(self.pymc.rvs_to_values[rv].eval()) for rv in self.pymc.observed_RVs}
        return replace(join(self, self.terms, observed, self.labels), compile_kwargs=dict(compile_kwargs or {}))

    def values(self, group: Group, x: FloatArray) -> dict[str, NDArray[Any]]:
        """Return the value of every variable of the PyMC model, from a group and subjects in Gaussian space.

        Parameters
        ----------
        group : Group
            A draw, or an estimate.
        x : ndarray
            (subject, varying parameter).
        """
        found = self.roles.hypers(group)
        edge = 0
        for rv in self.shared:
            size = int(np.size(self.roles.values[rv.name]))
            own, edge = group.shared[edge : edge + size], edge + size
            found[rv.name] = self._natural[rv.name](own.reshape(np.shape(self.roles.values[rv.name])))
        edge = 0
        for level in self.levels:
            place = slice(edge, edge + len(level.labels))
            own, edge = x[:, place], edge + len(level.labels)
            if level.centred:
                found[level.variable.name] = own.reshape(level.shape)
            else:
                z = (own - group.location[:, place]) / group.sd[0, place]
                found[level.variable.name] = z.reshape(level.shape)
                if level.name in self.pymc.named_vars:
                    found[level.name] = own.reshape(level.shape)
        return found

    def dims(self, name: str) -> tuple[str, ...]:
        """Dims of a variable of the PyMC model, made up where it has none."""
        own = self.pymc.named_vars_to_dims.get(name)
        ndim = self.pymc[name].type.ndim
        return tuple(own) if own is not None else inner_dims(name, ndim)

    @cached_property
    def _natural(self) -> dict[str, Callable[[Any], NDArray[Any]]]:
        """From PyMC's unconstrained to natural space, of each shared variable."""
        return {rv.name: compile_transform(self.pymc, rv, "backward") for rv in self.shared}

    @cached_property
    def _unconstrained(self) -> dict[str, Callable[[Any], NDArray[Any]]]:
        """And back."""
        return {rv.name: compile_transform(self.pymc, rv, "forward") for rv in self.shared}

    def as_group(self, posterior: xr.Dataset) -> xr.Dataset:
        """Read draws of the PyMC model as a group and its subjects, with the names of a fit's InferenceData."""
        names = [*self.roles.values, *(level.variable.name for level in self.levels)]
        draws = posterior[names].stack(sample=("chain", "draw")).transpose("sample", ...)
        rows = [self._draw_as_group({n: draws[n].values[i] for n in names}) for i in range(draws.sizes["sample"])]
        dims = {"group_mean": ("parameter",), "group_sd": ("parameter",), "gaussian": ("subject", "parameter")}
        dims |= {"group_coefficients": ("coefficient",)} if self.design.has_covariates else {}
        sizes = posterior.sizes["chain"], posterior.sizes["draw"]
        varying = self.roles.labels
        coords: dict[str, Any] = {"chain": posterior["chain"].values, "draw": posterior["draw"].values}
        coords |= {"parameter": varying, "subject": label_array(self.labels)}
        coords |= {"coefficient": self.design.labels} if self.design.has_covariates else {}
        variables = {}
        for name in rows[0]:
            values = np.array([row[name] for row in rows])
            variables[name] = (("chain", "draw", *dims.get(name, ())), values.reshape(*sizes, *values.shape[1:]))
        return xr.Dataset(variables, coords=coords)

    def _draw_as_group(self, values: Hyper) -> dict[str, Any]:
        both = [level.moments(values) for level in self.levels]
        x = []
        for level, (centre, scale) in zip(self.levels, both, strict=True):
            own = values[level.variable.name].reshape(centre.shape)
            x.append(own if level.centred else centre + scale * own)
        centre, scale = (np.concatenate(parts, axis=1) for parts in zip(*both, strict=True))
        found = {"group_mean": centre.mean(0), "group_sd": scale[0], "gaussian": np.concatenate(x, axis=1)}
        if self.design.has_covariates:
            means = [e for k in range(len(self.roles.labels)) for e in self.roles.coefficients(k)]
            found["group_coefficients"] = np.array([values[name][index] for name, index in means])
        for rv in self.shared:
            own = np.asarray(self._unconstrained[rv.name](values[rv.name]))
            for index in np.ndindex(own.shape):
                found[f"{label_of((rv.name, index))}_gaussian"] = own[index]
        return found


def from_pymc(model: pm.Model, dim: str = "subject", *, priors: bool = True) -> PyMCModel:
    """Read a hierarchical PyMC model for EM.

    Parameters
    ----------
    model : pymc.Model
        With Normal variables along `dim`, whose means are linear in hyperparameters (or a single one) and whose SDs are
        one hyperparameter each (or its exponential, or the root of its inverse); a likelihood whose every term belongs
        to one subject.
    dim : str
        Name of the subjects' dimension, the first of every subject-level variable.
    priors : bool
        Whether EM takes the priors of the hyperparameters into account. Its result is then the mode of their marginal
        posterior, subjects integrated out, in PyMC's unconstrained space (an SD as its log, which keeps it off 0).
        Without, it is maximum likelihood.

    Returns
    -------
    PyMCModel
        For `em_ppl.fit`.

    Raises
    ------
    ModelError
        If the model has a part that EM cannot take; the message names it.

    Examples
    --------
    >>> import em_ppl as em, numpy as np, pymc as pm
    >>> y, se = np.array([28.0, 8, -3, 7, -1, 1, 18, 12]), np.array([15.0, 10, 16, 11, 9, 11, 10, 18])
    >>> with pm.Model(coords={"school": list("ABCDEFGH")}) as schools:
    ...     mu, tau = pm.Normal("mu", 0, 5), pm.HalfCauchy("tau", 5)
    ...     theta = pm.Normal("theta", mu, tau, dims="school")
    ...     _ = pm.Normal("y", theta, se, observed=y, dims="school")
    >>> eight = em.from_pymc(schools, dim="school")
    >>> eight
    <the PyMC model, 8 subjects along 'school'; means: theta ~ 1>
    >>> fit = em.fit(eight, progressbar=False)
    >>> float(fit.group.sd[0].round(2))  # tau, where pm.find_MAP ends at 0
    3.63
    """
    hypers, levels = read_levels(model, dim)
    values = reference_values(model, hypers)
    roles = Roles(hypers, values, levels)
    shared = [rv for rv in hypers if rv.name not in roles.used]
    labels = list(model.coords.get(dim) or range(levels[0].shape[0]))
    parameters = {label: Real() for level in levels for label in level.labels}
    for rv in shared:
        parameters |= _shared_parameters(model, rv)
    return PyMCModel(
        pymc=model,
        dim=dim,
        parameters=parameters,
        design=roles.design(labels),
        prior=_hyper_prior(model, hypers, roles, shared) if priors else None,
        terms=_terms(model, levels, shared, values),
        labels=labels,
        levels=levels,
        roles=roles,
        shared=shared,
    )


# --- what is the same for all -----------------------------------------------------------------------------------------


def _shared_parameters(model: pm.Model, rv: Symbol) -> dict[str, Parameter]:
    """Declare the entries of a variable that the likelihood reads for all subjects, in PyMC's unconstrained space."""
    value, transform = model.rvs_to_values[rv], model.rvs_to_transforms[rv]
    name, kind = {
        "log": (rv.name, Positive(shared=True)),
        "logodds": (rv.name, Unit(shared=True)),
    }.get(getattr(transform, "name", ""), (value.name, Real(shared=True)))
    return {label_of((name, index)): kind for index in np.ndindex(np.shape(model.initial_point(0)[value.name]))}


# --- the likelihood ---------------------------------------------------------------------------------------------------


def _terms(model: pm.Model, levels: list[Level], shared: list[Symbol], values: Hyper) -> Terms:
    """Write every term of the likelihood as a function of subjects' and shared parameters, and find whose it is."""
    start = np.concatenate([level.moments(values)[0] for level in levels], axis=1)
    sizes = [int(np.size(values[rv.name])) for rv in shared]
    x, own = pt.matrix("x", dtype="float64"), pt.tensor("shared", dtype="float64", shape=(sum(sizes),))
    variables = [*model.observed_RVs, *model.potentials]
    log_likelihood = model.logp(vars=variables, sum=False)
    read = set(ancestors(log_likelihood))
    for rv in shared:
        if model.rvs_to_values[rv] not in read:
            raise ModelError(f"{rv.name!r} is part of no group and no likelihood: drop it.")

    def at(hyper: Hyper) -> list[Symbol]:
        places = _subjects(model, levels, x, hyper) | _shared(model, shared, own, sizes)
        for rv in model.free_RVs:
            value = model.rvs_to_values[rv]
            if value not in places:  # a mean or an SD, which the likelihood should read through x alone
                places[value] = pt.constant(compile_transform(model, rv, "forward")(hyper[rv.name]))
        return graph_replace(log_likelihood, places, strict=False)

    terms, others = at(values), at({name: 1.25 * value for name, value in values.items()})
    compare = pytensor.function([x, own], [*terms, *others], on_unused_input="ignore", mode="FAST_COMPILE")
    found = compare(start + 0.1, np.zeros(sum(sizes)))
    for rv, one, other in zip(variables, found[: len(terms)], found[len(terms) :], strict=True):
        if not np.allclose(one, other, rtol=1e-8):
            raise ModelError(
                f"{rv.name!r} reads a mean or an SD of the group not only through the subjects: EM cannot part them."
            )
    return find_owners([rv.name for rv in variables], terms, x, own, start)


def _subjects(model: pm.Model, levels: list[Level], x: Symbol, hyper: Hyper) -> dict[Symbol, Symbol]:
    """Put x in the place of subject-level variables; with it, a standard one is what leads to x."""
    places, edge = {}, 0
    for level in levels:
        own, edge = x[:, edge : edge + len(level.labels)], edge + len(level.labels)
        if not level.centred:
            centre, scale = level.moments(hyper)
            own = (own - centre) / scale
        places[model.rvs_to_values[level.variable]] = own.reshape(level.shape)
    return places


def _shared(model: pm.Model, shared: list[Symbol], own: Symbol, sizes: list[int]) -> dict[Symbol, Symbol]:
    places, edge = {}, 0
    for rv, size in zip(shared, sizes, strict=True):
        value = model.rvs_to_values[rv]
        places[value] = own[edge : edge + size].reshape(np.shape(model.initial_point(0)[value.name]))
        edge += size
    return places


def _hyper_prior(model: pm.Model, hypers: list[Symbol], roles: Roles, shared: list[Symbol]) -> HyperPrior:
    """Write the log density of the hyperparameters as a function of the group's free numbers."""
    if not hypers:
        raise ModelError("the model has no hyperparameter: there is no group to estimate.")
    means = [e for k in range(len(roles.labels)) for e in roles.coefficients(k)]
    sds = [roles.scale[label] for label in roles.labels]
    vector = pt.vector("vector", dtype="float64")
    entries = {e: vector[k] for k, e in enumerate(means)}
    entries |= {e: kind.back(pt.exp(vector[len(means) + k]) / factor) for k, (e, kind, factor) in enumerate(sds)}
    edge = len(means) + len(sds)
    places = {}
    for rv in hypers:
        value, shape = model.rvs_to_values[rv], np.shape(roles.values[rv.name])
        size = int(np.prod(shape))
        if rv in shared:
            places[value], edge = vector[edge : edge + size].reshape(shape), edge + size
            continue
        natural = pt.stack([entries[rv.name, index] for index in np.ndindex(shape)]).reshape(shape)
        transform = model.rvs_to_transforms[rv]
        places[value] = natural if transform is None else transform.forward(natural, *rv.owner.inputs)
    log_density = graph_replace([model.logp(vars=hypers)], places, strict=False)[0]
    function = pytensor.function([vector], [log_density, pytensor.grad(log_density, vector)], mode="FAST_COMPILE")
    return HyperPrior(function)
