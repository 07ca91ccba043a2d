"""A hierarchical `pymc.Model` that somebody has already, read as a group and its subjects, to be fitted by EM.

Read are subject-level Normal variables with a subject dimension, centred (``Normal(mu, sd)``) or not (``mu + sd * z``
of a standard Normal z). Which hyperparameters make up the group's mean and SD, and which term of the likelihood is
whose, is found by evaluating the model, not by names or by the way in which it is written; what does not fit is named.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import pymc as pm
import pytensor
import pytensor.tensor as pt
import xarray as xr
from numpy.typing import NDArray
from pytensor.graph.basic import Constant
from pytensor.graph.replace import graph_replace
from pytensor.graph.traversal import ancestors
from pytensor.tensor.random.basic import NormalRV

from em_ppl.data import label_array
from em_ppl.design import Design, people_table
from em_ppl.group import FloatArray, Group, HyperPrior
from em_ppl.joint import JointModel, Terms, find_owners, join
from em_ppl.model import ModelError
from em_ppl.parameters import Parameter, Positive, Real, Unit

__all__ = ["PyMCModel", "from_pymc"]

Symbol = Any  # a PyTensor variable
Hyper = dict[str, NDArray[Any]]  # values of the hyperparameters, natural space, by name


class Scale(NamedTuple):
    """How an SD hangs on its hyperparameter h: sd = factor * of(h); and h from sd / factor, also on symbols."""

    of: Callable[[Any], Any]
    back: Callable[[Any], Any]


def _log(value: Any) -> Any:
    return np.log(value) if isinstance(value, float | np.ndarray) else pt.log(value)


SCALES = {
    "sd": Scale(lambda h: h, lambda sd: sd),
    "log sd": Scale(np.exp, _log),
    "precision": Scale(lambda h: h**-0.5, lambda sd: sd**-2.0),
}


@dataclass(frozen=True)
class Level:
    """One subject-level variable: x = centre(h) + scale(h) z, with z standard Normal given the hyperparameters h.

    Attributes
    ----------
    variable : TensorVariable
        The free variable in the model: x itself, if it is centred, else z.
    centred : bool
        Which.
    shape : tuple of int
        (subject,) or (subject, several).
    moments : callable
        From hyperparameters to centre and scale, (subject, several) each.
    labels : list of str
        Names of the several parameters.
    name : str
        Of x.
    """

    variable: Symbol
    centred: bool
    shape: tuple[int, ...]
    moments: Callable[[Hyper], tuple[FloatArray, FloatArray]]
    labels: list[str]
    name: str


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
                found |= {level.variable.name: z.reshape(level.shape), level.name: own.reshape(level.shape)}
        return found

    def dims(self, name: str) -> tuple[str, ...]:
        """Dims of a variable of the PyMC model, made up where it has none."""
        own = self.pymc.named_vars_to_dims.get(name)
        ndim = self.pymc[name].type.ndim
        return tuple(own) if own is not None else tuple(f"{name}_dim_{k}" for k in range(ndim))

    @cached_property
    def _natural(self) -> dict[str, Callable[[Any], NDArray[Any]]]:
        """From PyMC's unconstrained to natural space, of each shared variable."""
        return {rv.name: _compile_transform(self.pymc, rv, "backward") for rv in self.shared}

    @cached_property
    def _unconstrained(self) -> dict[str, Callable[[Any], NDArray[Any]]]:
        """And back."""
        return {rv.name: _compile_transform(self.pymc, rv, "forward") for rv in self.shared}

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
                found[f"{_label((rv.name, index))}_gaussian"] = own[index]
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
    hypers, levels = _read_levels(model, dim)
    values = _reference(model, hypers)
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


# --- which variable is what -------------------------------------------------------------------------------------------


def _read_levels(model: pm.Model, dim: str) -> tuple[list[Symbol], list[Level]]:
    """Divide the free variables into hyperparameters and subject level."""
    dims = {rv.name: tuple(model.named_vars_to_dims.get(rv.name, ())) for rv in model.free_RVs}
    own = [rv for rv in model.free_RVs if dim in dims[rv.name]]
    hypers = [rv for rv in model.free_RVs if dim not in dims[rv.name]]
    if not own:
        known = sorted({str(d) for names in dims.values() for d in names})
        raise ModelError(
            f"no free variable has the dim {dim!r}; free variables have dims {', '.join(known) or 'of no name'}. "
            "Give subject-level variables dims, as in pm.Normal(..., dims='subject')."
        )
    for rv in model.free_RVs:
        if rv.dtype.startswith(("int", "bool", "uint")):
            raise ModelError(f"{rv.name!r} is discrete: EM takes continuous variables only. Sum it out.")
    for rv in hypers:
        above = [other.name for other in model.free_RVs if other is not rv and other in set(ancestors([rv]))]
        if above:
            raise ModelError(
                f"hyperparameter {rv.name!r} has a prior with a free variable of its own, {above[0]!r}: EM takes two "
                "levels, group and subjects. Give the prior numbers."
            )
    if not model.observed_RVs:
        raise ModelError("the model has no observed variable.")
    return hypers, [_read_level(model, rv, dim, dims[rv.name], own, hypers) for rv in own]


