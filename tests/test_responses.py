"""Where responses are drawn from: against loops, closed forms and other ways to draw."""

import numpy as np
import pandas as pd
import pymc as pm
import pytensor.tensor as pt
import pytest
from helpers import simulated_learners
from scipy import stats
from scipy.special import softmax

import em_ppl as em
from em_ppl.models.rescorla_wagner import rescorla_wagner
from em_ppl.responses import distribution, draw

pytestmark = pytest.mark.usefixtures("interpreted")

QUIET = {"progressbar": False}


def test_the_distribution_of_a_learners_choices_is_that_of_a_plain_loop():
    data = simulated_learners(3, 7, random_seed=1).assign_coords(n_trials=("subject", [7, 5, 7]))
    compiled, x = rescorla_wagner.compile(data), np.array([[0.3, 1.0], [-1.0, 0.5], [0.0, 1.5]])
    [p] = distribution(compiled.functions, compiled.functions.trace.terms[0], compiled.subjects, x)
    for i, n in enumerate(data.n_trials.values):
        alpha, beta, q = 1 / (1 + np.exp(-x[i, 0])), np.exp(x[i, 1]), np.zeros(2)
        for t in range(n):
            np.testing.assert_allclose(p[i, t], softmax(beta * q), rtol=1e-12)
            c = int(data.choice[i, t])
            q[c] += alpha * (float(data.reward[i, t]) - q[c])
        assert (p[i, n:] == 0).all()


def test_one_number_for_all_trials_is_repeated():
    @em.subject_model(level=em.Real())
    def normal(level, y):
        pm.Normal("y", level, 2.0, observed=y)

    compiled = normal.compile(em.from_subjects([{"y": np.zeros(3)}, {"y": np.zeros(3)}]))
    x, where = np.array([[1.0], [-1.0]]), np.array([[True, False, True], [False, True, False]])
    arguments = compiled.functions, compiled.functions.trace.terms[0], compiled.subjects, x
    drawn, (mean, sd) = draw(*arguments, where, np.random.default_rng(1))
    np.testing.assert_array_equal(mean, [1, 1, -1])
    np.testing.assert_array_equal(sd, [2, 2, 2])
    np.testing.assert_array_equal(drawn, np.random.default_rng(1).normal([1, 1, -1], 2.0))


def test_what_is_drawn_in_several_steps():
    """Half the reaction times of a mixture come from a distribution of their own."""

    @em.subject_model(level=em.Real(), slow=em.Positive())
    def mixture(level, slow, y):
        parts = [pm.Normal.dist(level, 1.0), pm.Normal.dist(level + 10 * slow, 2.0)]
        pm.Mixture("y", w=pt.stack([0.5, 0.5]), comp_dists=parts, observed=y)

    people = pd.DataFrame({"level": np.zeros(400), "slow": np.full(400, 0.8)})
    data = em.simulate(mixture, people, em.Task(5), random_seed=1, **QUIET)

    def cdf(y):
        return 0.5 * stats.norm(0, 1).cdf(y) + 0.5 * stats.norm(8, 2).cdf(y)

    for trial in range(5):
        assert stats.kstest(data.y[:, trial], cdf).pvalue > 0.01
    assert abs(np.corrcoef(data.y.values.T)[0, 1]) < 0.15


def test_responses_that_are_vectors_have_a_distribution_each():
    @em.subject_model(level=em.Real())
    def pair(level, y):
        pm.Normal("y", pt.stack([level, level + 5.0])[None], 0.1, observed=y)

    data = em.from_subjects([{"y": np.zeros((4, 2))}, {"y": np.zeros((3, 2))}])
    compiled = pair.compile(data)
    arguments = compiled.functions, compiled.functions.trace.terms[0], compiled.subjects, np.array([[0.0], [1.0]])
    drawn, _ = draw(*arguments, compiled.subjects.present["y"], np.random.default_rng(1))
    assert drawn.shape == (7, 2)
    np.testing.assert_allclose(drawn.mean(0), [3 / 7, 5 + 3 / 7], atol=0.15)
