"""Models of learning, against another implementation, each other, and what the papers show."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import em_ppl as em
from em_ppl.models.go_nogo_pavlovian import go_nogo_pavlovian
from em_ppl.models.go_nogo_pavlovian import task as cues_task
from em_ppl.models.hgf_binary import hgf_binary
from em_ppl.models.two_step import task as two_step_task
from em_ppl.models.two_step import two_step
from em_ppl.models.two_step_model_based import two_step_model_based
from em_ppl.models.two_step_model_free import two_step_model_free


def simulate(model, n_subjects, task, **person):
    """Simulate subjects that are all the same."""
    people = pd.DataFrame([person] * n_subjects)
    return em.simulate(model, people, task, random_seed=1, progressbar=False)


def test_beliefs_of_the_hierarchical_gaussian_filter_are_those_of_pyhgf():
    """Its expected mean of a binary state (version 0.3.2, in double precision), before each outcome.

    The network is a binary state below a continuous one of mean 0, precision 10 and tonic volatility -2.
    """
    u = np.array([1, 1, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 1, 1, 1, 1, 1, 1])
    expected = [0.5, 0.52775381, 0.56615563, 0.50762812, 0.56689614, 0.49102994, 0.42093244, 0.36025235, 0.45786377]
    expected += [0.38590118, 0.3276364, 0.28082021, 0.24302398, 0.35670603, 0.30043752, 0.41584148, 0.51868585]
    expected += [0.60125282, 0.66543669, 0.71544051]
    first_k = em.from_subjects([{"u": u[:k], "y": np.ones(k, dtype=int)} for k in range(1, 21)])
    x = np.tile([-2.0, 0.0], (20, 1))  # zeta = 1: P(y = 1) is the belief
    value = hgf_binary.compile(first_k).log_likelihood(x)
    np.testing.assert_allclose(np.exp(np.diff(value, prepend=0.0)), expected, rtol=2e-8)


@pytest.mark.long
def test_planning_and_habit_alone_are_ends_of_the_hybrid():
    person = {"alpha1": 0.5, "alpha2": 0.4, "lambda_": 0.6, "beta1": 5.0, "beta2": 4.0, "w": 0.4, "stickiness": 0.2}
    data = simulate(two_step, 2, two_step_task(), **person)
    x = np.array([[0.1, -0.4, 0.4, 1.6, 1.4, 0.0, 0.2]] * 2)
    compiled = two_step.compile(data)
    for w, end in ((-50.0, two_step_model_free), (50.0, two_step_model_based)):
        x[:, 5] = w
        alone = end.compile(data)
        kept = [k for k, name in enumerate(two_step.parameters) if name in end.parameters]
        np.testing.assert_allclose(compiled.log_likelihood(x), alone.log_likelihood(x[:, kept]), rtol=1e-12)


def staying(data):
    """How often the first action is repeated, by reward (rows) and common transition (columns) of the trial before."""
    stay = data["choice1"].values[:, 1:] == data["choice1"].values[:, :-1]
    reward, common = data["reward"].values[:, :-1] == 1, (data["state2"] == data["choice1"]).values[:, :-1]
    return np.array([[stay[(reward == r) & (common == c)].mean() for c in (False, True)] for r in (False, True)])


def test_habit_repeats_what_was_rewarded_and_planning_asks_how_it_came_about():
    """Figure 2 of Daw et al. (2011): reward has a main effect under habit, and interacts with transitions else."""
    person = {"alpha2": 0.5, "beta1": 5.0, "beta2": 4.0, "stickiness": 0.0}
    habit = staying(simulate(two_step_model_free, 60, two_step_task(), alpha1=0.5, lambda_=0.99, **person))
    plan = staying(simulate(two_step_model_based, 60, two_step_task(), **person))
    assert (habit[1] - habit[0] > 0.2).all()
    np.testing.assert_allclose(np.diff(habit), 0.0, atol=0.04)
    assert plan[1, 1] - plan[0, 1] > 0.1  # after a common transition reward makes one stay,
    assert plan[1, 0] - plan[0, 0] < -0.1  # after a rare one go


@pytest.mark.long
def test_two_goes_by_hand():
    """A reward of 4, half of it learnt: q = v = 2, so that z = 2 + 0.5 + 0.25 x 2 = 3 on the second trial."""
    data = em.from_subjects([{"cue": [0, 0], "go": [1, 1], "outcome": [1.0, 1.0]}])
    x = [[0.0, np.log(4), 0.0, 0.5, 0.25, np.log(0.1 / 0.9)]]
    value = go_nogo_pavlovian.compile(data).log_likelihood(x)
    p = 0.05 + 0.9 / (1 + np.exp(-np.array([0.5, 3.0])))
    np.testing.assert_allclose(value, np.log(p).sum())


def test_a_pavlovian_bias_makes_action_hard_to_learn_under_threat_and_inaction_for_reward():
    """The pattern of Guitart-Masip et al. (2012): go to win above no-go to win, no-go to avoid above go to avoid."""
    person = {"alpha": 0.2, "rho_reward": 5.0, "rho_punishment": 5.0, "go_bias": 0.0, "pavlovian_bias": 0.6, "xi": 0.05}
    data = simulate(go_nogo_pavlovian, 60, cues_task(), **person)
    right = data["go"].values == (data["cue"].values < 2)
    go_win, go_avoid, nogo_win, nogo_avoid = (right[data["cue"].values == cue].mean() for cue in range(4))
    assert go_win > nogo_win + 0.1
    assert nogo_avoid > go_avoid + 0.1
