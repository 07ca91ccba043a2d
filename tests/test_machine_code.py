"""Machine code of functions: made once, and found on disk (see test_kernels for what cannot be read there)."""

from __future__ import annotations

import gc
import math

import numba
import numpy as np
import pytest

from em_ppl.machine_code import Indices, Matrix, NewMatrix, compile_source, in_machine_code

TWICE = """

def twice(x, result):
    for i in range(len(x)):
        result[i] = 2 * x[i]
"""
TYPES = [numba.float64[::1], numba.float64[::1]]


SCALE = 0.5
COUNT = 2


@in_machine_code
def scaled_roots(rows: Indices, matrix: Matrix, least: float, results: NewMatrix) -> None:
    """Take numbers from beside the function, and from `math`."""
    for j in range(len(rows)):
        for k in range(COUNT):
            results[j, k] = SCALE * math.sqrt(max(least, matrix[rows[j], k]))


def test_a_function_of_python_s_is_compiled_with_the_numbers_of_its_module():
    matrix, results = np.array([[4.0, 9.0, 0.0], [16.0, -1.0, 0.0]]), np.empty((2, 2))
    for in_some_order in (matrix, np.asfortranarray(matrix)):
        scaled_roots(np.array([1, 0]), in_some_order, 1.0, results)
        np.testing.assert_array_equal(results, [[2.0, 0.5], [1.0, 1.5]])
        results[:] = np.nan
    with pytest.raises(TypeError):  # memory is written in C's order only
        scaled_roots(np.array([1, 0]), matrix, 1.0, results.T)


def doubled(function, x):
    result = np.empty_like(x)
    function(x, result)
    return result.tolist()


def test_it_is_found_on_disk(tmp_path, monkeypatch):
    monkeypatch.setattr("em_ppl.machine_code.folder", lambda: tmp_path)
    found = []
    for _ in range(2):
        function = compile_source("twice", TWICE, TYPES)
        assert doubled(function, np.array([1.0, 2.5])) == [2.0, 5.0]
        found.append(sum(function.stats.cache_hits.values()))
    assert found == [0, 1]


def test_what_it_depends_on_is_another_function(tmp_path, monkeypatch):
    monkeypatch.setattr("em_ppl.machine_code.folder", lambda: tmp_path)
    for version in (1, 2, 2):
        compile_source("twice", TWICE, TYPES, depends_on=version)
    assert len(list(tmp_path.glob("twice_*.py"))) == 2


def test_it_takes_what_it_was_compiled_for():
    function = compile_source("twice", TWICE, TYPES)
    with pytest.raises(TypeError):
        function(np.array([1, 2]), np.empty(2))


@pytest.mark.parametrize("collects", [True, False])
def test_garbage_is_collected_afterwards_as_it_was_before(collects):
    before = gc.isenabled()
    try:
        gc.enable() if collects else gc.disable()
        with pytest.raises(numba.TypingError):
            compile_source("wrong", "\n\ndef wrong(x):\n    return x + nothing_of_that_name\n", [numba.float64])
        assert gc.isenabled() is collects
    finally:
        gc.enable() if before else gc.disable()
