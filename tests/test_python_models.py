"""Likelihoods that are Python functions, pyEM's objectives among them: fits of the same likelihood in PyMC agree."""

import pickle
import sys
from types import SimpleNamespace

import numpy as np
import pymc as pm
import pytensor
import pytensor.tensor as pt
import pytest
from scipy import special, stats

import em_ppl as em
from em_ppl import python_models
from em_ppl.travel import dumps


def norm2alpha(x):
    return special.expit(x)


def norm2beta(x, max_val=20.0):
    return max_val / (1 + np.exp(-x))


def objective(params, choices, rewards, *, prior=None, output="npl"):
    """As pyEM has them: blocks x trials, choices that are letters, guards, the prior's log density."""
    beta, alpha = norm2beta(params[0]), norm2alpha(params[1])
    if not 1e-5 <= beta <= 20.0:
        return 1e7
    nll = 0.0
    for block, earned in zip(choices, rewards, strict=True):
        q = [0.5, 0.5]
        for letter, reward in zip(block, earned, strict=True):
            c = 0 if letter == "A" else 1
            nll += np.log1p(np.exp(beta * (q[1 - c] - q[c])))
            q[c] += alpha * (reward - q[c])
    if output == "npl" and prior is not None:
        return nll - prior.logpdf(params)
    return nll


def objective_of_2023(params, choices, rewards, prior=None, output="npl"):
    """The prior is a dictionary, and what is returned hangs on `output`."""
    nll = objective(params, choices, rewards)
    if output == "npl":
        return -(-nll + prior["logpdf"](params)) if prior is not None else nll
    return {"negll": nll} if output == "all" else None


def learn(choice, reward, q, alpha):
    return pt.set_subtensor(q[choice], q[choice] + alpha * (reward - q[choice]))


@em.subject_model(beta=em.Interval(0, 20), alpha=em.Unit())
def learner(beta, alpha, choices, rewards):
    """Two blocks side by side."""
    start = pt.full(2, 0.5, dtype="float64")
    values = []
    for b in range(2):
        q = pytensor.scan(
            learn,
            sequences=[choices[:, b], rewards[:, b]],
            outputs_info=[start],
            non_sequences=[alpha],
            strict=True,
            return_updates=False,
        )
        values.append(pt.concatenate([start[None], q[:-1]]))
    pm.Categorical("choices", logit_p=beta * pt.stack(values, axis=1), observed=choices)


@pytest.fixture(scope="module")
def all_data():
    """12 people, 2 blocks of 20 trials, a list of lists."""
    rng, people = np.random.default_rng(3), []
    for x in rng.normal([-0.5, 0.0], [0.5, 2.0], (12, 2)):
        choices, rewards = np.empty((2, 20), dtype=object), np.empty((2, 20))
        for b in range(2):
            q = np.full(2, 0.5)
            for t in range(20):
                c = int(rng.random() < special.expit(norm2beta(x[0]) * (q[1] - q[0])))
                choices[b, t], rewards[b, t] = "AB"[c], float(rng.random() < (0.8, 0.2)[c])
                q[c] += norm2alpha(x[1]) * (rewards[b, t] - q[c])
        people.append([choices, rewards])
    return people


@pytest.fixture(scope="module")
def data(all_data):
    """The same for the model in PyMC: one row a trial, letters as numbers."""
    return em.from_subjects([[(c.T == "B") * 1, r.T] for c, r in all_data], columns=["choices", "rewards"])


pyem_model = em.from_pyem(objective, ["beta", "alpha"], [norm2beta, norm2alpha])


@pytest.fixture(scope="module")
def pyem_fit(all_data):
    return em.fit(pyem_model, all_data, progressbar=False)


def assert_same_fit(fit, other):
    errors, of_other = (np.sqrt(np.diag(f.group.free_covariance)) for f in (fit, other))
    np.testing.assert_allclose((fit.group.free - other.group.free) / of_other, 0, atol=1e-4)  # EM ends so near
    np.testing.assert_allclose(fit.subjects["mode"], other.subjects["mode"], atol=1e-4)
    np.testing.assert_allclose(fit.log_evidence, other.log_evidence, atol=1e-5)
    np.testing.assert_allclose(errors, of_other, rtol=0.02)


