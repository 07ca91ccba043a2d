"""The picture of a fit shows what the fit says."""

import numpy as np
from scipy import stats

import em_ppl as em


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
