"""Which variable of a hierarchical `pymc.Model` is what: subject level, and its group's means and SDs.

Found by evaluating the model, not by names or by the way in which it is written. A hyperparameter is part of a mean if
the mean moves with it, linearly; it is an SD if that alone moves with it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pymc as pm
import pytensor
import pytensor.tensor as pt
from numpy.typing import NDArray
from pytensor.graph.basic import Constant
from pytensor.graph.replace import graph_replace
from pytensor.graph.traversal import ancestors
from pytensor.tensor.random.basic import NormalRV

from em_ppl.design import Design, people_table
from em_ppl.group import FloatArray, Group
from em_ppl.model import ModelError

Symbol = Any  # a PyTensor variable
Hyper = dict[str, NDArray[Any]]  # values of the hyperparameters, natural space, by name
Element = tuple[str, tuple[int, ...]]  # an entry of a hyperparameter


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


def read_levels(model: pm.Model, dim: str) -> tuple[list[Symbol], list[Level]]:
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
        if _is_affine(function, z.name, shape, reference_values(model, hypers)):
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

    return variable.name or f"{z.name}_scaled", moments


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


def reference_values(model: pm.Model, hypers: list[Symbol]) -> Hyper:
    """Values of the hyperparameters at which the model is looked at, natural space; no round numbers."""
    point, generator = model.initial_point(0), np.random.default_rng(1)
    values = {}
    for rv in hypers:
        value = model.rvs_to_values[rv]
        at = point[value.name] + generator.uniform(0.1, 0.4, np.shape(point[value.name]))
        values[rv.name] = np.asarray(compile_transform(model, rv, "backward")(at))
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
                    f"hyperparameter {label_of(e)} is part of a mean and of an SD; EM wants one of its own each."
                )
        self._check_linear(values, centre)
        self.scale = {self.labels[k]: self._scale_of(k, of_scale, values, scale) for k in range(len(self.labels))}
        elements = [e for e, _, _ in self.scale.values()]
        for e in elements:
            if elements.count(e) > 1:
                raise ModelError(f"hyperparameter {label_of(e)} is the SD of several parameters; EM wants one each.")
        self.used = {name for name, _ in [*self.location, *elements]}
        for e in self.at:
            if e[0] in self.used and e not in self.location and e not in elements:
                raise ModelError(
                    f"hyperparameter {label_of(e)} is part of no mean and no SD, though others of {e[0]} are."
                )
        self.values = values

    def _moments(self, values: Hyper) -> tuple[FloatArray, FloatArray]:
        both = [level.moments(values) for level in self.levels]
        return np.concatenate([c for c, _ in both], axis=1), np.concatenate([s for _, s in both], axis=1)

    def _check_linear(self, values: Hyper, centre: FloatArray) -> None:
        for e, move in self.location.items():
            if (np.abs(move).max(0) > 1e-9).sum() > 1:
                raise ModelError(
                    f"hyperparameter {label_of(e)} moves the means of several parameters; EM wants one each."
                )
            twice = self._moments(_with(values, e, lambda h: h + 2.0))[0] - centre
            if not np.allclose(twice, 2 * move, rtol=1e-6, atol=1e-8):
                raise ModelError(f"the group mean is not linear in {label_of(e)}: EM finds means by regression only.")
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
            what = "is a fixed number" if not own else f"is made of several: {', '.join(map(label_of, own))}"
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
            f"how the SD of {label!r} hangs on {label_of(e)} is none of: itself, its exp, one over its root."
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
            columns |= {label_of(e): self.location[e][:, k] for e in own}
            formulas[label] = " + ".join(["~ 0", *(f"`{label_of(e)}`" for e in own)])
        return Design(formulas, None, people_table(columns, np.array(labels)))


def _with(values: Hyper, element: Any, change: Callable[[Any], Any]) -> Hyper:
    name, index = element
    array = np.array(values[name], dtype=float)
    array[index] = change(array[index])
    return values | {name: array}


def label_of(element: Any) -> str:
    """Write the name of an entry of a hyperparameter."""
    name, index = element
    return name if not index else f"{name}[{', '.join(map(str, index))}]"


def compile_transform(model: pm.Model, rv: Symbol, direction: str) -> Callable[[Any], NDArray[Any]]:
    """Compile the way from natural to PyMC's unconstrained space ("forward") or back."""
    value, transform = rv.type(), model.rvs_to_transforms[rv]
    there = value if transform is None else getattr(transform, direction)(value, *rv.owner.inputs)
    return pytensor.function([value], there, mode="FAST_COMPILE", on_unused_input="ignore")
