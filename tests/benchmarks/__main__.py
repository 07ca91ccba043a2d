"""What this package is to be in speed, and what it is: ratios measured side by side in one run, in one table.

    python tests/benchmarks [--only one_core others first_fit cores growth people] [--pyem FOLDER]
        [--prototype FOLDER] [--json FILE]

All of it takes 25 minutes. Each line is what one of the other files here measures, and says more about.
Programs that are not here are left out: see others.py and cold_start.py.
"""

from __future__ import annotations

import argparse
import json
import math
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import cold_start
import many_people
import others
import pandas as pd
import speed

import em_ppl as em


class Line(NamedTuple):
    """A number, and the largest or the smallest that it is to be, if that has been said."""

    what: str
    measured: float
    most: float = math.inf
    least: float = -math.inf

    def in_words(self) -> dict[str, object]:
        """Say what was asked, and whether it holds."""
        limits = {"at most": self.most, "at least": self.least}
        asked = "".join(f"{words} {limit:g}" for words, limit in limits.items() if math.isfinite(limit))
        holds = "" if not asked else "yes" if self.least <= self.measured <= self.most else "no"
        return {"what": self.what, "measured": self.measured, "asked": asked, "holds": holds}


def one_core(_: argparse.Namespace) -> Iterator[Line]:
    """Compare with EM by hand."""
    for n in (100, 500, 2000):
        for row in speed.compare(n):
            yield Line(f"{row['estimator']}, {n} people, CPU over EM by hand", row["ratio"], most=5)


def other_programs(given: argparse.Namespace) -> Iterator[Line]:
    """Compare with TMB, nutpie and pyEM, where they are installed."""
    table = others.side_by_side(100, list(others.OTHERS), given.pyem).set_index("by")
    for by, estimator, least in (("TMB", "corrected", 1), ("nutpie", "corrected", 300), ("pyEM", "laplace", 1000)):
        for name in table.index[table.index.str.startswith(by)]:
            what = f"{name}, 100 people, CPU over {estimator}"
            yield Line(what, table.loc[name, f"over em_ppl, {estimator}"], least=least)


def first_fit(given: argparse.Namespace) -> Iterator[Line]:
    """Compare first fits with those whose likelihood PyTensor compiles, for all subjects together."""
    own = {model: cold_start.measure(model) for model in ("rescorla_wagner", "hyperbolic_discounting", "two_step")}
    for model, row in own.items():
        by_pytensor = cold_start.measure(model, {"mode": "FAST_RUN"})
        ratio = row["fit, cold, s"] / by_pytensor["fit, cold, s"]
        yield Line(f"{model}, empty cache, CPU over PyTensor's", ratio, most=0.5)
    if given.prototype:
        prototype = cold_start.measure_prototype(given.prototype)
        ratio = own["rescorla_wagner"]["fit, cold, s"] / prototype["fit, cold, s"]
        yield Line("rescorla_wagner, empty cache, CPU over the prototype's", ratio, most=0.5)
    for model, row in own.items():
        yield Line(f"{model}, full cache, s of CPU, imports and all", row["fit, warm, s"], most=2)
    yield Line("import em_ppl, s of CPU beyond import pymc", cold_start.import_beyond_pymc(), most=0.3)


def cores(_: argparse.Namespace) -> Iterator[Line]:
    """Compare one core with all."""
    for n in (500, 2000, 10_000):
        row = speed.spread_out(n)
        yield Line(f"corrected, {n} people, one core over {row['cores']}", row["ratio"], least=1.7)
        yield Line("   what its likelihood alone gains, in which nothing waits", row["of the likelihood alone"])


def growth(_: argparse.Namespace) -> Iterator[Line]:
    """Say how an E-step grows."""
    most = {"P": 2, "T": 1, "N": 1}  # an evaluation of a regression takes as long as it has parameters
    for sizes in speed.SIZES:
        slopes = speed.exponents([speed.growth(*each) for each in sizes])
        yield Line(f"E-step, power of {slopes['varies']}", slopes["E-step, s"], most=most[slopes["varies"]])


def people(_: argparse.Namespace) -> Iterator[Line]:
    """Say how time and memory grow to 100,000 people."""
    rows = pd.DataFrame(many_people.measure([10_000, 100_000], 50, ["zarr"]))
    yield Line("10,000 to 100,000 people from Zarr, power of people", many_people.exponent(rows), most=1)
    yield Line("100,000 people from Zarr, GB of memory", rows["memory, GB"].iloc[-1], most=4)


PARTS: dict[str, Callable[[argparse.Namespace], Iterator[Line]]] = {
    "one_core": one_core,
    "others": other_programs,
    "first_fit": first_fit,
    "cores": cores,
    "growth": growth,
    "people": people,
}


def main() -> None:
    """Measure what is asked for, and print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--pyem", type=Path)
    parser.add_argument("--prototype", type=Path)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    warnings.simplefilter("ignore", em.ConvergenceWarning)
    table = pd.DataFrame([line.in_words() for part in given.only for line in PARTS[part](given)])
    print(table.to_string(index=False, float_format="{:.3g}".format, justify="left"))
    if given.json:
        given.json.write_text(json.dumps(table.to_dict("records"), indent=1))


if __name__ == "__main__":
    main()
