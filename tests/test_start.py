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
    z, here = pooled_mode(look, start, look(start), np.zeros(1))
    np.testing.assert_allclose(seen[1], -3 + (2 - np.exp(-3)) / np.exp(-3))
    np.testing.assert_allclose(z, np.log(2), atol=1e-2)
    np.testing.assert_allclose(here.slope, 2 - np.exp(z[0]))
    assert len(seen) < 15


def test_where_nothing_is_possible_it_stays():
    def look(z):
        return Look(np.full(3, -np.inf), np.ones((3, 1)), np.ones((3, 1, 1)))

    start = np.zeros(1)
    assert pooled_mode(look, start, look(start), np.ones(1))[0] is start