def _read_level(
    model: pm.Model, rv: Symbol, dim: str, dims: tuple[str, ...], own: list[Symbol], hypers: list[Symbol]
) -> Level:
    if not isinstance(rv.owner.op, NormalRV):
        raise ModelError(
            f"{rv.name!r} along {dim!r} is {rv.owner.op._print_name[0]}, not Normal: EM's group is Normal on the scale "
            "of the variable. Write it as a function of a Normal variable."
        )
    if dims[0] != dim or len(dims) > 2:
        raise ModelError(f"{rv.name!r} has dims {dims}: {dim!r} must be the first, with at most one more.")
    if model.rvs_to_transforms[rv] is not None:
        raise ModelError(f"{rv.name!r} is transformed: leave the transform of a subject-level variable out.")
    others = [other.name for other in own if other is not rv and other in set(ancestors([rv]))]
    if others:
        raise ModelError(f"{rv.name!r} hangs on another subject-level variable, {others[0]!r}: EM takes two levels.")
    shape = tuple(int(n) for n in model.initial_point(0)[model.rvs_to_values[rv].name].shape)
    columns = [""] if len(dims) == 1 else [f"[{label}]" for label in model.coords.get(dims[1]) or range(shape[1])]
    mean, sd = rv.owner.inputs[-2:]
    if set(hypers) & set(ancestors([mean, sd])):
        both = pt.zeros(shape) + mean, pt.zeros(shape) + sd
        function = _function_of(hypers, both)

        def moments(hyper: Hyper) -> tuple[FloatArray, FloatArray]:
            centre, scale = function(hyper)
            return centre.reshape(shape[0], -1), scale.reshape(shape[0], -1)

        return Level(rv, True, shape, moments, [f"{rv.name}{c}" for c in columns], rv.name)
    named, of_z = _scaled(model, rv, hypers, shape)
    return Level(rv, False, shape, of_z, [f"{named}{c}" for c in columns], named)


def _function_of(inputs: list[Symbol], outputs: Iterable[Symbol]) -> Callable[[Hyper], list[FloatArray]]:
    """Compile a function of random variables' values, by name."""
    stand_ins = {rv: rv.type(name=rv.name) for rv in inputs}
    graphs = graph_replace(list(outputs), stand_ins, strict=False)
    function = pytensor.function(list(stand_ins.values()), graphs, on_unused_input="ignore", mode="FAST_COMPILE")
    return lambda values: function(*(values[rv.name] for rv in inputs))


def _scaled(
    model: pm.Model, z: Symbol, hypers: list[Symbol], shape: tuple[int, ...]
) -> tuple[str, Callable[[Hyper], tuple[FloatArray, FloatArray]]]:
    """Find what a standard Normal z is carried to before the likelihood reads it: the last variable affine in it."""
    mean, sd = z.owner.inputs[-2:]
    terms = [*model.observed_RVs, *model.potentials]
    if not all(isinstance(v, Constant) and np.all(v.data == n) for v, n in ((_plain(mean), 0), (_plain(sd), 1))):
        raise ModelError(f"{z.name!r} has no hyperparameter above it: its distribution is fixed.")
    random = {*model.free_RVs, *terms}
    found: tuple[Symbol, Callable[..., Any]] | None = None
    for variable in ancestors(terms):
        if variable in random or getattr(variable.type, "ndim", -1) != z.ndim:
            continue
        above = set(ancestors([variable]))
        # z and hyperparameters and nothing else lead to it, and z leads to the likelihood by no other way
        if z not in above or not above & set(hypers) or not random & above <= {z, *hypers}:
            continue
        if z in set(ancestors(terms, blockers=[variable])):
            continue
        function = _function_of([z, *hypers], [variable])
        if _is_affine(function, z.name, shape, _reference(model, hypers)):
            larger = found is None or found[0] in above
            found = (variable, function) if larger else found
    if found is None:
        raise ModelError(
            f"{z.name!r} is standard Normal, but nothing of the form mean + sd * {z.name} stands between it and the "
            "likelihood: EM finds no group mean and SD."
        )
    variable, function = found

    def moments(hyper: Hyper) -> tuple[FloatArray, FloatArray]:
        centre = function(hyper | {z.name: np.zeros(shape)})[0]
        scale = function(hyper | {z.name: np.ones(shape)})[0] - centre
        return centre.reshape(shape[0], -1), scale.reshape(shape[0], -1)

    return variable.name or str(z.name), moments


