r"""Hierarchical Bayesian inference (HBI): groups of several models and the models' frequencies, found together.

Subject n has one model k, with probability f_k; its parameters under that model, P_k of them in Gaussian space, come
from that model's group, Normal with mean mu_k and precisions tau_k. Priors: f is Dirichlet(alpha0), tau is Gamma(v, s),
and mu given tau is Normal(a0, 1 / (b tau)), each parameter by itself. The posterior is sought among
q(subjects' parameters and models) q(mu, tau) q(f), by turns, until both stand still.

Subjects, given the groups. With E[tau] = nu / sigma, find every subject's posterior under every model, prior
Normal(a, 1 / E[tau]), and its evidence Z_nk. The responsibility of model k for subject n is

    r_nk ~ Z_nk exp(P_k / 2 (psi(nu_k) - log nu_k - 1 / beta_k) + E[log f_k]), 1 in sum over k.

Groups, given the subjects. With m_nk and C_nk the means and variances of subjects' posteriors,

    N_k     = sum_n r_nk
    t_k     = sum_n r_nk m_nk / N_k
    S_k     = sum_n r_nk (m_nk^2 + C_nk) / N_k - t_k^2
    beta_k  = b + N_k                       a_k     = (b a0 + N_k t_k) / beta_k
    nu_k    = v + N_k / 2                   sigma_k = s + (N_k S_k + N_k b / (N_k + b) (t_k - a0)^2) / 2
    alpha_k = alpha0 + N_k                  E[log f_k] = psi(alpha_k) - psi(sum_k alpha_k)

Both raise a lower bound of the log evidence of all data,

    L = sum_n log sum_k Z_nk exp(...) - sum_k KL(q(mu_k, tau_k)) - KL(q(f)),

the dots as above, KL the divergence of a q from its prior. If Z, m and C are integrated (``"exact"``) that is a
theorem. With ``"corrected"`` it is Laplace's approximation of L that is climbed, and a step that would lose is
shortened. With ``"laplace"``, as Piray et al. wrote it, means are modes, and the end is a little beside the maximum.

Models of one frequency, 1 / K, are fitted likewise: E[log f_k] = -log K, and no divergence of q(f); its bound is L0.

References
----------
Piray, P., Dezfouli, A., Heskes, T., Frank, M. J., & Daw, N. D. (2019). Hierarchical Bayesian inference for concurrent
model fitting and comparison for group studies. PLoS Computational Biology, 15, e1007043.
https://doi.org/10.1371/journal.pcbi.1007043

Giordano, R., Broderick, T., & Jordan, M. I. (2018). Covariances, robustness, and variational Bayes. Journal of Machine
Learning Research, 19(51), 1-49. (standard errors)
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import scipy

from em_ppl.acceleration import Anderson
from em_ppl.compiled import CompiledModel
from em_ppl.e_step import Posteriors, Scheme, e_step
from em_ppl.frequencies import dirichlet_divergence, expected_log_frequency
from em_ppl.group import FloatArray, Group
from em_ppl.modes import LaplaceApproximation, Start
from em_ppl.normal_gamma import NormalGamma
from em_ppl.progress import Progress
from em_ppl.start import WIDE_SEARCHES, search_widely

ROUNDING = 1e-6  # of the bound: what is expanded or integrated with few points has an error of its own
RESPONSE = 1e-3  # how far a step of the iteration is differentiated
SHORTER = 0.3  # of a step that lost
TRIES = 8


@dataclass(frozen=True, eq=False)
class Component:
    """One model of the mixture.

    Attributes
    ----------
    name : str
        Its own.
    compiled : CompiledModel
        Its likelihoods of all subjects.
    frame : Group
        A group of the kind that it has, for making others.
    prior : NormalGamma
        Of its group.
    scheme : Scheme
        How expectations over subjects' posteriors are taken.
    """

    name: str
    compiled: CompiledModel
    frame: Group
    prior: NormalGamma
    scheme: Scheme

    def group(self, q: NormalGamma) -> Group:
        """Return the prior of its subjects' parameters."""
        return replace(self.frame, coefficients=q.a, covariances=np.diag(q.variance)[None])

    def e_step(self, q: NormalGamma, near: LaplaceApproximation) -> Posteriors:
        """Find every subject's posterior, from those under a group nearby."""
        return e_step(self.compiled, self.group(q), near.start, self.scheme)


Groups = list[NormalGamma]


