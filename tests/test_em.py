"""The numbers: lme4's published fits, fixed points by their definition, and what must not change a fit."""

import warnings
from dataclasses import replace
from functools import partial

import grammar
import numpy as np
import pymc as pm
import pytensor
import pytensor.tensor as pt
import pytest
from helpers import laplace_at, normal_group, simulated_learners
from pytensor.compile.mode import Mode
from scipy import optimize, special, stats

import em_ppl as em
from em_ppl.compiled import CompiledModel
from em_ppl.cores import at_most
from em_ppl.design import make_design, make_group_model
from em_ppl.distributions import Normal
from em_ppl.e_step import Posteriors, Scheme, e_step
from em_ppl.em import PATIENCE, choose_hard, distance, iterate, starting_state, step
from em_ppl.models.rescorla_wagner import rescorla_wagner
from em_ppl.modes import Start, approximate
from em_ppl.progress import Progress
from em_ppl.start import starting_point

# --- lme4 -----------------------------------------------------------------------------------------------------------


@em.subject_model(intercept=em.Real(), slope=em.Real())
def reaction_line(intercept, slope, Days, Reaction):
    pm.Normal("Reaction", intercept + slope * Days, 25.5918, observed=Reaction)


@em.subject_model(intercept=em.Real(), slope=em.Real(), sigma=em.Positive(start=20.0, shared=True))
def reaction_line_and_noise(intercept, slope, sigma, Days, Reaction):
    pm.Normal("Reaction", intercept + slope * Days, sigma, observed=Reaction)


@em.subject_model(intercept=em.Real(), **{f"period{k}": em.Real(shared=True) for k in (2, 3, 4)})
def incidence_by_period(intercept, period2, period3, period4, period, size, incidence):
    change = sum(pt.eq(period, k) * effect for k, effect in ((2, period2), (3, period3), (4, period4)))
    pm.Binomial("incidence", size, logit_p=intercept + change, observed=incidence)


@em.subject_model(intercept=em.Real())
def incidence_rate(intercept, size, incidence):
    pm.Binomial("incidence", size, logit_p=intercept, observed=incidence)


@em.subject_model(intercept=em.Real())
def yes_rate(intercept, r2):
    pm.Bernoulli("r2", logit_p=intercept, observed=r2)


@pytest.mark.parametrize("estimator", ["laplace", "corrected"])
def test_sleepstudy_is_lme4s_maximum_likelihood_fit(lme4, estimator):
    # lme4: Reaction ~ Days + (Days | Subject), REML = FALSE, residual SD 25.5918 (fixed here)
    frame = lme4("sleepstudy")[["Subject", "Days", "Reaction"]]
    data = em.from_dataframe(frame, subject="Subject")
    fit = em.fit(reaction_line, data, estimator=estimator, covariance="full", progressbar=False)
    assert fit.converged
    np.testing.assert_allclose(fit.group.mean, [251.4051, 10.46729], rtol=5e-5)
    np.testing.assert_allclose(fit.group.sd, [23.7806, 5.7168], rtol=5e-5)
    np.testing.assert_allclose(fit.group.correlation[0, 1], 0.0813, atol=5e-5)
    np.testing.assert_allclose(fit.log_evidence, -875.9697, atol=1e-4)
    np.testing.assert_allclose(fit.group.mean_se, [6.632, 1.502], rtol=5e-4)


@pytest.mark.parametrize("estimator", ["laplace", "corrected", "exact"])
def test_sleepstudy_with_a_shared_residual_sd_is_lme4s_maximum_likelihood_fit(lme4, estimator):
    # lme4: Reaction ~ Days + (Days | Subject), REML = FALSE; the residual SD is estimated with the rest
    data = em.from_dataframe(lme4("sleepstudy")[["Subject", "Days", "Reaction"]], subject="Subject")
    fit = em.fit(reaction_line_and_noise, data, estimator=estimator, covariance="full", tol=1e-6, progressbar=False)
    assert fit.converged
    np.testing.assert_allclose(fit.group.mean, [251.4051, 10.46729], rtol=5e-5)
    np.testing.assert_allclose(fit.group.sd, [23.7806, 5.7168], rtol=5e-5)
    np.testing.assert_allclose(fit.group.correlation[0, 1], 0.0813, atol=5e-5)
    np.testing.assert_allclose(np.exp(fit.group.shared), [25.5918], rtol=5e-5)
    np.testing.assert_allclose(fit.log_evidence, -875.9697, atol=1e-4)
    np.testing.assert_allclose(fit.group.mean_se, [6.632, 1.502], rtol=5e-4)


@pytest.mark.parametrize("estimator", ["corrected", "exact"])
def test_sleepstudy_without_correlation_is_lme4s_double_bar_fit(lme4, estimator):
    # Reaction ~ Days + (Days || Subject) by maximum likelihood: the documentation of MixedModels.jl has its digits
    data = em.from_dataframe(lme4("sleepstudy")[["Subject", "Days", "Reaction"]], subject="Subject")
    fit = em.fit(reaction_line_and_noise, data, estimator=estimator, tol=1e-6, progressbar=False)
    np.testing.assert_allclose(fit.group.mean, [251.405, 10.4673], rtol=5e-5)
    np.testing.assert_allclose(fit.group.sd, [24.17145, 5.79938], rtol=5e-5)
    np.testing.assert_allclose(np.exp(fit.group.shared), [25.55613], rtol=5e-5)
    np.testing.assert_allclose(fit.log_evidence, -876.00163, atol=1e-4)
    np.testing.assert_allclose(fit.group.mean_se, [6.70771, 1.51931], rtol=5e-4)


