"""What is compiled of a model, once for all data with columns of the same kinds.

As a rule `em_ppl.kernels` makes machine code of one subject's graph. What that does not do, and what was asked to be
compiled otherwise, PyTensor compiles as a graph over all subjects.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property, reduce
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
import pymc as pm
import pytensor
import pytensor.tensor as pt
from numpy.typing import NDArray
from pymc.logprob.utils import CheckParameterValue
from pytensor.graph.replace import graph_replace
from pytensor.graph.traversal import ancestors
from pytensor.scalar.basic import autocast_float_as
from pytensor.tensor import TensorVariable
from pytensor.tensor.random.type import RandomType

from em_ppl.batching import NotBatchable, batch, batch_draws
from em_ppl.by_shape import ByShape, is_jax
from em_ppl.kernels import Kernel, compile_kernel, write_source
from em_ppl.loops import NotWritable
from em_ppl.model import Column, SubjectModel, Term, Trace, stabilised
from em_ppl.subjects import FloatArray, Index, Subjects

__all__ = ["BatchingWarning", "Functions", "functions_of", "lines_of_this_package"]

Array = NDArray[Any]
What: TypeAlias = Literal["value", "value_and_gradient", "pointwise", "deterministics"]


class BatchingWarning(UserWarning):
    """A likelihood is evaluated one subject at a time, because its graph cannot be batched."""


class Together(NamedTuple):
    """The graph over all subjects; of one, if it cannot be batched."""

    batched: bool
    inputs: list[TensorVariable]  # x, (subject, parameter), then columns and masks
    terms: list[TensorVariable]  # log-probabilities, 0 where they do not count


@dataclass(frozen=True)
class Functions:
    """What is compiled once for a model and the kind of its columns, when it is first asked for."""

    name: str
    trace: Trace
    columns: dict[str, Column]
    compile_kwargs: dict[str, Any]
    _made: dict[Any, Any] = field(default_factory=dict, repr=False)

    def evaluate(
        self, what: What | tuple[str, str], subjects: Subjects, x: FloatArray, index: Index | None, *extra: Array
    ) -> list[Array]:
        """Evaluate some subjects at x: outputs (n, ...), or (n, trial, ...) with 0 in padding.

        Parameters
        ----------
        what : str or tuple
            "value" (log-likelihood), "value_and_gradient", "pointwise" (each term), "deterministics", or
            ("option", term), the log-probability of one and the same response in every trial, given as `extra`;
            ("distribution", term), the parameters of its distribution.
        subjects : Subjects
            All of them.
        x : ndarray
            (n, parameter), Gaussian space.
        index : ndarray or None
            (n,), whose; None for all, in order.
        """
        function = self.compiled(what)
        if isinstance(function, Kernel):
            return function(subjects, x, index, *extra)
        by_trial = self._by_trial(what) + [False] * (what == "value_and_gradient")
        return subjects.evaluate(lambda *i: function(*i, *extra), self.together.batched, by_trial, x, index)

    def compiled(self, what: What | tuple[str, str]) -> Any:
        """Return what computes it: a `Kernel`, or a function over all subjects (of one, if not batched)."""
        if what not in self._made:
            self._made[what] = self._kernel(what) or self._function(what)
        return self._made[what]

    def has(self, what: What) -> bool:
        """Whether it has been compiled."""
        return what in self._made

    def _by_trial(self, what: What | tuple[str, str]) -> list[bool]:
        match what:
            case "pointwise":
                return [term.by_trial for term in self.trace.terms]
            case "deterministics":
                return [one.by_trial for one in self.trace.deterministics]
            case ("option", _):
                return [True]
            case ("distribution", name):
                term = self._term(name)
                return [term.by_trial] * len(term.random.owner.op.ndims_params)  # type: ignore[union-attr]
        return [False]

    # --- one subject ------------------------------------------------------------------------------------------------

    @cached_property
    def masks(self) -> list[TensorVariable]:
        """Where each term of one subject counts, (trial,) or ()."""
        return [pt.tensor(f"{t.name}_present", dtype="bool", shape=(None,) * t.by_trial) for t in self.trace.terms]

    def _kernel(self, what: What | tuple[str, str]) -> Kernel | None:
        if self.compile_kwargs:
            return None
        kinds = list(zip(self.trace.columns.values(), self.columns.values(), strict=True))
        kinds += [(m, Column("bool", True, t.by_trial, ())) for m, t in zip(self.masks, self.trace.terms, strict=True)]
        terms, valid = list(zip(self.trace.terms, self.masks, strict=True)), None
        match what:
            case "pointwise":
                outputs = [_masked(term.logp, mask) for term, mask in terms]
            case "deterministics":
                outputs = [one.value for one in self.trace.deterministics]
            case ("option", name):
                option, logp = self._option(name)
                kinds, outputs = [*kinds, (option, Column("int64", False, False, ()))], [logp]
            case ("distribution", name):
                outputs = _parameters(self._term(name))
            case _:
                logps, within = zip(*(_within_bounds(term.logp, mask) for term, mask in terms), strict=True)
                totals = [_sum_trials(_masked(logp, mask), 0) for logp, mask in zip(logps, self.masks, strict=True)]
                outputs, valid = [sum(totals, start=pt.zeros(()))], reduce(pt.and_, within)
        try:
            flags, gradient = self._by_trial(what), what == "value_and_gradient"
            return compile_kernel(
                write_source(self.trace.x, kinds, outputs, flags, with_gradient=gradient, valid=valid)
            )
        except NotWritable:
            return None
        except Exception as error:  # rather a slow fit than none
            message = (
                f"{self.name} could not be written as loops ({type(error).__name__}: {str(error)[:200]}), which is a "
                "mistake of em_ppl: please report it. PyTensor compiles it instead, more slowly."
            )
            warnings.warn(message, RuntimeWarning, stacklevel=lines_of_this_package())
            return None

    def _term(self, name: str) -> Term:
        return next(term for term in self.trace.terms if term.name == name)

    def _option(self, name: str) -> tuple[TensorVariable, TensorVariable]:
        term = self._term(name)
        option = pt.scalar("option", dtype="int64")
        return option, _logp(term, pt.zeros_like(self.trace.columns[name]) + option)

    # --- all subjects -----------------------------------------------------------------------------------------------

    @cached_property
    def together(self) -> Together:
        """The graph over all subjects, for what PyTensor compiles; warns if there is none."""
        trace, logps = self.trace, [term.logp for term in self.trace.terms]
        own = [*(symbol for name, symbol in trace.columns.items() if self.columns[name].by_subject), *self.masks]
        try:
            batched = True
            x = pt.tensor("x", dtype="float64", shape=(None, len(trace.x)))
            whole = {v: pt.tensor(v.name, dtype=v.type.dtype, shape=(None, *v.type.shape)) for v in own}
            logps = batch(logps, whole | {v: x[:, k] for k, v in enumerate(trace.x)}, x.shape[0])
        except NotBatchable as reason:
            message = f"{self.name} is evaluated one subject at a time, many times slower: {reason}"
            warnings.warn(message, BatchingWarning, stacklevel=lines_of_this_package())
            batched = False
            x = pt.tensor("x", dtype="float64", shape=(len(trace.x),))
            whole = {v: v for v in own}
            logps = graph_replace(logps, {v: x[k] for k, v in enumerate(trace.x)})
        masks = [whole[m] for m in self.masks]
        terms = [_masked(logp, mask) for logp, mask in zip(logps, masks, strict=True)]
        return Together(batched, [x, *(whole.get(s, s) for s in trace.columns.values()), *masks], terms)

    @property
    def value(self) -> TensorVariable:
        """Log-likelihoods, (subject,)."""
        batched, _, terms = self.together
        return sum((_sum_trials(term, int(batched)) for term in terms), start=pt.zeros(()))

    def _function(self, what: What | tuple[str, str]) -> Callable[..., list[Array]]:
        match what:
            case "value":
                return self._compile([self.value])
            case "value_and_gradient":
                value = self.value
                return self._compile([value, pytensor.grad(value.sum(), self.together.inputs[0])])
            case "pointwise":
                return self._compile(self.together.terms)
            case "deterministics":
                return self._compile(self._with_draws([one.value for one in self.trace.deterministics]))
            case ("distribution", name):
                return self._compile(self._with_draws(_parameters(self._term(name))))
        option, logp = self._option(what[1])
        return self._compile(self._with_draws([logp]), [option])

    def _compile(
        self, outputs: Sequence[TensorVariable], further_inputs: Sequence[Any] = ()
    ) -> Callable[..., list[Array]]:
        # inputs of a kind are always arrays of the declared type: checking them again costs more than a small model
        settings = {"trust_input": True, "on_unused_input": "ignore"} | self.compile_kwargs
        inputs = [*self.together.inputs, *further_inputs]
        if is_jax(settings):
            if any(isinstance(one.type, RandomType) for one in inputs):
                del settings["mode"]  # NumPy's generators draw, not JAX's
            elif self.together.batched:
                whole = {symbol for name, symbol in self.trace.columns.items() if not self.columns[name].by_subject}
                whole.update(further_inputs)
                return ByShape(inputs, outputs, [one not in whole for one in inputs], settings)
        function: Callable[..., list[Array]] = pytensor.function(inputs, list(outputs), **settings)
        return function

    # --- draws ------------------------------------------------------------------------------------------------------

    def draw(self, term: Term) -> TensorVariable:
        """Return a graph of `together.inputs` that draws what a term observes; raises NotBatchable if there is none."""
        return self._with_draws([term.random])[0]

    def _with_draws(self, outputs: Sequence[TensorVariable]) -> list[TensorVariable]:
        """Carry graphs of one subject that may draw over to `together.inputs`."""
        batched, inputs, _ = self.together
        x = inputs[0]
        if not batched:
            return graph_replace(outputs, {v: x[k] for k, v in enumerate(self.trace.x)}, strict=False)
        columns = zip(self.trace.columns.values(), inputs[1:], strict=False)
        own = {one: together for one, together in columns if together is not one}
        return batch_draws(outputs, own | {v: x[:, k] for k, v in enumerate(self.trace.x)}, x.shape[0])

    def draw_by_graph(
        self, term: Term, subjects: Subjects, x: FloatArray, generator: np.random.Generator
    ) -> list[Array]:
        """Draw responses by the graph, for distributions of several steps; with their log-probability."""
        if ("draws", term.name) not in self._made:
            value = term.random.clone()  # type: ignore[union-attr]
            outputs = [term.random, graph_replace(_logp(term, value), {value: term.random})]
            outputs = self._with_draws(outputs)
            shared = [v for v in ancestors(outputs) if isinstance(v.type, RandomType) and v.owner is None]
            generators = [v.type() for v in shared]
            outputs = graph_replace(outputs, dict(zip(shared, generators, strict=True)))
            with warnings.catch_warnings():
                # numba says that it leaves what a CustomDist draws to Python, as it must
                warnings.filterwarnings("ignore", "Numba will use object mode", UserWarning)
                self._made["draws", term.name] = self._compile(outputs, generators), len(generators)
        function, n = self._made["draws", term.name]

        def drawn(*inputs: Any) -> list[Array]:
            return function(*inputs, *generator.spawn(n))

        return subjects.evaluate(drawn, self.together.batched, [term.by_trial] * 2, x, None)


def functions_of(
    model: SubjectModel, columns: dict[str, Column], compile_kwargs: Mapping[str, Any] | None
) -> Functions:
    """Return what is, or will be, compiled for a model and the kind of its columns: once for all data."""
    settings = dict(compile_kwargs or {})
    key = (tuple(columns.items()), tuple((k, str(v)) for k, v in sorted(settings.items())))
    if key not in model._compiled:
        with _precisely(), pytensor.config.change_flags(traceback__limit=0):  # see em_ppl.kernels
            trace = model.trace(columns)
        model._compiled[key] = Functions(model.name, trace, columns, settings)
    functions: Functions = model._compiled[key]
    return functions


def _precisely() -> AbstractContextManager[None]:
    """Let numbers that Python wrote be float64: PyTensor takes 2.0 for a float32, and its square root with it."""
    custom = pytensor.config.cast_policy == "custom"  # as it is by default
    manager: AbstractContextManager[None] = autocast_float_as("float64") if custom else nullcontext()
    return manager


def _logp(term: Term, value: TensorVariable) -> TensorVariable:
    """Log-probability of another response than the one that was given, after the same history; one subject."""
    with _precisely():
        return stabilised([pm.logp(term.random, value)])[0]


def _parameters(term: Term) -> list[TensorVariable]:
    """Return the parameters of a response's distribution, one for each trial; one subject."""
    node, batch = term.random.owner, term.logp.shape  # type: ignore[union-attr]
    return [
        pt.alloc(parameter, *(batch[i] for i in range(term.logp.ndim)), *(parameter.shape[i] for i in range(-ndim, 0)))
        for parameter, ndim in zip(node.op.dist_params(node), node.op.ndims_params, strict=True)
    ]


