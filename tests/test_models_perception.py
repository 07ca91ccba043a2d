"""Models of perception, against numbers that are known in closed form or published."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import ndtr, ndtri

import em_ppl as em
from em_ppl.models.bayesian_observer import bayesian_observer
from em_ppl.models.meta_d import meta_d
from em_ppl.models.poisson_regression import poisson_regression
from em_ppl.models.signal_detection import signal_detection


def one_subject(model, counts, **columns):
    """Compile for one subject: each row of the columns comes as often as counts says."""
    rows = {name: np.repeat(values, counts) for name, values in columns.items()}
    return model.compile(em.from_subjects([rows]))


def test_signal_detection_is_most_likely_at_the_textbook_formulas():
    """Hit rate 0.8, false-alarm rate 0.4: d' = 1.095, c = -0.294."""
    compiled = one_subject(
        signal_detection, [20, 5, 10, 15], signal=np.array([1, 1, 0, 0]), response=np.array([1, 0, 1, 0])
    )
    hit, false_alarm = ndtri(0.8), ndtri(0.4)
    x = np.array([[hit - false_alarm, -(hit + false_alarm) / 2]])
    np.testing.assert_allclose(x, [[1.095, -0.294]], atol=5e-4)
    value, gradient = compiled.value_and_gradient(x)
    np.testing.assert_allclose(value, 20 * np.log(0.8) + 5 * np.log(0.2) + 10 * np.log(0.4) + 15 * np.log(0.6))
    np.testing.assert_allclose(gradient, 0, atol=1e-10)


def ratings(from_0, from_1):
    """Tell counts from surely 0 to surely 1 by stimulus as metadPy does; return them and the columns of meta_d."""
    level = np.tile(np.arange(8), 2)
    return np.concatenate([from_0, from_1]), {
        "stimulus": np.repeat([0, 1], 8),
        "response": (level > 3).astype(int),
        "confidence": np.where(level > 3, level - 4, 3 - level),
    }


@pytest.mark.long
def test_meta_d_of_the_example_of_metadpy():
    """metadPy's maximum-likelihood fit, with 1/8 added to each count: d' = 1.535, meta-d' = 1.634, M-ratio = 1.064.

    It takes d' from the answers alone, and gives either answer thresholds of its own: here these differ little.
    """
    counts, columns = ratings([52, 32, 35, 37, 26, 12, 4, 2], [2, 5, 15, 22, 33, 38, 40, 45])
    compiled = one_subject(meta_d, 8 * counts + 1, **columns)

    def negative(x):
        value, gradient = compiled.value_and_gradient(x[None])
        return -value[0], -gradient[0]

    d, criterion, log_m_ratio = minimize(negative, [1.0, 0.0, 0.0, -0.7, -0.7, -0.7], jac=True).x[:3]
    found = [d, d * np.exp(log_m_ratio), np.exp(log_m_ratio)]
    np.testing.assert_allclose(found, [1.535, 1.634, 1.064], atol=2e-3)
    assert abs(criterion) < 0.02


@pytest.mark.long
def test_with_an_m_ratio_of_1_answers_and_confidence_are_one_rating():
    """Then it is signal detection with eight ratings, whose probabilities are differences of Normal ones."""
    counts, columns = ratings(np.arange(1, 9), np.arange(8, 0, -1))
    d, criterion, steps = 1.3, 0.4, np.array([0.3, 0.6, 0.5])
    value = one_subject(meta_d, counts, **columns).log_likelihood([[d, criterion, 0.0, *np.log(steps)]])
    away = np.cumsum(steps)
    bounds = criterion + np.array([-np.inf, *-away[::-1], 0.0, *away, np.inf])
    p = np.concatenate([np.diff(ndtr(bounds + d / 2)), np.diff(ndtr(bounds - d / 2))])
    np.testing.assert_allclose(value, counts @ np.log(p))


def test_poisson_regression_on_two_conditions_is_most_likely_at_their_means():
    compiled = one_subject(
        poisson_regression, [1] * 6, x=np.array([0.0, 0, 0, 1, 1, 1]), y=np.array([0, 2, 4, 3, 5, 10])
    )
    gradient = compiled.log_likelihood_gradient([[np.log(2), np.log(6 / 2)]])
    np.testing.assert_allclose(gradient, 0, atol=1e-10)


def test_after_one_fish_its_pond_is_believed_as_much_as_a_fish_is_diagnostic():
    """7 of 10 first fish are followed by their own pond: 0.7 is most likely."""
    compiled = one_subject(
        bayesian_observer, [7, 2, 1], fish=np.array([0, 0, 1]), new_pond=np.array([1, 1, 1]), choice=np.array([0, 1, 2])
    )
    x = bayesian_observer.parameters["diagnosticity"].to_gaussian([[0.7]])
    value, gradient = compiled.value_and_gradient(x)
    np.testing.assert_allclose(value, 7 * np.log(0.7) + 3 * np.log(0.15))
    np.testing.assert_allclose(gradient, 0, atol=1e-10)
