"""The main job on real data: ``python -m em_ppl`` fits 300 people's risky choices and writes what it found here."""

from __future__ import annotations

import importlib.util
import sys
import warnings
from pathlib import Path

import pandas as pd

import em_ppl as em
from em_ppl.models.risky_choice import risky_choice

PACKAGE, FILE = "cpm-toolbox==0.26.0", Path("datasets", "data", "risky_choices.csv")
FIT, DRAWS, FIGURE = Path("risky_choices_fit.nc"), Path("risky_choices_draws.nc"), Path("risky_choices.png")


def risky_choices() -> pd.DataFrame:
    """Read the table that cpm-toolbox ships, without importing it: first sessions of the game Scavenger."""
    spec = importlib.util.find_spec("cpm")
    folders = list(spec.submodule_search_locations or []) if spec else []
    if not folders or not (path := Path(folders[0]) / FILE).exists():
        sys.exit(f'The example reads data of {PACKAGE}, which is not installed: pip install "em-ppl[examples]"')
    frame = pd.read_csv(path).query("attempt == 1")
    names = {
        "ppt": "person",
        "safe_magnitudes": "safe",
        "risky_magnitudes": "risky",
        "risky_probability": "probability",
    }
    return frame.rename(columns=names)[["person", "choice", "safe", "risky", "probability", "ambiguity"]]


def main() -> None:
    """Fit, print, save and draw."""
    frame = risky_choices()
    people = frame["person"].nunique()
    print(f"{people} people, {len(frame)} choices between a sure amount and a gamble (BrainExplorer app, cpm-toolbox).")
    print("The model: prospect theory with ambiguity aversion, em_ppl.models.risky_choice.\n")

    data = em.from_dataframe(frame, subject="person")
    warnings.simplefilter("ignore", em.ConvergenceWarning)  # the same words stand under the table
    print(f"\n{em.fit(risky_choice, data)}\n")
    print("With so few choices a person the Laplace approximation leads astray, and the fit says so. As it advises:\n")
    fit = em.fit(risky_choice, data, estimator="exact")
    print(f"\n{fit}\n")
    print("The first people, natural space (posterior medians):")
    print(fit.subjects["natural"].to_pandas().head().round(2).to_string(), "\n")

    em.plot_subjects(fit).savefig(FIGURE, dpi=150)
    fit.save(FIT)
    fit.to_inference_data(log_likelihood=False).to_netcdf(DRAWS, engine="h5netcdf")
    print(f"{FIT}    the fit (InferenceData without draws): em.load({str(FIT)!r})")
    print(f"{DRAWS}  InferenceData with posterior draws, for ArviZ")
    print(f"{FIGURE}       every person beside the group")


if __name__ == "__main__":
    main()