CBPP = {  # lme4: cbind(incidence, size - incidence) ~ period + (1 | herd), binomial; Laplace, and nAGQ = 25
    "corrected": ([-1.39853, -0.99233, -1.12867, -1.58031], 0.64226),
    "exact": ([-1.39923, -0.99140, -1.12782, -1.57947], 0.64752),
}


@pytest.mark.parametrize("estimator", CBPP)
def test_cbpp_by_period_is_lme4s_fit(lme4, estimator):
    data = em.from_dataframe(lme4("cbpp")[["herd", "period", "size", "incidence"]], subject="herd")
    fit = em.fit(incidence_by_period, data, estimator=estimator, tol=1e-6, progressbar=False)
    fixed, sd = CBPP[estimator]
    np.testing.assert_allclose([fit.group.mean.item(), *fit.group.shared.values], fixed, atol=1.5e-5)
    np.testing.assert_allclose(fit.group.sd, [sd], atol=1e-5)
    if estimator == "corrected":  # what lme4 prints of the Laplace fit
        np.testing.assert_allclose(fit.log_evidence, -92.02628, atol=1e-5)
        se = [fit.group.mean_se.item(), *fit.group.shared_se.values]
        np.testing.assert_allclose(se, [0.23247, 0.30664, 0.32664, 0.42744], rtol=1e-4)


def test_cbpp_is_lme4s_quadrature_fit(lme4):
    # cbind(incidence, size - incidence) ~ 1 + (1 | herd), nAGQ = 25
    data = em.from_dataframe(lme4("cbpp")[["herd", "size", "incidence"]], subject="herd")
    for estimator in ("exact", em.Quadrature(25), em.ImportanceSampling(2048)):
        fit = em.fit(incidence_rate, data, estimator=estimator, tol=1e-6, progressbar=False)
        np.testing.assert_allclose([fit.group.mean.item(), fit.group.sd.item()], [-2.04650, 0.81839], atol=1e-5)


# the classic estimator has no likelihood to compare with: its fixed point is not its maximum
@pytest.mark.parametrize(
    ("estimator", "mean", "sd", "log_likelihood"),
    [("corrected", -2.04616, 0.81200, -104.83131), ("laplace", -1.9881, 0.7895, None)],
)
def test_cbpp_is_lme4s_laplace_fit(lme4, estimator, mean, sd, log_likelihood):
    # lme4: cbind(incidence, size - incidence) ~ 1 + (1 | herd), binomial
    data = em.from_dataframe(lme4("cbpp")[["herd", "size", "incidence"]], subject="herd")
    fit = em.fit(incidence_rate, data, estimator=estimator, progressbar=False)
    np.testing.assert_allclose([fit.group.mean[0], fit.group.sd[0]], [mean, sd], rtol=3e-5)
    if log_likelihood is not None:
        np.testing.assert_allclose(fit.log_evidence, log_likelihood, atol=1e-5)


def test_verbagg_is_lme4s_laplace_fit(lme4):
    # lme4: r2 ~ 1 + (1 | id), binomial: -0.11519, 1.0852, -4755.274. Its SD is where its optimiser stopped: the
    # Laplace likelihood still rises by 4e-6 from there to ours, 1.08504, which the second half of this test shows.
    frame = lme4("VerbAgg")[["id", "r2"]]
    data = em.from_dataframe(frame.assign(r2=(frame["r2"] == "Y").astype(int)), subject="id")
    fit = em.fit(yes_rate, data, tol=1e-7, progressbar=False)
    np.testing.assert_allclose(fit.group.mean, [-0.11519], atol=1e-5)
    np.testing.assert_allclose(fit.group.sd, [1.0852], atol=2e-4)
    np.testing.assert_allclose(fit.log_evidence, -4755.274, atol=5e-4)
    ours, theirs = (laplace_evidence(fit, [-0.11519], [sd]) for sd in (fit.group.sd.values[0], 1.0852))
    assert ours > theirs


def laplace_evidence(fit, mean, sd):
    """The Laplace log marginal likelihood under another group, every mode found again from the group's mean."""
    compiled = fit.model.compile(fit.data)
    group = normal_group(compiled.shape[0], mean, np.diag(np.asarray(sd, dtype=float) ** 2))
    curvature = np.tile(group.precision[0], (compiled.shape[0], 1, 1))
    posteriors = e_step(compiled, group, Start(group.location, curvature), Scheme("laplace", em.Quadrature(), 0))
    assert posteriors.laplace.converged.all()
    return posteriors.log_evidence.sum()