@dataclass(frozen=True, eq=False)
class Problem:
    """All models, and what is known of their frequencies.

    Attributes
    ----------
    components : list of Component
        The models.
    alpha0 : float or None
        Counts of the Dirichlet prior; None, if all frequencies are 1 / K.
    """

    components: list[Component]
    alpha0: float | None

    @property
    def n_subjects(self) -> int:
        """Number of subjects."""
        return self.components[0].compiled.shape[0]

    @property
    def estimator(self) -> str:
        """How expectations are taken, in all models."""
        return self.components[0].scheme.estimator

    def counts(self, groups: Groups) -> FloatArray:
        """N_k, how many subjects each group has learnt from, (model,)."""
        return np.array([q.beta - c.prior.beta for q, c in zip(groups, self.components, strict=True)])

    def expected_log_frequency(self, groups: Groups) -> FloatArray:
        """E[log f], (model,)."""
        if self.alpha0 is None:
            return np.full(len(groups), -np.log(len(groups)))
        return expected_log_frequency(self.alpha0 + self.counts(groups))

    def divergence(self, groups: Groups) -> float:
        """KL divergence of all that is believed of groups and frequencies from its prior."""
        of_groups = sum(q.divergence(c.prior) for q, c in zip(groups, self.components, strict=True))
        if self.alpha0 is None:
            return of_groups
        return of_groups + dirichlet_divergence(self.alpha0 + self.counts(groups), np.full(len(groups), self.alpha0))

    def to_vector(self, groups: Groups) -> FloatArray:
        """Free numbers of the groups, in units that are alike: means, log SDs, and logs of the counts plus one."""
        units = [c.frame.model.unit for c in self.components]
        means = [q.a / unit for q, unit in zip(groups, units, strict=True)]
        return np.concatenate([*means, *(0.5 * np.log(q.variance) for q in groups), np.log(1 + self.counts(groups))])

    def from_vector(self, vector: FloatArray) -> Groups:
        """Make the groups that `to_vector` described."""
        sizes = [len(c.prior.a) for c in self.components]
        parts = np.split(vector, np.cumsum([*sizes, *sizes]))
        counts = np.maximum(np.exp(parts[-1]) - 1, 0)
        counts *= self.n_subjects / counts.sum()
        return [
            c.prior.like(n, a * c.frame.model.unit, np.exp(2 * log_sd))
            for c, n, a, log_sd in zip(self.components, counts, parts, parts[len(sizes) :], strict=False)
        ]


@dataclass(frozen=True, eq=False)
class Subjects:
    """Every subject's posterior under every model, given the groups.

    Attributes
    ----------
    posteriors : list of Posteriors
        By model.
    responsibility : ndarray
        r, (subject, model).
    bound : float
        L.
    """

    posteriors: list[Posteriors]
    responsibility: FloatArray
    bound: float


@dataclass(frozen=True, eq=False)
class Found:
    """Where the iteration stands, and how it came there."""

    groups: Groups
    subjects: Subjects
    bound: list[float]
    change: list[float]
    status: str


def update_subjects(problem: Problem, groups: Groups, near: Subjects) -> Subjects:
    """Find posteriors and responsibilities, given the groups."""
    parts = zip(problem.components, groups, near.posteriors, strict=True)
    return weigh_models(problem, groups, [c.e_step(q, p.laplace) for c, q, p in parts])


def weigh_models(problem: Problem, groups: Groups, posteriors: list[Posteriors]) -> Subjects:
    """Find responsibilities, given the groups and the posteriors under them."""
    shrinkage = np.array([q.log_shrinkage for q in groups])
    evidence = np.column_stack([p.log_evidence for p in posteriors])
    log_joint = evidence + shrinkage + problem.expected_log_frequency(groups)
    bound = scipy.special.logsumexp(log_joint, axis=1).sum() - problem.divergence(groups)
    return Subjects(posteriors, scipy.special.softmax(log_joint, axis=1), float(bound))


def update_groups(problem: Problem, subjects: Subjects) -> Groups:
    """Let every group learn from the subjects, as far as they are its own."""
    parts = zip(problem.components, subjects.responsibility.T, subjects.posteriors, strict=True)
    return [c.prior.learn(r, p.mean, np.einsum("nii->ni", p.covariance)) for c, r, p in parts]


