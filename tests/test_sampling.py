"""NUTS from a fit: it finds the posterior that a fine grid finds, and begins where it should."""

import arviz as az
import numpy as np
import pymc as pm
import pytest
from scipy import stats

import em_ppl as em
from em_ppl import sampling
from em_ppl.compat import read_group

QUIET = {"progressbar": False, "cores": 1}


@em.subject_model(level=em.Real(spread=2.0))
def normal(level, y):
    pm.Normal("y", level, 1.0, observed=y)


@pytest.fixture(scope="module")
def y():
    """Eight people with two observations each."""
    return np.random.default_rng(5).normal(0.5, 1.0, (8, 1)) + np.random.default_rng(6).normal(size=(8, 2))


@pytest.fixture(scope="module")
def fit(y):
    return em.fit(normal, em.from_subjects([{"y": row} for row in y]), progressbar=False)


@pytest.fixture(scope="module")
def nuts(fit):
    return fit.sample(draws=1500, chains=2, **QUIET)


def grid_posterior(y):
    """Means and SDs of the group's mean and log SD, levels integrated out by hand, under the documented priors."""
    mean, log_sd = np.meshgrid(np.linspace(-4, 5, 401), np.linspace(-7, 2.5, 801), indexing="ij")
    sd = np.exp(log_sd)
    log_p = stats.norm(0, 6).logpdf(mean) + stats.halfnorm(scale=2).logpdf(sd) + log_sd
    for row in y:
        log_p += stats.norm(mean, np.sqrt(sd**2 + 0.5)).logpdf(row.mean())
    p = np.exp(log_p - log_p.max())
    p /= p.sum()

    def moments(values):
        centre = (p * values).sum()
        return centre, np.sqrt((p * (values - centre) ** 2).sum())

    return moments(mean), moments(log_sd)


def test_it_finds_the_posterior(nuts, y):
    posterior = read_group(nuts, "posterior")
    for (mean, sd), draws in zip(
        grid_posterior(y), (posterior["group_mean"], np.log(posterior["group_sd"])), strict=True
    ):
        draws = draws.isel(parameter=0, drop=True).rename("x").to_dataset()
        error = sd / np.sqrt(float(az.ess(draws)["x"]))
        assert float(draws["x"].mean()) == pytest.approx(mean, abs=4 * error)
        assert float(draws["x"].std()) == pytest.approx(sd, rel=0.2)
    assert read_group(nuts, "sample_stats")["diverging"].sum() < 10


@pytest.mark.filterwarnings(
    "ignore:Estimated shape parameter of Pareto distribution",  # two observations a person
    "ignore:The inplace keyword",  # of pandas, in ArviZ 0.23
)
def test_it_lies_beside_the_fit(fit, nuts):
    """Same names, dims, coords and rows of log-likelihood: ArviZ compares them as they are."""
    ours = fit.to_inference_data(draws=500, chains=2, progressbar=False)
    for group in ("posterior", "log_likelihood", "observed_data"):
        a, b = read_group(ours, group), read_group(nuts, group)
        assert set(a.data_vars) == set(b.data_vars)
        for name in a.data_vars:
            assert a[name].dims == b[name].dims
            for dim in a[name].dims[2 * (group != "observed_data") :]:
                np.testing.assert_array_equal(a[name][dim].values, b[name][dim].values)
    table = az.compare({"em": ours, "nuts": nuts})
    assert abs(table.iloc[0].iloc[1] - table.iloc[1].iloc[1]) < 2.0


def test_equal_seeds_give_equal_draws(fit, nuts):
    again = fit.sample(draws=1500, chains=2, **QUIET, log_likelihood=False)
    assert read_group(again, "log_likelihood") is None
    np.testing.assert_array_equal(
        read_group(again, "posterior")["gaussian"].values, read_group(nuts, "posterior")["gaussian"].values
    )


def test_labels_of_any_kind(y):
    """PyMC knows numbers and names."""
    labels = ["ann", 2, ("site", 3), 4.5, *"efgh"]
    fit = em.fit(normal, em.from_subjects([{"y": row} for row in y], subjects=labels), progressbar=False)
    nuts = fit.sample(draws=20, tune=20, chains=2, **QUIET, compute_convergence_checks=False)
    assert read_group(nuts, "posterior")["subject"].values[2] == "('site', 3)"
    found = em.agreement(fit, nuts)
    assert list(found.by_subject["subject"].values) == labels
    assert len(em.plot_posterior(fit, nuts, subject=("site", 3)).axes) == 1


