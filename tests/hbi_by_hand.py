"""Hierarchical Bayesian inference in plain loops, for logistic regressions: Piray et al. (2019), as cbm computes it.

Apart from the package: one subject at a time, Newton's method with the exact Hessian, and the lower bound as the sum of
expected logs that cbm adds up (github.com/payampiray/cbm, codes/cbm_hbi_hbi.m), not as a sum of divergences.
"""

import numpy as np
from scipy.special import expit, gammaln, psi

B, V, S, ALPHA0 = 1.0, 0.5, 0.01, 1.0


def newton(x, y, mean, precision):
    """Mode of one subject's parameters, log joint density there, and the Hessian of its negative."""
    h = mean.copy()
    for _ in range(100):
        p = expit(x @ h)
        slope = x.T @ (y - p) - precision * (h - mean)
        hessian = (x.T * (p * (1 - p))) @ x + np.diag(precision)
        h = h + np.linalg.solve(hessian, slope)
        if np.abs(slope).max() < 1e-11:
            break
    eta = x @ h
    log_likelihood = (y * eta - np.logaddexp(0, eta)).sum()
    log_prior = 0.5 * (np.log(precision) - np.log(2 * np.pi) - precision * (h - mean) ** 2).sum()
    return h, log_likelihood + log_prior, hessian


def hbi(designs, responses, iterations=3000):
    """Iterate; `designs` has one list of design matrices a model, one matrix a subject.

    Returns
    -------
    responsibility (subject, model), group means, group variances, hierarchical errors, lower bounds
    """
    dims = np.array([own[0].shape[1] for own in designs])
    wide = [(np.zeros(d), np.full(d, 1 / 1.5**2)) for d in dims]
    subjects = fit_subjects(designs, responses, wide)
    r, bounds = np.ones((len(responses), len(designs))), []
    for _ in range(iterations):
        groups, lam, log_f, errors, of_groups = fit_groups(r, *subjects[:2])
        subjects = fit_subjects(designs, responses, groups)
        log_joint, log_det = subjects[2:]
        rho = log_joint - 0.5 * log_det + 0.5 * dims * np.log(2 * np.pi) + lam + log_f
        before, r = r, np.exp(rho - rho.max(1, keepdims=True))
        r /= r.sum(1, keepdims=True)
        bounds.append(bound_of_subjects(r, log_joint, log_det, lam, log_f, dims) + of_groups)
        if np.abs(before - r).max() < 1e-12:
            break
    return r, [g[0] for g in groups], [1 / g[1] for g in groups], errors, bounds


def fit_subjects(designs, responses, groups):
    """By model: modes and variances (subject, parameter); log joint density and log det Hessian (subject, model)."""
    found = [
        [newton(x, y, *g) for x, y in zip(own, responses, strict=True)] for own, g in zip(designs, groups, strict=True)
    ]
    modes = [np.array([mode for mode, _, _ in own]) for own in found]
    variances = [np.array([np.diag(np.linalg.inv(hessian)) for _, _, hessian in own]) for own in found]
    log_joint = np.array([[value for _, value, _ in own] for own in found]).T
    log_det = np.array([[np.linalg.slogdet(hessian)[1] for _, _, hessian in own] for own in found]).T
    return modes, variances, log_joint, log_det


def fit_groups(r, modes, variances):
    """Means and precisions, lambda, E log f, hierarchical errors, and what all of it adds to the bound."""
    groups, lam, errors, bound = [], [], [], 0.0
    for weight, h, variance in zip(r.T, modes, variances, strict=True):
        n, d = weight.sum(), h.shape[1]
        t = weight @ h / n
        s_bar = weight @ (h**2 + variance) / n - t**2
        beta, nu = B + n, V + n / 2
        a = n * t / beta
        sigma = S + 0.5 * (n * s_bar + n * B / (n + B) * t**2)
        groups.append((a, nu / sigma))
        log_tau = psi(nu) - np.log(sigma)
        lam.append(0.5 * log_tau.sum() - 0.5 * np.log(nu / sigma).sum() - 0.5 * d / beta)
        errors.append(np.sqrt(sigma / (beta * nu)))
        bound += bound_of_group(a, beta, nu, sigma, log_tau)
    alpha, k = ALPHA0 + r.sum(0), r.shape[1]
    log_f = psi(alpha) - psi(alpha.sum())
    of_prior = gammaln(k * ALPHA0) - k * gammaln(ALPHA0) + ((ALPHA0 - 1) * log_f).sum()
    of_posterior = gammaln(alpha.sum()) - gammaln(alpha).sum() + ((alpha - 1) * log_f).sum()
    return groups, np.array(lam), log_f, errors, bound + of_prior - of_posterior


def bound_of_group(a, beta, nu, sigma, log_tau):
    """E log p(mu) + E log p(tau) - E log q(mu) - E log q(tau), prior mean 0."""
    d, tau = len(a), nu / sigma
    p_mu = 0.5 * (d * np.log(B) + log_tau.sum() - B * (tau * a**2).sum() - d * B / beta)
    p_tau = (V - 1) * log_tau.sum() - S * tau.sum() + d * (V * np.log(S) - gammaln(V))
    q_mu = 0.5 * (d * np.log(beta) + log_tau.sum() - d)
    q_tau = (nu - 1) * log_tau.sum() - d * nu + (nu * np.log(sigma) - gammaln(nu)).sum()
    return p_mu + p_tau - q_mu - q_tau


def bound_of_subjects(r, log_joint, log_det, lam, log_f, dims):
    """E log p(data, parameters) + E log p(models) - E log q(parameters) - E log q(models)."""
    p = (r * (log_joint - 0.5 * dims + lam + log_f)).sum()
    q = (r * (-0.5 * dims - 0.5 * dims * np.log(2 * np.pi) + 0.5 * log_det)).sum()
    return p - q - (r * np.log(np.where(r > 0, r, 1.0))).sum()
