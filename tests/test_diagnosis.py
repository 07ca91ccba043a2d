"""The forecast of what NUTS will say, against posteriors that are integrated by brute force."""

import numpy as np
import pymc as pm
import pytest
from scipy import stats

import em_ppl as em


def posterior_of(successes, means, log_sds):
    """Mean and SD of the group mean, of the log SD and of every subject, under the documented priors."""
    rows, moments = [], []
    for mean in means:
        for log_sd in log_sds:
            density = stats.norm(mean, np.exp(log_sd)).logpdf
            prior = stats.norm(0, 4.5).logpdf(mean) + stats.halfnorm(scale=1.5).logpdf(np.exp(log_sd)) + log_sd
            rows.append((mean, log_sd, prior + successes.log_evidence(density).sum()))
            moments.append(successes.posterior_moments(density))
    mean, log_sd, log_p = np.array(rows).T
    p = np.exp(log_p - log_p.max())
    p /= p.sum()
    first = np.column_stack([mean, log_sd, [m for m, _ in moments]])
    centre = p @ first
    variance = p @ (first - centre) ** 2
    variance[2:] += p @ np.array([v for _, v in moments])
    return centre, np.sqrt(variance)


@pytest.fixture(scope="module")
def posterior(few_trials):
    return posterior_of(few_trials, np.linspace(-0.8, 1.8, 31), np.linspace(-2.0, 1.2, 33))


@pytest.mark.filterwarnings("ignore::em_ppl.ConvergenceWarning")
@pytest.mark.parametrize("estimator", ["laplace", "corrected", "exact"])
def test_shifts_are_forecast(estimator, few_trials, posterior):
    fit = em.fit(few_trials.model, few_trials.data, estimator=estimator, progressbar=False)
    found = fit.diagnose()
    centre, sd = posterior
    truth = (found.group["estimate"].to_numpy() - centre[:2]) / sd[:2]
    np.testing.assert_allclose(found.group["shift"], truth, atol=0.15)
    assert found.group["sd_ratio"].iloc[1] == pytest.approx(found.group["se"].iloc[1] / sd[1], rel=0.1)
    of_subjects = (fit.subjects["posterior_mean"].values[:, 0] - centre[2:]) / sd[2:]
    assert found.subjects["shift"].iloc[0] == pytest.approx(np.sqrt((of_subjects**2).mean()), abs=0.1)
    assert list(found.group.index) == ["group_mean[level]", "log group_sd[level]"]
    for forecast, shift in zip(found.group["forecast"], found.group["shift"], strict=True):
        assert (forecast == "should hold") == (abs(shift) <= 0.25)


def test_a_prior_of_the_fit_is_not_counted_twice(few_trials, posterior):
    prior = em.GroupPrior(mean_spread=0.1, sd_shape=12.0)
    fit = em.fit(few_trials.model, few_trials.data, estimator="exact", prior=prior, progressbar=False)
    centre, sd = posterior
    found = fit.diagnose().group
    np.testing.assert_allclose(found["shift"], (found["estimate"].to_numpy() - centre[:2]) / sd[:2], atol=0.3)
    assert (found["shift"].abs() > 0.5).all()  # such priors draw the fit away, and NUTS has others


@pytest.mark.filterwarnings("ignore::em_ppl.ConvergenceWarning")
@pytest.mark.parametrize(("n", "trials", "sd", "seed"), [(8, 30, 0.4, 1), (12, 10, 0.5, 2), (10, 20, 0.3, 2)])
def test_few_subjects_whose_sd_may_be_near_0(n, trials, sd, seed, make_successes):
    """A Normal on the log has not the posterior's lower tail; the forecast knows it."""
    few = make_successes(n, trials, sd=sd, seed=seed)
    few.grid = np.linspace(-6.0, 6.0, 4001)  # fine enough for a narrow group
    found = (
        em.fit(few.model, few.data, estimator="exact", progressbar=False).diagnose().group.loc["log group_sd[level]"]
    )
    centre, wide = posterior_of(few, np.linspace(-1.0, 2.0, 25), np.linspace(-5.0, 1.2, 40))
    assert found["shift"] == pytest.approx((found["estimate"] - centre[1]) / wide[1], abs=0.15)
    assert found["sd_ratio"] == pytest.approx(found["se"] / wide[1], rel=0.1)


def test_a_prior_that_pulls_is_forecast():
    """Few people, far from where the parameter starts: the posterior of Normal observations is known."""

    @em.subject_model(level=em.Real(spread=0.5))
    def normal(level, y):
        pm.Normal("y", level, 1.0, observed=y)

    y = np.arange(12.0) / 4 + 5.0
    fit = em.fit(normal, em.from_subjects([{"y": [a, a]} for a in y]), progressbar=False)
    se, mean = float(fit.group.mean_se[0]), y.mean()
    precision = 1 / se**2 + 1 / 1.5**2
    pulled = (mean / se**2) / precision
    found = fit.diagnose().group.loc["group_mean[level]", "shift"]
    assert found == pytest.approx((mean - pulled) * np.sqrt(precision), rel=0.05)


def test_an_sd_of_0_is_doubtful():
    @em.subject_model(level=em.Real(spread=1.0))
    def normal(level, y):
        pm.Normal("y", level, 1.0, observed=y)

    y = np.tile([[-1.0, 1.0]], (6, 1)) + np.linspace(-0.01, 0.01, 6)[:, None]
    with pytest.warns(em.ConvergenceWarning, match="has gone to 0"):
        fit = em.fit(normal, em.from_subjects([{"y": row} for row in y]), progressbar=False)
    found = fit.diagnose()
    assert "an SD that has gone to 0" in found.group.loc["log group_sd[level]", "forecast"]
    assert not found.holds


@pytest.mark.long
def test_quantities_of_every_kind_of_group_are_named():
    @em.subject_model(a=em.Real(spread=1.0), b=em.Real(spread=1.0), s=em.Positive(shared=True))
    def line(a, b, s, x, y):
        pm.Normal("y", a + b * x, s, observed=y)

    generator = np.random.default_rng(2)
    x, own = generator.normal(size=(30, 9)), generator.normal([1.0, -0.5], [0.8, 0.4], (30, 2))
    y = own[:, :1] + own[:, 1:] * x + generator.normal(0.0, 0.5, x.shape)
    people = [{"x": p, "y": q, "site": "uv"[i % 2]} for i, (p, q) in enumerate(zip(x, y, strict=True))]
    fit = em.fit(
        line, em.from_subjects(people), covariance="full", covariance_by="site", covariates="~ site", progressbar=False
    )
    found = fit.diagnose()
    idata = fit.to_inference_data(draws=600, chains=4, log_likelihood=False)
    assert list(found.group.index) == list(em.agreement(fit, idata).group.index)
    # draws are of these quantities, with these errors
    agreement = em.agreement(idata, idata).group
    np.testing.assert_allclose(
        agreement["em"].astype(float), found.group["estimate"], atol=0.25 * found.group["se"].max()
    )
