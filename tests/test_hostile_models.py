"""Likelihoods that misbehave for one subject: the others keep their numbers, or the fit says whose fault it is."""

import numpy as np
import pymc as pm
import pytensor.tensor as pt
import pytest
from scipy import optimize, stats

import em_ppl as em

LABELS = list("abcdefghij")
WHO = "d"
Y = np.array([np.random.default_rng(i).normal(level, 1.0, 10) for i, level in enumerate(np.linspace(-2, 2, 10))])

KINDS = {  # one subject's log-likelihood of a whole by its level, natural or not
    "impossible above 0": lambda level, y, m: m.switch(level > 0, -np.inf, -0.5 * (y - level) ** 2),
    "no number below 0": lambda level, y, m: -0.5 * (y - m.log(level)) ** 2,
    "flat": lambda level, y, m: 0.0 * level * y,
    "jumps": lambda level, y, m: -0.5 * (y - level) ** 2 - m.switch(level > -0.5, 0.5, 0.0),
    "explodes": lambda level, y, m: -0.5 * (y - m.exp(50.0 * level)) ** 2,
    "rounds": lambda level, y, m: -0.5 * (y - m.round(level)) ** 2,
    "cuts to an integer": lambda level, y, m: -0.5 * (y - m.trunc(level)) ** 2,
    "two modes": lambda level, y, m: m.logaddexp(-0.5 * (y - level) ** 2, -0.5 * (y + level) ** 2),
    "impossible": lambda level, y, m: -np.inf + 0 * level * y,
}


class NumPy:
    switch, log, exp, round, trunc, logaddexp = np.where, np.log, np.exp, np.round, np.trunc, np.logaddexp


@em.subject_model(level=em.Real())
def odd(level, y, kind):
    log_likelihood = -0.5 * (y - level) ** 2
    for number, of in enumerate(KINDS.values(), start=1):
        log_likelihood = pt.switch(pt.eq(kind, number), of(level, y, pt), log_likelihood)
    pm.Potential("p", log_likelihood)


def people(kind=None, model_kinds=tuple(KINDS)):
    number = model_kinds.index(kind) + 1 if kind else 0
    kinds = [np.full(10, number * (label == WHO)) for label in LABELS]
    return em.from_subjects([{"y": y, "kind": k} for y, k in zip(Y, kinds, strict=True)], subjects=LABELS)


def fit(model, data, **settings):
    return em.fit(model, data, progressbar=False, **settings)


def best_group(kind):
    """Mean and log SD of exact maximum likelihood, by a fine grid for each person's integral."""
    grid, step = np.linspace(-12, 12, 12001, retstep=True)
    log_likelihood = -0.5 * ((Y[:, :, None] - grid) ** 2).sum(1)
    who = LABELS.index(WHO)
    with np.errstate(all="ignore"):
        log_likelihood[who] = np.broadcast_to(KINDS[kind](grid, Y[who][:, None], NumPy), (10, len(grid))).sum(0)
    likelihood = np.exp(log_likelihood - np.nanmax(log_likelihood, axis=1, keepdims=True))
    likelihood[np.isnan(likelihood)] = 0.0

    def negative(v):
        return -np.log(likelihood @ stats.norm.pdf(grid, v[0], np.exp(v[1])) * step).sum()

    return optimize.minimize(negative, [0.0, 0.0], method="Nelder-Mead", options={"xatol": 1e-6, "fatol": 1e-9}).x


POSSIBLE = [kind for kind in KINDS if kind != "impossible"]


@pytest.mark.filterwarnings("ignore:the posterior of subject 'd' has a second mode")
@pytest.mark.parametrize("kind", POSSIBLE)
def test_the_group_is_exact_em_s_to_a_quarter_of_a_standard_error(kind):
    """A step, a cliff or a second mode of one person is more than quadrature can follow: that much is left."""
    group = fit(odd, people(kind), estimator="exact").group
    mean, log_sd = best_group(kind)
    assert abs(group.mean.item() - mean) < 0.25 * group.mean_se.item()
    assert abs(group.sd.item() - np.exp(log_sd)) < 0.25 * group.sd_se.item()


