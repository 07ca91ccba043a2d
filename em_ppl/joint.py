"""A likelihood that somebody wrote over all subjects together, taken apart: whose term is whose, and its gradient.

Given the subjects' parameters, subjects are independent; so each term of the log-likelihood moves with the parameters
of one subject only. Which one is found by moving halves of the subjects at a time, 2 log2(N) evaluations in all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import pytensor
import pytensor.tensor as pt
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from em_ppl.compiled import CompiledModel, Result
from em_ppl.data import label_array
from em_ppl.group import FloatArray
from em_ppl.model import ModelError
from em_ppl.subjects import Subjects

Symbol = Any  # a PyTensor variable
Index = NDArray[np.intp]
Function = Callable[[FloatArray, FloatArray], list[FloatArray]]


@dataclass(frozen=True)
class Terms:
    """The log-likelihood as a graph: flat terms of all variables, and the subject that each belongs to.

    Attributes
    ----------
    x, shared : TensorVariable
        Inputs, (subject, parameter) and (shared parameter,).
    graphs : dict of str to TensorVariable
        Terms of each observed variable or potential, flat.
    owners : dict of str to ndarray of int
        Whose they are.
    start : ndarray
        Where subjects stay who are not asked about, (subject, parameter).
    n_shared : int
        Number of shared parameters.
    """

    x: Symbol
    shared: Symbol
    graphs: dict[str, Symbol]
    owners: dict[str, Index]
    start: FloatArray
    n_shared: int
    _compiled: dict[str, Function] = field(default_factory=dict, repr=False)

    @cached_property
    def counts(self) -> NDArray[np.int64]:
        """Terms of each subject, of the variable that has most, (subject,)."""
        counts = [np.bincount(who, minlength=len(self.start)) for who in self.owners.values()]
        return np.asarray(np.max(counts, axis=0))

    def gradients(self, **compile_kwargs: Any) -> Function:
        """Return a function of x and shared: value of each subject, gradients by x and by shared."""
        return self._once(self._write_gradients, compile_kwargs)

    def pointwise(self, **compile_kwargs: Any) -> Function:
        """Return a function of x and shared: the terms of each variable."""
        return self._once(self._write_terms, compile_kwargs)

    def _once(self, write: Callable[[], list[Symbol]], compile_kwargs: Mapping[str, Any]) -> Function:
        """Compile what has not been compiled in this way."""
        key = str((write.__name__, sorted(compile_kwargs.items())))
        if key not in self._compiled:
            settings = {"on_unused_input": "ignore"} | dict(compile_kwargs)
            self._compiled[key] = pytensor.function([self.x, self.shared], write(), **settings)
        return self._compiled[key]

    def _write_terms(self) -> list[Symbol]:
        return list(self.graphs.values())

    def _write_gradients(self) -> list[Symbol]:
        value = pt.zeros(len(self.start))
        for name, graph in self.graphs.items():
            value = pt.inc_subtensor(value[self.owners[name]], graph)
        # the derivative of a weighted sum is linear in the weights: its own derivative is each subject's
        weight = pt.ones(len(self.start))
        total = pytensor.grad((weight * value).sum(), self.shared, disconnected_inputs="ignore")
        by_shared = [pytensor.grad(total[k], weight) for k in range(self.n_shared)]
        return [value, pytensor.grad(value.sum(), self.x), pt.stack(by_shared, axis=1) if by_shared else value]


def find_owners(names: Sequence[str], graphs: Sequence[Symbol], x: Symbol, shared: Symbol, start: FloatArray) -> Terms:
    """Find out whose each term is.

    Raises
    ------
    ModelError
        If a term belongs to no subject, or to several.
    """
    n, n_shared = len(start), int(shared.type.shape[0])
    flat = [graph.ravel() for graph in graphs]
    function = pytensor.function([x, shared], flat, on_unused_input="ignore", mode="FAST_COMPILE")
    generator = np.random.default_rng(0)
    at = generator.normal(0.0, 0.1, n_shared)
    moved, before = start + generator.uniform(0.2, 0.5, start.shape), function(start, at)
    for name, values in zip(names, before, strict=True):
        bad = np.flatnonzero(~np.isfinite(values))
        if bad.size:
            raise ModelError(
                f"term {bad[0]} of {name!r} is {values[bad[0]]} where every subject is near the mean that its group "
                "begins with: check data and priors."
            )
    owners = [np.zeros(len(values), dtype=np.intp) for values in before]
    for bit in range(max(1, int(np.ceil(np.log2(n))))):
        half = (np.arange(n) >> bit) & 1 == 1
        changed = [
            [a != b for a, b in zip(before, function(np.where(who[:, None], moved, start), at), strict=True)]
            for who in (half, ~half)
        ]
        for name, owner, yes, no in zip(names, owners, *changed, strict=True):
            if (yes & no).any():
                raise ModelError(
                    f"term {int((yes & no).argmax())} of {name!r} reads several subjects' parameters: given the group, "
                    "subjects must be independent."
                )
            if not (yes | no).all():
                raise ModelError(
                    f"term {int((~(yes | no)).argmax())} of {name!r} reads no subject's parameters: whose is it?"
                )
            owner += yes.astype(np.intp) << bit
    terms = dict(zip(names, flat, strict=True))
    found = Terms(x, shared, terms, dict(zip(names, owners, strict=True)), start, n_shared)
    for who, count in enumerate(found.counts):
        if count == 0:
            raise ModelError(f"subject number {who} has no term in the likelihood: it was not observed.")
    return found


@dataclass(frozen=True)
class JointModel(CompiledModel):
    """`CompiledModel` of a likelihood over all subjects together: same functions, but every call evaluates everyone."""

    terms: Terms = field(repr=False, kw_only=True)
    rows: Index = field(repr=False, kw_only=True)  # which of the study's subjects these are
    compile_kwargs: Mapping[str, Any] = field(default_factory=dict, repr=False, kw_only=True)

    @property
    def observed(self) -> list[str]:
        """See `CompiledModel`."""
        return [str(name) for name in self.data.data_vars]

    @property
    def _kernel(self) -> None:
        """See `CompiledModel`."""
        return None

    def compile(self, *, value_alone: bool = False) -> None:
        """See `CompiledModel`."""
        self.terms.gradients(**self.compile_kwargs)(self.terms.start, np.zeros(self.terms.n_shared))

    def map(self, work: Callable[..., Result], *arguments: Any) -> Result:
        """See `CompiledModel`; never in portions."""
        return work(self, *arguments)

    def take(self, index: Index | slice) -> JointModel:
        """See `CompiledModel`."""
        data = self.data.isel(subject=index)
        return replace(self, data=data, subjects=self.subjects.take(index), rows=self.rows[index])

    def value_and_gradient(self, x: FloatArray, index: Index | None = None) -> tuple[FloatArray, FloatArray]:
        """See `CompiledModel`."""
        value, gradient = np.empty(len(x)), np.empty(x.shape)
        varying, shared = self._places
        for chosen, who, (v, by_x, by_shared) in self._rounds(x, index):
            value[chosen] = v[who]
            gradient[np.ix_(chosen, varying)] = by_x[who]
            if len(shared):
                gradient[np.ix_(chosen, shared)] = by_shared[who]
        return value, gradient

    def value(self, x: FloatArray, index: Index) -> FloatArray:
        """See `CompiledModel`."""
        return self.value_and_gradient(x, index)[0]

    def pointwise_log_likelihood(self, x: ArrayLike) -> dict[str, FloatArray]:
        """See `CompiledModel`; a subject's terms are its trials, in the order in which they stand."""
        varying, shared = self._places
        everyone = self.terms.start.copy()
        everyone[self.rows] = np.asarray(x)[:, varying]
        found = {}
        values = self.terms.pointwise(**self.compile_kwargs)(everyone, np.asarray(x)[0, shared])
        for (name, owner), flat in zip(self.terms.owners.items(), values, strict=True):
            table = np.zeros((len(everyone), self.data.sizes["trial"]))
            table[owner, place_in_turn(owner)] = flat
            found[name] = table[self.rows]
        return found

    @cached_property
    def _places(self) -> tuple[Index, Index]:
        """Where varying and shared parameters are among the declared."""
        is_shared = np.array([parameter.shared for parameter in self.model.parameters.values()])
        return np.flatnonzero(~is_shared), np.flatnonzero(is_shared)

    def _rounds(self, x: FloatArray, index: Index | None) -> Iterator[tuple[Index, Index, list[FloatArray]]]:
        """Evaluate so many times that everybody who is asked about several times has had a turn."""
        varying, shared = self._places
        function = self.terms.gradients(**self.compile_kwargs)
        asked = self.rows if index is None else self.rows[index]
        turn = place_in_turn(asked)
        for k in range(int(turn.max(initial=-1)) + 1):
            chosen = np.flatnonzero(turn == k)
            everyone = self.terms.start.copy()
            everyone[asked[chosen]] = x[np.ix_(chosen, varying)]
            yield chosen, asked[chosen], function(everyone, x[chosen[0], shared])


