"""One subject's likelihood, written once in PyMC, with its parameters.

The user's function is called in a scratch `pymc.Model` with symbolic parameters and symbolic data of ONE subject.
What it registers there (observed variables, potentials) are the terms of the subject's log-likelihood.
"""

from __future__ import annotations

import importlib
import inspect
import sys
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

import pymc as pm
import pytensor.tensor as pt
import xarray as xr
from pymc.logprob.abstract import MeasurableOp
from pytensor.graph.basic import Apply, Variable
from pytensor.graph.op import HasInnerGraph
from pytensor.graph.replace import clone_replace
from pytensor.graph.rewriting.utils import rewrite_graph
from pytensor.graph.traversal import ancestors, toposort
from pytensor.scan.op import Scan
from pytensor.tensor import TensorVariable

from em_ppl.data import check_dataset
from em_ppl.distributions import Distribution
from em_ppl.parameters import Parameter

if TYPE_CHECKING:
    from em_ppl.compiled import CompiledModel
    from em_ppl.group import Structure

__all__ = ["SubjectModel", "subject_model"]

PROBE = 7919  # trials, in a try of the shapes: a number that no model uses

# Names that InferenceData and the hierarchical model use for the group.
RESERVED = frozenset(
    {
        "chain",
        "draw",
        "coefficient",
        "gaussian",
        "group_coefficients",
        "group_correlation",
        "group_mean",
        "group_median",
        "group_sd",
        "n_trials",
        "parameter",
        "parameter_2",
        "subject",
        "trial",
    }
)


@dataclass(frozen=True)
class Column:
    """What a model needs to know of a data column before it sees the data."""

    dtype: str
    by_subject: bool
    by_trial: bool
    shape: tuple[int, ...]  # of one trial (or of one subject, or of the whole, if not by trial)

    def one_subject(self, name: str) -> TensorVariable:
        """Return a symbol for one subject's values."""
        shape = (None, *self.shape) if self.by_trial else self.shape
        return pt.tensor(name, dtype=self.dtype, shape=shape)


@dataclass(frozen=True)
class Term:
    """One summand of a subject's log-likelihood: an observed variable's, or a potential."""

    name: str
    logp: TensorVariable
    observes: str | None  # the data column; None for a potential
    by_trial: bool  # its leading dimension is the trial
    random: TensorVariable | None  # what is observed, as a draw; None for a potential


@dataclass(frozen=True)
class Deterministic:
    """What a likelihood names on its way, by ``pm.Deterministic``: a value, a prediction error."""

    name: str
    value: TensorVariable
    by_trial: bool  # its leading dimension is the trial


@dataclass(frozen=True)
class Trace:
    """The symbolic log-likelihood of one subject."""

    x: tuple[TensorVariable, ...]  # one scalar per parameter, Gaussian space
    columns: dict[str, TensorVariable]
    terms: tuple[Term, ...]
    deterministics: tuple[Deterministic, ...]


