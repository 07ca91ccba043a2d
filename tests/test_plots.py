"""The picture of a fit shows what the fit says."""

import numpy as np
import pymc as pm
import pytest
from scipy import stats

import em_ppl as em
from em_ppl.compat import make_inference_data, read_group
from em_ppl.plots.shrinkage import alone


def test_every_subject_is_drawn_with_its_interval_beside_the_group(learner_fits, tmp_path):
    fit = learner_fits["corrected"]
    figure = em.plot_subjects(fit, probability=0.8)
    assert [axes.get_xlabel() for axes in figure.axes] == ["alpha", "beta"]
    z = stats.norm.ppf(0.9)
    for k, (axes, (name, parameter)) in enumerate(zip(figure.axes, fit.parameters.items(), strict=True)):
        mean = fit.subjects["posterior_mean"].values[:, k]
        sd = np.sqrt(fit.subjects["laplace_covariance"].values[:, k, k])
        order = np.argsort(mean)
        dots = axes.lines[1].get_xdata()
        np.testing.assert_allclose(dots, fit.subjects["natural"].sel(parameter=name).values[order])
        segments = np.array(axes.collections[0].get_segments())  # (subject, end, x or y)
        np.testing.assert_allclose(segments[:, 0, 0], parameter.to_natural(mean - z * sd)[order])
        np.testing.assert_allclose(segments[:, 1, 0], parameter.to_natural(mean + z * sd)[order])
        np.testing.assert_allclose(axes.lines[0].get_xdata()[0], fit.summary()["median"][name])
    [legend] = figure.legends
    texts = [text.get_text() for text in legend.get_texts()]
    assert texts == ["group, 80% of people", "group median", "subject, 80% interval", "subject, median"]
    figure.savefig(tmp_path / "fit.png")
    assert (tmp_path / "fit.png").stat().st_size > 10_000


@pytest.fixture(scope="module")
def posterior(learner_fits):
    """Draws of another estimator's posterior stand for those of NUTS, which have the same names."""
    return learner_fits["laplace"].to_inference_data(draws=300, chains=2, log_likelihood=False)


def test_a_notebook_shows_a_picture_once(learner_fits, posterior):
    """Without pyplot, and ArviZ's as well, which pyplot no longer holds."""
    from matplotlib import pyplot

    for figure in (
        em.plot_convergence(learner_fits["corrected"]),
        em.plot_forest(learner_fits["corrected"], posterior),
    ):
        assert figure._repr_png_().startswith(b"\x89PNG")
        assert figure not in map(pyplot.figure, pyplot.get_fignums())


def test_convergence_is_the_history(learner_fits):
    fit = learner_fits["corrected"]
    left, right = em.plot_convergence(fit).axes
    np.testing.assert_array_equal(left.lines[0].get_ydata(), fit.history["change"])
    np.testing.assert_array_equal(right.lines[0].get_ydata(), fit.history["log_evidence"])
    assert left.lines[1].get_ydata()[0] == fit.settings["tol"]
    assert (left.get_yscale(), left.get_xlabel(), right.get_ylabel()) == ("log", "iteration", "log evidence")


def test_shrinkage_goes_from_each_subjects_own_maximum_to_the_group(learner_fits, posterior):
    fit = learner_fits["corrected"]
    figure = em.plot_shrinkage(fit, posterior)
    assert [axes.get_ylabel() for axes in figure.axes] == ["alpha, Gaussian space", "beta, Gaussian space"]
    assert [t.get_text() for t in figure.axes[0].get_xticklabels()] == ["alone (ML)", "EM-MAP", "NUTS mean"]
    nuts = read_group(posterior, "posterior")["gaussian"].mean(("chain", "draw"))
    for k, axes in enumerate(figure.axes):
        paths = np.array([line.get_ydata() for line in axes.lines if len(line.get_ydata()) == 3])
        np.testing.assert_allclose(paths[:, 1], fit.subjects["mode"].values[:, k])
        np.testing.assert_allclose(paths[:, 2], nuts.values[:, k])


def test_alone_is_the_maximum_of_each_subjects_likelihood():
    """Of Normal observations: the mean of the subject's own."""

    @em.subject_model(level=em.Real(spread=1.0))
    def normal(level, y):
        pm.Normal("y", level, 1.0, observed=y)

    y = np.random.default_rng(0).normal(size=(9, 1)) + np.random.default_rng(1).normal(size=(9, 3))
    fit = em.fit(normal, em.from_subjects([{"y": row} for row in y]), progressbar=False)
    np.testing.assert_allclose(alone(fit)[:, 0], y.mean(1), atol=1e-3)


def test_a_subjects_ellipse_is_its_normal_approximation(learner_fits, posterior):
    fit = learner_fits["corrected"]
    figure = em.plot_posterior(fit, posterior, subject=4, probability=0.8)
    own = fit.subjects.sel(subject=4)
    pair = next(axes for axes in figure.axes if axes.get_ylabel() == "beta, Gaussian space")
    draws, inner, outer, centre = pair.lines
    assert len(draws.get_xdata()) == 600
    np.testing.assert_allclose([centre.get_xdata()[0], centre.get_ydata()[0]], own["posterior_mean"])
    for line, probability in ((inner, 0.5), (outer, 0.8)):
        away = np.stack([line.get_xdata(), line.get_ydata()], axis=1) - own["posterior_mean"].values
        squared = np.einsum("ki,ij,kj->k", away, np.linalg.inv(own["posterior_covariance"].values), away)
        np.testing.assert_allclose(squared, stats.chi2.ppf(probability, 2))
    with pytest.raises(ValueError, match="no subject 'nobody'; the first is 0"):
        em.plot_posterior(fit, posterior, subject="nobody")
    other = make_inference_data({"posterior": read_group(posterior, "posterior").isel(subject=slice(3))}, {})
    with pytest.raises(ValueError, match="its subjects differ"):
        em.plot_posterior(fit, other, subject=4)


