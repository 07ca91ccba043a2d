"""The Normal group: its density, its M-step and its information, against SciPy and differences."""

import dataclasses

import numpy as np
import pytest
from scipy import stats

from em_ppl.group import Group, uncertainty
from em_ppl.modes import Posteriors

GENERATOR = np.random.default_rng(11)


def covariance(p, seed):
    root = np.random.default_rng(seed).normal(size=(p, p))
    return root @ root.T + 0.3 * np.eye(p)


def group(structure, p=3):
    s = covariance(p, 1)
    return Group(np.array([0.3, -1.0, 5.0])[:p], s if structure == "full" else np.diag(np.diag(s)), structure)


def posteriors(n, p, shift=0.0, seed=2):
    """Make up modes and covariances; what the group does not read is zero."""
    generator = np.random.default_rng(seed)
    mode = generator.normal(size=(n, p)) * 2
    v = np.array([0.2 * covariance(p, 100 + i) for i in range(n)])
    w = shift * generator.normal(size=(n, p)) * 0.1
    zero, false = np.zeros(n), np.zeros(n, dtype=bool)
    return Posteriors(mode, v, w, 0 * v, 0 * mode, zero, zero, zero, ~false, false, false)


@pytest.mark.parametrize("structure", ["diagonal", "full"])
def test_density_is_scipys(structure):
    g, x = group(structure), GENERATOR.normal(size=(7, 3)) * 3
    np.testing.assert_allclose(g.log_density(x), stats.multivariate_normal(g.mean, g.covariance).logpdf(x))
    np.testing.assert_allclose(g.unstandardise(g.standardise(x)), x)
    np.testing.assert_allclose(g.precision, np.linalg.inv(g.covariance))


@pytest.mark.parametrize("structure", ["diagonal", "full"])
def test_a_vector_holds_the_whole_group(structure):
    g, unit = group(structure), np.array([0.5, 2.0, 10.0])
    again = g.from_vector(g.to_vector(unit), unit)
    np.testing.assert_allclose(again.mean, g.mean)
    np.testing.assert_allclose(again.covariance, g.covariance, atol=1e-12)
    assert len(g.to_vector(unit)) == (6 if structure == "diagonal" else 9)


@pytest.mark.parametrize("structure", ["diagonal", "full"])
def test_m_step_maximises_the_expected_log_density(structure):
    """sum_i E log N(x_i; mu, S), x_i with second moments V + r r' - w r' - r w' about the mean: no slope is left."""
    subjects = posteriors(20, 3, shift=1.0)
    best = group(structure).maximise(subjects, np.full(3, 1e-6))

    def expected(g):
        second = []
        for m, v, w in zip(subjects.mode, subjects.covariance, subjects.shift, strict=True):
            centred = m - w - g.mean
            # the second moment about any mu: covariance (V - w w') and the mean's square
            second.append(v - np.outer(w, w) + np.outer(centred, centred))
        log_determinant = np.linalg.slogdet(2 * np.pi * g.covariance)[1]
        return -0.5 * sum(log_determinant + np.trace(g.precision @ s) for s in second)

    vector, one = best.to_vector(np.ones(3)), np.ones(3)
    for step in 1e-4 * np.eye(len(vector)):
        up, down = (expected(best.from_vector(vector + side * step, one)) for side in (1, -1))
        assert abs(up - down) / 2e-4 < 1e-5
        assert up < expected(best) > down


def test_a_group_without_spread_keeps_the_smallest_sd():
    subjects = posteriors(4, 2)
    alike = dataclasses.replace(subjects, mode=np.ones((4, 2)), covariance=np.zeros((4, 2, 2)))
    thin = Group(np.zeros(2), np.eye(2), "full").maximise(alike, np.array([1e-3, 1e-5]))
    np.testing.assert_allclose(thin.sd, [1e-3, 1e-5])


@pytest.mark.parametrize("structure", ["diagonal", "full"])
def test_information_is_that_of_the_marginal_likelihood(structure):
    """Subjects' data Normal: y_i ~ N(mu, S + C_i) in closed form; at its maximum, its Hessian by differences."""
    n, g, one = 40, group(structure), np.ones(3)
    c = np.array([0.2 * covariance(3, 50 + i) for i in range(n)])
    y = np.array([np.random.default_rng(i).multivariate_normal(g.mean, g.covariance + c[i]) for i in range(n)])

    def posterior(g):
        v = np.linalg.inv(np.linalg.inv(c) + g.precision)
        mode = np.einsum("nij,nj->ni", v, np.linalg.solve(c, y[..., None])[..., 0] + g.precision @ g.mean)
        return dataclasses.replace(posteriors(n, 3), mode=mode, covariance=v)

    for _ in range(2000):  # EM, exact here
        g = g.maximise(posterior(g), np.full(3, 1e-6))

    def log_likelihood(vector):
        h = g.from_vector(vector, one)
        return sum(stats.multivariate_normal(h.mean, h.covariance + c[i]).logpdf(y[i]) for i in range(n))

    at, steps = g.to_vector(one), 1e-3 * np.eye(len(g.to_vector(one)))
    signs = [(s, t) for s in (1, -1) for t in (1, -1)]
    hessian = [
        [sum(s * t * log_likelihood(at + s * a + t * b) for s, t in signs) / (4 * 1e-6) for b in steps] for a in steps
    ]
    expected = np.linalg.inv(-np.array(hessian))
    np.testing.assert_allclose(uncertainty(g, posterior(g)).covariance, expected, rtol=1e-3, atol=1e-5)


def test_numbers_that_the_data_do_not_determine_have_no_error_and_leave_the_others_theirs():
    """The second parameter's SD has gone to 0: the first one's errors are those of its own."""
    subjects = posteriors(30, 2)
    v = np.array([np.diag([0.3, 1e-10])] * 30)  # all that is known of the second is the group
    mode = np.column_stack([subjects.mode[:, 0], np.full(30, 1.0)])
    g = Group(np.array([mode[:, 0].mean(), 1.0]), np.diag([1.5, 1e-10 + 1e-14]), "diagonal")
    both = uncertainty(g, dataclasses.replace(subjects, mode=mode, covariance=v))
    one = Group(g.mean[:1], g.covariance[:1, :1], "diagonal")
    alone = uncertainty(
        one, dataclasses.replace(subjects, mode=mode[:, :1], covariance=v[:, :1, :1], shift=mode[:, :1] * 0)
    )
    np.testing.assert_allclose(both.standard_errors[[0, 2]], alone.standard_errors)
    assert np.isfinite(both.standard_errors[1])
    assert np.isnan(both.standard_errors[3])
