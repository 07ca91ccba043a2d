"""Random-effects comparison of models, against closed forms, brute-force integrals and another implementation."""

import numpy as np
import pandas as pd
import pytest
from scipy import integrate, special, stats

import em_ppl as em
from em_ppl.frequencies import dirichlet_divergence, exceedance_probabilities

# Akaike weights of 12 participants under 6 models (rows), and what bmsR, SPM 12 translated to R, says of their logs:
# https://github.com/mattelisi/bmsR, README, "Here is an example". It stops at a change of 1e-4.
WEIGHTS = [
    [2.50809867187394e-22, 0.000146611855314775, 4.58668624689671e-25, 4.10535400464176e-07, 0.0686634208305935,
     0.0367833971579169, 0.000110346493359948, 1.68129802885811e-08, 0.108275519613786, 3.9578164134093e-11,
     0.0367837099909541, 1.08999881504e-07],
    [0.0343412062159018, 0.00446326510403562, 0.00172330666747482, 0.000990826155243488, 0.158393579220946,
     0.0295386936257688, 0.00012552265085804, 0.0272190104668559, 0.0530936016907313, 2.07255371227757e-10,
     0.0214823528123676, 4.73437495302293e-05],
    [0.677938621542126, 5.20954432898137e-08, 0.000627393517771912, 0.000388486329012404, 3.17565869877651e-18,
     0.191176500286399, 3.83899865682068e-07, 0.0619217494201652, 0.559188952807853, 5.06676447796227e-09,
     0.0418921682773635, 0.702014475355336],
    [0.249399681241455, 0.862817395918837, 0.864775715064725, 0.865617369930796, 0.147322698727657,
     0.643610120435765, 0.866608545004982, 0.789544918511435, 0.207285291019464, 0.866813333179825,
     0.779961587662899, 0.258256692887969],
    [0.0337525764999333, 0.116769634805204, 0.117034665657295, 0.11714857188609, 0.497854787795748,
     0.0871031579431148, 0.117282712780637, 0.106853285174707, 0.0635553531488496, 0.117310426702891,
     0.105556322380037, 0.0349512426797482],
    [0.00456791450058339, 0.0158030402211649, 0.0158389190927326, 0.0158543351634575, 0.127765513425055,
     0.0117881305510349, 0.0158724891702976, 0.0144610196138568, 0.00860128171931599, 0.0158762348036855,
     0.0143238588763795, 0.00473013632753477],
]  # fmt: skip
SPM_ALPHA = [1.043623, 1.064976, 1.720754, 11.835847, 1.290641, 1.044160]
SPM_FREQUENCY = [0.05797903, 0.05916533, 0.09559743, 0.65754706, 0.07170226, 0.05800889]
SPM_EXCEEDANCE = [0.000279, 0.000319, 0.001173, 0.997441, 0.000514, 0.000274]  # Monte-Carlo, 1e6 draws
SPM_OMNIBUS_RISK = 0.002890379
SPM_PROTECTED = [0.0007599235, 0.0007998079, 0.0016513395, 0.9950397470, 0.0009942442, 0.0007549379]


@pytest.fixture(scope="module")
def table():
    rng = np.random.default_rng(3)
    return pd.DataFrame(rng.normal([0.0, 0.5], 2.0, (9, 2)), [f"s{i}" for i in range(9)], ["one", "two"])


def test_spm_numbers():
    names = [f"M{k}" for k in range(1, 7)]
    found = em.model_frequencies(pd.DataFrame(np.log(WEIGHTS).T, columns=names))
    np.testing.assert_allclose(found.counts, SPM_ALPHA, rtol=3e-4)
    np.testing.assert_allclose(found.frequency, SPM_FREQUENCY, rtol=3e-4)
    np.testing.assert_allclose(found.omnibus_risk, SPM_OMNIBUS_RISK, rtol=1e-5)
    np.testing.assert_allclose(found.exceedance, SPM_EXCEEDANCE, atol=1e-4)
    np.testing.assert_allclose(found.protected_exceedance, SPM_PROTECTED, atol=1e-4)
    assert list(found.summary().index[:2]) == ["M4", "M3"]
    assert "omnibus risk) 0.003" in repr(found)
    assert "<table" in found._repr_html_()


@pytest.mark.parametrize("counts", [(1.0, 1.0), (0.3, 0.2), (12.5, 9.0), (300.0, 260.0)])
def test_exceedance_of_two_models_is_the_tail_of_a_beta(counts):
    tail = stats.beta(*counts).sf(0.5)
    np.testing.assert_allclose(exceedance_probabilities(np.array(counts)), [tail, 1 - tail], atol=1e-9)


def test_exceedance_of_many_models_is_that_of_draws():
    counts, n = np.array([7.0, 6.0, 4.5, 1.0, 1.0]), 400_000
    share = np.bincount(np.random.default_rng(0).dirichlet(counts, n).argmax(1), minlength=5) / n
    np.testing.assert_allclose(exceedance_probabilities(counts), share, atol=4 * np.sqrt(0.25 / n))


