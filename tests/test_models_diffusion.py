"""First passages of a Wiener process, against another program, quadrature, and other ways to the same numbers."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from scipy.integrate import cumulative_simpson
from scipy.stats import kstest
from zoo.diffusion import drift_diffusion as loop

from em_ppl.models import wiener
from em_ppl.models.drift_diffusion import drift_diffusion

# v, a, z, t0
PEOPLE = [
    (1.0, 1.5, 0.5, 0.3),
    (-2.5, 2.0, 0.7, 0.2),
    (0.0, 0.8, 0.1, 0.25),
    (4.0, 3.0, 0.35, 0.0001),
    (6.0, 1.0, 0.95, 0.4),
]


def density(choice, rt, v, a, z, t0):
    """Log density of each choice together with its response time, and its slopes in Gaussian space; drift v."""
    choice, rt, *natural = np.broadcast_arrays(choice, rt, v, a, z, t0)
    columns = {"choice": choice, "rt": rt, "stimulus": np.ones(rt.shape)}
    data = xr.Dataset(
        {name: (("subject", "trial"), values[:, None]) for name, values in columns.items()},
        coords={"subject": np.arange(len(rt)), "n_trials": ("subject", np.ones(len(rt), dtype=int))},
    )
    x = [p.to_gaussian(values) for p, values in zip(drift_diffusion.parameters.values(), natural, strict=True)]
    return drift_diffusion.compile(data).value_and_gradient(np.column_stack(x))


def distribution(choice, person):
    """Distribution function of a choice together with its response time, over log(rt - t0), by quadrature."""
    _, a, _, t0 = person
    log_time = np.linspace(np.log(1e-5), np.log(60.0), 4001) + 2 * np.log(a)
    value, _ = density(choice, t0 + np.exp(log_time), *person)
    return log_time, cumulative_simpson(np.exp(value + log_time), x=log_time, initial=0)


@pytest.mark.long
def test_density_is_that_of_hddm():
    """Log densities by the C code of HDDM (package hddm-wfpt 0.1.7, err=1e-15)."""
    cases = np.array(
        [
            # choice, rt, v, a, z, t0, log density
            (1, 0.6, 1.0, 1.5, 0.5, 0.3, 0.260177970484314),
            (0, 0.6, 1.0, 1.5, 0.5, 0.3, -1.2398220295156859),
            (1, 0.35, 2.5, 2.0, 0.7, 0.3, 0.8075842533603221),
            (0, 1.2, 2.5, 2.0, 0.7, 0.3, -7.963973225750241),
            (0, 4.0, -0.5, 1.0, 0.2, 0.25, -18.260921981174366),
            (1, 0.305, 0.0, 0.8, 0.4, 0.3, -16.745431658462806),
            (1, 3.0, 0.0, 3.0, 0.5, 0.2, -2.5877803881374777),
            (0, 0.8, -3.0, 2.5, 0.9, 0.2, 0.3243880532660294),
        ]
    )
    *given, expected = cases.T
    np.testing.assert_allclose(density(given[0].astype(int), *given[1:])[0], expected, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("person", PEOPLE)
@pytest.mark.parametrize("choice", [0, 1])
def test_density_integrates_to_the_probability_of_the_choice(choice, person):
    v, a, z, _ = person
    upper = z if v == 0 else np.expm1(-2 * v * a * z) / np.expm1(-2 * v * a)
    _, below = distribution(choice, person)
    np.testing.assert_allclose(below[-1], upper if choice else 1 - upper, rtol=1e-8, atol=1e-11)


def test_slopes_at_extreme_times_and_beyond():
    """From responses before t0 to a minute after, against the complex step of the plain loop."""
    late = np.array([-0.3, -0.01, 0.0, 1e-6, 1e-4, 1e-3, 0.01, 0.1, 0.3, 0.6, 1.0, 3.0, 10.0, 60.0])
    for person in PEOPLE[:3]:
        x = np.array([p.to_gaussian(y) for p, y in zip(drift_diffusion.parameters.values(), person, strict=True)])
        for choice in (0, 1):
            value, slope = density(choice, person[3] + late, *person)
            assert (np.diff(value[:5]) > 0).all()
            assert (slope[:4, 3] < 0).all()  # t0 is driven back
            for k, rt in enumerate(person[3] + late):
                trial = {"choice": [choice], "rt": [rt], "stimulus": [1.0]}
                np.testing.assert_allclose(value[k], loop(x + 0j, trial).real, rtol=1e-10, atol=1e-10)
                steps = [loop(x + step, trial).imag / 1e-30 for step in 1e-30j * np.eye(4)]
                np.testing.assert_allclose(slope[k], steps, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("z", [0.02, 0.3, 0.7, 0.98])
def test_series_for_short_and_for_long_times_agree_where_they_meet(z):
    """Each has its largest error there: with one term less of either, some of these starts are off by over 1e-10."""
    time = wiener.SWITCH + np.array([-1e-4, 1e-4])
    x = np.array(
        [p.to_gaussian(y) for p, y in zip(drift_diffusion.parameters.values(), (1.0, 1.0, z, 0.2), strict=True)]
    )
    value, _ = density(1, 0.2 + time, 1.0, 1.0, z, 0.2)
    expected = [loop(x, {"choice": [1], "rt": [0.2 + t], "stimulus": [1.0]}) for t in time]
    np.testing.assert_allclose(value, expected, rtol=0, atol=2e-12)


@pytest.mark.parametrize("choice", [0, 1])
def test_draws_follow_the_density(choice):
    """All people at once, 5000 draws each (seed 1), also from next to the boundary that they do not reach."""
    v, a, z, t0 = np.array(PEOPLE).T[..., None]
    drawn = wiener.draw(np.array([[choice]]), v, a, z, t0, rng=np.random.default_rng(1), size=(len(PEOPLE), 5000))
    for person, times in zip(PEOPLE, drawn, strict=True):
        log_time, below = distribution(choice, person)
        assert kstest(np.interp(np.log(times - person[3]), log_time, below / below[-1]), "uniform").pvalue > 0.02


@pytest.mark.parametrize(("size", "shape"), [(None, (3, 1)), ((), (3, 1)), ((3, 4), (3, 4)), ((2, 3, 4), (2, 3, 4))])
def test_draws_have_the_size_that_is_asked_for(size, shape):
    drifts = np.array([[1.0], [0.0], [-1.0]])
    assert wiener.draw(1, drifts, 1.5, 0.5, 0.3, rng=np.random.default_rng(0), size=size).shape == shape
