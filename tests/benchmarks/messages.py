"""What a fit sends to its workers, and what it does itself: the numbers behind docs/clusters.md.

    python tests/benchmarks/messages.py [--subjects 1000 10000] [--json FILE]

Rescorla-Wagner, 50 trials a subject, blocks of 500 subjects. An executor that works here, at once, weighs what would
travel (pickled) and times what workers would do and what the packing takes; the rest one process has to do alone.
"""

from __future__ import annotations

import argparse
import json
import time
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import Any

import cloudpickle
import pandas as pd

import em_ppl as em
from em_ppl.models.rescorla_wagner import rescorla_wagner, task

GROUP, N_TRIALS, BLOCK = {"alpha": (-0.5, 1.0), "beta": (1.2, 0.5)}, 50, 500


class Scales(Executor):
    """Work at once, weigh messages, and time the work."""

    def __init__(self) -> None:
        self.messages, self.there, self.back = 0, 0, 0
        self.working, self.weighing = 0.0, 0.0

    def submit(self, function: Any, /, *arguments: Any) -> Future[Any]:  # type: ignore[override]
        started = time.process_time()
        self.messages += 1
        self.there += len(cloudpickle.dumps(arguments))
        sent = time.process_time()
        future: Future[Any] = Future()
        future.set_result(function(*arguments))
        done = time.process_time()
        self.back += len(cloudpickle.dumps(future.result()))
        self.working += done - sent
        self.weighing += time.process_time() - done + sent - started
        return future


def measure(n_subjects: int) -> dict[str, Any]:
    """Fit so many simulated subjects, once to compile and once to measure."""
    people = em.draw_subjects(rescorla_wagner, GROUP, n_subjects, random_seed=1)
    data = em.simulate(rescorla_wagner, people, task(N_TRIALS), random_seed=1, progressbar=False)
    for _ in range(2):
        scales, started = Scales(), time.process_time()
        weighed = em.fit(rescorla_wagner, data.chunk(subject=BLOCK), executor=scales, progressbar=False)
        total = time.process_time() - started
    rounds = scales.messages / -(-n_subjects // BLOCK)
    return {
        "subjects": n_subjects,
        "EM steps": weighed.iterations,
        "rounds of messages": rounds,
        "there, B a subject and round": scales.there / n_subjects / rounds,
        "back, B a subject and round": scales.back / n_subjects / rounds,
        "data, B a subject": sum(data[name].nbytes for name in rescorla_wagner.columns) / n_subjects,
        "workers, ms a subject": 1e3 * scales.working / n_subjects,
        "packing, ms a subject": 1e3 * scales.weighing / n_subjects,
        "alone, ms a subject": 1e3 * (total - scales.working - scales.weighing) / n_subjects,
    }


def main() -> None:
    """Print a column for each number of subjects."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--subjects", type=int, nargs="+", default=[1000, 10000])
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    rows = [measure(n) for n in given.subjects]
    print(pd.DataFrame(rows).T.to_string(header=False, float_format="{:.3g}".format))
    if given.json:
        given.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
