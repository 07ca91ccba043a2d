"""Predicted responses, their probabilities, and what they say of a fit's quality."""

import numpy as np
import pandas as pd
import pymc as pm
import pytest
from scipy import special

import em_ppl as em
from em_ppl.models.rescorla_wagner import rescorla_wagner
from em_ppl.models.rescorla_wagner import task as bandit

QUIET = {"progressbar": False}


@pytest.fixture(scope="module")
def fit(learner_fits):
    return learner_fits["corrected"]


def probability_of_arm_1(alpha, beta, choice, reward):
    q, p = np.zeros(2), []
    for c, r in zip(choice, reward, strict=True):
        p.append(special.expit(beta * (q[1] - q[0])))
        q[c] += alpha * (r - q[c])
    return np.array(p)


@pytest.fixture(scope="module")
def by_hand(fit):
    """Probability of arm 1, (subject, trial), by a loop."""
    natural = fit.subjects["natural"].to_pandas()
    columns = (natural["alpha"], natural["beta"], fit.data["choice"].values, fit.data["reward"].values)
    return np.array([probability_of_arm_1(*own) for own in zip(*columns, strict=True)])


def test_probabilities_are_those_of_a_plain_loop(fit, by_hand):
    said = fit.response_probabilities()
    np.testing.assert_allclose(said["choice"].sel(choice_option=1), by_hand, rtol=1e-8)
    np.testing.assert_allclose(said["choice"].sum("choice_option"), 1.0, rtol=1e-8)
    given = np.where(fit.data["choice"] == 1, by_hand, 1 - by_hand)
    np.testing.assert_allclose(said["choice_given"], given, rtol=1e-8)


def test_quality_is_that_of_a_plain_loop(fit, by_hand):
    table, choice = fit.quality(), fit.data["choice"].values
    given = np.where(choice == 1, by_hand, 1 - by_hand)
    right = np.where(by_hand == 0.5, 0.5, (by_hand > 0.5) == choice)  # on the first trial
    np.testing.assert_allclose(table["log_likelihood"], np.log(given).sum(1))
    np.testing.assert_allclose(table["probability"], np.exp(np.log(given).mean(1)))
    np.testing.assert_allclose(table["accuracy"], right.mean(1))
    np.testing.assert_allclose(table["pseudo_r2"], 1 - np.log(given).mean(1) / np.log(0.5))
    assert (table["responses"] == 120).all()
    assert list(table.index) == fit.subjects["subject"].values.tolist()


@pytest.mark.filterwarnings("ignore::em_ppl.ConvergenceWarning")  # few people
def test_missing_responses_and_options_out_of_reach_do_not_count():
    """Three options, of which the third is on offer in every other trial."""

    @em.subject_model(bias=em.Real(spread=1.0))
    def menu(bias, offered, choice):
        logits = pm.math.stack([bias + 0 * offered, 0 * offered, pm.math.where(offered > 0, 0.0, -np.inf)], axis=1)
        pm.Categorical("choice", logit_p=logits, observed=choice)

    offered = np.tile([0.0, 1.0], 6)
    people = [{"offered": offered, "choice": np.where(offered > 0, k % 3, k % 2).astype(float)} for k in range(6)]
    people[0]["choice"][[0, 3]] = np.nan
    people[1] = {name: values[:5] for name, values in people[1].items()}
    fit = em.fit(menu, em.from_subjects(people), **QUIET)
    said, table = fit.response_probabilities(), fit.quality()
    assert table["responses"].tolist() == [10, 5, 12, 12, 12, 12]
    assert np.isnan(said["choice_given"].values[0, [0, 3]]).all()
    assert np.isnan(said["choice"].values[1, 5:]).all()
    np.testing.assert_array_equal(said["choice"].values[2, ::2, 2], 0.0)
    chance = [5 * np.log(2) + 5 * np.log(3), 3 * np.log(2) + 2 * np.log(3)] + [6 * np.log(6)] * 4
    np.testing.assert_allclose(table["pseudo_r2"], 1 + table["log_likelihood"] / chance)
    drawn = fit.predict(draws=7, progressbar=False)["choice"].values
    assert np.isnan(drawn[:, 0, [0, 3]]).all()
    assert np.isnan(drawn[:, 1, 5:]).all()
    assert np.nanmax(drawn[:, :, ::2]) == 1.0