@pytest.mark.filterwarnings("ignore:the posterior of subject 'd' is so far from Normal")
@pytest.mark.filterwarnings("ignore:the posterior of subject 'd' has a second mode")
@pytest.mark.filterwarnings("ignore:more than half of the posterior of subject 'd'")
@pytest.mark.parametrize("estimator", ["corrected", "laplace", "exact"])
@pytest.mark.parametrize("kind", POSSIBLE)
def test_the_others_are_where_their_trials_and_the_group_put_them(kind, estimator):
    result = fit(odd, people(kind), estimator=estimator)
    mean, precision = result.group.mean.item(), result.group.sd.item() ** -2
    expected = (Y.sum(1) + precision * mean) / (Y.shape[1] + precision)
    others = result.subjects.subject != WHO
    assert result.subjects.converged[others].all()
    np.testing.assert_allclose(result.subjects["mode"][others].values[:, 0], expected[others], atol=1e-5)
    without = fit(odd, people().drop_sel(subject=WHO), estimator=estimator)
    np.testing.assert_allclose(result.subjects["mode"][others], without.subjects["mode"], atol=0.02)


@pytest.mark.parametrize("estimator", ["corrected", "laplace"])
@pytest.mark.parametrize("kind", ["rounds", "cuts to an integer"])
def test_steps_that_hide_a_slope_are_named(kind, estimator):
    with pytest.warns(em.ConvergenceWarning, match="half of the posterior of subject 'd' is not where.*has steps"):
        fit(odd, people(kind), estimator=estimator)


@pytest.mark.filterwarnings("ignore::em_ppl.ConvergenceWarning")  # the one that this is about
@pytest.mark.parametrize("kind", ["impossible above 0", "no number below 0", "flat", "jumps", "rounds"])
def test_few_points_tell_about_how_much_of_a_posterior_is_elsewhere(kind):
    """The distance in total variation of posterior and Normal approximation, by a fine grid."""
    result, grid = fit(odd, people(kind)), np.linspace(-12, 12, 12001)
    own, of_group = result.subjects.sel(subject=WHO), result.group
    with np.errstate(all="ignore"):
        log_density = KINDS[kind](grid, Y[LABELS.index(WHO)][:, None], NumPy) + np.zeros((10, 1))
    posterior = np.exp(log_density.sum(0) - np.nanmax(log_density.sum(0)))
    posterior = np.nan_to_num(posterior) * stats.norm.pdf(grid, of_group.mean.item(), of_group.sd.item())
    normal = stats.norm.pdf(grid, own["posterior_mean"].item(), np.sqrt(own["laplace_covariance"].item()))
    distance = 0.5 * np.abs(posterior / posterior.sum() - normal / normal.sum()).sum()
    assert own["elsewhere"].item() == pytest.approx(distance, abs=0.15)


def test_who_says_nothing_leaves_the_group_to_the_others():
    result, without = fit(odd, people("flat")), fit(odd, people().drop_sel(subject=WHO))
    assert result.group.mean.item() == pytest.approx(without.group.mean.item(), abs=1e-4)
    assert result.group.sd.item() == pytest.approx(without.group.sd.item(), rel=1e-4)
    assert result.subjects["mode"].sel(subject=WHO).item() == pytest.approx(result.group.mean.item(), abs=1e-4)


@pytest.mark.parametrize("estimator", ["corrected", "laplace", "exact"])
def test_who_has_two_modes_is_named(estimator):
    """Trials around 4 that -4 would explain as well: whichever mode is taken, the other is about as probable."""
    data = people("two modes")
    data["y"].loc[{"subject": WHO}] += 4.0 - data["y"].sel(subject=WHO).mean()
    with pytest.warns(em.ConvergenceWarning, match="the posterior of subject 'd' has a second mode that is about"):
        result = fit(odd, data, estimator=estimator)
    assert result.subjects["several_modes"].values.tolist() == [label == WHO for label in LABELS]


