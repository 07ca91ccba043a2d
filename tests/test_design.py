"""Formulas and covariates: the matrix that they become, and what is refused."""

import numpy as np
import pandas as pd
import pymc as pm
import pytest

import em_ppl as em
from em_ppl.data import label_array
from em_ppl.design import make_design, make_group_model
from em_ppl.distributions import Normal

PEOPLE = pd.DataFrame(
    {"id": list("abcdef"), "age": [20.0, 30.0, 40.0, 50.0, 60.0, 70.0], "kind": ["x", "x", "y", "y", "y", "x"]}
)
TRIALS = pd.DataFrame({"id": np.repeat(list("abcdef"), 3), "y": np.random.default_rng(0).normal(size=18)})
DATA = em.from_dataframe(TRIALS, "id", people=PEOPLE)


@em.subject_model(level=em.Real(), sigma=em.Positive(shared=True))
def normal(level, sigma, y):
    pm.Normal("y", level, sigma, observed=y)


def design(covariates=None, by=None, data=DATA, varying=("alpha", "beta")):
    return make_design(data, list(varying), covariates, by)


def test_without_covariates_the_location_is_the_mean():
    plain = design()
    np.testing.assert_array_equal(plain.matrix(), np.tile(np.eye(2), (6, 1, 1)))
    np.testing.assert_array_equal(plain.level(), np.zeros(6))
    assert plain.labels == ["alpha", "beta"]
    assert not plain.has_covariates
    assert plain.levels == []


def test_one_formula_is_for_every_parameter():
    both = design("~ age + kind")
    assert both.labels == [f"{p}: {c}" for p in ("alpha", "beta") for c in ("Intercept", "age", "kind[T.y]")]
    x = both.matrix()
    assert x.shape == (6, 2, 6)
    expected = np.column_stack([np.ones(6), PEOPLE["age"], PEOPLE["kind"] == "y"])
    np.testing.assert_array_equal(x[:, 0, :3], expected)
    np.testing.assert_array_equal(x[:, 1, 3:], expected)
    assert (x[:, 0, 3:] == 0).all()
    assert (x[:, 1, :3] == 0).all()


def test_parameters_may_have_formulas_of_their_own():
    own = design({"beta": "~ 0 + kind"})
    assert own.labels == ["alpha", "beta: kind[x]", "beta: kind[y]"]
    assert own.coefficients == [("alpha", "1", "Intercept"), ("beta", "kind", "kind[x]"), ("beta", "kind", "kind[y]")]


def test_classes_are_in_order():
    by = design(by="kind")
    assert by.levels == ["x", "y"]
    np.testing.assert_array_equal(by.level(), [0, 0, 1, 1, 1, 0])
    np.testing.assert_array_equal(by.level(pd.DataFrame({"kind": ["y", "x"]})), [1, 0])


def test_new_people_are_coded_as_the_old_ones():
    spec = design("~ center(age) * kind")
    new = spec.matrix(pd.DataFrame({"age": [45.0, 46.0], "kind": ["y", "x"]}))
    np.testing.assert_allclose(new[:, 0, :4], [[1, 0, 1, 0], [1, 1, 0, 0]])


def test_a_column_that_does_not_change_within_a_subject_is_a_covariate():
    trials = TRIALS.assign(age=np.repeat(PEOPLE["age"].values, 3))
    same = design("~ age", data=em.from_dataframe(trials, "id"))
    np.testing.assert_array_equal(same.matrix(), design("~ age").matrix())


def test_labels_of_any_kind_survive():
    data = DATA.assign_coords(subject=np.arange(6))
    table = design("~ age", data=data).people
    assert list(table.index) == list(range(6))
    assert table.index.name == "subject"


@pytest.mark.parametrize("labels", [[10, 9, 30, 2, 7, 8], list("dbface"), ["x", 1, 2.5, ("a", 1), True, "b"]], ids=str)
def test_a_subjects_place_is_its_labels_whatever_the_order(labels):
    def places(order):
        ordered = design("~ age", data=DATA.assign_coords(subject=label_array(labels)).isel(subject=order))
        model = make_group_model(ordered, normal.parameters, np.ones(2), "diagonal", Normal(), None)
        return model.place

    order, in_order = [3, 5, 0, 1, 4, 2], places(np.arange(6))
    assert sorted(in_order) == list(range(6))
    np.testing.assert_array_equal(places(order), in_order[order])


