"""What an objective of pyEM costs beside the same likelihood in PyMC, and how right its differences are.

python tests/benchmarks/pyem_objective.py

It runs docs/coming_from_pyem.md, and fits both models that stand there once more, compiled, on one core.
"""

import contextlib
import io
import re
import time
import warnings
from pathlib import Path

import numpy as np

import em_ppl as em

PAGE = Path(__file__).parents[2] / "docs" / "coming_from_pyem.md"


def main():
    names = {"__name__": "page"}
    with contextlib.redirect_stdout(io.StringIO()):
        for block in re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE):
            exec(block, names)
    data = em.from_subjects(names["coded"], columns=["choices", "rewards"])
    for estimator in ("laplace", "corrected"):
        seconds = []
        for model, own in ((names["learner"], data), (names["model"], names["all_data"])):
            began = time.process_time()
            em.fit(model, own, estimator=estimator, cores=1, progressbar=False)
            seconds.append(time.process_time() - began)
        print(
            f"{estimator}: PyMC {seconds[0]:.2f} s, objective {seconds[1]:.2f} s, ratio {seconds[1] / seconds[0]:.0f}"
        )
    x = np.random.default_rng(0).normal(size=(len(names["all_data"]), 2))
    exact = names["learner"].compile(data).log_likelihood_gradient(x)
    differences = names["model"].compile(names["model"].read(names["all_data"])).log_likelihood_gradient(x)
    print(f"largest error of a gradient by differences: {np.abs(differences - exact).max():.1e}")


if __name__ == "__main__":
    warnings.simplefilter("ignore", em.ConvergenceWarning)
    main()