def test_an_explosion_is_named():
    with pytest.warns(em.ConvergenceWarning, match="posterior of subject 'd' is so far from Normal that everyone's"):
        fit(odd, people("explodes"))


@pytest.mark.parametrize("estimator", ["corrected", "laplace", "exact"])
def test_an_impossible_person_is_refused_by_name(estimator):
    with pytest.raises(
        em.ModelError, match=r"log-likelihood of subject 'd' is -inf at level=0; .* in every trial.*check"
    ):
        fit(odd, people("impossible"), estimator=estimator)


# ---- no maximum


ENDLESS = {
    "a line": lambda level: 5.0 * level,
    "a line the other way": lambda level: -5.0 * level,
    "a parabola": lambda level: level**2,
    "an exponential": lambda level: pt.exp(level),
    "a pole": lambda level: -0.1 * pt.log(abs(level - 1.0)),
}


@em.subject_model(level=em.Real())
def endless(level, y, kind):
    log_likelihood = -0.5 * (y - level) ** 2
    for number, of in enumerate(ENDLESS.values(), start=1):
        log_likelihood = pt.switch(pt.eq(kind, number), of(level), log_likelihood)
    pm.Potential("p", log_likelihood)


@pytest.mark.parametrize("estimator", ["corrected", "laplace", "exact"])
@pytest.mark.parametrize("kind", ["a line", "a line the other way", "a parabola"])
def test_a_likelihood_without_bound_is_refused_with_subject_and_parameter(kind, estimator):
    with pytest.raises(
        em.ModelError, match=r"endless: EM ran off to infinity in 'level', behind subject 'd': .*bound th"
    ):
        fit(endless, people(kind, tuple(ENDLESS)), estimator=estimator)


@pytest.mark.parametrize("estimator", ["corrected", "laplace", "exact"])
def test_a_likelihood_that_ends_where_floats_do_is_named(estimator):
    with pytest.warns(em.ConvergenceWarning, match="no mode was found for subject 'd': .* without bound there.*leave"):
        result = fit(endless, people("an exponential", tuple(ENDLESS)), estimator=estimator)
    assert result.subjects.converged.values.tolist() == [label != WHO for label in LABELS]


@pytest.mark.filterwarnings("ignore::em_ppl.ConvergenceWarning")  # of its curvature
def test_a_pole_is_named_and_em_ends_where_it_goes_round_in_circles(monkeypatch):
    monkeypatch.setattr(em.em, "STALLED", 10)
    with (
        pytest.warns(em.ConvergenceWarning, match="no mode was found for subject 'd': .* without bound there"),
        pytest.warns(em.ConvergenceWarning, match=r"did not converge: after \d\d iterations it comes no nearer"),
    ):
        result = fit(endless, people("a pole", tuple(ENDLESS)), estimator="laplace")
    assert result.settings["status"] == "stalled"
    others = fit(odd, people().drop_sel(subject=WHO), estimator="laplace")
    rest = result.subjects["mode"].drop_sel(subject=WHO)
    np.testing.assert_allclose(rest, others.subjects["mode"], atol=0.02)


@em.subject_model(mean=em.Real(), sd=em.Positive())
def free_sd(mean, sd, y):
    pm.Normal("y", mean, sd, observed=y)


@pytest.mark.parametrize("estimator", ["corrected", "laplace", "exact"])
@pytest.mark.parametrize("value", [0.0, 1.0, 3.7])
def test_a_normal_sd_that_goes_to_0_is_refused_with_subject_and_parameter(value, estimator):
    """Whoever gives one and the same rating has a likelihood without bound."""
    ratings = [{"y": np.full(10, value) if label == WHO else y} for label, y in zip(LABELS, Y, strict=True)]
    with pytest.raises(em.ModelError, match=r"free_sd: .* subject 'd'.*Bound 'sd'|ran off to infinity in 'sd', .*'d'"):
        fit(free_sd, em.from_subjects(ratings, subjects=LABELS), estimator=estimator)


