"""Links against formulas written down independently, in the middle and in both tails."""

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest
from scipy import stats

import em_ppl as em

pytestmark = pytest.mark.usefixtures("interpreted")

PARAMETERS = {
    "real": em.Real(),
    "positive by exp": em.Positive(),
    "positive by softplus": em.Positive(link="softplus"),
    "unit by logit": em.Unit(),
    "unit by probit": em.Unit(link="probit"),
    "interval by logit": em.Interval(-3, 5),
    "interval by probit": em.Interval(-3, 5, link="probit"),
    "narrow interval far out": em.Interval(1000, 1000.5),
}
FORMULAS = {
    "real": lambda x: x,
    "positive by exp": lambda x: np.e**x,
    "positive by softplus": lambda x: np.log1p(np.exp(x)),
    "unit by logit": lambda x: (1 + np.tanh(x / 2)) / 2,
    "unit by probit": stats.norm.cdf,
    "interval by logit": lambda x: 1 + 4 * np.tanh(x / 2),
    "interval by probit": lambda x: 5 - 8 * stats.norm.sf(x),
    "narrow interval far out": lambda x: 1000 + 0.5 / (1 + np.exp(-x)),
}
# the part of Gaussian space where natural space has the digits to tell values apart (near 1 they are 1e-16 apart)
RESOLVED = {
    "real": (-1e6, 1e6),
    "positive by exp": (-600, 600),
    "positive by softplus": (-600, 600),
    "unit by logit": (-600, 15),
    "unit by probit": (-35, 5),
    "interval by logit": (-14, 14),
    "interval by probit": (-5, 5),
    "narrow interval far out": (-5, 5),
}
GAUSSIAN = np.array([-1e3, -800, -40, -7.3, -1, -1e-3, 0, 0.4, 3, 7.3, 40, 800, 1e3])

every_parameter = pytest.mark.parametrize("name", PARAMETERS)


@pytest.fixture(scope="module")
def compiled():
    """Natural values and slopes of every parameter at GAUSSIAN, in the default mode: one compilation for all."""
    x = pt.dvector("x")
    values = [parameter.symbolic(x) for parameter in PARAMETERS.values()]
    slopes = [pytensor.grad(value.sum(), x) for value in values]
    results = pytensor.function([x], [*values, *slopes])(GAUSSIAN)
    n = len(PARAMETERS)
    return dict(zip(PARAMETERS, results[:n], strict=True)), dict(zip(PARAMETERS, results[n:], strict=True))


