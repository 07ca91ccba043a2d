"""What must hold for any model and any data: random ones, from `grammar`.

Many more than by default are tried by `EXAMPLES=200 pytest tests/test_properties.py`.
"""

import os
from typing import Any, NamedTuple

import grammar
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis import strategies as st

import em_ppl as em

EXAMPLES = int(os.environ.get("EXAMPLES", "6"))
MODELS = [grammar.make(number) for number in range(EXAMPLES)]

pytestmark = [
    pytest.mark.usefixtures("interpreted"),
    pytest.mark.filterwarnings("ignore::em_ppl.ConvergenceWarning"),  # random data may say nothing
]

try_many = settings(
    max_examples=EXAMPLES,
    derandomize=True,
    deadline=None,
    database=None,
    phases=[Phase.generate],  # studies are small as they are, and a smaller one would have to be compiled
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture],
)


class Study(NamedTuple):
    """A model and people."""

    random: grammar.Likelihood
    people: dict[str, dict[str, Any]]
    drawn: tuple[Any, ...]  # what `draw` of the model was given

    def __repr__(self):
        return f"Study({self.random}, {self.drawn})"

    @property
    def model(self):
        return self.random.model

    @property
    def data(self):
        return em.from_subjects(self.people)


@st.composite
def studies(draw, models=MODELS, people=(1, 5), trials=(1, 10), most_missing=1.0):
    """Ragged data of a random model, in which responses are missing, of some people all."""
    random = draw(st.sampled_from(models))
    lengths = draw(st.lists(st.integers(*trials), min_size=people[0], max_size=people[1]))
    gaps = [draw(st.sampled_from([0.0, 0.3, most_missing])) for _ in lengths]
    drawn = lengths, gaps, draw(st.integers(0, 999))
    people = random.draw(*drawn)
    for name in random.responses:  # a column without any value is refused
        assume(any(np.isfinite(one[name]).any() for one in people.values()))
    return Study(random, people, drawn)


FEW_TRIALS = {"people": (3, 6), "trials": (1, 15)}
MANY_TRIALS = {"people": (8, 12), "trials": (20, 50), "most_missing": 0.3}


def draw_x(study, seed=0):
    start = [p.gaussian_start for p in study.model.parameters.values()]
    return np.random.default_rng(seed).normal(start, 0.7, (len(study.people), len(start)))


def fit(study, data=None, **arguments):
    return em.fit(study.model, study.data if data is None else data, progressbar=False, **arguments)


def assert_same_bits(one, other):
    xr.testing.assert_identical(one.subjects, other.subjects)
    xr.testing.assert_identical(one.history, other.history)
    xr.testing.assert_identical(one.information, other.information)
    np.testing.assert_array_equal(one.group.free, other.group.free)
    np.testing.assert_array_equal(one.group.free_covariance, other.group.free_covariance)


# --- likelihoods ----------------------------------------------------------------------------------------------------


@pytest.mark.long
@try_many
@given(studies())
def test_likelihoods_are_those_of_pymc(study):
    """To rounding; slopes to the error of central differences, e^2 f''' / 6 and the rounding of f over e."""
    x, compiled = draw_x(study), study.model.compile(study.data)
    value, gradient = compiled.log_likelihood(x), compiled.log_likelihood_gradient(x)
    for i, columns in enumerate(study.people.values()):
        np.testing.assert_allclose(value[i], study.random.log_likelihood(x[i], columns), rtol=1e-12, atol=1e-12)
        for k, side in enumerate(1e-5 * np.eye(x.shape[1])):
            up, down = (study.random.log_likelihood(x[i] + s, columns) for s in (side, -side))
            np.testing.assert_allclose(gradient[i, k], (up - down) / 2e-5, rtol=1e-6, atol=1e-6 * max(1, abs(value[i])))


@try_many
@given(studies())
def test_a_subject_is_the_same_alone(study):
    """To the last bit, whether its own data are padded or not."""
    x, data = draw_x(study), study.data
    compiled = study.model.compile(data)
    value, gradient = compiled.log_likelihood(x), compiled.log_likelihood_gradient(x)
    for i, label in enumerate(study.people):
        if not all(np.isfinite(study.people[label][name]).any() for name in study.random.responses):
            continue
        for own in (data.isel(subject=[i]), em.from_subjects({label: study.people[label]})):
            alone = study.model.compile(own)
            assert alone.log_likelihood(x[[i]]) == value[i]
            np.testing.assert_array_equal(alone.log_likelihood_gradient(x[[i]])[0], gradient[i])