def _plain(variable: Symbol) -> Symbol:
    """See through the dimensions that broadcasting added."""
    while variable.owner is not None and len(variable.owner.inputs) == 1:
        variable = variable.owner.inputs[0]
    return variable


def _is_affine(function: Callable[[Hyper], list[FloatArray]], name: str, shape: tuple[int, ...], hyper: Hyper) -> bool:
    """Whether every entry is a constant plus a multiple of the same entry of z."""
    z = np.random.default_rng(0).normal(size=shape)
    at = [function(hyper | {name: value})[0] for value in (0 * z, 0 * z + 1, z)]
    return at[2].shape == shape and np.allclose(at[2], at[0] + (at[1] - at[0]) * z, rtol=1e-8, atol=1e-10)


def _reference(model: pm.Model, hypers: list[Symbol]) -> Hyper:
    """Values of the hyperparameters at which the model is looked at, natural space; no round numbers."""
    point, generator = model.initial_point(0), np.random.default_rng(1)
    values = {}
    for rv in hypers:
        value = model.rvs_to_values[rv]
        at = point[value.name] + generator.uniform(0.1, 0.4, np.shape(point[value.name]))
        values[rv.name] = np.asarray(_compile_transform(model, rv, "backward")(at))
    return values


class Roles:
    """Which hyperparameter moves the mean of which parameter, and which is whose SD."""

    def __init__(self, hypers: list[Symbol], values: Hyper, levels: list[Level]) -> None:
        self.levels = levels
        self.labels = [label for level in levels for label in level.labels]
        self.at = [(rv.name, index) for rv in hypers for index in np.ndindex(np.shape(values[rv.name]))]
        centre, scale = self._moments(values)
        self.moves = {e: self._moments(_with(values, e, lambda h: h + 1.0))[0] - centre for e in self.at}
        stretched = {e: self._moments(_with(values, e, lambda h: 1.3 * h))[1] - scale for e in self.at}
        self.location = {e: move for e, move in self.moves.items() if np.abs(move).max() > 1e-9}
        of_scale = {e: change for e, change in stretched.items() if np.abs(change).max() > 1e-9}
        for e in self.location:
            if e in of_scale:
                raise ModelError(
                    f"hyperparameter {_label(e)} is part of a mean and of an SD; EM wants one of its own each."
                )
        self._check_linear(values, centre)
        self.scale = {self.labels[k]: self._scale_of(k, of_scale, values, scale) for k in range(len(self.labels))}
        elements = [e for e, _, _ in self.scale.values()]
        for e in elements:
            if elements.count(e) > 1:
                raise ModelError(f"hyperparameter {_label(e)} is the SD of several parameters; EM wants one each.")
        self.used = {name for name, _ in [*self.location, *elements]}
        self.values = values

    def _moments(self, values: Hyper) -> tuple[FloatArray, FloatArray]:
        both = [level.moments(values) for level in self.levels]
        return np.concatenate([c for c, _ in both], axis=1), np.concatenate([s for _, s in both], axis=1)

    def _check_linear(self, values: Hyper, centre: FloatArray) -> None:
        for e, move in self.location.items():
            if (np.abs(move).max(0) > 1e-9).sum() > 1:
                raise ModelError(
                    f"hyperparameter {_label(e)} moves the means of several parameters; EM wants one each."
                )
            twice = self._moments(_with(values, e, lambda h: h + 2.0))[0] - centre
            if not np.allclose(twice, 2 * move, rtol=1e-6, atol=1e-8):
                raise ModelError(f"the group mean is not linear in {_label(e)}: EM finds means by regression only.")
        rest = centre - sum((move * values[e[0]][e[1]] for e, move in self.location.items()), start=0 * centre)
        for k, label in enumerate(self.labels):
            if np.abs(rest[:, k]).max() > 1e-8:
                raise ModelError(
                    f"the mean of {label!r} has a fixed part that is no hyperparameter: subtract it, or give it one."
                )

    def _scale_of(
        self, k: int, changes: Mapping[Any, FloatArray], values: Hyper, scale: FloatArray
    ) -> tuple[Any, Scale, float]:
        """Return the hyperparameter that is the SD of parameter k, and how."""
        label, own = self.labels[k], [e for e, change in changes.items() if np.abs(change[:, k]).max() > 1e-9]
        if len(own) != 1:
            what = "is a fixed number" if not own else f"is made of several: {', '.join(map(_label, own))}"
            raise ModelError(f"the SD of {label!r} {what}; EM wants one hyperparameter.")
        if np.ptp(scale[:, k]) > 1e-9 * np.abs(scale[:, k]).max():
            raise ModelError(f"the SD of {label!r} differs between subjects; EM wants one for all.")
        [e] = own
        tries = [lambda h: h, lambda h: 1.5 * h, lambda h: 2.2 * h]
        points = [_with(values, e, change) for change in tries]
        h, sd = np.array([p[e[0]][e[1]] for p in points]), np.array([self._moments(p)[1][0, k] for p in points])
        for kind in SCALES.values():
            with np.errstate(all="ignore"):
                factor = sd / kind.of(h)
            if np.all(factor > 0) and np.ptp(factor) < 1e-8 * factor[0]:
                return e, kind, float(factor[0])
        raise ModelError(
            f"how the SD of {label!r} hangs on {_label(e)} is none of: itself, its exp, one over its root."
        )

    def coefficients(self, k: int) -> list[Any]:
        """Hyperparameters of the mean of parameter k, in order."""
        return [e for e, move in self.location.items() if np.abs(move[:, k]).max() > 1e-9]

    def hypers(self, group: Group) -> dict[str, NDArray[Any]]:
        """Return the hyperparameters of a group, by name, as arrays."""
        means = [e for k in range(len(self.labels)) for e in self.coefficients(k)]
        entries = dict(zip(means, group.coefficients, strict=True))
        for sd, (e, kind, factor) in zip(group.sd[0], self.scale.values(), strict=True):
            entries[e] = kind.back(float(sd) / factor)
        found = {name: np.empty(np.shape(self.values[name])) for name in self.used}
        for (name, index), value in entries.items():
            found[name][index] = value
        return found

    def design(self, labels: list[Any]) -> Design:
        """Make the regression of the means."""
        formulas: dict[str, str] = {}
        columns: dict[str, FloatArray] = {}
        for k, label in enumerate(self.labels):
            own = self.coefficients(k)
            if len(own) == 1 and np.allclose(self.location[own[0]][:, k], 1.0):
                formulas[label] = "~ 1"
                continue
            columns |= {_label(e): self.location[e][:, k] for e in own}
            formulas[label] = " + ".join(["~ 0", *(f"`{_label(e)}`" for e in own)])
        return Design(formulas, None, people_table(columns, np.array(labels)))


