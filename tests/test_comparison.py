"""The table of several fits: each column against what it is made of; who is matched, and who is refused."""

import warnings
from dataclasses import replace

import arviz as az
import numpy as np
import pandas as pd
import pymc as pm
import pytest
import xarray as xr
from scipy import optimize

import em_ppl as em
from em_ppl.comparison import stacking_weights


@em.subject_model(level=em.Real())
def constant(level, time, y):
    pm.Normal("y", level, 1.0, observed=y)


@em.subject_model(level=em.Real(), slope=em.Real())
def rising(level, slope, time, y):
    pm.Normal("y", level + slope * time, 1.0, observed=y)


@em.subject_model(level=em.Real())
def other_response(level, time, z):
    pm.Normal("z", level + 0 * time, 1.0, observed=z)


def lines(slope, n=25, n_trials=10, seed=0):
    """Straight lines of people who differ in level and slope, with noise of SD 1; the last two lack trials."""
    rng, time = np.random.default_rng(seed), np.linspace(-1, 1, n_trials)
    people = {}
    for i, (a, b) in enumerate(rng.normal([1.0, slope], [1.0, 0.5], (n, 2))):
        y = a + b * time + rng.normal(size=n_trials)
        people[f"s{i:02d}"] = {"time": time[: n_trials - (i > n - 3)], "y": y[: n_trials - (i > n - 3)]}
    return em.from_subjects(people)


@pytest.fixture(scope="module")
def data():
    return lines(1.0)


@pytest.fixture(scope="module")
def fits(data):
    return {model.name: em.fit(model, data, progressbar=False) for model in (constant, rising)}


@pytest.fixture(scope="module")
def comparison(fits):
    return em.compare(fits, loso=True, progressbar=False)


def test_columns_are_those_of_the_evidence(fits, comparison):
    table = comparison.table
    assert list(table.index) == ["rising", "constant"]
    assert list(table["rank"]) == [0, 1]
    for name, fit in fits.items():
        for column in ("log_evidence", "error", "laplace", "iaic", "ibic", "ibic_subjects", "n_free"):
            assert table.loc[name, column] == getattr(fit.evidence, column)
        left_out = fit.leave_one_subject_out(progressbar=False)["log_density"]
        np.testing.assert_allclose(comparison.subjects["loso"].sel(model=name), left_out)
        assert table.loc[name, "loso"] == pytest.approx(left_out.sum().item())
    assert not table["warning"].any()
    assert comparison.advice == ()


def test_evidence_in_closed_form(fits, comparison):
    """With Normal noise and a Normal group, each subject's data are Normal: mean X m, covariance X S X' + I."""
    fit, data = fits["rising"], fits["rising"].data
    mean, sd = fit.group.mean.values, fit.group.sd.values
    for label in ("s00", "s24"):
        own = data.sel(subject=label).dropna("trial")
        x = np.column_stack([np.ones(own.sizes["trial"]), own["time"]])
        covariance = x @ np.diag(sd**2) @ x.T + np.eye(len(x))
        away = own["y"].values - x @ mean
        exact = -0.5 * (away @ np.linalg.solve(covariance, away) + np.linalg.slogdet(2 * np.pi * covariance)[1])
        error = comparison.subjects["error"].sel(subject=label, model="rising").item()
        assert comparison.evidence.loc[label, "rising"] == pytest.approx(exact, abs=4 * error)
        assert fit.evidence.subjects["laplace"].sel(subject=label).item() == pytest.approx(exact, abs=1e-6)


def test_difference_error_and_weight(comparison):
    table, evidence = comparison.table, comparison.evidence
    beyond = -2 * (evidence["constant"] - evidence["rising"])
    assert table.loc["constant", "diff"] == pytest.approx(table.loc["constant", "ibic"] - table.loc["rising", "ibic"])
    assert table.loc["constant", "dse"] == pytest.approx(np.sqrt(25) * beyond.std(ddof=1))
    assert table.loc["rising", ["diff", "dse"]].tolist() == [0, 0]
    odds = np.exp(-table.loc["constant", "diff"] / 2)
    assert table["weight"].tolist() == pytest.approx([1 / (1 + odds), odds / (1 + odds)])


def test_sorted_by_what_was_asked_for(fits, comparison):
    by_loso = em.compare(fits, by="loso", progressbar=False)
    density = by_loso.subjects["loso"].to_pandas()
    assert by_loso.table.loc["constant", "diff"] == pytest.approx((density["rising"] - density["constant"]).sum())
    np.testing.assert_allclose(by_loso.frequencies.counts, em.model_frequencies(density).counts)
    np.testing.assert_allclose(comparison.frequencies.counts, em.model_frequencies(comparison.evidence).counts)
    assert "best first by loso" in repr(by_loso)


@pytest.mark.filterwarnings("ignore:.*Pareto k-hat of PSIS-LOO:em_ppl.em.ConvergenceWarning")
@pytest.mark.filterwarnings("ignore:Estimated shape parameter:UserWarning")  # ArviZ's own
def test_leaving_responses_out_is_arviz(fits):
    comparison = em.compare(fits, by="loo", progressbar=False)
    for name, fit in fits.items():
        loo = az.loo(fit.to_inference_data(progressbar=False), pointwise=True)
        assert comparison.table.loc[name, "loo"] == pytest.approx(getattr(loo, "elpd", None) or loo.elpd_loo)
    assert comparison.subjects["loo"].sel(subject="s24").notnull().all()
    assert comparison.table["weight"].sum() == pytest.approx(1)


