"""Machine code of one subject's graph: compiled once for all data, read from disk, run on all cores."""

import threading

import numba
import numpy as np
import pymc as pm
import pytensor
import pytensor.tensor as pt
import pytest
from helpers import simulated_learners
from scipy import stats

import em_ppl as em
import em_ppl.compiled
from em_ppl import functions, kept, kernels, machine_code
from em_ppl.cores import at_most, cores_in_use, in_threads
from em_ppl.kernels import _portions, compile_kernel, write_source
from em_ppl.model import Column
from em_ppl.models.rescorla_wagner import rescorla_wagner
from em_ppl.subjects import Subjects


def normal(level, y):
    pm.Normal("y", level, 1.0, observed=y)


@pytest.fixture
def compilations(monkeypatch):
    """Count what is compiled, by this package and by PyTensor."""
    made = []

    def counted(name, original):
        def compile_(*args, **kwargs):
            made.append(name)
            return original(*args, **kwargs)

        return compile_

    monkeypatch.setattr(functions, "compile_kernel", counted("kernel", functions.compile_kernel))
    monkeypatch.setattr(pytensor, "function", counted("function", pytensor.function))
    return made


def people(n, seed, n_trials=6):
    generator = np.random.default_rng(seed)
    return em.from_subjects([{"y": level + generator.normal(size=n_trials)} for level in 2 * generator.normal(size=n)])


def test_a_second_fit_compiles_nothing(compilations):
    model = em.subject_model(level=em.Real())(normal)
    first = em.fit(model, people(10, 1), progressbar=False)
    assert compilations == ["kernel"]
    em.fit(model, people(25, 2, n_trials=9), progressbar=False, estimator="corrected", covariance="full")
    assert compilations == ["kernel"]
    _ = first.evidence.log_evidence
    assert compilations == ["kernel", "kernel"]  # values without gradients
    _ = em.fit(model, people(12, 3), progressbar=False, estimator="exact").evidence.log_evidence
    for fit in (first, em.fit(model, people(12, 3), progressbar=False)):
        fit.compiled.pointwise_log_likelihood(np.zeros(fit.compiled.shape))
    assert compilations == ["kernel"] * 3  # by trial


def test_machine_code_is_read_from_disk():
    """As another process would: all that is in memory is left aside."""
    for _ in range(2):
        model = em.subject_model(level=em.Real())(normal)
        compiled = model.compile(people(3, 1))
        compiled.log_likelihood(np.zeros((3, 1)))
        stats = compiled.functions.compiled("value_and_gradient").function.stats
    assert sum(stats.cache_hits.values()) == 1
    assert not stats.cache_misses


def test_what_is_written_is_read_from_disk(tmp_path, monkeypatch):
    """Of the same graph and the same kind of columns; another model's is written anew."""
    monkeypatch.setattr(kept, "folder", lambda: tmp_path)
    written = []
    monkeypatch.setattr(
        kernels, "_simplified", lambda *a, original=kernels._simplified: written.append(a) or original(*a)
    )

    def wider(level, y):
        pm.Normal("y", level, 2.1, observed=y)

    for model, times in [(normal, 1), (normal, 1), (wider, 2), (normal, 2)]:
        compiled = em.subject_model(level=em.Real())(model).compile(people(3, 1))
        value = compiled.log_likelihood(np.zeros((3, 1)))
        expected = stats.norm(0.0, 2.1 if model is wider else 1.0).logpdf(compiled.data["y"].values).sum(1)
        np.testing.assert_allclose(value, expected, rtol=1e-12)
        assert len(written) == times
    assert len(list(tmp_path.glob("source_*.pickle"))) == 2
    whole_numbers = people(3, 1).assign(y=lambda d: d["y"].round().astype(int))
    em.subject_model(level=em.Real())(normal).compile(whole_numbers).log_likelihood(np.zeros((3, 1)))
    assert len(written) == 3


def test_functions_of_pytensor_are_not_kept(tmp_path, monkeypatch):
    """They live in the process that made them."""
    monkeypatch.setattr(kept, "folder", lambda: tmp_path)
    x, y = pt.scalar("x", dtype="float64"), pt.vector("y", dtype="float64")
    for _ in range(2):
        source = write_source([x], [(y, Column("float64", True, True, ()))], [pt.erfcx(x * y).sum()], [False])
        assert source.functions
    assert not list(tmp_path.iterdir())


def test_all_cores_give_the_same_bits():
    data = simulated_learners(60, n_trials=200, random_seed=4)
    fits = []
    for cores in (1, 2, 5):
        fits.append(em.fit(rescorla_wagner, data, progressbar=False, cores=cores))
    for other in fits[1:]:
        np.testing.assert_array_equal(fits[0].subjects["mode"], other.subjects["mode"])
        np.testing.assert_array_equal(fits[0].subjects["laplace_covariance"], other.subjects["laplace_covariance"])
        np.testing.assert_array_equal(fits[0].group.free_covariance, other.group.free_covariance)
        assert fits[0].log_evidence == other.log_evidence


