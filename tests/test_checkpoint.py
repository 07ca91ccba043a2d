"""Fits that were stopped: from wherever they go on, they end in the same bits."""

import os
import shutil
import signal
import subprocess
import sys
from itertools import count

import numpy as np
import pymc as pm
import pytest
from helpers import simulated_learners

import em_ppl as em
from em_ppl import checkpoint as module
from em_ppl.models.rescorla_wagner import rescorla_wagner


@em.subject_model(intercept=em.Real(), slope=em.Real(), noise=em.Positive(shared=True))
def line(intercept, slope, noise, x, y):
    pm.Normal("y", intercept + slope * x, noise, observed=y)


@pytest.fixture(scope="module")
def lines():
    rng = np.random.default_rng(0)
    x, age = rng.normal(size=(20, 8)), rng.normal(size=20)
    own = rng.normal([1.0, -1.0], [1.0, 0.5], (20, 2)) + 0.5 * age[:, None]
    y = rng.normal(own[:, :1] + own[:, 1:] * x, 0.7)
    data = em.from_subjects([{"x": a, "y": b} for a, b in zip(x, y, strict=True)])
    return data.assign(age=("subject", age))


def assert_same_bits(fit, other):
    assert fit.subjects.identical(other.subjects)
    assert fit.history.identical(other.history)
    assert fit.information.identical(other.information)
    assert fit.group.free.identical(other.group.free)
    assert fit.group.free_covariance.identical(other.group.free_covariance)


@pytest.fixture
def copies(tmp_path, monkeypatch):
    """Write every state, and keep a copy of every file that was written: what a kill would have left."""
    write, number = module.Checkpoint._write, count()

    def write_and_copy(self):
        write(self)
        shutil.copy(self._path, tmp_path / f"{next(number):03d}.copy")

    monkeypatch.setattr(module.Checkpoint, "_write", write_and_copy)
    monkeypatch.setattr(module, "SHARE", np.inf)
    return lambda: sorted(tmp_path.glob("*.copy"))


