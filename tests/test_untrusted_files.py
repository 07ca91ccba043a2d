"""Files that are damaged, or made to harm: a clear error, never a wrong number, and no code is run."""

import json
import os

import h5py
import numpy as np
import pymc as pm
import pytest

import em_ppl as em
from em_ppl.formulas import variables


@em.subject_model(level=em.Real())
def level_of(level, y):
    pm.Normal("y", level, 1.0, observed=y)


@pytest.fixture(scope="module")
def fit():
    rng = np.random.default_rng(0)
    data = em.from_subjects([{"y": row} for row in rng.normal(rng.normal(size=(12, 1)), 1.0, (12, 4))])
    age = rng.integers(20, 60, 12)
    return em.fit(level_of, data.assign(age=("subject", age)), covariates="~ center(age)", progressbar=False)


@pytest.fixture
def path(fit, tmp_path):
    return fit.save(tmp_path / "fit.nc")


def loads_as_it_was_or_is_refused(fit, path):
    try:
        loaded = em.load(path, model=level_of)
    except OSError as error:
        assert "cannot be read as netCDF" in str(error)  # noqa: PT017
        return False
    except ValueError as error:
        assert str(path) in str(error)  # noqa: PT017
        return False
    assert loaded.subjects.identical(fit.subjects)
    assert loaded.group.free.identical(fit.group.free)
    return True


def test_a_truncated_file_is_refused(fit, path):
    whole = path.read_bytes()
    for length in np.random.default_rng(0).integers(0, len(whole), 50):
        path.write_bytes(whole[:length])
        assert not loads_as_it_was_or_is_refused(fit, path)


@pytest.mark.long
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # h5netcdf's, of files it gave up
def test_a_file_with_wrong_bytes_is_refused_or_read_rightly(fit, path):
    whole, rng = path.read_bytes(), np.random.default_rng(0)
    for _ in range(40):
        damaged = bytearray(whole)
        for place in rng.integers(0, len(whole), rng.integers(1, 20)):
            damaged[place] = rng.integers(256)
        path.write_bytes(bytes(damaged))
        loads_as_it_was_or_is_refused(fit, path)


def rewrite(path, change):
    with h5py.File(path, "r+") as file:
        ours = json.loads(file.attrs["em_ppl"])
        change(ours)
        file.attrs["em_ppl"] = json.dumps(ours)


@pytest.mark.parametrize("name", ["format", "parameters", "settings", "columns", "structure", "distribution"])
@pytest.mark.parametrize("value", [None, 99, "x"])
def test_an_attribute_that_is_missing_or_another_is_an_error(path, name, value):
    rewrite(path, lambda ours: ours.pop(name) if value is None else ours.update({name: value}))
    with pytest.raises(ValueError, match=r"fit\.nc (holds|was written)"):
        em.load(path)


@pytest.mark.parametrize("name", ["group_coefficients", "group_covariances", "group_unit", "information"])
def test_sizes_must_fit_one_another(path, name):
    with h5py.File(path, "r+") as file:
        old = file["fit"][name]
        wrong = np.zeros(tuple(n + 1 for n in old.shape))
        del file["fit"][name]
        file["fit"][name] = wrong
    with pytest.raises((ValueError, OSError), match=r"fit\.nc (holds a fit that is damaged|cannot be read)"):
        em.load(path)


HARM = "__import__('os').mkdir('harm')"


@pytest.mark.parametrize(
    "formula",
    [
        f"~ {{{HARM}}}",
        f"~ center({HARM})",
        f"{{{HARM}}} ~ 1",
        f"~ 1 | {{{HARM}}}",
        "~ {age.__class__.__mro__}",
        "~ {[harm for harm in age]}",
        "~ np.load(age)",
        "~ {np.add.reduce(age)}",
        "~ {I(age)(age)}",
        "~ {age[0]}",
        "~ {(lambda: age)()}",
    ],
)
def test_a_formula_in_a_file_runs_no_code(path, formula, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rewrite(path, lambda ours: ours.update(formulas={"level": formula}))
    with pytest.raises(ValueError, match=r"does more than compute|has several parts"):
        em.load(path)
    assert not os.path.exists("harm")


@pytest.mark.parametrize(
    ("formula", "reads"),
    [
        ("~ np.log(age) + C(group, contr.treatment('a')) + `my age`", {"age", "group", "my age"}),
        ("~ {(age - 40) / 10}:group + age**2 + I(age > 30)", {"age", "group"}),
        ("~ poly(age, degree=2) + bs(age, df=4) - 1", {"age"}),
    ],
)
def test_formulas_that_compute_are_read(formula, reads):
    assert variables(formula, ["age", "group", "my age", "other"]) == reads