def test_an_sd_that_goes_to_0_leaves_the_likelihood_of_a_parameter_that_all_share():
    """y_ij ~ N(x_i, sigma), x_i ~ N(m, s^2): the marginal likelihood in closed form, its maximum by SciPy."""

    @em.subject_model(level=em.Real(), sigma=em.Positive())
    def level_and_noise(level, sigma, y):
        pm.Normal("y", level, sigma, observed=y)

    # by chance, these people's SDs differ less than they would were sigma one for all
    y = [np.random.default_rng(i).normal(i, 1.0, 4 + i) for i in range(5)]

    def negative(vector):
        m, log_s, log_sigma = vector
        covariances = [np.exp(2 * log_s) + np.exp(2 * log_sigma) * np.eye(len(own)) for own in y]
        return -sum(
            stats.multivariate_normal(np.full(len(own), m), c).logpdf(own)
            for own, c in zip(y, covariances, strict=True)
        )

    expected = optimize.minimize(negative, [2.0, 0.0, 0.0], tol=1e-10)
    with pytest.warns(em.ConvergenceWarning, match="the group SD of 'sigma' has gone to 0"):
        fit = em.fit(level_and_noise, em.from_subjects([{"y": own} for own in y]), progressbar=False)
    assert fit.converged
    assert fit.iterations < 100  # EM's plain steps shrink with the SD: thousands would not do
    np.testing.assert_allclose(fit.log_evidence, -expected.fun, atol=1e-4)
    m, log_s, log_sigma = expected.x
    np.testing.assert_allclose(fit.group.mean, [m, log_sigma], atol=2e-4)
    np.testing.assert_allclose(fit.group.sd[0], np.exp(log_s), rtol=2e-4)
    assert fit.group.sd[1] < 0.01


# --- fixed points, by their definition ------------------------------------------------------------------------------


def scores_in_standard_errors(fit):
    """Gradient of the Laplace log marginal likelihood in (mean, log SD), times each one's standard error."""
    at = np.concatenate([fit.group.mean, np.log(fit.group.sd)])
    half = len(at) // 2

    def evidence(vector):
        return laplace_evidence(fit, vector[:half], np.exp(vector[half:]))

    step = 1e-3
    slopes = [(evidence(at + d) - evidence(at - d)) / (2 * step) for d in step * np.eye(len(at))]
    return np.array(slopes) * np.sqrt(np.diag(fit.group.free_covariance))


def test_corrected_maximises_the_laplace_likelihood_and_classic_does_not(learner_fits):
    assert np.abs(scores_in_standard_errors(learner_fits["corrected"])).max() < 1e-3
    assert np.abs(scores_in_standard_errors(learner_fits["laplace"])).max() > 0.1


# --- exact EM: brute force ------------------------------------------------------------------------------------------


class Lattice:
    """The likelihood of every learner on one lattice in Gaussian space; sums over it are the marginal likelihood.

    The trapezoidal rule is exact but for 1e-4 of a posterior as narrow as 0.15: a plain loop over trials, no PyTensor.
    """

    alpha, beta = np.arange(-8.0, 8.01, 0.2), np.arange(-4.0, 5.01, 0.12)

    def __init__(self, data):
        choices, rewards = data["choice"].values, data["reward"].values
        log_likelihood = np.array([self._one(c, r) for c, r in zip(choices, rewards, strict=True)])
        self.top = log_likelihood.max((1, 2))
        self.likelihood = np.exp(log_likelihood - self.top[:, None, None])
        self.cell = np.log(0.2 * 0.12)

    def _one(self, choice, reward):
        q, rate = np.zeros((2, len(self.alpha))), special.expit(self.alpha)
        behind = np.empty((len(choice), len(self.alpha)))
        for t, (c, r) in enumerate(zip(choice, reward, strict=True)):
            behind[t] = q[1 - c] - q[c]
            q[c] += rate * (r - q[c])
        return -np.log1p(np.exp(behind[:, :, None] * np.exp(self.beta))).sum(0)  # at most exp(exp(5)): no overflow

    def log_evidence(self, vector):
        """Of means and log SDs."""
        alpha, beta = (
            stats.norm(vector[k], np.exp(vector[k + 2])).pdf(x) for k, x in enumerate((self.alpha, self.beta))
        )
        sums = np.einsum("nab,a,b->n", self.likelihood, alpha, beta, optimize=True)
        return (np.log(sums) + self.top + self.cell).sum()

    def maximum(self):
        return optimize.minimize(lambda v: -self.log_evidence(v), [0.0, 1.0, 0.0, -0.7], tol=1e-9).x


LONG = pytest.mark.long


@pytest.mark.parametrize("n_subjects", [20, pytest.param(100, marks=LONG), pytest.param(500, marks=LONG)])
def test_exact_em_maximises_the_marginal_likelihood_to_three_digits(n_subjects):
    data = simulated_learners(n_subjects, n_trials=200, random_seed=n_subjects)
    expected = Lattice(data).maximum()
    fit = em.fit(rescorla_wagner, data, estimator="exact", progressbar=False)
    np.testing.assert_allclose(fit.group.mean, expected[:2], atol=5e-4)
    np.testing.assert_allclose(fit.group.sd, np.exp(expected[2:]), rtol=1e-3)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "exact maximum likelihood", em.ConvergenceWarning)  # with 500 it is 1 SE away
        corrected = em.fit(rescorla_wagner, data, tol=1e-6, progressbar=False)
    assert np.abs(scores_in_standard_errors(corrected)).max() < 1e-3


def test_importance_sampling_comes_to_the_same_group():
    data = simulated_learners(100, n_trials=200, random_seed=100)
    quadrature, sampling = (
        em.fit(rescorla_wagner, data, estimator=estimator, progressbar=False)
        for estimator in ("exact", em.ImportanceSampling())
    )
    se = np.sqrt(np.diag(quadrature.group.free_covariance))
    np.testing.assert_allclose((sampling.group.free - quadrature.group.free) / se, 0.0, atol=0.02)
    np.testing.assert_allclose(np.sqrt(np.diag(sampling.group.free_covariance)), se, rtol=0.02)
    assert sampling.settings["estimator"] == "exact"


# --- other groups ---------------------------------------------------------------------------------------------------


