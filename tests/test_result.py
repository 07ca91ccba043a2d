"""What a fit says of itself: names, tables, text, HTML."""

import numpy as np
import pytest


def test_group_is_labelled_in_the_order_of_declaration(learner_fits):
    group = learner_fits["corrected"].group
    for array in (group.mean, group.sd, group.mean_se, group.sd_se):
        assert list(array["parameter"].values) == ["alpha", "beta"]
    assert group.covariance.dims == ("parameter", "parameter_2")
    np.testing.assert_allclose(group.sd**2, np.diag(group.covariance))
    np.testing.assert_array_equal(group.correlation, np.eye(2))
    assert list(group.free["free"].values) == ["mean[alpha]", "mean[beta]", "log_sd[alpha]", "log_sd[beta]"]


def test_subjects_hang_together(learner_fits, learners):
    fit = learner_fits["corrected"]
    table = fit.subjects
    np.testing.assert_array_equal(table["subject"], learners["subject"])
    for k, (name, parameter) in enumerate(fit.parameters.items()):
        np.testing.assert_array_equal(
            table["natural"].sel(parameter=name), parameter.to_natural(table["posterior_mean"].values[:, k])
        )
    compiled = fit.model.compile(fit.data)
    mode = table["mode"].values
    np.testing.assert_allclose(table["log_likelihood"], compiled.log_likelihood(mode), rtol=1e-10)
    posterior = compiled.log_posterior(mode, fit.group.mean, fit.group.covariance)
    np.testing.assert_allclose(table["log_posterior"], posterior, rtol=1e-10)
    determinant = np.linalg.slogdet(2 * np.pi * table["laplace_covariance"].values)[1]
    np.testing.assert_allclose(table["log_evidence"], posterior + determinant / 2, rtol=1e-10)
    assert fit.log_evidence == pytest.approx(table["log_evidence"].sum().item())
    assert fit.log_evidence == pytest.approx(fit.history["log_evidence"].values[-1])
    np.testing.assert_array_equal(table["n_trials"], 120)


def test_classic_takes_the_mode_for_the_mean(learner_fits):
    table = learner_fits["laplace"].subjects
    np.testing.assert_array_equal(table["mode"], table["posterior_mean"])


def test_summary(learner_fits):
    fit = learner_fits["corrected"]
    table = fit.summary()
    assert list(table.index) == ["alpha", "beta"]
    assert list(table.columns) == ["link", "median", "mean", "mean_se", "sd", "sd_se", "known"]
    assert table["median"]["alpha"] == pytest.approx(1 / (1 + np.exp(-table["mean"]["alpha"])))
    assert table["median"]["beta"] == pytest.approx(np.exp(table["mean"]["beta"]))
    variance = fit.subjects["laplace_covariance"].values[:, 0, 0].mean()
    assert table["known"]["alpha"] == pytest.approx(1 - variance / table["sd"]["alpha"] ** 2)


def test_standard_errors_of_sds_are_those_of_their_logs(learner_fits):
    group = learner_fits["corrected"].group
    of_logs = np.sqrt(np.diag(group.free_covariance))[2:4]
    np.testing.assert_allclose(group.sd_se, group.sd * of_logs, rtol=1e-6)


def test_text_and_html_show_the_same_table(learner_fits):
    fit = learner_fits["corrected"]
    text, html = repr(fit), fit._repr_html_()
    assert text.startswith("EM-MAP fit of rescorla_wagner (corrected, diagonal covariance): 60 subjects, 7200 trials\n")
    assert f"converged after {fit.iterations} iterations" in text
    for shown in ("alpha", "beta", "logit", "mean_se", f"{fit.summary()['mean']['alpha']:.4g}"):
        assert shown in text
        assert shown in html
    assert html.count("<table") == 1
    assert "<script" not in html
    assert max(map(len, text.splitlines())) <= 100


def test_a_fit_is_frozen(learner_fits):
    with pytest.raises(AttributeError, match="cannot assign"):
        learner_fits["corrected"].group = None
