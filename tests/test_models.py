"""The zoo: each model's likelihood is what a plain loop says, looks at nothing to come, and finds the truth again.

The loops, tasks and groups are in the folder zoo.
"""

from __future__ import annotations

import importlib
import importlib.util
import warnings
from functools import cache
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from zoo import ALL_CASES, CASES

import em_ppl as em
from em_ppl import models

every_model = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


@cache
def simulated(case_name: str) -> tuple[np.ndarray, xr.Dataset]:
    """Simulate 60 subjects, the same for all tests; `em.simulate` checks that no response looks ahead."""
    case = next(c for c in ALL_CASES if c.name == case_name)
    x = case.draw(60, seed=20)
    people = em.draw_subjects(case.model, case.group, 60, random_seed=20)
    return x, em.simulate(case.model, people, case.task, random_seed=21, progressbar=False)


def some_of_unequal_length(data: xr.Dataset) -> xr.Dataset:
    """Take five subjects, and end four of them early."""
    full = data.sizes["trial"]
    lengths = [full, full - 1, full // 2, full // 3, 9]
    return data.isel(subject=slice(5)).assign_coords(n_trials=("subject", lengths))


# ---- what must hold


def test_every_model_of_the_zoo_is_tested():
    assert sorted({*models.__all__} - {"available"}) == sorted(case.name for case in ALL_CASES)


def test_the_catalogue_lists_them_all():
    catalogue = models.available()
    assert sorted(catalogue.table.index) == sorted({*models.__all__} - {"available"})
    assert (catalogue.table != "").all(axis=None)
    assert catalogue.table["paper"]["rescorla_wagner_two_rates"] == "Frank et al. (2007)"
    assert catalogue.table["paper"]["meta_d"] == "Maniscalco & Lau (2012)"
    assert "parameters: alpha, beta; data: choice, reward" in repr(catalogue)
    assert catalogue._repr_html_().count("<tr") == len(catalogue.table) + 2  # of which two are the head


@pytest.mark.parametrize("case", ALL_CASES, ids=lambda case: case.name)
def test_declared_parameters_and_documentation(case):
    assert list(case.model.parameters) == list(case.group) == list(case.recovery)
    file = importlib.import_module(f"em_ppl.models.{case.name}")
    assert {case.name, "task"} <= set(file.__all__)
    assert "https://doi.org/" in file.__doc__
    for name in (*case.model.parameters, *case.model.columns):
        assert f"``{name}``" in file.__doc__


@every_model
def test_log_likelihood_and_gradient_are_those_of_a_plain_loop(case):
    data = some_of_unequal_length(simulated(case.name)[1])
    x = case.draw(5, seed=3)
    compiled = case.model.compile(data)
    value, gradient = compiled.value_and_gradient(x)
    assert compiled.many_at_once
    for i, n in enumerate(data.n_trials.values):
        t = {name: data[name].values[i, :n] for name in case.model.columns}
        step = 1e-30j * np.eye(x.shape[1])
        np.testing.assert_allclose(value[i], case.loop(x[i], t), rtol=1e-10)
        np.testing.assert_allclose(
            gradient[i], [case.loop(x[i] + s, t).imag / 1e-30 for s in step], rtol=1e-10, atol=1e-10
        )


@every_model
def test_a_subject_alone_is_the_same_as_among_others(case):
    data = some_of_unequal_length(simulated(case.name)[1])
    x = case.draw(5, seed=3)
    compiled = case.model.compile(data)
    value, gradient = compiled.value_and_gradient(x)
    for i, n in enumerate(data.n_trials.values):
        alone = compiled.with_data(data.isel(subject=[i], trial=slice(n))).value_and_gradient(x[[i]])
        np.testing.assert_allclose(value[[i]], alone[0], rtol=1e-10)
        np.testing.assert_allclose(gradient[[i]], alone[1], rtol=1e-10, atol=1e-12)


@every_model
def test_far_out_parameters_have_a_finite_likelihood_and_gradient(case):
    data = simulated(case.name)[1].isel(subject=slice(2))
    compiled = case.model.compile(data)
    for far in (-6.0, 6.0):
        for k in range(len(case.group)):
            x = np.tile([mean for mean, _ in case.group.values()], (2, 1))
            x[:, k] = far
            value, gradient = compiled.value_and_gradient(x)
            assert np.isfinite(value).all()
            assert np.isfinite(gradient).all()


@pytest.mark.parametrize("name", ["rescorla_wagner", "logistic_regression"])
def test_choices_that_are_all_but_sure_have_the_slope_of_their_log_odds(name):
    """Far out, the log-likelihood is the sum of the log odds of unlikely choices: doubling these doubles it."""
    case = next(c for c in ALL_CASES if c.name == name)
    compiled = case.model.compile(simulated(name)[1].isel(subject=slice(2)))
    x, further = np.tile([mean for mean, _ in case.group.values()], (2, 1)), np.zeros((2, len(case.group)))
    if name == "rescorla_wagner":
        x[:, 1], further[:, 1] = 18.0, np.log(2.0)  # exp(18): PyMC's log(softmax) is log(0) there
    else:
        x, further = 1000.0 * x, 1000.0 * x
    value, gradient = compiled.value_and_gradient(x)
    np.testing.assert_allclose(compiled.log_likelihood(x + further), 2 * value, rtol=1e-6)
    slope = value if name == "rescorla_wagner" else 2 * value  # per doubling: along log(beta), along x itself
    direction = further / (np.log(2.0) if name == "rescorla_wagner" else 1.0)
    np.testing.assert_allclose(
        (gradient * direction).sum(1), slope / (1 if name == "rescorla_wagner" else 2), rtol=1e-6
    )


@every_model
def test_no_two_parameters_can_be_exchanged(case):
    """Else a fit would not know which is which."""
    x, data = simulated(case.name)
    compiled, x = case.model.compile(data.isel(subject=slice(5))), x[:5]
    value = compiled.log_likelihood(x)
    for i, j in combinations(range(x.shape[1]), 2):
        exchanged = x.copy()
        exchanged[:, [i, j]] = x[:, [j, i]]
        assert not np.isclose(compiled.log_likelihood(exchanged), value, rtol=1e-6).any(), (i, j)


@every_model
def test_fit_finds_the_parameters_again(case):
    """60 subjects (seeds 20 and 21), tasks and groups of the folder zoo; any warning that is not named is an error."""
    x, data = simulated(case.name)
    with warnings.catch_warnings():
        if case.expected_warning:
            warnings.filterwarnings("ignore", case.expected_warning, em.ConvergenceWarning)
        fit = em.fit(case.model, data, progressbar=False)
    assert fit.converged
    found, table = fit.subjects["posterior_mean"], fit.summary()
    for k, (name, least) in enumerate(case.recovery.items()):
        assert np.corrcoef(x[:, k], found.sel(parameter=name))[0, 1] > least, name
        assert abs(table["mean"][name] - x[:, k].mean()) < 3 * table["mean_se"][name], name
        assert table["known"][name] > 0.2, name


def test_a_sure_nothing_has_a_finite_gradient():
    case = next(c for c in ALL_CASES if c.name == "risky_choice")
    data = simulated(case.name)[1].isel(subject=slice(4))
    data["safe"] = data["safe"].where(data["trial"] % 3 > 0, 0.0)
    x = case.draw(4, seed=2)
    value, gradient = case.model.compile(data).value_and_gradient(x)
    assert np.isfinite(gradient).all()
    t = {name: data[name].values[0] for name in case.model.columns}
    np.testing.assert_allclose(value[0], case.loop(x[0], t), rtol=1e-10)


def test_risky_choice_is_identified_by_real_data():
    """300 people, 40 trials each, of cpm-toolbox: every parameter resolved, and where it was when this was written."""
    spec = importlib.util.find_spec("cpm")
    if spec is None:
        pytest.skip("cpm-toolbox, whose data these are, is not installed")
    path = Path(spec.submodule_search_locations[0]) / "datasets/data/risky_choices.csv"
    columns = {"safe_magnitudes": "safe", "risky_magnitudes": "risky", "risky_probability": "probability"}
    frame = pd.read_csv(path).rename(columns=columns)[["ppt", *models.risky_choice.columns]]
    with pytest.warns(em.ConvergenceWarning, match=r"log_sd\[beta_loss\] by \+.*estimator=\"exact\""):  # 40 trials
        fit = em.fit(models.risky_choice, em.from_dataframe(frame, subject="ppt"), progressbar=False)
    table = fit.summary()
    assert fit.converged
    assert (table["known"] > 0.3).all()
    np.testing.assert_allclose(table["median"], [1.068, 0.928, 0.223, 12.13, 8.80], rtol=5e-3)
    np.testing.assert_allclose(fit.log_evidence, -6257.46, atol=0.05)