@pytest.mark.parametrize("cores", [0, 1.5, "all"])
def test_a_number_of_cores_that_is_none_is_refused(cores):
    with pytest.raises(ValueError, match=r"cores=.* must be a whole number, at least 1"):
        em.fit(em.subject_model(level=em.Real())(normal), people(3, 1), cores=cores, progressbar=False)


def test_points_of_a_subject_are_evaluated_together_with_the_bits_of_each_alone():
    data = simulated_learners(5, n_trials=30, random_seed=1)
    compiled = rescorla_wagner.compile(data)
    assert compiled.many_at_once
    x = np.random.default_rng(1).normal(size=(40, 2))
    x[7] = np.nan
    for index in (np.repeat([3, 0, 4], [19, 1, 20]), np.tile(np.arange(5), 8)):
        value, gradient = compiled.value_and_gradient(x, index)
        for row in range(40):
            alone = compiled.value_and_gradient(x[[row]], index[[row]])
            np.testing.assert_array_equal(value[[row]], alone[0])
            np.testing.assert_array_equal(gradient[[row]], alone[1])


@pytest.mark.parametrize("table", [np.array([0.0, 2.0, 7.0]), np.arange(50.0) ** 2])
def test_what_has_no_lanes_is_evaluated_point_by_point(table):
    """A parameter that chooses from a table, as no parameter should."""

    @em.subject_model(level=em.Real(), place=em.Real())
    def chosen(level, place, y):
        pm.Normal("y", level + pt.as_tensor(table)[pt.cast(pt.clip(place, 0, 2), "int64")], 1.0, observed=y)

    data = people(3, 1)
    compiled = chosen.compile(data)
    x, index = np.array([[0.5, 0.0], [0.5, 1.7], [0.5, 2.0], [-1.0, 1.0]]), np.array([1, 1, 1, 2])
    value, gradient = compiled.value_and_gradient(x, index)
    assert not compiled.many_at_once
    away = data["y"].values[index] - (x[:, 0] + table[x[:, 1].astype(int)])[:, None]
    np.testing.assert_allclose(value, stats.norm.logpdf(away).sum(1), rtol=1e-12)
    np.testing.assert_allclose(gradient, np.column_stack([away.sum(1), np.zeros(4)]), rtol=1e-12)


def test_subjects_are_worked_on_in_threads(monkeypatch):
    compiled = rescorla_wagner.compile(simulated_learners(9, n_trials=30, random_seed=1))
    threads = []

    def work(part, x):
        threads.append(threading.current_thread())
        assert cores_in_use() == (1 if len(part.data.subject) < 9 else 4)
        if x[0, 0] < 0:
            raise IndexError(f"subject {int(part.data.subject[0])}")
        return part.value_and_gradient(x)

    x = np.random.default_rng(1).uniform(size=(9, 2))
    with at_most(4):
        whole = compiled.map(work, x)  # few subjects are not worth a thread
        monkeypatch.setattr(em_ppl.compiled, "WORTHWHILE", 1)
        assert len(threads) == 1
        parts = compiled.map(work, x)
        assert len(threads) == 4
        assert threading.current_thread() in threads[1:]
        x[6] = -1.0
        with pytest.raises(IndexError, match="subject 6"):
            compiled.map(work, x)
    for one, other in zip(whole, parts, strict=True):
        np.testing.assert_array_equal(one, other)


def test_portions_have_about_as_many_trials_each():
    n_trials = np.array([9000, 1000, 1000, 1000, 6000])
    with at_most(2):
        parts = _portions(n_trials)
    assert [n_trials[part].sum() for part in parts] == [9000, 9000]
    with at_most(8):
        parts = _portions(n_trials)
    assert np.concatenate([np.arange(5)[part] for part in parts]).tolist() == [0, 1, 2, 3, 4]
    with at_most(8):
        assert _portions(np.array([10, 20])) == [slice(0, 2)]  # not worth a thread
        assert _portions(np.array([], dtype=np.int64)) == [slice(0, 0)]


def test_the_limit_of_cores_ends_with_its_block():
    before = cores_in_use()
    with at_most(1):
        assert cores_in_use() == 1
        with at_most(None):
            assert cores_in_use() == 1
    assert cores_in_use() == before


@pytest.mark.parametrize("bad", [0, 1, 2])
def test_what_a_thread_raises_is_raised(bad):
    done = []

    def work(portion):
        if portion == bad:
            raise IndexError(f"portion {portion}")
        done.append(portion)

    with pytest.raises(IndexError, match=f"portion {bad}"):
        in_threads(work, [0, 1, 2])
    assert sorted(done) == [p for p in range(3) if p != bad]  # nobody is left running