def test_an_outlier_drags_a_normal_group_and_not_a_heavy_tailed_one(make_successes):
    without = make_successes(50, 60, mean=0.5, sd=0.4, seed=9)
    outliers = make_successes(50, 60, mean=0.5, sd=0.4, seed=9, outliers=(-5.0, -5.0, -5.0))
    plain = em.fit(without.model, without.data, progressbar=False)
    for distribution in (em.Normal(), em.StudentT(3), em.Cauchy(), em.Laplace()):
        estimator = "exact" if distribution in (em.Cauchy(), em.Laplace()) else "corrected"
        fit = em.fit(without.model, outliers.data, estimator=estimator, distribution=distribution, progressbar=False)
        moved = abs(fit.group.mean.item() - plain.group.mean.item()) / plain.group.sd.item()
        if not distribution.heavy_tails:
            assert moved > 0.5
            continue
        assert moved < 0.35
        weight = fit.subjects["weight"].values[:, 0]
        assert weight[:3].max() < 0.5 * np.median(weight[3:])


@pytest.mark.parametrize(
    ("distribution", "standard"),
    [
        (em.StudentT(4.0), stats.t(4.0).logpdf),
        (em.Laplace(), lambda z: -np.sqrt(z**2 + 0.01) - np.log(2 * 0.1 * special.k1(0.1))),
    ],
)
def test_exact_em_with_heavy_tails_maximises_the_marginal_likelihood(make_successes, distribution, standard):
    study = make_successes(60, 8, outliers=(6.0, -5.0), seed=2)
    expected, log_evidence, covariance = study.maximum(standard)
    settings = {"estimator": em.ImportanceSampling(4096), "distribution": distribution, "progressbar": False}
    fit = em.fit(study.model, study.data, **settings)
    np.testing.assert_allclose((fit.group.free - expected) / np.sqrt(np.diag(covariance)), 0.0, atol=0.02)
    np.testing.assert_allclose(fit.log_evidence, log_evidence, atol=0.02)


def test_a_prior_keeps_the_sd_of_few_subjects_from_0(make_successes):
    """Six subjects who by chance do not differ: without a prior, an SD of 0; with it, the penalised maximum."""
    study = make_successes(6, 10, sd=0.2, seed=2)
    with pytest.warns(em.ConvergenceWarning, match="the group SD of 'level' has gone to 0"):
        em.fit(study.model, study.data, estimator="exact", progressbar=False)
    prior = em.GroupPrior(mean_spread=2.0)
    fit = em.fit(study.model, study.data, estimator="exact", prior=prior, tol=1e-7, progressbar=False)

    def penalised(v):
        evidence = study.log_evidence(lambda x: stats.norm.logpdf((x - v[0]) / np.exp(v[1])) - v[1]).sum()
        return -(evidence - 0.5 * (v[0] / (2.0 * 1.5)) ** 2 + v[1])

    expected = optimize.minimize(penalised, [0.0, -1.0], method="Nelder-Mead", options={"xatol": 1e-7, "fatol": 1e-11})
    np.testing.assert_allclose(fit.group.free, expected.x, atol=1e-4)
    assert np.isfinite(fit.group.sd_se).all()


@pytest.mark.parametrize("estimator", ["corrected", "exact", "laplace"])
def test_an_sd_that_goes_to_0_gets_there_whatever_the_estimator(make_successes, estimator):
    alike = make_successes(40, 20, sd=1e-6, seed=3)
    with pytest.warns(em.ConvergenceWarning, match="the group SD of 'level' has gone to 0"):
        fit = em.fit(alike.model, alike.data, estimator=estimator, progressbar=False)
    assert fit.converged
    p = alike.k.sum() / (40 * 20)
    np.testing.assert_allclose(fit.group.mean, [special.logit(p)], atol=1e-4)
    np.testing.assert_allclose(fit.log_evidence, stats.binom.logpmf(alike.k, 20, p).sum(), atol=1e-4)


