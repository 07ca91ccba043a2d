"""The whole zoo in JAX, on the processor, in double precision: differences from the package's own machine code.

    python tests/benchmarks/zoo_in_jax.py [--models rescorla_wagner ...] [--json FILE]

Five simulated subjects of one length, at five points: largest differences of log-likelihoods and of their slopes (of
numbers around 10 to 100), and the CPU time until the first value and gradient, of which each has a compilation.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import em_ppl as em

sys.path.insert(0, str(Path(__file__).parents[1]))
from zoo import ALL_CASES


def compare(case: Any) -> dict[str, Any]:
    """Evaluate one model in both ways."""
    people = em.draw_subjects(case.model, case.group, 5, random_seed=1)
    data = em.simulate(case.model, people, case.task, random_seed=2, progressbar=False)
    x, found = case.draw(5, seed=3), []
    for kwargs in (None, {"mode": "JAX"}):
        started = time.process_time()
        found.append(
            (*case.model.compile(data, compile_kwargs=kwargs).value_and_gradient(x), time.process_time() - started)
        )
    (value, slope, own), (jax_value, jax_slope, jax) = found
    return {
        "model": case.name,
        "value": np.abs(value - jax_value).max(),
        "slope": np.abs(slope - jax_slope).max(),
        "own, s": own,
        "JAX, s": jax,
    }


def main() -> None:
    """Print a line a model as it is done, then the extremes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [case.name for case in ALL_CASES]
    parser.add_argument("--models", nargs="+", choices=names, default=names, metavar="MODEL")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    rows = []
    for case in (case for case in ALL_CASES if case.name in given.models):
        rows.append(compare(case))
        print(" ".join(f"{k} {v:.2g};" if isinstance(v, float) else f"{v}:" for k, v in rows[-1].items()), flush=True)
    print(pd.DataFrame(rows).describe().loc[["count", "min", "50%", "max"]].to_string(float_format="{:.2g}".format))
    if given.json:
        given.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