@dataclass(frozen=True, eq=False)
class SubjectModel:
    """A likelihood of one subject and its parameters; made by `subject_model`.

    Attributes
    ----------
    function : callable
        The user's function.
    parameters : dict of str to Parameter
        In the order of declaration.
    columns : tuple of str
        The data columns that the function reads.
    """

    function: Callable[..., Any]
    parameters: dict[str, Parameter]
    columns: tuple[str, ...]
    _compiled: dict[Any, Any] = field(default_factory=dict, repr=False)
    _identity: str = field(default_factory=lambda: uuid.uuid4().hex, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "__doc__", self.function.__doc__)
        _models[self._identity] = self

    @property
    def name(self) -> str:
        """The function's name."""
        return self.function.__name__

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the user's function as it stands, say inside a `pymc.Model` of your own."""
        return self.function(*args, **kwargs)

    def __repr__(self) -> str:
        parameters = ", ".join(f"{name}: {p.kind}" for name, p in self.parameters.items())
        return f"<subject model {self.name}({parameters}) of {', '.join(self.columns)}>"

    def __reduce__(self) -> tuple[Any, ...]:
        """Travel to another process by name, where a module has it, else whole: it is compiled there once."""
        return arrives(self, SubjectModel, self.function, self.parameters, self.columns)

    def compile(self, data: xr.Dataset, *, compile_kwargs: Mapping[str, Any] | None = None) -> CompiledModel:
        """Compile the log-likelihood and its gradient for all subjects of `data`.

        Data sets of the same columns share one compilation, whatever their size.

        Parameters
        ----------
        data : Dataset
            From `em_ppl.from_dataframe` or `em_ppl.from_subjects`, or your own with dims (subject, trial).
        compile_kwargs : mapping, optional
            Passed on to `pytensor.function`, as in PyMC, which then compiles the graph of all subjects; left out,
            machine code is made of one subject's, which is faster.

        Returns
        -------
        CompiledModel
            With ``log_likelihood(x)``, ``log_posterior(x, mean, covariance)`` and their gradients per subject.

        Raises
        ------
        ModelError
            If the model cannot work (no observed variable, a parameter that is never used, ...).
        ValueError
            If the data lack a column, or have missing values where they may not.
        """
        from em_ppl.compiled import compile_model

        return compile_model(self, data, compile_kwargs=compile_kwargs)

    def hierarchical(
        self,
        data: xr.Dataset,
        *,
        covariance: Structure = "diagonal",
        covariates: str | Mapping[str, str] | None = None,
        covariance_by: str | None = None,
        distribution: Distribution | None = None,
        priors: Mapping[str, Any] | None = None,
        centred: bool | Collection[str] = False,
    ) -> pm.Model:
        """Write the full hierarchical model: this likelihood for every subject, below a group with priors.

        An ordinary `pymc.Model` with dims ``subject``, ``trial`` and ``parameter``: sample it, draw from its prior,
        look at its graph. Where a subject has fewer trials than others, or a response is missing, the log-likelihood
        is 0; ``<name>_present`` among the data says where. A fit makes the same model by `Fit.hierarchical_model`.

        Parameters
        ----------
        data : Dataset
            As for `em_ppl.fit`.
        covariance, covariates, covariance_by, distribution
            The group, as for `em_ppl.fit`. (The peak of a `Laplace` group is sharp here.)
        priors : mapping of str to distribution, optional
            By the name of the variable, such as ``{"group_sd": pm.Exponential.dist(1.0)}``; one distribution for all
            parameters, or with one value for each. Left out, in Gaussian space, with the starting value and the spread
            that parameters declare: ``group_mean`` Normal around the starting value, its SD the spread of a parameter
            with two bounds (for a Unit that is about uniform), three spreads of another; ``group_sd`` HalfNormal, its
            scale the spread; ``group_coefficients`` Normal, as wide as three spreads per root mean square of the
            covariate; ``group_correlation`` a number, the eta of an LKJ distribution, 2; a shared parameter
            ``<name>_gaussian`` as a mean. The spread of a `Real` that declares none is 2.5 times what the data suggest.
        centred : bool or list of str
            Parameters whose subjects are drawn from the group as they are (centred), best where trials tell much about
            each subject; all others are drawn standard, and scaled (non-centred).

        Returns
        -------
        pymc.Model
            See `em_ppl.hierarchy` for its variables.

        Raises
        ------
        ModelError
            If the model cannot work, or cannot be batched over subjects.
        ValueError
            If the data do not fit the model, or a prior or a centred parameter is of no variable of it.

        Examples
        --------
        >>> import em_ppl as em, pymc as pm
        >>> @em.subject_model(level=em.Real(spread=1.0))
        ... def normal(level, y):
        ...     pm.Normal("y", level, 1.0, observed=y)
        >>> data = em.from_subjects({"ann": {"y": [0.0, 1.0]}, "bo": {"y": [2.0, 1.0]}})
        >>> hierarchy = normal.hierarchical(data, priors={"group_sd": pm.Exponential.dist(1.0)})
        >>> hierarchy.free_RVs
        [group_mean, group_sd, level_offset]
        """
        from em_ppl.compiled import compile_model
        from em_ppl.design import make_design
        from em_ppl.distributions import Normal
        from em_ppl.hierarchy import build_hierarchy

        varying = [name for name, parameter in self.parameters.items() if not parameter.shared]
        compiled = compile_model(self, data)
        design = make_design(check_dataset(data), varying, covariates, covariance_by)
        return build_hierarchy(compiled, design, covariance, distribution or Normal(), priors, centred)

    def trace(self, columns: Mapping[str, Column]) -> Trace:
        """Call the function once, for one symbolic subject."""
        x = {name: pt.scalar(f"{name}_gaussian", dtype="float64") for name in self.parameters}
        natural = {name: parameter.symbolic(x[name]) for name, parameter in self.parameters.items()}
        symbols = {name: columns[name].one_subject(name) for name in self.columns}
        with pm.Model(model=None) as scratch:  # no parent, even inside another model's context
            length = next((s.shape[0] for name, s in symbols.items() if columns[name].by_trial), None)
            if length is not None:
                scratch.add_coord("trial", length=length)
            try:
                self.function(**natural, **symbols)
            except Exception as error:
                error.add_note(
                    f"This came from the likelihood {self.name!r}, which em_ppl calls once with symbols for one "
                    f"subject: {', '.join(f'{n} {s.type}' for n, s in symbols.items())}."
                )
                raise
        terms = self._terms(scratch, x, symbols, columns)
        return Trace(tuple(x.values()), symbols, terms, self._deterministics(scratch, symbols, columns))

    def _terms(
        self,
        scratch: pm.Model,
        x: Mapping[str, TensorVariable],
        symbols: Mapping[str, TensorVariable],
        columns: Mapping[str, Column],
    ) -> tuple[Term, ...]:
        if scratch.free_RVs:
            raise ModelError(
                f"{self.name}: random variable {scratch.free_RVs[0].name!r} has no data. A subject's parameters are "
                "declared in em.subject_model(...); everything else needs observed=<a data column>."
            )
        if not scratch.observed_RVs and not scratch.potentials:
            raise ModelError(
                f"{self.name} has no observed variable: give one the data, as in "
                f'pm.Bernoulli("choice", p=p, observed=choice).'
            )
        for rv in scratch.observed_RVs:
            self._check_observed(scratch, rv, symbols)
        variables = [*scratch.observed_RVs, *scratch.potentials]
        try:
            logps = stabilised(scratch.logp(vars=variables, sum=False))
        except ValueError as error:
            error.add_note(
                f"This came from the likelihood {self.name!r}, whose random variables need observed=<a data column>."
            )
            raise
        for drawn in _drawn(logps):
            raise ModelError(
                f"{self.name}: the likelihood hangs on what {drawn.op} draws. A subject's parameters are declared in "
                "em.subject_model(...); random variables need observed=<a data column>."
            )
        lengths = _leading_lengths(logps, symbols, columns)
        for rv, length in zip(scratch.observed_RVs, lengths, strict=False):
            if columns[rv.name].by_trial and length not in (0, PROBE, None):
                raise ModelError(
                    f"{self.name}: {rv.name!r} does not observe every trial once: its log-likelihood must have the "
                    f"trial as its first dimension. For trials that do not count, make the response missing (NaN)."
                )
        used = set(ancestors(logps))
        for name, variable in x.items():
            if variable not in used:
                raise ModelError(f"{self.name}: parameter {name!r} is never used by the likelihood: drop it or use it.")
        self._refuse_single_precision(logps)
        return tuple(
            Term(
                name=variable.name,
                logp=logp,
                observes=variable.name if variable in scratch.observed_RVs else None,
                random=variable if variable in scratch.observed_RVs else None,
                by_trial=length in (PROBE, None) and any(column.by_trial for column in columns.values()),
            )
            for variable, logp, length in zip(variables, logps, lengths, strict=True)
        )

    def _deterministics(
        self, scratch: pm.Model, symbols: Mapping[str, TensorVariable], columns: Mapping[str, Column]
    ) -> tuple[Deterministic, ...]:
        values = scratch.replace_rvs_by_values(scratch.deterministics)
        lengths = _leading_lengths(values, symbols, columns)
        for named, value, length in zip(scratch.deterministics, values, lengths, strict=True):
            if length not in (0, PROBE, None) and value.type.shape[0] is None:
                raise ModelError(
                    f"{self.name}: pm.Deterministic {named.name!r} would have {length - PROBE:+d} rows more than there "
                    "are trials: make it one row a trial, as in values[:-1] for those before each trial."
                )
        by_trial = any(column.by_trial for column in columns.values())
        return tuple(
            Deterministic(named.name, value, by_trial and length in (PROBE, None))
            for named, value, length in zip(scratch.deterministics, values, lengths, strict=True)
        )

    def _refuse_single_precision(self, logps: list[TensorVariable]) -> None:
        """Raise if a loop carries float32, as its start does: its noise of 1e-7 hides modes and curvature."""
        for node in toposort(logps):
            if isinstance(node.op, Scan) and any(out.dtype == "float32" for out in node.outputs):
                raise ModelError(
                    f"{self.name}: a loop computes in single precision (float32). Give its start another type, as in "
                    'pt.full(2, 0.5, dtype="float64"); pt.zeros and pt.ones have it.'
                )

    def _check_observed(self, scratch: pm.Model, rv: TensorVariable, symbols: Mapping[str, TensorVariable]) -> None:
        if rv.name not in symbols:
            raise ModelError(
                f"{self.name}: observed variable {rv.name!r} has the name of no data column. Name it after the column "
                f"that it observes ({', '.join(symbols) or 'the function takes none'})."
            )
        if symbols[rv.name] not in ancestors([scratch.rvs_to_values[rv]]):
            raise ModelError(
                f"{self.name}: {rv.name!r} does not observe the data column {rv.name!r}: say observed={rv.name}."
            )


