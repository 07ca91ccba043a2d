"""Data as they come: each is read right, or refused with a word on what is wrong, where, and what to do.

What the message of a plain mistake says is in test_bad_input.py; here is what odd tables and odd studies end in.
"""

import decimal
import subprocess
import sys

import numpy as np
import pandas as pd
import pymc as pm
import pytest
from helpers import QUICK
from scipy import optimize, special, stats

import em_ppl as em

nan = np.nan
WHO = ["ann", "ann", "bo", "bo", "bo"]
Y = [0, 1, 1, 0, 1]
LONG = 2**53 + 1


@em.subject_model(level=em.Real())
def normal(level, y):
    pm.Normal("y", level, 1.0, observed=y)


@em.subject_model(level=em.Real(spread=1.5))
def tosses(level, n, k):
    pm.Binomial("k", n, logit_p=level, observed=k)


def fit(model, data, **settings):
    return em.fit(model, data, progressbar=False, **settings)


def table(y=Y, **columns):
    return pd.DataFrame({"who": WHO, "y": y, **columns})


def expect(data, y=Y, dtype=int, subjects=("ann", "bo")):
    """Compare with the same put together by hand."""
    padding = 0 if dtype is int else nan
    expected = np.array([[*y[:2], padding], y[2:]], dtype=dtype)
    assert data["y"].dtype == expected.dtype
    np.testing.assert_array_equal(data["y"], expected)
    assert data["subject"].values.tolist() == list(subjects)
    assert data["n_trials"].values.tolist() == [2, 3]


# ---- tables


def arrow(kind):
    pytest.importorskip("pyarrow")
    return f"{kind}[pyarrow]"


WHOLE = {
    "int8": lambda: np.array(Y, "int8"),
    "uint64": lambda: np.array(Y, "uint64"),
    "bool": lambda: np.array(Y, bool),
    "objects": lambda: np.array(Y, object),
    "bool objects": lambda: np.array([bool(y) for y in Y], object),
    "Int64": lambda: pd.array(Y, "Int64"),
    "boolean": lambda: pd.array(Y, "boolean"),
    "numbers as categories": lambda: pd.Categorical(Y),
    "arrow int": lambda: pd.array(Y, arrow("int32")),
    "arrow bool": lambda: pd.array([bool(y) for y in Y], arrow("bool")),
}


@pytest.mark.parametrize("column", WHOLE.values(), ids=WHOLE)
def test_whole_numbers_of_any_type_are_integers(column):
    expect(em.from_dataframe(table(column()), "who"))
    y = pd.Series(column())
    expect(em.from_subjects({"ann": {"y": y[:2].array}, "bo": {"y": y[2:].array}}))


GAPS = [0, None, 1, 0, 1]
WITH_GAPS = {
    "float16": lambda: np.array([0, nan, 1, 0, 1], "float16"),
    "objects with None": lambda: np.array(GAPS, object),
    "objects with NA": lambda: np.array([0, pd.NA, 1, 0.0, 1], object),
    "bools with None": lambda: np.array([False, None, True, False, True], object),
    "Int64": lambda: pd.array(GAPS, "Int64"),
    "Float32": lambda: pd.array(GAPS, "Float32"),
    "boolean": lambda: pd.array(GAPS, "boolean"),
    "numbers as categories": lambda: pd.Categorical(GAPS),
    "arrow int": lambda: pd.array(GAPS, arrow("int32")),
    "arrow double": lambda: pd.array(GAPS, arrow("double")),
}


@pytest.mark.parametrize("column", WITH_GAPS.values(), ids=WITH_GAPS)
def test_missing_values_of_any_type_are_nan(column):
    expect(em.from_dataframe(table(column()), "who"), [0, nan, 1, 0, 1], float)


