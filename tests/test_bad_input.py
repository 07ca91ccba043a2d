"""Bad input, one row each: the message says what is wrong, where, and what to do."""

import numpy as np
import pandas as pd
import pymc as pm
import pytensor.tensor as pt
import pytest
import xarray as xr

import em_ppl as em

nan = np.nan
PEOPLE = {"ann": {"y": [0.0, 1.0, 2.0]}, "bo": {"y": [2.0, 1.0]}, "cy": {"y": [-1.0, 3.0, 0.5]}}
DATA = em.from_subjects(PEOPLE)
TABLE = pd.DataFrame({"who": ["ann", "bo", "ann"], "when": [1, 1, 2], "y": [1.0, 2.0, 3.0]})


def define(function, **parameters):
    return em.subject_model(**parameters or {"level": em.Real()})(function)


def plain(level, y):
    pm.Normal("y", level, 1.0, observed=y)


def regression(level, x, y):
    pm.Normal("y", level * x, 1.0, observed=y)


def waiting(rate, y):
    pm.Exponential("y", rate, observed=y)


def coin(p, y):
    pm.Bernoulli("y", p=p, observed=y)


def repeats(level, y):
    pm.Normal("y", level + pt.concatenate([pt.zeros(1), y[:-1]]), 1.0, observed=y)


def chosen(level, choice, y):
    pm.Normal("y", pt.stack([level, 2 * level])[choice], 1.0, observed=y)


def rows_of_a_table(level, row, y):
    pm.Normal("y", (level * pt.arange(20.0))[row], 1.0, observed=y)


def rows_of_integers(level, row, y):
    pm.Normal("y", level * pt.arange(20)[row], 1.0, observed=y)


def four(a, b, c, d, y):
    pm.Normal("y", a + b + c + d, 1.0, observed=y)


NORMAL = define(plain)
FOUR = define(four, **{name: em.Real(spread=1.0) for name in "abcd"})


def fit(model=NORMAL, data=DATA, **settings):
    return em.fit(model, data, progressbar=False, compile_kwargs={"mode": "FAST_COMPILE"}, **settings)


def fit_people(model, **columns):
    """Fit ann, bo, ... who have these columns."""
    own = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    return fit(model, em.from_subjects(own, subjects=["ann", "bo", "cy"][: len(own)]))


def fit_function(function, **parameters):
    return fit(define(function, **parameters))


def own_data(y=((1.0, 2.0), (3.0, 4.0)), dims=("subject", "trial"), **coords):
    return xr.Dataset({"y": (dims, np.array(y))}, coords=coords)


def compiled():
    return NORMAL.compile(DATA, compile_kwargs={"mode": "FAST_COMPILE"})


# ---- likelihoods that cannot work


def observes_nothing(level, y):
    level + y


def has_a_prior(level, y):
    pm.Normal("y", level, pm.HalfNormal("sigma"), observed=y)


def draws(level, y):
    pm.Normal("y", level, pm.HalfNormal.dist(), observed=y)


def draws_in_a_potential(level, y):
    pm.Potential("y", -((y - level + pm.Normal.dist()) ** 2))


def leaves_one_out(level, slope, y):
    pm.Normal("y", level, 1.0, observed=y)


def names_no_column(level, y):
    pm.Normal("response", level, 1.0, observed=y)


def observes_numbers(level, y):
    pm.Normal("y", level, 1.0, observed=np.zeros(3))


def observes_twice(level, y):
    pm.Normal("y", level, 1.0, observed=y)
    pm.Normal("y", level, 2.0, observed=y)


def branches(level, y):
    pm.Normal("y", level if level > 0 else 0.0, 1.0, observed=y)


def observes_another_shape(level, y):
    pm.Normal("y", level, 1.0, observed=y[None, :])


def observes_a_part(level, y):
    pm.Normal("y", level, 1.0, observed=y[1:])


# ---- files


def saved(folder):
    # the group of one observation per person is not to be trusted: what counts is that there is a fit
    with pytest.warns(em.ConvergenceWarning):
        return fit(max_iter=1).save(folder / "fit.nc")


def foreign(folder):
    xr.Dataset({"a": ("x", [1.0])}).to_netcdf(folder / "foreign.nc", engine="h5netcdf")
    return folder / "foreign.nc"


