"""Several models, or several classes of people, fitted together: see `em_ppl.hbi` for what is computed."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import scipy
import xarray as xr

from em_ppl.checks import check_counts, check_numbers, check_positive
from em_ppl.comparison import check_same_responses
from em_ppl.compiled import CompiledModel, compile_model
from em_ppl.data import check_dataset
from em_ppl.design import make_design, make_group_model
from em_ppl.distributions import Normal
from em_ppl.e_step import Posteriors, e_step, make_scheme
from em_ppl.em import NEAR, ConvergenceWarning
from em_ppl.estimators import Estimator, ImportanceSampling, Quadrature
from em_ppl.group import FloatArray, Group
from em_ppl.hbi import (
    Component,
    Found,
    Groups,
    Problem,
    Subjects,
    iterate,
    standard_errors,
    update_groups,
)
from em_ppl.mixture_result import Mixture
from em_ppl.model import ModelError, SubjectModel, check_subject_model
from em_ppl.normal_gamma import NormalGamma
from em_ppl.progress import Progress
from em_ppl.start import starting_group, starting_modes

__all__ = ["MixturePrior", "fit_classes", "fit_mixture"]

ROUGH = 1e-3  # change of the groups at which starts of latent classes are compared


@dataclass(frozen=True)
class MixturePrior:
    """Priors of a mixture's groups and frequencies; symbols are those of Piray et al. (2019).

    Attributes
    ----------
    b : float
        How many subjects the prior of a group's mean is worth. It is centred on the parameter's declared start. Piray
        et al. and cbm have 1: a group whose mean lies several of its SDs from there then looks much wider than it is
        (twice, in ``tests/benchmarks/model_comparison.py``), and attracts subjects of others.
    v, s : float
        Shape and rate of the Gamma prior of a group's precision. The rate is in Gaussian space; for a `Real`, which can
        be in any unit, per squared spread (as declared; else both start and spread are taken from the data).
    alpha : float
        How many subjects the prior of each model's frequency is worth; 1 is uniform.

    Examples
    --------
    >>> import em_ppl as em
    >>> em.MixturePrior(s=0.1)
    MixturePrior(b=0.1, v=0.5, s=0.1, alpha=1.0)
    """

    b: float = 0.1
    v: float = 0.5
    s: float = 0.01
    alpha: float = 1.0

    def __post_init__(self) -> None:
        check_positive(**vars(self))

    def of_group(self, model: SubjectModel, start: Group) -> NormalGamma:
        """Return the prior of a model's group, given the group where EM would start."""
        frame, known = start.model, np.isfinite(start.model.spread)
        unit = np.where([p.link == "identity" for p in model.parameters.values()], frame.unit, 1.0)
        return NormalGamma(np.where(known, frame.centre, start.coefficients), self.b, self.v, self.s * unit**2)


