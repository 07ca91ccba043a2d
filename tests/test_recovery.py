"""Recovery of a model whose posterior is known: Normal observations below a Normal group."""

import numpy as np
import pymc as pm
import pytest

import em_ppl as em
from em_ppl.plots import plot_calibration, plot_recovery

QUIET = {"progressbar": False}
SD, N_TRIALS, N_SUBJECTS, REPETITIONS = 0.8, 4, 60, 40


@em.subject_model(level=em.Real(spread=1.0))
def normal(level, y):
    pm.Normal("y", level, 1.0, observed=y)


@pytest.fixture(scope="module")
def recovery():
    task = em.Task(N_TRIALS)
    return em.recover(normal, task, {"level": (0.5, SD)}, N_SUBJECTS, repetitions=REPETITIONS, random_seed=1, **QUIET)


def test_subjects_are_recovered_as_well_as_their_trials_allow(recovery):
    """Reliability r = SD^2 / (SD^2 + 1/n): correlation sqrt(r), shrinkage 1 - r, RMSE sqrt(1 / (n + 1 / SD^2))."""
    table, n = recovery.summary().loc["level"], N_SUBJECTS * REPETITIONS
    reliability = SD**2 / (SD**2 + 1 / N_TRIALS)
    rmse = np.sqrt(1 / (N_TRIALS + 1 / SD**2))
    assert abs(table["correlation"] - np.sqrt(reliability)) < 4 * (1 - reliability) / np.sqrt(n)
    assert abs(table["shrinkage"] - (1 - reliability)) < 4 * np.sqrt(1 - reliability) / np.sqrt(n) + 1 / N_SUBJECTS
    assert abs(table["rmse"] - rmse) < 4 * rmse / np.sqrt(2 * n) + rmse / N_SUBJECTS  # the group is estimated, too
    assert abs(table["bias"]) < 4 * rmse / np.sqrt(n)
    assert abs(table["coverage"] - 0.95) < 4 * np.sqrt(0.95 * 0.05 / n)


def test_the_group_is_recovered_within_its_standard_errors(recovery):
    table = recovery.group_summary()
    assert list(table.index) == ["mean[level]", "log_sd[level]"]
    np.testing.assert_allclose(table["truth"], [0.5, np.log(SD)])
    error = np.sqrt((SD**2 + 1 / N_TRIALS) / N_SUBJECTS)
    assert abs(table["rmse"]["mean[level]"] - error) < 4 * error / np.sqrt(2 * REPETITIONS)
    np.testing.assert_allclose(table["standard_error"]["mean[level]"], error, rtol=0.05)
    assert (abs(table["bias"]) < 4 * table["error"] + 0.02).all()  # an SD is too low by 1 / 2N
    assert (table["coverage"] > 0.95 - 4 * np.sqrt(0.95 * 0.05 / REPETITIONS)).all()
    assert recovery.converged.all()


def test_ranks_are_uniform(recovery):
    """Kolmogorov's statistic, against 1.95 / sqrt(n), which one in a thousand exceeds."""
    for data, dim in ((recovery.subjects, "parameter"), (recovery.group, "free")):
        for name in data[dim].values:
            ranks = np.sort(data["rank"].sel({dim: name}).values.ravel())
            away = np.abs(ranks - (np.arange(ranks.size) + 0.5) / ranks.size).max()
            assert away < 1.95 / np.sqrt(ranks.size), name


def test_processes_change_nothing(recovery):
    settings = {"repetitions": 3, "random_seed": 1} | QUIET
    alone = em.recover(normal, em.Task(N_TRIALS), {"level": (0.5, SD)}, 10, **settings)
    together = em.recover(normal, em.Task(N_TRIALS), {"level": (0.5, SD)}, 10, n_jobs=2, **settings)
    np.testing.assert_array_equal(alone.subjects["estimate"], together.subjects["estimate"])
    np.testing.assert_array_equal(alone.group["rank"], together.group["rank"])


def test_a_group_may_be_drawn_itself():
    """And a shared parameter is one number of the group."""

    @em.subject_model(level=em.Real(spread=1.0), sigma=em.Positive(shared=True))
    def noisy(level, sigma, y):
        pm.Normal("y", level, sigma, observed=y)

    def prior(rng):
        return {"level": (rng.normal(0, 5), 1.0), "sigma": (rng.normal(0, 0.5), 0.0)}

    found = em.recover(noisy, em.Task(10), prior, 30, repetitions=6, random_seed=2, **QUIET)
    truth = found.group["truth"]
    assert list(found.subjects["parameter"].values) == ["level"]
    assert np.corrcoef(truth.sel(free="mean[level]"), found.group["estimate"].sel(free="mean[level]"))[0, 1] > 0.99
    z = (found.group["estimate"] - truth) / found.group["sd"]
    assert (abs(z.sel(free="shared[sigma]")) < 4).all()


def test_it_prints_both_tables(recovery):
    text = repr(recovery)
    assert "60 simulated subjects, 40 repetitions, 40 converged" in text
    assert "correlation" in text
    assert "log_sd[level]" in text
    assert recovery._repr_html_().count("<table") == 2


def test_pictures_show_truth_and_ranks(recovery):
    [axes] = plot_recovery(recovery).axes
    np.testing.assert_array_equal(axes.lines[0].get_xdata(), recovery.subjects["truth"].values.ravel())
    np.testing.assert_array_equal(axes.lines[0].get_ydata(), recovery.subjects["estimate"].values.ravel())
    left, right = plot_calibration(recovery).axes
    assert [text.get_text() for text in right.get_legend().texts] == ["mean[level]", "log_sd[level]"]
    ranks = recovery.subjects["rank"].values.ravel()
    x, y = left.lines[1].get_data()
    np.testing.assert_allclose(y, [(ranks <= r).mean() - r for r in x])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"group": {"lvl": (0, 1)}}, "group lacks the parameter 'level'"),
        ({"repetitions": 0}, "repetitions=0"),
        ({"n_subjects": 1.5}, "n_subjects=1.5"),
    ],
)
def test_bad_studies_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        em.recover(normal, em.Task(3), **{"group": {"level": (0, 1)}, "n_subjects": 5} | settings | QUIET)
