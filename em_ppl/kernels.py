"""Machine code of one subject's log-likelihood, called for many subjects in a loop that Python does not see.

PyTensor writes the graph of one subject, its gradient, and simplifies both; `em_ppl.loops` writes that as loops over
numbers; numba compiles them, and keeps the result on disk. No subject is padded or copied, and each one's numbers are
the same to the last bit whoever else is there.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, partial
from importlib.resources import files
from itertools import pairwise
from typing import Any

import numpy as np
import pymc
import pytensor
import pytensor.tensor as pt
from numpy.typing import NDArray
from pymc.logprob.utils import local_check_parameter_to_ninf_switch
from pytensor.compile.mode import get_mode
from pytensor.compile.sharedvalue import SharedVariable
from pytensor.graph.fg import FunctionGraph
from pytensor.graph.rewriting.basic import in2out
from pytensor.graph.traversal import ancestors, toposort
from pytensor.tensor import TensorVariable

from em_ppl.cores import cores_in_use, in_threads
from em_ppl.kept import digest, kept
from em_ppl.loops import Array, Code, NotWritable, write_graph
from em_ppl.loops import Index as Place
from em_ppl.loops.wide import LANES, NotWide, widen
from em_ppl.machine_code import compile_source
from em_ppl.model import Column
from em_ppl.signature import Unsayable, signature
from em_ppl.subjects import FloatArray, Index, Subjects

__all__ = ["Kernel", "Source", "compile_kernel", "write_source"]

Numbers = NDArray[Any]

WORTHWHILE = 4000  # trials for a thread: 0.05 to 0.2 ms

# memory is for the longest of the subjects
LONGEST = ["n = 1", "for r in range(len(index)):", "    n = max(n, n_trials[index[r]])"]

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
    wide : bool
        Whether rows of one subject in a row are evaluated `LANES` at a time.
    """

    function: Callable[..., None]
    outputs: list[tuple[bool, tuple[int, ...], str]]
    wide: bool

    def __call__(self, subjects: Subjects, x: FloatArray, index: Index | None, *extra: Numbers) -> list[Numbers]:
        """Evaluate subjects `index` (all, if None) at x, (n, parameter)."""
        index = np.arange(len(x)) if index is None else index
        results = [
            np.zeros((len(x), *[subjects.width] * by_trial, *shape), dtype) for by_trial, shape, dtype in self.outputs
        ]
        arrays = [np.asarray(array, order="C") for array in (x, subjects.n_trials, *subjects.arrays, *extra)]
        index = np.asarray(index, dtype=np.int64)

        def evaluate(rows: slice) -> None:
            self.function(index[rows], arrays[0][rows], *arrays[1:], *(result[rows] for result in results))

        in_threads(evaluate, _portions(subjects.n_trials[index]))
        return results


