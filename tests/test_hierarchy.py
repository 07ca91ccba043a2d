"""The hierarchical model: its density is that of the group times the subjects' own, whatever the parametrisation."""

import numpy as np
import pandas as pd
import pymc as pm
import pytensor
import pytensor.tensor as pt
import pytest
from helpers import QUICK
from pytensor.scan.utils import until
from scipy import special, stats

import em_ppl as em
from em_ppl.compat import read_group
from em_ppl.models.rescorla_wagner import rescorla_wagner

pytestmark = pytest.mark.usefixtures("interpreted")


@em.subject_model(intercept=em.Real(spread=2.0), slope=em.Real(spread=1.0))
def line(intercept, slope, x, y):
    pm.Normal("y", intercept + slope * x, 0.7, observed=y)


def people(lengths=(3, 5, 4, 5, 2, 6, 4), missing=True):
    """Unequal numbers of trials, a response missing, a covariate and two classes."""
    generator = np.random.default_rng(1)
    own = [{"x": generator.normal(size=n), "y": generator.normal(size=n)} for n in lengths]
    if missing:
        own[1]["y"][2] = np.nan
    labels = [f"s{i}" for i in range(len(own))]
    covariates = pd.DataFrame(
        {"age": generator.normal(size=len(own)), "site": ["a", "b", "a", "b", "b", "a", "a"][: len(own)]}, index=labels
    )
    return em.from_subjects(own, subjects=labels).assign(
        {name: ("subject", column.to_numpy()) for name, column in covariates.items()}
    )


@pytest.fixture(scope="module")
def data():
    return people()


def evaluate(model, variables, seed=0):
    """Evaluate variables of the model, and functions of them, at a random point of its free variables."""
    generator = np.random.default_rng(seed)
    point = {name: generator.normal(0.0, 0.4, np.shape(v)) for name, v in model.initial_point(0).items()}
    function = model.compile_fn(model.replace_rvs_by_values(variables), **QUICK)
    return point, function


GROUPS = {
    "normal": {},
    "centred": {"centred": True},
    "one centred": {"centred": ["slope"]},
    "full": {"covariance": "full"},
    "full, first centred": {"covariance": "full", "centred": ["intercept"]},
    "full, second centred": {"covariance": "full", "centred": ["slope"]},
    "covariates": {"covariates": {"intercept": "~ age + site"}},
    "a covariance a class": {"covariance_by": "site", "covariates": "~ site"},
    "a full covariance a class": {"covariance": "full", "covariance_by": "site"},
    "Student": {"distribution": em.StudentT(4.0), "centred": ["slope"]},
    "joint Student": {"distribution": em.StudentT(4.0), "covariance": "full"},
    "joint Student, centred": {"distribution": em.StudentT(4.0), "covariance": "full", "centred": True},
    "Laplace": {"distribution": em.Laplace()},
}


def log_density(kind, x, location, covariance):
    """The group's, by SciPy."""
    z = (x - location) / np.sqrt(np.diagonal(covariance, axis1=1, axis2=2))
    if "joint Student" in kind:
        return sum(
            stats.multivariate_t(m, c, df=4).logpdf(row) for row, m, c in zip(x, location, covariance, strict=True)
        )
    if kind in ("Student", "Laplace"):
        standard = stats.t(4) if kind == "Student" else stats.laplace
        return (standard.logpdf(z) + np.log(z / (x - location))).sum()
    return sum(stats.multivariate_normal(m, c).logpdf(row) for row, m, c in zip(x, location, covariance, strict=True))