def test_a_density_has_no_options():
    @em.subject_model(level=em.Real())
    def normal(level, y):
        pm.Normal("y", level, 1.0, observed=y)

    fit = em.fit(normal, em.from_subjects([{"y": [a / 2, a / 2 + 1]} for a in range(50)]), **QUIET)
    table = fit.quality()
    assert list(fit.response_probabilities()) == ["y_given"]
    assert table[["accuracy", "pseudo_r2"]].isna().all(axis=None)
    z = np.array([[a / 2, a / 2 + 1] for a in range(50)]) - fit.subjects["natural"].values
    np.testing.assert_allclose(table["log_likelihood"], (-0.5 * z**2 - 0.5 * np.log(2 * np.pi)).sum(1))


def test_one_step_ahead_a_learner_follows_its_own_history(fit, by_hand):
    drawn = fit.predict(draws=200, progressbar=False)["choice"]
    assert drawn.dims == ("draw", "subject", "trial")
    away = drawn.mean("draw").values - by_hand
    assert abs(away.mean()) < 0.01
    # parameters vary between draws; the rest is the noise of 200 choices
    assert np.sqrt((away**2).mean()) < 0.06


def test_free_running_a_learner_follows_itself(fit):
    """Against a plain loop: how often the better arm is chosen, late in the task."""
    task = bandit(40)
    drawn = fit.predict(draws=100, task=task, random_seed=1, progressbar=False)
    assert drawn["choice"].shape == (100, 60, 40)
    natural, generator = fit.subjects["natural"].to_pandas(), np.random.default_rng(3)
    q, choices = np.zeros((60, 400, 2)), []
    alpha, beta = natural["alpha"].values[:, None], natural["beta"].values[:, None]
    for _ in range(40):
        c = (generator.random((60, 400)) < special.expit(beta * (q[..., 1] - q[..., 0]))).astype(int)
        r = generator.random(c.shape) < np.array([0.3, 0.7])[c]
        old = np.take_along_axis(q, c[..., None], -1)[..., 0]
        np.put_along_axis(q, c[..., None], (old + alpha * (r - old))[..., None], -1)
        choices.append(c)
    late = np.mean(choices[20:], axis=(0, 2))
    away = drawn["choice"].isel(trial=slice(20, None)).mean(("draw", "trial")).values - late
    assert np.sqrt((away**2).mean()) < 0.04
    assert abs(away.mean()) < 0.01


def test_equal_seeds_give_equal_predictions(fit):
    first, again, other = (fit.predict(draws=3, random_seed=s, progressbar=False) for s in (1, 1, 2))
    assert first.equals(again)
    assert not first.equals(other)


def test_draws_of_nuts_will_do(fit, learner_fits):
    idata = learner_fits["laplace"].to_inference_data(draws=50, chains=2, log_likelihood=False)
    assert fit.predict(idata, draws=30, progressbar=False)["choice"].shape == (30, 60, 120)


def test_a_shared_parameter_goes_with_everybody():
    @em.subject_model(level=em.Real(), sigma=em.Positive(shared=True))
    def normal(level, sigma, y):
        pm.Normal("y", level, sigma, observed=y)

    y = np.random.default_rng(1).normal(np.arange(40)[:, None], 3.0, size=(40, 20))
    fit = em.fit(normal, em.from_subjects([{"y": row} for row in y]), **QUIET)
    drawn = fit.predict(draws=200, progressbar=False)["y"].values
    assert abs(drawn.std(2, ddof=1).mean() - y.std(1, ddof=1).mean()) < 0.1
    people = em.simulate(normal, fit, em.Task(3), random_seed=1, **QUIET)
    np.testing.assert_allclose(people["sigma"], fit.summary()["median"]["sigma"])


def test_deterministics_are_those_of_a_plain_loop(fit):
    natural = fit.subjects["natural"].to_pandas()
    said = fit.deterministics()["prediction_error"].values
    columns = (said, natural["alpha"], fit.data["choice"].values, fit.data["reward"].values)
    for own, alpha, choice, reward in zip(*columns, strict=True):
        q, errors = np.zeros(2), []
        for c, r in zip(choice, reward, strict=True):
            errors.append(r - q[c])
            q[c] += alpha * errors[-1]
        np.testing.assert_allclose(own, errors, rtol=1e-8)


