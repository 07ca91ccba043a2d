"""What several test files need to make by hand."""

import numpy as np
import pandas as pd
import pymc as pm
from scipy.special import softmax

import em_ppl as em
from em_ppl.distributions import Normal
from em_ppl.group import Group, GroupModel
from em_ppl.modes import LaplaceApproximation

QUICK = {"mode": "FAST_COMPILE"}  # compile_kwargs of what is called once or twice


@em.subject_model(p=em.Unit())
def coin(p, last, heads):
    pm.Bernoulli("heads", p=p, observed=heads)


@em.subject_model(p=em.Unit(), stay=em.Real(spread=1.0))
def sticky(p, stay, last, heads):
    """Repeat what was: last is -1, 0 or 1."""
    pm.Bernoulli("heads", logit_p=pm.math.logit(p) + stay * last, observed=heads)


def normal_group(n_subjects, mean, covariance, structure="diagonal", *, distribution=None, prior=None, **settings):
    """Make a group without covariates or shared parameters, of one class."""
    p = len(mean)
    model = {
        "design": np.tile(np.eye(p), (n_subjects, 1, 1)),
        "level": np.zeros(n_subjects, dtype=np.intp),
        "structure": structure,
        "distribution": distribution or Normal(),
        "prior": prior,
        "varying": np.arange(p),
        "shared": np.arange(0),
        "unit": np.ones(p),
        "centre": np.zeros(p),
        "spread": np.ones(p),
        "place": np.arange(n_subjects),
    }
    covariance = np.asarray(covariance, dtype=float)
    return Group(GroupModel(**model | settings), np.asarray(mean, dtype=float), covariance[None], np.zeros(0))


def laplace_at(mode, covariance, shift=None):
    """Make Laplace approximations by hand; what rules do not read is zero."""
    (n, p), zero, false = mode.shape, np.zeros(len(mode)), np.zeros(len(mode), dtype=bool)
    shift = np.zeros_like(mode) if shift is None else shift
    nothing = np.zeros((n, 0, p))
    return LaplaceApproximation(
        mode, covariance, shift, 0 * covariance, 0 * mode, nothing, 0 * mode, zero, zero, ~false, false, false
    )


def hessian(function, x, steps):
    """Second differences."""
    sides = np.diag(steps)
    signs = [(s, t) for s in (1, -1) for t in (1, -1)]
    return np.array(
        [
            [sum(s * t * function(x + s * a + t * b) for s, t in signs) / (4 * a.sum() * b.sum()) for b in sides]
            for a in sides
        ]
    )


def simulated_learners(n_subjects, n_trials, random_seed):
    """Let learners play a bandit that pays in 3 and 7 of 10: a plain loop, apart from the package's own."""
    generator = np.random.default_rng(random_seed)
    alpha = em.Unit().to_natural(generator.normal(0.0, 1.0, n_subjects))
    beta = em.Positive().to_natural(generator.normal(1.0, 0.5, n_subjects))
    return play_bandit(pd.DataFrame({"alpha": alpha, "beta": beta}), n_trials, random_seed)


def play_bandit(subjects, n_trials, random_seed):
    generator = np.random.default_rng(random_seed)
    people = {}
    for label, alpha, beta in subjects[["alpha", "beta"]].itertuples(name=None):
        choice, reward, q = np.zeros(n_trials, dtype=int), np.zeros(n_trials), np.zeros(2)
        for t in range(n_trials):
            c = choice[t] = generator.choice(2, p=softmax(beta * q))
            reward[t] = generator.random() < (0.3, 0.7)[c]
            q[c] += alpha * (reward[t] - q[c])
        people[label] = {"choice": choice, "reward": reward}
    return em.from_subjects(people)