def test_a_forest_has_both(learner_fits, posterior):
    figure = em.plot_forest(learner_fits["corrected"], posterior, var_names=["group_mean", "alpha"])
    assert figure.get_supxlabel() == "Gaussian space; natural space: alpha"
    texts = [t.get_text() for axes in figure.axes for legend in [axes.get_legend()] if legend for t in legend.texts]
    texts += [t.get_text() for legend in figure.legends for t in legend.texts]
    assert {"EM", "NUTS"} <= set(texts)
    with pytest.raises(ValueError, match="no variable 'gamma' in both"):
        em.plot_forest(learner_fits["corrected"], posterior, var_names=["gamma"])


def test_predictions_lie_beside_the_responses(learner_fits):
    fit = learner_fits["corrected"]
    figure = em.plot_predictions(fit)
    by_trial, by_subject = figure.axes
    choice = fit.data["choice"].values
    predicted, observed = (line.get_ydata() for line in by_trial.lines)
    np.testing.assert_allclose(observed, choice.reshape(len(choice), 20, -1).mean((0, 2)))
    assert np.abs(predicted - observed).max() < 0.12
    given = by_subject.lines[0].get_xdata()
    np.testing.assert_allclose(given, choice.mean(1))
    assert np.corrcoef(given, by_subject.lines[0].get_ydata())[0, 1] > 0.9
    assert (by_subject.get_xlabel(), by_trial.get_ylabel()) == ("mean choice, observed", "mean choice, all subjects")
    with pytest.raises(ValueError, match="no observed variable 'reward'; the fit has choice"):
        em.plot_predictions(fit, var_name="reward")


@pytest.mark.filterwarnings("ignore::em_ppl.ConvergenceWarning")  # four people hardly differ
def test_padding_and_missing_responses_are_not_predicted():
    """And of a choice between three options each has its share."""

    @em.subject_model(a=em.Real(spread=1.0), b=em.Real(spread=1.0))
    def three(a, b, choice):
        pm.Categorical("choice", p=pm.math.softmax(pm.math.stack([a, b, 0.0])), observed=choice)

    generator = np.random.default_rng(0)
    own = [generator.choice(3, size=n, p=[0.5, 0.3, 0.2]).astype(float) for n in (20, 31, 25, 40)]
    own[1][7] = np.nan
    fit = em.fit(three, em.from_subjects([{"choice": c} for c in own]), progressbar=False)
    figure = em.plot_predictions(fit)
    assert [axes.get_ylabel() for axes in figure.axes[::2]] == [
        f"share of choice = {k}, all subjects" for k in range(3)
    ]
    shares = np.array([axes.lines[0].get_xdata() for axes in figure.axes[1::2]])
    np.testing.assert_allclose(shares.sum(0), 1.0)
    np.testing.assert_allclose(shares[0], [np.mean(c[~np.isnan(c)] == 0) for c in own])
    predicted = np.array([axes.lines[0].get_ydata() for axes in figure.axes[1::2]])
    np.testing.assert_allclose(predicted.sum(0), 1.0)


def test_frequencies_and_whose_model_it_is(mixed_people):
    mixture = mixed_people.mixture
    found = mixture.frequencies
    left, right = em.plot_frequencies(mixture).axes
    np.testing.assert_allclose([bar.get_width() for bar in left.patches], found.frequency)
    [interval] = [np.array(c.get_segments())[:, :, 0] for c in left.collections]
    beta = stats.beta(found.counts, found.counts.sum() - found.counts)
    np.testing.assert_allclose(interval, np.column_stack([beta.ppf(0.025), beta.ppf(0.975)]))
    assert [label.get_text() for label in left.get_yticklabels()] == ["coin", "sticky"]
    widths = [bar.get_width() for bar in right.patches]
    np.testing.assert_allclose(widths, [*found.exceedance, *found.protected_exceedance])
    axes = em.plot_attribution(found).axes[0]
    shown = axes.images[0].get_array()
    assert shown.shape == (2, 45)
    best = shown.argmax(0)
    assert (np.diff(best) >= 0).all()  # those of one model stand side by side
    np.testing.assert_allclose(np.sort(shown[0]), np.sort(found.responsibility["coin"]))
    with pytest.raises(TypeError, match="3 is no comparison, mixture"):
        em.plot_frequencies(3)


def test_evidence_differences_by_subject(mixed_people):
    comparison = em.compare(mixed_people.fits, progressbar=False)
    [axes] = em.plot_evidence(comparison).axes
    best, other = comparison.table.index
    difference = (comparison.evidence[best] - comparison.evidence[other]).sort_values()
    np.testing.assert_allclose([bar.get_width() for bar in axes.patches], difference)
    assert axes.get_xlabel() == f"{best} - {other}"
    assert axes.get_title() == f"better for {(difference > 0).sum()} of 45"