ORDERS = {
    "interleaved": lambda: table().iloc[[2, 0, 3, 1, 4]].sort_values("who", key=lambda w: w != "ann", kind="stable"),
    "index of zeros": lambda: table().set_axis([0] * 5),
    "index of pairs": lambda: table().set_index(pd.MultiIndex.from_product([["x"], range(5)])),
    "times with a zone": lambda: table(at=pd.date_range("2020", periods=5, tz="Europe/Zurich")),
    "periods": lambda: table(at=pd.period_range("2020", periods=5, freq="D")),
    "lists": lambda: table(at=[[1], [], [2, 3], [4], [5]]),
    "subjects as categories": lambda: table().astype({"who": pd.CategoricalDtype(["zoe", "bo", "ann"])}),
    "subjects as pandas strings": lambda: table().astype({"who": "string"}),
}


@pytest.mark.parametrize("frame", ORDERS.values(), ids=ORDERS)
def test_what_no_model_reads_changes_nothing(frame):
    expect(em.from_dataframe(frame(), "who"))


def test_interleaved_people_keep_the_order_of_their_own_rows():
    frame = table().iloc[[0, 2, 3, 1, 4]]
    expect(em.from_dataframe(frame, "who"))


def test_columns_need_not_be_named_by_text():
    data = em.from_dataframe(table().rename(columns={"who": 0, "y": ("y", 1)}), 0)
    expect(data.rename({"('y', 1)": "y"}))


@pytest.mark.parametrize("library", ["polars", "pyarrow"])
def test_tables_of_other_libraries(library):
    """Without a look at which library it is."""
    pytest.importorskip("pyarrow")
    module = pytest.importorskip(library)
    make = {"polars": "DataFrame", "pyarrow": "table"}[library]
    columns = {"who": WHO, "y": Y, "gaps": GAPS, "wins": [True, None, True, False, True]}
    whole = getattr(module, make)(columns)
    people = getattr(module, make)({"who": ["bo", "ann"], "age": [30, 20]})
    data = em.from_dataframe(whole, "who", people=people)
    expect(data)
    expect(data.drop_vars("y").rename(gaps="y"), [0, nan, 1, 0, 1], float)
    expect(data.drop_vars("y").rename(wins="y"), [1, nan, 1, 0, 1], float)
    assert data["age"].values.tolist() == [20, 30]
    parts = {"ann": getattr(module, make)({"y": Y[:2]}), "bo": getattr(module, make)({"y": Y[2:]})}
    expect(em.from_subjects(parts))
    with pytest.raises(TypeError, match=r"em\.from_dataframe"):
        em.from_subjects(whole)


def two_levels():
    return table().set_axis(pd.MultiIndex.from_tuples([("who", ""), ("y", "left")]), axis=1)


class Lazy:
    """A table that has not been read yet, such as polars has."""


TABLES_REFUSED = {
    "one and '1'": (lambda: table(**{"1": Y}).rename(columns={"y": 1}), "column '1' occurs twice: rename or drop"),
    "names of two levels": (two_levels, r"names of 2 levels, such as \('who', ''\): give each one name, as in frame.c"),
    "a lazy table": (Lazy, "needs a pandas DataFrame, not Lazy; .*to_pandas .a lazy one: collect it first"),
}


@pytest.mark.parametrize(("frame", "message"), TABLES_REFUSED.values(), ids=TABLES_REFUSED)
def test_tables_that_would_be_misread_are_refused(frame, message):
    with pytest.raises((ValueError, TypeError), match=message):
        em.from_dataframe(frame(), "who")


def test_people_and_single_subjects_with_a_column_twice_are_refused():
    twice = table().set_axis(["who", "who"], axis=1)
    with pytest.raises(ValueError, match="'who' occurs twice"):
        em.from_dataframe(table(), "who", people=twice)
    with pytest.raises(ValueError, match="'who' occurs twice"):
        em.from_subjects({"ann": twice})


@pytest.mark.parametrize("label", [None, nan, pd.NA, pd.NaT])
def test_a_label_that_is_missing_is_refused(label):
    with pytest.raises(ValueError, match="label of subject number 1 is missing"):
        em.from_subjects([{"y": [1]}, {"y": [2]}], subjects=["ann", label])