@pytest.mark.parametrize("kind", GROUPS)
def test_subjects_have_the_density_of_the_group(kind, data):
    model = line.hierarchical(data, **GROUPS[kind])
    free = [v for v in model.free_RVs if v.name.startswith(("intercept_", "slope_"))]
    names = ["gaussian", "group_mean", "group_sd"]
    names += [name for name in ("group_correlation", "group_coefficients") if name in model.named_vars]
    variables = [model[name] for name in names]
    point, function = evaluate(model, variables)
    found = dict(zip(names, function(point), strict=True))
    x, n = found["gaussian"], data.sizes["subject"]

    location = np.broadcast_to(found["group_mean"], x.shape)
    if "covariates" in kind or kind == "a covariance a class":
        location = design(kind, data) @ found["group_coefficients"]
    class_of = (data["site"].values == "b").astype(int)
    sd = found["group_sd"][class_of] if "class" in kind else np.broadcast_to(found["group_sd"], x.shape)
    correlation = np.broadcast_to(np.eye(2), (n, 2, 2))
    if "group_correlation" in found:
        own = found["group_correlation"]
        correlation = own[class_of] if "class" in kind else np.broadcast_to(own, (n, 2, 2))
    covariance = sd[:, :, None] * correlation * sd[:, None, :]

    # offsets are other coordinates of the same subjects: the slope of x by them, subject by subject
    slopes = np.empty((n, 2, 2))
    for k, variable in enumerate(free):
        sides = [point | {variable.name: point[variable.name] + side} for side in (1e-5, -1e-5)]
        up, down = (function(side)[0] for side in sides)
        slopes[:, :, k] = (up - down) / 2e-5
    expected = log_density(kind, x, location, covariance) + np.log(np.abs(np.linalg.det(slopes))).sum()
    assert model.compile_logp(vars=free, **QUICK)(point) == pytest.approx(expected, abs=1e-6)
    if kind == "covariates":
        np.testing.assert_allclose(found["group_mean"], location.mean(0))


def design(kind, data):
    """Columns in the order of the coefficients: intercept's, then slope's."""
    one, age = np.ones(data.sizes["subject"]), data["age"].values
    b = (data["site"].values == "b").astype(float)
    zero = 0 * one
    if kind == "covariates":
        return np.stack([np.stack([one, age, b, zero], 1), np.stack([zero, zero, zero, one], 1)], axis=1)
    return np.stack([np.stack([one, b, zero, zero], 1), np.stack([zero, zero, one, b], 1)], axis=1)


def test_the_likelihood_is_the_subjects_own(data):
    model = line.hierarchical(data)
    observed = model.logp(vars=model.observed_RVs, sum=False)
    point, function = evaluate(model, [model["gaussian"]])
    x = function(point)[0]
    each = model.compile_fn(observed, **QUICK)(point)[0]
    compiled = line.compile(data)
    np.testing.assert_allclose(each, compiled.pointwise_log_likelihood(x)["y"], rtol=1e-12)
    np.testing.assert_allclose(each.sum(), compiled.log_likelihood(x).sum(), rtol=1e-12)
    # and what stands in the padding counts for nothing, by hand
    alone = sum(
        stats.norm(x[i, 0] + x[i, 1] * row["x"].values, 0.7).logpdf(row["y"].values)[~np.isnan(row["y"].values)].sum()
        for i, row in ((i, data.isel(subject=i)) for i in range(data.sizes["subject"]))
    )
    np.testing.assert_allclose(each.sum(), alone, rtol=1e-12)


def test_learners_of_unequal_lengths_and_their_gradient(learners):
    data = learners.isel(subject=slice(4), trial=slice(30))
    data = data.assign_coords(n_trials=("subject", [30, 12, 30, 21]))[["choice", "reward"]]
    model = rescorla_wagner.hierarchical(data, centred=True)
    compiled = rescorla_wagner.compile(data)
    x = np.random.default_rng(0).normal(0.0, 0.7, (4, 2))
    point = {"alpha_gaussian": x[:, 0], "beta_gaussian": x[:, 1]}
    log_likelihood = model.logp(vars=model.observed_RVs)
    by = [model.rvs_to_values[model[f"{name}_gaussian"]] for name in ("alpha", "beta")]
    value, *gradient = model.compile_fn([log_likelihood, *pt.grad(log_likelihood, by)])(point)
    np.testing.assert_allclose(value, compiled.log_likelihood(x).sum(), rtol=1e-12)
    np.testing.assert_allclose(np.stack(gradient, axis=1), compiled.log_likelihood_gradient(x), rtol=1e-9)


