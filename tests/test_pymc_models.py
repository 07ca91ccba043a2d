"""Hierarchical PyMC models as their users write them, fitted by EM: published numbers, brute force, and refusals."""

import numpy as np
import pymc as pm
import pytensor.tensor as pt
import pytest
from scipy import optimize, special, stats

import em_ppl as em
from em_ppl.compat import make_inference_data, read_group
from em_ppl.group import GroupPrior

SCHOOLS = np.array([28.0, 8, -3, 7, -1, 1, 18, 12]), np.array([15.0, 10, 16, 11, 9, 11, 10, 18])
QUIET = {"progressbar": False}


def schools(kind):
    """Rubin (1981), in the ways in which it is written."""
    y, se = SCHOOLS
    with pm.Model(coords={"school": list("ABCDEFGH")}) as model:
        mu, tau = pm.Normal("mu", 0, 5), pm.HalfCauchy("tau", 5)
        if kind == "centred":
            theta = pm.Normal("theta", mu, tau, dims="school")
        else:
            z = pm.Normal("z", 0, 1, dims="school")
            theta = mu + tau * z
            if kind == "named":
                theta = pm.Deterministic("theta", theta, dims="school")
        pm.Normal("y", theta, se, observed=y, dims="school")
    return model


@pytest.fixture(scope="module")
def schools_mode():
    """Mode of the marginal posterior of mu and log tau, schools integrated out by hand."""
    y, se = SCHOOLS

    def negative(v):
        tau = np.exp(v[1])
        likelihood = stats.norm(v[0], np.sqrt(se**2 + tau**2)).logpdf(y).sum()
        return -likelihood - stats.norm(0, 5).logpdf(v[0]) - stats.halfcauchy(scale=5).logpdf(tau) - v[1]

    found = optimize.minimize(negative, [4.0, 1.0], method="Nelder-Mead", options={"xatol": 1e-8, "fatol": 1e-12})
    return found.x


@pytest.mark.parametrize("kind", ["centred", "named", "unnamed"])
def test_eight_schools_end_at_the_mode_of_the_marginal_posterior(kind, schools_mode):
    fit = em.fit(em.from_pymc(schools(kind), dim="school"), **QUIET)
    found = [float(fit.group.mean[0]), float(np.log(fit.group.sd[0]))]
    np.testing.assert_allclose(found, schools_mode, atol=1e-4)
    assert fit.group.varying == ["z_scaled" if kind == "unnamed" else "theta"]
    values = fit.model.values(fit.group.plain, fit.subjects["mode"].values)
    subject_level = {"centred": {"theta"}, "named": {"z", "theta"}, "unnamed": {"z"}}[kind]
    assert set(values) == {"mu", "tau", *subject_level}
    if kind != "centred":
        np.testing.assert_allclose(found[0] + np.exp(found[1]) * values["z"], fit.subjects["mode"].values[:, 0])
    y, se = SCHOOLS
    shrunk = (y / se**2 + found[0] * np.exp(-2 * found[1])) / (1 / se**2 + np.exp(-2 * found[1]))
    np.testing.assert_allclose(fit.subjects["mode"].values[:, 0], shrunk, rtol=1e-6)


def test_eight_schools_without_and_with_another_prior():
    """Maximum likelihood is at an SD of 0; with a Gamma(2, 0) prior of it (Chung et al. 2013) it is not."""
    y, se = SCHOOLS

    def negative(v):
        return -stats.norm(v[0], np.sqrt(se**2 + np.exp(2 * v[1]))).logpdf(y).sum() - v[1]

    expected = np.exp(optimize.minimize(negative, [5.0, 1.0], method="Nelder-Mead", options={"xatol": 1e-8}).x[1])
    model = em.from_pymc(schools("centred"), dim="school", priors=False)
    with pytest.warns(em.ConvergenceWarning, match="has gone to 0"):
        assert float(em.fit(model, **QUIET).group.sd[0]) < 0.1
    fit = em.fit(model, prior=GroupPrior(mean_spread=None), **QUIET)
    assert float(fit.group.sd[0]) == pytest.approx(expected, rel=1e-3)


