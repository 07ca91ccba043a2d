"""Fits as InferenceData: draws that are what they say, ArviZ's functions on them, files that bring back the bits."""

import arviz as az
import numpy as np
import pymc as pm
import pytest
import xarray as xr
from scipy import stats

import em_ppl as em
from em_ppl.compat import read_group, read_netcdf
from em_ppl.models.rescorla_wagner import rescorla_wagner

SOME = {"draws": 1000, "chains": 2, "progressbar": False}


@em.subject_model(level=em.Real())
def normal(level, y):
    pm.Normal("y", level, 1.0, observed=y)


@em.subject_model(intercept=em.Real(), slope=em.Real())
def line(intercept, slope, x, y):
    pm.Normal("y", intercept + slope * x, 1.0, observed=y)


def people(labels, lengths):
    """Simulate y = a + b x + noise, with a missing response for the first subject."""
    generator = np.random.default_rng(4)
    own = []
    for n in lengths:
        x = generator.normal(size=n)
        own.append(
            {"x": x, "y": generator.normal(1.0, 0.8) + generator.normal(-1.0, 0.6) * x + generator.normal(size=n)}
        )
    own[0]["y"][1] = np.nan
    return em.from_subjects(own, subjects=labels)


@pytest.fixture(scope="module")
def line_fit():
    """Twelve people with 20 to 31 trials and mixed labels, full covariance."""
    labels = ["ann", 2, ("site", 3), 4.5, *"abcdefgh"]
    return em.fit(line, people(labels, range(20, 32)), covariance="full", progressbar=False)


@pytest.fixture(scope="module")
def line_idata(line_fit):
    return line_fit.to_inference_data(**SOME)


@pytest.fixture(scope="module")
def learner_idata(learner_fits):
    return learner_fits["corrected"].to_inference_data(**SOME)


# ---- groups, dims and names


def test_groups_dims_and_coords(learner_idata, learners):
    shapes = {
        "posterior": {
            "alpha": ("chain", "draw", "subject"),
            "beta": ("chain", "draw", "subject"),
            "alpha_gaussian": ("chain", "draw", "subject"),  # free in the hierarchical model, both centred
            "beta_gaussian": ("chain", "draw", "subject"),
            "gaussian": ("chain", "draw", "subject", "parameter"),
            "group_mean": ("chain", "draw", "parameter"),
            "group_sd": ("chain", "draw", "parameter"),
            "group_median": ("chain", "draw", "parameter"),
        },
        "fit": {"mean_vector": ("subject", "rows"), "covariance_matrix": ("subject", "rows", "columns")},
        "log_likelihood": {"choice": ("chain", "draw", "subject", "trial")},
        "sample_stats": {"log_q": ("chain", "draw", "subject")},
        "observed_data": {"choice": ("subject", "trial")},
        "constant_data": {"reward": ("subject", "trial")},
    }
    for name, variables in shapes.items():
        group = read_group(learner_idata, name)
        for variable, dims in variables.items():
            assert group[variable].dims == dims, (name, variable)
        if name != "fit":
            assert set(group.data_vars) == set(variables)
        np.testing.assert_array_equal(group["subject"], learners["subject"])
    assert list(read_group(learner_idata, "posterior")["parameter"].values) == ["alpha", "beta"]
    xr.testing.assert_equal(read_group(learner_idata, "observed_data")["choice"], learners["choice"])


def test_attributes_say_who_made_it(learner_idata):
    assert learner_idata.attrs["inference_library"] == "em_ppl"
    assert learner_idata.attrs["inference_library_version"] == em.__version__
    assert learner_idata.attrs["inference_method"] == "em_corrected"
    assert learner_idata.attrs["sampling_time"] > 0
    assert learner_idata.attrs["created_at"][:2] == "20"


def test_a_full_covariance_has_correlations(line_fit, line_idata):
    correlation = read_group(line_idata, "posterior")["group_correlation"]
    assert correlation.dims == ("chain", "draw", "parameter", "parameter_2")
    np.testing.assert_allclose(correlation.sel(parameter="slope", parameter_2="slope"), 1.0)
    assert (np.abs(correlation) <= 1 + 1e-12).all()


# ---- draws