def fit(**settings):
    return em.fit(normal, DATA, progressbar=False, compile_kwargs={"mode": "FAST_COMPILE"}, **settings)


def with_covariate(values):
    return DATA.assign(age=("subject", values))


BAD = [
    ("no tilde", lambda: design("age"), ValueError, "'age' is no formula of covariates, such as '~ age"),
    ("a response", lambda: design("y ~ age"), ValueError, "'y ~ age' is no formula"),
    ("a broken formula", lambda: design("~ age +"), ValueError, r"'~ age \+' cannot be read"),
    ("no such covariate", lambda: design("~ sex"), ValueError, "covariate 'sex' is not in the data, which have y, age"),
    ("no such parameter", lambda: design({"gamma": "~ age"}), ValueError, "formula for 'gamma'.*vary are alpha, beta"),
    ("a shared parameter", lambda: fit(covariates={"sigma": "~ age"}), ValueError, "'sigma'.*that vary are level"),
    ("varies in a subject", lambda: design("~ y"), ValueError, "'y' differs between trials of subject 'a'"),
    (
        "missing",
        lambda: design("~ age", data=with_covariate([1, 2, np.nan, 4, 5, 6])),
        ValueError,
        "'age' is missing or infinite for subject 'c'.*fill it in, or leave the subject out",
    ),
    (
        "infinite",
        lambda: design("~ age", data=with_covariate([1, 2, np.inf, 4, 5, 6])),
        ValueError,
        "'age' is missing or infinite for subject 'c'",
    ),
    (
        "collinear",
        lambda: design("~ age + double", data=DATA.assign(double=2 * DATA["age"])),
        ValueError,
        r"columns of '~ age \+ double' \(Intercept, age, double\).*combination of the others. Drop one",
    ),
    (
        "no number after its function",
        lambda: design("~ np.log(age - 45)"),
        ValueError,
        r"'?~ np.log\(age - 45\)'? cannot be evaluated",
    ),
    ("no coefficient", lambda: design("~ 0"), ValueError, "leaves the mean of 'alpha' no coefficient; '~ 1'"),
    (
        "a class of one",
        lambda: design(by="kind", data=DATA.assign(kind=("subject", np.array(list("xxxxxy"), dtype=object)))),
        ValueError,
        "covariance_by='kind': 'y' is one subject only.*Merge classes",
    ),
    (
        "two classes",
        lambda: design(by=["kind", "age"]),
        TypeError,
        "covariance_by=.* must be the name of one covariate",
    ),
    (
        "another dim",
        lambda: design("~ z", data=DATA.assign(z=("other", [1.0, 2.0]))),
        ValueError,
        r"'z' has dims \('other',\): it must have one value a subject",
    ),
    (
        "new people without it",
        lambda: design("~ age").matrix(pd.DataFrame({"kind": ["x"]})),
        ValueError,
        "new people have no column 'age'; they have kind",
    ),
    (
        "new people of a new kind",
        lambda: design("~ kind").matrix(pd.DataFrame({"kind": ["z"]})),
        ValueError,
        "category that the fit has not seen",
    ),
    (
        "a new person of whom it is not known",
        lambda: design("~ age").matrix(pd.DataFrame({"age": [20.0, np.nan]})),
        ValueError,
        "'age' is missing for person 1",
    ),
    (
        "a new class",
        lambda: design(by="kind").level(pd.DataFrame({"kind": ["z"]})),
        ValueError,
        "kind='z' is none of the fit's",
    ),
]


@pytest.mark.parametrize(("trigger", "error", "message"), [row[1:] for row in BAD], ids=[row[0] for row in BAD])
def test_bad_covariates_are_refused_with_a_message_that_helps(trigger, error, message):
    with pytest.raises(error, match=message):
        trigger()