def _portions(n_trials: NDArray[np.int64]) -> list[slice]:
    """Split rows into one portion a core, of about as many trials each; few trials are not worth it."""
    done = np.cumsum(n_trials)
    n = min(cores_in_use(), int(done[-1]) // WORTHWHILE, len(n_trials)) if len(done) else 1
    edges = np.searchsorted(done, done[-1] * np.arange(1, n) / n) + 1 if n > 1 else []
    return [slice(a, b) for a, b in pairwise([0, *map(int, edges), len(n_trials)])]


@dataclass(frozen=True)
class Source:
    """What is written of a kernel before it is compiled.

    Attributes
    ----------
    text : str
        A function ``kernel``, which calls those of `em_ppl.loops.machine`.
    functions : dict of str to callable
        Further functions that it calls.
    types : list of (dtype, number of dimensions, whether only read)
        Of its arguments.
    outputs : list of (bool, shape, dtype)
        See `Kernel`.
    wide : bool
        See `Kernel`.
    """

    text: str
    functions: dict[str, Any]
    types: list[tuple[str, int, bool]]
    outputs: list[tuple[bool, tuple[int, ...], str]]
    wide: bool


def write_source(
    x: Sequence[TensorVariable],
    columns: Sequence[tuple[TensorVariable, Column]],
    outputs: Sequence[TensorVariable],
    by_trial: Sequence[bool],
    *,
    with_gradient: bool = False,
    valid: TensorVariable | None = None,
) -> Source:
    """Write loops over subjects from the graph of one, or find on disk what was written of the same graph.

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
    valid : TensorVariable, optional
        Whether x is within its bounds: where it is not, the first output is -inf, and its gradient 0.

    Raises
    ------
    NotWritable
        If the graph has an Op that cannot be written as loops.
    """
    asked, checked = (outputs, False) if valid is None else ([*outputs, valid], True)
    arguments = x, columns, asked, by_trial, with_gradient, checked
    try:
        graph = signature([*x, *(symbol for symbol, _ in columns)], asked)
    except Unsayable:
        return _written(*arguments)
    kinds = [kind for _, kind in columns]
    name = digest(graph, kinds, list(by_trial), with_gradient, checked, _writers(), _versions())
    # functions of PyTensor's live in this process only
    return kept(f"source_{name}", lambda: _written(*arguments), worth=lambda source: not source.functions)


@cache
def _writers() -> list[str]:
    """Return the source of what writes kernels: another version may write another one of the same graph."""
    here = files("em_ppl")
    written = sorted((here / "loops").iterdir(), key=lambda file: file.name)
    return [file.read_text() for file in (here / "kernels.py", *written) if file.name.endswith(".py")]


def _versions() -> list[str]:
    return [sys.version, np.__version__, pytensor.__version__, pymc.__version__]


def _written(
    x: Sequence[TensorVariable],
    columns: Sequence[tuple[TensorVariable, Column]],
    outputs: Sequence[TensorVariable],
    by_trial: Sequence[bool],
    with_gradient: bool,
    checked: bool,
) -> Source:
    """See `write_source`; if `checked`, the last output says what is valid."""
    graph = _simplified([*x, *(symbol for symbol, _ in columns)], outputs, len(x) * with_gradient)
    code, flags = Code(), [*by_trial, *[False] * with_gradient]
    inputs = [_parameter(code, k) for k in range(len(x))]
    inputs += [_column(code, f"c{k}", kind) for k, (_, kind) in enumerate(columns)]
    arrays = write_graph(_in_order(graph), graph.outputs, dict(zip(graph.inputs, inputs, strict=True)), code)
    if checked:
        valid = arrays.pop(len(outputs) - 1)
        arrays = [_where(valid, a, other, code) for a, other in zip(arrays, ("-np.inf", "0.0"), strict=False)]
    found = []
    for k, (array, trials) in enumerate(zip(arrays, flags, strict=True)):
        rest = array.shape[trials:]
        if not all(isinstance(n, int) for n in rest):
            raise NotWritable("an output has dimensions whose length is known only when it runs.")
        if trials:
            code.check_equal(["n", array.shape[0]])
        found.append((trials, tuple(map(int, rest)), array.dtype))
        code.loops(array.shape, partial(_write_output, code, k, array))
    names = ["index", "x", "n_trials", *(f"c{k}" for k in range(len(columns))), *(f"out{k}" for k in range(len(found)))]
    memory, lines = code.lines()
    wide, body = False, _over_rows(memory, lines)
    if not any(by_trial):  # what has a number per trial is asked for at one point
        with suppress(NotWide):
            widened = widen([*memory, *lines])
            wide, body = True, _over_lanes(widened[: len(memory)], widened[len(memory) :])
    text = "\n    ".join([f"def kernel({', '.join(names)}):", *body, ""])
    types = [("int64", 1, True), ("float64", 2, True), ("int64", 1, True)]
    types += [(kind.dtype, kind.by_subject + kind.by_trial + len(kind.shape), True) for _, kind in columns]
    types += [(dtype, 1 + trials + len(shape), False) for trials, shape, dtype in found]
    return Source(text, code.functions, types, found, wide)


def _simplified(inputs: list[Any], outputs: Sequence[TensorVariable], n_slopes: int) -> FunctionGraph:
    """Add the gradient by the first inputs, and let PyTensor simplify all.

    Parameters out of bounds give -inf, as in PyMC, instead of an error.
    """
    if any(isinstance(v, SharedVariable) for v in ancestors(outputs)):
        raise NotWritable("a shared variable, whose value may change.")
    graph = FunctionGraph(inputs, list(outputs), clone=True)
    with pytensor.config.change_flags(traceback__limit=0):  # nobody reads where nodes were made, which takes its time
        in2out(local_check_parameter_to_ninf_switch).rewrite(graph)
        if n_slopes:
            slopes = pytensor.grad(graph.outputs[0], graph.inputs[:n_slopes], disconnected_inputs="ignore")
            graph = FunctionGraph(graph.inputs, [*graph.outputs, pt.stack(slopes)], clone=True)
        get_mode("NUMBA").excluding(*_LEFT_OUT).optimizer.rewrite(graph)
    return graph


def _in_order(graph: FunctionGraph) -> list[Any]:
    """Sort nodes so that each output is finished before the next is begun: loops then take each other up."""
    nodes: dict[Any, None] = {}
    for output in graph.outputs:
        nodes |= dict.fromkeys(toposort([output]))
    return list(nodes)


def _over_rows(memory: list[str], lines: list[str]) -> list[str]:
    """Loop over rows."""
    loop = ["for r in range(len(index)):", "    s = index[r]", "    n = n_trials[s]"]
    return [*LONGEST, *memory, *loop, *(f"    {line}" for line in lines)]


def _over_lanes(memory: list[str], lines: list[str]) -> list[str]:
    """Loop over rows, some of one subject at a time."""
    loop = [
        f"rows, spare = np.empty((x.shape[1], {LANES})), np.zeros({LANES})",
        "r = 0",
        "while r < len(index):",
        "    s, m = index[r], 1",
        f"    while m < {LANES} and r + m < len(index) and index[r + m] == s:",
        "        m += 1",
        "    for k in range(x.shape[1]):",
        f"        for l in range({LANES}):",
        "            rows[k, l] = x[r + min(l, m - 1), k]",
        "    n = n_trials[s]",
    ]
    return [*LONGEST, *memory, *loop, *(f"    {line}" for line in lines), "    r += m"]


def _write_output(code: Code, k: int, array: Array, indices: list[Place]) -> None:
    for index in indices:
        code.line(f"out{k}[{', '.join(map(str, ('r', *index)))}] = {array.element(index)}")


def _where(valid: Array, array: Array, otherwise: str, code: Code) -> Array:
    """Take an array if that is valid."""

    def element(index: Place) -> str:
        return code.assign(f"choose({valid.scalar()}, {array.element(index)}, {otherwise})")

    return array if valid.scalar() == "True" else Array(array.dtype, array.shape, element)


def _parameter(code: Code, k: int) -> Array:
    return Array("float64", (), lambda index: code.assign(f"x[r, {k}]"))


def _column(code: Code, name: str, kind: Column) -> Array:
    lead: Place = ("s",) if kind.by_subject else ()
    shape: Place = ("n", *kind.shape) if kind.by_trial else kind.shape
    return Array(kind.dtype, shape, code.memory(name, shape, kind.dtype, lead).element)


def compile_kernel(source: Source) -> Kernel:
    """Compile what has been written, or find it on disk, where PyTensor keeps what it compiles."""
    import numba

    from em_ppl.loops import lanes, machine, vectors

    imports = "from em_ppl.loops import lanes\nfrom em_ppl.loops.machine import *"
    called = [inspect.getsource(module) for module in (lanes, machine, vectors)]
    types = [numba.types.Array(numba.from_dtype(np.dtype(d)), n, "C", readonly=only) for d, n, only in source.types]
    function = compile_source(
        "kernel", f"{imports}\n\n\n{source.text}", types, functions=source.functions, depends_on=[called, _versions()]
    )
    return Kernel(function, source.outputs, source.wide)