def test_a_model_that_looks_across_trials_sees_no_padding():
    @em.subject_model(level=em.Real(spread=1.0))
    def relative(level, y):
        pm.Normal("y", level + y.mean() - y, 1.0, observed=y)

    data = people(missing=False)[["y"]]
    model = relative.hierarchical(data)
    point, function = evaluate(model, [model["level"]])
    level = function(point)[0]
    each = model.compile_fn(model.logp(vars=model.observed_RVs, sum=False), **QUICK)(point)[0]
    for i, n in enumerate(data["n_trials"].values):
        y = data["y"].values[i, :n]
        np.testing.assert_allclose(each[i, :n], stats.norm(level[i] + y.mean() - y, 1.0).logpdf(y), rtol=1e-12)
        assert not each[i, n:].any()
    with model:
        drawn = read_group(pm.sample_prior_predictive(5, random_seed=0), "prior_predictive")
    assert drawn["y"].shape == (1, 5, *each.shape)


def test_shared_parameters_and_potentials():
    @em.subject_model(level=em.Real(spread=1.0), lapse=em.Unit(shared=True))
    def lapsing(level, lapse, k, penalty):
        p = lapse / 2 + (1 - lapse) * pm.math.invlogit(level)
        pm.Bernoulli("k", p, observed=k)
        pm.Potential("cost", -penalty * level**2)

    generator = np.random.default_rng(0)
    own = [{"k": generator.integers(2, size=n), "penalty": 0.1 * n} for n in (4, 6, 5)]
    model = lapsing.hierarchical(em.from_subjects(own))
    assert [v.name for v in model.free_RVs] == ["group_mean", "group_sd", "level_offset", "lapse_gaussian"]
    point, function = evaluate(model, [model["level"], model["lapse"]])
    level, lapse = function(point)
    assert lapse == pytest.approx(special.expit(point["lapse_gaussian"]))
    p = lapse / 2 + (1 - lapse) * special.expit(level)
    expected = [
        stats.bernoulli.logpmf(person["k"], p[i]).sum() - person["penalty"] * level[i] ** 2
        for i, person in enumerate(own)
    ]
    terms = [*model.observed_RVs, *model.potentials]
    each = model.compile_fn(model.logp(vars=terms, sum=False), **QUICK)(point)
    np.testing.assert_allclose(each[0].sum(1) + each[1], expected, rtol=1e-12)


# ---- priors


def test_default_priors_are_as_documented(data):
    model = line.hierarchical(data)
    drawn = pm.draw([model["group_mean"], model["group_sd"]], 4000, random_seed=1)
    for k, spread in enumerate((2.0, 1.0)):
        assert stats.kstest(drawn[0][:, k], stats.norm(0, 3 * spread).cdf).pvalue > 0.01
        assert stats.kstest(drawn[1][:, k], stats.halfnorm(scale=spread).cdf).pvalue > 0.01


def test_the_prior_of_a_bounded_mean_is_about_uniform():
    @em.subject_model(p=em.Unit(), q=em.Positive(shared=True))
    def biased(p, q, k):
        pm.Bernoulli("k", p**q, observed=k)

    model = biased.hierarchical(em.from_subjects([{"k": [0, 1]}, {"k": [1, 1]}]))
    median, q = pm.draw([model["group_median"], model["q_gaussian"]], 4000, random_seed=1)
    assert stats.kstest(special.logit(median[:, 0]), stats.norm(0, 1.5).cdf).pvalue > 0.01
    np.testing.assert_allclose(np.quantile(median, [0.25, 0.5, 0.75]), [0.25, 0.5, 0.75], atol=0.03)
    assert stats.kstest(q, stats.norm(0, 4.5).cdf).pvalue > 0.01


