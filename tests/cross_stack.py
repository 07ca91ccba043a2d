"""InferenceData that one stack writes and the other reads; run by .ci/run, once on each.

python tests/cross_stack.py write FOLDER
python tests/cross_stack.py read FOLDER
"""

import sys
from pathlib import Path

import numpy as np
import pymc as pm

import em_ppl as em
from em_ppl import compat

DIMS = {
    "posterior": {"gaussian": ("chain", "draw", "subject", "parameter"), "group_sd": ("chain", "draw", "parameter")},
    "prior_predictive": {"y": ("chain", "draw", "subject", "trial")},
    "posterior_predictive": {"y": ("chain", "draw", "subject", "trial")},
    "log_likelihood": {"y": ("chain", "draw", "y_response")},
    "observed_data": {"y": ("subject", "trial")},
    "constant_data": {"x": ("subject", "trial"), "y_present": ("subject", "trial")},
}


@em.subject_model(intercept=em.Real(spread=1.0), slope=em.Real(spread=1.0))
def line(intercept, slope, x, y):
    pm.Normal("y", intercept + slope * x, 1.0, observed=y)


def write(folder: Path) -> None:
    """Fit, sample a little, predict, and save."""
    generator = np.random.default_rng(1)
    people = {f"s{n}": {"x": generator.normal(size=n), "y": generator.normal(size=n)} for n in (5, 8, 6)}
    fit = em.fit(line, em.from_subjects(people), progressbar=False)
    fit.save(folder / "fit.nc")
    settings = {"draws": 20, "chains": 2, "tune": 20, "cores": 1, "progressbar": False}
    nuts = fit.sample(**settings, compute_convergence_checks=False)
    with fit.hierarchical_model():
        prior = pm.sample_prior_predictive(5, random_seed=1)
        predicted = pm.sample_posterior_predictive(nuts, random_seed=1, progressbar=False)
    for name, idata in (("prior_predictive", prior), ("posterior_predictive", predicted)):
        nuts = compat.add_group(nuts, name, compat.read_group(idata, name))
    nuts.to_netcdf(str(folder / "nuts.nc"), engine="h5netcdf")


def read(folder: Path) -> None:
    """Check names and dims, and that ArviZ and em_ppl take it."""
    fit, nuts = em.load(folder / "fit.nc", model=line), compat.read_netcdf(folder / "nuts.nc")
    for name, variables in DIMS.items():
        group = compat.read_group(nuts, name)
        for variable, dims in variables.items():
            assert group[variable].dims == dims, (name, variable, group[variable].dims)
            assert np.isfinite(group[variable]).all(), (name, variable)
    print(em.agreement(fit, nuts))


if __name__ == "__main__":
    {"write": write, "read": read}[sys.argv[1]](Path(sys.argv[2]))
