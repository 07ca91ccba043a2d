"""The M-step maximises what it says, and the score is the slope that it says."""

import numpy as np
import pytest
from helpers import laplace_at, normal_group

import em_ppl as em
from em_ppl.e_step import Posteriors
from em_ppl.group import Group
from em_ppl.m_step import _no_thinner, complete_scores, m_step, scores


def covariance(p, seed):
    root = np.random.default_rng(seed).normal(size=(p, p))
    return root @ root.T + 0.3 * np.eye(p)


def weighted_points(n, p, n_points=8, seed=2):
    """Make up posteriors: some points around a mode, and weights; what an M-step does not read is zero."""
    generator = np.random.default_rng(seed)
    mode, away = generator.normal(size=(n, p)) * 2, 0.4 * generator.normal(size=(n, n_points, p))
    weights = generator.dirichlet(np.ones(n_points), n)
    v = np.array([0.2 * covariance(p, 100 + i) for i in range(n)])
    return Posteriors(laplace_at(mode, v), away, weights, np.zeros(n), np.zeros((n, 0)))


def with_covariates(n, structure="diagonal", **settings):
    """Two parameters, the first with a covariate, and two classes with a covariance each."""
    generator = np.random.default_rng(0)
    design = np.zeros((n, 2, 3))
    design[:, 0, 0] = design[:, 1, 2] = 1.0
    design[:, 0, 1] = generator.normal(size=n)
    settings = {"design": design, "level": np.arange(n) % 2} | settings
    one = normal_group(n, [0.0, 0.0], np.eye(2), structure, **settings)
    s = np.array([covariance(2, 5), covariance(2, 6)])
    s = s if structure == "full" else s * np.eye(2)
    return Group(one.model, np.array([0.5, -0.4, 0.3]), s, np.zeros(0))


def expected_log_density(group, subjects):
    return (subjects.weights * group.log_density(subjects.points)).sum()


def slopes(function, group):
    vector = group.to_vector()
    sides = 1e-5 * np.eye(len(vector))
    return np.array(
        [(function(group.from_vector(vector + s)) - function(group.from_vector(vector - s))) / 2e-5 for s in sides]
    )


@pytest.mark.parametrize("structure", ["diagonal", "full"])
def test_m_step_maximises_the_expected_log_density(structure):
    subjects = weighted_points(40, 2)
    best = with_covariates(40, structure)
    for _ in range(60):  # S and b in turn: with classes, b hangs on S
        best = m_step(None, best, subjects)
    assert np.abs(slopes(lambda g: expected_log_density(g, subjects), best)).max() < 1e-5


@pytest.mark.parametrize(
    ("distribution", "structure"),
    [(em.StudentT(3.0), "diagonal"), (em.StudentT(3.0), "full"), (em.Laplace(), "diagonal")],
)
def test_m_steps_of_heavy_tails_end_where_the_expected_log_density_does(distribution, structure):
    subjects = weighted_points(40, 2)
    best = with_covariates(40, structure, distribution=distribution)
    for _ in range(400):
        best = m_step(None, best, subjects)
    assert np.abs(slopes(lambda g: expected_log_density(g, subjects), best)).max() < 1e-4


@pytest.mark.parametrize("structure", ["diagonal", "full"])
def test_with_a_prior_the_penalised_log_density_is_maximised(structure):
    """Means Normal around 0.2 and -0.1 with SD 2 x the spreads; det(S)^(1/2) for each class."""
    subjects = weighted_points(40, 2)
    settings = {"centre": np.array([0.2, -0.1]), "spread": np.array([0.5, 1.5]), "prior": em.GroupPrior(2.0, 2.0)}
    best = with_covariates(40, structure, **settings)
    for _ in range(60):
        best = m_step(None, best, subjects)
    typical = np.sqrt((best.model.design[:, 0, 1] ** 2).mean())
    centre = np.linalg.lstsq(best.model.design[:, 0, :2], np.full(40, 0.2), rcond=None)[0]

    def penalised(g):
        away = np.array([*(g.coefficients[:2] - centre), g.coefficients[2] + 0.1])
        sd = 2.0 * np.array([0.5, 0.5 / typical, 1.5])
        log_determinant = np.linalg.slogdet(g.covariances)[1].sum()
        return expected_log_density(g, subjects) - 0.5 * ((away / sd) ** 2).sum() + 0.5 * log_determinant

    assert np.abs(slopes(penalised, best)).max() < 1e-5


@pytest.mark.parametrize(
    ("distribution", "structure"),
    [
        (em.Normal(), "diagonal"),
        (em.Normal(), "full"),
        (em.StudentT(3.0), "diagonal"),
        (em.StudentT(3.0), "full"),
        (em.Laplace(), "diagonal"),
    ],
)
def test_scores_are_the_slopes_of_the_log_density(distribution, structure):
    group, subjects = with_covariates(12, structure, distribution=distribution), weighted_points(12, 2)
    for i in (0, 3):
        expected = slopes(lambda g, i=i: (subjects.weights * g.log_density(subjects.points))[i].sum(), group)
        np.testing.assert_allclose(scores(group, subjects)[i], expected, rtol=1e-5, atol=1e-8)
        expected = slopes(lambda g, i=i: g.log_density(subjects.points)[i, 4], group)
        np.testing.assert_allclose(complete_scores(group, subjects.points)[i, 4], expected, rtol=1e-5, atol=1e-8)


def test_a_group_without_spread_keeps_the_smallest_sd():
    thin = _no_thinner(np.zeros((1, 2, 2)), np.array([1e-3, 1e-5]))
    np.testing.assert_allclose(np.sqrt(np.diag(thin[0])), [1e-3, 1e-5])