def test_priors_of_coefficients_are_wider_per_unit_of_the_covariate(data):
    model = line.hierarchical(data, covariates={"intercept": "~ age"})
    drawn = pm.draw(model["group_coefficients"], 4000, random_seed=1)
    size = np.sqrt((data["age"].values ** 2).mean())
    for k, sd in enumerate((6.0, 6.0 / size, 3.0)):
        assert stats.kstest(drawn[:, k], stats.norm(0, sd).cdf).pvalue > 0.01


def test_a_real_without_a_spread_takes_it_from_the_data():
    @em.subject_model(level=em.Real())
    def normal(level, y):
        pm.Normal("y", level, 1.0, observed=y)

    y = np.random.default_rng(0).normal(500.0, 20.0, (40, 1)) + np.random.default_rng(1).normal(size=(40, 30))
    model = normal.hierarchical(em.from_subjects([{"y": row} for row in y]))
    mean = pm.draw(model["group_mean"], 4000, random_seed=1)
    assert mean.mean() == pytest.approx(500.0, abs=5.0)
    assert mean.std() == pytest.approx(3 * 2.5 * y.mean(1).std(), rel=0.1)


def test_priors_can_be_changed(data):
    priors = {"group_sd": pm.Exponential.dist([1.0, 10.0]), "group_mean": pm.Normal.dist(3.0, 0.1)}
    model = line.hierarchical(data, priors=priors)
    drawn = pm.draw([model["group_mean"], model["group_sd"]], 4000, random_seed=1)
    np.testing.assert_allclose(drawn[0].mean(0), 3.0, atol=0.01)
    np.testing.assert_allclose(drawn[1].mean(0), [1.0, 0.1], rtol=0.1)
    line.hierarchical(data, priors=priors)  # the same objects serve another model
    wide, narrow = (
        pm.draw(line.hierarchical(data, covariance="full", priors={"group_correlation": eta})["group_correlation"], 500)
        for eta in (1.0, 50.0)
    )
    assert wide[:, 0, 1].std() > 4 * narrow[:, 0, 1].std()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"priors": {"group_variance": pm.Normal.dist()}}, "priors has 'group_variance', but this model has priors of"),
        ({"priors": {"group_sd": 1.0}}, "is no distribution"),
        ({"covariance": "full", "priors": {"group_correlation": pm.Normal.dist()}}, "must be a positive number"),
        ({"centred": ["slop"]}, "must be True, False, or a list of parameters that vary"),
        ({"centred": "slope"}, "must be True, False, or a list"),
    ],
)
def test_what_does_not_fit_is_named(settings, message, data):
    with pytest.raises((TypeError, ValueError), match=message):
        line.hierarchical(data, **settings)


def test_a_model_that_cannot_be_batched_is_refused():

    @em.subject_model(level=em.Real(spread=1.0))
    def stops(level, y):
        def step(v, total):
            return total + v + level, until(total > 100.0)

        total = pytensor.scan(step, sequences=[y], outputs_info=[pt.zeros(())], return_updates=False)
        pm.Normal("y", level + total[-1], 1.0, observed=y)

    data = em.from_subjects([{"y": [0.0, 1.0]}, {"y": [1.0, 2.0]}])
    with pytest.warns(em.BatchingWarning), pytest.raises(em.ModelError, match="there is no hierarchical model of it"):
        stops.hierarchical(data)


# ---- draws


def test_prior_predictive_draws_each_subject_from_its_own_parameters(data):
    model = line.hierarchical(data)
    with model:
        idata = pm.sample_prior_predictive(3000, random_seed=1)
    prior, drawn = read_group(idata, "prior"), read_group(idata, "prior_predictive")["y"]
    assert drawn.dims == ("chain", "draw", "subject", "trial")
    expected = prior["intercept"] + prior["slope"] * read_group(idata, "constant_data")["x"]
    noise = ((drawn - expected) / 0.7).values[0]
    assert stats.kstest(noise[:, 0, 0], stats.norm.cdf).pvalue > 0.01
    correlations = np.corrcoef(noise.reshape(len(noise), -1), rowvar=False)
    np.testing.assert_allclose(correlations, np.eye(len(correlations)), atol=0.1)  # no noise serves twice