@pytest.mark.parametrize("k", [2, 3, 5])
def test_equal_evidences_say_nothing(k):
    found = em.model_frequencies(np.full((10, k), -77.0))
    for values in (found.frequency, found.exceedance, found.protected_exceedance):
        np.testing.assert_allclose(values, 1 / k, atol=1e-9)
    assert found.null_bound == pytest.approx(-770)
    assert found.omnibus_risk >= 0.5


def test_evidence_of_all_subjects_is_bounded(table):
    """Two models: the exact log evidence is an integral over one frequency."""
    evidence = np.exp(table.to_numpy())
    exact = np.log(integrate.quad(lambda f: (evidence @ [f, 1 - f]).prod(), 0, 1)[0])
    found = em.model_frequencies(table)
    assert exact - 0.5 < found.bound < exact
    assert found.null_bound == pytest.approx(np.log(evidence.mean(1)).sum())


def test_counts_are_where_the_bound_is_highest(table):
    def bound(counts):
        expected = special.psi(counts) - special.psi(counts.sum())
        own = special.logsumexp(table.to_numpy() + expected, axis=1).sum()
        # KL divergence of Beta(counts) from the uniform: its negative entropy
        return own + stats.beta(*counts).entropy()

    found = em.model_frequencies(table)
    best = found.counts.to_numpy()
    assert found.bound == pytest.approx(bound(best))
    for away in ([0.3, 0], [-0.3, 0], [0, 0.3], [0, -0.3]):
        assert bound(best + away) < found.bound
    np.testing.assert_allclose(found.responsibility.sum(axis=1), 1)
    np.testing.assert_allclose(found.responsibility.sum(axis=0) + 1, best, atol=1e-9)


def test_divergence_of_dirichlets_is_an_integral():
    q, p = np.array([3.0, 5.0]), np.array([1.5, 0.8])

    def integrand(f):
        return stats.beta(*q).pdf(f) * (stats.beta(*q).logpdf(f) - stats.beta(*p).logpdf(f))

    np.testing.assert_allclose(dirichlet_divergence(q, p), integrate.quad(integrand, 0, 1)[0], rtol=1e-7)


def test_a_stronger_prior_draws_to_equality(table):
    weak, strong = (em.model_frequencies(table, alpha=a).frequency for a in (0.1, 100.0))
    assert abs(strong - 0.5).max() < abs(weak - 0.5).max()


def test_protected_probabilities_by_rigoux(table):
    found = em.model_frequencies(table)
    np.testing.assert_allclose(found.omnibus_risk, 1 / (1 + np.exp(found.bound - found.null_bound)))
    risk = found.omnibus_risk
    np.testing.assert_allclose(found.protected_exceedance, (1 - risk) * found.exceedance + risk / 2)


def test_groups_that_differ_and_groups_that_do_not():
    rng = np.random.default_rng(0)
    better = np.where(np.arange(40) < 20, 3.0, -3.0) + rng.normal(size=40)
    table = pd.DataFrame({"one": better, "two": 0.0})
    halves = pd.Series(np.where(np.arange(40) < 20, "patient", "control"))
    mixed = pd.Series(np.where(np.arange(40) % 2, "patient", "control"))
    differ, same = em.frequencies_by_group(table, halves), em.frequencies_by_group(table, mixed.to_dict())
    assert differ.probability_differ > 0.999
    assert same.probability_differ < 0.35
    # by Bayes' theorem, of the two hypotheses' evidences
    parts = [em.model_frequencies(table[halves == group]).bound for group in ("patient", "control")]
    odds = np.exp(sum(parts) - em.model_frequencies(table).bound)
    assert differ.probability_differ == pytest.approx(odds / (1 + odds))
    assert list(differ.by_group) == ["control", "patient"]
    assert differ.summary().loc["one", "patient"] > 0.8
    assert "control (20), patient (20)" in repr(differ)
    assert "<table" in differ._repr_html_()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t[["one"]], "two models and two subjects or more; here are 1 and 9"),
        (lambda t: t.iloc[:1], "here are 2 and 1"),
        (lambda t: t.set_axis(["one", "one"], axis=1), "model 'one' occurs twice"),
        (lambda t: t.set_axis([*t.index[:8], "s0"]), "subject 's0' occurs twice"),
        (lambda t: t.mask(t == t.loc["s4", "two"]), "subject 's4' under model 'two' is nan"),
        (lambda t: t.replace(t.loc["s2", "one"], -np.inf), "subject 's2' under model 'one' is -inf"),
    ],
)
def test_refuses_tables_that_say_nothing(table, change, message):
    with pytest.raises(ValueError, match=message):
        em.model_frequencies(change(table))


def test_refuses_other_nonsense(table):
    with pytest.raises(ValueError, match="alpha=0 must be a positive number"):
        em.model_frequencies(table, alpha=0)
    with pytest.raises(ValueError, match="subject 's3' has no group"):
        em.frequencies_by_group(table, dict.fromkeys(table.index[:3], "a"))
    with pytest.raises(TypeError, match="groups must name each subject's group by its label"):
        em.frequencies_by_group(table.reset_index(drop=True), ["a", "b"] * 4 + ["a"])
    with pytest.raises(ValueError, match="all subjects are in one group, 'a'"):
        em.frequencies_by_group(table, dict.fromkeys(table.index, "a"))