def test_draws_have_the_moments_of_the_fit(learner_fits, learner_idata):
    """Groups: those of the sampling distribution. Subjects: the group's uncertainty comes on top of their own."""
    fit, posterior = learner_fits["corrected"], read_group(learner_idata, "posterior").stack(sample=("chain", "draw"))
    n = posterior.sizes["sample"]
    gaussian = posterior["gaussian"].transpose("sample", "subject", "parameter").values
    own = np.sqrt(np.diagonal(fit.subjects["laplace_covariance"].values, axis1=1, axis2=2))
    z = (gaussian.mean(0) - fit.subjects["posterior_mean"].values) / own
    assert np.abs(z).max() < 0.3
    ratio = gaussian.std(0) / own
    assert (ratio > 0.9).all()
    assert 1.0 < ratio.mean() < 1.2
    group_mean = posterior["group_mean"].transpose("sample", "parameter").values
    np.testing.assert_allclose(group_mean.std(0), fit.group.mean_se, rtol=0.1)
    assert (np.abs(group_mean.mean(0) - fit.group.mean.values) < 5 * fit.group.mean_se.values / np.sqrt(n)).all()
    log_sd = np.log(posterior["group_sd"].transpose("sample", "parameter").values)
    np.testing.assert_allclose(log_sd.std(0) * fit.group.sd.values, fit.group.sd_se, rtol=0.1)


def test_natural_space_is_the_link_of_gaussian_space(learner_fits, learner_idata):
    posterior = read_group(learner_idata, "posterior")
    for name, parameter in learner_fits["corrected"].parameters.items():
        expected = parameter.to_natural(posterior["gaussian"].sel(parameter=name))
        np.testing.assert_array_equal(posterior[name], expected)
        np.testing.assert_array_equal(
            posterior["group_median"].sel(parameter=name),
            parameter.to_natural(posterior["group_mean"].sel(parameter=name)),
        )


def test_log_q_is_the_density_that_was_drawn_from(line_fit, line_idata):
    """Given its group, a subject's draw is Normal: z-scores and log density hang together, draw by draw."""
    log_q = read_group(line_idata, "sample_stats")["log_q"]
    posterior = read_group(line_idata, "posterior").isel(chain=0)
    for i, draw in ((0, 0), (5, 3)):
        at = posterior.isel(draw=draw)
        sd, r = at["group_sd"].values, at["group_correlation"].values
        s = r * np.outer(sd, sd)
        x, y = (line_fit.data[name].values[i] for name in ("x", "y"))
        design = np.column_stack([np.ones_like(x), x])[np.isfinite(y) & np.isfinite(x)]
        y = y[np.isfinite(y) & np.isfinite(x)]
        # a linear regression with known residual SD 1: conditional posterior in closed form
        covariance = np.linalg.inv(design.T @ design + np.linalg.inv(s))
        mean = covariance @ (design.T @ y + np.linalg.solve(s, at["group_mean"].values))
        expected = stats.multivariate_normal(mean, covariance).logpdf(at["gaussian"].values[i])
        np.testing.assert_allclose(log_q.isel(chain=0, subject=i, draw=draw), expected, rtol=1e-5)


def test_equal_seeds_give_equal_draws(line_fit):
    first, again, other = (
        read_group(line_fit.to_inference_data(draws=3, random_seed=seed, log_likelihood=False), "posterior")
        for seed in (None, 0, 1)
    )
    xr.testing.assert_identical(first, again)
    assert not first.equals(other)


def test_log_likelihood_of_trials_sums_to_the_subjects(learners, learner_idata):
    gaussian = read_group(learner_idata, "posterior")["gaussian"].isel(chain=1, draw=7).values
    trials = read_group(learner_idata, "log_likelihood")["choice"].isel(chain=1, draw=7)
    np.testing.assert_allclose(trials.sum("trial"), rescorla_wagner.compile(learners).log_likelihood(gaussian))


def test_only_responses_that_exist_have_a_log_likelihood(line_fit, line_idata):
    pointwise, y = read_group(line_idata, "log_likelihood")["y"], line_fit.data["y"].values
    assert pointwise.dims == ("chain", "draw", "y_response")
    assert pointwise.sizes["y_response"] == np.isfinite(y).sum() == sum(range(20, 32)) - 1
    draw = read_group(line_idata, "posterior").isel(chain=0, draw=0)
    position = {label: i for i, label in enumerate(line_fit.data["subject"].values)}
    for response in (0, 1, 100):
        at = pointwise.isel(chain=0, draw=0, y_response=response)
        i, trial = position[at["y_subject"].item()], int(at["y_trial"])
        mean = draw["intercept"][i] + draw["slope"][i] * line_fit.data["x"][i, trial]
        np.testing.assert_allclose(at, stats.norm(mean, 1.0).logpdf(y[i, trial]), rtol=1e-10)
    assert pointwise["y_trial"].values[1] == 2  # trial 1 of the first subject is missing


# ---- ArviZ


def test_arviz_summarises_and_draws_it(learner_idata):
    import matplotlib

    matplotlib.use("agg")
    table = az.summary(learner_idata, var_names=["group_mean", "alpha"])
    assert table.shape[0] == 2 + 60
    az.plot_forest(learner_idata, var_names=["group_mean", "group_sd"])
    matplotlib.pyplot.close("all")


