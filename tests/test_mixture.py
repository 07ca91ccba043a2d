"""Mixtures of models and latent classes: what is put in is found, labelled, drawn, and bad input refused."""

import numpy as np
import pymc as pm
import pytest
import scipy
from scipy import stats

import em_ppl as em
import em_ppl.mixture
from em_ppl import compat


@em.subject_model(level=em.Real(spread=3.0))
def steady(level, y):
    pm.Normal("y", level, 1.0, observed=y)


@em.subject_model(level=em.Real())
def in_units(level, unit, y):
    pm.Normal("y", level, unit, observed=y)


def _measured(data, unit):
    return (data * unit).assign(unit=("subject", np.full(data.sizes["subject"], unit)))


@em.subject_model(level=em.Real(), noise=em.Positive(shared=True))
def shared_noise(level, noise, last, heads):
    pm.Normal("heads", level, noise, observed=heads)


@em.subject_model(level=em.Real())
def of_last(level, last, heads):
    pm.Normal("last", level, 1.0, observed=last)


def levels(centres, n_each, *, sd=0.5, n_trials=4, seed=0):
    """People in classes, whose levels lie around the centres; trials have noise of SD 1."""
    rng = np.random.default_rng(seed)
    own = np.concatenate([rng.normal(c, sd, n) for c, n in zip(centres, n_each, strict=True)])
    return em.from_subjects([{"y": a + rng.normal(size=n_trials)} for a in own])


@pytest.fixture(scope="module")
def two_classes():
    return em.fit_classes(steady, levels([0.0, 6.0], [10, 20]), (1, 2, 3), starts=4, progressbar=False)


# --- two models ---------------------------------------------------------------------------------------------------


def test_models_and_groups_are_recovered(mixed_people):
    mixture = mixed_people.mixture
    found = mixture.frequencies.responsibility["sticky"].to_numpy() > 0.5
    assert (found == mixed_people.is_sticky).mean() > 0.9
    assert abs(mixture.frequencies.frequency["sticky"] - 1 / 3) < 0.1
    q = mixture.groups["sticky"]
    assert abs(q.a[1] - 1.5) < 3 * mixture.standard_errors["sticky"][1]
    assert mixture.converged
    assert mixture.advice == ()


def test_what_it_shows(mixed_people):
    mixture = mixed_people.mixture
    table = mixture.summary()
    assert list(table.index) == [("coin", "p"), ("sticky", "p"), ("sticky", "stay")]
    q = mixture.groups["sticky"]
    np.testing.assert_allclose(table.loc[("sticky", "p"), "median"], 1 / (1 + np.exp(-q.a[0])))
    np.testing.assert_allclose(
        table.loc[("sticky", "stay"), ["mean", "sd"]].astype(float), [q.a[1], q.variance[1] ** 0.5]
    )
    assert list(mixture.subjects["sticky"]["parameter"].values) == ["p", "stay"]
    for text in (
        "Mixture of coin, sticky (corrected): 45 subjects",
        "converged after",
        "equally frequent",
        "protected",
    ):
        assert text in repr(mixture)
    assert mixture._repr_html_().count("<table") == 2


def test_a_mixture_tells_frequencies_better_than_separate_fits(mixed_people):
    """Fitted to everybody, the larger model's group spreads over both kinds, and suits each of them less."""
    separate = em.compare(mixed_people.fits, progressbar=False).frequencies.responsibility["sticky"]
    together = mixed_people.mixture.frequencies.responsibility["sticky"]
    truth = mixed_people.is_sticky
    assert np.log(np.where(truth, together, 1 - together)).sum() > np.log(np.where(truth, separate, 1 - separate)).sum()


def test_hierarchical_t_test(mixed_people):
    mixture, q = mixed_people.mixture, mixed_people.mixture.groups["sticky"]
    test = mixture.t_test("stay", value=1.0)
    error = mixture.standard_errors["sticky"][1]
    assert (test.model, test.df) == ("sticky", 2 * q.nu)
    assert test.t == pytest.approx((q.a[1] - 1.0) / error)
    assert test.p == pytest.approx(2 * stats.t(2 * q.nu).sf(abs(test.t)))
    assert repr(test).startswith("sticky, mean of stay: t(")
    assert mixture.t_test("p", model="coin").mean == mixture.groups["coin"].a[0]
    with pytest.raises(ValueError, match="'p' is of coin and sticky: name a model"):
        mixture.t_test("p")
    with pytest.raises(ValueError, match="'q' is of none of coin, sticky"):
        mixture.t_test("q")