def _leading_lengths(
    logps: list[TensorVariable], symbols: Mapping[str, TensorVariable], columns: Mapping[str, Column]
) -> list[int | None]:
    """Return the first dimension's length of each log-likelihood were there PROBE trials; None if it cannot be told.

    A scalar's is 0. PyTensor infers the shapes; nothing is compiled.
    """
    probe = {
        symbol: pt.tensor(name, dtype=symbol.dtype, shape=(PROBE, *symbol.type.shape[1:]))
        for name, symbol in symbols.items()
        if columns[name].by_trial
    }
    probed = clone_replace(logps, replace=probe, rebuild_strict=False)
    return [logp.type.shape[0] if logp.type.ndim else 0 for logp in probed]


def _drawn(graphs: Sequence[Variable]) -> Iterator[Apply]:
    """Find random variables, in loops too."""
    for node in toposort(graphs):
        if isinstance(node.op, MeasurableOp):
            yield node
        elif isinstance(node.op, HasInnerGraph):
            yield from _drawn(node.op.fgraph.outputs)


def check_subject_model(model: Any) -> None:
    """Raise TypeError for what `subject_model` has not made."""
    if not isinstance(model, SubjectModel):
        raise TypeError(f"{model!r} is no subject model: decorate its likelihood with @em.subject_model(...).")


