"""Whether memory, threads or open files grow over many fits in one process.

python tests/benchmarks/soak.py [--fits 500]
"""

import argparse
import os
import sys
import tempfile
import threading
import warnings
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from helpers import simulated_learners

import em_ppl as em
from em_ppl.models.rescorla_wagner import rescorla_wagner


def now():
    """Resident memory (MB), threads, open files."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20, threading.active_count(), len(os.listdir("/proc/self/fd"))


def main(fits):
    warnings.simplefilter("ignore", em.ConvergenceWarning)
    rng, estimators, failed = np.random.default_rng(0), ["corrected", "laplace", "exact"], 0
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "fit.nc"
        for k in range(1, fits + 1):
            people, trials = rng.integers(5, 60), rng.integers(20, 120)
            data = simulated_learners(int(people), n_trials=int(trials), random_seed=k)
            fit = em.fit(rescorla_wagner, data, estimator=estimators[k % 3], random_seed=k, progressbar=False)
            failed += not fit.converged
            loaded = em.load(fit.save(path), model=rescorla_wagner)
            assert loaded.subjects.identical(fit.subjects)
            assert np.isfinite(loaded.evidence.log_evidence)
            if k in (1, 10) or k % max(1, fits // 10) == 0:
                memory, threads, files = now()
                print(f"{k:5d} fits: {memory:7.1f} MB, {threads} threads, {files} open files; {failed} not converged")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--fits", type=int, default=500)
    main(parser.parse_args().fits)