@pytest.mark.parametrize(
    "settings",
    [
        {"covariates": "~ age", "covariance": "full"},
        {"estimator": "laplace", "prior": em.GroupPrior()},
        {"estimator": "exact", "distribution": em.StudentT(df=4)},
    ],
)
def test_a_fit_goes_on_from_every_state_that_was_written(lines, tmp_path, copies, settings):
    fit = em.fit(line, lines, **settings, progressbar=False)
    path = tmp_path / "state"
    assert_same_bits(fit, em.fit(line, lines, **settings, checkpoint=path, progressbar=False))
    states = copies()
    assert len(states) > fit.iterations  # standard errors were written too
    for state in states[:: max(len(states) // 12, 1)]:
        shutil.copy(state, path)
        assert_same_bits(fit, em.fit(line, lines, **settings, checkpoint=path, progressbar=False))


@pytest.mark.filterwarnings("ignore::em_ppl.ConvergenceWarning")
def test_subjects_that_are_integrated_stay_so(tmp_path, copies):
    data = simulated_learners(30, n_trials=60, random_seed=14)
    fit, path = em.fit(rescorla_wagner, data, progressbar=False), tmp_path / "state"
    assert fit.subjects["integrated"].any()
    em.fit(rescorla_wagner, data, checkpoint=path, progressbar=False)
    for state in copies()[::8]:
        shutil.copy(state, path)
        assert_same_bits(fit, em.fit(rescorla_wagner, data, checkpoint=path, progressbar=False))


def test_a_hierarchical_model_of_pymc_goes_on(tmp_path, copies):
    y = np.random.default_rng(3).normal(np.arange(8)[:, None] / 2, 1.0, (8, 4))
    with pm.Model(coords={"subject": list("abcdefgh")}) as hierarchy:
        mean, sd = pm.Normal("mean", 0, 5), pm.HalfNormal("sd", 2)
        level = pm.Normal("level", mean, sd, dims="subject")
        pm.Normal("y", level[:, None], 1.0, observed=y)
    model, path = em.from_pymc(hierarchy, dim="subject"), tmp_path / "state"
    fit = em.fit(model, checkpoint=path, progressbar=False)
    for state in copies()[::6]:
        shutil.copy(state, path)
        assert_same_bits(fit, em.fit(model, checkpoint=path, progressbar=False))


def test_another_prior_of_pymc_is_another_fit(tmp_path):
    y = np.random.default_rng(3).normal(np.arange(8)[:, None] / 2, 1.0, (8, 4))

    def model(width):
        with pm.Model(coords={"subject": list("abcdefgh")}) as hierarchy:
            mean, sd = pm.Normal("mean", 0, width), pm.HalfNormal("sd", 2)
            level = pm.Normal("level", mean, sd, dims="subject")
            pm.Normal("y", level[:, None], 1.0, observed=y)
        return em.from_pymc(hierarchy, dim="subject")

    em.fit(model(5), checkpoint=tmp_path / "state", progressbar=False)
    with pytest.raises(ValueError, match="a fit with other priors of the group"):
        em.fit(model(0.1), checkpoint=tmp_path / "state", progressbar=False)


def test_other_classes_of_subjects_are_another_fit(lines, tmp_path):
    path, site = tmp_path / "state", np.arange(20) % 2
    settings = {"covariance_by": "site", "checkpoint": path, "progressbar": False}
    em.fit(line, lines.assign(site=("subject", site)), **settings)
    with pytest.raises(ValueError, match="a fit with other covariates"):
        em.fit(line, lines.assign(site=("subject", np.sort(site))), **settings)


def test_a_checkpoint_that_lacks_a_part_is_refused(lines, tmp_path):
    path = tmp_path / "state"
    em.fit(line, lines, checkpoint=path, progressbar=False)
    arrays = dict(np.load(path))
    del arrays["start.mode"]
    with path.open("wb") as file:
        np.savez(file, **arrays)
    with pytest.raises(ValueError, match="is no checkpoint of em_ppl"):
        em.fit(line, lines, checkpoint=path, progressbar=False)


def test_data_in_chunks_go_on_from_what_whole_data_left(lines, tmp_path, copies):
    path, whole = tmp_path / "state", em.fit(line, lines, checkpoint=tmp_path / "state", progressbar=False)
    shutil.copy(copies()[5], path)
    assert_same_bits(whole, em.fit(line, lines.chunk(subject=6), checkpoint=path, progressbar=False))


KILLED = """
import os, signal, sys
import em_ppl as em
from em_ppl import checkpoint
from test_checkpoint import line, lines

write, left = checkpoint.Checkpoint._write, int(sys.argv[2])

def kill_in_the_middle_of_writing(self):
    global left
    left -= 1
    if not left:
        checkpoint.os.replace = os.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
    write(self)

checkpoint.SHARE = float("inf")
checkpoint.Checkpoint._write = kill_in_the_middle_of_writing
em.fit(line, lines.__wrapped__(), checkpoint=sys.argv[1], progressbar=False)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system has no SIGKILL")
def test_a_process_that_is_killed_while_it_writes_leaves_a_state_to_go_on_from(lines, tmp_path, monkeypatch):
    path, here = tmp_path / "state", os.path.dirname(__file__)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([here, *sys.path])}
    ended = subprocess.run([sys.executable, "-W", "ignore", "-c", KILLED, str(path), "5"], env=environment, check=False)
    assert ended.returncode == -signal.SIGKILL
    took, step = [], em.em.step
    monkeypatch.setattr(em.em, "step", lambda *a: took.append(1) or step(*a))
    fit = em.fit(line, lines, checkpoint=path, progressbar=False)
    assert len(took) == fit.iterations - 4  # of the fifth step nothing was left
    assert_same_bits(fit, em.fit(line, lines, progressbar=False))


def test_what_is_finished_is_not_done_again(lines, tmp_path, monkeypatch):
    fit = em.fit(line, lines, checkpoint=tmp_path / "state", progressbar=False)
    monkeypatch.setattr(em.em, "step", None)
    monkeypatch.setattr(em.uncertainty, "settled_score", None)
    monkeypatch.setattr(em.uncertainty, "glance_at", None)
    assert_same_bits(fit, em.fit(line, lines, checkpoint=tmp_path / "state", progressbar=False))


def test_a_fit_that_ran_out_of_steps_goes_on_with_more_or_another_tolerance(lines, tmp_path):
    path, whole = tmp_path / "state", em.fit(line, lines, progressbar=False)
    with pytest.warns(em.ConvergenceWarning):
        assert not em.fit(line, lines, max_iter=4, checkpoint=path, progressbar=False).converged
    assert_same_bits(whole, em.fit(line, lines, checkpoint=path, progressbar=False))
    finer = em.fit(line, lines, tol=1e-8, checkpoint=path, progressbar=False)
    assert finer.iterations > whole.iterations
    assert finer.history["change"][-1] < 1e-8


def test_an_interrupt_leaves_all_that_was_computed(lines, tmp_path, monkeypatch):
    path, score, calls = tmp_path / "state", em.uncertainty.settled_score, []

    def interrupted(*args):
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return score(*args)

    whole = em.fit(line, lines, progressbar=False)
    monkeypatch.setattr(em.uncertainty, "settled_score", interrupted)
    with pytest.warns(em.ConvergenceWarning):
        assert em.fit(line, lines, checkpoint=path, progressbar=False).settings["status"] == "interrupted"
    assert_same_bits(whole, em.fit(line, lines, checkpoint=path, progressbar=False))
    n = len(whole.group.free)
    assert len(calls) == 4 + n - 3  # three were not computed again


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"estimator": "exact"}, "estimator 'corrected, ImportanceSampling|estimator 'corrected, Quadrature"),
        ({"random_seed": 1}, "random_seed 0, where this one has 1"),
        ({"covariates": "~ age"}, "covariates"),
        ({"prior": em.GroupPrior()}, "prior 'None'"),
    ],
)
def test_the_state_of_another_fit_is_refused(lines, tmp_path, settings, says):
    path = tmp_path / "state"
    em.fit(line, lines, checkpoint=path, progressbar=False)
    before = path.read_bytes()
    with pytest.raises(ValueError, match=says):
        em.fit(line, lines, **settings, checkpoint=path, progressbar=False)
    assert path.read_bytes() == before


def test_the_state_of_other_data_is_refused(lines, tmp_path):
    path = tmp_path / "state"
    em.fit(line, lines, covariates="~ age", checkpoint=path, progressbar=False)
    other = lines.copy(deep=True)
    other["y"][3, 2] += 0.1
    for data, says in [
        (other, "at its parameters, subject 3 has a log-likelihood of"),
        (lines.isel(subject=slice(19)), "other subjects"),
        (lines.assign(age=-lines["age"]), "other covariates"),
    ]:
        with pytest.raises(ValueError, match=says):
            em.fit(line, data, covariates="~ age", checkpoint=path, progressbar=False)


@pytest.mark.parametrize("content", [b"", b"nonsense", b"PK\x03\x04 and no more"])
def test_a_file_that_is_no_checkpoint_is_refused_and_kept(lines, tmp_path, content):
    path = tmp_path / "state"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="is no checkpoint of em_ppl"):
        em.fit(line, lines, checkpoint=path, progressbar=False)
    assert path.read_bytes() == content


def test_pickled_objects_are_never_loaded(lines, tmp_path):
    class Malicious:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "harm"),)

    path = tmp_path / "state"
    with path.open("wb") as file:
        np.savez(file, about=np.array([Malicious()], dtype=object))
    with pytest.raises(ValueError, match="is no checkpoint of em_ppl"):
        em.fit(line, lines, checkpoint=path, progressbar=False)
    assert not (tmp_path / "harm").exists()


def test_a_path_that_cannot_be_is_refused_before_anything_is_computed(lines, tmp_path):
    for path in (tmp_path, tmp_path / "none" / "state"):
        with pytest.raises(ValueError, match="must name a file in a folder that exists"):
            em.fit(line, lines, checkpoint=path, progressbar=False)


def test_a_full_disk_stops_no_fit(lines, tmp_path, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    with pytest.warns(RuntimeWarning, match=r"cannot be written .*No space left") as caught:
        fit = em.fit(line, lines, checkpoint=tmp_path / "state", progressbar=False)
    assert len(caught) == 1
    assert fit.converged
    assert os.listdir(tmp_path) == []


@pytest.mark.filterwarnings("ignore::em_ppl.ConvergenceWarning")
def test_who_was_chosen_near_the_end_stays_chosen(tmp_path, monkeypatch):
    """When the fit goes on nobody is let off a second time."""
    data, path = simulated_learners(30, n_trials=60, random_seed=14), tmp_path / "state"
    kept, resumed, keep, resume = [], [], module.Checkpoint.keep, module.Checkpoint.resume
    monkeypatch.setattr(module.Checkpoint, "keep", lambda self, state: kept.append(state) or keep(self, state))
    monkeypatch.setattr(
        module.Checkpoint, "resume", lambda self, *given: resumed.append(resume(self, *given)) or resumed[-1]
    )
    for _ in range(2):
        em.fit(rescorla_wagner, data, checkpoint=path, progressbar=False)
    assert [kept[0].scheme.chosen, kept[-1].scheme.chosen] == [False, True]
    assert resumed[0] is None
    assert resumed[1].scheme.chosen
