"""Simulated responses have the distribution that the likelihood says, trial by trial, and nothing looks ahead."""

from itertools import product

import numpy as np
import pandas as pd
import pymc as pm
import pytensor
import pytensor.tensor as pt
import pytest
import xarray as xr
from pytensor.scan.utils import until

import em_ppl as em
from em_ppl.models.rescorla_wagner import rescorla_wagner
from em_ppl.models.rescorla_wagner import task as bandit

QUIET = {"progressbar": False}


@em.subject_model(p=em.Unit())
def coin(p, heads):
    pm.Bernoulli("heads", p=p, observed=heads)


@em.subject_model(drive=em.Real())
def two_stages(drive, choice1, state, choice2):
    """The first choice follows the drive, the second the state."""
    pm.Bernoulli("choice1", logit_p=drive + pt.zeros_like(choice1), observed=choice1)
    pm.Bernoulli("choice2", logit_p=40.0 * state - 20.0, observed=choice2)


@pytest.fixture(scope="module")
def crowd():
    """Many equal subjects."""
    return pd.DataFrame({"alpha": np.full(20_000, 0.4), "beta": 3.0})


def test_every_sequence_of_choices_comes_as_often_as_the_likelihood_says(crowd):
    """Three trials; arm 1 pays, arm 0 does not: eight sequences, whose probabilities a loop multiplies."""
    task = em.Task(3, reward=lambda choice: 1.0 * choice)
    data = em.simulate(rescorla_wagner, crowd, task, random_seed=3, progressbar=False)
    for sequence in product([0, 1], repeat=3):
        q, expected = np.zeros(2), 1.0
        for c in sequence:
            p = np.exp(3.0 * q)
            expected *= p[c] / p.sum()
            q[c] += 0.4 * (c - q[c])
        share = (data.choice.values == sequence).all(axis=1).mean()
        assert abs(share - expected) < 4 * np.sqrt(expected * (1 - expected) / len(crowd)), sequence


def test_rewards_are_the_tasks(crowd):
    data = em.simulate(rescorla_wagner, crowd, bandit(4), random_seed=1, progressbar=False)
    for arm, pays in enumerate((0.3, 0.7)):
        rewards = data.reward.values[data.choice.values == arm]
        assert abs(rewards.mean() - pays) < 4 * np.sqrt(pays * (1 - pays) / rewards.size)


def test_a_density_is_drawn_from(crowd):
    @em.subject_model(level=em.Real())
    def walk(level, y):
        before = pt.concatenate([[0.0], y[:-1]])
        pm.Normal("y", mu=level + 0.5 * before, sigma=2.0, observed=y)

    people = pd.DataFrame({"level": np.full(20_000, 1.0)})
    y = em.simulate(walk, people, em.Task(2), random_seed=1, **QUIET).y.values
    error = 2.0 / np.sqrt(len(people))
    assert abs(y[:, 0].mean() - 1.0) < 4 * error
    assert abs(y[:, 1].mean() - 1.5) < 4 * error * np.sqrt(1.25)
    assert abs(y[:, 0].std() - 2.0) < 4 * error
    assert abs(y[:, 1].var() - 5.0) < 4 * 5.0 * np.sqrt(2 / len(people))  # 2^2 + (0.5 x 2)^2
    assert abs(np.corrcoef(y.T)[0, 1] - 0.5 * 2.0 / np.sqrt(5.0)) < 4 / np.sqrt(len(people))


def test_an_answer_may_lie_between_two_responses():
    people = pd.DataFrame({"drive": np.linspace(-3, 3, 40)})
    task = em.Task(30, state=lambda choice1, trial: (choice1 + trial) % 2)
    data = em.simulate(two_stages, people, task, random_seed=1, **QUIET)
    np.testing.assert_array_equal(data.state, (data.choice1 + data.trial) % 2)
    np.testing.assert_array_equal(data.choice2, data.state)
    assert np.corrcoef(data.choice1.mean("trial"), people["drive"])[0, 1] > 0.9