def place_in_turn(who: Index) -> Index:
    """How often each entry has stood before: 0 for its first, 1 for its second."""
    order = np.argsort(who, kind="stable")
    sizes = np.bincount(who)
    turn = np.empty(len(who), dtype=np.intp)
    turn[order] = np.arange(len(who)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    return turn


def join(model: Any, terms: Terms, observed: Mapping[str, NDArray[Any]], labels: Sequence[Any]) -> JointModel:
    """Bind terms to labelled data.

    Parameters
    ----------
    model : PyMCModel
        Whose likelihood it is.
    terms : Terms
        From `find_owners`.
    observed : mapping of str to ndarray
        Observed values, one a term of the variable.
    labels : sequence
        Of the subjects.
    """
    width = int(terms.counts.max())
    variables, present = {}, {}
    for name, owner in terms.owners.items():
        places = owner, place_in_turn(owner)
        present[name] = np.zeros((len(terms.start), width), dtype=bool)
        present[name][places] = True
        values = observed.get(name)
        if values is not None and np.size(values) == len(owner):
            table = np.full((len(terms.start), width), np.nan)
            table[places] = np.ravel(values)
            variables[name] = (("subject", "trial"), table)
    coords = {"subject": label_array(list(labels)), "trial": np.arange(width)}
    data = xr.Dataset(variables, coords=coords | {"n_trials": ("subject", terms.counts)})
    subjects = Subjects({}, present, terms.counts.astype(np.int64))
    everyone = np.arange(len(terms.start))
    return JointModel(model, data, None, subjects, terms=terms, rows=everyone)  # type: ignore[arg-type]