@pytest.mark.long
def test_an_objective_of_pyem_gives_the_fit_of_the_same_likelihood_in_pymc(pyem_fit, data):
    fit = em.fit(learner, data, progressbar=False)
    assert_same_fit(pyem_fit, fit)
    assert pyem_fit.parameters == {"beta": em.Interval(0, 20), "alpha": em.Unit()}
    np.testing.assert_allclose(pyem_fit.evidence.log_evidence, fit.evidence.log_evidence, atol=1e-3)
    # BIC counts the 40 responses of a subject; the model in PyMC has 20 rows of two
    np.testing.assert_allclose(pyem_fit.evidence.bic, fit.evidence.bic + 24 * np.log(2), atol=1e-3)


def test_an_objective_of_2023_is_called_as_it_was(all_data, pyem_fit):
    model = em.from_pyem(objective_of_2023, ["beta", "alpha"], [norm2beta, norm2alpha])
    x = pyem_fit.subjects["mode"].values
    expected = [-objective(own, *case) for own, case in zip(x, all_data, strict=True)]
    np.testing.assert_array_equal(model.compile(model.read(all_data)).log_likelihood(x), expected)


def test_the_gradient_of_differences_is_the_gradient(all_data, data):
    x = np.random.default_rng(0).normal(0, 1.5, (12, 2))
    exact = learner.compile(data).log_likelihood_gradient(x)
    found = pyem_model.compile(pyem_model.read(all_data)).log_likelihood_gradient(x)
    np.testing.assert_allclose(found, exact, atol=1e-8)


def test_processes_give_the_same_bits(all_data, pyem_fit, monkeypatch):
    monkeypatch.setattr(python_models, "WORTHWHILE", 0.0)
    compiled = pyem_model.compile(pyem_model.read(all_data))
    x = pyem_fit.subjects["mode"].values
    with em.cores.at_most(1):
        alone = compiled.value_and_gradient(x)
    with em.cores.at_most(2):
        for a, b in zip(alone, compiled.value_and_gradient(x), strict=True):
            np.testing.assert_array_equal(a, b)


def test_a_function_of_a_notebook_travels_with_what_it_imported(monkeypatch):
    """SciPy's ufuncs know their name only, and pickle would look for it in __main__."""
    monkeypatch.setattr(sys.modules["__main__"], "expit", special.expit, raising=False)
    namespace = {"expit": special.expit, "__name__": "__main__"}
    exec("def f(x): return expit(x)", namespace)
    packed = dumps(namespace["f"])
    monkeypatch.delattr(sys.modules["__main__"], "expit")
    assert pickle.loads(packed)(0.0) == 0.5


def test_a_fit_is_saved_with_its_words_and_comes_back(pyem_fit, tmp_path):
    loaded = em.load(pyem_fit.save(tmp_path / "fit.nc"), model=pyem_model)
    assert loaded.subjects.identical(pyem_fit.subjects)
    x = loaded.subjects["mode"].values
    np.testing.assert_allclose(loaded.compiled.log_likelihood(x), loaded.subjects["log_likelihood"], rtol=1e-12)
    comparison = em.compare({"here": loaded, "there": pyem_fit})
    assert np.ptp(comparison.table["log_evidence"]) == 0
    idata = pyem_fit.to_inference_data(draws=5, chains=2, progressbar=False)
    assert idata["posterior"]["alpha"].dims == ("chain", "draw", "subject")


@pytest.mark.parametrize(
    "ask",
    [
        lambda fit: fit.predict(progressbar=False),
        lambda fit: fit.quality(),
        lambda fit: fit.deterministics(),
        lambda fit: fit.hierarchical_model(),
        lambda fit: fit.sample(progressbar=False),
        lambda fit: fit.model.hierarchical(fit.data),
        lambda fit: em.simulate(
            fit.model, em.draw_subjects(fit.model, {"beta": (0, 1), "alpha": (0, 1)}, 3), em.Task(4), progressbar=False
        ),
    ],
)
def test_what_needs_a_distribution_says_so(pyem_fit, ask):
    with pytest.raises(em.ModelError, match="objective is a Python function, of which only the log-likelihood is"):
        ask(pyem_fit)


# --- plain functions ------------------------------------------------------------------------------------------------


