"""Fits that need a second look say so: what is wrong, for whom, and what to do."""

import warnings

import numpy as np
import pymc as pm
import pytensor
import pytensor.tensor as pt
import pytest
from helpers import QUICK
from pytensor.scan.utils import until

import em_ppl as em
import em_ppl.em
import em_ppl.functions
from em_ppl.batching import NotBatchable

LABELS = list("abcdefgh")
GENERATOR = np.random.default_rng(0)
DATA = em.from_subjects(
    [{"y": GENERATOR.normal(level, 1.0, 10)} for level in np.linspace(-2.0, 2.0, len(LABELS))], subjects=LABELS
)


@em.subject_model(level=em.Real())
def normal(level, y):
    pm.Normal("y", level, 1.0, observed=y)


@em.subject_model(a=em.Real(), b=em.Real())
def sum_of_two(a, b, y):
    pm.Normal("y", a + b, 1.0, observed=y)


@em.subject_model(p=em.Unit())
def coin(p, y):
    pm.Bernoulli("y", p=p, observed=y)


@em.subject_model(level=em.Real())
def jumps(level, y, jumping):
    """The marked subject's log-likelihood rises towards 0.3, and falls by 20 there."""
    smooth = -0.5 * (level - y) ** 2
    jump = pt.switch(level < 0.3, level, -2.0 - level)
    pm.Potential("p", pt.switch(pt.eq(jumping, 1), jump, smooth))


def jumping_data(who):
    return DATA.assign(jumping=DATA.y.copy(data=np.full(DATA.y.shape, (DATA.subject == who).values[:, None] * 1)))


def fit(model=normal, data=DATA, **settings):
    return em.fit(model, data, progressbar=False, **{"compile_kwargs": QUICK} | settings)


