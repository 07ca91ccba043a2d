"""Machine code of one subject's log-likelihood, called for many subjects in a loop that Python does not see.

PyTensor writes the graph of one subject, its gradient, and simplifies both; `em_ppl.loops` writes that as loops over
numbers; numba compiles them, and keeps the result on disk. No subject is padded or copied, and each one's numbers are
the same to the last bit whoever else is there.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytensor
import pytensor.tensor as pt
from numpy.typing import NDArray
from pymc.logprob.utils import local_check_parameter_to_ninf_switch
from pytensor.compile.mode import get_mode
from pytensor.graph.fg import FunctionGraph
from pytensor.graph.rewriting.basic import in2out
from pytensor.tensor import TensorVariable

from em_ppl.loops import Array, Code, NotWritable, write_graph
from em_ppl.model import Column
from em_ppl.subjects import FloatArray, Index, Subjects

__all__ = ["Kernel", "write_kernel"]

Numbers = NDArray[Any]

# Rewrites that work in place, or save memory, or are for compilers of whole arrays.
_LEFT_OUT = ("inplace", "scan_inplace", "scan_save_mem", "scan_save_mem_prealloc", "numba", "BlasOpt")


@dataclass(frozen=True)
class Kernel:
    """Compiled loops over subjects.

    Attributes
    ----------
    function : callable
        ``function(index, x, n_trials, *columns, *masks, *extra, *outputs)``: for each row r it reads the subject
        ``index[r]``, whose parameters are ``x[r]``, and writes into row r of the outputs. It holds no lock of Python's.
    outputs : list of (bool, shape, dtype)
        Of each output, whether it has a number per trial, what comes behind, and its type.
    """

    function: Callable[..., None]
    outputs: list[tuple[bool, tuple[int, ...], str]]

    def __call__(self, subjects: Subjects, x: FloatArray, index: Index | None, *extra: Numbers) -> list[Numbers]:
        """Evaluate subjects `index` (all, if None) at x, (n, parameter)."""
        index = np.arange(len(x)) if index is None else index
        results = [
            np.zeros((len(x), *[subjects.width] * by_trial, *shape), dtype) for by_trial, shape, dtype in self.outputs
        ]
        arrays = [np.asarray(array, order="C") for array in (x, subjects.n_trials, *subjects.arrays, *extra)]
        self.function(np.ascontiguousarray(index, dtype=np.int64), *arrays, *results)
        return results


def write_kernel(
    x: Sequence[TensorVariable],
    columns: Sequence[tuple[TensorVariable, Column]],
    outputs: Sequence[TensorVariable],
    by_trial: Sequence[bool],
    *,
    with_gradient: bool = False,
) -> Kernel:
    """Write and compile loops over subjects from the graph of one.

    Parameters
    ----------
    x : sequence of TensorVariable
        Parameters, scalars.
    columns : sequence of (TensorVariable, Column)
        What else the graph reads, and what kind of array it is found in.
    outputs : sequence of TensorVariable
        What to compute.
    by_trial : sequence of bool
        Whether each has a number per trial.
    with_gradient : bool
        Whether to add the gradient of the first output by x.

    Raises
    ------
    NotWritable
        If the graph has an Op that cannot be written as loops.
    """
    graph = _simplified([*x, *(symbol for symbol, _ in columns)], outputs, len(x) * with_gradient)
    code = Code(depth=2)
    code.line("s = index[r]")
    code.line("n = n_trials[s]")
    inputs = [_parameter(code, k) for k in range(len(x))]
    inputs += [_column(code, f"c{k}", kind) for k, (_, kind) in enumerate(columns)]
    arrays = write_graph(graph.toposort(), graph.outputs, dict(zip(graph.inputs, inputs, strict=True)), code)
    found = []
    for k, (array, trials) in enumerate(zip(arrays, by_trial, strict=True)):
        rest = array.shape[trials:]
        if not all(isinstance(n, int) for n in rest):
            raise NotWritable("an output has dimensions whose length is known only when it runs.")
        found.append((trials, tuple(map(int, rest)), array.dtype))
        with code.loops(array.shape) as indices:
            for index in indices:
                code.line(f"out{k}[{', '.join(map(str, ('r', *index)))}] = {array.element(index)}")
    names = ["index", "x", "n_trials", *(f"c{k}" for k in range(len(columns))), *(f"out{k}" for k in range(len(found)))]
    source = f"def kernel({', '.join(names)}):\n    for r in range(len(index)):\n" + "\n".join(code.lines) + "\n"
    types = [("int64", 1, True), ("float64", 2, True), ("int64", 1, True)]
    types += [(kind.dtype, kind.by_subject + kind.by_trial + len(kind.shape), True) for _, kind in columns]
    types += [(dtype, 1 + trials + len(shape), False) for trials, shape, dtype in found]
    return Kernel(_compile(source, code.functions, types), found)


def _simplified(inputs: list[Any], outputs: Sequence[TensorVariable], n_slopes: int) -> FunctionGraph:
    """Add the gradient by the first inputs, and let PyTensor simplify all.

    Parameters out of bounds give -inf, as in PyMC, instead of an error.
    """
    graph = FunctionGraph(inputs, list(outputs), clone=True)
    in2out(local_check_parameter_to_ninf_switch).rewrite(graph)
    if n_slopes:
        slopes = pytensor.grad(graph.outputs[0], graph.inputs[:n_slopes], disconnected_inputs="ignore")
        graph = FunctionGraph(graph.inputs, [*graph.outputs, pt.stack(slopes)], clone=True)
    get_mode("NUMBA").excluding(*_LEFT_OUT).optimizer.rewrite(graph)
    return graph


def _parameter(code: Code, k: int) -> Array:
    return Array("float64", (), lambda index: code.assign(f"x[r, {k}]"))


def _column(code: Code, name: str, kind: Column) -> Array:
    lead = ("s",) if kind.by_subject else ()
    shape = ("n", *kind.shape) if kind.by_trial else kind.shape
    return Array(kind.dtype, shape, code.memory(name, shape, kind.dtype, lead).element)


def _compile(source: str, functions: dict[str, Any], types: Sequence[tuple[str, int, bool]]) -> Callable[..., None]:
    """Compile what has been written, or find it on disk, where PyTensor keeps what it compiles."""
    import numba

    source = f"import math\n\nimport numpy as np\n\nfrom em_ppl.machine import *\n\n\n{source}"
    versions = [sys.version, np.__version__, numba.__version__, pytensor.__version__]
    name = "kernel_" + hashlib.sha256("\n".join([source, *versions]).encode()).hexdigest()[:32]
    module = _module(name, source)
    vars(module).update(functions)
    arrays = [numba.types.Array(numba.from_dtype(np.dtype(d)), n, "C", readonly=readonly) for d, n, readonly in types]
    options = {"cache": True, "nogil": True, "error_model": "numpy"}
    kernel: Callable[..., None] = numba.njit(numba.types.void(*arrays), **options)(module.kernel)
    return kernel


def _module(name: str, source: str) -> ModuleType:
    """Put the source into a file, beside which numba keeps machine code, and import it."""
    folder = Path(pytensor.config.base_compiledir) / "em_ppl"
    file = folder / f"{name}.py"
    if not file.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=folder, suffix=".unfinished", delete=False) as unfinished:
            unfinished.write(source)
        os.replace(unfinished.name, file)
    specification = importlib.util.spec_from_file_location(name, file)
    assert specification is not None and specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.modules[name] = module  # where numba looks for it when it reads machine code
    specification.loader.exec_module(module)
    return module