def test_composite_distributions_are_drawn_too():
    @em.subject_model(rate=em.Positive(), zero=em.Unit())
    def inflated(rate, zero, k):
        pm.ZeroInflatedPoisson("k", psi=1 - zero, mu=rate, observed=k)

    model = inflated.hierarchical(em.from_subjects([{"k": [0, 1, 2]}, {"k": [3, 0, 1]}]))
    natural = {"rate": np.array([0.5, 6.0]), "zero": np.array([0.8, 0.1])}
    gaussian = [inflated.parameters[name].to_gaussian(values) for name, values in natural.items()]
    with pm.do(model, {"gaussian": np.stack(gaussian, axis=1)}):
        drawn = pm.sample_prior_predictive(4000, random_seed=1, var_names=["k"])
    k = read_group(drawn, "prior_predictive")["k"].values[0]
    expected = (1 - natural["zero"]) * natural["rate"]
    np.testing.assert_allclose(k.mean((0, 2)), expected, rtol=0.06)
    zeros = natural["zero"] + (1 - natural["zero"]) * np.exp(-natural["rate"])
    np.testing.assert_allclose((k == 0).mean((0, 2)), zeros, atol=0.02)


def test_multinomial_responses_keep_their_dimension():
    @em.subject_model(level=em.Real(spread=1.0))
    def split(level, counts):
        pm.Multinomial("counts", 10, pm.math.softmax(pt.stack([level, 0.0, -level])), observed=counts)

    counts = np.random.default_rng(0).multinomial(10, [0.5, 0.3, 0.2], (3, 4))
    model = split.hierarchical(em.from_subjects([{"counts": row} for row in counts]))
    point, function = evaluate(model, [model["level"]])
    level = function(point)[0]
    each = model.compile_fn(model.logp(vars=model.observed_RVs, sum=False), **QUICK)(point)[0]
    p = special.softmax(np.stack([level, 0 * level, -level], axis=1), axis=1)
    # PyMC's own logarithm of 10! is off by 5e-7
    np.testing.assert_allclose(each, stats.multinomial.logpmf(counts, 10, p[:, None]), atol=1e-6)
    with model:
        drawn = read_group(pm.sample_prior_predictive(5, random_seed=0), "prior_predictive")["counts"]
    assert drawn.dims[2:] == ("subject", "trial", "counts_dim_0")
    assert (drawn.sum("counts_dim_0") == 10).all()


# ---- from a fit


@pytest.fixture(scope="module")
def kinds(data):
    """Fits of every kind of group, to more people than `data` has."""
    more = people(lengths=np.random.default_rng(3).integers(5, 9, 7), missing=True)
    settings = {"estimator": "corrected", "progressbar": False}
    return {
        kind: em.fit(line, more, **settings, **{k: v for k, v in GROUPS[kind].items() if k != "centred"})
        for kind in ("normal", "full", "a covariance a class", "joint Student")
    }


@pytest.mark.filterwarnings("ignore::em_ppl.ConvergenceWarning")
@pytest.mark.parametrize("kind", ["normal", "full", "a covariance a class", "joint Student"])
def test_draws_of_a_fit_are_draws_of_its_model(kind, kinds):
    """Every free variable is there, and what follows from them in the model is what the draws say."""
    fit = kinds[kind]
    model = fit.hierarchical_model()
    posterior = read_group(fit.to_inference_data(draws=5, chains=1, log_likelihood=False), "posterior").isel(chain=0)
    names = [v.name for v in model.free_RVs]
    assert set(names) <= set(posterior)
    follows = [v.name for v in model.deterministics]
    function = pm.compile(
        model.free_RVs, [model[name] for name in follows], on_unused_input="ignore", random_seed=0, **QUICK
    )
    for draw in range(5):
        here = posterior.isel(draw=draw)
        for name, value in zip(follows, function(*(here[name].values for name in names)), strict=True):
            np.testing.assert_allclose(value, here[name].values, rtol=1e-9, atol=1e-9, err_msg=name)