def fit_mixture(
    models: Sequence[SubjectModel] | Mapping[str, SubjectModel],
    data: xr.Dataset,
    *,
    estimator: Estimator | Quadrature | ImportanceSampling = "corrected",
    prior: MixturePrior | None = None,
    tol: float = 1e-5,
    max_iter: int = 500,
    random_seed: int = 0,
    progressbar: bool = True,
    compile_kwargs: Mapping[str, Any] | None = None,
) -> Mixture:
    """Fit the groups of several models and the models' frequencies together, each subject by its probable model.

    Hierarchical Bayesian inference (Piray et al. 2019). A subject adds to a model's group as far as the model is its
    own, so that neither groups nor frequencies suffer from those whom another model suits better. Groups are Normal in
    Gaussian space, with independent parameters.

    Parameters
    ----------
    models : sequence of SubjectModel, or mapping of str to SubjectModel
        The models, each with the name of its function unless names are given. They observe the same responses.
    data : Dataset
        As for `em_ppl.fit`; it has the columns of all models.
    estimator : {"corrected", "laplace", "exact"}, Quadrature or ImportanceSampling
        As for `em_ppl.fit`; ``"laplace"`` is the algorithm of Piray et al. and cbm.
    prior : MixturePrior, optional
        Of groups and frequencies; ``MixturePrior(b=1.0)`` is that of Piray et al. and cbm.
    tol : float
        The fit has converged when no group mean moves by more than this many group SDs in an unaccelerated step, no
        log SD by more than this number, and no frequency by more than this share.
    max_iter : int
        Largest number of steps.
    random_seed : int
        For the further starting points of the mode search, and importance sampling. Equal seeds give equal bits.
    progressbar : bool
        Whether to show progress.
    compile_kwargs : mapping, optional
        Passed on to `pytensor.function`.

    Returns
    -------
    Mixture
        Frequencies, exceedance probabilities, groups, and every subject under every model.

    Raises
    ------
    ModelError
        If a model cannot work as it is written, or has shared parameters.
    ValueError
        If two models have one name or observe other responses, the data do not fit, or an argument is none of its
        choices.

    Warns
    -----
    ConvergenceWarning
        If the fit or a mode search did not converge; says whose.

    Notes
    -----
    Protected exceedance probabilities guard against models that are equally frequent, f_k = 1 / K, while a subject's
    own model is inferred, as in Rigoux et al. (2014). cbm also fixes every responsibility at 1 / K. That bound is lower
    by what the data say about each subject, and hardly ever wins where they say something: it does not protect.

    Examples
    --------
    >>> import em_ppl as em, numpy as np, pymc as pm
    >>> @em.subject_model(p=em.Unit())
    ... def coin(p, side, heads):
    ...     pm.Bernoulli("heads", p=p, observed=heads)
    >>> @em.subject_model(p=em.Unit(), effect=em.Real(start=2.0, spread=1.0))
    ... def two_sided(p, effect, side, heads):
    ...     pm.Bernoulli("heads", logit_p=pm.math.logit(p) + effect * side, observed=heads)
    >>> side = np.tile([-1.0, 1.0], 30)
    >>> people = [{"side": side, "heads": np.arange(60) % 4 < 2} for _ in range(15)]
    >>> people += [{"side": side, "heads": (side > 0) ^ (np.arange(60) % 10 == n)} for n in range(5)]
    >>> mixture = em.fit_mixture([coin, two_sided], em.from_subjects(people), progressbar=False)
    >>> mixture.frequencies.summary()["count"].round(1).to_dict()
    {'coin': 15.0, 'two_sided': 5.0}
    """
    check_numbers(tol, max_iter, random_seed)
    named = _named(models)
    prior = prior or MixturePrior()
    generator = np.random.default_rng(random_seed)
    settings = {"tol": tol, "max_iter": max_iter}
    with Progress(show=progressbar) as progress:
        problem, posteriors = _start(named, data, estimator, prior, settings, random_seed, compile_kwargs, progress)
        everybody = np.ones((problem.n_subjects, len(named)))  # belongs to every model
        begin = _begin(problem, posteriors, everybody)
        found = _climb(problem, *begin, settings, generator, progress)
        null_bound = np.nan
        if len(named) > 1 and found.status != "interrupted":
            try:
                null_bound = _null_bound(problem, *begin, settings, generator, progress)
            except KeyboardInterrupt:
                found = replace(found, status="interrupted")
        mixture = _finish(problem, found, null_bound, settings | {"random_seed": random_seed}, progress)
    return _warned(mixture)


def _null_bound(
    problem: Problem,
    groups: Groups,
    near: Subjects,
    settings: dict[str, Any],
    generator: np.random.Generator,
    progress: Progress,
) -> float:
    """Fit all models as equally frequent, from the same beginning: the bound L0."""
    null = _climb(replace(problem, alpha0=None), groups, near, settings, generator, progress)
    if null.status == "interrupted":
        raise KeyboardInterrupt
    return null.bound[-1]