def test_one_persons_data_under_one_label_twice_is_refused_and_a_mapping_cannot_hold_it():
    with pytest.raises(ValueError, match="subject 'ann' occurs twice"):
        em.from_subjects([table(), table()], subjects=["ann", "ann"])


# ---- columns that a model cannot read

TIMES = pd.date_range("2020-01-01", periods=5)
NOT_NUMBERS = {
    "text": (["1", "2", "n/a", "4", "5"], "'1' at subject 'ann', trial 0"),
    "one word": ([1, 2, 3, "n/a", 5], "'n/a' at subject 'bo', trial 1"),
    "words as categories": (pd.Categorical(list("lrlrl")), "'l' at subject 'ann', trial 0"),
    "decimals": ([1, 2, 3, 4, decimal.Decimal("0.1")], r"Decimal\('0.1'\) at subject 'bo', trial 2"),
    "complex": (np.array(Y) * 1j, "0j at subject 'ann', trial 0"),
    "integers beyond 64 bits": ([10**30] * 5, ""),
    "lists": ([[1, 2]] * 5, r"\[1, 2\] at subject 'ann', trial 0"),
    "times": (TIMES, r"datetime.*\(2020, 1, 1.* at subject 'ann', trial 0"),
    "times with a zone": (TIMES.tz_localize("UTC"), "Timestamp.*2020-01-01.* at subject 'ann', trial 0"),
    "durations": (TIMES - TIMES[0], "at subject 'ann', trial 0"),
}


@pytest.mark.parametrize(("y", "where"), NOT_NUMBERS.values(), ids=NOT_NUMBERS)
def test_what_is_no_number_is_shown_with_its_place(y, where):
    with pytest.raises(ValueError, match=f"(?s)column 'y' holds .* values, not numbers.*{where}.*code it as integers"):
        normal.compile(em.from_dataframe(table(y), "who"))


@pytest.mark.parametrize("y", [[None] * 5, [pd.NA] * 5, [nan] * 5], ids=str)
def test_a_response_that_nobody_gave_is_refused(y):
    with pytest.raises(ValueError, match="column 'y' has no value at all"):
        normal.compile(em.from_dataframe(table(y), "who"))


@pytest.mark.parametrize("value", [1e300, -1e61])
def test_numbers_that_no_computation_holds_are_refused(value):
    data = em.from_dataframe(table([0.0, 1.0, 1.0, value, 0.0], n=1), "who")
    message = r"column 'y' is -?1e\+.* at subject 'bo', trial 1 \(1 in all\).*overflows.*make it NaN; else.* unit"
    with pytest.raises(ValueError, match=message):
        normal.compile(data)
    with pytest.raises(ValueError, match=message.replace("'y'", "'n'")):
        tosses.compile(data.rename(n="k", y="n"))


# ---- integers that are longer than PyMC's


@pytest.mark.parametrize("mode", [{}, {"compile_kwargs": QUICK}], ids=["loops", "pytensor"])
@pytest.mark.parametrize("long", [2**31, LONG, -LONG, np.uint64(2**63 + 5)])
@pytest.mark.parametrize("gap", [False, True], ids=["whole", "with a gap"])
def test_long_integers_are_not_cut(long, gap, mode):
    """PyMC would take 32 bits of them, and 2^53 + 1 for 1."""
    y = pd.array([long, long], "UInt64" if long > 2**63 else "Int64")
    data = em.from_subjects({"ann": {"y": y}, "bo": {"y": pd.array([long, pd.NA if gap else long], y.dtype)}})
    centre = float(long)
    compiled = normal.compile(data, **mode)
    expected = np.array([2, 1 if gap else 2]) * stats.norm.logpdf(0.0)
    np.testing.assert_allclose(compiled.log_likelihood(np.full((2, 1), centre)), expected, rtol=1e-3)


# ---- studies


