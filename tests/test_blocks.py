import os
import signal
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context

import numpy as np
import pytest
import xarray as xr
from distributed import Client, LocalCluster

import em_ppl as em
import em_ppl.blocks
import em_ppl.compiled
from em_ppl.blocks import Blocks


class Counts(Executor):
    """Pass work on, count it, and do something before the 30th piece."""

    def __init__(self, executor, then=lambda: None):
        self.executor, self.then, self.blocks_sent, self.n = executor, then, 0, 0

    def submit(self, function, *arguments):
        self.n += 1
        self.blocks_sent += arguments[2] is not None
        if self.n == 30:
            self.then()
        return self.executor.submit(function, *arguments)


@pytest.fixture(scope="module")
def study(make_successes):
    made = make_successes(30, 20, sd=0.7, seed=2)
    return made.model, made.data


@pytest.fixture(scope="module")
def reference(study):
    return em.fit(*study, progressbar=False)


def assert_same_bits(fit, other):
    xr.testing.assert_identical(fit.subjects, other.subjects)
    np.testing.assert_array_equal(fit.group.free, other.group.free)
    np.testing.assert_array_equal(fit.group.free_covariance, other.group.free_covariance)


def test_portions_change_nothing(study, reference, monkeypatch):
    before = reference.evidence.subjects
    monkeypatch.setattr(em_ppl.compiled, "PORTION", 7)
    fit = em.fit(*study, progressbar=False)
    assert_same_bits(fit, reference)
    xr.testing.assert_identical(fit.evidence.subjects, before)


def test_threads_are_sent_no_data(study, reference, monkeypatch):
    monkeypatch.setattr(em_ppl.blocks, "BLOCK_TRIALS", 10)
    with ThreadPoolExecutor(2) as pool:
        executor = Counts(pool)
        fit = em.fit(*study, executor=executor, progressbar=False)
    assert_same_bits(fit, reference)
    assert executor.n > 0
    assert executor.n % 3 == 0  # 30 trials: three blocks
    assert executor.blocks_sent == 0


@pytest.mark.long
def test_processes_are_sent_blocks_that_they_lack_only(study, reference):
    model, data = study
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        executor = Counts(pool)
        fit = em.fit(model, data.chunk(subject=10), executor=executor, progressbar=False)
    assert_same_bits(fit, reference)
    # a block may come to a worker other than the one that lacked it, until both have all
    assert 3 <= executor.blocks_sent < executor.n / 3


def test_a_fit_outlives_its_executor(study, reference):
    model, data = study
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        executor = Counts(pool, then=lambda: os.kill(next(iter(pool._processes)), signal.SIGKILL))
        with pytest.warns(RuntimeWarning, match="the executor broke"):
            fit = em.fit(model, data.chunk(subject=10), executor=executor, progressbar=False)
    assert_same_bits(fit, reference)


def test_data_in_a_file_are_read_in_blocks(study, reference, tmp_path):
    model, data = study
    data.chunk(subject=10).to_netcdf(tmp_path / "study.nc", engine="h5netcdf")
    with xr.open_dataset(tmp_path / "study.nc", engine="h5netcdf", chunks={"subject": 10}) as stored:
        fit = em.fit(model, stored, progressbar=False)
        assert_same_bits(fit, reference)
        assert fit.data.chunksizes["subject"] == (10, 10, 10)


@pytest.mark.long
def test_a_fit_outlives_a_worker_of_a_cluster(study, reference):
    model, data = study
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0") as cluster, Client(cluster) as client:
        worker = next(iter(client.run(os.getpid).values()))
        executor = Counts(client.get_executor(), then=lambda: os.kill(worker, signal.SIGKILL))
        fit = em.fit(model, data.chunk(subject=10), executor=executor, progressbar=False)
    assert executor.n > 30
    assert_same_bits(fit, reference)


def test_whole_numbers_are_read_as_such_in_blocks_that_have_no_gap(study):
    """A response that is missing makes a float of a column, whose other subjects stand in other blocks."""
    model, data = study
    gap = data["k"].astype(float)
    gap[{"subject": 25}] = np.nan
    blocks = Blocks(model, data.assign(k=gap).chunk(subject=10))
    kinds = blocks.map(lambda compiled: np.array([compiled.functions.columns["k"].dtype] * compiled.shape[0]))
    assert set(kinds) == {"int64"}
    values = blocks.map(lambda compiled: compiled.subjects.columns["k"])
    present = np.arange(30) != 25
    np.testing.assert_array_equal(values[present], data["k"].values[present])


def test_a_block_may_have_no_response_at_all(study):
    model, data = study
    gaps = data.assign(k=data["k"].where(data["subject"] // 10 != 1))
    assert_same_bits(*(em.fit(model, some, progressbar=False) for some in (gaps, gaps.chunk(subject=10))))


def test_a_missing_column_is_named(study):
    model, data = study
    with pytest.raises(ValueError, match="reads a column 'k' that the data do not have; they have n"):
        em.fit(model, data.drop_vars("k").chunk(subject=10), progressbar=False)


def test_executors_that_are_none_are_refused(study):
    with pytest.raises(TypeError, match=r"client\.get_executor"):
        em.fit(*study, executor=4)
