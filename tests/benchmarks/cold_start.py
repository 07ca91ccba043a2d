"""The first fit in a fresh Python: seconds of CPU, with an empty cache of compiled code and with a full one.

    python tests/benchmarks/cold_start.py [--models rescorla_wagner two_step] [--by-pytensor] [--json FILE]

Everything counts until the result is there: imports, writing and compiling the model, and the fit of 20 simulated
subjects. They are simulated before, in another process with an empty cache, which is measured too. ``--by-pytensor``
adds the same with what PyTensor compiles over all subjects.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pandas as pd

TESTS = Path(__file__).parents[1]

SIMULATE = """
import sys, warnings
sys.path.insert(0, {tests!r})
import em_ppl as em
from zoo import ALL_CASES
case = next(c for c in ALL_CASES if c.name == {model!r})
people = em.draw_subjects(case.model, case.group, 20, random_seed=1)
data = em.simulate(case.model, people, case.task, random_seed=2, progressbar=False, compile_kwargs={kwargs})
data.to_netcdf({file!r}, engine="h5netcdf")
"""
FIT = """
import warnings
import em_ppl as em, xarray as xr
from em_ppl import models
warnings.simplefilter("ignore")
data = xr.load_dataset({file!r}, engine="h5netcdf")
em.fit(getattr(models, {model!r}), data, progressbar=False, compile_kwargs={kwargs})
"""


# what is written as C compiles in children
SECONDS = """
import resource, time
children = resource.getrusage(resource.RUSAGE_CHILDREN)
print(time.process_time() + children.ru_utime + children.ru_stime)
"""


def cpu(code: str, cache: str) -> float:
    """Run code in a fresh Python with this cache; seconds of CPU until it is done (not until Python has ended)."""
    flags = ",".join(filter(None, [os.environ.get("PYTENSOR_FLAGS"), f"base_compiledir={cache}"]))
    environment = os.environ | {"PYTENSOR_FLAGS": flags}
    command = [sys.executable, "-c", f"{code}\n{SECONDS}"]
    return float(subprocess.run(command, check=True, env=environment, stdout=subprocess.PIPE, text=True).stdout)


def measure(model: str, kwargs: dict[str, str] | None = None) -> dict[str, object]:
    """Fit once with an empty cache, once more with what that left there."""
    with tempfile.TemporaryDirectory() as folder:
        names = {"model": model, "file": f"{folder}/data.nc", "tests": str(TESTS), "kwargs": kwargs}
        simulated = cpu(SIMULATE.format(**names), f"{folder}/other")
        cold, warm = (cpu(FIT.format(**names), f"{folder}/cache") for _ in range(2))
        pymc = cpu("import pymc", f"{folder}/cache")
    by = "PyTensor" if kwargs else "em_ppl"
    first = {"simulate, cold, s": simulated, "fit, cold, s": cold, "fit, warm, s": warm}
    return {"model": model, "compiled by": by} | first | {"of which import pymc, s": pymc}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["rescorla_wagner", "hyperbolic_discounting", "two_step"])
    parser.add_argument("--by-pytensor", action="store_true")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    ways = [None, {"mode": "FAST_RUN"}] if given.by_pytensor else [None]
    table = pd.DataFrame([measure(model, kwargs) for model in given.models for kwargs in ways])
    print(table.to_string(index=False, float_format="{:.1f}".format))
    if given.json:
        given.json.write_text(json.dumps(table.to_dict("records"), indent=1))


if __name__ == "__main__":
    main()