def _with(values: Hyper, element: Any, change: Callable[[Any], Any]) -> Hyper:
    name, index = element
    array = np.array(values[name], dtype=float)
    array[index] = change(array[index])
    return values | {name: array}


def _label(element: Any) -> str:
    name, index = element
    return name if not index else f"{name}[{', '.join(map(str, index))}]"


# --- what is the same for all -----------------------------------------------------------------------------------------


def _shared_parameters(model: pm.Model, rv: Symbol) -> dict[str, Parameter]:
    """Declare the entries of a variable that the likelihood reads for all subjects, in PyMC's unconstrained space."""
    value, transform = model.rvs_to_values[rv], model.rvs_to_transforms[rv]
    name, kind = {
        "log": (rv.name, Positive(shared=True)),
        "logodds": (rv.name, Unit(shared=True)),
    }.get(getattr(transform, "name", ""), (value.name, Real(shared=True)))
    return {_label((name, index)): kind for index in np.ndindex(np.shape(model.initial_point(0)[value.name]))}


# --- the likelihood ---------------------------------------------------------------------------------------------------


def _terms(model: pm.Model, levels: list[Level], shared: list[Symbol], values: Hyper) -> Terms:
    """Write every term of the likelihood as a function of subjects' and shared parameters, and find whose it is."""
    start = np.concatenate([level.moments(values)[0] for level in levels], axis=1)
    sizes = [int(np.size(values[rv.name])) for rv in shared]
    x, own = pt.matrix("x", dtype="float64"), pt.tensor("shared", dtype="float64", shape=(sum(sizes),))
    variables = [*model.observed_RVs, *model.potentials]
    log_likelihood = model.logp(vars=variables, sum=False)

    def at(hyper: Hyper) -> list[Symbol]:
        places = _subjects(model, levels, x, hyper) | _shared(model, shared, own, sizes)
        for rv in model.free_RVs:
            value = model.rvs_to_values[rv]
            if value not in places:  # a mean or an SD, which the likelihood should read through x alone
                places[value] = pt.constant(_compile_transform(model, rv, "forward")(hyper[rv.name]))
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


def _compile_transform(model: pm.Model, rv: Symbol, direction: str) -> Callable[[Any], NDArray[Any]]:
    """Compile the way from natural to PyMC's unconstrained space ("forward") or back."""
    value, transform = rv.type(), model.rvs_to_transforms[rv]
    there = value if transform is None else getattr(transform, direction)(value, *rv.owner.inputs)
    return pytensor.function([value], there, mode="FAST_COMPILE", on_unused_input="ignore")


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
