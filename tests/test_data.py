"""Tables, lists and mappings of people become one padded Dataset, and columns become what a model reads."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import em_ppl as em
from em_ppl.data import check_dataset, read_column, real_trials, refuse_missing

nan = np.nan


@pytest.fixture
def table():
    """Three subjects, their rows interleaved, a non-unique index; bo has 1 trial, cy 3, ann 2."""
    return pd.DataFrame(
        {
            "who": ["bo", "cy", "ann", "cy", "ann", "cy"],
            "when": [1, 3, 2, 1, 1, 2],
            "choice": [1, 0, 1, 1, 0, 0],
            "reward": [0.5, 1.0, 1.5, 2.0, 2.5, 3.0],
            "correct": [True, False, True, True, False, False],
            "cue": ["x", "y", "x", "y", "y", "x"],
        },
        index=[7, 7, 0, 0, 7, 7],
    )


# ---- from_dataframe


def test_interleaved_subjects_keep_the_order_in_which_they_appear(table):
    data = em.from_dataframe(table, subject="who")
    assert data.subject.values.tolist() == ["bo", "cy", "ann"]
    assert data.n_trials.values.tolist() == [1, 3, 2]
    assert data.trial.values.tolist() == [0, 1, 2]
    assert dict(data.sizes) == {"subject": 3, "trial": 3}
    np.testing.assert_array_equal(data.reward, [[0.5, nan, nan], [1.0, 2.0, 3.0], [1.5, 2.5, nan]])


def test_a_trial_column_orders_each_subjects_rows(table):
    data = em.from_dataframe(table, subject="who", trial="when")
    np.testing.assert_array_equal(data.reward.sel(subject="cy"), [2.0, 3.0, 1.0])
    np.testing.assert_array_equal(data.reward.sel(subject="ann"), [2.5, 1.5, nan])


def test_subjects_keep_their_order_when_a_trial_column_sorts_their_rows(table):
    data = em.from_dataframe(table, subject="who", trial="when")
    assert data.subject.values.tolist() == ["bo", "cy", "ann"]


@pytest.mark.parametrize("settings", [{}, {"trial": "trial"}], ids=["not named", "named as the order"])
def test_a_table_may_have_a_column_called_trial(table, settings):
    data = em.from_dataframe(table.rename(columns={"when": "trial"}), subject="who", **settings)
    assert data.sizes["trial"] == 3
    assert data.n_trials.sel(subject="cy") == 3


def test_the_index_and_the_table_are_left_alone(table):
    before = table.copy(deep=True)
    em.from_dataframe(table, subject="who", trial="when")
    pd.testing.assert_frame_equal(table, before)


def test_the_subject_column_may_be_called_subject(table):
    data = em.from_dataframe(table.rename(columns={"who": "subject"}), subject="subject")
    assert data.subject.values.tolist() == ["bo", "cy", "ann"]


@pytest.mark.parametrize(
    ("column", "dtype", "values"),
    [
        ([1, 0, 1, 1, 0, 0], "int64", [[1, 0, 0], [0, 1, 0], [1, 0, 0]]),
        (np.array([1, 0, 1, 1, 0, 0], dtype="int8"), "int64", [[1, 0, 0], [0, 1, 0], [1, 0, 0]]),
        (np.array([1, 0, 1, 1, 0, 0], dtype="uint16"), "int64", [[1, 0, 0], [0, 1, 0], [1, 0, 0]]),
        ([True, False, True, True, False, False], "int64", [[1, 0, 0], [0, 1, 0], [1, 0, 0]]),
        (pd.array([1, 0, 1, 1, 0, 0], dtype="Int64"), "int64", [[1, 0, 0], [0, 1, 0], [1, 0, 0]]),
        (pd.array([1, 0, 1, None, 0, 0], dtype="Int64"), "float64", [[1, nan, nan], [0, nan, 0], [1, 0, nan]]),
        (pd.array([True, False, True, None, False, False]), "float64", [[1, nan, nan], [0, nan, 0], [1, 0, nan]]),
        (pd.array([True, False, True, True, False, False]), "int64", [[1, 0, 0], [0, 1, 0], [1, 0, 0]]),
        ([1, 0, 1, None, 0, 0], "float64", [[1, nan, nan], [0, nan, 0], [1, 0, nan]]),
        (pd.array([1.5, 0, 1, None, 0, 0], dtype="Float64"), "float64", [[1.5, nan, nan], [0, nan, 0], [1, 0, nan]]),
        (np.array([1, 0, 1, 1, 0, 0.5], dtype="float32"), "float64", [[1, nan, nan], [0, 1, 0.5], [1, 0, nan]]),
        (pd.Series([1, 0, 1, 1, 0, 0], dtype=object).array, "int64", [[1, 0, 0], [0, 1, 0], [1, 0, 0]]),
    ],
    ids=[
        "ints stay ints",
        "int8 becomes int64",
        "uint16 becomes int64",
        "bools become ints",
        "nullable ints without NA stay ints",
        "nullable ints with NA become floats",
        "nullable bools with NA become floats",
        "nullable bools without NA become ints",
        "None is NaN",
        "nullable floats become floats",
        "float32 becomes float64",
        "ints in an object column become ints",
    ],
)
def test_numbers_become_int64_or_float64(table, column, dtype, values):
    data = em.from_dataframe(table[["who"]].assign(x=column), subject="who")
    assert data.x.dtype == dtype
    np.testing.assert_array_equal(data.x, values)


@pytest.mark.parametrize("dtype", [object, "category", "string"])
def test_text_is_kept_as_it_is(table, dtype):
    data = em.from_dataframe(table.assign(cue=table["cue"].astype(dtype)), subject="who")
    assert data.cue.dtype == object
    assert data.cue.sel(subject="cy").values.tolist() == ["y", "y", "x"]
    assert data.cue.sel(subject="bo").values[0] == "x"
    assert data.cue.sel(subject="bo").isnull().values.tolist() == [False, True, True]


@pytest.mark.parametrize("dtype", ["category", "int8", "Int64", "string", object])
def test_subject_columns_of_any_dtype_work(dtype):
    table = pd.DataFrame({"who": pd.Series([2, 1, 2]).astype(dtype), "y": [1.0, 2.0, 3.0]})
    data = em.from_dataframe(table, subject="who")
    assert [str(label) for label in data.subject.values] == ["2", "1"]
    np.testing.assert_array_equal(data.y, [[1, 3], [2, nan]])


def test_stack_puts_columns_side_by_side(table):
    data = em.from_dataframe(table, subject="who", stack={"pair": ["choice", "reward"]})
    assert data.pair.dims == ("subject", "trial", "pair_column")
    assert data.pair_column.values.tolist() == ["choice", "reward"]
    np.testing.assert_array_equal(data.pair.sel(subject="cy"), [[0, 1.0], [1, 2.0], [0, 3.0]])
    assert np.isnan(data.pair.sel(subject="bo")[1:]).all()
    assert "choice" not in data
    assert "reward" not in data


def test_stacked_ints_stay_ints(table):
    data = em.from_dataframe(table, subject="who", stack={"pair": ["choice", "correct"]})
    assert data.pair.dtype == np.int64


# ---- from_subjects

FRAMES = [pd.DataFrame({"choice": [0, 1], "reward": [0.5, 1.0]}), pd.DataFrame({"choice": [1], "reward": [2.0]})]
RAGGED = {"choice": [[0, 1], [1, 0]], "reward": [[0.5, 1.0], [2.0, nan]]}


@pytest.mark.parametrize(
    ("people", "settings"),
    [
        (FRAMES, {}),
        (iter(FRAMES), {}),
        ([frame.to_dict("list") for frame in FRAMES], {}),
        ([{name: frame[name].to_numpy() for name in frame} for frame in FRAMES], {}),
        ([[[0, 1], [0.5, 1.0]], [[1], [2.0]]], {"columns": ["choice", "reward"]}),
        (
            [(np.array([0, 1]), np.array([0.5, 1.0])), (np.array([1]), np.array([2.0]))],
            {"columns": ["choice", "reward"]},
        ),
    ],
    ids=["DataFrames", "an iterator", "mappings of lists", "mappings of arrays", "pyEM's lists", "tuples of arrays"],
)
def test_one_entry_a_subject_in_any_form(people, settings):
    data = em.from_subjects(people, **settings)
    assert data.subject.values.tolist() == [0, 1]
    assert data.n_trials.values.tolist() == [2, 1]
    assert data.choice.dtype == np.int64
    for name, values in RAGGED.items():
        assert data[name].dims == ("subject", "trial")
        np.testing.assert_array_equal(data[name], values)


def test_a_mappings_keys_are_the_labels():
    data = em.from_subjects(dict(zip(["ann", "bo"], FRAMES, strict=True)))
    assert data.subject.values.tolist() == ["ann", "bo"]
    np.testing.assert_array_equal(data.reward.sel(subject="bo"), [2.0, nan])


def test_labels_may_be_given_apart():
    assert em.from_subjects(FRAMES, subjects=["s1", "s2"]).subject.values.tolist() == ["s1", "s2"]


def test_further_dimensions_are_kept_and_padded():
    people = [{"payoff": np.arange(6.0).reshape(3, 2), "y": [1, 2, 3]}, {"payoff": np.ones((1, 2)), "y": [4]}]
    data = em.from_subjects(people)
    assert data.payoff.dims == ("subject", "trial", "payoff_dim_0")
    np.testing.assert_array_equal(data.payoff[0], people[0]["payoff"])
    np.testing.assert_array_equal(data.payoff[1], [[1, 1], [nan, nan], [nan, nan]])


def test_a_single_number_belongs_to_the_subject_as_a_whole():
    data = em.from_subjects([{"y": [1.0, 2.0], "age": 30}, {"y": [3.0], "age": np.int8(41)}])
    assert data.age.dims == ("subject",)
    assert data.age.dtype == np.int64
    assert data.age.values.tolist() == [30, 41]


def test_integers_beside_floats_become_floats():
    data = em.from_subjects([{"y": [1, 2]}, {"y": [0.5]}])
    np.testing.assert_array_equal(data.y, [[1, 2], [0.5, nan]])


def test_columns_may_come_in_another_order():
    data = em.from_subjects([{"a": [1], "b": [2]}, {"b": [4], "a": [3]}])
    assert data.a.values.ravel().tolist() == [1, 3]


# ---- labels


@pytest.mark.parametrize(
    "labels",
    [
        [3, 1, 2],
        [10**12, -1, 0],
        [0.5, 1.5, -2.0],
        ["c", "a", "b"],
        ["", "näme", "a b"],
        [("a", 1), ("a", 2), ("b", 1)],
        [("a",), ("a", 1), ("b", 1, 2)],
        [1, "a", ("b", 2)],
        [1, "1", 2],
        [True, False, 2],
        [frozenset({1}), frozenset(), "x"],
    ],
    ids=repr,
)
@pytest.mark.parametrize("how", ["from_subjects", "from_dataframe"])
def test_labels_of_any_hashable_type_survive_as_coordinates(labels, how):
    if how == "from_subjects":
        data = em.from_subjects([{"y": [k]} for k in range(3)], subjects=labels)
    else:
        column = pd.Series(index=range(3), dtype=object)
        for row, label in enumerate(labels):
            column[row] = label
        data = em.from_dataframe(pd.DataFrame({"who": column, "y": range(3)}), subject="who")
    data = check_dataset(data)
    back = [label.item() if isinstance(label, np.generic) else label for label in data.subject.values]
    assert back == labels
    assert [type(label) for label in back] == [type(label) for label in labels]
    assert data.y.values.ravel().tolist() == [0, 1, 2]


# ---- what a model reads


def test_padding_and_missing_values_are_marked_and_filled_with_a_value_that_occurs():
    data = em.from_subjects([{"y": [2, 3, 4]}, {"y": [5, nan]}, {"y": [nan]}])
    values, present = read_column(data, "y")
    assert present.tolist() == [[True, True, True], [True, False, False], [False, False, False]]
    assert values.dtype == np.int64
    assert values.tolist() == [[2, 3, 4], [5, 5, 5], [2, 2, 2]]


@pytest.mark.parametrize(
    ("people", "dtype", "values"),
    [
        ([[1, 2], [3]], "int64", [[1, 2], [3, 3]]),
        ([[1.0, 2.0], [3.0]], "float64", [[1, 2], [3, 3]]),  # floats that only look like integers stay floats
        ([[1.0, nan], [3.0]], "int64", [[1, 1], [3, 3]]),  # a missing value makes floats of integers: undone
        ([[1.5, nan], [3.0]], "float64", [[1.5, 1.5], [3, 3]]),
        ([[True, False], [True]], "int64", [[1, 0], [1, 1]]),
    ],
)
def test_integers_are_integers_again_when_missing_values_are_filled(people, dtype, values):
    read, _ = read_column(em.from_subjects([{"y": y} for y in people]), "y")
    assert read.dtype == dtype
    assert read.tolist() == values


def test_a_trial_with_one_missing_entry_of_several_is_missing():
    data = em.from_subjects([{"y": [[1.0, 2.0], [nan, 3.0]]}, {"y": [[4.0, 5.0]]}])
    values, present = read_column(data, "y")
    assert present.tolist() == [[True, False], [True, False]]
    assert values.tolist() == [[[1, 2], [1, 2]], [[4, 5], [4, 5]]]


def test_columns_by_subject_and_columns_shared_by_all_are_read_too():
    data = em.from_subjects([{"y": [1.0], "age": 30}, {"y": [2.0], "age": 40}]).assign(weights=("k", [0.5, 2.0]))
    values, present = read_column(data, "age")
    assert (values.tolist(), present.tolist()) == ([30, 40], [True, True])
    values, present = read_column(data, "weights")
    assert values.tolist() == [0.5, 2.0]
    assert present.all()


def test_real_trials_follow_n_trials():
    data = em.from_subjects([{"y": [1, 2, 3]}, {"y": [1]}])
    assert real_trials(data).tolist() == [[True, True, True], [True, False, False]]
    assert real_trials(data.drop_vars("n_trials")).all()


def test_a_dataset_of_ones_own_gets_labels_and_its_dims_in_order():
    own = xr.Dataset({"y": (("trial", "side", "subject"), np.arange(12.0).reshape(3, 2, 2))})
    data = check_dataset(own)
    assert data.y.dims == ("subject", "trial", "side")
    assert data.subject.values.tolist() == [0, 1]
    np.testing.assert_array_equal(data.y[1, 2], own.y[2, :, 1])


@pytest.mark.parametrize(
    ("name", "column", "where"),
    [
        ("x", [[1.0, nan, 3.0], [4.0]], "column 'x' is missing or infinite at subject 'ann', trial 1 "),
        ("x", [[1.0, 2.0, 3.0], [np.inf]], "column 'x' is missing or infinite at subject 'bo', trial 0 "),
        ("x", [[[1.0, 2.0]] * 3, [[-np.inf, 1.0]]], "column 'x' .* subject 'bo', trial 0, x_dim_0 0 "),
        ("x", [[nan, nan, 3.0], [nan]], r"\(3 in all\)"),
        ("age", [30.0, nan], "column 'age' is missing or infinite at subject 'bo' "),
    ],
)
def test_a_missing_value_is_refused_with_its_place(name, column, where):
    people = {who: {"y": [0.0] * n, name: values} for who, n, values in zip(["ann", "bo"], [3, 1], column, strict=True)}
    with pytest.raises(ValueError, match=where):
        refuse_missing(em.from_subjects(people), name)


def test_padding_is_not_refused():
    refuse_missing(em.from_subjects([{"x": [1.0, 2.0]}, {"x": [3.0]}]), "x")


# ---- what is known of people


def test_a_table_of_people_is_brought_into_order():
    trials = pd.DataFrame({"who": ["bo", "ann", "bo"], "y": [1.0, 2.0, 3.0]})
    people = pd.DataFrame({"who": ["ann", "cy", "bo"], "age": [20, 30, 40], "kind": ["x", "y", "z"]})
    for table in (people, people.set_index("who")):
        data = em.from_dataframe(trials, "who", people=table)
        assert data["age"].dims == data["kind"].dims == ("subject",)
        np.testing.assert_array_equal(data["age"], [40, 20])
        assert data["kind"].values.tolist() == ["z", "x"]
        assert data["age"].dtype == np.int64