def test_inference_data(mixed_people):
    mixture = mixed_people.mixture
    posterior = compat.read_group(mixture.to_inference_data(draws=1000, chains=2), "posterior")
    assert posterior["frequency"].dims == ("chain", "draw", "model")
    assert posterior["sticky_stay"].dims == ("chain", "draw", "subject")
    assert posterior["sticky_group_mean"].dims == ("chain", "draw", "sticky_parameter")
    sample = ["chain", "draw"]
    np.testing.assert_allclose(posterior["frequency"].mean(sample), mixture.frequencies.frequency, atol=0.01)
    np.testing.assert_allclose(
        posterior["model_index"].mean(sample), mixture.frequencies.responsibility["sticky"], atol=0.05
    )
    q, stay = mixture.groups["sticky"], mixture.subjects["sticky"].sel(parameter="stay", parameter_2="stay")
    np.testing.assert_allclose(
        posterior["sticky_group_mean"].mean(sample), q.a, atol=5 * mixture.standard_errors["sticky"].max() / 40
    )
    np.testing.assert_allclose(posterior["sticky_stay"].mean(sample), stay["posterior_mean"], atol=0.06)
    np.testing.assert_allclose(posterior["sticky_stay"].var(sample), stay["posterior_covariance"], rtol=0.2)
    assert float(posterior["coin_p"].min()) > 0
    fit = compat.read_group(mixture.to_inference_data(draws=2, chains=1), "fit")
    np.testing.assert_array_equal(fit["responsibility"], mixture.frequencies.responsibility)
    with pytest.raises(ValueError, match="draws=0 must be"):
        mixture.to_inference_data(draws=0)


def test_equal_seeds_give_equal_bits(mixed_people):
    again = em.fit_mixture(
        {"coin": mixed_people.coin, "sticky": mixed_people.sticky}, mixed_people.data, progressbar=False
    )
    for name, q in mixed_people.mixture.groups.items():
        np.testing.assert_array_equal(again.groups[name].a, q.a)
    assert again.bound == mixed_people.mixture.bound


def test_priors_and_units():
    """A parameter in any unit: the fit in metres is that in millimetres."""
    data = levels([1.0], [20])
    fits = [
        em.fit_mixture([in_units], d, tol=1e-8, progressbar=False) for d in (_measured(data, u) for u in (1.0, 1000.0))
    ]
    metres, millimetres = (fit.groups["in_units"] for fit in fits)
    np.testing.assert_allclose(millimetres.a, 1000 * metres.a, rtol=1e-5)
    np.testing.assert_allclose(millimetres.variance, 1e6 * metres.variance, rtol=1e-5)
    with pytest.raises(ValueError, match="b=0 must be a positive number"):
        em.MixturePrior(b=0)


def test_who_belongs_to_nobody_leaves_the_prior(mixed_people):
    """People who all repeat themselves: the coin's group is its prior, and that is no error."""
    only = mixed_people.data.isel(subject=mixed_people.is_sticky)
    mixture = em.fit_mixture([mixed_people.coin, mixed_people.sticky], only, progressbar=False)
    counts = mixture.frequencies.summary()["count"]
    assert counts["coin"] < 1 < counts["sticky"]
    assert mixture.frequencies.protected_exceedance["sticky"] > 0.95
    assert mixture.frequencies.omnibus_risk < 0.05


def test_what_does_not_converge_says_so(mixed_people):
    with pytest.warns(em.ConvergenceWarning, match="did not converge after 2 iterations"):
        mixture = em.fit_mixture(
            [mixed_people.coin, mixed_people.sticky], mixed_people.data, max_iter=2, progressbar=False
        )
    assert "NOT CONVERGED" in repr(mixture)
    assert "<li>the fit did not converge" in mixture._repr_html_()


def test_one_subject_says_so(mixed_people):
    with pytest.warns(em.ConvergenceWarning, match="there is one subject only"):
        em.fit_mixture([mixed_people.coin], mixed_people.data.isel(subject=[0]), progressbar=False)


@pytest.mark.parametrize(
    ("models", "error", "message"),
    [
        (lambda p: [], ValueError, "a mixture needs a model or more"),
        (lambda p: [p.coin, p.coin], ValueError, "two models have the name 'coin'"),
        (lambda p: [p.coin, 3], TypeError, "3 is no subject model"),
        (lambda p: [p.coin, shared_noise], em.ModelError, "'noise' is shared by all subjects"),
        (lambda p: [p.coin, of_last], ValueError, "coin observes heads, but of_last observes last"),
    ],
)
def test_models_that_cannot_be_mixed(mixed_people, models, error, message):
    with pytest.raises(error, match=message):
        em.fit_mixture(models(mixed_people), mixed_people.data, progressbar=False)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"estimator": "map"}, "estimator='map' is not one of"),
        ({"tol": 0}, "tol=0 must be"),
        ({"max_iter": 0}, "max_iter=0 must be"),
        ({"random_seed": -1}, "random_seed=-1 must be"),
    ],
)
def test_settings_that_make_no_sense(mixed_people, settings, message):
    with pytest.raises(ValueError, match=message):
        em.fit_mixture([mixed_people.coin], mixed_people.data, progressbar=False, **settings)


