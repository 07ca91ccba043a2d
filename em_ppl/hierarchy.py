"""The full hierarchical model: the same one subject's likelihood, below a group with priors, as a `pymc.Model`.

Names, dims and coords are those of `Fit.to_inference_data`, so that a fit and a sampled posterior lie side by side.
Free variables: ``group_mean`` (with covariates ``group_coefficients``) and ``group_sd``, or ``group_cholesky`` with a
full covariance; ``<name>_gaussian`` of a shared parameter; of a varying one ``<name>_offset`` (non-centred: standard,
scaled by the group afterwards) or ``<name>_gaussian`` (centred: drawn from the group as it is). The rest follows:
``gaussian``, the natural parameters by their own names, ``group_median``. Observed variables are (subject, trial).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np
import pymc as pm
import pytensor
import pytensor.tensor as pt
from numpy.typing import NDArray
from pymc.distributions.shape_utils import change_dist_size
from pytensor.compile.sharedvalue import SharedVariable
from pytensor.graph.replace import graph_replace
from pytensor.graph.traversal import ancestors
from pytensor.tensor.utils import safe_signature

from em_ppl.batching import NotBatchable
from em_ppl.compiled import CompiledModel
from em_ppl.design import Design, make_group_model
from em_ppl.distributions import Distribution, Laplace, StudentT
from em_ppl.group import FloatArray, GroupModel, Structure
from em_ppl.model import ModelError, Term
from em_ppl.parameters import Parameter
from em_ppl.start import starting_point

__all__ = ["Priors", "build_hierarchy"]

Symbol = Any  # a PyTensor variable
Priors = Mapping[str, Any]

# SDs of the priors of means and coefficients, in spreads of the parameter: one, where bounds say what is possible, and
# three, where a mean may be in any unit or a covariate not centred. A spread that is not declared is made of the SD
# that the data suggest.
BOUNDED, WIDE, UNDECLARED = 1.0, 3.0, 2.5
LKJ_ETA = 2.0


def build_hierarchy(
    compiled: CompiledModel,
    design: Design,
    structure: Structure,
    distribution: Distribution,
    priors: Priors | None,
    centred: bool | Collection[str],
) -> pm.Model:
    """Write the hierarchical model; see `SubjectModel.hierarchical`."""
    parameters = compiled.model.parameters
    varying = [name for name, parameter in parameters.items() if not parameter.shared]
    centred = _check_centred(centred, varying)
    if not compiled.functions.together.batched:
        raise ModelError(
            f"{compiled.model.name} cannot be batched over subjects (a BatchingWarning said why), so there is no "
            "hierarchical model of it: NUTS would need one graph a subject."
        )
    start, spread = scales(compiled)
    group = make_group_model(design, parameters, spread, structure, distribution, None)
    with pm.Model(model=None, coords=_coords(compiled, design, varying)) as hierarchy:  # no parent, even in a context
        choose = _Prior(priors or {})
        location = _locations(group, design, *prior_of_coefficients(group, design, parameters, start, spread), choose)
        factor = _factors(group, design, spread[group.varying], choose)
        drawn = pt.stack(_subjects(varying, location, factor, group, centred), axis=1)
        gaussian = pm.Deterministic("gaussian", drawn, dims=("subject", "parameter"))
        x = {name: gaussian[:, k] for k, name in enumerate(varying)}
        median = [parameters[name].symbolic(hierarchy["group_mean"][k]) for k, name in enumerate(varying)]
        pm.Deterministic("group_median", pt.stack(median), dims="parameter")
        for k in group.shared:
            name = list(parameters)[k]
            wide = spread[k] * _width(parameters[name])
            x[name] = choose.register(f"{name}_gaussian", pm.Normal.dist(start[k], wide), (), ())
        for name, parameter in parameters.items():
            pm.Deterministic(name, parameter.symbolic(x[name]), dims=() if parameter.shared else "subject")
        choose.refuse_unknown()
        _likelihood(compiled, [x[name] for name in parameters])
    return hierarchy


def _check_centred(centred: bool | Collection[str], varying: Sequence[str]) -> set[str]:
    if isinstance(centred, bool):
        return set(varying) if centred else set()
    if isinstance(centred, str) or not set(centred) <= set(varying):
        raise ValueError(
            f"centred={centred!r} must be True, False, or a list of parameters that vary ({', '.join(varying)})."
        )
    return set(centred)


def _coords(compiled: CompiledModel, design: Design, varying: Sequence[str]) -> dict[str, Any]:
    data = compiled.data
    coords: dict[str, Any] = {
        str(dim): data[dim].values if dim in data.coords else np.arange(n) for dim, n in data.sizes.items()
    }
    if coords["subject"].dtype == object:  # PyMC takes no tuples, and would write numbers beside names in its own way
        coords["subject"] = [str(label) for label in coords["subject"]]
    coords |= {"parameter": varying, "parameter_2": varying}
    if design.by is not None:
        coords[design.by] = design.levels
    if design.has_covariates:
        coords["coefficient"] = design.labels
    return coords


# --- the group and its priors ---------------------------------------------------------------------------------------


def scales(compiled: CompiledModel) -> tuple[FloatArray, FloatArray]:
    """Where each declared parameter may be and how widely, Gaussian space; from the data only if it is not declared."""
    parameters = list(compiled.model.parameters.values())
    start = np.array([parameter.gaussian_start for parameter in parameters])
    undeclared = np.array([parameter.spread is None for parameter in parameters])
    spread = np.array([parameter.spread or 1.0 for parameter in parameters])
    if undeclared.any():
        near, unit = starting_point(compiled)
        start, spread = np.where(undeclared, near, start), np.where(undeclared, UNDECLARED * unit, spread)
    return start, spread


class _Prior:
    """The user's priors by the name of their variable, ours where there is none."""

    def __init__(self, given: Priors) -> None:
        self.given = given
        self.asked: list[str] = []

    def distribution(self, name: str, default: Symbol) -> Symbol:
        self.asked.append(name)
        prior = self.given.get(name, default)
        if getattr(prior, "owner", None) is None:
            raise TypeError(f"priors[{name!r}]={prior!r} is no distribution, such as pm.HalfNormal.dist(1.0).")
        return prior

    def number(self, name: str, default: float) -> float:
        self.asked.append(name)
        prior = self.given.get(name, default)
        if not isinstance(prior, int | float) or not prior > 0:
            raise TypeError(f"priors[{name!r}]={prior!r} must be a positive number, the eta of an LKJ distribution.")
        return float(prior)

    def register(self, name: str, default: Symbol, shape: tuple[int, ...], dims: tuple[str, ...]) -> Symbol:
        """Put a free variable into the model."""
        prior = self.distribution(name, default)
        return pm.modelcontext(None).register_rv(change_dist_size(prior, shape), name, dims=dims)

    def refuse_unknown(self) -> None:
        for name in self.given:
            if name not in self.asked:
                raise ValueError(f"priors has {name!r}, but this model has priors of {', '.join(self.asked)}.")


