"""Functions for JAX, which compiles for arrays of one shape: made when a shape first comes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytensor
from numpy.typing import NDArray
from pytensor.compile.mode import get_mode
from pytensor.graph.replace import clone_replace
from pytensor.link.jax.linker import JAXLinker
from pytensor.tensor import TensorVariable

__all__ = ["ByShape", "is_jax"]

Array = NDArray[Any]

ROOM = 8, 4  # rows that a portion is padded to, and how many times as many come next: few shapes, whoever is in it


@dataclass(frozen=True)
class ByShape:
    """A function over all subjects whose graph knows the shapes of what goes in.

    With them, PyTensor works out every length while it compiles, which JAX asks for (`jax.jit`); with symbols for
    them, lengths would be arrays.

    Attributes
    ----------
    inputs, outputs : sequence of TensorVariable
        The graph, with symbolic shapes; each output has a row per subject.
    by_subject : sequence of bool
        Whether each input has a row per subject.
    settings : mapping
        For `pytensor.function`.
    """

    inputs: Sequence[TensorVariable]
    outputs: Sequence[TensorVariable]
    by_subject: Sequence[bool]
    settings: Mapping[str, Any]
    _made: dict[Any, Callable[..., list[Any]]] = field(default_factory=dict, repr=False)

    def __call__(self, *arrays: Array) -> list[Array]:
        """Evaluate; rows that fill up a portion repeat its last."""
        n, (room, times) = len(arrays[0]), ROOM
        while room < n:
            room *= times
        fill = [(0, room - n)]
        arrays = tuple(
            np.pad(array, fill + [(0, 0)] * (array.ndim - 1), mode="edge") if own else array
            for array, own in zip(arrays, self.by_subject, strict=True)
        )
        shapes = tuple(array.shape for array in arrays)
        if shapes not in self._made:
            self._made[shapes] = self._compile(shapes)
        return [np.asarray(output)[:n] for output in self._made[shapes](*arrays)]

    def _compile(self, shapes: Sequence[tuple[int, ...]]) -> Callable[..., list[Any]]:
        inputs = [i.type.clone(shape=shape)(i.name) for i, shape in zip(self.inputs, shapes, strict=True)]
        outputs = clone_replace(self.outputs, dict(zip(self.inputs, inputs, strict=True)), rebuild_strict=False)
        function: Callable[..., list[Any]] = pytensor.function(inputs, outputs, **self.settings)
        return function


def is_jax(compile_kwargs: Mapping[str, Any]) -> bool:
    """Whether what is compiled in this way runs in JAX."""
    return "mode" in compile_kwargs and isinstance(get_mode(compile_kwargs["mode"]).linker, JAXLinker)