def best_group(k, n):
    """Mean, SD and log-likelihood of exact maximum likelihood, by a fine grid for each person's integral."""
    k, n, grid, step = np.array(k)[:, None], np.array(n)[:, None], *np.linspace(-10, 10, 8001, retstep=True)
    log_likelihood = stats.binom.logpmf(k, n, special.expit(grid))
    highest = log_likelihood.max(1)
    likelihood = np.exp(log_likelihood - highest[:, None])

    def negative(v):
        density = stats.norm.pdf(grid, v[0], np.exp(v[1])) * step
        return -(np.log(likelihood @ density) + highest).sum()

    found = optimize.minimize(negative, [0.0, 0.0], method="Nelder-Mead", options={"xatol": 1e-6, "fatol": 1e-9})
    return found.x[0], np.exp(found.x[1]), -found.fun


def study(n, seed=1):
    """Tosses, n of them, by people who differ."""
    generator = np.random.default_rng(seed)
    return [int(generator.binomial(m, special.expit(generator.normal(0.3, 1.0)))) for m in n]


EVEN = study([20] * 16)
TOSSES = {
    "one person never varies": ([*EVEN, 20], [20] * 17),
    "some never vary": ([*EVEN, 20, 20, 0], [20] * 19),
    "one toss each, and ten": ([*study([1] * 20), *EVEN[:4]], [1] * 20 + [20] * 4),
    "10^4 tosses of one, 3 of the others": ([5200, *study([3] * 30, seed=4)], [10_000] + [3] * 30),
    "everybody twice": (EVEN * 2, [20] * 32),
}


@pytest.mark.parametrize(("k", "n"), TOSSES.values(), ids=TOSSES)
def test_lopsided_studies_are_fitted_as_a_grid_does(k, n):
    people = [{"n": [trials], "k": [heads]} for heads, trials in zip(k, n, strict=True)]
    result = fit(tosses, em.from_subjects(people), estimator="exact")
    mean, sd, log_likelihood = best_group(k, n)
    assert result.advice == ()
    assert result.group.mean.item() == pytest.approx(mean, abs=0.005)
    assert result.group.sd.item() == pytest.approx(sd, rel=0.01)
    assert result.log_evidence == pytest.approx(log_likelihood, abs=1e-3)


LEVELS = np.linspace(-2.0, 2.0, 8)
PEOPLE = [{"y": np.random.default_rng(i).normal(level, 1.0, 10)} for i, level in enumerate(LEVELS)]


def best_normal(people):
    """Mean and SD of maximum likelihood where each person has as many trials: the variance of means less its error."""
    means = np.array([np.nanmean(p["y"]) for p in people])
    return means.mean(), np.sqrt(means.var() - 1 / len(people[0]["y"]))


STUDIES = {
    "plain": (PEOPLE, PEOPLE),
    "everybody twice": (PEOPLE * 2, PEOPLE * 2),
    "two people": (PEOPLE[::7], PEOPLE[::7]),
    "one without responses": ([*PEOPLE, {"y": [nan] * 10}], PEOPLE),
    "one trial each": ([{"y": p["y"][:1] * 2} for p in PEOPLE],) * 2,
}


@pytest.mark.parametrize("estimator", ["corrected", "laplace", "exact"])
@pytest.mark.parametrize(("people", "counting"), STUDIES.values(), ids=STUDIES)
def test_small_studies_have_their_closed_form(people, counting, estimator):
    result = fit(normal, em.from_subjects(people), estimator=estimator)
    mean, sd = best_normal(counting)
    assert result.advice == ()
    assert result.group.mean.item() == pytest.approx(mean, abs=1e-3)
    assert result.group.sd.item() == pytest.approx(sd, rel=2e-3)


def test_who_gave_no_response_has_the_group_for_a_posterior():
    result = fit(normal, em.from_subjects([*PEOPLE, {"y": [nan] * 10}]))
    assert result.subjects["posterior_mean"].values[-1] == pytest.approx(result.group.mean.values, abs=1e-6)
    assert result.subjects["laplace_covariance"].values[-1, 0, 0] == pytest.approx(result.group.sd.item() ** 2)


# ---- import


def test_import_is_silent_where_warnings_are_errors():
    done = subprocess.run([sys.executable, "-W", "error", "-c", "import em_ppl"], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