@pytest.mark.long
def test_hundreds_of_small_studies_converge(make_successes):
    """20 subjects with 5 trials: an SD near 0, skewed posteriors, extrapolation that goes too far."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", em.ConvergenceWarning)
        for seed in range(150):
            study = make_successes(20, 5, sd=0.6, seed=1000 + 2 * seed)
            assert em.fit(study.model, study.data, progressbar=False).converged


def silence(people, label):
    """Take all responses of one of them away."""
    people[label]["y"] = np.full(len(people[label]["y"]), np.nan)
    return em.from_subjects(people)


def assert_maximum(fit):
    """Laplace's likelihood is lower an eighth of a standard error away, and no higher where an SD is even nearer to 0.

    A fit that is a thousandth of a standard error from the maximum passes.
    """
    mean, sd = fit.group.mean.values, fit.group.sd.values
    top = laplace_evidence(fit, mean, sd)
    se = np.sqrt(np.diag(fit.group.free_covariance))
    for k, far in enumerate(np.where(np.isfinite(se), se, 1.0) / 8):
        for side in (-far, far):
            away = np.concatenate([mean, np.log(sd)])
            away[k] += side
            assert laplace_evidence(fit, away[: len(mean)], np.exp(away[len(mean) :])) < top + 1e-7


@pytest.mark.filterwarnings("ignore::em_ppl.ConvergenceWarning")  # an SD goes to 0, subjects are integrated
def test_an_sd_of_which_trials_resolve_little_is_found_whatever_the_order():
    """Trials resolve a hundredth of k's variance, less than nothing of some subjects', and the SD of a goes to 0."""
    random = grammar.make(77)
    lengths, gaps = [44, 39, 48, 40, 23, 26, 25, 24, 24, 37, 28, 44], [0.3] * 8 + [0.0] * 4
    data = em.from_subjects(random.draw(lengths, gaps, 374))
    shuffled = data.isel(subject=[5, 11, 3, 9, 6, 4, 7, 10, 2, 0, 8, 1])
    fits = [em.fit(random.model, own, tol=1e-6, progressbar=False) for own in (data, shuffled)]
    for fit in fits:
        assert fit.converged
        assert fit.iterations < 50
        assert_maximum(fit)
    np.testing.assert_allclose(*(fit.group.mean for fit in fits), atol=1e-4)
    np.testing.assert_allclose(*(fit.group.sd[0] for fit in fits), rtol=1e-4)


def test_the_order_of_subjects_changes_neither_their_draws_nor_where_em_begins(make_successes):
    """100 people, of whom 64 say where it begins; few draws, so that others would be seen, as those of another seed."""
    study, order = make_successes(100, 8), np.random.default_rng(0).permutation(100)

    def fit(data, seed=0):
        few = em.ImportanceSampling(draws=32)
        return em.fit(study.model, data, estimator=few, tol=1e-7, random_seed=seed, progressbar=False)

    one, other, reseeded = fit(study.data), fit(study.data.isel(subject=order)), fit(study.data, seed=1)
    se = one.group.mean_se
    assert abs((reseeded.group.mean - one.group.mean) / se).max() > 1e-3
    np.testing.assert_allclose((other.group.mean - one.group.mean) / se, 0, atol=1e-6)
    start = [starting_point(study.model.compile(data)) for data in (study.data, study.data.isel(subject=order))]
    np.testing.assert_allclose(*start, rtol=1e-12)


def test_newtons_steps_find_an_sd_around_which_em_goes_to_and_fro():
    """Slopes differ by a tenth, of which 8 trials say next to nothing: EM's own steps alone go round 100 times."""
    generator = np.random.default_rng(0)
    x, levels = generator.normal(size=(30, 8)), generator.normal([[0.0, 0.0]], [[3.0, 0.1]], (30, 2))
    y = levels[:, :1] + levels[:, 1:] * x + generator.normal(0, 0.7, (30, 8))

    @em.subject_model(intercept=em.Real(), slope=em.Real())
    def line(intercept, slope, x, y):
        pm.Normal("y", intercept + slope * x, 0.7, observed=y)

    def negative(vector):
        designs = [np.column_stack([np.ones(8), own]) for own in x]
        covariances = [d * np.exp(2 * vector[2:]) @ d.T + 0.49 * np.eye(8) for d in designs]
        return -sum(
            stats.multivariate_normal(d @ vector[:2], c).logpdf(own)
            for d, c, own in zip(designs, covariances, y, strict=True)
        )

    data = em.from_subjects([{"x": a, "y": b} for a, b in zip(x, y, strict=True)])
    fit = em.fit(line, data, progressbar=False)
    assert fit.converged
    assert fit.iterations < 35
    expected = optimize.minimize(negative, [0.0, 0.0, 1.0, -2.0], tol=1e-10)
    np.testing.assert_allclose(fit.log_evidence, -expected.fun, atol=1e-6)
    np.testing.assert_allclose(fit.group.mean, expected.x[:2], atol=1e-4)
    np.testing.assert_allclose(fit.group.sd, np.exp(expected.x[2:]), rtol=1e-3)


@pytest.mark.filterwarnings("ignore::em_ppl.ConvergenceWarning")
def test_subjects_of_whom_trials_say_very_different_amounts_do_not_lengthen_steps_too_far():
    random = grammar.make(5)
    lengths = [35, 41, 42, 37, 44, 50, 22, 30, 24, 30, 30, 44]
    gaps = [0.3, 0.3, 0.3, 0.0, 0.3, 0.0, 0.0, 0.3, 0.0, 0.0, 0.3, 0.0]
    data = silence(random.draw(lengths, gaps, 413), "p0")
    fit = em.fit(random.model, data, progressbar=False)
    assert fit.converged
    assert fit.iterations < 100
    assert_maximum(fit)


@pytest.mark.filterwarnings("ignore::em_ppl.ConvergenceWarning")
def test_means_do_not_stop_short_when_sds_have_gone_to_0():
    """What is left to find is the maximum of the pooled likelihood, here PyMC's, by SciPy."""
    random = grammar.make(7)
    people = random.draw([46, 36, 21, 42, 50, 50, 34, 29], [0.3, 0.3, 0.0, 0.3, 0.3, 0.0, 0.3, 0.0], 201)
    fit = em.fit(random.model, silence(people, "p0"), progressbar=False)
    assert fit.converged

    def negative(x):
        return -sum(random.log_likelihood(x, columns) for columns in people.values())

    pooled = optimize.minimize(negative, [-1.0, 0.5], method="Nelder-Mead", options={"xatol": 1e-5, "fatol": 1e-9}).x
    np.testing.assert_allclose((fit.group.mean - pooled) / fit.group.mean_se, 0, atol=1e-3)


