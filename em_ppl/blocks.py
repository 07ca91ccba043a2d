"""A study in blocks of subjects: on the workers of an executor, and from files that are larger than memory.

What EM does for subjects is a map over blocks; what it learns of them (modes, covariances, moments) comes back and
stays here. So a worker keeps nothing that cannot be sent again: the model and a block's data travel when a worker says
that it does not have them, after that only numbers about subjects do.
"""

from __future__ import annotations

import pickle
import uuid
import warnings
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import BrokenExecutor, Executor, Future, as_completed
from dataclasses import dataclass, field
from enum import Enum
from functools import cached_property
from itertools import pairwise
from typing import Any, TypeAlias
from weakref import WeakValueDictionary

import numpy as np
import xarray as xr

from em_ppl.compiled import CompiledModel, Result, compile_model
from em_ppl.cores import at_most
from em_ppl.data import Seen, check_dataset, look_at, require_column, trial_counts
from em_ppl.functions import lines_of_this_package
from em_ppl.group import Index
from em_ppl.model import SubjectModel
from em_ppl.portions import join, span, split, take
from em_ppl.travel import dumps

__all__ = ["Blocks", "Likelihoods", "is_stored"]

BLOCK_TRIALS = 10_000  # of data in memory: fewer are not worth a message
MOST_BLOCKS = 64
STUDIES = 2  # of which a worker keeps blocks


def is_stored(data: Any) -> bool:
    """Whether subjects' data are in a file, in chunks: to be read when they are needed, and not kept."""
    return isinstance(data, xr.Dataset) and "subject" in data.chunksizes


@dataclass
class Block:
    """Some subjects' data, and what is needed to compile their likelihoods."""

    model: SubjectModel
    data: xr.Dataset
    compile_kwargs: Mapping[str, Any] | None
    _compiled: CompiledModel | None = field(default=None, repr=False)

    def compile(self, seen: Mapping[str, Seen]) -> CompiledModel:
        """Compile them; what was read from a file is not kept."""
        if self._compiled is not None:
            return self._compiled
        compiled = compile_model(self.model, self.read(), compile_kwargs=self.compile_kwargs, seen=seen)
        if not is_stored(self.data):
            self._compiled = compiled
        return compiled

    def read(self) -> xr.Dataset:
        """Return the data in memory."""
        return self.data.compute(scheduler="synchronous") if is_stored(self.data) else self.data


