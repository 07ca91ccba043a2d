"""Profile intervals: lme4's, and those of a likelihood that is known on a grid."""

import numpy as np
import pymc as pm
import pytest
from scipy import optimize, stats

import em_ppl as em


@em.subject_model(intercept=em.Real(), slope=em.Real(), sigma=em.Positive(start=20.0, shared=True))
def reaction_line(intercept, slope, sigma, Days, Reaction):
    pm.Normal("Reaction", intercept + slope * Days, sigma, observed=Reaction)


def test_sleepstudy_has_lme4s_profile_intervals(lme4):
    # lme4's README-like example: confint(lmer(Reaction ~ Days + (Days | Subject), sleepstudy)), which profiles ML
    expected = {
        "mean[intercept]": (237.6807, 265.1295),
        "mean[slope]": (7.35865, 13.57592),
        "log_sd[intercept]": (np.log(14.3815), np.log(37.7160)),
        "shared[sigma]": (np.log(22.8983), np.log(28.8580)),
    }
    data = em.from_dataframe(lme4("sleepstudy")[["Subject", "Days", "Reaction"]], subject="Subject")
    fit = em.fit(reaction_line, data, covariance="full", progressbar=False)
    for name, ends in expected.items():
        np.testing.assert_allclose(fit.profile_interval(name), ends, rtol=2e-4)


def test_exact_profiles_are_those_of_the_marginal_likelihood(few_trials):
    fit = em.fit(few_trials.model, few_trials.data, estimator="exact", tol=1e-7, progressbar=False)
    _, highest, _ = few_trials.maximum()
    drop = stats.chi2.ppf(0.9, 1) / 2

    def evidence(m, log_s):
        return few_trials.log_evidence(lambda x: stats.norm.logpdf((x - m) / np.exp(log_s)) - log_s).sum()

    def of_log_sd(log_s):
        best = optimize.minimize_scalar(lambda m: -evidence(m, log_s), bounds=(-2, 3), method="bounded")
        return highest + best.fun - drop

    low, high = fit.profile_interval("log_sd[level]", probability=0.9)
    estimate = fit.group.free.values[1]
    np.testing.assert_allclose(low, optimize.brentq(of_log_sd, estimate - 1, estimate), atol=1e-3)
    np.testing.assert_allclose(high, optimize.brentq(of_log_sd, estimate, estimate + 1), atol=1e-3)


def test_an_sd_of_0_that_is_not_rejected_has_no_lower_end(make_successes):
    alike = make_successes(40, 10, sd=0.3, seed=4)
    fit = em.fit(alike.model, alike.data, progressbar=False)
    low, high = fit.profile_interval("log_sd[level]")
    assert low == -np.inf
    assert fit.group.free.values[1] < high < 1.0


def test_what_has_no_profile_is_refused(few_trials):
    fit = em.fit(few_trials.model, few_trials.data, progressbar=False)
    with pytest.raises(ValueError, match=r"'sd\[level\]' is no number.*mean\[level\], log_sd\[level\]"):
        fit.profile_interval("sd[level]")
    with pytest.raises(ValueError, match="probability=95 must lie between 0 and 1"):
        fit.profile_interval("mean[level]", probability=95)
    classic = em.fit(few_trials.model, few_trials.data, estimator="laplace", progressbar=False)
    with pytest.raises(ValueError, match="the classic estimator maximises no likelihood"):
        classic.profile_interval("mean[level]")
    penalised = em.fit(few_trials.model, few_trials.data, prior=em.GroupPrior(), progressbar=False)
    with pytest.raises(ValueError, match="a fit with a prior"):
        penalised.profile_interval("mean[level]")
