"""What a fit has to say about itself: what went wrong, for whom, and what to do."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from em_ppl.data import label_text
from em_ppl.group import COLLAPSED, FloatArray
from em_ppl.m_step import resolved_share
from em_ppl.parameters import Parameter
from em_ppl.uncertainty import UNRESOLVED

if TYPE_CHECKING:
    from em_ppl.result import Fit

FAR = 5.0  # from a bounded parameter's start, Gaussian space: a learning rate of .993, say

WIDE = 3.0  # spreads at the start that a standard error may have: a 95 % interval is then nearly all there is

ELSEWHERE = 0.5  # share of a subject's posterior that may be missed

FAR_FROM_EXACT = 1.0  # standard errors: an interval of 95 % then covers in 83 %

ALONE = "there is one subject only, so the group has no spread: its mean is that subject's maximum-likelihood fit."


def advise(fit: Fit) -> tuple[str, ...]:
    """Collect all that a careful reader should know."""
    about_group = _about_group(fit) if fit.subjects.sizes["subject"] > 1 else [ALONE]
    far = advise_on_distance(fit.settings["distance_to_exact"])
    return tuple(dict.fromkeys([*_about_em(fit), *_about_subjects(fit), *about_group, *_about_shared(fit), *far]))


def _about_em(fit: Fit) -> Iterator[str]:
    change, tol = float(fit.history["change"][-1]), fit.settings["tol"]
    if fit.settings["status"] == "interrupted":
        yield f"EM was interrupted after {fit.iterations} iterations; the last change was {change:.1e} (tol {tol:.0e})."
    elif fit.settings["status"] == "stalled":
        yield (
            f"EM did not converge: after {fit.iterations} iterations it comes no nearer to its end; the last change was"
            f" {change:.1e}, tol is {tol:.0e}. Those whose mode is not found keep it from that."
        )
    elif fit.settings["status"] != "converged":
        yield (
            f"EM did not converge in {fit.iterations} iterations: the last change was {change:.1e}, tol is {tol:.0e}. "
            "Look at fit.history: if it still falls, raise max_iter; if not, a parameter may not be identified."
        )


def advise_on_distance(distance: Mapping[str, float]) -> tuple[str, ...]:
    """Say which numbers of the group exact EM would move by more than a standard error."""
    moved = ", ".join(f"{name} by {value:+.1f}" for name, value in distance.items() if abs(value) > FAR_FROM_EXACT)
    if not moved:
        return ()
    return (f'exact maximum likelihood is about so many standard errors away: {moved}. Use estimator="exact".',)


def _about_subjects(fit: Fit) -> Iterator[str]:
    table = {str(name): values.values for name, values in fit.subjects.variables.items()}
    subjects, lost, integrated = table["subject"], ~table["converged"], table["integrated"]
    repaired = table["repaired"] & ~integrated  # there it is only a place to integrate around
    if lost.any():
        yield (
            f"no mode was found for {who(subjects, lost)}: the log-likelihood may jump, or be flat or without bound "
            "there. Their numbers are where the search stopped, and draw on the group's; look at their data, or leave "
            "them out."
        )
    if table["several_modes"].any():
        yield (
            f"the posterior of {who(subjects, table['several_modes'])} has a second mode that is about as probable: "
            "their numbers are those of one. Sample, fit.sample(), or give the model what tells them apart."
        )
    if repaired.any():
        yield (
            f"the log-posterior of {who(subjects, repaired)} does not curve down in every direction at the mode; along "
            "the others the group's own variance was taken. Their variances and evidence are rough."
        )
    missed = (table["elsewhere"] > ELSEWHERE) & ~lost & ~repaired & ~table["several_modes"]
    if missed.any():
        yield (
            f"more than half of the posterior of {who(subjects, missed)} is not where its Normal approximation says:"
            ' their numbers are rough, as where the log-likelihood has steps. Use estimator="exact".'
        )
    if fit.settings["estimator"] == "corrected" and integrated.all():
        hard = table["repaired"] | table["skewed"]
        whose = f"of {who(subjects, hard)} is" if hard.any() else "of many was, on the way,"
        yield (
            f"the posterior {whose} so far from Normal that everyone's was integrated, not expanded to second order, "
            'as by estimator="exact".'
        )
    elif fit.settings["estimator"] == "corrected" and (integrated & ~lost).any():
        yield (
            f"the posterior of {who(subjects, integrated & ~lost)} is so far from Normal that it was integrated, not "
            "expanded to second order."
        )


def _about_group(fit: Fit) -> Iterator[str]:
    """Name directions of the group in which the trials resolve nothing, and say which reason it has."""
    group, levels, names = fit.group.plain, fit.group.design.levels, fit.group.varying
    start, parameters = group.model.unit[group.model.varying], [fit.parameters[name] for name in names]
    far = np.array([_is_far(p, x) for p, x in zip(parameters, fit.group.mean.values, strict=True)])
    spreads = np.hypot(start, group.sd.max(0))  # people who differ widely leave their mean less certain, rightly
    errors = fit.group.mean_se.values
    for name, se, unit, spread, is_far in zip(names, errors, start, spreads, far, strict=True):
        if se > WIDE * spread and not is_far:
            yield _without_limit(name, f"its standard error is {se:.2g}", unit)
    explained = fit.settings["status"] == "interrupted"  # why means have no standard error
    shares = resolved_share(group, fit.subjects["mode"].values, fit.subjects["laplace_covariance"].values)
    for level, share in enumerate(shares):
        factor, inverse = group.cholesky[level], group.inverse_cholesky[level]
        among = f" among {fit.group.design.by}={levels[level]}" if levels else ""
        collapsed = group.sd[level] / start < COLLAPSED
        for known, direction in zip(*_directions(share), strict=True):
            if known >= UNRESOLVED:
                continue
            # a combination of parameters, each in its starting SDs
            weights = inverse.T @ direction * start
            involved = np.abs(weights) > 0.3 * np.abs(weights).max()
            who = ", ".join(repr(name) for name, it_is in zip(names, involved, strict=True) if it_is) + among
            if (far & involved).any():
                yield (
                    f"the group mean of {who} runs off towards a bound, where the likelihood is flat: these responses "
                    "set it no limit, as when they never vary. Its values say no more than that."
                )
            elif collapsed[involved].all():
                yield f"the group SD of {who} has gone to 0: subjects do not differ in it, as far as these data show."
            elif np.linalg.norm(factor @ direction / start) < COLLAPSED:
                explained = True
                yield (
                    f"the group has no variance left in a combination of {who}, and a correlation is at its bound: "
                    'these data do not support a full covariance of them. Use covariance="diagonal".'
                )
            else:
                explained = True
                yield (
                    f"the data say nothing about {'' if involved.sum() == 1 else 'some combination of '}{who}: it is "
                    "not identified, and its group values depend on where the search began. Fix it, or change the "
                    "model."
                )

    for name, se, unit, is_far in zip(names, errors, start, far, strict=True):
        if np.isnan(se) and not (is_far or explained):
            yield _without_limit(name, "it has no standard error", unit)


def _without_limit(name: str, error: str, unit: float) -> str:
    return (
        f"the data set the group mean of {name!r} next to no limit: {error}, where the search began with a spread of "
        f"{unit:.2g}. The responses may be separated perfectly, or another number of the group may do as well. Bound "
        "the parameter, or fix it."
    )


def _directions(share: FloatArray) -> tuple[FloatArray, FloatArray]:
    values, vectors = np.linalg.eigh(share)
    return values, vectors.T


def _about_shared(fit: Fit) -> Iterator[str]:
    names = fit.group.shared_names
    if not names:
        return
    for name, x, se in zip(names, fit.group.shared.values, fit.group.shared_se.values, strict=True):
        if _is_far(fit.parameters[name], x):
            yield (
                f"the shared parameter {name!r} runs off towards a bound, where the likelihood is flat: these "
                "responses set it no limit. Its value says no more than that."
            )
        elif not np.isfinite(se):
            yield (
                f"the data say nothing about the shared parameter {name!r}: its value depends on where the search "
                "began. Fix it, or change the model."
            )


def _is_far(parameter: Parameter, x: float) -> bool:
    return parameter.link != "identity" and abs(x - parameter.gaussian_start) > FAR


def who(subjects: NDArray[Any], mask: NDArray[np.bool_]) -> str:
    """Name the subjects of a mask."""
    labels = [label_text(label) for label in subjects[mask]]
    shown = ", ".join(labels[:5]) + (f" and {len(labels) - 5} more" if len(labels) > 5 else "")
    return f"subject{'s' if len(labels) > 1 else ''} {shown}"