@pytest.mark.filterwarnings("ignore::em_ppl.ConvergenceWarning")  # its SD is 0, too
def test_one_trial_each_cannot_tell_people_from_noise():
    """Var(y) = SD^2 + sd^2: exact EM ends on that ridge, and says that it is one."""
    y = np.linspace(-3.0, 3.0, 9)
    with pytest.warns(em.ConvergenceWarning, match="set the group mean of 'sd' next to no limit.*another number"):
        group = fit(free_sd, em.from_subjects([{"y": [one]} for one in y]), estimator="exact").group
    mean, log_sd = group.mean.values
    assert mean == pytest.approx(0.0, abs=1e-3)
    assert group.sd.values[0] ** 2 + np.exp(2 * log_sd) == pytest.approx(y.var(), rel=2e-3)


def test_one_trial_each_is_no_case_for_the_classic_estimator():
    """A mode with a mean at the one response, and an SD of 0."""
    data = em.from_subjects([{"y": [one]} for one in np.linspace(-3.0, 3.0, 9)])
    with pytest.raises(
        em.ModelError, match=r"free_sd: the posterior of subject \d shrinks to a point at sd=.*Bound 'sd'"
    ):
        fit(free_sd, data, estimator="laplace")


# ---- everybody


@em.subject_model(bias=em.Real(spread=1.0), slope=em.Real(spread=1.0))
def logistic(bias, slope, x, y):
    pm.Bernoulli("y", logit_p=bias + slope * x, observed=y)


def judges(separated):
    """Ten people; those that are `separated` never err."""
    generator = np.random.default_rng(3)
    for i in range(10):
        x, bias = generator.normal(size=40), generator.normal()
        yield {"x": x, "y": (x + bias + (0.0 if i in separated else 1.0) * generator.logistic(size=40) > 0) * 1}


@pytest.mark.filterwarnings("ignore::em_ppl.ConvergenceWarning")  # the others that it gives
def test_perfect_separation_of_all_is_named():
    with pytest.warns(em.ConvergenceWarning, match="group mean of 'slope' next to no limit.*separated perfectly"):
        fit(logistic, em.from_subjects(judges(range(10))))


def test_perfect_separation_of_one_is_held_by_the_group():
    """Ridge-penalised logistic regression, with the group as the penalty."""
    data = em.from_subjects(judges([4]))
    result = fit(logistic, data, estimator="exact")
    assert result.advice == ()
    mean, sd = result.group.mean.values, result.group.sd.values
    for who in (3, 4):
        x, y = data["x"].values[who], data["y"].values[who]

        def negative(v, x=x, y=y):
            signed = (2 * y - 1) * (v[0] + v[1] * x)
            return np.logaddexp(0, -signed).sum() + 0.5 * (((v - mean) / sd) ** 2).sum()

        mode = optimize.minimize(negative, mean, tol=1e-10).x
        np.testing.assert_allclose(result.subjects["mode"].sel(subject=who), mode, atol=1e-4)
    assert result.subjects["mode"].sel(parameter="slope").values.argmax() == 4


@em.subject_model(level=em.Real(), idle=em.Unit())
def with_an_idle_one(level, idle, y):
    pm.Normal("y", level + pt.round(0.1 * idle), 1.0, observed=y)


def test_a_parameter_that_does_nothing_is_named_and_the_other_is_right():
    with pytest.warns(em.ConvergenceWarning, match="data say nothing about 'idle'"):
        group = fit(with_an_idle_one, people()[["y"]]).group
    means = Y.mean(1)
    assert group.mean.values[0] == pytest.approx(means.mean(), abs=1e-3)
    assert group.sd.values[0] == pytest.approx(np.sqrt(means.var() - 0.1), rel=1e-3)
