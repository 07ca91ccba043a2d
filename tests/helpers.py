"""What several test files need to make by hand."""

import numpy as np

from em_ppl.distributions import Normal
from em_ppl.group import Group, GroupModel


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
    }
    covariance = np.asarray(covariance, dtype=float)
    return Group(GroupModel(**model | settings), np.asarray(mean, dtype=float), covariance[None], np.zeros(0))