def text(folder):
    (folder / "text.nc").write_text("no netCDF")
    return folder / "text.nc"


E, T, M = ValueError, TypeError, em.ModelError

BAD = [
    # parameters
    ("start on the bound", lambda: em.Unit(start=1.0), E, r"Unit: start=1.0 is outside \(0.0, 1.0\).*natural space"),
    ("negative spread", lambda: em.Positive(spread=-1), E, "Positive: spread=-1 must be a positive standard deviation"),
    ("unknown link", lambda: em.Unit(link="log"), E, "link='log' is not one of 'logit', 'probit'"),
    ("bounds the wrong way round", lambda: em.Interval(1, 0), E, "low=1.0 must lie below high=0.0"),
    ("an endless interval", lambda: em.Interval(0, np.inf), E, "must be finite; use Positive or Real instead"),
    ("value out of bounds", lambda: em.Unit().to_gaussian(1), E, "Unit: 1.* is not strictly between 0.0 and 1.0"),
    # tables
    ("no table", lambda: em.from_dataframe([1], "who"), T, "needs a pandas DataFrame, not list"),
    ("no such subject column", lambda: em.from_dataframe(TABLE, "id"), E, "no column 'id' .* it has who, when, y"),
    ("no such trial column", lambda: em.from_dataframe(TABLE, "who", trial="t"), E, "no column 't' in the table"),
    (
        "no such column to stack",
        lambda: em.from_dataframe(TABLE, "who", stack={"z": ["y", "q"]}),
        E,
        "no column 'q' in the table",
    ),
    (
        "stack over a column",
        lambda: em.from_dataframe(TABLE, "who", stack={"y": ["when"]}),
        E,
        "stack makes a variable 'y'.*already",
    ),
    ("empty table", lambda: em.from_dataframe(TABLE[:0], "who"), E, "the table has no rows"),
    (
        "row of nobody",
        lambda: em.from_dataframe(TABLE.assign(who=["ann", None, "bo"]), "who"),
        E,
        r"column 'who' is missing in row 1 \(1 in all\). Every row needs a subject",
    ),
    (
        "trial twice",
        lambda: em.from_dataframe(TABLE.assign(when=1), "who", trial="when"),
        E,
        "trial 1 of subject 'ann' occurs more than once in column 'when'.*column that counts on",
    ),
    (
        "trial without a number",
        lambda: em.from_dataframe(TABLE.assign(when=[1, nan, 2]), "who", trial="when"),
        E,
        "column 'when' is missing in row 1.*order of trials",
    ),
    (
        "column twice",
        lambda: em.from_dataframe(TABLE.set_axis(["who", "y", "y"], axis=1), "who"),
        E,
        "column 'y' occurs twice: rename or drop one",
    ),
    (
        "people as a list",
        lambda: em.from_dataframe(TABLE, "who", people=[1]),
        T,
        "people must be a pandas DataFrame, not list",
    ),
    (
        "people without one of them",
        lambda: em.from_dataframe(TABLE, "who", people=pd.DataFrame({"who": ["ann"], "age": [20]})),
        E,
        r"people has no row for subject 'bo' \(1 in all\).*by a column 'who', or by the index",
    ),
    (
        "people twice",
        lambda: em.from_dataframe(TABLE, "who", people=pd.DataFrame({"who": ["ann", "bo", "bo"], "age": 20})),
        E,
        "people has several rows for subject 'bo': it needs one",
    ),
    (
        "people with a column of the trials",
        lambda: em.from_dataframe(TABLE, "who", people=pd.DataFrame({"who": ["ann", "bo"], "y": 1})),
        E,
        "people and the trials both have a column 'y': rename or drop one",
    ),
    # people
    ("no people", lambda: em.from_subjects([]), E, "there are no subjects"),
    ("bare arrays", lambda: em.from_subjects([[[0, 1]]]), E, r"subject 0 is a bare list: name its arrays.*columns="),
    (
        "names for too few arrays",
        lambda: em.from_subjects([[[1], [2]]], columns=["y"]),
        E,
        "subject 0 has 2 arrays, but there are 1 columns",
    ),
    (
        "columns of different people",
        lambda: em.from_subjects({"ann": {"y": [1]}, "bo": {"z": [1]}}),
        E,
        r"subject 'bo' and subject 'ann' do not have the same columns: \['y', 'z'\]",
    ),
    ("no trials", lambda: em.from_subjects({"ann": {"y": []}}), E, "subject 'ann' has no trials: leave it out, or"),
    (
        "columns of different lengths",
        lambda: em.from_subjects({"ann": {"y": [1, 2], "x": [1]}}),
        E,
        "subject 'ann' has columns of different lengths: {'y': 2, 'x': 1}",
    ),
    (
        "too many labels",
        lambda: em.from_subjects([{"y": [1]}], subjects=["ann", "bo"]),
        E,
        "2 subject labels for 1 subjects",
    ),
    (
        "label twice",
        lambda: em.from_subjects([{"y": [1]}] * 2, subjects=["ann", "ann"]),
        E,
        "subject 'ann' occurs twice: labels must be unique",
    ),
    (
        "shapes of different people",
        lambda: em.from_subjects({"ann": {"y": np.ones((2, 2))}, "bo": {"y": np.ones((2, 3))}}),
        E,
        r"'y' of subject 'bo' has shape \(3,\) a trial, that of 'ann' \(2,\)",
    ),
    # Datasets
    ("a table as data", lambda: fit(data=TABLE), T, "data is a DataFrame.*em.from_dataframe or em.from_subjects"),
    ("a column as data", lambda: fit(data=DATA["y"]), T, "data is a DataArray, not an xarray.Dataset"),
    ("nothing as data", lambda: fit(data=None), T, "data is a NoneType"),
    ("no subject dim", lambda: fit(data=own_data(dims=("id", "trial"))), E, "dims id, trial, but no dim 'subject'"),
    ("nobody", lambda: fit(data=own_data(np.zeros((0, 2)))), E, "there are no subjects"),
    ("label twice in a Dataset", lambda: fit(data=own_data(subject=["a", "a"])), E, "subject 'a' occurs twice"),
    (
        "more trials than there are",
        lambda: fit(data=own_data(subject=["a", "b"], n_trials=("subject", [2, 3]))),
        E,
        "subject .*'b'.* has n_trials=3: it must lie in 1 ... 2",
    ),
    (
        "trials of nobody",
        lambda: fit(data=own_data().assign(z=("trial", [1, 2]))),
        E,
        "column 'z' has a dim 'trial' but no dim 'subject': broadcast",
    ),
    # definitions
    ("no parameters", lambda: em.subject_model()(plain), M, r"plain has no parameters: declare them, as in @em"),
    ("a class", lambda: define(plain, level=em.Unit), M, r"plain: parameter 'level' .* em.Unit\(\).*\(with brackets\)"),
    ("a number", lambda: define(plain, level=0.5), M, r"plain: parameter 'level' is 0.5; it must be em.Real\(\)"),
    (
        "a parameter that the function does not take",
        lambda: define(plain, level=em.Real(), slope=em.Real()),
        M,
        "plain does not take its parameter 'slope': it takes level, y",
    ),
    ("*args", lambda: define(lambda level, *y: 0), M, r"argument '\*y' has no fixed name; name every parameter"),
    ("**kwargs", lambda: define(lambda level, **y: 0), M, r"argument '\*\*y' has no fixed name"),
    ("positional only", lambda: define(lambda level, y, /: 0), M, "argument 'level' has no fixed name"),
    ("reserved column", lambda: define(lambda level, trial: 0), M, "the name 'trial' is taken .*: choose another"),
    (
        "reserved parameter",
        lambda: define(lambda group_mean, y: 0, group_mean=em.Real()),
        M,
        "the name 'group_mean' is taken",
    ),
    ("no column", lambda: define(lambda level: 0), M, "takes no data column"),
    ("nothing observed", lambda: fit_function(observes_nothing), M, "has no observed variable.*observed=choice"),
    ("a prior", lambda: fit_function(has_a_prior), M, "random variable 'sigma' has no data.*observed="),
    (
        "a draw",
        lambda: fit_function(draws),
        E,
        "(?s)Random variables detected.*from the likelihood 'draws'.* observed=",
    ),
    ("a draw in a potential", lambda: fit_function(draws_in_a_potential), M, "hangs on what normal.* draws"),
    (
        "an unused parameter",
        lambda: fit_function(leaves_one_out, level=em.Real(), slope=em.Real()),
        M,
        "leaves_one_out: parameter 'slope' is never used by the likelihood: drop it or use it",
    ),
    ("name of no column", lambda: fit_function(names_no_column), M, r"'response' has the name of no .*column.*\(y\)"),
    ("numbers for data", lambda: fit_function(observes_numbers), M, "'y' does not observe the data column 'y': say"),
    ("a name twice", lambda: fit_function(observes_twice), E, "(?s)y already exists.*from the likelihood 'observes_tw"),
    ("if", lambda: fit_function(branches), T, "(?s)boolean.*from the likelihood 'branches'.*symbols for one subject"),
    # data that do not suit the model
    ("no such column", lambda: fit(define(regression)), E, "reads a column 'x' that the data do not have; they have y"),
    ("text", lambda: fit_people(NORMAL, y=[["a", "b"], ["b"]]), E, "column 'y' holds object.*code it as integers"),
    ("no response at all", lambda: fit_people(NORMAL, y=[[nan], [nan]]), E, "column 'y' has no value at all"),
    (
        "missing where it may not be",
        lambda: fit_people(define(regression), x=[[1.0, 2.0], [nan]], y=[[1.0, 2.0], [3.0]]),
        E,
        "column 'x' is missing or infinite at subject 'bo', trial 0.*fill it in, or leave the trial out",
    ),
    (
        "a missing response that also teaches",
        lambda: fit_people(define(repeats), y=[[1.0, 2.0, 3.0], [4.0, nan, 5.0]]),
        M,
        "'y' is missing for subject 'bo', trial 1, but the model also reads 'y'.*pt.switch",
    ),
    (
        "response below the likelihood's bound",
        lambda: fit_people(define(waiting, rate=em.Positive()), y=[[1.0, 2.0], [3.0, -1.0]]),
        M,
        "subject 'bo' is -inf at rate=1; the first such term is 'y' in trial 1.*check its data",
    ),
    (
        "response that is none of two",
        lambda: fit_people(define(coin, p=em.Unit()), y=[[0, 1], [1, 1], [1, 2]]),
        M,
        "subject 'cy' is -inf at p=0.5; the first such term is 'y' in trial 1",
    ),
    # arguments of fit
    ("an undecorated function", lambda: fit(plain), T, r"plain.* is no subject model: decorate .*@em.subject_model"),
    (
        "unknown estimator",
        lambda: fit(estimator="map"),
        E,
        "estimator='map' is not one of 'corrected', 'laplace', 'exact'",
    ),
    ("order of 0", lambda: em.Quadrature(0), E, "Quadrature: order=0 must be a whole number, at least 1"),
    ("half an order", lambda: em.Quadrature(2.5), E, "Quadrature: order=2.5 must be a whole number"),
    ("draws that are no power of 2", lambda: em.ImportanceSampling(100), E, "draws=100 must be a power of 2"),
    ("a proposal without tails", lambda: em.ImportanceSampling(df=0), E, "ImportanceSampling: df=0 must be a positive"),
    (
        "quadrature over many parameters",
        lambda: fit(FOUR, estimator=em.Quadrature()),
        E,
        "Quadrature over 4 varying parameters has too many points: use em.ImportanceSampling",
    ),
    (
        "quadrature of heavy tails",
        lambda: fit(estimator=em.Quadrature(), distribution=em.Cauchy()),
        E,
        "Quadrature does not reach the heavy tails of this group: use em.ImportanceSampling",
    ),
    ("no degrees of freedom", lambda: em.StudentT(0), E, "StudentT: df=0 must be a positive number"),
    ("a distribution by name", lambda: fit(distribution="cauchy"), T, r"distribution='cauchy' must be em.Normal\(\)"),
    ("PyMC's distribution", lambda: fit(distribution=pm.Normal), T, "must be em.Normal"),
    (
        "a Laplace group by Laplace's approximation",
        lambda: fit(distribution=em.Laplace()),
        E,
        r'Laplace\(\) has a kink.*use estimator="exact"',
    ),
    (
        "a Laplace group with correlations",
        lambda: fit(distribution=em.Laplace(), covariance="full", estimator="exact"),
        E,
        r'Laplace\(\) has independent parameters: use covariance="diagonal"',
    ),
    ("a prior that is none", lambda: fit(prior=True), T, r"prior=True must be em.GroupPrior\(...\)"),
    (
        "a prior for one subject",
        lambda: fit(data=DATA.isel(subject=[0]), prior=em.GroupPrior()),
        E,
        "needs more than 1 subjects for each covariance; here are 1",
    ),
    ("a prior without spread", lambda: em.GroupPrior(mean_spread=0), E, "mean_spread=0 must be a positive number, or"),
    ("a prior for SDs of 0", lambda: em.GroupPrior(sd_shape=0.5), E, "sd_shape=0.5 must be a number, at least 1"),
    ("shared by a word", lambda: em.Real(shared="yes"), T, "Real: shared='yes' must be True or False"),
    (
        "every parameter shared",
        lambda: fit(define(plain, level=em.Real(shared=True))),
        M,
        "plain: every parameter is shared, so that subjects do not differ: let one vary",
    ),
    ("a formula for no one", lambda: fit(covariates={"slope": "~ 1"}), E, "a formula for 'slope'.*that vary are level"),
    ("unknown covariance", lambda: fit(covariance="diag"), E, "covariance='diag' is not one of 'diagonal', 'full'"),
    ("tol of 0", lambda: fit(tol=0), E, "tol=0 must be a number between 0 and 1"),
    ("tol of NaN", lambda: fit(tol=nan), E, "tol=nan must be a number between 0 and 1"),
    ("no iterations", lambda: fit(max_iter=0), E, "max_iter=0 must be a whole number, at least 1"),
    # the compiled model
    (
        "x of too few subjects",
        lambda: compiled().log_likelihood(np.zeros((2, 1))),
        E,
        r"x has shape \(2, 1\); it must be \(subject, parameter\) = \(3, 1\)",
    ),
    ("flat x", lambda: compiled().log_posterior(np.zeros(3), [0.0], [[1.0]]), E, r"x has shape \(3,\); it must be"),
    ("other data without the column", lambda: compiled().with_data(DATA.rename(y="z")), E, "reads a column 'y'"),
    # files
    ("a foreign file", lambda folder: em.load(foreign(folder)), E, "foreign.nc holds no fit of em_ppl"),
    (
        "another model's file",
        lambda folder: em.load(saved(folder), model=define(waiting, rate=em.Positive())),
        E,
        "fit.nc holds a fit of other parameters than <subject model waiting.*: level",
    ),
    (
        "trial-wise log-likelihood without a model",
        lambda folder: em.load(saved(folder)).to_inference_data(draws=2),
        E,
        r"loaded without its model.*em.load\(path, model=...\), or say log_likelihood=False",
    ),
    ("no file", lambda folder: em.load(folder / "none.nc"), OSError, "none.nc"),
    (
        "an infinite response",
        lambda: fit_people(NORMAL, y=[[1.0, 2.0], [3.0, np.inf]]),
        E,
        "column 'y' is infinite at subject 'bo', trial 1.*make it NaN",
    ),
    (
        "a missing response that also teaches, all others alike",
        lambda: fit_people(define(repeats), y=[[1.0, 1.0, 1.0], [1.0, nan, 1.0]]),
        M,
        "'y' is missing for subject 'bo', trial 1",
    ),
    (
        "missing values along a dim that is not called trial",
        lambda: fit(data=own_data([[1.0, nan], [3.0, 4.0]], dims=("subject", "time"))),
        E,
        "'time'.*'trial'",
    ),
    ("a group of another size", lambda: compiled().log_posterior(np.zeros((3, 1)), [0, 0], np.eye(2)), E, "mean"),
    ("an array named twice", lambda: em.from_subjects([[[1], [2]]], columns=["y", "y"]), E, "'y'.*twice"),
    (
        "stack of a bare name",
        lambda: em.from_dataframe(TABLE.rename(columns={"when": "a", "y": "b"}), "who", stack={"z": "ab"}),
        E,
        "'z'",
    ),
    ("labels of a mapping anew", lambda: em.from_subjects(PEOPLE, subjects=["bo", "cy", "ann"]), E, "'ann'|label|keys"),
    ("a parameter called chain", lambda: define(lambda chain, y: 0, chain=em.Real()), M, "'chain' is taken"),
    ("a table of people for from_subjects", lambda: em.from_subjects(TABLE), (E, T), "from_dataframe"),
    ("decorated without brackets", lambda: em.subject_model(plain), (E, T), r"em.subject_model\(level=em"),
    (
        "nested lists of unequal length",
        lambda: em.from_subjects({"ann": {"y": [[1, 2], [3]]}}),
        E,
        "'y' of subject 'ann'",
    ),
    (
        "a number where a trial's array should be",
        lambda: em.from_subjects([{"y": [1, 2]}, {"y": 3}]),
        E,
        "'y'.*subject 1",
    ),
    (
        "a column called n_trials",
        lambda: em.from_dataframe(TABLE.assign(n_trials=3), "who"),
        E,
        "'n_trials' is taken|rename",
    ),
    ("two subject columns", lambda: em.from_dataframe(TABLE, ["who", "when"]), (E, T), "one column"),
    ("a start that is text", lambda: em.Unit(start="0.5"), (E, T), "start='0.5'"),
    ("a tol that is text", lambda: fit(tol="a"), (E, T), "tol='a'"),
    ("half an iteration", lambda: fit(max_iter=2.5), (E, T), "max_iter=2.5"),
    ("a seed that is text", lambda: fit(random_seed="a"), (E, T), "random_seed='a'"),
    ("n_trials of half a trial", lambda: fit(data=own_data(n_trials=("subject", [1.5, 2]))), E, "n_trials"),
    ("n_trials for all", lambda: fit(data=own_data(n_trials=2)), E, "n_trials.*subject"),
    ("an undecorated function to load", lambda folder: em.load(saved(folder), model=plain), T, "decorate"),
    (
        "a model of other columns to load",
        lambda folder: em.load(saved(folder), model=define(regression)),
        E,
        "'x'|columns",
    ),
    ("no netCDF", lambda folder: em.load(text(folder)), (E, OSError), "text.nc"),
    ("no draws", lambda folder: em.load(saved(folder)).to_inference_data(draws=0, log_likelihood=False), E, "draws=0"),
    # shapes and indices
    ("observed in another shape", lambda: fit_function(observes_another_shape), M, "'y' does not observe every trial"),
    ("a part observed", lambda: fit_function(observes_a_part), M, r"'y' does not observe every trial.*missing \(NaN\)"),
    (
        "choices that count from 1",
        lambda: fit_people(define(chosen), choice=[[1, 2], [1, 2]], y=[[1.0, 2.0], [3.0, 4.0]]),
        M,
        "subject 'ann' is nan .*first such term is 'y' in trial 1",
    ),
    (
        "an index into a long table",
        lambda: fit_people(define(rows_of_a_table), row=[[0, 19], [1, 20]], y=[[1.0, 2.0], [3.0, 4.0]]),
        M,
        "subject 'bo' is nan .*first such term is 'y' in trial 1",
    ),
    (
        "an index into a table of integers",
        lambda: fit_people(define(rows_of_integers), row=[[0, 19], [1, -21]], y=[[1.0, 2.0], [3.0, 4.0]]),
        IndexError,
        "an index, such as a choice, is out of range",
    ),
]


def provoke(trigger, folder):
    return trigger(folder) if trigger.__code__.co_argcount else trigger()


@pytest.mark.parametrize(("trigger", "error", "message"), [row[1:] for row in BAD], ids=[row[0] for row in BAD])
def test_bad_input_is_refused_with_a_message_that_helps(trigger, error, message, tmp_path):
    with pytest.raises(error, match=message):
        provoke(trigger, tmp_path)


def test_messages_are_in_the_table_once():
    names = [row[0] for row in BAD]
    assert len(set(names)) == len(names)
    assert len(BAD) >= 28


def test_a_model_error_is_a_value_error():
    assert issubclass(em.ModelError, ValueError)