def stabilised(logps: list[TensorVariable]) -> list[TensorVariable]:
    """Write log(1 - sigmoid(x)) and its like safely: PyTensor does when it compiles, too late for their slopes."""
    safe: list[TensorVariable] = rewrite_graph(logps, include=("stabilize",), clone=False)
    return safe


_models: WeakValueDictionary[str, SubjectModel] = WeakValueDictionary()  # of this process


def _find_model(module: str, name: str) -> SubjectModel:
    model: SubjectModel = getattr(importlib.import_module(module), name)
    return model


def arrives(model: SubjectModel, kind: type[SubjectModel], *settings: Any) -> tuple[Any, ...]:
    """Say how a model comes to another process: what its ``__reduce__`` returns."""
    module, name = model.function.__module__, model.function.__qualname__
    if module != "__main__" and getattr(sys.modules.get(module), name, None) is model:
        return _find_model, (module, name)
    return _arrive, (model._identity, kind, *settings)


def _arrive(identity: str, kind: type[SubjectModel], *settings: Any) -> SubjectModel:
    """Come to a process: the model that came before, and may be compiled already, if it is the same."""
    known = _models.get(identity)
    if known is None:
        known = kind(*settings)
        object.__setattr__(known, "_identity", identity)
        _models[identity] = known
    return known