def _width(parameter: Parameter) -> float:
    return BOUNDED if np.isfinite(parameter.high) else WIDE


def prior_of_coefficients(
    group: GroupModel, design: Design, parameters: Mapping[str, Parameter], start: FloatArray, spread: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Return mean and SD of the Normal priors of the coefficients (of the means, without covariates)."""
    wide = spread[group.varying][group.belongs_to] / group.typical
    width = [WIDE if design.has_covariates else _width(list(parameters.values())[k]) for k in group.varying]
    return group.coefficients_near(start), wide * np.array(width)[group.belongs_to]


def _locations(group: GroupModel, design: Design, centre: FloatArray, sd: FloatArray, choose: _Prior) -> list[Symbol]:
    """Return where subjects are expected, one for each varying parameter: (1,) or (subject,)."""
    n, p, k = group.design.shape
    prior = pm.Normal.dist(centre, sd)
    if not design.has_covariates:
        mean = choose.register("group_mean", prior, (p,), ("parameter",))
        return [mean[i : i + 1] for i in range(p)]
    coefficients = choose.register("group_coefficients", prior, (k,), ("coefficient",))
    location = pt.dot(group.design.reshape(n * p, k), coefficients).reshape((n, p))
    pm.Deterministic("group_mean", location.mean(0), dims="parameter")
    return [location[:, i] for i in range(p)]


def _factors(group: GroupModel, design: Design, spread: FloatArray, choose: _Prior) -> list[list[Symbol]]:
    """Rows of the Cholesky factor up to the diagonal, each entry a scalar or (subject,); None, where it is always 0."""
    p, by = len(spread), () if design.by is None else (design.by,)
    classes = (len(design.levels),) if by else ()

    def own(values: Symbol) -> Symbol:
        return values[group.level] if by else values

    if group.structure == "diagonal" or p == 1:
        sd = choose.register("group_sd", pm.HalfNormal.dist(spread), (*classes, p), (*by, "parameter"))
        return [[*[None] * k, own(sd)[..., k]] for k in range(p)]
    sd_prior = change_dist_size(choose.distribution("group_sd", pm.HalfNormal.dist(spread)), (p,))
    eta = choose.number("group_correlation", LKJ_ETA)
    settings = {"n": p, "eta": eta, "sd_dist": sd_prior, "compute_corr": True, "store_in_trace": False}
    factors, correlations, sds = zip(
        *(pm.LKJCholeskyCov(name, **settings) for name in factor_names(design)), strict=True
    )
    together = [pt.stack(values) if by else values[0] for values in (factors, correlations, sds)]
    pm.Deterministic("group_sd", together[2], dims=(*by, "parameter"))
    pm.Deterministic("group_correlation", together[1], dims=(*by, "parameter", "parameter_2"))
    factor = own(together[0])
    return [[factor[..., k, j] for j in range(k + 1)] for k in range(p)]


def _subjects(
    varying: Sequence[str],
    location: Sequence[Symbol],
    factor: Sequence[Sequence[Symbol]],
    group: GroupModel,
    centred: Collection[str],
) -> list[Symbol]:
    """Draw subjects from the group, one parameter after the other, each given those before it.

    A joint Student-t stays one in this way: given k parameters z it is a Student-t with k more degrees of freedom, and
    sqrt((df + z'z) / (df + k)) times as wide.
    """
    x: list[Symbol] = []
    z: list[Symbol] = []
    for k, name in enumerate(varying):
        *before, scale = factor[k]
        expected = sum((a * b for a, b in zip(before, z, strict=True) if a is not None), start=location[k])
        draw, widening = _given_others(group.distribution, z if group.joint else [])
        if name in centred:
            x.append(draw(f"{name}_gaussian", expected, widening * scale))
            z.append((x[-1] - expected) / scale)
        else:
            z.append(widening * draw(f"{name}_offset", 0.0, 1.0))
            x.append(expected + scale * z[-1])
    return x


def _given_others(distribution: Distribution, others: list[Symbol]) -> tuple[Callable[..., Symbol], Symbol]:
    match distribution:
        case StudentT(df):
            widening = pt.sqrt((df + sum(z**2 for z in others)) / (df + len(others))) if others else 1.0
            n = df + len(others)
            return lambda name, mean, scale: pm.StudentT(name, n, mu=mean, sigma=scale, dims="subject"), widening
        case Laplace():
            return lambda name, mean, scale: pm.Laplace(name, mean, scale, dims="subject"), 1.0
    return lambda name, mean, sd: pm.Normal(name, mean, sd, dims="subject"), 1.0


def factor_names(design: Design) -> list[str]:
    """Name the Cholesky factors of a full covariance, one for each class."""
    return [f"group_cholesky_{level}" for level in design.levels] or ["group_cholesky"]


# --- the likelihood -------------------------------------------------------------------------------------------------


def _likelihood(compiled: CompiledModel, x: list[Symbol]) -> None:
    """Put the user's observed variables and potentials into the model, over all subjects."""
    functions, data = compiled.functions, compiled.data
    n = data.sizes["subject"]
    together = pt.stack([value if value.ndim else pt.alloc(value, n) for value in x], axis=1)
    arguments = [together, *_columns(compiled), *_masks(compiled)]
    for k, term in enumerate(functions.trace.terms):
        graph = functions.together.terms[k]
        if term.observes is None:
            values = _by_length(
                compiled, graph, dict(zip(functions.together.inputs, arguments, strict=True)), term.by_trial
            )
            pm.Potential(term.name, values, dims=("subject", "trial")[: min(1 + term.by_trial, values.ndim)])
        else:
            _observe(compiled, term, graph, arguments)


def _columns(compiled: CompiledModel) -> list[Symbol]:
    """Put data columns into the model; an observed one out of sight, since its name is the observed variable's."""
    functions = compiled.functions
    observed = {term.observes for term in functions.trace.terms}
    return [
        pytensor.shared(values, name=f"{name}_observed", shape=values.shape)
        if name in observed
        else pm.Data(name, values, dims=compiled.data[name].dims).astype(values.dtype)  # PyMC makes int32 of int64
        for name, values in ((name, compiled.subjects.columns[name]) for name in functions.trace.columns)
    ]


def _masks(compiled: CompiledModel) -> list[Symbol]:
    """Where each term counts; a constant that PyTensor drops where it always does."""
    masks = []
    for term in compiled.functions.trace.terms:
        present = compiled.subjects.present[term.name]
        dims = ("subject", "trial")[: present.ndim]
        mask = pt.constant(present) if present.all() else pm.Data(f"{term.name}_present", present, dims=dims)
        masks.append(mask.astype("bool"))
    return masks


def _observe(compiled: CompiledModel, term: Term, graph: Symbol, arguments: list[Symbol]) -> None:
    """Register an observed variable: its log-likelihood is the batched one, with 0 where nothing was observed."""
    inputs, data = compiled.functions.together.inputs, compiled.data
    name = str(term.observes)
    value_at = 1 + list(compiled.functions.trace.columns).index(name)
    drawn = _drawn(compiled, term)
    used = set(ancestors([graph] if drawn is None else [graph, drawn]))
    needed = [k for k, symbol in enumerate(inputs) if symbol in used]

    def fill(outcome: Symbol, parameters: Sequence[Symbol]) -> dict[Symbol, Symbol]:
        given = dict(zip([inputs[k] for k in needed], parameters, strict=True))
        return given if outcome is None else given | {inputs[value_at]: outcome.astype(inputs[value_at].dtype)}

    def logp(value: Symbol, *parameters: Symbol) -> Symbol:
        return _by_length(compiled, graph, fill(value, parameters), term.by_trial)

    def dist(*parameters_and_size: Symbol) -> Symbol:
        return _by_length(compiled, drawn, fill(None, parameters_and_size[:-1]), term.by_trial)

    op, parameters = term.random.owner.op, [arguments[k] for k in needed]  # type: ignore[union-attr]
    pm.CustomDist(
        term.name,
        *parameters,
        logp=logp,
        **({"dtype": term.random.dtype} if drawn is None else {"dist": dist}),  # type: ignore[union-attr]
        signature=safe_signature([parameter.ndim for parameter in parameters], [op.ndim_supp]),
        class_name=op._print_name[0],
        observed=compiled.subjects.columns[name],
        dims=data[name].dims,
    )


def _drawn(compiled: CompiledModel, term: Term) -> Symbol | None:
    """Return the graph that draws what is observed, for predictive checks; None, if it cannot be batched."""
    try:
        return compiled.functions.draw(term)
    except NotBatchable:
        return None


def _by_length(compiled: CompiledModel, graph: Symbol, given: dict[Symbol, Symbol], by_trial: bool) -> Symbol:
    """Evaluate a batched graph; of a model that looks across trials, subjects of one length at a time, unpadded."""
    if not compiled.subjects.equal_lengths:
        return graph_replace(graph, given, strict=False)
    lengths: NDArray[np.int64] = compiled.subjects.n_trials
    generators = [v for v in ancestors([graph]) if isinstance(v, SharedVariable) and v not in given]
    whole = None
    for n_trials in np.unique(lengths):
        rows = np.flatnonzero(lengths == n_trials)
        own = {symbol: _cut(compiled, symbol, value, rows, int(n_trials)) for symbol, value in given.items()}
        own |= {rng: pytensor.shared(np.random.default_rng()) for rng in generators}  # each part has its own noise
        part = graph_replace(graph, own, strict=False)
        if whole is None:
            width = (int(lengths.max()),) if by_trial else ()
            rest = [part.shape[i] for i in range(1 + by_trial, part.ndim)]
            whole = pt.zeros((len(lengths), *width, *rest), dtype=part.dtype)
        whole = pt.set_subtensor(whole[rows, :n_trials] if by_trial else whole[rows], part)
    return whole


def _cut(compiled: CompiledModel, symbol: Symbol, value: Symbol, rows: NDArray[np.intp], n_trials: int) -> Symbol:
    """Select some subjects' part of an input of the batched graph."""
    inputs, columns = compiled.functions.together.inputs, compiled.functions.columns
    kinds = [(True, False), *((columns[c].by_subject, columns[c].by_trial) for c in compiled.functions.trace.columns)]
    kinds += [(True, term.by_trial) for term in compiled.functions.trace.terms]
    by_subject, by_trial = kinds[inputs.index(symbol)]
    if not by_subject:
        return value
    return value[rows, :n_trials] if by_trial else value[rows]
