"""Model recovery: a coin, and a coin that drifts."""

import numpy as np
import pandas as pd
import pymc as pm
import pytest

import em_ppl as em

TASK = em.Task(60, time=np.linspace(-1, 1, 60))


@em.subject_model(bias=em.Real(spread=1.0))
def coin(bias, heads, time):
    pm.Bernoulli("heads", logit_p=bias + 0 * time, observed=heads)


@em.subject_model(bias=em.Real(spread=1.0), drift=em.Real(spread=1.0))
def drifting(bias, drift, heads, time):
    pm.Bernoulli("heads", logit_p=bias + drift * time, observed=heads)


GROUPS = {coin: {"bias": (0.0, 1.0)}, drifting: {"bias": (0.0, 1.0), "drift": (0.0, 3.0)}}


@pytest.fixture(scope="module")
def table():
    return em.confusion(GROUPS, TASK, 25, repetitions=4, random_seed=1, progressbar=False)


def test_the_right_model_wins(table):
    np.testing.assert_array_equal(table.studies, np.eye(2))
    np.testing.assert_allclose(table.subjects.sum(axis=1), 1.0)
    assert table.subjects.loc["drifting", "drifting"] > 0.7
    assert table.ibic["made"].tolist() == ["coin", "drifting"] * 4
    np.testing.assert_array_equal(table.inversion, np.eye(2))


def test_ibic_is_that_of_the_fit():
    """The first study, made again by hand."""
    table = em.confusion(GROUPS, TASK, 25, repetitions=1, random_seed=1, progressbar=False)
    generator = np.random.default_rng(np.random.SeedSequence(1).spawn(2)[0])
    own, data, seed = (int(s) for s in generator.integers(2**31, size=3))
    people = em.draw_subjects(coin, GROUPS[coin], 25, random_seed=own)
    trials = em.simulate(coin, people, TASK, random_seed=data, progressbar=False)
    fit = em.fit(coin, trials, random_seed=seed, progressbar=False)
    assert table.ibic["coin"][0] == pytest.approx(fit.evidence.ibic)


def test_inversion_is_bayes_with_equal_odds():
    names = ["a", "b"]
    studies = pd.DataFrame([[0.9, 0.1], [0.6, 0.4]], index=names, columns=names)
    inversion = em.Confusion(studies, studies, studies.assign(made=names)).inversion
    np.testing.assert_allclose(inversion, [[0.9 / 1.5, 0.1 / 0.5], [0.6 / 1.5, 0.4 / 0.5]])


def test_it_shows_itself(table):
    assert "4 studies of each model" in repr(table)
    assert table._repr_html_().count("<table") == 2
    left, right = em.plot_confusion(table).axes
    assert [text.get_text() for text in left.texts] == ["1.00", "0.00", "0.00", "1.00"]
    assert [text.get_text() for text in right.texts] == [f"{v:.2f}" for v in table.subjects.to_numpy().ravel()]


def test_one_model_is_not_confused():
    with pytest.raises(ValueError, match="two models or more"):
        em.confusion({coin: GROUPS[coin]}, TASK, 5, progressbar=False)
    with pytest.raises(ValueError, match="repetitions=0"):
        em.confusion(GROUPS, TASK, 5, repetitions=0, progressbar=False)
