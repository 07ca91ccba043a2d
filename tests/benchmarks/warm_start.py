"""NUTS from a fit against NUTS from PyMC's default start: effective draws, divergences, tuning.

    python tests/benchmarks/warm_start.py [--model rescorla_wagner] [--seeds 10] [--tune 500]

Simulated studies of three models of the zoo, 30 subjects each, 2 chains x 500 draws. Three ways: "plain", the
non-centred model as `SubjectModel.hierarchical` has it, sampled by `pm.sample` with its defaults (1000 tuning steps);
"cold", the fit's own parametrisation, sampled in the same way; "warm", `Fit.sample` with its default of 500 (or
--tune). ESS is the smallest over the group's numbers and all subjects. It is given per 1000 gradients of the log
density, tuning included, which does not depend on the machine, and per second, compiling left out.
"""

from __future__ import annotations

import argparse
import importlib
import logging
import warnings

import arviz as az
import pandas as pd
import pymc as pm
import xarray as xr

import em_ppl as em
from em_ppl.compat import read_group

SUBJECTS, DRAWS, CHAINS = 30, 500, 2
STUDIES = {  # mean and SD of each parameter, Gaussian space, and trials a subject
    "rescorla_wagner": ({"alpha": (0.0, 1.0), "beta": (1.0, 0.5)}, 100),
    "rescorla_wagner_two_rates": (
        {"alpha_positive": (0.0, 0.8), "alpha_negative": (-0.5, 0.8), "beta": (1.0, 0.5)},
        150,
    ),
    "logistic_regression": ({"intercept": (0.0, 1.0), "slope": (1.0, 0.7)}, 40),
}


def simulate(name: str, seed: int) -> tuple[em.SubjectModel, xr.Dataset]:
    """Simulate a study."""
    module = importlib.import_module(f"em_ppl.models.{name}")
    model, (group, n_trials) = getattr(module, name), STUDIES[name]
    people = em.draw_subjects(model, group, SUBJECTS, random_seed=seed)
    return model, em.simulate(model, people, module.task(n_trials), random_seed=seed, progressbar=False)


def measure(idata: object) -> dict[str, float]:
    """Count effective draws, gradients, seconds and divergences."""
    posterior = read_group(idata, "posterior")
    numbers = posterior[["group_mean", "group_sd", "gaussian"]]
    ess = min(float(variable.min()) for variable in az.ess(numbers).data_vars.values())
    gradients = sum(
        float(read_group(idata, group)["n_steps"].sum()) for group in ("sample_stats", "warmup_sample_stats")
    )
    return {
        "ess": ess,
        "ess_per_1000_gradients": 1000 * ess / gradients,
        "ess_per_second": ess / posterior.attrs["sampling_time"],
        "gradients_per_draw": float(read_group(idata, "sample_stats")["n_steps"].mean()),
        "divergences": int(read_group(idata, "sample_stats")["diverging"].sum()),
    }


def main() -> None:
    """Sample in all ways, and print medians over seeds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=STUDIES)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--tune", type=int, default=500)
    arguments = parser.parse_args()
    logging.getLogger("pymc").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    settings = {"draws": DRAWS, "chains": CHAINS, "cores": CHAINS, "progressbar": False}
    settings["discard_tuned_samples"] = False
    for name in [arguments.model] if arguments.model else STUDIES:
        rows = []
        for seed in range(arguments.seeds):
            model, data = simulate(name, seed)
            fit = em.fit(model, data, progressbar=False)
            ways = {
                "plain": lambda model=model, data=data: model.hierarchical(data),
                "cold": fit.hierarchical_model,
            }
            for way, build in ways.items():
                with build():
                    idata = pm.sample(**settings, random_seed=seed, nuts_sampler="pymc")
                rows.append({"way": way, "seed": seed, **measure(idata)})
            idata = fit.sample(**settings, random_seed=seed, tune=arguments.tune, log_likelihood=False)
            rows.append({"way": "warm", "seed": seed, **measure(idata)})
        table = pd.DataFrame(rows).set_index(["way", "seed"])
        print(f"\n{name}: medians over {arguments.seeds} studies (divergences: sum)")
        medians = table.groupby("way").median()
        medians["divergences"] = table["divergences"].groupby("way").sum()
        print(medians.round(2).to_string())
        for way in ("plain", "cold"):
            ratio = table.loc["warm"] / table.loc[way]
            columns = ["ess_per_1000_gradients", "ess_per_second"]
            text = ", ".join(
                f"{c} {ratio[c].median():.2f} ({ratio[c].min():.2f} to {ratio[c].max():.2f})" for c in columns
            )
            print(f"warm / {way}: {text}", flush=True)


if __name__ == "__main__":
    main()