def iterate(
    problem: Problem,
    groups: Groups,
    near: Subjects,
    *,
    tol: float,
    max_iter: int,
    generator: np.random.Generator,
    progress: Progress,
    wide_searches: int = WIDE_SEARCHES,
) -> Found:
    """Alternate subjects and groups, accelerated, until the groups stand still; modes are first sought near others."""
    subjects, accelerate = update_subjects(problem, groups, near), Anderson()
    bounds: list[float] = []
    changes: list[float] = []
    found = Found(groups, subjects, bounds, changes, "max_iter")
    try:
        for iteration in range(1, max_iter + 1):
            update = update_groups(problem, subjects)
            bounds.append(subjects.bound)
            changes.append(distance(problem, groups, update))
            found = Found(groups, subjects, bounds, changes, "max_iter")
            progress.say(f"HBI step {iteration}: bound {bounds[-1]:.4f}, change {changes[-1]:.1e} (until {tol:.0e})")
            if changes[-1] < tol:
                better = _search_widely(problem, groups, subjects, generator) if wide_searches else None
                if better is None:
                    found = replace(found, status="converged")
                    break
                # somebody has a more probable mode than the one that was followed: go on from there
                subjects, wide_searches, accelerate = better, wide_searches - 1, Anderson()
                continue
            bold = problem.from_vector(accelerate(problem.to_vector(groups), problem.to_vector(update)))
            previous, (groups, subjects) = groups, climb(problem, groups, subjects, update, bold)
            if groups is not bold:
                accelerate = Anderson()
            if groups is previous:
                found = replace(found, status="stalled")
                break
    except KeyboardInterrupt:
        if not bounds:
            raise
        return replace(found, status="interrupted")
    return found


def climb(
    problem: Problem, groups: Groups, subjects: Subjects, update: Groups, bold: Groups
) -> tuple[Groups, Subjects]:
    """Take the boldest step that does not lose: accelerated, the algorithm's own, or a part of that; or none."""
    start, end = problem.to_vector(groups), problem.to_vector(update)
    for step in [bold, update] + [problem.from_vector(start + SHORTER**k * (end - start)) for k in range(1, TRIES)]:
        moved = update_subjects(problem, step, subjects)
        loss = subjects.bound - moved.bound
        as_written = step is update and problem.estimator == "laplace"
        if loss <= (0 if step is bold else ROUNDING) or as_written:
            return step, moved
    return groups, subjects


def standard_errors(problem: Problem, groups: Groups, subjects: Subjects) -> list[FloatArray]:
    """Return standard errors of the groups' means, of each model (parameter,); Gaussian space.

    By linear response (Giordano, Broderick & Jordan 2018). With J the derivative of one step of the iteration where it
    stands still, the posterior covariance is (I - J)^-1 V, V that of q: what q takes for known, subjects' parameters
    and models, answers to a change of the groups.
    """
    point, n_means = problem.to_vector(groups), sum(len(q.a) for q in groups)

    def step(vector: FloatArray) -> FloatArray:
        moved = problem.from_vector(vector)
        return problem.to_vector(update_groups(problem, update_subjects(problem, moved, subjects)))

    sides = RESPONSE * np.eye(len(point))
    jacobian = np.column_stack([(step(point + side) - step(point - side)) / (2 * RESPONSE) for side in sides])
    response = np.linalg.inv(np.eye(len(point)) - jacobian)[:n_means, :n_means]
    own = np.concatenate([q.standard_error for q in groups])  # units cancel on the diagonal
    wider = np.diag(response)  # below 0 at a saddle, where two models are one
    errors = own * np.sqrt(np.where(wider > 0, wider, np.nan))
    return np.split(errors, np.cumsum([len(q.a) for q in groups])[:-1])


def distance(problem: Problem, groups: Groups, other: Groups) -> float:
    """How far apart two states of the groups are.

    Means in SDs of the group, SDs on the log scale, frequencies as shares of the subjects.
    """
    of_means = [np.abs((p.a - q.a) / np.sqrt(q.variance)).max() for p, q in zip(other, groups, strict=True)]
    of_sds = [np.abs(np.log(p.variance / q.variance)).max() / 2 for p, q in zip(other, groups, strict=True)]
    of_frequencies = np.abs(problem.counts(other) - problem.counts(groups)).max() / problem.n_subjects
    return float(max(*of_means, *of_sds, of_frequencies))


def _search_widely(
    problem: Problem, groups: Groups, subjects: Subjects, generator: np.random.Generator
) -> Subjects | None:
    """Search modes from further starting points; None, if nobody has a more probable one."""
    news, posteriors = False, []
    for c, q, p in zip(problem.components, groups, subjects.posteriors, strict=True):
        group, laplace = c.group(q), p.laplace
        mode, better, _ = search_widely(c.compiled, group, laplace.start, generator)
        start = Start(mode, laplace.curvature)
        posteriors.append(e_step(c.compiled, group, start, c.scheme) if better.any() else p)
        news = news or bool(better.any())
    return weigh_models(problem, groups, posteriors) if news else None
