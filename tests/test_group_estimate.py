"""The group as its user sees it: labels, intervals on both scales, tests, predictions."""

import numpy as np
import pandas as pd
import pymc as pm
import pytest
from scipy import stats

import em_ppl as em


@em.subject_model(alpha=em.Unit(), level=em.Real(), sigma=em.Positive(shared=True))
def mixed(alpha, level, sigma, n, k, y):
    pm.Binomial("k", n, alpha, observed=k)
    pm.Normal("y", level, sigma, observed=y)


@pytest.fixture(scope="module")
def data():
    """80 people of 20 to 80 years, two kinds; alpha falls with age, level differs by kind."""
    generator, n = np.random.default_rng(7), 80
    people = pd.DataFrame({"id": [f"s{i}" for i in range(n)], "age": generator.uniform(20, 80, n)})
    people["kind"] = np.where(np.arange(n) % 2, "patient", "control")
    x = 1.0 - 0.03 * (people["age"] - 50) + 0.8 * generator.normal(size=n)
    level = np.where(people["kind"] == "patient", 1.0, 0.0) + 0.7 * generator.normal(size=n)
    rows = [
        pd.DataFrame({"id": f"s{i}", "n": 30, "k": generator.binomial(30, 1 / (1 + np.exp(-x[i])), 4),
                      "y": level[i] + 0.5 * generator.normal(size=4)})
        for i in range(n)
    ]  # fmt: skip
    return em.from_dataframe(pd.concat(rows), "id", people=people)


@pytest.fixture(scope="module")
def fit(data):
    return em.fit(
        mixed,
        data,
        covariates={"alpha": "~ age", "level": "~ kind"},
        covariance="full",
        covariance_by="kind",
        progressbar=False,
    )


def test_everything_is_labelled(fit):
    group = fit.group
    assert list(group.mean["parameter"].values) == ["alpha", "level"]
    assert list(group.shared["shared_parameter"].values) == ["sigma"]
    assert group.sd.dims == ("kind", "parameter")
    assert group.covariance.dims == group.correlation.dims == ("kind", "parameter", "parameter_2")
    assert list(group.sd["kind"].values) == ["control", "patient"]
    coefficients = ["alpha: Intercept", "alpha: age", "level: Intercept", "level: kind[T.patient]"]
    assert list(group.coefficients["coefficient"].values) == coefficients
    assert list(group.free["free"].values) == [
        *(f"mean[{label}]" for label in coefficients),
        *(
            f"{k}[{p}, {c}]"
            for c in ("control", "patient")
            for k, p in (("log_sd", "alpha"), ("log_cholesky", "level"))
        ),
        *(f"cholesky[level, alpha, {c}]" for c in ("control", "patient")),
        "shared[sigma]",
    ]


def test_the_mean_is_that_of_the_people_at_hand(fit, data):
    b = fit.group.coefficients
    expected = b.sel(coefficient="alpha: Intercept") + b.sel(coefficient="alpha: age") * data["age"].mean()
    np.testing.assert_allclose(fit.group.mean.sel(parameter="alpha"), expected)
    # a linear function of the coefficients: its standard error from their covariance
    x = fit.group.design.matrix().mean(0)
    expected = np.sqrt(np.diag(x @ fit.group.coefficients_covariance.values @ x.T))
    np.testing.assert_allclose(fit.group.mean_se, expected, rtol=1e-6)


def test_the_coefficient_table_is_walds(fit):
    table, group = fit.group.coefficient_table(probability=0.9), fit.group
    se = np.sqrt(np.diag(group.coefficients_covariance))
    np.testing.assert_allclose(table["se"], se)
    np.testing.assert_allclose(table["z"], group.coefficients / se)
    np.testing.assert_allclose(table["p"], stats.chi2.sf((group.coefficients / se) ** 2, 1), rtol=1e-6)
    np.testing.assert_allclose(table["high"] - table["low"], 2 * 1.6448536 * se)
    assert table["p"]["alpha: age"] < 1e-4
    assert "alpha: age" in repr(fit)


def test_one_coefficients_joint_test_is_its_z_test_and_terms_stand_for_their_coefficients(fit):
    table, one = fit.group.coefficient_table(), fit.group.wald_test("alpha: age")
    assert one.chi2 == pytest.approx(table["z"]["alpha: age"] ** 2)
    assert one.p == pytest.approx(table["p"]["alpha: age"])
    assert fit.group.wald_test("age") == one
    two = fit.group.wald_test("age", "kind")
    assert two.coefficients == ("alpha: age", "level: kind[T.patient]")
    assert two.df == 2
    places = [1, 3]
    b = fit.group.coefficients.values[places]
    covariance = fit.group.coefficients_covariance.values[np.ix_(places, places)]
    assert two.chi2 == pytest.approx(b @ np.linalg.inv(covariance) @ b)
    assert two.p == pytest.approx(stats.chi2.sf(two.chi2, 2))
    assert repr(one).startswith("Wald test of alpha: age: chi2(1) = ")
    with pytest.raises(ValueError, match="'sex' is no coefficient and no term; coefficients: alpha: Intercept"):
        fit.group.wald_test("sex")
    with pytest.raises(ValueError, match="name a coefficient or a term"):
        fit.group.wald_test()