def test_data_are_labelled_and_ready_to_be_fitted():
    people = pd.DataFrame({"p": [0.1, 0.9], "age": [3, 4]}, index=["ann", "bo"])
    data = em.simulate(coin, people, em.Task(12), random_seed=1, **QUIET)
    assert data.subject.values.tolist() == ["ann", "bo"]
    assert data.n_trials.values.tolist() == [12, 12]
    np.testing.assert_array_equal(data["p"], [0.1, 0.9])
    assert coin.compile(data).shape == (2, 1)


def test_equal_seeds_give_equal_data():
    people = em.draw_subjects(coin, {"p": (0.0, 1.0)}, 5, random_seed=1)
    first, again, other = (em.simulate(coin, people, em.Task(20), random_seed=s, **QUIET) for s in (1, 1, 2))
    xr.testing.assert_identical(first, again)
    assert not first.equals(other)


@pytest.mark.parametrize("reads", ["reward", "choice"])
def test_a_likelihood_that_looks_ahead_is_refused(reads):
    """Values after this trial's learning, where those before were meant."""

    @em.subject_model(beta=em.Positive())
    def too_late(beta, choice, reward):
        q = pt.cumsum(reward if reads == "reward" else choice)
        pm.Bernoulli("choice", logit_p=beta * (q - 1), observed=choice)

    people = pd.DataFrame({"beta": np.ones(20)})
    with pytest.raises(em.ModelError, match=r"'choice' in trial \d \(subject \d+\).*already learnt from this trial"):
        em.simulate(too_late, people, em.Task(5, reward=lambda choice: 1.0 + choice), random_seed=1, **QUIET)


@pytest.mark.parametrize(
    "respond",
    [
        lambda p, y: pm.Normal("y", p, 1.0, observed=y),
        lambda p, y: pm.Bernoulli("y", p, observed=y),
        lambda p, y: pm.Categorical("y", pt.stack([p, 1 - p], axis=1), observed=y),
    ],
    ids=["Normal", "Bernoulli", "Categorical"],
)
def test_nothing_is_drawn_from_what_is_no_number(respond):
    """NumPy would draw NaN from a Normal, and the first option from a Categorical, without a word."""

    @em.subject_model(a=em.Real())
    def undefined(a, y):
        respond(pt.where(pt.gt(a, 0) & pt.eq(pt.arange(y.shape[0]), 2), np.nan, 0.5), y)

    people = pd.DataFrame({"a": [-1.0, 1.0]})
    with pytest.raises(em.ModelError, match=r"distribution of 'y' is no number.*subject number 1 .*, trial 2"):
        em.simulate(undefined, people, em.Task(4), random_seed=1, **QUIET)


def test_a_likelihood_of_one_subject_at_a_time_will_do():
    @em.subject_model(p=em.Unit())
    def count_to_ten(p, y):
        """A loop that stops by itself cannot be batched."""
        steps = pytensor.scan(
            lambda n, p: (n + p, until(n + p >= 10.0 * p)),
            outputs_info=[pt.zeros(())],
            non_sequences=[p],
            n_steps=20,
            return_updates=False,
        )
        pm.Bernoulli("y", p=steps[-1] / 10.0 + pt.zeros(y.shape), observed=y)

    with pytest.warns(em.BatchingWarning):
        data = em.simulate(count_to_ten, pd.DataFrame({"p": [0.02, 0.98]}), em.Task(40), random_seed=1, **QUIET)
    assert data.y.values[0].mean() < 0.2
    assert data.y.values[1].mean() > 0.8


def test_a_replay_keeps_lengths_and_offers():
    @em.subject_model(k=em.Positive())
    def accept(k, offer, choice):
        pm.Bernoulli("choice", logit_p=k * offer, observed=choice)

    given = em.from_subjects({"ann": {"offer": [9.0, -9.0, 9.0]}, "bo": {"offer": [-9.0]}})
    people = pd.DataFrame({"k": [5.0, 5.0]}, index=["bo", "ann"])
    data = em.simulate(accept, people, em.Task.replay(given, ["offer"]), random_seed=1, **QUIET)
    assert data.n_trials.values.tolist() == [1, 3]
    assert data.choice.sel(subject="ann").values.tolist() == [1, 0, 1]
    assert data.choice.sel(subject="bo").values[0] == 0


