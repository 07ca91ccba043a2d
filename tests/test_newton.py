"""Newton's steps on a marginal likelihood that is known by a fine sum."""

from dataclasses import replace

import numpy as np
import pytest
from helpers import normal_group

import em_ppl as em
from em_ppl.e_step import Scheme, e_step
from em_ppl.em import CONTRACTS
from em_ppl.m_step import m_step
from em_ppl.modes import Start
from em_ppl.newton import MAY_LOSE, newton_step, step_by


@pytest.fixture(scope="module")
def compiled(few_trials):
    return few_trials.model.compile(few_trials.data)


def start(compiled, mean, sd):
    """A group, and every subject's integrated posterior under it."""
    n = compiled.shape[0]
    group = normal_group(n, [mean], [[sd**2]])
    scheme = Scheme("exact", em.Quadrature(31), 0).laid(group)
    return group, e_step(compiled, group, Start(np.full((n, 1), mean), np.ones((n, 1, 1))), scheme), scheme


def go(compiled, group, subjects, scheme):
    return newton_step(compiled, group, subjects, scheme, m_step(compiled, group, subjects))


@pytest.mark.parametrize(("mean", "sd"), [(0.0, 1.5), (3.0, 4.0), (0.5, 0.1)])
def test_steps_lead_to_the_maximum_from_near_and_far(compiled, few_trials, mean, sd):
    """Far away the likelihood curves up."""
    group, subjects, scheme = start(compiled, mean, sd)
    highest = subjects.log_evidence.sum()
    for _ in range(8):
        group, subjects, _ = go(compiled, group, subjects, scheme)
        assert subjects.log_evidence.sum() > highest - MAY_LOSE
        highest = max(highest, subjects.log_evidence.sum())
    expected, value, covariance = few_trials.maximum()
    np.testing.assert_allclose(group.to_vector(), expected, atol=1e-3 * np.sqrt(covariance.diagonal().min()))
    np.testing.assert_allclose(highest, value, atol=1e-6)


def test_near_the_maximum_the_distance_squares(compiled, few_trials):
    group, subjects, scheme = start(compiled, 0.3, 1.2)
    expected, _, covariance = few_trials.maximum()
    away = []
    for _ in range(3):
        away.append(np.abs((group.to_vector() - expected) / np.sqrt(covariance.diagonal())).max())
        group, subjects, _ = go(compiled, group, subjects, scheme)
    assert away[2] < away[1] ** 2 < away[0] ** 4


def test_an_sd_that_has_gone_to_0_follows_em(compiled):
    group, subjects, scheme = start(compiled, 0.0, 1e-3)
    update = m_step(compiled, group, subjects)
    further, *_ = newton_step(compiled, group, subjects, scheme, update)
    assert further.sd.item() == pytest.approx(update.sd.item())
    assert abs(further.coefficients.item() - update.coefficients.item()) < 0.01


def test_there_may_be_no_step(compiled):
    """From a log evidence that is higher than any group's, by a likelihood that is not the same twice, say."""
    group, subjects, scheme = start(compiled, 0.5, 1.0)
    too_high = replace(subjects, log_evidence=subjects.log_evidence + 1.0)
    assert newton_step(compiled, group, too_high, scheme, group) is None


def test_the_information_serves_for_the_steps_that_follow(compiled, few_trials):
    group, subjects, scheme = start(compiled, 0.3, 1.2)
    expected, _, covariance = few_trials.maximum()
    group, subjects, _ = go(compiled, group, subjects, scheme)
    group, subjects, information = go(compiled, group, subjects, scheme)
    away = []
    for _ in range(3):
        away.append(np.abs((group.to_vector() - expected) / np.sqrt(covariance.diagonal())).max())
        group = step_by(information, group, subjects, m_step(compiled, group, subjects))
        laplace = subjects.laplace
        subjects = e_step(compiled, group, laplace.start, scheme)
    assert away[2] < CONTRACTS * away[1] < CONTRACTS**2 * away[0]


def test_there_is_no_step_where_a_correlation_reaches_its_bound(compiled):
    _, subjects, scheme = start(compiled, 0.3, 1.2)
    at_bound = normal_group(compiled.shape[0], [0.0, 0.0], [[1.0, 0.99999], [0.99999, 1.0]], "full")
    assert step_by(np.eye(5), at_bound, subjects, at_bound) is None
    assert newton_step(compiled, at_bound, subjects, scheme, at_bound) is None
