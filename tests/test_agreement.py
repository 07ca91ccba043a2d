"""Agreement of two posteriors that differ in a known way."""

import json

import numpy as np
import pytest
import xarray as xr
from scipy import stats

import em_ppl as em
from em_ppl import compat

SUBJECTS = ["ann", "bo", "cy", "di", "eve"]
PARAMETERS = ["alpha", "beta"]


def draws(*, mean=0.0, sd=1.0, group_sd=0.0, subject=0.0, subject_sd=1.0, method=None, seed=0, stuck=False, n=1000):
    """Posteriors as if sampled: standard Normal quantities, of alpha moved and stretched; no noise in the moments."""
    generator = np.random.default_rng(seed)
    grid = stats.norm.ppf((np.arange(n) + 0.5) / n)

    def normal(*shape):
        columns = [np.stack([generator.permutation(grid) for _ in range(4)]) for _ in range(int(np.prod(shape)))]
        return np.moveaxis(np.array(columns).reshape(*shape, 4, n), (-2, -1), (0, 1))

    alpha = np.array([1.0, 0.0])
    group_mean = normal(2) * np.where(alpha, sd, 1.0) + alpha * mean
    if stuck:
        group_mean += 0.5 * np.arange(4)[:, None, None]
    log_sd = 0.1 * (normal(2) + alpha * group_sd)
    gaussian = np.arange(5)[:, None] + normal(5, 2) * np.where(alpha, subject_sd, 1.0) + alpha * subject
    dims = ("chain", "draw")
    posterior = xr.Dataset(
        {
            "group_mean": ((*dims, "parameter"), group_mean),
            "group_sd": ((*dims, "parameter"), np.exp(log_sd)),
            "gaussian": ((*dims, "subject", "parameter"), gaussian),
            "lapse_gaussian": (dims, normal(1)[..., 0]),
        },
        coords={"chain": range(4), "draw": range(n), "subject": SUBJECTS, "parameter": PARAMETERS},
    )
    # what a fit says of itself: exact EM would move it, if it is not exact
    ours = {"settings": {"distance_to_exact": {"mean[alpha]": 0.0 if method == "em_exact" else 0.6}}}
    attrs = {"inference_method": method, "em_ppl": json.dumps(ours)} if method else {}
    return compat.make_inference_data({"posterior": posterior}, attrs)


def test_equal_posteriors_hold():
    found = em.agreement(draws(method="em_corrected", seed=1), draws(seed=2))
    assert found.holds
    assert list(found.group.index) == [
        "group_mean[alpha]", "group_mean[beta]", "log group_sd[alpha]", "log group_sd[beta]", "lapse_gaussian",
    ]  # fmt: skip
    assert list(found.subjects.index) == ["gaussian[alpha]", "gaussian[beta]"]
    np.testing.assert_allclose(found.group["shift"].astype(float), 0.0, atol=1e-9)
    np.testing.assert_allclose(found.group["sd_ratio"].astype(float), 1.0)
    np.testing.assert_allclose(found.subjects["rank"].astype(float), 1.0)
    assert "holds" in repr(found)
    assert "7 of 7 hold" in found._repr_html_()


@pytest.mark.parametrize(
    ("other", "row", "verdict"),
    [
        ({"mean": 0.3}, "group_mean[alpha]", 'EM is too high: use NUTS or estimator="exact"'),
        ({"mean": -0.3}, "group_mean[alpha]", 'EM is too low: use NUTS or estimator="exact"'),
        ({"mean": 0.2}, "group_mean[alpha]", "holds"),
        ({"sd": 0.7}, "group_mean[alpha]", 'EM is too sure: use NUTS or estimator="exact"'),
        ({"sd": 1.5}, "group_mean[alpha]", 'EM is too unsure: use NUTS or estimator="exact"'),
        ({"mean": 0.3, "method": "em_exact"}, "group_mean[alpha]", "EM is too high: use NUTS"),
        ({"group_sd": -0.4}, "log group_sd[alpha]", 'EM is too low: use NUTS or estimator="exact"'),
        (
            {"group_sd": -0.4, "method": "em_laplace"},
            "log group_sd[alpha]",
            'MAP shrinks too much: use NUTS or estimator="exact"',
        ),
    ],
)
def test_verdicts_on_the_group(other, row, verdict):
    em_draws = draws(**{"method": "em_corrected", "seed": 1} | other)
    found = em.agreement(em_draws, draws(seed=2)).group
    assert found.loc[row, "verdict"] == verdict
    assert (found.drop(index=row)["verdict"] == "holds").all()


def test_numbers_are_in_posterior_sds_of_nuts():
    found = em.agreement(draws(mean=1.0, sd=2.0, method="em_laplace"), draws(seed=2)).group.loc["group_mean[alpha]"]
    assert (found["shift"], found["sd_ratio"]) == pytest.approx((1.0, 2.0), rel=1e-3)
    # Wasserstein's distance of N(1, 2) from N(0, 1): the mean of |1 + z| over a standard Normal z
    assert found["distance"] == pytest.approx(stats.norm.expect(lambda z: abs(1 + z)), rel=1e-2)


def test_subjects_are_summarised():
    found = em.agreement(draws(subject=0.4, subject_sd=0.7, method="em_laplace"), draws(seed=2))
    row = found.subjects.loc["gaussian[alpha]"]
    assert row["verdict"] == 'EM is off and is too sure: use NUTS or estimator="exact"'
    assert (row["shift"], row["largest"], row["sd_ratio"]) == pytest.approx((0.4, 0.4, 0.7), rel=1e-3)
    assert row["whose"] in SUBJECTS
    np.testing.assert_allclose(found.by_subject["shift"].sel(parameter="beta"), 0.0, atol=1e-9)
    expected = stats.norm.expect(lambda z: abs(0.4 - 0.3 * z))
    np.testing.assert_allclose(found.by_subject["distance"].sel(parameter="alpha"), expected, rtol=0.02)


@pytest.mark.parametrize("bad", [{"stuck": True}, {"n": 60}])
def test_no_verdict_on_chains_that_have_not_converged(bad):
    found = em.agreement(draws(method="em_corrected"), draws(seed=2, **bad)).group
    assert found.loc["group_mean[alpha]", "verdict"].startswith("no verdict: NUTS has not converged (R-hat")
    assert not em.agreement(draws(method="em_corrected"), draws(seed=2, **bad)).holds


def test_other_models_are_refused():
    ours, theirs = draws(method="em_corrected"), draws(seed=2)
    posterior = compat.read_group(theirs, "posterior")
    for other, message in (
        (posterior.assign_coords(subject=[*"vwxyz"]), "their subjects differ"),
        (posterior.drop_vars("lapse_gaussian"), "lapse_gaussian is in one of them only"),
        (posterior.drop_vars("gaussian"), "nuts has no posterior of a hierarchical model of em_ppl"),
    ):
        with pytest.raises(ValueError, match=message):
            em.agreement(ours, compat.make_inference_data({"posterior": other}, {}))


def test_a_fit_will_do(learner_fits):
    fit = learner_fits["corrected"]
    idata = fit.to_inference_data(draws=500, chains=2, log_likelihood=False, random_seed=3)
    found = em.agreement(fit, idata)
    assert found.estimator == "corrected"
    np.testing.assert_allclose(found.group["shift"].astype(float), 0.0, atol=0.2)