def test_a_fits_own_subjects_go_on(learner_fits):
    fit = learner_fits["corrected"]
    data = em.simulate(rescorla_wagner, fit, bandit(5), random_seed=1, progressbar=False)
    np.testing.assert_allclose(data["alpha"], fit.subjects["natural"].sel(parameter="alpha"))
    np.testing.assert_array_equal(data["subject"], fit.subjects["subject"])


def test_a_group_is_drawn_from():
    people = em.draw_subjects(rescorla_wagner, {"alpha": (-1.0, 0.5), "beta": (1.0, 0.0)}, 10_000, random_seed=1)
    x = em.Unit().to_gaussian(people["alpha"])
    assert abs(x.mean() + 1.0) < 4 * 0.5 / 100
    assert abs(x.std() - 0.5) < 4 * 0.5 / np.sqrt(2 * 10_000)
    np.testing.assert_allclose(people["beta"], np.e)


@pytest.mark.parametrize(
    ("group", "n", "message"),
    [
        ({"alpha": (0, 1)}, 3, "group lacks the parameter 'beta'"),
        ({"alpha": (0, 1), "beta": 2.0}, 3, r"'beta' needs \(mean, SD\)"),
        ({"alpha": (0, 1), "beta": (0, -1)}, 3, r"'beta' needs \(mean, SD\)"),
        ({"alpha": (0, 1), "beta": (0, 1)}, 0, "n_subjects=0"),
    ],
)
def test_bad_groups_are_refused(group, n, message):
    with pytest.raises(ValueError, match=message):
        em.draw_subjects(rescorla_wagner, group, n)


@pytest.mark.parametrize(
    ("people", "task", "message"),
    [
        ({"alpha": [0.5]}, bandit(5), "subjects lacks the parameter 'beta'"),
        ({"alpha": [1.5], "beta": [1.0]}, bandit(5), "'alpha' of Unit.*not strictly between"),
        ({"alpha": [0.5], "beta": [np.nan]}, bandit(5), "'beta'"),
        ({"alpha": [], "beta": []}, bandit(5), "no subjects"),
        ({"alpha": [0.5], "beta": [1.0]}, em.Task(5), "reads a column 'reward' that the task does not have"),
        ({"alpha": [0.5], "beta": [1.0]}, em.Task(5, choice=0, reward=0.0), "'choice', which is .*response"),
    ],
)
def test_bad_simulations_are_refused(people, task, message):
    with pytest.raises(ValueError, match=message):
        em.simulate(rescorla_wagner, pd.DataFrame(people), task, random_seed=1, **QUIET)


def test_a_potential_cannot_be_drawn():
    @em.subject_model(level=em.Real())
    def potential(level, y):
        pm.Potential("loss", -((y - level) ** 2))

    with pytest.raises(em.ModelError, match="a potential says how likely"):
        em.simulate(potential, pd.DataFrame({"level": [0.0]}), em.Task(3), **QUIET)


def test_wrong_kinds_are_named():
    people = pd.DataFrame({"p": [0.5]})
    with pytest.raises(TypeError, match=r"@em\.subject_model"):
        em.simulate(lambda p: p, people, em.Task(3))
    with pytest.raises(TypeError, match=r"must be an em\.Task"):
        em.simulate(coin, people, 30)


def test_fractions_are_not_cut_off():
    """An answer in whole numbers on the first trial makes a column of whole numbers."""
    task = em.Task(5, reward=lambda choice, trial: 0 if trial == 0 else 0.5)
    people = pd.DataFrame({"alpha": [0.5], "beta": [1.0]})
    with pytest.raises(ValueError, match=r"'reward' .* whole numbers on trial 0 and not so on trial 1"):
        em.simulate(rescorla_wagner, people, task, random_seed=1, **QUIET)


def test_an_answer_that_is_missing_is_named():
    task = em.Task(5, reward=lambda choice: np.where(choice < 2, np.nan, 1.0))
    with pytest.raises(ValueError, match="'reward' of the task is missing or infinite in subject 0"):
        em.simulate(rescorla_wagner, pd.DataFrame({"alpha": [0.5], "beta": [1.0]}), task, random_seed=1, **QUIET)
