"""What happens to a fit whose process is killed, whose disk is full, whose compile cache is broken or shared.

python tests/benchmarks/faults.py [--kills 15]

Each line says what was done how often, and in how many cases the fit ended in the same bits as one that nothing
happened to. It takes some ten minutes.
"""

import argparse
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np

TESTS = Path(__file__).parents[1]


def fit(folder):
    """Fit 300 learners, from a checkpoint if there is one, and save the fit."""
    sys.path.insert(0, str(TESTS))
    from helpers import simulated_learners

    import em_ppl as em
    from em_ppl.models.rescorla_wagner import rescorla_wagner

    data = simulated_learners(300, n_trials=300, random_seed=1)
    em.fit(rescorla_wagner, data, cores=1, checkpoint=folder / "state", progressbar=False).save(folder / "fit.nc")


def save_for_ever(folder):
    """Save two fits in turn under one name."""
    import em_ppl as em

    fits = [em.load(folder / name) for name in ("one.nc", "two.nc")]
    for k in range(1_000_000):
        fits[k % 2].save(folder / "fit.nc")


def start(work, folder, **environment):
    """Begin one of the above in a process of its own."""
    command = [sys.executable, "-W", "ignore", __file__, "--do", work, str(folder)]
    return subprocess.Popen(command, env=os.environ | environment, stderr=subprocess.PIPE)


def finish(process):
    """Wait for it; whether it ended well."""
    error = process.communicate()[1].decode()
    if process.returncode:
        print(error[-2000:])
    return process.returncode == 0


def same_bits(path, other):
    """Whether two files hold the same fit."""
    import em_ppl as em

    a, b = em.load(path), em.load(other)
    return all(getattr(a, part).identical(getattr(b, part)) for part in ("subjects", "history", "information"))


def cache(folder):
    """Keep compiled code in a folder of its own."""
    return {"PYTENSOR_FLAGS": f"base_compiledir={folder}", "NUMBA_CACHE_DIR": str(folder / "numba")}


def damage(folder, how, rng):
    """Break every file of a compile cache; returns how many there were."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    for path in files:
        content = path.read_bytes()
        if how == "truncated":
            path.write_bytes(content[: len(content) // 2])
        elif how == "emptied":
            path.write_bytes(b"")
        elif how == "overwritten":
            path.write_bytes(rng.bytes(len(content)))
        elif rng.random() < 0.5:
            path.unlink()
    return len(files)


def main(kills):
    rng, work = np.random.default_rng(), Path(tempfile.mkdtemp())

    def folder(name):
        (work / name).mkdir()
        return work / name

    whole = folder("whole")
    assert finish(start("fit", whole))
    (whole / "state").unlink()
    began = time.perf_counter()
    assert finish(start("fit", whole))
    seconds, reference = time.perf_counter() - began, whole / "fit.nc"

    same = struck = resumed = 0
    for k in range(kills):
        here = folder(f"killed{k}")
        process = start("fit", here)
        time.sleep(rng.uniform(0.3, 1.0) * seconds)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        struck += process.returncode == -signal.SIGKILL
        resumed += (here / "state").exists()
        same += finish(start("fit", here)) and same_bits(here / "fit.nc", reference)
    print(
        f"killed at a random moment: {struck} fits, {resumed} of which had a checkpoint; same bits: {same} of {kills}"
    )

    here, good = folder("saving"), 0
    for name in ("one.nc", "two.nc", "fit.nc"):
        shutil.copy(reference, here / name)
    for _ in range(kills):
        process = start("save_for_ever", here)
        time.sleep(rng.uniform(0.7, 1.3) * seconds)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        good += same_bits(here / "fit.nc", reference)
    print(f"killed while it saved: {kills} processes; the file was whole: {good}")

    here = folder("full")
    shutil.copy(reference, here / "fit.nc")
    process = subprocess.Popen(
        [sys.executable, "-W", "default", __file__, "--do", "fit", str(here)],
        stderr=subprocess.PIPE,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000)),
    )
    said = process.communicate()[1].decode()
    warned, failed = "cannot be written" in said, process.returncode != 0 and "OSError" in said
    print(f"a disk with room for 20 kB: checkpoint warned {warned}, save failed {failed}", end="; ")
    print(f"the earlier file is whole: {same_bits(here / 'fit.nc', reference)}; left over: {sorted(os.listdir(here))}")

    compiled = work / "cache"
    assert finish(start("fit", folder("first"), **cache(compiled)))
    for how in ("truncated", "emptied", "overwritten", "half of them deleted"):
        here = folder(how.replace(" ", "_"))
        n = damage(compiled, how, rng)
        fine = finish(start("fit", here, **cache(compiled))) and same_bits(here / "fit.nc", reference)
        print(f"compile cache of {n} files {how}: same bits {fine}")

    shared = work / "shared"
    folders = [folder(f"at_once{k}") for k in range(3)]
    processes = [start("fit", here, **cache(shared)) for here in folders]
    ended = [finish(process) for process in processes]
    fine = sum(same_bits(here / "fit.nc", reference) for here in folders if (here / "fit.nc").exists())
    print(f"3 processes at once that compile into one empty cache: {sum(ended)} ended well, same bits: {fine}")
    shutil.rmtree(work)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=15)
    parser.add_argument("--do", nargs=2, metavar=("WORK", "FOLDER"), help="what a process of its own does")
    arguments = parser.parse_args()
    if arguments.do:
        warnings.resetwarnings()
        globals()[arguments.do[0]](Path(arguments.do[1]))
    else:
        main(arguments.kills)