@every_parameter
def test_link_equals_its_formula(name):
    x = np.linspace(-6, 6, 49)
    np.testing.assert_allclose(PARAMETERS[name].to_natural(x), FORMULAS[name](x), rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize(
    ("name", "x", "natural"),
    [
        ("positive by exp", -600.0, np.exp(-600.0)),
        ("positive by softplus", -50.0, np.exp(-50.0)),
        ("positive by softplus", -700.0, np.exp(-700.0)),
        ("positive by softplus", 50.0, 50.0),
        ("positive by softplus", 900.0, 900.0),
        ("unit by logit", -50.0, np.exp(-50.0)),
        ("unit by logit", -700.0, np.exp(-700.0)),
        ("unit by probit", -10.0, 7.619853024160527e-24),  # tables of the Normal distribution
        ("unit by probit", -37.0, 5.725571222524576e-300),
        ("unit by probit", 5.0, 1 - 2.866515718791939e-07),
    ],
)
def test_tails_keep_their_digits(name, x, natural):
    np.testing.assert_allclose(PARAMETERS[name].to_natural(x), natural, rtol=1e-12)
    symbolic = PARAMETERS[name].symbolic(pt.constant(x, dtype="float64")).eval(mode="FAST_COMPILE")
    np.testing.assert_allclose(symbolic, natural, rtol=1e-12)


@every_parameter
def test_gaussian_to_natural_and_back(name):
    x = np.linspace(*RESOLVED[name], 41)
    there = PARAMETERS[name].to_natural(x)
    np.testing.assert_allclose(PARAMETERS[name].to_gaussian(there), x, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize(
    ("name", "natural"),
    [
        ("real", [-1e300, -1.0, 0.0, 1e300]),
        ("positive by exp", [1e-300, 1e-5, 1.0, 1e5, 1e300]),
        ("positive by softplus", [1e-300, 1e-5, 1.0, 1e5, 1e300]),
        ("unit by logit", [1e-300, 1e-5, 0.5, 1 - 1e-5, 1 - 1e-15]),
        ("unit by probit", [1e-300, 1e-5, 0.5, 1 - 1e-5, 1 - 1e-15]),
        ("interval by logit", [-3 + 1e-12, 0.0, 1.0, 5 - 1e-12]),
        ("interval by probit", [-3 + 1e-12, 0.0, 1.0, 5 - 1e-12]),
        ("narrow interval far out", [1000 + 1e-9, 1000.25, 1000.5 - 1e-9]),
    ],
)
def test_natural_to_gaussian_and_back(name, natural):
    x = PARAMETERS[name].to_gaussian(natural)
    assert np.isfinite(x).all()
    assert (np.diff(x) > 0).all()
    rounding = 0 if PARAMETERS[name].low == 0 else 1e-12
    np.testing.assert_allclose(PARAMETERS[name].to_natural(x), natural, rtol=1e-12, atol=rounding)


@every_parameter
def test_symbolic_equals_numeric_however_far_out(name, compiled):
    values, _ = compiled
    np.testing.assert_allclose(values[name], PARAMETERS[name].to_natural(GAUSSIAN), rtol=1e-13)


@every_parameter
def test_natural_values_stay_strictly_inside_the_bounds(name, compiled):
    parameter, (values, _) = PARAMETERS[name], compiled
    for natural in (values[name], parameter.to_natural(GAUSSIAN), parameter.to_natural([-np.inf, np.inf])):
        if name != "real":
            assert np.isfinite(natural).all()
            assert (natural > parameter.low).all()
            assert (natural < parameter.high).all()
        assert (natural[1:] >= natural[:-1]).all()


@every_parameter
def test_slopes_are_finite_however_far_out(name, compiled):
    _, slopes = compiled
    assert np.isfinite(slopes[name]).all()
    assert (slopes[name] >= 0).all()


@every_parameter
def test_slopes_equal_finite_differences(name, compiled):
    near = np.abs(GAUSSIAN) < 5
    x, step = GAUSSIAN[near], 1e-5
    up, down = PARAMETERS[name].to_natural(x + step), PARAMETERS[name].to_natural(x - step)
    np.testing.assert_allclose(compiled[1][name][near], (up - down) / (2 * step), rtol=1e-7)


@every_parameter
def test_to_natural_keeps_the_shape_and_passes_nan_on(name):
    natural = PARAMETERS[name].to_natural(np.zeros((2, 3, 4)))
    assert natural.shape == (2, 3, 4)
    assert natural.dtype == np.float64
    with np.errstate(invalid="ignore"):
        assert np.isnan(PARAMETERS[name].to_natural(np.nan))


@pytest.mark.parametrize(
    ("parameter", "start"),
    [
        (em.Real(start=250.0), 250.0),
        (em.Positive(), 0.0),
        (em.Positive(start=np.e), 1.0),
        (em.Positive(link="softplus", start=np.log(2)), 0.0),
        (em.Unit(), 0.0),
        (em.Unit(start=0.975, link="probit"), 1.959963984540054),
        (em.Interval(0, 10), 0.0),
        (em.Interval(0, 10, start=9), np.log(9)),
    ],
)
def test_gaussian_start_is_the_start_in_gaussian_space(parameter, start):
    assert parameter.gaussian_start == pytest.approx(start, abs=1e-15)


@pytest.mark.parametrize("make", [em.Real, em.Positive, em.Unit, lambda: em.Interval(0, 1)])
def test_equal_declarations_are_equal(make):
    assert make() == make()
    assert hash(make()) == hash(make())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: em.Unit(start=1.0), r"Unit: start=1.0 is outside \(0.0, 1.0\)"),
        (lambda: em.Unit(start=0.0), "Unit: start=0.0 is outside"),
        (lambda: em.Unit(start=np.nan), "Unit: start=nan is outside"),
        (lambda: em.Positive(start=0.0), r"Positive: start=0.0 is outside \(0.0, inf\).*natural space"),
        (lambda: em.Positive(start=np.inf), "Positive: start=inf is outside"),
        (lambda: em.Real(start=np.inf), "Real: start=inf is outside"),
        (lambda: em.Interval(0, 5, start=7), r"Interval: start=7 is outside \(0.0, 5.0\)"),
        (lambda: em.Unit(spread=0), "Unit: spread=0 must be a positive standard deviation"),
        (lambda: em.Positive(spread=-1.0), "Positive: spread=-1.0 must be a positive"),
        (lambda: em.Real(spread=np.inf), "Real: spread=inf must be a positive"),
        (lambda: em.Real(spread=np.nan), "Real: spread=nan must be a positive"),
        (lambda: em.Unit(link="log"), "link='log' is not one of 'logit', 'probit'"),
        (lambda: em.Positive(link="probit"), "link='probit' is not one of 'log', 'softplus'"),
        (lambda: em.Interval(0, 1, link="cloglog"), "link='cloglog' is not one of"),
        (lambda: em.Interval(2, 1), "Interval: low=2.0 must lie below high=1.0"),
        (lambda: em.Interval(1, 1), "Interval: low=1.0 must lie below high=1.0"),
        (lambda: em.Interval(0, np.inf), "low=0 and high=inf must be finite; use Positive or Real"),
        (lambda: em.Interval(np.nan, 1), "low=nan and high=1 must be finite"),
        (lambda: em.Unit().to_gaussian(1.0), "Unit: 1.0 is not strictly between 0.0 and 1.0"),
        (lambda: em.Unit().to_gaussian([0.5, -0.1]), "Unit: .*-0.1.* is not strictly between"),
        (lambda: em.Positive().to_gaussian(0.0), "Positive: 0.0 is not strictly between 0.0 and inf"),
        (lambda: em.Real().to_gaussian(np.nan), "Real: nan is not strictly between -inf and inf"),
        (lambda: em.Interval(1, 2).to_gaussian(2), "Interval: 2.* is not strictly between 1.0 and 2.0"),
    ],
)
def test_bad_arguments_are_refused_with_their_values(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("make", [em.Real, em.Positive, em.Unit])
def test_settings_are_keywords_only(make):
    with pytest.raises(TypeError, match="positional"):
        make(0.5)
