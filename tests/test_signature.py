"""The text of a graph: the same for the same graph in any process, another one for any other graph."""

import os
import subprocess
import sys

import pymc as pm
import pytensor
import pytensor.tensor as pt
import pytest
from pytensor.compile.builders import OpFromGraph
from pytensor.graph.basic import Apply
from pytensor.graph.op import Op

from em_ppl.signature import Unsayable, signature


def said(write, **types):
    inputs = [
        pt.tensor("x", dtype=types.get("x", "float64"), shape=types.get("shape", (None,))),
        pt.scalar("a", dtype="float64"),
    ]
    return signature(inputs, [write(*inputs)])


def loop(x, a, *, step=lambda one, last, a: last + a * (one - last), start=0.0, **how):
    states = pytensor.scan(
        step,
        sequences=[x],
        outputs_info=[pt.constant(start, dtype="float64")],
        non_sequences=[a],
        return_updates=False,
        **how,
    )
    return states.sum()


GRAPHS = [
    {"write": lambda x, a: x.sum() * a},
    {"write": lambda x, a: x.sum() * a, "x": "float32"},
    {"write": lambda x, a: x.sum() * a, "x": "int64"},
    {"write": lambda x, a: x.sum() * a, "shape": (3,)},
    {"write": lambda x, a: x.sum() / a},
    {"write": lambda x, a: a / x.sum()},
    {"write": lambda x, a: x.prod() * a},
    {"write": lambda x, a: x.sum() * a + 1},
    {"write": lambda x, a: x.sum() * a + 1.0},
    {"write": lambda x, a: x.sum() * a + 1.0000000000000002},
    {"write": lambda x, a: x[1] * a},
    {"write": lambda x, a: x[2] * a},
    {"write": lambda x, a: x[1:].sum() * a},
    {"write": lambda x, a: x[1::2].sum() * a},
    {"write": lambda x, a: pt.special.softmax(x[None], axis=0)[0, 0] * a},
    {"write": lambda x, a: pt.special.softmax(x[None], axis=1)[0, 0] * a},
    {"write": lambda x, a: pt.set_subtensor(x[0], a).sum()},
    {"write": lambda x, a: pt.inc_subtensor(x[0], a).sum()},
    {"write": lambda x, a: pt.switch(a > 0, x.sum(), a)},
    {"write": lambda x, a: pt.switch(a > 0, a, x.sum())},
    {"write": lambda x, a: pt.cast(a, "int64") * x.sum()},
    {"write": lambda x, a: pt.cast(a, "int32") * x.sum()},
    {"write": lambda x, a: pm.logp(pm.Normal.dist(a, 1.0), x).sum()},
    {"write": lambda x, a: pm.logp(pm.Normal.dist(a, 2.0), x).sum()},
    {"write": lambda x, a: pm.logp(pm.StudentT.dist(nu=3.0, mu=a, sigma=1.0), x).sum()},
    {"write": loop},
    {"write": lambda x, a: loop(x, a, start=0.5)},
    {"write": lambda x, a: loop(x, a, step=lambda one, last, a: last - a * (one - last))},
    {"write": lambda x, a: loop(x, a, go_backwards=True)},
    {"write": lambda x, a: loop(x, a, truncate_gradient=2)},
    {"write": lambda x, a: loop(x[1:], a)},
]


def test_the_same_graph_has_the_same_text():
    assert [said(**graph) for graph in GRAPHS] == [said(**graph) for graph in GRAPHS]


def test_another_graph_has_another_text():
    assert len({said(**graph) for graph in GRAPHS}) == len(GRAPHS)


def test_which_output_comes_first_and_which_input_is_which_matter():
    x, y = pt.scalar("x"), pt.scalar("y")
    texts = [signature([x, y], [x - y, x]), signature([y, x], [x - y, x]), signature([x, y], [x, x - y])]
    assert len(set(texts)) == 3
    assert signature([x, y], [x - y, x]) == signature([y, x], [y - x, y])  # names do not


def test_another_process_says_the_same():
    """Whatever order its sets have."""
    lines = "import sys; sys.path.insert(0, 'tests'); from test_signature import *; print([said(**g) for g in GRAPHS])"
    here = f"{[said(**graph) for graph in GRAPHS]}\n"
    for seed in ("1", "2"):
        command = [sys.executable, "-W", "ignore", "-c", lines]
        environment = os.environ | {"PYTHONHASHSEED": seed}
        assert subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout == here


class Mine(Op):
    """What it does may change from one process to the next."""

    __props__ = ()

    def make_node(self, x):
        return Apply(self, [x], [x.type()])

    def perform(self, node, inputs, outputs):
        raise NotImplementedError


def from_graph(x):
    y = x.type()
    return OpFromGraph([y], [y + 1])(x)


@pytest.mark.parametrize(
    "write",
    [
        pytest.param(Mine(), id="an Op of the user's"),
        pytest.param(from_graph, id="a graph of the user's, whose gradient may be, too"),
        pytest.param(lambda x: x + pytensor.shared(1.0), id="a value that may change"),
        pytest.param(lambda x: x + pt.scalar("y"), id="an input that is not said"),
        pytest.param(lambda x: x + pm.Normal.dist(), id="a random number"),
    ],
)
def test_what_hangs_on_something_else_has_no_text(write):
    x = pt.scalar("x")
    with pytest.raises(Unsayable):
        signature([x], [write(x)])
