import numpy as np
import pytest

import em_ppl as em


def test_shows_itself():
    task = em.Task(10, offer=np.arange(10.0), reward=lambda choice, rng: choice, noise=lambda subject, rng: 0.0)
    assert repr(task) == "Task of 10 trials: offer, reward (after choice), noise"
    assert repr(em.Task(3)) == "Task of 3 trials: responses alone"


def test_answers_come_as_soon_as_they_can():
    task = em.Task(
        2,
        reward=lambda state, choice2: 0.0,
        state=lambda choice1, cue: 0,
        cue=lambda trial, offer: 0,
        offer=1.0,
        setting=lambda cue, scale=3.0: cue,
    )
    assert task.order(["choice1", "choice2"]) == ["cue", "setting", "choice1", "state", "choice2", "reward"]


def test_an_array_is_everybodys_and_one_number_every_trials():
    task = em.Task(3, offer=[1, 2, 3], probability=0.5)
    shown = task.shown_to(np.array(["ann", "bo"]))
    np.testing.assert_array_equal(shown["offer"], [[1, 2, 3], [1, 2, 3]])
    np.testing.assert_array_equal(shown["probability"], np.full((2, 3), 0.5))
    assert shown["offer"].dtype == np.int64


def test_replay_shows_each_subject_its_own_trials():
    data = em.from_subjects({"ann": {"offer": [1.0, 3.0], "choice": [0, 1]}, "bo": {"offer": [2.0], "choice": [1]}})
    task = em.Task.replay(data, ["offer"], reward=lambda choice: choice)
    shown = task.shown_to(np.array(["bo", "ann"]))
    assert shown["offer"][0, 0] == 2.0
    np.testing.assert_array_equal(shown["offer"][1], [1.0, 3.0])
    np.testing.assert_array_equal(task.lengths_of(np.array(["bo", "ann"])), [1, 2])
    with pytest.raises(ValueError, match="subject 'cy' had none"):
        task.shown_to(np.array(["cy"]))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: em.Task(0), "n_trials=0 must be a whole number"),
        (lambda: em.Task(2.5), "n_trials=2.5"),
        (lambda: em.Task(3, offer=[1, 2]), "'offer' of the task has 2 trials, not n_trials=3"),
        (lambda: em.Task(2, offer=[1.0, np.nan]), "missing or infinite in trial 1"),
        (lambda: em.Task(2, offer=["a", "b"]), "not numbers"),
        (lambda: em.Task(2, rng=[1, 2]), "cannot be called 'rng'"),
        (lambda: em.Task(2, reward=lambda chioce: 0).order(["choice"]), "'reward' of the task asks for 'chioce'"),
        (lambda: em.Task(2, a=lambda b: 0, b=lambda a: 0).order([]), "which never comes"),
        (lambda: em.Task(2, r=lambda: np.zeros(3)).answer("r", {}, 2), r"shape \(3,\): it must be \(2, ...\)"),
        (lambda: em.Task(2, r=lambda: ["x", "y"]).answer("r", {}, 2), "not numbers"),
    ],
)
def test_bad_tasks_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_replay_refuses_gaps_and_what_does_not_change_by_trial():
    data = em.from_subjects({"ann": {"offer": [1.0, np.nan], "age": 30.0}})
    with pytest.raises(ValueError, match="'offer' is missing or infinite at subject 'ann', trial 1"):
        em.Task.replay(data, ["offer"])
    with pytest.raises(ValueError, match="only what changes by trial"):
        em.Task.replay(data, ["age"])
    with pytest.raises(ValueError, match="'bid'"):
        em.Task.replay(data, ["bid"])
