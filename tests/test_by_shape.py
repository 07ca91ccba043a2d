"""JAX, on the processor: the numbers of the package's own machine code, in double precision, and a function a shape.

All models of the zoo: benchmarks/zoo_in_jax.py.
"""

import numpy as np
import pymc as pm
import pytest
from helpers import simulated_learners

import em_ppl as em
from em_ppl.models.rescorla_wagner import rescorla_wagner, task

JAX = {"mode": "JAX"}
AGREES = {"rtol": 1e-12, "atol": 1e-12}


@pytest.fixture(scope="module")
def ragged():
    people = simulated_learners(11, 40, random_seed=1)
    return people.assign_coords(n_trials=("subject", [40, 39, 1, 2, 40, 17, 40, 21, 40, 8, 40]))


@pytest.mark.long
def test_a_model_that_learns(ragged):
    compiled = rescorla_wagner.compile(ragged, compile_kwargs=JAX)
    x = np.random.default_rng(1).normal(size=(11, 2))
    value, gradient = compiled.value_and_gradient(x)
    assert value.dtype == gradient.dtype == np.float64
    own = rescorla_wagner.compile(ragged).value_and_gradient(x)
    np.testing.assert_allclose(value, own[0], **AGREES)
    np.testing.assert_allclose(gradient, own[1], **AGREES)


@pytest.mark.long
def test_columns_of_all_kinds(ragged):
    @em.subject_model(slope=em.Real(), level=em.Real())
    def mixed(slope, level, reward, weight, common, choice):
        pm.Bernoulli("choice", logit_p=level + weight * (slope * reward + common.sum()), observed=choice)

    data = ragged.assign(weight=("subject", np.linspace(0.5, 2, 11)), common=("part", [0.1, 0.4]))
    x = np.random.default_rng(2).normal(size=(11, 2))
    own, jax = mixed.compile(data), mixed.compile(data, compile_kwargs=JAX)
    np.testing.assert_allclose(jax.value_and_gradient(x)[1], own.value_and_gradient(x)[1], **AGREES)
    by_trial = own.pointwise_log_likelihood(x)["choice"]
    np.testing.assert_allclose(jax.pointwise_log_likelihood(x)["choice"], by_trial, **AGREES)


@pytest.mark.long
def test_a_fit_makes_few_functions_and_finds_the_same():
    data = simulated_learners(20, 30, random_seed=2)
    fit = em.fit(rescorla_wagner, data, compile_kwargs=JAX, progressbar=False)
    own = em.fit(rescorla_wagner, data, progressbar=False)
    np.testing.assert_allclose(fit.group.mean, own.group.mean, rtol=0, atol=1e-4 * own.group.mean_se.values.min())
    made = fit.compiled.functions.compiled("value_and_gradient")._made
    rows = {shapes[0][0] for shapes in made}
    assert rows <= {8, 32, 128}
    before = len(made)
    em.fit(rescorla_wagner, data, compile_kwargs=JAX, progressbar=False)
    assert len(made) == before


@pytest.mark.usefixtures("interpreted")
def test_numpy_draws_for_a_model_in_jax():
    people = em.draw_subjects(rescorla_wagner, {"alpha": (0.0, 1.0), "beta": (1.0, 0.5)}, 3, random_seed=1)
    drawn = [
        em.simulate(rescorla_wagner, people, task(5), random_seed=1, compile_kwargs=kwargs, progressbar=False)
        for kwargs in (JAX, {"mode": "FAST_COMPILE"})
    ]
    np.testing.assert_array_equal(drawn[0].choice, drawn[1].choice)