def test_sleepstudy_with_an_index(lme4):
    """lme4's Reaction ~ Days + (Days || Subject), REML = FALSE, as MixedModels.jl's documentation prints it."""
    frame = lme4("sleepstudy")
    who, labels = frame["Subject"].factorize()
    with pm.Model(coords={"subject": labels}) as model:
        mean = pm.Normal("mean", 0, 1000, shape=2)
        sd = pm.HalfNormal("sd", 100, shape=2)
        effects = [pm.Normal(name, mean[k], sd[k], dims="subject") for k, name in enumerate(("intercept", "slope"))]
        sigma = pm.HalfNormal("sigma", 100)
        pm.Normal(
            "y", effects[0][who] + effects[1][who] * frame["Days"].values, sigma, observed=frame["Reaction"].values
        )
    read = em.from_pymc(model, priors=False)
    assert repr(read) == "<the PyMC model, 18 subjects along 'subject'; means: intercept ~ 1, slope ~ 1; shared: sigma>"
    fit = em.fit(read, tol=1e-6, **QUIET)
    np.testing.assert_allclose(fit.group.mean, [251.4051, 10.46729], rtol=1e-5)
    np.testing.assert_allclose(fit.group.sd, [24.17145, 5.79938], rtol=1e-4)
    assert float(np.exp(fit.group.shared[0])) == pytest.approx(25.55613, rel=1e-4)
    assert fit.log_evidence == pytest.approx(-876.00163, abs=1e-4)
    np.testing.assert_allclose(fit.group.mean_se, [6.70771, 1.51931], rtol=1e-3)


def test_cbpp_with_random_intercepts_around_0(lme4):
    """glmer's binomial Laplace fit of incidence ~ period + (1 | herd): effects of periods are shared."""
    frame = lme4("cbpp")
    herd, labels = frame["herd"].factorize()
    period = frame["period"].astype(int).values - 1
    with pm.Model(coords={"herd": labels}) as model:
        sd, beta = pm.HalfNormal("sd", 10), pm.Normal("beta", 0, 10, shape=4)
        u = pm.Normal("u", 0, sd, dims="herd")
        design = np.column_stack([np.ones(len(period)), *(period == k for k in (1, 2, 3))]).astype(float)
        eta = pt.dot(design, beta) + u[herd]
        pm.Binomial("k", frame["size"].values, logit_p=eta, observed=frame["incidence"].values)
    fit = em.fit(em.from_pymc(model, dim="herd", priors=False), tol=1e-6, **QUIET)
    np.testing.assert_allclose(fit.group.shared, [-1.39853, -0.99233, -1.12867, -1.58031], atol=2e-4)
    assert float(fit.group.sd[0]) == pytest.approx(0.64226, abs=1e-4)
    assert fit.log_evidence == pytest.approx(-92.02628, abs=1e-4)


def test_the_same_numbers_as_the_one_subject_definition():
    """Means by regression, the log of an SD as hyperparameter, several parameters in one variable, non-centred."""
    generator = np.random.default_rng(3)
    n, t = 30, 9
    x, age = generator.normal(size=(n, t)), generator.normal(size=n)
    own = np.column_stack([1.0 + 0.7 * age, np.full(n, -0.5)]) + generator.normal(size=(n, 2)) * [0.8, 0.4]
    y = generator.binomial(1, special.expit(own[:, :1] + own[:, 1:] * x))

    @em.subject_model(intercept=em.Real(), slope=em.Real())
    def logistic(intercept, slope, x, y):
        pm.Bernoulli("y", logit_p=intercept + slope * x, observed=y)

    people = [{"x": a, "y": b, "age": c} for a, b, c in zip(x, y, age, strict=True)]
    ours = em.fit(logistic, em.from_subjects(people), covariates={"intercept": "~ age"}, tol=1e-7, **QUIET)

    with pm.Model(coords={"subject": range(n), "effect": ["intercept", "slope"]}) as model:
        b = pm.Normal("b", 0, 1, shape=3)
        log_sd = pm.Normal("log_sd", 0, 1, dims="effect")
        z = pm.Normal("z", dims=("subject", "effect"))
        mean = pt.stack([b[0] + b[1] * age, b[2] * pt.ones(n)], axis=1)
        effects = pm.Deterministic("effects", mean + pt.exp(log_sd) * z, dims=("subject", "effect"))
        pm.Bernoulli("y", logit_p=effects[:, 0][:, None] + effects[:, 1][:, None] * x, observed=y)
    read = em.from_pymc(model, priors=False)
    theirs = em.fit(read, tol=1e-7, **QUIET)
    np.testing.assert_allclose(theirs.group.coefficients, ours.group.coefficients, atol=1e-4)
    np.testing.assert_allclose(theirs.group.sd, ours.group.sd, atol=1e-4)
    np.testing.assert_allclose(theirs.subjects["mode"], ours.subjects["mode"], atol=1e-4)
    assert theirs.log_evidence == pytest.approx(ours.log_evidence, abs=1e-5)
    assert theirs.group.design.labels == ["effects[intercept]: b[0]", "effects[intercept]: b[1]", "effects[slope]"]

    # draws carry the names of the model, and are read back from them
    idata = theirs.to_inference_data(draws=40, chains=2, **QUIET)
    posterior = read_group(idata, "posterior")
    assert posterior["effects"].dims == ("chain", "draw", "subject", "effect")
    np.testing.assert_allclose(posterior["effects"].values, posterior["gaussian"].values)
    back = theirs.model.as_group(posterior)
    for name in ("gaussian", "group_sd", "group_mean", "group_coefficients"):
        np.testing.assert_allclose(back[name].values, posterior[name].values, rtol=1e-9, err_msg=name)
    own_log_likelihood = read_group(idata, "log_likelihood")["y"].isel(chain=0, draw=3).sum("trial")
    np.testing.assert_allclose(
        own_log_likelihood, logistic.compile(ours.data).log_likelihood(posterior["gaussian"].values[0, 3]), rtol=1e-9
    )
    assert em.agreement(theirs, make_inference_data({"posterior": posterior}, {})).group["shift"].abs().max() < 0.5