def fit_classes(
    model: SubjectModel,
    data: xr.Dataset,
    n_classes: int | Sequence[int] = (1, 2, 3, 4),
    *,
    starts: int = 8,
    estimator: Estimator | Quadrature | ImportanceSampling = "corrected",
    prior: MixturePrior | None = None,
    tol: float = 1e-5,
    max_iter: int = 500,
    random_seed: int = 0,
    progressbar: bool = True,
    compile_kwargs: Mapping[str, Any] | None = None,
) -> Mixture:
    """Look for latent classes of people: subtypes, each a Normal group of its own, of one model.

    The machinery of `fit_mixture`, with one model as every component. Each search begins at a partition of the subjects
    (k-means of draws from their posteriors); the best of several ends is kept.

    Parameters
    ----------
    model : SubjectModel
        One subject's likelihood.
    data : Dataset
        As for `em_ppl.fit`.
    n_classes : int or sequence of int
        How many classes; of several numbers the one of the highest evidence is returned.
    starts : int
        Searches for each number.
    estimator, prior, tol, max_iter, random_seed, progressbar, compile_kwargs
        As for `fit_mixture`.

    Returns
    -------
    Mixture
        Components ``class_1``, ``class_2``, ..., in falling order of their size. ``tried`` holds the evidence of each
        number of classes: the bound plus log K!, for K classes can be named in so many ways.

    Raises
    ------
    ModelError, ValueError
        As `fit_mixture`; if a number of classes is below 1 or above that of subjects.

    Warns
    -----
    ConvergenceWarning
        If the fit or a mode search did not converge; says whose.

    References
    ----------
    Bishop, C. M. (2006). Pattern recognition and machine learning. Springer. Section 10.2.4 (number of components).

    Examples
    --------
    >>> import em_ppl as em, numpy as np, pymc as pm
    >>> @em.subject_model(level=em.Real(spread=3.0))
    ... def normal(level, y):
    ...     pm.Normal("y", level, 1.0, observed=y)
    >>> levels = np.concatenate([np.linspace(-1, 1, 20), np.linspace(7, 9, 10)])
    >>> data = em.from_subjects([{"y": level + np.array([-1.0, 0.0, 1.0])} for level in levels])
    >>> classes = em.fit_classes(normal, data, progressbar=False)
    >>> classes.frequencies.summary()["count"].round(1).to_dict()
    {'class_1': 20.0, 'class_2': 10.0}
    """
    check_numbers(tol, max_iter, random_seed)
    sizes = list(dict.fromkeys(n_classes)) if isinstance(n_classes, Iterable) else [n_classes]
    for k in sizes:
        check_counts(n_classes=k)
    check_counts(starts=starts)
    generator = np.random.default_rng(random_seed)
    settings = {"tol": tol, "max_iter": max_iter}
    named = _named({"class_1": model})
    with Progress(show=progressbar) as progress:
        one, wide = _start(
            named, data, estimator, prior or MixturePrior(), settings, random_seed, compile_kwargs, progress
        )
        if not sizes or max(sizes) > one.n_subjects:
            raise ValueError(f"n_classes={n_classes!r} must name numbers from 1 to {one.n_subjects}, that of subjects.")
        whole = _climb(one, *_begin(one, wide, np.ones((one.n_subjects, 1))), settings, generator, progress)
        found: dict[int, tuple[Problem, Found]] = {}
        try:
            for k in sizes:
                parts = [replace(one.components[0], name=f"class_{number + 1}") for number in range(k)]
                problem = replace(one, components=parts)
                found[k] = problem, whole if k == 1 else _best_of(problem, whole, starts, settings, generator, progress)
                if found[k][1].status == "interrupted":
                    break
        except KeyboardInterrupt:
            if not found:
                raise
        evidence = {k: f.bound[-1] + scipy.special.gammaln(k + 1) for k, (_, f) in found.items()}
        tried = pd.Series(evidence, name="evidence")
        problem, best = found[tried.idxmax()]
        best = _largest_first(problem, best)
        if len(found) < len(sizes) or found[k][1].status == "interrupted":
            best = replace(best, status="interrupted")
        mixture = _finish(problem, best, np.nan, settings | {"random_seed": random_seed}, progress)
    return _warned(replace(mixture, tried=tried.rename_axis("classes")))


def _best_of(
    problem: Problem,
    whole: Found,
    starts: int,
    settings: dict[str, Any],
    generator: np.random.Generator,
    progress: Progress,
) -> Found:
    """Begin at several partitions of the subjects, and go on from the best end."""
    k, posterior = len(problem.components), whole.subjects.posteriors[0]
    rough, ends = _expanded(problem), []
    for _ in range(starts):
        noise = generator.standard_normal(posterior.mean.shape)
        drawn = posterior.mean + np.einsum("nij,nj->ni", np.linalg.cholesky(posterior.laplace.covariance), noise)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "One of the clusters is empty")  # then that class begins at its prior
            member = scipy.cluster.vq.kmeans2(drawn / drawn.std(0), k, minit="++", rng=generator)[1]
        begin = _begin(rough, [posterior] * k, np.eye(k)[member])
        near = settings | {"tol": max(settings["tol"], ROUGH)}
        ends.append(iterate(rough, *begin, **near, generator=generator, progress=progress, wide_searches=0))
        if ends[-1].status == "interrupted":
            raise KeyboardInterrupt
    best = max(ends, key=lambda end: end.bound[-1])
    return _climb(problem, best.groups, best.subjects, settings, generator, progress)


def _largest_first(problem: Problem, found: Found) -> Found:
    """Bring classes into the order of their sizes."""
    order = np.argsort(-problem.counts(found.groups), kind="stable")
    subjects = Subjects(
        [found.subjects.posteriors[k] for k in order], found.subjects.responsibility[:, order], found.subjects.bound
    )
    return replace(found, groups=[found.groups[k] for k in order], subjects=subjects)