# some trials are beyond PSIS: ArviZ says so, as it should
@pytest.mark.filterwarnings("ignore:Estimated shape parameter of Pareto:UserWarning")
def test_loo_of_a_learner_runs(learner_idata):
    loo = az.loo(learner_idata, pointwise=True)
    assert loo.n_data_points == 60 * 120
    assert (loo.pareto_k > 0.7).sum() < 0.01 * 60 * 120
    assert np.isfinite(loo.elpd if hasattr(loo, "elpd") else loo.elpd_loo)


def test_loo_is_the_exact_leave_one_trial_out_density():
    """y_ij ~ N(x_i, 1), x_i ~ N(m, s^2), the group held at its estimate: without trial j it is a Normal again."""
    generator = np.random.default_rng(8)
    y = generator.normal(generator.normal(1.0, 1.5, (20, 1)), 1.0, (20, 15))
    fit = em.fit(normal, em.from_subjects([{"y": row} for row in y]), progressbar=False)
    m, v = fit.group.mean.item(), fit.group.covariance.item()
    others = (y.sum(1, keepdims=True) - y) + m / v
    precision = (y.shape[1] - 1) + 1 / v
    exact = stats.norm(others / precision, np.sqrt(1 + 1 / precision)).logpdf(y).sum()
    loo = az.loo(fit.to_inference_data(draws=2000, chains=2, progressbar=False))
    elpd = loo.elpd if hasattr(loo, "elpd") else loo.elpd_loo
    assert elpd == pytest.approx(exact, abs=0.3)  # Monte Carlo; the density of all 300 trials is -430 or so


# ---- files


LABELS = {
    "numbers": list(range(12)),
    "floats": [i + 0.5 for i in range(12)],
    "names": [f"père {i}" for i in range(12)],
    "tuples": [("site", i) for i in range(12)],
    "mixed": ["a", 1, 2.5, ("b", 3), -1, *range(10, 17)],
}


@pytest.mark.parametrize("kind", LABELS)
def test_a_file_brings_back_the_same_bits(kind, tmp_path):
    fit = em.fit(line, people(LABELS[kind], range(20, 32)), progressbar=False)
    path = fit.save(tmp_path / "fit.nc")
    loaded = em.load(path, model=line)
    assert list(loaded.subjects["subject"].values) == LABELS[kind]
    for name in ("subjects", "history", "data"):
        xr.testing.assert_identical(getattr(loaded, name), getattr(fit, name))
    for name in ("mean", "covariance", "coefficients", "shared", "free", "free_covariance"):
        xr.testing.assert_identical(getattr(loaded.group, name), getattr(fit.group, name))
    xr.testing.assert_identical(loaded.information, fit.information)
    assert loaded.parameters == fit.parameters
    assert loaded.settings == fit.settings
    assert repr(loaded) == repr(fit)
    assert loaded.converged == fit.converged
    few = {"draws": 4, "progressbar": False}
    theirs, ours = loaded.to_inference_data(**few), fit.to_inference_data(**few)
    for group in ("posterior", "log_likelihood"):
        xr.testing.assert_identical(read_group(theirs, group), read_group(ours, group))


def test_a_full_covariance_comes_back(line_fit, tmp_path):
    loaded = em.load(line_fit.save(tmp_path / "fit.nc"))
    xr.testing.assert_identical(loaded.group.sd_se, line_fit.group.sd_se)
    assert loaded.group.plain.model.structure == "full"
    assert loaded.model is None


def test_a_fit_comes_back_from_saved_inference_data(learner_fits, learner_idata, tmp_path):
    learner_idata.to_netcdf(tmp_path / "draws.nc", engine="h5netcdf")
    loaded = em.load(tmp_path / "draws.nc", model=rescorla_wagner)
    xr.testing.assert_identical(loaded.subjects, learner_fits["corrected"].subjects)
    xr.testing.assert_equal(loaded.data, learner_fits["corrected"].data)


def test_others_read_the_file(learner_fits, tmp_path):
    path = learner_fits["corrected"].save(tmp_path / "fit.nc")
    mean = learner_fits["corrected"].subjects["posterior_mean"].values
    np.testing.assert_array_equal(xr.open_dataset(path, group="fit", engine="h5netcdf").load()["mean_vector"], mean)
    np.testing.assert_array_equal(read_group(read_netcdf(path), "fit")["mean_vector"], mean)


