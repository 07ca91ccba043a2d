"""How often the true model wins, and how often a model wins that should not: simulated studies.

People toss a coin with a bias of their own (model ``coin``), or also repeat, or alternate, what they did before (model
``sticky``, one parameter more). ``python tests/benchmarks/model_comparison.py`` prints the rates that the README
quotes; it takes some minutes on two cores.
"""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import special, stats

import em_ppl as em
from em_ppl.studies import in_processes

sys.path.insert(0, str(Path(__file__).parents[1]))
from helpers import coin, sticky

N_SUBJECTS, N_TRIALS = 30, 60
CERTAIN = 0.95
STRONG = "HBI, b = 1"

# mean and SD of what is repeated, and how many of the subjects repeat
SCENARIOS = {
    "all coin": (0.0, 0.0, 0.0),
    "all sticky": (0.5, 0.5, 1.0),
    "half and half": (1.5, 0.3, 0.5),
    "3 in 4 sticky": (1.5, 0.3, 0.75),
    "all sticky, mean 0": (0.0, 0.5, 1.0),
}


def people(scenario: str, generator: np.random.Generator) -> Any:
    """Let everybody toss."""
    mean, sd, share = SCENARIOS[scenario]
    bias = generator.normal(0.3, 0.7, N_SUBJECTS)
    stay = np.where(np.arange(N_SUBJECTS) < share * N_SUBJECTS, generator.normal(mean, sd, N_SUBJECTS), 0.0)
    heads, last = (np.zeros((N_SUBJECTS, N_TRIALS), dtype=int) for _ in range(2))
    for t in range(N_TRIALS):
        heads[:, t] = generator.random(N_SUBJECTS) < special.expit(bias + stay * last[:, t])
        if t + 1 < N_TRIALS:
            last[:, t + 1] = 2 * heads[:, t] - 1
    return em.from_subjects([{"heads": h, "last": p} for h, p in zip(heads, last, strict=True)])


def study(item: tuple[str, Any]) -> dict[str, Any]:
    """Make one study; say how sure each method is of the larger model."""
    scenario, seed = item
    data = people(scenario, np.random.default_rng(seed))
    quiet = {"progressbar": False}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", em.ConvergenceWarning)
        fits = {model.name: em.fit(model, data, **quiet) for model in (coin, sticky)}
        comparison = em.compare(fits, loso=True, **quiet)
        mixture = em.fit_mixture([coin, sticky], data, **quiet)
        strong = em.fit_mixture([coin, sticky], data, prior=em.MixturePrior(b=1.0), **quiet)
        classes = em.fit_classes(sticky, data, (1, 2, 3), starts=4, **quiet)
    table, separate = comparison.table, comparison.frequencies
    test, q = mixture.t_test("stay"), mixture.groups["sticky"]
    plain_p = 2 * stats.t(test.df).sf(abs(test.mean) / q.standard_error[1])
    made_by = np.arange(N_SUBJECTS) < SCENARIOS[scenario][2] * N_SUBJECTS
    methods = {"BMS": separate, "HBI": mixture.frequencies, STRONG: strong.frequencies}
    return {
        "scenario": scenario,
        **{name: table[name].idxmin() == "sticky" for name in ("ibic", "ibic_subjects", "iaic")},
        "loso": table["loso"].idxmax() == "sticky",
        **{f"{name} frequency": found.frequency["sticky"] for name, found in methods.items()},
        **{f"{name} xp": found.exceedance["sticky"] for name, found in methods.items()},
        **{f"{name} pxp": found.protected_exceedance["sticky"] for name, found in methods.items()},
        **{
            f"{name} right": (found.responsibility["sticky"].gt(0.5) == made_by).mean()
            for name, found in methods.items()
        },
        "HBI SD": np.sqrt(mixture.groups["sticky"].variance[1]),
        f"{STRONG} SD": np.sqrt(strong.groups["sticky"].variance[1]),
        "t test": test.p < 0.05,
        "plain t test": plain_p < 0.05,
        "classes": int(classes.tried.idxmax()),
        "converged": mixture.converged,
    }


def summarise(found: pd.DataFrame) -> pd.DataFrame:
    """Rates per scenario: the larger model is best; a model is declared the more frequent one; others."""
    rows = {}
    for scenario in SCENARIOS:
        own = found[found["scenario"] == scenario]
        row = {f"sticky best by {name}": own[name].mean() for name in ("ibic", "ibic_subjects", "iaic", "loso")}
        for name in ("BMS", "HBI", STRONG):
            row[f"{name}: frequency of sticky"] = own[f"{name} frequency"].mean()
            row[f"{name}: subjects with their own model"] = own[f"{name} right"].mean()
            for kind in ("xp", "pxp"):
                row[f"{name}: {kind} of sticky > .95"] = (own[f"{name} {kind}"] > CERTAIN).mean()
                row[f"{name}: {kind} of coin > .95"] = (own[f"{name} {kind}"] < 1 - CERTAIN).mean()
        row["HBI: SD of stay"], row[f"{STRONG}: SD of stay"] = own["HBI SD"].mean(), own[f"{STRONG} SD"].mean()
        row["HBI: t test of stay, p < .05"] = own["t test"].mean()
        row["HBI: the same with Piray's error"] = own["plain t test"].mean()
        for k in (1, 2, 3):
            row[f"{k} class{'es' * (k > 1)}"] = (own["classes"] == k).mean()
        row["HBI converged"] = own["converged"].mean()
        rows[scenario] = row
    return pd.DataFrame(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--studies", type=int, default=200, help="of each scenario")
    parser.add_argument("--jobs", type=int, default=-1)
    parser.add_argument("--json", type=Path, help="where to write the rates")
    given = parser.parse_args()
    seeds = np.random.SeedSequence(0).spawn(given.studies * len(SCENARIOS))
    work = [(list(SCENARIOS)[k % len(SCENARIOS)], seed) for k, seed in enumerate(seeds)]
    table = summarise(pd.DataFrame(in_processes(study, work, (), given.jobs, show=True)))
    print(f"{given.studies} studies of each kind, {N_SUBJECTS} people x {N_TRIALS} tosses; rates")
    print(table.to_string(float_format="{:.3f}".format))
    if given.json:
        given.json.write_text(json.dumps(table.to_dict(), indent=1))


if __name__ == "__main__":
    main()
