"""What a model reads of its subjects, as plain arrays, and in which portions PyTensor's functions get it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from em_ppl.model import Column

__all__ = ["FEW_LENGTHS", "LENGTH_STEP", "Subjects"]

Array = NDArray[Any]
FloatArray = NDArray[np.float64]
Index = NDArray[np.intp]

CHUNK = 128  # subjects per call: more fall out of the processor's cache
LENGTH_STEP = 0.75  # subjects within this ratio of trials share a call, padded to the longest
FEW_LENGTHS = 0.25  # the same where each length is compiled for


@dataclass(frozen=True)
class Subjects:
    """The arrays that a model reads, one row per subject, without NaN; and which terms count where.

    Attributes
    ----------
    columns : dict of str to ndarray
        (subject, trial, ...), (subject, ...) or, shared by all, (...).
    present : dict of str to ndarray of bool
        For each term, (subject, trial) or (subject,).
    n_trials : ndarray of int
        (subject,)
    kinds : dict of str to Column
        What each column is.
    equal_lengths : bool
        Whether subjects of different length may not be padded to one, since the model looks across trials.
    chunk_size : int
        Largest number of subjects in a portion.
    length_step : float
        Subjects within this ratio of trials share a portion.
    """

    columns: dict[str, Array]
    present: dict[str, NDArray[np.bool_]]
    n_trials: NDArray[np.int64]
    kinds: dict[str, Column] = field(default_factory=dict)
    equal_lengths: bool = False
    chunk_size: int = CHUNK
    length_step: float = LENGTH_STEP

    def take(self, index: Index | slice) -> Subjects:
        """Return some of them."""
        columns = {n: v[index] if self.kinds[n].by_subject else v for n, v in self.columns.items()}
        present = {name: mask[index] for name, mask in self.present.items()}
        return replace(self, columns=columns, present=present, n_trials=self.n_trials[index])

    @property
    def arrays(self) -> list[Array]:
        """Columns, then masks."""
        return [*self.columns.values(), *self.present.values()]

    @cached_property
    def shapes(self) -> list[tuple[bool, bool]]:
        """Whether each of `arrays` has a row per subject, and in it one per trial."""
        columns = [(self.kinds[name].by_subject, self.kinds[name].by_trial) for name in self.columns]
        return columns + [(True, mask.ndim > 1) for mask in self.present.values()]

    @cached_property
    def width(self) -> int:
        """Trials that arrays have room for."""
        by_trial = zip(self.arrays, self.shapes, strict=True)
        return max((array.shape[own] for array, (own, trials) in by_trial if trials), default=1)

    # --- portions ---------------------------------------------------------------------------------------------------

    @cached_property
    def padded_lengths(self) -> NDArray[np.int64]:
        """How many trials each subject is padded to.

        It is the same whoever else is in a portion: sums over more or fewer zeros may differ in their last bits.
        """
        if self.equal_lengths:
            return self.n_trials
        longest = self.n_trials.max()
        steps = np.floor(np.log(longest / self.n_trials) / np.log(1 / self.length_step) + 1e-9)
        padded = np.ceil(longest * self.length_step**steps).astype(np.int64)
        return np.maximum(padded, self.n_trials)

    def chunks(self, index: Index | None) -> Iterator[tuple[Index, list[Array]]]:
        """Split subjects into portions of like length: places in `index`, and the arrays."""
        if index is None:
            yield from self._all_chunks
        else:
            yield from self._split(index, self.padded_lengths[index], self.chunk_size)

    @cached_property
    def _all_chunks(self) -> list[tuple[Index, list[Array]]]:
        return list(self.chunks(np.arange(len(self.n_trials))))

    def one_by_one(self, index: Index | None) -> Iterator[tuple[Index, list[Array]]]:
        """Split into single subjects, of their own length and without the subject's dimension."""
        index = np.arange(len(self.n_trials)) if index is None else index
        for rows, arrays in self._split(index, self.n_trials[index], 1):
            yield rows, [array[0] if own else array for array, (own, _) in zip(arrays, self.shapes, strict=True)]

    def _split(self, index: Index, lengths: NDArray[np.int64], size: int) -> Iterator[tuple[Index, list[Array]]]:
        order = np.argsort(lengths, kind="stable")
        for group in np.split(order, np.flatnonzero(np.diff(lengths[order])) + 1):
            for start in range(0, len(group), size):
                rows = group[start : start + size]
                yield rows, self._cut(index[rows], int(lengths[rows[0]]))

    def _cut(self, who: Index, n_trials: int) -> list[Array]:
        return [
            np.ascontiguousarray(array[who, :n_trials] if by_trial else array[who]) if own else array
            for array, (own, by_trial) in zip(self.arrays, self.shapes, strict=True)
        ]

    def evaluate(
        self,
        function: Callable[..., Sequence[Array]],
        batched: bool,
        by_trial: Sequence[bool],
        x: FloatArray,
        index: Index | None,
    ) -> list[Array]:
        """Call a function of x and the arrays on each portion, and put its outputs together.

        Parameters
        ----------
        function : callable
            Over all subjects if `batched`, else of one.
        by_trial : sequence of bool
            Whether each output has a number per trial; 0 in padding.
        x : ndarray
            (n, parameter)
        index : ndarray or None
            (n,), whose; None for all, in order.
        """
        outputs: list[Array] = []
        for rows, arrays in self.chunks(index) if batched else self.one_by_one(index):
            if batched:
                values = function(x[rows], *arrays)
            else:
                values = [np.asarray(value)[None] for value in function(x[rows[0]], *arrays)]
            if not outputs:
                rooms = [(self.width,) if trials else () for trials in by_trial]
                outputs = [
                    np.zeros((len(x), *room, *value.shape[1 + len(room) :]), value.dtype)
                    for value, room in zip(values, rooms, strict=True)
                ]
            for output, value, trials in zip(outputs, values, by_trial, strict=True):
                output[(rows, slice(0, value.shape[1])) if trials else rows] = value
        return outputs