def test_it_says_what_it_chose(fit, capsys):
    fit.sample(draws=5, chains=1, tune=5, cores=1, log_likelihood=False, compute_convergence_checks=False)
    assert "NUTS begins at draws of the fit and on its scales." in capsys.readouterr().out
    fit.sample(draws=5, chains=1, tune=5, centred=True, **QUIET, log_likelihood=False, compute_convergence_checks=False)
    assert capsys.readouterr().out == ""


def test_keywords_reach_pymc(fit, monkeypatch):
    seen = {}

    def catch(**settings):
        seen.update(settings)
        raise InterruptedError

    monkeypatch.setattr(pm, "sample", catch)
    with pytest.raises(InterruptedError):
        fit.sample(draws=7, chains=3, tune=11, target_accept=0.93, max_treedepth=7, random_seed=4, progressbar=False)
    assert {name: seen[name] for name in ("draws", "chains", "tune", "random_seed")} == {
        "draws": 7, "chains": 3, "tune": 11, "random_seed": 4,
    }  # fmt: skip
    assert len(seen["initvals"]) == 3
    assert (seen["step"].target_accept, seen["step"].max_treedepth) == (0.93, 7)
    with pytest.raises(InterruptedError):
        fit.sample(nuts_sampler="nutpie", progressbar=False)
    assert set(seen["initvals"]) == {"group_mean", "group_sd", "level_offset"}


@em.subject_model(intercept=em.Real(spread=1.0), slope=em.Real(spread=1.0), sigma=em.Positive(shared=True))
def line(intercept, slope, sigma, x, y):
    pm.Normal("y", intercept + slope * x, sigma, observed=y)


KINDS = {
    "full": {"covariance": "full"},
    "classes": {"covariance": "full", "covariance_by": "site", "covariates": "~ site"},
    "joint Student": {"covariance": "full", "distribution": em.StudentT(4.0)},
    "Laplace": {"distribution": em.Laplace(), "estimator": "exact"},
}


@pytest.mark.filterwarnings("ignore::em_ppl.ConvergenceWarning")
@pytest.mark.parametrize("kind", KINDS)
def test_chains_begin_in_the_posterior(kind):
    """At its starting points every kind of model is about as probable as at a draw of NUTS: half a unit a dimension."""
    generator = np.random.default_rng(2)
    x, own = generator.normal(size=(24, 9)), generator.normal([1.0, -0.5], [0.8, 0.4], (24, 2))
    y = own[:, :1] + own[:, 1:] * x + generator.normal(0.0, 0.5, x.shape)
    people = [{"x": a, "y": b, "site": "ab"[i % 2]} for i, (a, b) in enumerate(zip(x, y, strict=True))]
    fit = em.fit(line, em.from_subjects(people), progressbar=False, **KINDS[kind])
    model = fit.hierarchical_model()
    points = sampling._points(fit, model, 60, np.random.default_rng(0))
    transform = sampling._transformation(model)
    log_density = model.compile_logp(mode="FAST_COMPILE")
    values = np.array([log_density(transform(point)) for point in points])
    n = sum(np.size(value) for value in points[0].values())
    # of a Normal posterior, the log density of a draw is the mode's less a Gamma(n / 2) variable
    assert np.isfinite(values).all()
    assert values.std() < 3 * np.sqrt(n / 2)
    assert values.max() - values.mean() < n


def test_an_sd_of_0_has_room_to_move():
    y = np.tile([[-1.0, 1.0]], (6, 1)) + np.linspace(-0.01, 0.01, 6)[:, None]
    with pytest.warns(em.ConvergenceWarning, match="has gone to 0"):
        fit = em.fit(normal, em.from_subjects([{"y": row} for row in y]), progressbar=False)
    nuts = fit.sample(draws=300, chains=2, **QUIET, log_likelihood=False, compute_convergence_checks=False)
    (_, _), (mean, sd) = grid_posterior(y)
    log_sd = np.log(read_group(nuts, "posterior")["group_sd"])
    assert float(log_sd.mean()) == pytest.approx(mean, abs=0.5 * sd)