def test_priors_count_as_pymc_counts_them():
    """The penalised optimum is where the gradient of the marginal likelihood and of PyMC's own prior cancel."""
    y = np.random.default_rng(0).normal(1.0, 1.5, (6, 1)) + np.random.default_rng(1).normal(0, 0.5, (6, 3))
    with pm.Model(coords={"subject": range(6)}) as model:
        mu, precision = pm.Normal("mu", 3, 0.5), pm.Gamma("precision", 3, 1)
        sigma = pm.Uniform("sigma", 0.1, 2)
        x = pm.Normal("x", mu, precision**-0.5, dims="subject")
        pm.Normal("y", x[:, None], sigma, observed=y)
    fit = em.fit(em.from_pymc(model), tol=1e-8, **QUIET)

    def negative(v):
        mean, log_precision, between = v[0], v[1], 0.1 + 1.9 * special.expit(v[2])
        covariance = np.exp(-log_precision) * np.ones((3, 3)) + between**2 * np.eye(3)
        likelihood = stats.multivariate_normal(np.full(3, mean), covariance).logpdf(y).sum()
        prior = stats.norm(3, 0.5).logpdf(mean) + stats.gamma(3).logpdf(np.exp(log_precision)) + log_precision
        return -likelihood - prior - np.log(special.expit(v[2]) * special.expit(-v[2]))  # Uniform, as log odds

    options = {"xatol": 1e-9, "fatol": 1e-12, "maxiter": 5000, "maxfev": 5000}
    expected = optimize.minimize(negative, [2.0, 0.0, 0.0], method="Nelder-Mead", options=options).x
    found = [float(fit.group.mean[0]), -2 * float(np.log(fit.group.sd[0])), float(fit.group.shared[0])]
    np.testing.assert_allclose(found, expected, atol=1e-3)
    values = fit.model.values(fit.group.plain, fit.subjects["mode"].values)
    assert float(values["sigma"]) == pytest.approx(0.1 + 1.9 * special.expit(expected[2]), abs=1e-3)
    assert float(values["precision"]) == pytest.approx(np.exp(expected[1]), abs=2e-3)


# ---- what it cannot take, it names


def refuse(message, build):
    with pm.Model(coords={"subject": range(4), "other": range(3)}) as model:
        build()
    with pytest.raises(em.ModelError, match=message):
        em.from_pymc(model)


def groups(mu=0.0, dims="subject"):
    tau = pm.HalfNormal("tau", 1)
    return pm.Normal("x", mu, tau, dims=dims)


Y = np.arange(4.0)