@em.subject_model(rate=em.Positive(spread=1.0), lapse=em.Unit(shared=True))
def decay(rate, lapse, delay, k):
    p = lapse / 2 + (1 - lapse) * pt.exp(-rate * delay)
    pm.Binomial("k", 10, p=p, observed=k)


def decay_in_numpy(rate, lapse, delay, k):
    p = lapse / 2 + (1 - lapse) * np.exp(-rate * delay)
    return stats.binom.logpmf(k, 10, p).sum()


@pytest.fixture(scope="module")
def decays():
    rng = np.random.default_rng(5)
    people = []
    for n, rate in zip(rng.integers(4, 9, 15), np.exp(rng.normal(0, 0.5, 15)), strict=True):
        delay = rng.uniform(0.1, 2.0, n)
        people.append({"delay": delay, "k": rng.binomial(10, 0.05 + 0.9 * np.exp(-rate * delay))})
    return em.from_subjects(people)


@pytest.fixture(scope="module")
def decay_fit(decays):
    return em.fit(decay, decays, progressbar=False)


pytestmark = pytest.mark.filterwarnings("ignore::em_ppl.ConvergenceWarning")


def test_a_numpy_function_gives_the_fit_of_the_same_likelihood_in_pymc(decays, decay_fit):
    model = em.python_model(rate=em.Positive(spread=1.0), lapse=em.Unit(shared=True))(decay_in_numpy)
    assert_same_fit(em.fit(model, decays, progressbar=False), decay_fit)


def test_a_function_with_its_gradient_by_jax(decays, decay_fit):
    jax = pytest.importorskip("jax")
    jax.config.update("jax_enable_x64", True)

    def decay_in_jax(rate, lapse, delay, k):
        p = lapse / 2 + (1 - lapse) * jax.numpy.exp(-rate * delay)
        return (k * jax.numpy.log(p) + (10 - k) * jax.numpy.log1p(-p)).sum()

    slopes = jax.jit(jax.grad(decay_in_jax, argnums=(0, 1)))
    model = em.python_model(rate=em.Positive(spread=1.0), lapse=em.Unit(shared=True), gradient=slopes)(
        jax.jit(decay_in_jax)
    )
    compiled, x = model.compile(decays), np.random.default_rng(0).normal(0, 1, (15, 2))
    np.testing.assert_allclose(
        compiled.log_likelihood_gradient(x), decay.compile(decays).log_likelihood_gradient(x), rtol=1e-8, atol=1e-8
    )


def test_a_function_sees_a_subjects_data_as_they_are():
    seen = []

    @em.python_model(level=em.Real(spread=1.0))
    def spy(level, y, word, site):
        seen.append((y, word, site))
        return -0.5 * np.nansum((y - level) ** 2)

    entries = [{"y": [1.0, np.nan, 3.0], "word": ["a", "b", "c"], "site": 2}, {"y": [0.0], "word": ["d"], "site": 5}]
    spy.compile(em.from_subjects(entries)).log_likelihood(np.zeros((2, 1)))
    (y, word, site), (other, _, _) = seen[0], seen[-1]
    np.testing.assert_array_equal(y, [1.0, np.nan, 3.0])
    assert word.tolist() == ["a", "b", "c"]
    assert site == 2
    assert other.tolist() == [0.0]


def test_a_function_that_changes_its_data_does_so_once():
    @em.python_model(level=em.Real(spread=1.0))
    def centring(level, y):
        y -= level
        return -0.5 * (y**2).sum()

    compiled = centring.compile(em.from_subjects([{"y": [1.0, 2.0]}]))
    for _ in range(2):
        assert compiled.log_likelihood([[1.0]]) == [-0.5]
    assert compiled.data["y"].values.tolist() == [[1.0, 2.0]]


def test_out_of_range_is_impossible_and_not_a_number():
    def guarded(params, y, prior=None, output="npl"):
        return 1e7 if params[0] < -0.5 else 0.5 * ((y - params[0]) ** 2).sum()

    model = em.from_pyem(guarded, ["level"])
    compiled = model.compile(model.read([[np.array([0.0, 1.0])]] * 3))
    value, gradient = compiled.value_and_gradient(np.array([[-1.0], [-0.5], [0.25]]))
    assert value[0] == -np.inf
    np.testing.assert_allclose(gradient[1:, 0], [2.0, 0.5], atol=2e-3)  # one-sided at the edge
    fit = em.fit(model, [[np.random.default_rng(i).normal(i / 5, 1, 6)] for i in range(8)], progressbar=False)
    assert fit.converged
    assert (fit.subjects["mode"] > -0.5).all()