def test_arrays_of_any_layout_are_read():
    model = em.subject_model(level=em.Real())(normal)
    compiled = model.compile(people(4, 1))
    x = np.arange(8.0).reshape(4, 2)[:, :1]
    x.flags.writeable = False
    index = np.arange(8)[::2] // 2
    np.testing.assert_array_equal(compiled.value_and_gradient(x, index)[0], compiled.log_likelihood(x.copy()))


def test_what_goes_wrong_in_writing_is_said_and_left_to_pytensor(tmp_path, monkeypatch):
    def mistake(*args):
        raise KeyError("a variable")

    monkeypatch.setattr(kernels, "write_graph", mistake)
    monkeypatch.setattr(kept, "folder", lambda: tmp_path)
    compiled = em.subject_model(level=em.Real())(normal).compile(people(3, 1))
    with (
        pytensor.config.change_flags(mode="FAST_COMPILE"),
        pytest.warns(
            RuntimeWarning, match=r"normal could not be written as loops \(KeyError: 'a variable'\)"
        ) as caught,
    ):
        value = compiled.log_likelihood(np.zeros((3, 1)))
    assert caught[0].filename == __file__
    expected = stats.norm(0.0, 1.0).logpdf(compiled.data["y"].values).sum(1)
    np.testing.assert_allclose(value, expected, rtol=1e-12)


def test_what_cannot_be_written_is_left_to_pytensor():
    """A shared variable may change its value from one call to the next."""
    sd = pytensor.shared(1.0)

    def likelihood(level, y):
        pm.Normal("y", level, sd, observed=y)

    compiled = em.subject_model(level=em.Real())(likelihood).compile(people(3, 1))
    with pytensor.config.change_flags(mode="FAST_COMPILE"):
        for value in (1.0, 2.0):
            sd.set_value(value)
            expected = stats.norm(0.0, value).logpdf(compiled.data["y"].values).sum(1)
            np.testing.assert_allclose(compiled.log_likelihood(np.zeros((3, 1))), expected, rtol=1e-12)


@pytest.mark.parametrize("how", [b"", b"nonsense" * 100])
def test_machine_code_that_cannot_be_read_is_made_again(tmp_path, monkeypatch, how):
    """As a crash, or a full disk, leaves it: every file of the cache is broken."""
    monkeypatch.setattr(kept, "folder", lambda: tmp_path)
    monkeypatch.setattr(machine_code, "folder", lambda: tmp_path)
    monkeypatch.setattr(numba.core.config, "CACHE_DIR", str(tmp_path))
    x, y = pt.scalar("x", dtype="float64"), pt.vector("y", dtype="float64")
    kind = Column("float64", True, True, ())
    source = write_source([x], [(y, kind)], [(x * y).sum()], [False])
    subjects = Subjects({"y": np.array([[1.0, 2.0]])}, {}, np.array([2]), {"y": kind})
    for _ in range(2):
        [value] = compile_kernel(source)(subjects, np.array([[3.0]]), None)
        assert value == 9.0
        files = [file for file in tmp_path.rglob("*") if file.is_file()]
        assert {file.suffix for file in files} == {
            ".pickle",
            ".py",
            ".nbi",
            ".nbc",
        }  # the source twice, an index, machine code
        for file in files:
            file.write_bytes(how)


def test_parameters_out_of_bounds_leave_everyone_else_alone():
    """-inf, and no slope, for whom they are, in any trial; nothing where no trial counts."""

    @em.subject_model(a=em.Real(), b=em.Real())
    def model(a, b, x, y, z):
        pm.Bernoulli("y", p=a + b * x, observed=y)
        pm.Normal("z", a, 2.0, observed=z)

    x, y, z = np.array([0.0, 1.0, 2.0]), np.array([1.0, 0.0, 1.0]), np.array([0.3, 1.0, np.nan])
    nothing, p = np.full(3, np.nan), 0.2 + 0.3 * x
    data = em.from_subjects([{"x": x, "y": y, "z": z}] * 2 + [{"x": x, "y": nothing, "z": z}])
    compiled = model.compile(data)
    of_z, slope_of_z = stats.norm(0.2, 2).logpdf(z[:2]).sum(), (z[:2] - 0.2).sum() / 4
    by_p = np.where(y == 1, 1 / p, -1 / (1 - p))
    at = [[0.2, 0.3], [0.2, 0.5], [0.2, 0.5]]  # p is 1.2 in the last trial of the latter two
    value, slope = compiled.log_likelihood(at), compiled.log_likelihood_gradient(at)
    np.testing.assert_allclose(value, [stats.bernoulli(p).logpmf(y).sum() + of_z, -np.inf, of_z], rtol=1e-12)
    expected = [[by_p.sum() + slope_of_z, (by_p * x).sum()], [0.0, 0.0], [slope_of_z, 0.0]]
    np.testing.assert_allclose(slope, expected, rtol=1e-12)
    assert np.isneginf(compiled.pointwise_log_likelihood(at)["y"][1]).all()