REFUSALS = {
    "no free variable has the dim 'subject'": lambda: pm.Normal("y", pm.Normal("m", dims="other").sum(), 1, observed=Y),
    "'x' along 'subject' is StudentT, not Normal": lambda: pm.Normal(
        "y", pm.StudentT("x", 3, mu=pm.Normal("m"), sigma=1, dims="subject"), 1, observed=Y
    ),
    "'k' is discrete": lambda: pm.Normal("y", groups() + pm.Poisson("k", 1), 1, observed=Y),
    "hyperparameter 'mu' has a prior with a free variable of its own, 'top'": lambda: pm.Normal(
        "y", groups(pm.Normal("mu", pm.Normal("top"), 1)), 1, observed=Y
    ),
    "'x' hangs on another subject-level variable, 'w'": lambda: pm.Normal(
        "y", groups(pm.Normal("w", pm.Normal("m"), 1, dims="subject")), 1, observed=Y
    ),
    "the SD of 'x' is a fixed number": lambda: pm.Normal(
        "y", pm.Normal("x", pm.Normal("m"), 2.0, dims="subject"), 1, observed=Y
    ),
    "the SD of 'x' differs between subjects": lambda: pm.Normal(
        "y", pm.Normal("x", 0, pm.HalfNormal("tau") * (1 + Y), dims="subject"), 1, observed=Y
    ),
    "the SD of 'x' is made of several": lambda: pm.Normal(
        "y", pm.Normal("x", 0, pm.HalfNormal("a") * pm.HalfNormal("b"), dims="subject"), 1, observed=Y
    ),
    "the mean of 'x' has a fixed part": lambda: pm.Normal("y", groups(1.0 + pm.Normal("m")), 1, observed=Y),
    "the group mean is not linear in m": lambda: pm.Normal("y", groups(pm.Normal("m") ** 2), 1, observed=Y),
    "'z' is standard Normal, but nothing of the form": lambda: pm.Normal(
        "y", pt.exp(pm.HalfNormal("tau") * pm.Normal("z", dims="subject") ** 2), 1, observed=Y
    ),
    "'z' has no hyperparameter above it": lambda: pm.Normal("y", pm.Normal("z", 1, 2, dims="subject"), 1, observed=Y),
    r"hyperparameter b\[1\] is part of no mean and no SD, though others of b are": lambda: pm.Normal(
        "y", groups((b := pm.Normal("b", shape=2))[0]) + b[1], 1, observed=Y
    ),
    "term 0 of 'y' is -inf where every subject is near the mean": lambda: pm.Exponential("y", groups(), observed=Y - 2),
    "reads several subjects' parameters": lambda: pm.Normal("y", groups().cumsum(), 1, observed=Y),
    "reads no subject's parameters": lambda: pm.Normal("y", groups()[[0, 1, 2, 3]] * [0, 1, 1, 1], 1, observed=Y),
    "subject number 3 has no term": lambda: pm.Normal("y", groups()[[0, 1, 2, 0]], 1, observed=Y),
    "reads a mean or an SD of the group not only through the subjects": lambda: pm.Normal(
        "y", groups(m := pm.Normal("m")) + m, 1, observed=Y
    ),
    "'idle' is part of no group and no likelihood": lambda: (
        pm.Normal("idle"),
        pm.Normal("y", groups(), 1, observed=Y),
    ),
    "the model has no observed variable": groups,
}


@pytest.mark.parametrize("message", REFUSALS)
def test_what_em_cannot_take_is_named(message):
    refuse(message, REFUSALS[message])


def test_a_group_of_its_own_is_not_to_be_changed_by_fit():
    model = em.from_pymc(schools("centred"), dim="school")
    for settings in ({"covariance": "full"}, {"covariates": "~ age"}, {"distribution": em.StudentT()}):
        with pytest.raises(ValueError, match=r"a model of em.from_pymc has its data and its group"):
            em.fit(model, **settings, **QUIET)
    with pytest.raises(TypeError, match="data is a NoneType"):
        em.fit(em.subject_model(a=em.Real())(lambda a, y: pm.Normal("y", a, 1, observed=y)))


def test_it_is_compiled_once():
    """For every fit of the model, and for parts of its subjects."""
    model = em.from_pymc(schools("centred"), dim="school")
    first = model.compile()
    first.compile()
    assert model.compile().terms.gradients() is first.terms.gradients() is first.take(np.arange(3)).terms.gradients()


def test_a_saved_fit_comes_back_with_the_models_own_priors(tmp_path):
    model = em.from_pymc(schools("named"), dim="school")
    fit = em.fit(model, **QUIET)
    back = em.load(fit.save(tmp_path / "fit.nc"), model=model)
    assert repr(back) == repr(fit)
    assert "the model's own priors" in repr(back)
    assert back.evidence.log_evidence == pytest.approx(fit.evidence.log_evidence)
    assert fit.leave_one_subject_out(**QUIET)["converged"].all()
    with pytest.raises(ValueError, match="this fit is of a PyMC model"):
        em.plot_predictions(fit)


def test_nuts_samples_the_model_itself():
    fit = em.fit(em.from_pymc(schools("named"), dim="school"), **QUIET)
    assert [v.name for v in fit.hierarchical_model().free_RVs] == ["mu", "tau", "z"]
    with pytest.raises(ValueError, match="change priors and parametrisation there"):
        fit.hierarchical_model(centred=True)
    nuts = fit.sample(draws=400, chains=2, cores=1, target_accept=0.95, **QUIET)
    found = em.agreement(fit, nuts)
    assert abs(found.group.loc["group_mean[theta]", "shift"]) < 0.3
    assert len(em.plot_shrinkage(fit, nuts).axes) == 1
    assert len(em.plot_posterior(fit, nuts, subject="C").axes) == 1
    assert em.plot_forest(fit, nuts, var_names=["mu", "tau", "theta"])._repr_png_()
    assert read_group(nuts, "log_likelihood")["y"].sizes["subject"] == 8