@pytest.mark.parametrize(
    ("n", "n_hard", "n_integrated"), [(20, 0, 0), (20, 1, 20), (21, 1, 1), (50, 10, 10), (50, 11, 50)]
)
def test_everyone_is_integrated_in_a_small_study_or_if_more_than_a_fifth_must_be(n, n_hard, n_integrated):
    """As docs/method.md says."""
    hard = np.arange(n) < n_hard
    laplace = replace(laplace_at(np.zeros((n, 1)), np.ones((n, 1, 1))), repaired=hard, shortened=hard)
    subjects = Posteriors(laplace, *[np.empty(0)] * 4)
    group, scheme = normal_group(n, [0.0], [[1.0]]), Scheme("corrected", em.Quadrature(), 0)
    for near in (False, True):
        assert len(choose_hard(group, subjects, scheme, near=near).hard) == n_integrated


def test_who_was_hard_on_the_way_only_is_let_off_near_the_end_once():
    group, scheme = normal_group(30, [0.0], [[1.0]]), Scheme("corrected", em.Quadrature(), 0)

    def choose(scheme, *, near, now):
        hard = np.isin(np.arange(30), now)
        laplace = replace(laplace_at(np.zeros((30, 1)), np.ones((30, 1, 1))), repaired=hard)
        return choose_hard(group, Posteriors(laplace, *[np.empty(0)] * 4), scheme, near=near)

    scheme = choose(choose(scheme, near=False, now=[3]), near=False, now=[5])
    assert scheme.hard.tolist() == [3, 5]
    scheme = choose(scheme, near=True, now=[5])
    assert scheme.hard.tolist() == [5]
    for near in (False, True):
        assert choose(scheme, near=near, now=[7]).hard.tolist() == [5, 7]


def test_subjects_whose_posterior_is_no_hill_are_integrated_and_named():
    """30 learners x 60 trials: expansions around the mode of one of them would keep EM from its end."""
    data = simulated_learners(30, n_trials=60, random_seed=14)
    with pytest.warns(em.ConvergenceWarning, match=r"the posterior of subjects? .* was integrated, not expanded"):
        fit = em.fit(rescorla_wagner, data, progressbar=False)
    assert fit.converged
    hard = np.flatnonzero(fit.subjects["integrated"])
    assert 0 < len(hard) < 4
    exact = em.fit(rescorla_wagner, data, estimator="exact", progressbar=False)
    se = exact.group.free_covariance.values.diagonal() ** 0.5
    np.testing.assert_allclose((fit.group.free - exact.group.free) / se, 0.0, atol=1.0)


def numpy_log_likelihood(x, choice, reward):
    alpha, beta = special.expit(x[0]), np.exp(x[1])
    q, total = np.zeros(2), 0.0
    for c, r in zip(choice, reward, strict=True):
        total += beta * q[c] - np.logaddexp(beta * q[0], beta * q[1])
        q[c] += alpha * (r - q[c])
    return total


def test_a_parameter_that_says_nothing_does_no_harm():
    """Lapses, of people who do not lapse, and where they would fall: EM's longer steps run away with these two.

    A lapse rate of 0 is part of the model, so that its evidence is not below that of the model without.
    """

    def probability(slope, bias, x):
        return pm.math.sigmoid(slope * (x - bias))

    @em.subject_model(lapse=em.Unit(), guess=em.Unit(), slope=em.Positive(start=2.0), bias=em.Real(spread=1.0))
    def lapsing(lapse, guess, slope, bias, x, y):
        pm.Bernoulli("y", p=lapse * guess + (1 - lapse) * probability(slope, bias, x), observed=y)

    @em.subject_model(slope=em.Positive(start=2.0), bias=em.Real(spread=1.0))
    def awake(slope, bias, x, y):
        pm.Bernoulli("y", p=probability(slope, bias, x), observed=y)

    generator = np.random.default_rng(1)
    slope, bias = np.exp(generator.normal(1, 0.5, (24, 1))), generator.normal(0, 0.5, (24, 1))
    x = generator.uniform(-2, 2, (24, 60))
    y = (generator.random((24, 60)) < special.expit(slope * (x - bias))).astype(int)
    data = em.from_subjects([{"x": a, "y": b} for a, b in zip(x, y, strict=True)])
    with pytest.warns(em.ConvergenceWarning):
        fit = em.fit(lapsing, data, max_iter=60, progressbar=False)
    simple = em.fit(awake, data, progressbar=False)
    assert fit.log_evidence > simple.log_evidence - 1.0
    for name in ("slope", "bias"):
        away = fit.group.mean.sel(parameter=name) - simple.group.mean.sel(parameter=name)
        assert abs(away) < 2 * simple.group.mean_se.sel(parameter=name)


def test_classic_fixed_point_is_huys_m_step(learner_fits, learners):
    # modes and variances found again by SciPy from a likelihood in plain NumPy
    fit = learner_fits["laplace"]
    mean, sd = fit.group.mean.values, fit.group.sd.values
    modes, variances = [], []
    for subject in range(learners.sizes["subject"]):
        choice, reward = (learners[name].values[subject] for name in ("choice", "reward"))

        def negative(z, choice=choice, reward=reward):
            return 0.5 * z @ z - numpy_log_likelihood(mean + sd * z, choice, reward)

        start = (fit.subjects["mode"].values[subject] - mean) / sd
        z = optimize.minimize(negative, start, method="Nelder-Mead", options={"xatol": 1e-6, "fatol": 1e-11}).x
        hessian = np.array([[second_difference(negative, z, i, j) for j in range(2)] for i in range(2)])
        modes.append(mean + sd * z)
        variances.append(sd**2 * np.diag(np.linalg.inv(hessian)))
    np.testing.assert_allclose(np.mean(modes, axis=0), mean, atol=1e-4)
    np.testing.assert_allclose(np.sqrt(np.var(modes, axis=0) + np.mean(variances, axis=0)), sd, rtol=1e-4)
    np.testing.assert_allclose(fit.subjects["mode"], modes, atol=1e-4)


