"""Does EM hold against NUTS, and did the fit know? Agreement, and its forecast, over simulated studies of the zoo.

    python tests/benchmarks/agreement.py [--study NAME ...]

For every study and estimator: `em_ppl.agreement` with 4 x 1000 draws of `Fit.sample`, beside `Fit.diagnose`. At the
end, over all numbers on which NUTS gave a verdict: how far the forecast shift is from the measured one, and how often
"should hold" and "doubtful" were right.
"""

from __future__ import annotations

import argparse
import importlib
import logging
import warnings

import pandas as pd
import xarray as xr

import em_ppl as em

LEARNER = {"alpha": (0.0, 1.0), "beta": (1.0, 0.5)}
RATES = {"alpha_positive": (0.0, 0.8), "alpha_negative": (-0.5, 0.8), "beta": (1.0, 0.5)}
LOGISTIC = {"intercept": (0.0, 1.0), "slope": (1.0, 0.7)}
LINE = {"intercept": (1.0, 1.0), "slope": (0.5, 0.5), "sigma": (0.0, 0.3)}
STUDIES = {  # model, mean and SD of each parameter in Gaussian space, subjects, trials
    "rescorla_wagner 100 x 200": ("rescorla_wagner", LEARNER, 100, 200),
    "rescorla_wagner 30 x 60": ("rescorla_wagner", LEARNER, 30, 60),
    "rescorla_wagner_two_rates 40 x 150": ("rescorla_wagner_two_rates", RATES, 40, 150),
    "logistic_regression 60 x 15": ("logistic_regression", LOGISTIC, 60, 15),
    "logistic_regression 200 x 40": ("logistic_regression", LOGISTIC, 200, 40),
    "linear_regression 12 x 8": ("linear_regression", LINE, 12, 8),
}


def simulate(study: str) -> tuple[em.SubjectModel, xr.Dataset]:
    """Simulate, seed 1."""
    name, group, n_subjects, n_trials = STUDIES[study]
    module = importlib.import_module(f"em_ppl.models.{name}")
    model = getattr(module, name)
    people = em.draw_subjects(model, group, n_subjects, random_seed=1)
    return model, em.simulate(model, people, module.task(n_trials), random_seed=1, progressbar=False)


def compare(study: str) -> pd.DataFrame:
    """Sample once, and set every estimator beside it."""
    model, data = simulate(study)
    fits = {name: em.fit(model, data, estimator=name, progressbar=False) for name in ("laplace", "corrected", "exact")}
    settings = {"chains": 4, "cores": 2, "target_accept": 0.9, "log_likelihood": False, "progressbar": False}
    nuts = fits["corrected"].sample(draws=1000, **settings)
    rows = []
    for estimator, fit in fits.items():
        found, forecast = em.agreement(fit, nuts), fit.diagnose()
        measured = pd.concat([found.group, found.subjects])
        expected = pd.concat([forecast.group, forecast.subjects])
        table = measured[["shift", "sd_ratio", "r_hat", "ess", "verdict"]].assign(
            forecast_shift=expected["shift"], forecast=expected["forecast"], estimator=estimator, study=study
        )
        rows.append(table)
    return pd.concat(rows)


def judge(table: pd.DataFrame) -> None:
    """Print how good the forecasts were."""
    table = table[~table["verdict"].str.startswith("no verdict")]
    shift = table["shift"].astype(float)
    off, doubted = shift.abs() > 0.25, table["forecast"].str.startswith("doubtful")
    apart = (table["forecast_shift"] - shift).abs()
    print(
        f"\n{len(table)} numbers with a verdict; forecast and measured shift: median {apart.median():.2f} apart, ",
        end="",
    )
    print(f"90 % within {apart.quantile(0.9):.2f}, correlation {table['forecast_shift'].corr(shift):.2f}")
    print(f"off by more than 0.25 SDs: {off.sum()}, of which doubted beforehand: {(off & doubted).sum()}")
    print(f"within: {(~off).sum()}, of which 'should hold': {(~off & ~doubted).sum()}")


def main() -> None:
    """Compare, print, judge."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--study", choices=STUDIES, nargs="+", default=list(STUDIES))
    logging.getLogger("pymc").setLevel(logging.CRITICAL)
    warnings.simplefilter("ignore")
    tables = []
    for study in parser.parse_args().study:
        tables.append(compare(study))
        columns = ["estimator", "shift", "forecast_shift", "sd_ratio", "r_hat", "ess", "verdict", "forecast"]
        print(f"\n{study}\n{tables[-1][columns].to_string(float_format=lambda v: f'{v:.2f}')}", flush=True)
    judge(pd.concat(tables))


if __name__ == "__main__":
    main()
