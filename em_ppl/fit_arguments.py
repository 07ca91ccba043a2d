"""Arguments of `fit` that do not go with one another, or with the model."""

from __future__ import annotations

from concurrent.futures import Executor
from typing import Any

import numpy as np

from em_ppl.design import Design
from em_ppl.distributions import Distribution, Normal
from em_ppl.e_step import Scheme
from em_ppl.group import GroupPrior, Structure
from em_ppl.model import ModelError, SubjectModel
from em_ppl.pymc_models import PyMCModel

__all__ = ["check_distribution", "check_executor", "check_group_is_the_models", "check_kinds", "check_prior"]


def check_kinds(model: Any, distribution: Distribution | None, prior: GroupPrior | None) -> None:
    """Refuse what is no model, distribution or prior, and a model in which nothing varies."""
    if not isinstance(model, SubjectModel | PyMCModel):
        raise TypeError(
            f"{model!r} is no subject model: decorate its likelihood with @em.subject_model(...), or read a "
            "hierarchical model by em.from_pymc(...)."
        )
    if all(parameter.shared for parameter in model.parameters.values()):
        raise ModelError(f"{model.name}: every parameter is shared, so that subjects do not differ: let one vary.")
    if distribution is not None and not isinstance(distribution, Distribution):
        raise TypeError(
            f"distribution={distribution!r} must be em.Normal(), em.StudentT(df=...), em.Cauchy() or em.Laplace()."
        )
    if prior is not None and not isinstance(prior, GroupPrior):
        raise TypeError(f"prior={prior!r} must be em.GroupPrior(...).")


def check_executor(executor: Executor | None, model: SubjectModel | PyMCModel) -> None:
    """Refuse what is no executor, and a model that cannot be split."""
    if executor is None:
        return
    if not hasattr(executor, "submit"):
        raise TypeError(
            f"executor={executor!r} must be a concurrent.futures.Executor: a ProcessPoolExecutor, a Dask client's "
            "client.get_executor(), an MPIPoolExecutor."
        )
    if isinstance(model, PyMCModel):
        raise ValueError("a model of em.from_pymc is evaluated as a whole: it cannot be split over an executor.")


def check_distribution(distribution: Distribution, covariance: Structure, scheme: Scheme) -> None:
    """Refuse a group with a kink where its posteriors are expanded, or its parameters correlated."""
    if distribution.smooth:
        return
    if covariance == "full":
        raise ValueError(f'{distribution} has independent parameters: use covariance="diagonal", or em.StudentT().')
    if scheme.estimator != "exact":
        raise ValueError(f'{distribution} has a kink that no Laplace approximation can follow: use estimator="exact".')


def check_group_is_the_models(data: Any, covariance: str, *others: Any) -> None:
    """Refuse what a hierarchical model says itself."""
    if data is not None or covariance != "diagonal" or any(not isinstance(o, Normal | None) for o in others):
        raise ValueError(
            "a model of em.from_pymc has its data and its group: of these, em.fit takes a prior only. To change the "
            "group, change the PyMC model."
        )


def check_prior(design: Design, prior: GroupPrior | None) -> None:
    """Refuse a prior that takes all subjects away: it divides variances by fewer than there are."""
    fewest = int(np.bincount(design.level()).min())
    if prior is not None and fewest <= prior.sd_shape - 1:
        raise ValueError(
            f"{prior} needs more than {prior.sd_shape - 1:g} subjects for each covariance; here are {fewest}."
        )