def test_stacking_maximises_the_mixture():
    log_density = np.random.default_rng(0).normal([0.0, 0.4, -0.5], 1.0, (60, 3))

    def negative(v):
        w = np.exp(v - np.logaddexp.reduce(v))
        return -np.log(np.exp(log_density) @ w).sum()

    best = optimize.minimize(negative, np.zeros(3), tol=1e-10).x
    np.testing.assert_allclose(stacking_weights(log_density), np.exp(best - np.logaddexp.reduce(best)), atol=1e-4)


def test_subjects_are_matched_by_label(data, fits):
    turned = data.isel(subject=np.random.default_rng(1).permutation(25))
    mixed = {"constant": fits["constant"], "rising": em.fit(rising, turned, progressbar=False)}
    found, expected = (em.compare(f, progressbar=False) for f in (mixed, fits))
    assert list(found.evidence.index) == list(expected.evidence.index)
    np.testing.assert_allclose(found.evidence, expected.evidence, atol=0.01)  # the Sobol points are others
    np.testing.assert_allclose(found.table["dse"], expected.table["dse"], atol=0.02)


@pytest.mark.filterwarnings("ignore::em_ppl.em.ConvergenceWarning")  # an SD of slopes is 0
def test_the_smaller_model_wins_where_it_is_true():
    rng = np.random.default_rng(7)
    people = [{"time": np.linspace(-1, 1, 10), "y": a + rng.normal(size=10)} for a in rng.normal(1.0, 1.0, 25)]
    fits = {m.name: em.fit(m, em.from_subjects(people), progressbar=False) for m in (constant, rising)}
    comparison = em.compare(fits, by="loso", progressbar=False)
    assert comparison.table.index[0] == "constant"
    assert comparison.table["ibic"].idxmin() == "constant"


def _changed(data, label, trial, value):
    other = data.copy(deep=True)
    other["y"][{"subject": list(data["subject"].values).index(label), "trial": trial}] = value
    return other


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.isel(subject=slice(1, None)), "subject 's00' is in constant only"),
        (lambda d: _changed(d, "s03", 2, 9.0), "'y' of subject 's03' differs"),
        (lambda d: _changed(d, "s05", 4, np.nan), "'y' of subject 's05' is missing in one of them only"),
    ],
)
def test_other_data_are_refused(data, fits, change, message):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", em.ConvergenceWarning)
        other = em.fit(rising, change(data), progressbar=False)
    with pytest.raises(ValueError, match=message):
        em.compare({"constant": fits["constant"], "rising": other}, progressbar=False)


def test_other_responses_are_refused(data, fits):
    other = em.fit(other_response, data.rename(y="z"), progressbar=False)
    with pytest.raises(ValueError, match="constant observes y, but z observes z"):
        em.compare({"constant": fits["constant"], "z": other}, progressbar=False)


@em.subject_model(level=em.Real())
def potential(level, y):
    pm.Potential("p", -0.5 * (y - level) ** 2)


def test_likelihoods_that_observe_nothing_must_read_the_same(data):
    complete = data.isel(subject=slice(20))
    fits = {}
    for name, shifted in (("one", complete), ("two", complete.assign(y=complete["y"] + 1))):
        fits[name] = em.fit(potential, shifted, progressbar=False)
    with pytest.raises(ValueError, match="'y' of subject 's00' differs"):
        em.compare(fits, progressbar=False)


def test_padding_is_no_difference(data, fits):
    """A data set that has lost its longest subjects' last trials elsewhere is padded to another width."""
    wider = data.pad(trial=(0, 2))
    if "trial" in data.coords:
        wider = wider.assign_coords(trial=np.arange(data.sizes["trial"] + 2))
    other = em.fit(rising, wider, progressbar=False)
    table = em.compare({"constant": fits["constant"], "rising": other}, progressbar=False).table
    assert list(table.index) == ["rising", "constant"]


def test_nonsense_is_refused(fits, tmp_path):
    with pytest.raises(ValueError, match="two fits or more; it has 1"):
        em.compare({"rising": fits["rising"]})
    with pytest.raises(TypeError, match="takes a mapping of names to fits"):
        em.compare(list(fits.values()))
    with pytest.raises(TypeError, match="x is no fit"):
        em.compare(fits | {"x": 3})
    with pytest.raises(ValueError, match="by='bic' is not one of 'ibic'"):
        em.compare(fits, by="bic")
    loaded = em.load(fits["rising"].save(tmp_path / "fit.nc"))
    with pytest.raises(ValueError, match="other was loaded without its model"):
        em.compare({"rising": fits["rising"], "other": loaded})


def test_a_fit_in_doubt_is_named(fits):
    """Its status says so, or its evidence does."""
    lost = replace(fits["rising"], settings=fits["rising"].settings | {"status": "max_iter"})
    evidence = fits["constant"].evidence
    k_hat = xr.where(evidence.subjects["subject"] == "s07", 0.9, 0.1)
    doubtful = replace(fits["constant"])
    doubtful.__dict__["evidence"] = replace(evidence, subjects=evidence.subjects.assign(pareto_k=k_hat))
    with pytest.warns(em.ConvergenceWarning) as record:
        comparison = em.compare({"constant": doubtful, "rising": lost}, progressbar=False)
    assert len(record) == 2
    assert "constant: Pareto k-hat is above 0.7 for 1 subjects: 's07'" in comparison.advice[0]
    assert "rising: the fit did not converge" in comparison.advice[1]
    assert comparison.table["warning"].all()
    assert "! rising: the fit did not converge" in repr(comparison)
    assert "<li>rising: the fit did not converge" in comparison._repr_html_()


def test_evidence_is_a_table_of_subjects(comparison):
    assert isinstance(comparison.evidence, pd.DataFrame)
    assert comparison.evidence.shape == (25, 2)
