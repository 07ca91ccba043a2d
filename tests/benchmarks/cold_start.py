"""The first fit in a fresh Python: seconds of CPU, with an empty cache of compiled code and with a full one.

    python tests/benchmarks/cold_start.py [--models rescorla_wagner two_step] [--by-pytensor] [--prototype FOLDER]
        [--json FILE]

Everything counts until the result is there: imports, writing and compiling the model, and the fit of 20 simulated
subjects. They are simulated before, in another process with an empty cache, which is measured too. ``--by-pytensor``
adds the same with what PyTensor compiles over all subjects; ``--prototype`` adds that from which this package began
(``em.py`` in FOLDER).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

import pandas as pd

TESTS = Path(__file__).parents[1]
REPEATS = 3

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
PROTOTYPE = """
import runpy, sys
import numpy as np, xarray as xr
data = xr.load_dataset({file!r}, engine="h5netcdf")
np.savez({arrays!r}, choices=data["choice"].values, rewards=data["reward"].values)
sys.path.insert(0, {prototype!r})
sys.argv = ["em.py", {arrays!r}, "corrected"]
runpy.run_path({prototype!r} + "/em.py", run_name="__main__")
"""
IMPORT = """
import time, pymc
started = time.process_time()
import em_ppl
print(time.process_time() - started)
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
    printed = subprocess.run(command, check=True, env=environment, stdout=subprocess.PIPE, text=True).stdout
    return float(printed.split()[-1])


def measure_prototype(prototype: Path) -> dict[str, object]:
    """Fit Rescorla-Wagner with what this package began from."""
    with tempfile.TemporaryDirectory() as folder:
        files = {"file": f"{folder}/data.nc", "arrays": f"{folder}/data.npz", "prototype": str(prototype)}
        cpu(SIMULATE.format(model="rescorla_wagner", tests=str(TESTS), kwargs=None, **files), f"{folder}/other")
        cold, *warm = (cpu(PROTOTYPE.format(**files), f"{folder}/cache") for _ in range(1 + REPEATS))
    by = {"model": "rescorla_wagner", "compiled by": "the prototype"}
    return by | {"fit, cold, s": cold, "fit, warm, s": median(warm)}


def measure(model: str, kwargs: dict[str, str] | None = None) -> dict[str, object]:
    """Fit with an empty cache, and again with what that left there."""
    with tempfile.TemporaryDirectory() as folder:
        names = {"model": model, "file": f"{folder}/data.nc", "tests": str(TESTS), "kwargs": kwargs}
        simulated = cpu(SIMULATE.format(**names), f"{folder}/other")
        cold, *warm = (cpu(FIT.format(**names), f"{folder}/cache") for _ in range(1 + REPEATS))
        pymc = [cpu("import pymc", f"{folder}/cache") for _ in range(REPEATS)]
    by = "PyTensor" if kwargs else "em_ppl"
    first = {"simulate, cold, s": simulated, "fit, cold, s": cold, "fit, warm, s": median(warm)}
    return {"model": model, "compiled by": by} | first | {"of which import pymc, s": median(pymc)}


def import_beyond_pymc() -> float:
    """Seconds of CPU that `import em_ppl` takes after `import pymc`."""
    command = [sys.executable, "-W", "ignore", "-c", IMPORT]
    return median(float(subprocess.check_output(command)) for _ in range(REPEATS))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["rescorla_wagner", "hyperbolic_discounting", "two_step"])
    parser.add_argument("--by-pytensor", action="store_true")
    parser.add_argument("--prototype", type=Path)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    ways = [None, {"mode": "FAST_RUN"}] if given.by_pytensor else [None]
    rows = [measure(model, kwargs) for model in given.models for kwargs in ways]
    table = pd.DataFrame(rows + ([measure_prototype(given.prototype)] if given.prototype else []))
    print(table.to_string(index=False, float_format="{:.1f}".format, na_rep=""))
    print(f"import em_ppl, beyond import pymc: {import_beyond_pymc():.2f} s")
    if given.json:
        given.json.write_text(json.dumps(table.to_dict("records"), indent=1))


if __name__ == "__main__":
    main()