def second_difference(f, z, i, j, h=1e-3):
    a, b = h * np.eye(2)[i], h * np.eye(2)[j]
    return (f(z + a + b) - f(z + a - b) - f(z - a + b) + f(z - a - b)) / (4 * h * h)


def test_every_subject_ends_at_a_mode(learner_fits):
    for fit in learner_fits.values():
        compiled = fit.model.compile(fit.data)
        gradient = compiled.log_posterior_gradient(fit.subjects["mode"], fit.group.mean, fit.group.covariance)
        assert np.abs(gradient).max() < 1e-6
        np.testing.assert_allclose(fit.subjects["slope"], gradient, atol=1e-8)


@pytest.mark.usefixtures("interpreted")
def test_laplace_covariance_is_the_inverse_autodiff_hessian(learners):
    # 8 subjects x 25 trials, the loop over trials written out: PyTensor 2.38's second derivative of a Scan is wrong
    data = learners.isel(subject=slice(8), trial=slice(25)).drop_vars("n_trials")
    group = normal_group(8, [0.2, 1.0], np.diag([1.0, 0.25]))
    curvature = np.tile(np.eye(2), (8, 1, 1))
    found = approximate(rescorla_wagner.compile(data), group, Start(group.location, curvature))

    x = pt.dmatrix("x")
    alpha, beta = pt.sigmoid(x[:, 0]), pt.exp(x[:, 1])
    q, total = [pt.zeros(8), pt.zeros(8)], 0.0
    for c, r in zip(data["choice"].values.T, data["reward"].values.T, strict=True):
        total += beta * pt.switch(c == 0, *q) - pt.logaddexp(beta * q[0], beta * q[1])
        q = [pt.switch(c == arm, value + alpha * (r - value), value) for arm, value in enumerate(q)]
    gradient = pytensor.grad(total.sum(), x)
    rows = [pytensor.grad(gradient[:, k].sum(), x) for k in range(2)]
    hessian = -np.stack(pytensor.function([x], rows, mode=Mode("py", optimizer=None))(found.mode), axis=1)
    expected = np.linalg.inv(hessian + group.precision[0])
    np.testing.assert_allclose(found.covariance, expected, rtol=1e-5)


def test_log_evidence_has_all_constants():
    # y ~ Normal(x, 1), x ~ Normal(m, s^2): marginally y ~ Normal(m, 1 + s^2), exactly
    @em.subject_model(level=em.Real())
    def level_model(level, y):
        pm.Normal("y", level, 1.0, observed=y)

    y = np.random.default_rng(3).normal(2.0, 3.0, 30)
    fit = em.fit(level_model, em.from_subjects([{"y": [value]} for value in y]), tol=1e-9, progressbar=False)
    np.testing.assert_allclose(fit.group.mean, [y.mean()], rtol=1e-7)
    np.testing.assert_allclose(fit.group.sd**2, [y.var() - 1], rtol=1e-6)
    marginal = -0.5 * np.log(2 * np.pi * y.var()) - 0.5 * (y - y.mean()) ** 2 / y.var()
    np.testing.assert_allclose(fit.subjects["log_evidence"], marginal, rtol=1e-6)


# --- what must not change a fit -------------------------------------------------------------------------------------


def bits(state):
    laplace = state.subjects.laplace
    return [state.group.coefficients, state.group.covariances, laplace.mode, laplace.covariance]


def beginning(compiled, estimator="corrected"):
    design = make_design(compiled.data, list(compiled.model.parameters), None, None)
    kind = {"structure": "diagonal", "distribution": Normal(), "prior": None}
    make_model = partial(make_group_model, design, compiled.model.parameters, **kind)
    return starting_state(compiled, Scheme(estimator, em.Quadrature(), 0), make_model)


def go_on(compiled, state, max_iter=100):
    return iterate(compiled, state, tol=1e-5, max_iter=max_iter, progress=Progress(show=False))


def run(compiled):
    return go_on(compiled, beginning(compiled)).found


def test_same_data_and_seed_give_the_same_bits_whatever_the_cores(learners):
    compiled = rescorla_wagner.compile(learners)
    first = bits(run(compiled))
    for cores in (1, 2, 7):
        with at_most(cores):
            for a, b in zip(first, bits(run(compiled)), strict=True):
                np.testing.assert_array_equal(a, b)


def test_unequal_numbers_of_trials_give_the_same_bits_whatever_the_cores_and_the_others(learners):
    lengths = np.random.default_rng(2).integers(30, learners.sizes["trial"] + 1, learners.sizes["subject"])
    compiled = rescorla_wagner.compile(learners.assign_coords(n_trials=("subject", lengths)))
    x = np.random.default_rng(3).normal(size=compiled.shape)
    value, gradient = compiled.value_and_gradient(x)
    for cores in (1, 7):
        with at_most(cores):
            np.testing.assert_array_equal(compiled.value_and_gradient(x)[0], value)
            np.testing.assert_array_equal(compiled.value_and_gradient(x)[1], gradient)
            some = np.array([5, 3, 40])
            np.testing.assert_array_equal(compiled.value_and_gradient(x[some], some)[1], gradient[some])


