"""Where EM begins, against what is known."""

import numpy as np
import pymc as pm

import em_ppl as em
from em_ppl.start import Look, pooled_mode, starting_point


def test_it_begins_at_the_mean_of_all_as_wide_as_subjects_means_are_spread():
    @em.subject_model(level=em.Real())
    def normal(level, y):
        pm.Normal("y", level, 1.0, observed=y)

    generator = np.random.default_rng(0)
    y = 300 + 20 * generator.normal(size=(40, 1)) + generator.normal(size=(40, 10))
    start, spread = starting_point(normal.compile(em.from_subjects([{"y": row} for row in y])))
    np.testing.assert_allclose(start, y.mean(), rtol=1e-6)  # a millionth is what the weak prior takes
    np.testing.assert_allclose(spread, y.mean(1).std(), rtol=1e-6)


def test_steps_are_shortened_until_they_lead_down():
    """Counts with mean 2, from where nearly nothing is expected: the first step would lead 39 up from -3."""
    seen = []

    def look(z):
        seen.append(z[0])
        rate = np.exp(z[0])
        return Look(np.full(10, 2 * z[0] - rate), np.full((10, 1), 2 - rate), np.full((10, 1, 1), rate))

    start = np.array([-3.0])
    z, here = pooled_mode(look, start, look(start), np.zeros(1), np.full(1, np.inf))
    np.testing.assert_allclose(seen[1], -3 + (2 - np.exp(-3)) / np.exp(-3))
    np.testing.assert_allclose(z, np.log(2), atol=1e-2)
    np.testing.assert_allclose(here.slope, 2 - np.exp(z[0]))
    assert len(seen) < 15


def test_no_step_is_longer_than_is_allowed_for_any_parameter():
    """Normals around (10, -1), steps of at most 4 in the first parameter: 0.4 of the way, 0.4 of what is left, ..."""
    centre, seen = np.array([10.0, -1.0]), []

    def look(z):
        seen.append(z)
        away = np.tile(centre - z, (5, 1))
        return Look(-0.5 * (away**2).sum(1), away, np.tile(np.eye(2), (5, 1, 1)))

    start = np.zeros(2)
    pooled_mode(look, start, look(start), np.zeros(2), np.array([4.0, np.inf]))
    np.testing.assert_allclose(seen, [[0, 0], [4, -0.4], [8, -0.8], [10, -1]], atol=1e-12)


def test_where_nothing_is_possible_it_stays():
    def look(z):
        return Look(np.full(3, -np.inf), np.ones((3, 1)), np.ones((3, 1, 1)))

    start = np.zeros(1)
    assert pooled_mode(look, start, look(start), np.ones(1), np.ones(1))[0] is start