# --- what is refused --------------------------------------------------------------------------------------------------


def returning(value):
    def function(level, y):
        return value() if callable(value) else value

    return em.python_model(level=em.Real(spread=1.0))(function)


def fail():
    raise ZeroDivisionError("by chance")


@pytest.mark.parametrize(
    ("value", "error", "says"),
    [
        (None, em.ModelError, "function returned None for subject 'ann': it must be a number"),
        (np.zeros(3), em.ModelError, r"function returned an array of shape \(3,\) for subject 'ann'"),
        (fail, ZeroDivisionError, "by chance"),
    ],
)
def test_what_a_function_may_not_return(value, error, says):
    data = em.from_subjects({"ann": {"y": [0.0]}, "bo": {"y": [1.0]}})
    with pytest.raises(error, match=says) as caught:
        em.fit(returning(value), data, progressbar=False)
    if value is fail:
        assert "of subject 'ann' at [0.] in Gaussian space" in caught.value.__notes__[0]


def test_nan_everywhere_names_the_subject():
    data = em.from_subjects({"ann": {"y": [0.0]}, "bo": {"y": [1.0]}})
    with pytest.raises(em.ModelError, match="the log-likelihood of subject 'ann' is nan"):
        em.fit(returning(np.nan), data, progressbar=False)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: em.from_pyem(objective, ["beta"], [norm2beta, norm2alpha]), "2 transforms for 1 parameters"),
        (lambda: em.from_pyem(objective, ["beta", "alpha"], [np.sin, np.exp]), "the transform of 'beta' is none of"),
        (lambda: em.from_pyem(decay_in_numpy, ["rate", "lapse"]), "takes no prior=... and output="),
        (lambda: em.from_pyem(lambda x, *data, prior, output: 0.0, ["a"]), "does not name its data"),
        (lambda: em.python_model(rate=em.Real(), lapse=em.Unit(shared=True))(decay_in_numpy), "'rate' needs a spread"),
        (
            lambda: em.python_model(lapse=em.Unit(shared=True), rate=em.Positive())(decay_in_numpy),
            "must take its parameters first",
        ),
        (lambda: em.python_model(rate=em.Positive())(lambda rate: 0.0), "takes no data column"),
    ],
)
def test_models_that_cannot_be(make, says):
    with pytest.raises(em.ModelError, match=says):
        make()


@pytest.mark.parametrize(
    ("xform", "parameter"),
    [
        (lambda x: x, em.Real(spread=1.5)),
        (np.exp, em.Positive()),
        (lambda x: np.log1p(np.exp(x)), em.Positive(link="softplus")),
        (stats.norm.cdf, em.Unit(link="probit")),
        (lambda x: norm2beta(x, max_val=5.0), em.Interval(0, 5)),
        (lambda x: 2 * norm2alpha(x) - 1, em.Interval(-1, 1)),
        (em.Unit(), em.Unit()),
    ],
)
def test_transforms_are_recognised(xform, parameter):
    model = em.from_pyem(lambda params, y, prior=None, output="npl": 0.0, ["x"], [xform])
    assert model.parameters == {"x": parameter}


def test_pyems_own_prior_object_is_never_needed(all_data):
    """What EM adds is the group's, once: an objective with a prior gives the posterior that `log_posterior` gives."""
    mean, variance = np.array([-1.0, 0.0]), np.array([0.25, 1.0])
    prior = SimpleNamespace(logpdf=stats.multivariate_normal(mean, np.diag(variance)).logpdf)
    x = np.random.default_rng(1).normal(mean, np.sqrt(variance), (12, 2))
    by_hand = [-objective(own, *case, prior=prior) for own, case in zip(x, all_data, strict=True)]
    compiled = pyem_model.compile(pyem_model.read(all_data))
    np.testing.assert_allclose(compiled.log_posterior(x, mean, np.diag(variance)), by_hand, rtol=1e-12)