def test_names_dims_and_coords_are_those_of_a_sampled_model(learner_fits):
    fit = learner_fits["corrected"]
    model, ours = fit.hierarchical_model(), read_group(fit.to_inference_data(log_likelihood=False), "posterior")
    variables = {v.name: tuple(model.named_vars_to_dims.get(v.name, ())) for v in model.unobserved_RVs}
    assert {str(name): v.dims[2:] for name, v in ours.items()} == variables
    for dim in ("subject", "parameter"):
        assert list(ours[dim].values) == list(model.coords[dim])


@pytest.mark.long
@pytest.mark.usefixtures("machine_code")
def test_a_fit_predicts_its_own_subjects(learner_fits):
    """Not new ones from the group: PyMC finds every free variable among the draws of the fit."""
    fit = learner_fits["corrected"]
    idata = fit.to_inference_data(draws=50, chains=1, log_likelihood=False)
    with fit.hierarchical_model():
        drawn = pm.sample_posterior_predictive(idata, random_seed=1, progressbar=False)
    drawn = read_group(drawn, "posterior_predictive")["choice"]
    # the share of draws that repeat a choice is the probability that the fit gives it, after the subject's own history
    repeated = (drawn == fit.data["choice"]).mean(("chain", "draw")).values.ravel()
    x = fit.subjects["posterior_mean"].values
    probability = np.exp(fit.compiled.pointwise_log_likelihood(x)["choice"]).ravel()
    assert np.corrcoef(repeated, probability)[0, 1] > 0.85
    assert np.abs(repeated - probability).mean() < 0.1


def test_a_parameter_is_centred_where_trials_tell_more_than_the_group():
    generator = np.random.default_rng(0)
    x, levels = generator.normal(size=(30, 8)), generator.normal([[0.0, 0.0]], [[3.0, 0.1]], (30, 2))
    y = levels[:, :1] + levels[:, 1:] * x + generator.normal(0, 0.7, (30, 8))
    fit = em.fit(line, em.from_subjects([{"x": a, "y": b} for a, b in zip(x, y, strict=True)]), progressbar=False)
    assert fit.summary()["known"]["intercept"] > 0.5 > fit.summary()["known"]["slope"]
    free = [v.name for v in fit.hierarchical_model().free_RVs]
    assert free == ["group_mean", "group_sd", "intercept_gaussian", "slope_offset"]
    free = [v.name for v in fit.hierarchical_model(centred=False).free_RVs]
    assert free == ["group_mean", "group_sd", "intercept_offset", "slope_offset"]


def test_an_integer_column_stays_what_it_was():
    """PyMC keeps whole numbers as int32, the batched graph has int64; log-likelihood against scipy's."""

    @em.subject_model(level=em.Real(spread=1.0))
    def successes(level, n, k):
        pm.Binomial("k", n, logit_p=level, observed=k)

    data = em.from_subjects([{"n": [9, 4], "k": [5, 1]}, {"n": [2, 6], "k": [0, 6]}])
    with successes.hierarchical(data) as model:
        point = {"group_mean": [0.5], "group_sd_log__": [0.0], "level_offset": [0.0, 1.0]}
        value = model.compile_logp(vars=model["k"], sum=True)(point)
        drawn = pm.draw(model["k"], random_seed=1)
    p = special.expit([[0.5], [1.5]])
    assert value == pytest.approx(stats.binom.logpmf(data["k"], data["n"], p).sum())
    assert (drawn <= data["n"].values).all()