class Blocks:
    """The likelihoods of a study in blocks: to EM what a `CompiledModel` is of subjects in memory.

    Parameters
    ----------
    model : SubjectModel
        The definition.
    data : Dataset
        Where chunks part its subjects, they are the blocks.
    executor : Executor, optional
        Whose workers do the work; this process, one block after the other, if left out.
    cores : int, optional
        Cores that a worker uses.
    compile_kwargs : mapping, optional
        See `SubjectModel.compile`.
    """

    def __init__(
        self,
        model: SubjectModel,
        data: xr.Dataset,
        executor: Executor | None = None,
        *,
        cores: int | None = None,
        compile_kwargs: Mapping[str, Any] | None = None,
    ) -> None:
        data = check_dataset(_with_small_in_memory(data))
        for name in model.columns:
            require_column(data, name)
        self.model, self.data, self.compile_kwargs = model, data[list(model.columns)], compile_kwargs
        self._executor, self._cores = executor, cores
        self._blocks: dict[int, Block] = {}
        self._name = uuid.uuid4().hex
        _here[self._name] = self

    @property
    def shape(self) -> tuple[int, int]:
        """Number of subjects, number of parameters."""
        return self.data.sizes["subject"], len(self.model.parameters)

    @property
    def observed(self) -> list[str]:
        """Names of the columns that the likelihood observes."""
        return self.take(np.array([0])).observed

    def compile(self, *, value_alone: bool = False) -> None:
        """Compile here, where workers on this machine will find it on disk."""
        self.take(np.array([0])).compile(value_alone=value_alone)

    def take(self, index: Index) -> CompiledModel:
        """Return the likelihoods of some of the subjects, in memory."""
        return self._part(index).compile(self._seen)

    def map(self, work: Callable[..., Result], *arguments: Any) -> Result:
        """Return ``work(compiled, *arguments)`` of all subjects, block by block; see `CompiledModel.map`."""
        return join(self._on_each(_compile_and_work, [[self._seen, work, *take(arguments, who)] for who in self._who]))

    def block(self, number: int) -> Block:
        """Return a block, the same one each time."""
        if number not in self._blocks:
            self._blocks[number] = self._part(span(self._who[number]))
        return self._blocks[number]

    # --- what the blocks are ------------------------------------------------------------------------------------------

    @cached_property
    def _who(self) -> list[Index]:
        """Whose each block is."""
        if is_stored(self.data):
            edges = np.cumsum([0, *self.data.chunksizes["subject"]])
            return [np.arange(start, stop) for start, stop in pairwise(edges)]
        n_blocks = np.clip(trial_counts(self.data).sum() // BLOCK_TRIALS, 1, MOST_BLOCKS)
        return split(self.shape[0], -(-self.shape[0] // int(n_blocks)))

    def _part(self, who: Index | slice) -> Block:
        data = self.data.isel(subject=who)
        if is_stored(data):
            import dask

            [data] = dask.optimize(data)  # leaves out of the graph what reads other chunks
        return Block(self.model, data, self.compile_kwargs)

    @cached_property
    def _seen(self) -> dict[str, Seen]:
        """What columns hold that may be whole numbers with gaps, of which a block may not show any."""
        columns = {name: self.data[name] for name in self.model.columns}
        names = [name for name, column in columns.items() if column.dtype.kind == "f" and "subject" in column.dims]
        parts = self._on_each(_look, [[names]] * len(self._who)) if names else []
        all_seen = {name: Seen.all_of([part[name] for part in parts]) for name in names}
        return {name: seen for name, seen in all_seen.items() if seen is not None}

    # --- the work -----------------------------------------------------------------------------------------------------

    def _on_each(self, work: Callable[..., Result], arguments: Sequence[Sequence[Any]]) -> list[Result]:
        """Return ``work(block, *arguments)`` of each block."""
        done: dict[int, Any] = {}
        if self._executor is not None:
            try:
                self._by_workers(self._executor, work, arguments, done)
            except BrokenExecutor as error:
                self._executor = None
                warnings.warn(
                    f"the executor broke ({error}), as it does when a worker is killed or has no memory left: the fit "
                    "goes on in this process. Dask's executors outlive their workers.",
                    RuntimeWarning,
                    stacklevel=lines_of_this_package(),
                )
        for number in set(range(len(arguments))) - set(done):
            done[number] = _do(self._name, number, None, self._cores, work, arguments[number])
        return [done[number] for number in range(len(arguments))]

    def _by_workers(
        self,
        executor: Executor,
        work: Callable[..., Result],
        arguments: Sequence[Sequence[Any]],
        done: dict[int, Any],
    ) -> None:
        def submit(number: int, block: bytes | None) -> Future[Any]:
            return executor.submit(_do, self._name, number, block, self._cores or 1, work, arguments[number])

        waiting = {submit(number, None): number for number in range(len(arguments))}
        try:
            while waiting:
                again = {}
                for future in as_completed(waiting):
                    number, result = waiting[future], future.result()
                    if result is Answer.UNKNOWN_BLOCK:
                        again[submit(number, dumps(self._part(span(self._who[number]))))] = number
                    else:
                        done[number] = result
                waiting = again
        finally:
            for future in waiting:
                future.cancel()


Likelihoods: TypeAlias = CompiledModel | Blocks
"""What EM works on: all subjects' likelihoods, whose method ``map`` does what is to be done for each of them."""


def _with_small_in_memory(data: xr.Dataset) -> xr.Dataset:
    """Read what has one value a subject, or fewer."""
    if not is_stored(data):
        return data
    small = [name for name, variable in data.variables.items() if "trial" not in variable.dims]
    return data.assign({name: data.variables[name].compute() for name in small})


# --- in the worker ----------------------------------------------------------------------------------------------------


class Answer(Enum):
    """What a worker may answer instead of a result."""

    UNKNOWN_BLOCK = "send it"


_here: WeakValueDictionary[str, Blocks] = WeakValueDictionary()  # studies whose fit runs in this process
_sent: OrderedDict[str, dict[int, Block]] = OrderedDict()  # blocks of studies whose fit runs elsewhere


def _do(
    study: str,
    number: int,
    block: bytes | None,
    cores: int | None,
    work: Callable[..., Result],
    arguments: Sequence[Any],
) -> Result | Answer:
    """Work on a block that this process has, or has just been sent."""
    if block is not None:
        _keep(study, number, pickle.loads(block))
    found = _here[study].block(number) if study in _here else _sent.get(study, {}).get(number)
    if found is None:
        return Answer.UNKNOWN_BLOCK
    with at_most(cores):
        return work(found, *arguments)


def _keep(study: str, number: int, block: Block) -> None:
    _sent.setdefault(study, {})[number] = block
    _sent.move_to_end(study)
    while len(_sent) > STUDIES:
        _sent.popitem(last=False)


def _compile_and_work(block: Block, seen: Mapping[str, Seen], work: Callable[..., Result], *arguments: Any) -> Result:
    return block.compile(seen).map(work, *arguments)


def _look(block: Block, names: Sequence[str]) -> dict[str, Seen]:
    data = block.read()
    return {name: look_at(data, name) for name in names}