def fit_and_warnings(*args, **kwargs):
    """Return a fit, and the texts of its ConvergenceWarnings; any other warning is an error."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("error")
        warnings.simplefilter("always", em.ConvergenceWarning)
        result = fit(*args, **kwargs)
    assert [w.category for w in caught] == [em.ConvergenceWarning] * len(caught)
    return result, [str(w.message) for w in caught]


# ---- convergence


def test_a_good_fit_warns_of_nothing():
    result, messages = fit_and_warnings()
    assert messages == []
    assert result.advice == ()
    assert result.converged
    assert "\nconverged after" in repr(result)


@pytest.mark.parametrize("max_iter", [1, 2])
@pytest.mark.parametrize("estimator", ["corrected", "laplace"])
def test_too_few_iterations_are_reported(max_iter, estimator):
    result, [message] = fit_and_warnings(max_iter=max_iter, estimator=estimator)
    assert f"EM did not converge in {max_iter} iterations" in message
    assert "tol is 1e-05" in message
    assert "raise max_iter" in message
    assert f"{result.history['change'].values[-1]:.1e}" in message
    assert not result.converged
    assert result.iterations == max_iter
    assert "NOT CONVERGED" in repr(result)
    assert f"! {message}" in repr(result)
    assert message in result._repr_html_().replace("&#x27;", "'")


def test_warnings_point_at_the_line_that_called_fit():
    with pytest.warns(em.ConvergenceWarning) as caught:
        em.fit(normal, DATA, max_iter=1, progressbar=False, compile_kwargs=QUICK)
    assert caught[0].filename == __file__


@pytest.mark.parametrize("covariance", ["diagonal", "full"])
def test_a_combination_that_is_not_identified_is_reported(covariance):
    result, messages = fit_and_warnings(sum_of_two, covariance=covariance)
    [message] = [m for m in messages if "not identified" in m]
    assert "some combination of " in message
    assert "'a'" in message
    assert "'b'" in message
    assert "Fix it, or change the model" in message
    assert message in result.advice


@pytest.mark.parametrize("call", [2, 3])
def test_an_interrupt_returns_the_fit_as_it_stands(monkeypatch, call):
    whole, calls = em_ppl.em.e_step, []

    def e_step(*args, **kwargs):
        calls.append(1)
        if len(calls) == call:
            raise KeyboardInterrupt
        return whole(*args, **kwargs)

    monkeypatch.setattr(em_ppl.em, "e_step", e_step)
    result, [message] = fit_and_warnings()
    assert result.settings["status"] == "interrupted"
    assert result.iterations == call - 1
    assert f"EM was interrupted after {call - 1} iterations" in message
    assert not result.converged
    assert "NOT CONVERGED" in repr(result)
    assert np.isfinite(result.group.mean).all()
    assert np.isfinite(result.log_evidence)


def test_an_interrupt_of_the_standard_errors_keeps_the_fit(monkeypatch):
    def uncertainty(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(em_ppl.em, "uncertainty", uncertainty)
    result, messages = fit_and_warnings()
    assert "EM was interrupted" in messages[0]
    assert np.isfinite(result.group.mean).all()
    assert np.isnan(result.group.mean_se).all()
    assert np.isnan(result.group.intervals()["low"]).all()
    repr(result)


def test_an_interrupt_of_exact_ems_first_steps_returns_what_there_is(monkeypatch):
    whole, calls = em_ppl.em.e_step, []

    def e_step(*args, **kwargs):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return whole(*args, **kwargs)

    monkeypatch.setattr(em_ppl.em, "e_step", e_step)
    result, [message] = fit_and_warnings(estimator="exact")
    assert "EM was interrupted after 1 iterations" in message
    assert result.settings["estimator"] == "corrected"  # so far


def test_an_interrupt_before_the_first_iteration_ends_is_raised(monkeypatch):
    def e_step(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(em_ppl.em, "e_step", e_step)
    with pytest.raises(KeyboardInterrupt):
        fit()


# ---- subjects


def test_a_subject_whose_log_likelihood_jumps_is_reported_by_name():
    result, messages = fit_and_warnings(jumps, jumping_data("d"), estimator="laplace", compile_kwargs=None)
    [message] = [m for m in messages if "no mode was found" in m]
    assert "for subject 'd':" in message
    assert "the log-likelihood may jump" in message
    assert result.subjects.converged.values.tolist() == [label != "d" for label in LABELS]
    assert not result.converged
    assert result.subjects["mode"].sel(subject="d").item() == pytest.approx(0.3, abs=1e-3)


def test_a_subject_whose_log_likelihood_jumps_does_not_drag_the_group_along():
    result, messages = fit_and_warnings(jumps, jumping_data("d"), estimator="corrected", compile_kwargs=None)
    assert any("'d'" in m for m in messages)
    assert result.group.sd.item() > 0.5


def test_several_subjects_are_named_and_many_are_counted():
    result = fit(estimator="laplace")
    lost = result.subjects.assign(converged=result.subjects.converged & False)
    [message] = em.Fit(**{**vars(result), "subjects": lost}).advice
    assert message.startswith("no mode was found for subjects 'a', 'b', 'c', 'd', 'e' and 3 more:")


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("repaired", "the log-posterior of subject 'c' does not curve down in every direction at the mode"),
        ("integrated", "the posterior of subject 'c' is so far from Normal that it was integrated, not expanded"),
    ],
)
def test_a_subject_whose_approximation_is_rough_is_named(flag, message):
    result = fit()
    rough = result.subjects.assign({flag: result.subjects.subject == "c"})
    [advice] = em.Fit(**{**vars(result), "subjects": rough}).advice
    assert advice.startswith(message)


@pytest.mark.parametrize(("whose", "named"), [("c", "of subject 'c' is"), ("", "of many was, on the way,")])
def test_that_everyone_was_integrated_is_said_with_whose_fault_it_is(whose, named):
    result = fit()
    own = {"integrated": result.subjects.integrated | True, "skewed": result.subjects.subject == whose}
    [advice] = em.Fit(**{**vars(result), "subjects": result.subjects.assign(own)}).advice
    assert advice.startswith(f"the posterior {named} so far from Normal that everyone's was integrated, not expanded")


# ---- the group


ALIKE = em.from_subjects([{"y": [-1.0, 0.0, 1.0]}] * 6)


def test_a_group_sd_that_goes_to_0_is_reported():
    result, messages = fit_and_warnings(data=ALIKE)
    [message] = [m for m in messages if "the group SD of" in m]
    assert "level" in message
    assert "has gone to 0: subjects do not differ in it" in message
    assert result.group.sd.item() < 0.01
    assert result.group.mean.item() == pytest.approx(0.0, abs=1e-4)


def test_a_correlation_that_goes_to_its_bound_is_reported():
    """Two parameters of the same subjects, of which one is but a multiple of the other."""
    generator = np.random.default_rng(6)
    level = np.linspace(-2.0, 2.0, len(LABELS))
    people = [{"y": generator.normal(a, 1.0, 200), "z": generator.normal(-3.0 * a, 1.0, 200)} for a in level]

    @em.subject_model(a=em.Real(), b=em.Real())
    def two(a, b, y, z):
        pm.Normal("y", a, 1.0, observed=y)
        pm.Normal("z", b, 1.0, observed=z)

    data = em.from_subjects(people, subjects=LABELS)
    z = -3.0 * data.y.mean("trial") + data.z - data.z.mean("trial")  # exactly so, as far as the means go
    result, [message] = fit_and_warnings(two, data.assign(z=z), covariance="full")
    assert "a combination of 'a', 'b'" in message
    assert 'covariance="diagonal"' in message
    assert result.converged
    assert result.group.correlation[0, 1].item() == pytest.approx(-1.0, abs=1e-3)


def test_one_subject_alone_is_its_maximum_likelihood_fit():
    result, [message] = fit_and_warnings(data=DATA.isel(subject=[0]))
    assert message.startswith("there is one subject only")
    y = DATA.y.values[0]
    assert result.group.mean.item() == pytest.approx(y.mean(), abs=1e-4)
    assert result.group.mean_se.item() == pytest.approx(len(y) ** -0.5, rel=1e-3)


def test_parameters_are_named_without_numpys_wrapping():
    _, messages = fit_and_warnings(data=ALIKE)
    assert any("the group SD of 'level' has gone to 0" in m for m in messages)


def test_the_group_mean_has_a_standard_error_even_where_the_sd_has_gone_to_0():
    result, _ = fit_and_warnings(data=ALIKE)
    assert result.group.mean_se.item() == pytest.approx(18**-0.5, rel=0.05)


def test_responses_that_never_vary_are_reported_as_what_they_are():
    result, messages = fit_and_warnings(coin, em.from_subjects([{"y": [1, 1, 1]}] * 5))
    assert result.group.mean.item() > 3
    [message] = [m for m in messages if "'p'" in m]
    assert "the group mean of 'p' runs off towards a bound" in message
    assert "as when they never vary" in message


# ---- one subject at a time


@pytest.fixture
def one_at_a_time(monkeypatch):
    """Refuse to batch."""

    def batch(*args):
        raise NotBatchable("Op: it cannot be batched.")

    monkeypatch.setattr(em_ppl.functions, "batch", batch)


def two_terms(level, y, offset, weights, age):
    """Read columns by trial, by subject and shared by all, with two terms, one of them a number."""
    pm.Normal("y", level + offset * weights[0] + age * weights[1], 1.0, observed=y)
    pm.Potential("p", -(level**2))


def ragged_data():
    generator = np.random.default_rng(1)
    people = [
        {"y": generator.normal(size=n), "offset": generator.normal(size=n), "age": float(n)} for n in (4, 1, 3, 6, 3)
    ]
    people[3]["y"][2] = np.nan
    return em.from_subjects(people).assign(weights=("weight", [0.5, 0.1]))


def test_one_subject_at_a_time_gives_the_same_numbers(one_at_a_time, monkeypatch):
    data = ragged_data()
    with pytest.warns(em.BatchingWarning, match=r"two_terms is evaluated one subject at a time.*it cannot be batched"):
        apart = em.subject_model(level=em.Real())(two_terms).compile(data, compile_kwargs=QUICK)
    monkeypatch.undo()
    together = em.subject_model(level=em.Real())(two_terms).compile(data, compile_kwargs=QUICK)
    assert together.functions.together.batched
    assert not apart.functions.together.batched
    x = np.linspace(-1.0, 1.0, 5)[:, None]
    np.testing.assert_allclose(apart.log_likelihood(x), together.log_likelihood(x), rtol=1e-12)
    np.testing.assert_allclose(apart.log_likelihood_gradient(x), together.log_likelihood_gradient(x), rtol=1e-12)
    np.testing.assert_allclose(
        apart.value_and_gradient(x[[1, 3]], np.array([4, 2]))[0],
        together.value_and_gradient(x[[1, 3]], np.array([4, 2]))[0],
        rtol=1e-12,
    )
    expected = together.pointwise_log_likelihood(x)
    for name, values in apart.pointwise_log_likelihood(x).items():
        np.testing.assert_allclose(values, expected[name], rtol=1e-12)


def test_one_subject_at_a_time_gives_the_same_fit(one_at_a_time, monkeypatch):
    model = em.subject_model(level=em.Real())(normal.function)
    with pytest.warns(em.BatchingWarning):
        apart = fit(model)
    monkeypatch.undo()
    together = fit()
    np.testing.assert_allclose(apart.group.mean, together.group.mean, rtol=1e-8)
    np.testing.assert_allclose(apart.group.covariance, together.group.covariance, rtol=1e-8)
    assert apart.log_evidence == pytest.approx(together.log_evidence, rel=1e-10)


def sums(stop):
    """Return a model of a sum over trials, that stops at `stop` or not at all."""

    def likelihood(level, y):
        def step(value, total):
            total = total + level * value
            return (total, until(total > stop)) if stop is not None else total

        total = pytensor.scan(step, sequences=[y], outputs_info=[pt.zeros(())], return_updates=False)
        pm.Potential("p", -((total[-1] - 1.0) ** 2))

    return em.subject_model(level=em.Real())(likelihood)


def test_a_scan_that_may_stop_falls_back_and_is_right():
    """The first data never stop it, so that the batched Scan without a stop knows the numbers."""
    data = em.from_subjects([{"y": y} for y in ([0.1, 0.2, 0.3], [0.3, 0.1], [-0.2, 0.4, 0.1, 0.2])])
    with pytest.warns(em.BatchingWarning, match="stopping condition") as caught:
        apart = sums(stop=50.0).compile(data, compile_kwargs=QUICK)
    assert len(caught) == 1
    together = sums(stop=None).compile(data, compile_kwargs=QUICK)
    x = np.array([[0.5], [1.0], [-0.7]])
    np.testing.assert_allclose(apart.log_likelihood(x), together.log_likelihood(x), rtol=1e-12)
    np.testing.assert_allclose(apart.log_likelihood_gradient(x), together.log_likelihood_gradient(x), rtol=1e-12)

    with warnings.catch_warnings():  # compiled already: nothing more is said
        warnings.simplefilter("error")
        stopping = apart.with_data(em.from_subjects([{"y": [30.0, 40.0, 50.0, 60.0]}, {"y": [1.0, 2.0]}]))
    np.testing.assert_allclose(stopping.log_likelihood([[1.0], [1.0]]), [-(69.0**2), -4.0], rtol=1e-12)


def test_the_fallback_is_announced_once_for_a_model(one_at_a_time):
    model = em.subject_model(level=em.Real())(normal.function)
    with pytest.warns(em.BatchingWarning) as caught:
        model.compile(DATA, compile_kwargs=QUICK).compile()
    assert len(caught) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.compile(DATA, compile_kwargs=QUICK).compile()
        model.compile(DATA.isel(subject=slice(3)), compile_kwargs=QUICK).compile()
        fit(model)


@pytest.mark.parametrize("how", ["compile", "fit"])
def test_the_fallback_points_at_the_line_of_the_user(one_at_a_time, how):
    model = em.subject_model(level=em.Real())(normal.function)
    with pytest.warns(em.BatchingWarning) as caught:  # noqa: PT031
        if how == "compile":
            model.compile(DATA, compile_kwargs=QUICK).compile()
        else:
            em.fit(model, DATA, progressbar=False, compile_kwargs=QUICK)
    assert caught[0].filename == __file__