@pytest.mark.filterwarnings("ignore::em_ppl.ConvergenceWarning")  # few people
def test_deterministics_of_any_shape():
    @em.subject_model(level=em.Real(), slope=em.Real())
    def line(level, slope, x, y):
        pm.Deterministic("doubled", 2 * level)
        pm.Deterministic("parts", pm.math.stack([level + 0 * x, slope * x], axis=1))
        seen = pm.Normal("y", level + slope * x, 1.0, observed=y)
        pm.Deterministic("residual", seen - (level + slope * x))

    x = np.linspace(-1, 1, 6)
    people = [{"x": x[:n], "y": k + np.sin(3.0 * np.arange(n))} for k, n in enumerate([6, 4, 5, 6])]
    people[0]["y"][2] = np.nan
    fit = em.fit(line, em.from_subjects(people), **QUIET)
    said = fit.deterministics()
    assert {name: v.dims for name, v in said.items()} == {
        "doubled": ("subject",),
        "parts": ("subject", "trial", "parts_dim_0"),
        "residual": ("subject", "trial"),
    }
    level, slope = fit.subjects["natural"].values.T
    np.testing.assert_allclose(said["doubled"], 2 * level)
    for k, person in enumerate(people):
        n = len(person["y"])
        seen = ~np.isnan(person["y"])
        np.testing.assert_allclose(said["residual"][k, :n], person["y"] - level[k] - slope[k] * person["x"])
        np.testing.assert_allclose(said["parts"][k, :n][seen], np.c_[level[k] + 0 * x, slope[k] * x][:n][seen])
        assert np.isnan(said["parts"][k, :n][~seen]).all()
        assert np.isnan(said["residual"][k, n:]).all()


def test_deterministics_that_are_none_or_too_long_are_refused():
    @em.subject_model(level=em.Real())
    def silent(level, y):
        pm.Normal("y", level, 1.0, observed=y)

    @em.subject_model(level=em.Real())
    def late(level, y):
        pm.Deterministic("after", pm.math.concatenate([[level], y]))
        pm.Normal("y", level, 1.0, observed=y)

    data = em.from_subjects([{"y": [a / 2, a / 2 + 1]} for a in range(100)])
    with pytest.raises(ValueError, match=r'silent names nothing .* pm.Deterministic\("prediction_error"'):
        em.fit(silent, data, **QUIET).deterministics()
    with pytest.raises(em.ModelError, match=r"'after' would have \+1 rows more than there are trials"):
        em.fit(late, data, **QUIET)


def test_what_cannot_predict_is_refused(fit, tmp_path):
    fit.save(tmp_path / "fit.nc")
    loaded = em.load(tmp_path / "fit.nc")
    for call in (loaded.predict, loaded.quality, loaded.response_probabilities, loaded.deterministics):
        with pytest.raises(ValueError, match="loaded without its model"):
            call()
    assert em.load(tmp_path / "fit.nc", model=rescorla_wagner).quality().equals(fit.quality())
    assert isinstance(fit.quality(), pd.DataFrame)


@pytest.mark.filterwarnings("ignore::em_ppl.ConvergenceWarning")  # subjects do not differ
def test_a_free_run_that_looks_ahead_is_refused():
    @em.subject_model(beta=em.Positive())
    def too_late(beta, choice, reward):
        pm.Bernoulli("choice", logit_p=beta * (reward - 0.5), observed=choice)

    rng = np.random.default_rng(0)
    people = [{"choice": rng.integers(0, 2, 20), "reward": rng.integers(0, 2, 20) / 1.0} for _ in range(30)]
    for person in people:
        person["choice"] = np.where(rng.random(20) < 0.7, person["reward"].astype(int), person["choice"])
    fit = em.fit(too_late, em.from_subjects(people), **QUIET)
    with pytest.raises(em.ModelError, match="already learnt from this trial"):
        fit.predict(draws=5, task=em.Task(6, reward=lambda choice: 1.0 * choice), progressbar=False)


def test_a_density_too_small_for_a_number_has_a_logarithm():
    @em.subject_model(level=em.Real(spread=1.0))
    def precise(level, y):
        pm.Normal("y", level, 0.01, observed=y)

    y = np.array([[0.0, 1.0], [0.5, 1.5], [1.0, 2.5]])
    fit = em.fit(precise, em.from_subjects([{"y": row} for row in y]), **QUIET)
    z = (y - fit.subjects["natural"].values) / 0.01
    expected = (-0.5 * z**2 - np.log(0.01 * np.sqrt(2 * np.pi))).sum(1)
    assert (expected < -745).all()
    np.testing.assert_allclose(fit.quality()["log_likelihood"], expected)