class ModelError(ValueError):
    """A likelihood that cannot be fitted as it is written; the message says what to change."""


def subject_model(
    function: Callable[..., Any] | None = None, /, **parameters: Parameter
) -> Callable[[Callable[..., Any]], SubjectModel]:
    """Declare the parameters of one subject's likelihood.

    The decorated function takes the parameters (natural space, scalars) and data columns (arrays over the
    subject's trials) by name, and registers observed variables or potentials as in any PyMC model. Each observed
    variable carries the name of the column that it observes.

    Parameters
    ----------
    **parameters : Parameter
        `Real`, `Positive`, `Unit` or `Interval`, one for each parameter.

    Returns
    -------
    callable
        A decorator that turns the function into a `SubjectModel`.

    Raises
    ------
    ModelError
        If the decorator is used without its parameters, or the function does not take a declared parameter, has no
        data column, or a name cannot be used.

    Examples
    --------
    >>> import em_ppl as em, pymc as pm
    >>> @em.subject_model(level=em.Real())
    ... def normal(level, y):
    ...     pm.Normal("y", level, 1.0, observed=y)
    >>> normal
    <subject model normal(level: Real) of y>
    """
    if function is not None:
        raise ModelError("declare the parameters in brackets, as in @em.subject_model(level=em.Real()).")

    def decorate(function: Callable[..., Any]) -> SubjectModel:
        columns = check_signature(function, parameters)
        return SubjectModel(function, dict(parameters), columns)

    return decorate


def check_signature(function: Callable[..., Any], parameters: Mapping[str, Parameter]) -> tuple[str, ...]:
    """Check names at once, before there are data; return the data columns."""
    name = getattr(function, "__name__", repr(function))
    if not parameters:
        raise ModelError(f"{name} has no parameters: declare them, as in @em.subject_model(alpha=em.Unit()).")
    for key, parameter in parameters.items():
        if not isinstance(parameter, Parameter):
            raise ModelError(
                f"{name}: parameter {key!r} is {parameter!r}; it must be em.Real(), em.Positive(), em.Unit() or "
                "em.Interval(low, high)" + (" (with brackets)." if callable(parameter) else ".")
            )
    arguments = inspect.signature(function).parameters
    for argument in arguments.values():
        if argument.kind in (argument.VAR_POSITIONAL, argument.VAR_KEYWORD, argument.POSITIONAL_ONLY):
            raise ModelError(f"{name}: argument {str(argument)!r} has no fixed name; name every parameter and column.")
    for key in parameters:
        if key not in arguments:
            raise ModelError(f"{name} does not take its parameter {key!r}: it takes {', '.join(arguments)}.")
    for key in arguments:
        if key in RESERVED:
            raise ModelError(f"{name}: the name {key!r} is taken by the result's own variables: choose another.")
    # an argument with a default is a setting of the model, neither parameter nor data
    columns = tuple(k for k, a in arguments.items() if k not in parameters and a.default is a.empty)
    if not columns:
        raise ModelError(f"{name} takes no data column: besides its parameters it needs the data that it observes.")
    return columns