def _masked(logp: TensorVariable, mask: TensorVariable) -> TensorVariable:
    return pt.switch(mask.dimshuffle(*range(mask.ndim), *["x"] * (logp.ndim - mask.ndim)), logp, 0.0)


def _within_bounds(logp: TensorVariable, mask: TensorVariable) -> tuple[TensorVariable, TensorVariable]:
    """Part a term from PyMC's check of its parameters, one for all trials, which holds where no trial counts.

    Such a check may ask whether the probabilities of all choices sum to 1: a trial that is to wait for that is looked
    at twice.
    """
    node = logp.owner
    if node is None or not isinstance(node.op, CheckParameterValue) or not node.op.can_be_replaced_by_ninf:
        return logp, pt.constant(np.True_)
    logp, *bounds = node.inputs
    return logp, pt.all(pt.stack(bounds)) | ~mask.any()


def _sum_trials(term: TensorVariable, lead: int) -> TensorVariable:
    return term.sum(axis=tuple(range(lead, term.ndim))) if term.ndim > lead else term


def lines_of_this_package() -> int:
    """How far up the stack the line is that called this package."""
    frame, depth = inspect.currentframe(), 0
    while frame is not None and frame.f_globals.get("__name__", "").split(".")[0] in ("em_ppl", "functools"):
        frame, depth = frame.f_back, depth + 1
    return depth