def test_intervals_are_on_both_scales(fit):
    table, group = fit.group.intervals(probability=0.8), fit.group
    z = stats.norm.ppf(0.9)
    mean, se = (a.sel(parameter="alpha").item() for a in (group.mean, group.mean_se))
    row = table.loc["mean[alpha]"]
    np.testing.assert_allclose(row[["low", "high"]], [mean - z * se, mean + z * se])
    np.testing.assert_allclose(row[["natural", "natural_low", "natural_high"]],
                               1 / (1 + np.exp(-np.array([mean, mean - z * se, mean + z * se]))))  # fmt: skip
    p = row["natural"]
    np.testing.assert_allclose(row["natural_se"], p * (1 - p) * se, rtol=1e-4)
    shared = table.loc["shared[sigma]"]
    np.testing.assert_allclose(shared["natural_high"], np.exp(group.shared.item() + z * group.shared_se.item()))
    sd, sd_se = (a.sel(parameter="level", kind="patient").item() for a in (group.sd, group.sd_se))
    row = table.loc["sd[level, patient]"]
    np.testing.assert_allclose(
        np.log(row[["low", "high"]].astype(float)), np.log(sd) + z * sd_se / sd * np.array([-1, 1])
    )
    np.testing.assert_allclose(row["natural"], sd)  # identity link
    row = table.loc["correlation[alpha, level, control]"]
    r = group.correlation.sel(kind="control", parameter="alpha", parameter_2="level").item()
    r_se = group.correlation_se.sel(kind="control", parameter="alpha", parameter_2="level").item()
    np.testing.assert_allclose(row["estimate"], r)
    np.testing.assert_allclose(row["se"], r_se, rtol=1e-5)
    np.testing.assert_allclose(np.arctanh(row[["low", "high"]].astype(float)),
                               np.arctanh(r) + z * r_se / (1 - r**2) * np.array([-1, 1]), rtol=1e-5)  # fmt: skip
    with pytest.raises(ValueError, match="probability=95 must lie between 0 and 1"):
        group.intervals(probability=95)


def test_the_sd_in_natural_space_is_that_of_many_people(fit):
    mean = fit.group.mean.sel(parameter="alpha").item()
    sd = fit.group.sd.sel(parameter="alpha", kind="control").item()
    people = 1 / (1 + np.exp(-np.random.default_rng(0).normal(mean, sd, 1_000_000)))
    natural = fit.group.intervals().loc["sd[alpha, control]", "natural"]
    np.testing.assert_allclose(natural, people.std(), rtol=0.005)


def test_predictions_are_the_regressions(fit):
    new = pd.DataFrame({"age": [30.0, 70.0], "kind": ["control", "patient"]}, index=["young", "old"])
    table, b = fit.group.predict(new, probability=0.8), fit.group.coefficients.values
    assert list(table.index) == [(p, k) for p in ("young", "old") for k in ("alpha", "level")]
    mean = b[0] + 70 * b[1]
    row = table.loc[("old", "alpha")]
    np.testing.assert_allclose(row["mean"], mean)
    np.testing.assert_allclose(row["median"], 1 / (1 + np.exp(-mean)))
    x = np.array([1.0, 70.0])
    variance = x @ fit.group.coefficients_covariance.values[:2, :2] @ x
    np.testing.assert_allclose(row["mean_se"] ** 2, variance)
    sd = fit.group.sd.sel(parameter="alpha", kind="patient").item()
    np.testing.assert_allclose(row["sd"], sd)
    half = stats.norm.ppf(0.9) * np.sqrt(sd**2 + variance)
    np.testing.assert_allclose(row[["low", "high"]], 1 / (1 + np.exp(-(mean + half * np.array([-1, 1])))))


def test_a_summary_has_shared_parameters_and_classes(fit):
    table = fit.summary()
    assert list(table.index) == ["alpha", "level", "sigma"]
    assert {"sd control", "sd patient", "known control", "known patient"} <= set(table.columns)
    assert np.isnan(table.loc["sigma", "sd control"])
    np.testing.assert_allclose(table.loc["sigma", "median"], np.exp(fit.group.shared.item()))
    assert "NaN" not in repr(fit)
    assert fit._repr_html_().count("<table") == 2
    assert fit.group._repr_html_().count("<table") == 1


def test_heavy_tails_have_a_scale(data):
    fit = em.fit(mixed, data, distribution=em.StudentT(5), estimator="corrected", progressbar=False)
    assert "scale" in fit.summary().columns
    assert "StudentT(df=5)" in repr(fit)
    assert np.isnan(fit.group.intervals().loc["sd[alpha]", "natural"])
    assert set(fit.subjects["weight"].dims) == {"subject", "parameter"}