@settings(try_many, max_examples=-(-EXAMPLES // 3))  # PyTensor compiles it, which takes long
@given(studies())
def test_the_graph_of_all_subjects_says_the_same(study):
    """To rounding, as sums go another way."""
    x, loops = draw_x(study), study.model.compile(study.data)
    graph = study.model.compile(study.data, compile_kwargs={"mode": grammar.PYTHON})
    np.testing.assert_allclose(graph.log_likelihood(x), loops.log_likelihood(x), rtol=1e-12, atol=1e-12)
    slopes = graph.log_likelihood_gradient(x), loops.log_likelihood_gradient(x)
    np.testing.assert_allclose(*slopes, rtol=1e-9, atol=1e-9)


@try_many
@given(studies(), st.integers(1, 3))
def test_missing_trials_at_the_end_change_nothing(study, extra):
    x, compiled = draw_x(study), study.model.compile(study.data)
    longer = {label: lengthen(study, columns, extra) for label, columns in study.people.items()}
    after = compiled.with_data(em.from_subjects(longer))
    np.testing.assert_array_equal(after.log_likelihood(x), compiled.log_likelihood(x))
    np.testing.assert_array_equal(after.log_likelihood_gradient(x), compiled.log_likelihood_gradient(x))


def lengthen(study, columns, extra):
    """Add trials without a response; all else of them is as in the last trial."""
    longer = {name: np.append(v, [v[-1]] * extra) if np.ndim(v) else v for name, v in columns.items()}
    nothing = np.full(extra, np.nan)
    longer |= {name: np.concatenate([columns[name], nothing]) for name in study.random.responses}
    return longer | ({"seen": np.append(columns["seen"], [0] * extra)} if "seen" in columns else {})


# --- data -----------------------------------------------------------------------------------------------------------


@try_many
@given(studies(), st.randoms(use_true_random=False))
def test_rows_of_subjects_may_interleave(study, random):
    tables = [pd.DataFrame(columns | {"who": label}) for label, columns in study.people.items()]
    turns = [i for i, table in enumerate(tables) for _ in range(len(table))]
    random.shuffle(turns)
    rows = [iter(range(len(table))) for table in tables]
    mixed = pd.concat([tables[i].iloc[[next(rows[i])]] for i in turns])
    in_order, data = (em.from_dataframe(table, subject="who") for table in (pd.concat(tables), mixed))
    xr.testing.assert_identical(data.sel(subject=in_order["subject"].values), in_order)


# --- fits -----------------------------------------------------------------------------------------------------------


@pytest.mark.long
@try_many
@given(studies(**FEW_TRIALS), st.integers(1, 3))
def test_chunks_change_no_bit(study, size):
    assert_same_bits(*(fit(study, data, max_iter=20) for data in (study.data, study.data.chunk(subject=size))))


@try_many
@given(studies(**FEW_TRIALS))
def test_save_and_load_change_no_bit(tmp_path_factory, study):
    path, before = tmp_path_factory.mktemp("fit") / "fit.nc", fit(study, max_iter=20)
    before.save(path)
    after = em.load(path, model=study.model)
    assert_same_bits(after, before)
    xr.testing.assert_identical(after.data, before.data)
    np.testing.assert_equal(after.settings, before.settings)
    assert after.advice == before.advice


def assert_same_numbers(one, other, unit=1.0):
    """Two fits that rounding alone sets apart, each parameter of the other divided by its unit.

    A step of EM moves a mean at its end by less than tol, 1e-6 of an SD, which is the share of the way that trials
    resolve. Where that is a thousandth, a thousandth of an SD is left, and of a standard error, which is longer; the
    log evidence is flat there, or all but flat where it is integrated: EM then ends where the integrated score is 0,
    which is not quite the slope of an integral whose points move along. Fits of which trials resolve less, or which did
    not end, must have said so.
    """
    if not (sound(one) and sound(other)):
        assert one.advice
        assert other.advice
        return
    se = one.group.mean_se
    for name in ("mean", "sd"):
        away = (getattr(other.group, name) / unit - getattr(one.group, name)) / se
        np.testing.assert_allclose(away, 0, atol=1e-3, err_msg=name)
    np.testing.assert_allclose(other.group.mean_se / unit, se, rtol=1e-3)
    flat = 1e-4 if one.subjects["integrated"].any() else 1e-6
    np.testing.assert_allclose(other.log_evidence, one.log_evidence, rtol=1e-9, atol=flat)
    theirs = other.subjects.sel(subject=one.subjects["subject"])
    np.testing.assert_allclose((theirs["mode"] / unit - one.subjects["mode"]) / se, 0, atol=1e-3)
    np.testing.assert_array_equal(theirs["converged"], one.subjects["converged"])


def sound(found):
    """Whether EM has ended and trials resolve something of every parameter."""
    return found.converged and bool((found.summary()["known"].dropna() > 1e-3).all())


@try_many
@given(studies(**MANY_TRIALS), st.randoms(use_true_random=False))
def test_order_of_subjects_does_not_matter(study, random):
    order = random.sample(range(len(study.people)), len(study.people))
    assert_same_numbers(*(fit(study, data, tol=1e-6) for data in (study.data, study.data.isel(subject=order))))


SENSITIVE = {  # of which EM's steps alone led elsewhere in another order or unit
    5: ([28, 36, 42, 20, 46, 28, 34, 29, 46, 29], [0.3, 0.3, 0.3, 0.3, 0, 0.3, 0, 0.3, 0.3, 0.3], 34),
    50: ([44, 40, 42, 36, 29, 32, 41, 35], [0, 0, 0.3, 0.3, 0.3, 0, 0.3, 0.3], 352),
    66: ([34, 47, 31, 26, 49, 34, 26, 22, 34], [0, 0, 0, 0.3, 0, 0, 0, 0.3, 0.3], 415),
    71: ([41, 45, 42, 22, 21, 20, 41, 26, 46, 20, 45, 33], [0.3, 0.3, 0.3, 0.3, 0, 0.3, 0, 0, 0.3, 0.3, 0.3, 0.3], 430),
}


@pytest.mark.parametrize("number", SENSITIVE)
def test_sensitive_studies_end_where_they_should_whatever_the_order_and_the_unit(number):
    random = grammar.make(number)
    study = Study(random, random.draw(*SENSITIVE[number]), SENSITIVE[number])
    before, order = fit(study, tol=1e-6), np.random.default_rng(0).permutation(len(study.people))
    assert sound(before)
    assert_same_numbers(before, fit(study, study.data.isel(subject=order), tol=1e-6))
    for times in (0.3, 8) if random.has_unit else ():
        after = fit(study, study.data.assign(unit=times * study.data["unit"]), tol=1e-6)
        assert_same_numbers(before, after, xr.where(before.group.mean["parameter"] == "a", 1 / times, 1.0))


@try_many
@given(studies([random for random in MODELS if random.has_unit], **MANY_TRIALS), st.sampled_from([1e-3, 0.3, 8, 1e4]))
def test_unit_of_a_real_parameter(study, times):
    """A likelihood that multiplies it by more finds it smaller."""
    before, after = fit(study, tol=1e-6), fit(study, study.data.assign(unit=times * study.data["unit"]), tol=1e-6)
    assert_same_numbers(before, after, xr.where(before.group.mean["parameter"] == "a", 1 / times, 1.0))


def silence_one(study):
    """Take all responses of the first subject away, and return its label."""
    label, columns = next(iter(study.people.items()))
    for name in study.random.responses:
        columns[name] = np.full(len(columns[name]), np.nan)
        assume(any(np.isfinite(one[name]).any() for one in study.people.values()))
    if "seen" in columns:
        columns["seen"] *= 0
    return label


@try_many
@given(studies(**FEW_TRIALS))
def test_a_subject_without_responses_is_the_group(study):
    label = silence_one(study)
    found = fit(study, max_iter=20)
    own = found.subjects.sel(subject=label)
    assert own["log_likelihood"] == 0
    np.testing.assert_allclose(own["log_evidence"], 0, atol=1e-12)
    sd = found.group.sd.values
    for name in ("mode", "posterior_mean"):
        np.testing.assert_allclose((own[name] - found.group.mean) / sd, 0, atol=1e-9)
    for name in ("laplace_covariance", "posterior_covariance"):
        np.testing.assert_allclose(own[name] / np.outer(sd, sd), np.eye(len(sd)), atol=1e-9)
