"""Scan: one loop over trials, whose states are in memory that is as long as the trials."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

from pytensor.graph.basic import Apply
from pytensor.scan.op import Scan

from em_ppl.loops.code import Array, Code, Index, Length, NotWritable, is_unrolled, length_of
from em_ppl.loops.graph import write, write_graph


@write.register(Scan)
def _scan(op: Scan, node: Apply, inputs: list[Any], code: Code) -> list[Array]:
    """Write the loop; inputs and outputs are in PyTensor's order.

    States come first: mit-mot, the gradients; mit-sot and sit-sot, which look back. Outputs without a state (nit-sot)
    come after them.
    """
    info = op.info
    if info.as_while or info.n_untraced_sit_sot:
        raise NotWritable(f"{op} stops by a condition, or draws.")
    in_taps = [*info.mit_mot_in_slices, *info.mit_sot_in_slices, *info.sit_sot_in_slices]
    n_mit_mot, n_new = len(info.mit_mot_in_slices), info.n_nit_sot
    out_taps = [*info.mit_mot_out_slices, *[(0,)] * (len(in_taps) - n_mit_mot)]
    steps = length_of(inputs[0].scalar())
    ends = list(itertools.accumulate([1, info.n_seqs, len(in_taps), n_new]))
    sequences, states, shared = inputs[1 : ends[1]], inputs[ends[1] : ends[2]], inputs[ends[3] :]
    back = [-min(0, *taps) for taps in in_taps]
    first_rows = []
    for state, b, taps_in, taps_out in zip(states, back, in_taps, out_taps, strict=True):
        needed = code.calculate("Add", steps, max(*taps_in, *taps_out) + b)
        _check_room(state, needed, code)
        first_rows.append(_first_row(state, taps_in, taps_out, needed))
    buffers = [_memory(state, first, code) for state, first in zip(states, first_rows, strict=True)]
    for sequence in sequences:
        _check_room(sequence, steps, code)
    new = _new_rows(op, code, steps)
    targets = [(buffer, b + tap) for buffer, b, taps in zip(buffers, back, out_taps, strict=True) for tap in taps]
    targets += [(array, 0) for array in new]

    def body(step: str) -> None:
        inner: list[Array] = [_row(sequence, step) for sequence in sequences]
        for k, (buffer, b, taps, first) in enumerate(zip(buffers, back, in_taps, first_rows, strict=True)):
            for tap in taps:
                untouched = first is not None and b + tap > first
                row = _row(states[k] if untouched else buffer, code.calculate("Add", step, b + tap))
                if is_unrolled(row.shape):
                    row = _read_now(row, code)
                elif k < n_mit_mot and not untouched:
                    row = code.copy(row)  # it is written to before all of it is read
                inner.append(row)
        known = dict(zip(op.fgraph.inputs, [*inner, *shared], strict=True))
        outputs = write_graph(op.fgraph.toposort(), op.fgraph.outputs, known, code)
        for (target, offset), value in zip(targets, [_read_now(output, code) for output in outputs], strict=True):
            _put(value, target, code.calculate("Add", step, offset), code)

    code.loop(steps, body)
    return [code.memory(str(array.buffer), array.shape, array.dtype) for array in (*buffers, *new)]


def _first_row(state: Array, ins: Sequence[int], outs: Sequence[int], needed: Length) -> int | None:
    """Return the only row that a state's memory needs to begin with, if each step writes the next one.

    A row that no step has written to yet is then read where the state comes from. None, if all must be there.
    """
    [last, *others] = outs
    one_by_one = not others and {last - 1} <= {*ins} <= {last - 1, last} and state.shape[0] == needed
    return last - 1 - min(0, *ins) if one_by_one and not state.buffer else None


def _memory(state: Array, first: int | None, code: Code) -> Array:
    """Return memory for a state, with all that is in it, or a first row only."""
    if state.buffer or first is None:
        return state if state.buffer else code.copy(state)
    memory = code.allocate(state.shape, state.dtype)
    _put(_read_now(_row(state, first), code), memory, first, code)
    return memory


def _new_rows(op: Scan, code: Code, steps: Length) -> list[Array]:
    """Make room for outputs without a state."""
    n = op.info.n_nit_sot
    outputs = op.fgraph.outputs[len(op.fgraph.outputs) - n :]
    if any(length is None for output in outputs for length in output.type.shape):
        raise NotWritable(f"{op} has an output whose shape is known only inside it.")
    return [code.allocate((steps, *output.type.shape), output.type.dtype) for output in outputs]


def _check_room(array: Array, needed: Length, code: Code) -> None:
    """Raise where memory is shorter than what will be read and written."""
    room = array.shape[0]
    if (difference := code.calculate("Sub", room, needed)) == 0 or (isinstance(difference, int) and difference > 0):
        return
    with code.block(f"if {difference} < 0"):
        code.line("raise ValueError('a Scan has a sequence, or memory, that is too short')")


def _row(array: Array, step: Length) -> Array:
    return Array(array.dtype, array.shape[1:], lambda index: array.element((step, *index)))


def _read_now(array: Array, code: Code) -> Array:
    """Read all numbers before memory is written to."""
    if not is_unrolled(array.shape):
        return array if array.buffer else code.copy(array)
    return code.fill(array.shape, [array.dtype], lambda index: [array.element(index)])[0]


def _put(value: Array, target: Array, at: Length, code: Code) -> None:
    def body(indices: list[Index]) -> None:
        for index in indices:
            code.store(target, (at, *index), value.element(index))

    code.loops(value.shape, body)