def test_a_save_that_fails_leaves_the_old_file(line_fit, tmp_path, monkeypatch):
    path = line_fit.save(tmp_path / "fit.nc")
    before = path.read_bytes()

    def full(*args, **kwargs):
        raise OSError("no space left")

    monkeypatch.setattr("em_ppl.compat.os.replace", full)
    with pytest.raises(OSError, match="no space left"):
        line_fit.save(path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["fit.nc"]


def test_labels_that_no_file_can_hold_are_refused(tmp_path):
    labels = [frozenset([i]) for i in range(12)]
    fit = em.fit(line, people(labels, range(20, 32)), progressbar=False)
    with pytest.raises(ValueError, match=r"subject labels cannot be saved.*give subjects numbers or names"):
        fit.save(tmp_path / "fit.nc")


# ---- covariates, classes, shared parameters, heavy tails


@em.subject_model(level=em.Real(), slope=em.Real(), sigma=em.Positive(shared=True))
def line_and_noise(level, slope, sigma, x, y):
    pm.Normal("y", level + slope * x, sigma, observed=y)


@pytest.fixture(scope="module")
def cohort():
    generator = np.random.default_rng(6)
    own = {}
    for i in range(30):
        x = generator.normal(size=8)
        y = generator.normal(0.1 * (i % 7), 1.0) + generator.normal(-0.5, 0.6) * x + 0.7 * generator.normal(size=8)
        own[f"s{i}"] = {"x": x, "y": y, "dose": float(i % 7), "kind": "ab"[i % 2]}
    return em.from_subjects(own)


KINDS = {
    "everything": {"covariates": {"level": "~ dose"}, "covariance_by": "kind", "covariance": "full"},
    "exact": {"estimator": em.Quadrature(5), "covariates": "~ kind"},
    "sampled": {"estimator": em.ImportanceSampling(64), "distribution": em.Laplace()},
    "heavy": {"distribution": em.StudentT(4.0), "prior": em.GroupPrior(mean_spread=None)},
}


@pytest.fixture(scope="module", params=KINDS)
def cohort_fit(cohort, request):
    return em.fit(line_and_noise, cohort, progressbar=False, **KINDS[request.param])


def test_a_file_brings_back_every_kind_of_group(cohort_fit, tmp_path):
    loaded = em.load(cohort_fit.save(tmp_path / "fit.nc"), model=line_and_noise)
    assert repr(loaded) == repr(cohort_fit)
    assert repr(loaded.group) == repr(cohort_fit.group)
    assert loaded.group.design.people.equals(cohort_fit.group.design.people)
    assert loaded.integration == cohort_fit.integration
    assert loaded.group.plain.model.prior == cohort_fit.group.plain.model.prior
    xr.testing.assert_identical(loaded.subjects, cohort_fit.subjects)
    for name in ("coefficients", "covariance", "shared", "free", "free_covariance"):
        xr.testing.assert_identical(getattr(loaded.group, name), getattr(cohort_fit.group, name))
    np.testing.assert_array_equal(
        loaded.evidence.subjects["log_evidence"], cohort_fit.evidence.subjects["log_evidence"]
    )


def test_draws_of_every_kind_of_group_have_its_errors(cohort_fit):
    idata = cohort_fit.to_inference_data(draws=800, chains=2, log_likelihood=False)
    posterior, group = read_group(idata, "posterior"), cohort_fit.group
    by = (group.design.by,) if group.design.by else ()
    assert posterior["sigma"].dims == ("chain", "draw")
    assert posterior["group_sd"].dims == ("chain", "draw", *by, "parameter")
    np.testing.assert_allclose(np.log(posterior["sigma"]).std(), group.shared_se.item(), rtol=0.1)
    np.testing.assert_allclose(posterior["group_mean"].std(("chain", "draw")), group.mean_se, rtol=0.1)
    if group.design.has_covariates:
        se = np.sqrt(np.diag(group.coefficients_covariance))
        np.testing.assert_allclose(posterior["group_coefficients"].std(("chain", "draw")), se, rtol=0.1)
        assert list(posterior["coefficient"].values) == group.design.labels
    own = np.sqrt(np.diagonal(cohort_fit.subjects["posterior_covariance"].values, axis1=1, axis2=2))
    spread = posterior["gaussian"].std(("chain", "draw")).values
    assert (spread > 0.85 * own).all()
    assert (spread < 2.0 * own).all()


def test_log_likelihood_of_draws_has_each_draws_shared_parameter(cohort, cohort_fit):
    idata = cohort_fit.to_inference_data(draws=2, chains=1, progressbar=False)
    at = read_group(idata, "posterior").isel(chain=0, draw=1)
    mean = at["level"] + at["slope"] * cohort["x"]
    expected = stats.norm(mean, at["sigma"].item()).logpdf(cohort["y"])
    np.testing.assert_allclose(read_group(idata, "log_likelihood")["y"].isel(chain=0, draw=1), expected, rtol=1e-9)