def _expanded(problem: Problem) -> Problem:
    """Return the same with expectations to second order, if they are to be integrated."""
    if problem.estimator != "exact":
        return problem
    return replace(
        problem, components=[replace(c, scheme=replace(c.scheme, estimator="corrected")) for c in problem.components]
    )


def _finish(problem: Problem, found: Found, null_bound: float, settings: dict[str, Any], progress: Progress) -> Mixture:
    progress.say("standard errors")
    try:
        errors = standard_errors(problem, found.groups, found.subjects)
    except KeyboardInterrupt:
        found, errors = replace(found, status="interrupted"), [np.full_like(q.a, np.nan) for q in found.groups]
    return Mixture.make(problem, found, errors, null_bound, **settings)


def _warned(mixture: Mixture) -> Mixture:
    for message in mixture.advice:
        warnings.warn(message, ConvergenceWarning, stacklevel=3)
    return mixture


def _named(models: Sequence[SubjectModel] | Mapping[str, SubjectModel]) -> dict[str, SubjectModel]:
    pairs = [*models.items()] if isinstance(models, Mapping) else [(str(getattr(m, "name", m)), m) for m in models]
    if not pairs:
        raise ValueError("a mixture needs a model or more.")
    names = [name for name, _ in pairs]
    for name, model in pairs:
        check_subject_model(model)
        shared = [parameter for parameter, p in model.parameters.items() if p.shared]
        if shared:
            raise ModelError(f"{name}: {shared[0]!r} is shared by all subjects; in a mixture every parameter varies.")
        if names.count(name) > 1:
            raise ValueError(f"two models have the name {name!r}: give names by a mapping.")
    return dict(pairs)


def _start(
    models: Mapping[str, SubjectModel],
    data: xr.Dataset,
    estimator: Estimator | Quadrature | ImportanceSampling,
    prior: MixturePrior,
    settings: Mapping[str, Any],
    random_seed: int,
    compile_kwargs: Mapping[str, Any] | None,
    progress: Progress,
) -> tuple[Problem, list[Posteriors]]:
    """Compile every model, and find every subject's posterior under a wide group."""
    schemes = [make_scheme(estimator, len(m.parameters), Normal(), random_seed) for m in models.values()]
    data = check_dataset(data)
    likelihoods: dict[str, CompiledModel] = {}
    for name, model in models.items():
        progress.say(f"{name}: compiling the likelihood and its gradient")
        likelihoods[name] = compile_model(model, data, compile_kwargs=compile_kwargs)
    check_same_responses({name: c.data for name, c in likelihoods.items()}, [c.observed for c in likelihoods.values()])
    components, posteriors = [], []
    for (name, model), scheme in zip(models.items(), schemes, strict=True):
        progress.say(f"{name}: compiling the likelihood and its gradient")
        compiled = likelihoods[name]
        compiled.compile(value_alone=scheme.estimator == "exact")
        progress.say(f"{name}: looking for a place to start")
        design = make_design(data, list(model.parameters), None, None)
        make_model = partial(
            make_group_model, design, model.parameters, structure="diagonal", distribution=Normal(), prior=None
        )
        group = starting_group(compiled, make_model)
        start = starting_modes(compiled, group, np.random.default_rng(random_seed))
        scheme = scheme.laid(group) if scheme.estimator == "exact" else scheme
        components.append(Component(name, compiled, group, prior.of_group(model, group), scheme))
        posteriors.append(e_step(compiled, group, start, replace(scheme, estimator="laplace")))
    return Problem(components, prior.alpha), posteriors


def _begin(problem: Problem, posteriors: list[Posteriors], responsibility: FloatArray) -> tuple[Groups, Subjects]:
    """Make the first groups, of responsibilities that are given."""
    near = Subjects(posteriors, responsibility, -np.inf)
    return update_groups(problem, near), near


def _climb(
    problem: Problem,
    groups: Groups,
    near: Subjects,
    settings: dict[str, Any],
    generator: np.random.Generator,
    progress: Progress,
) -> Found:
    """Iterate; if expectations are to be integrated, after those to second order have come near."""
    rough = _expanded(problem)
    if rough is not problem:
        loose = settings | {"tol": max(settings["tol"], NEAR)}
        done = iterate(rough, groups, near, **loose, generator=generator, progress=progress)
        if done.status == "interrupted":
            return done
        groups, near = done.groups, done.subjects
    return iterate(problem, groups, near, **settings, generator=generator, progress=progress)