# --- latent classes -----------------------------------------------------------------------------------------------


def test_classes_are_recovered_and_ordered(two_classes):
    assert list(two_classes.groups) == ["class_1", "class_2"]
    np.testing.assert_allclose(two_classes.frequencies.summary()["count"], [20, 10], atol=0.1)
    large, small = two_classes.groups.values()
    assert abs(large.a[0] - 6.0) < 3 * large.standard_error[0]
    assert abs(small.a[0] - 0.0) < 3 * small.standard_error[0]
    member = two_classes.frequencies.responsibility["class_1"].to_numpy() > 0.5
    np.testing.assert_array_equal(member, np.arange(30) >= 10)


def test_number_of_classes_by_evidence(two_classes):
    assert two_classes.tried.idxmax() == 2
    assert two_classes.tried[2] == pytest.approx(two_classes.bound + np.log(2))  # two ways to name two classes
    assert "class_1, class_2" in repr(two_classes)
    assert "protected" not in repr(two_classes)


def test_one_class_where_there_is_one():
    data = levels([1.0], [30], sd=1.0)
    classes = em.fit_classes(steady, data, (1, 2), starts=4, progressbar=False)
    alone = em.fit_mixture([steady], data, progressbar=False)
    assert classes.tried.idxmax() == 1
    np.testing.assert_allclose(classes.groups["class_1"].a, alone.groups["steady"].a, atol=1e-6)


def test_more_starts_are_never_worse():
    data = levels([0.0, 3.0, 6.0], [10, 10, 10], seed=3)
    few, many = (em.fit_classes(steady, data, 3, starts=n, progressbar=False).bound for n in (1, 6))
    assert many >= few - 1e-6


def test_a_class_may_begin_empty(monkeypatch):
    monkeypatch.setattr(scipy.cluster.vq, "kmeans2", lambda x, k, **_: (x[:k], np.zeros(len(x), dtype=int)))
    classes = em.fit_classes(steady, levels([0.0, 8.0], [4, 8]), 2, starts=1, progressbar=False)
    assert np.isfinite(classes.bound)


def test_interrupted_classes_keep_what_they_have(monkeypatch):
    """One class is done when the search for two is interrupted."""
    real = em_ppl.mixture._best_of

    def interrupted(problem, *args):
        if len(problem.components) == 3:
            raise KeyboardInterrupt
        return real(problem, *args)

    monkeypatch.setattr(em_ppl.mixture, "_best_of", interrupted)
    with pytest.warns(em.ConvergenceWarning, match="was interrupted"):
        classes = em.fit_classes(steady, levels([0.0, 8.0], [4, 8]), (1, 2, 3), starts=1, progressbar=False)
    assert list(classes.tried.index) == [1, 2]
    assert list(classes.groups) == ["class_1", "class_2"]


def test_an_interrupted_null_model_costs_its_own_number_only(mixed_people, monkeypatch):
    def interrupted(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(em_ppl.mixture, "_null_bound", interrupted)
    with pytest.warns(em.ConvergenceWarning, match="was interrupted"):
        mixture = em.fit_mixture([mixed_people.coin, mixed_people.sticky], mixed_people.data, progressbar=False)
    assert mixture.bound == mixed_people.mixture.bound
    assert np.isnan(mixture.frequencies.omnibus_risk)
    assert "protected" not in repr(mixture)


@pytest.mark.parametrize(
    ("n_classes", "starts", "message"),
    [
        (0, 2, "n_classes=0 must be a whole number"),
        ((1, 2.5), 2, "n_classes=2.5 must be a whole number"),
        (9, 2, "numbers from 1 to 5, that of subjects"),
        ((), 2, "numbers from 1 to 5, that of subjects"),
        (2, 0, "starts=0 must be"),
    ],
)
def test_numbers_of_classes_that_make_no_sense(n_classes, starts, message):
    with pytest.raises(ValueError, match=message):
        em.fit_classes(steady, levels([0.0], [5]), n_classes, starts=starts, progressbar=False)