def test_order_of_subjects_does_not_matter(learners, learner_fits):
    order = np.random.default_rng(0).permutation(learners.sizes["subject"])
    fit = em.fit(rescorla_wagner, learners.isel(subject=order), tol=1e-6, progressbar=False)
    straight = learner_fits["corrected"]
    np.testing.assert_allclose(fit.group.mean, straight.group.mean, atol=1e-5)
    aligned = fit.subjects["mode"].sel(subject=straight.subjects["subject"])
    np.testing.assert_allclose(aligned, straight.subjects["mode"], atol=1e-4)


def test_padding_does_not_matter(learners, learner_fits):
    padded = learners.pad(trial=(0, 13), constant_values=0)
    padded = padded.assign_coords(n_trials=("subject", np.full(learners.sizes["subject"], learners.sizes["trial"])))
    fit = em.fit(rescorla_wagner, padded.astype(learners.dtypes), tol=1e-6, progressbar=False)
    np.testing.assert_array_equal(fit.subjects["mode"], learner_fits["corrected"].subjects["mode"])


def test_two_modes_are_searched_from_several_starts():
    # |x| is known well, its sign from the last trial only: from the group's mean both modes are as near
    @em.subject_model(x=em.Real(spread=2.0))
    def square(x, y, hint):
        pm.Normal("y", x**2, 0.5, observed=y)
        pm.Potential("sign", hint.sum() * x / 4)

    truth = np.where(np.arange(40) % 2, 1.5, -1.5)
    data = em.from_subjects([{"y": np.full(5, t**2), "hint": np.full(5, np.sign(t))} for t in truth])
    fit = em.fit(square, data, progressbar=False)
    np.testing.assert_array_equal(np.sign(fit.subjects["mode"].values[:, 0]), np.sign(truth))


def test_a_step_of_em_looks_at_each_subject_about_once(monkeypatch):
    """A look is 2 P + 1 evaluations of the likelihood and its gradient; the classic estimator takes no Newton steps."""
    compiled = rescorla_wagner.compile(simulated_learners(60, n_trials=100, random_seed=1))
    state = beginning(compiled, "laplace")
    looks, plain = [], CompiledModel.value_and_gradient

    def counting(self, x, index=None):
        looks.append(len(x) / (60 * 5))
        return plain(self, x, index)

    monkeypatch.setattr(CompiledModel, "value_and_gradient", counting)

    def no_search(_, group, near, *__):
        return near.mode, *np.zeros((2, len(near.mode)), dtype=bool)

    monkeypatch.setattr("em_ppl.em.search_widely", no_search)
    done = go_on(compiled, state)
    assert done.status == "converged"
    assert sum(looks) < 1.5 * len(done.change)


def test_em_that_does_not_end_looks_for_better_modes_on_its_way(monkeypatch, learners):
    compiled, searched = rescorla_wagner.compile(learners), []

    def search(_, group, near, *__):
        searched.append(group)
        n = len(near.mode)
        return near.mode, np.arange(n) == 0, np.zeros(n, dtype=bool)

    monkeypatch.setattr("em_ppl.em.search_widely", search)
    monkeypatch.setattr("em_ppl.em.distance", lambda *_: 1.0)
    state = beginning(compiled)
    at_29, at_30 = (go_on(compiled, state, max_iter=n) for n in (29, 30))
    assert len(searched) == 1
    assert at_30.wide_searches == at_29.wide_searches - 1
    np.testing.assert_array_equal(at_30.group.to_vector(), searched[0].to_vector())  # with these modes from there


@pytest.mark.parametrize(("n_more", "goes_on"), [(2, True), (3, False)])
def test_few_more_that_are_integrated_do_not_hold_em_up(monkeypatch, n_more, goes_on):
    compiled = rescorla_wagner.compile(simulated_learners(200, n_trials=30, random_seed=2))
    state = go_on(compiled, beginning(compiled), max_iter=PATIENCE)

    def choose(group, subjects, scheme, *, near):
        rest = np.setdiff1d(np.arange(200), scheme.hard)
        return scheme.laid(group, np.union1d(scheme.hard, rest[:n_more]))

    monkeypatch.setattr("em_ppl.em.choose_hard", choose)
    after = step(compiled, replace(state, plain=None), 1e-12)
    assert len(after.scheme.hard) == len(state.scheme.hard) + n_more
    assert (not np.array_equal(after.group.to_vector(), state.group.to_vector())) is goes_on
    assert after.plain is None


@pytest.mark.parametrize(
    ("mean", "sd", "r", "expected"),
    [
        (0.2, [2.0, 3.0], 0.5, 0.1),  # in SDs
        (0.0, [2.2, 3.0], 0.5, np.log(1.1)),
        (0.0, [2.0, 3.0], 0.503, 0.003 / (1 - 0.5**2)),
        (0.2, [2.0, 3.0], 0.515, 0.1),  # the largest of all
    ],
)
def test_distance_between_groups_is_in_sds_logs_and_correlations(mean, sd, r, expected):
    def group(mean, sd, r):
        return normal_group(10, [mean, 0.0], np.outer(sd, sd) * [[1.0, r], [r, 1.0]], "full")

    assert distance(group(0.0, [2.0, 3.0], 0.5), group(mean, sd, r)) == pytest.approx(expected, rel=1e-9)


def test_at_its_bound_a_correlation_has_hardly_any_way_to_go():
    groups = [normal_group(10, [0.0, 0.0], [[1.0, r], [r, 1.0]], "full") for r in (0.999, 0.9999)]
    assert distance(*groups) == pytest.approx(0.0009 / 0.05, rel=1e-9)
