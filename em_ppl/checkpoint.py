"""Where EM stands between two steps; kept in a file, a fit that was stopped goes on from there.

The file is NumPy's npz, read without pickle: it holds numbers and text, never code.
"""

from __future__ import annotations

import json
import os
import time
import warnings
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from types import TracebackType
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from em_ppl.blocks import Likelihoods
from em_ppl.compiled import CompiledModel
from em_ppl.data import label_text
from em_ppl.distributions import Normal
from em_ppl.e_step import Posteriors, Scheme
from em_ppl.files import replacing
from em_ppl.functions import lines_of_this_package
from em_ppl.group import FloatArray, Group
from em_ppl.m_step import log_prior
from em_ppl.modes import LaplaceApproximation, Start
from em_ppl.start import WIDE_SEARCHES, MakeModel

__all__ = ["Checkpoint", "State", "Step"]

SHARE = 0.1  # of a fit's time may go into saving
SAME = 1e-6  # log-likelihood by which the same data and model may differ between machines
GROUP = [f.name for f in fields(Group) if f.name != "model"]

Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Step:
    """A step of EM: a group, every subject's posterior under it, and how these were found."""

    group: Group
    subjects: Posteriors
    scheme: Scheme


@dataclass(frozen=True)
class State:
    """All that EM knows between two steps: from here it always goes on to the same bits.

    Attributes
    ----------
    group : Group
        That is to be tried next.
    start : Start
        Where the search for subjects' modes begins.
    scheme : Scheme
        How expectations will be taken.
    last : Step or None
        The step that was taken last.
    log_evidence, change : tuple of float
        Of every step so far.
    plain : Group or None
        What an unaccelerated step would have come to; None if that cannot be compared.
    points : tuple
        What the acceleration remembers.
    information : ndarray or None
        About the group's free numbers, when Newton's method last asked for it; see `newton_step`.
    careful_until : int
        The first step that may be longer than EM's own again.
    wide_searches : int
        How often EM may still end, find a better mode for somebody, and go on.
    several_modes : ndarray of bool or None
        Who has a second mode that is about as probable, where that has been looked for.
    status : {"max_iter", "converged", "stalled", "interrupted"}
        Why EM ended, if it did.
    """

    group: Group
    start: Start
    scheme: Scheme
    last: Step | None = None
    log_evidence: tuple[float, ...] = ()
    change: tuple[float, ...] = ()
    plain: Group | None = None
    points: tuple[tuple[FloatArray, FloatArray], ...] = ()
    information: FloatArray | None = None
    careful_until: int = 0
    wide_searches: int = WIDE_SEARCHES
    several_modes: NDArray[np.bool_] | None = None
    status: str = "max_iter"

    @property
    def found(self) -> Step:
        """The step that was taken last; there must be one."""
        assert self.last is not None
        return self.last


class Checkpoint:
    """A file that holds the state of a fit; nothing, if there is no path.

    Parameters
    ----------
    path : path or None
        Where it is, or will be.
    settings : mapping
        What makes the fit this one, in words or numbers that JSON can write.
    tol : float
        At which EM ends.

    Raises
    ------
    ValueError
        If the path cannot be a file's.
    """

    def __init__(self, path: str | os.PathLike[str] | None, settings: Mapping[str, Any], tol: float) -> None:
        self._path = None if path is None else Path(path)
        if self._path is not None and (self._path.is_dir() or not self._path.parent.is_dir()):
            raise ValueError(f"checkpoint={os.fspath(self._path)!r} must name a file in a folder that exists.")
        self._settings: dict[str, Any] = json.loads(json.dumps(settings))
        self._tol, self._labels = tol, np.array([], dtype=str)
        self._state: State | None = None
        self._results: list[tuple[NDArray[Any], ...]] = []  # of what came after EM
        self._written, self._seconds, self._saved_at, self._warned = True, 0.0, time.perf_counter(), False

    def __enter__(self) -> Checkpoint:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._written:
            self._write()

    # --- while the fit runs -------------------------------------------------------------------------------------------

    def keep(self, state: State) -> None:
        """Keep a new state; what was remembered of an older one is forgotten."""
        self._state, self._results = state, []
        self._save_if_due()

    def remembering(self, compiled: Likelihoods) -> Likelihoods:
        """Return the same likelihoods, whose `map` does nothing twice, not even in another process."""
        return compiled if self._path is None else cast(Likelihoods, Remembering(compiled, self))

    def result(self, number: int, compute: Callable[[], Any]) -> Any:
        """Return what is computed after EM in this place, an array or a tuple of arrays; or has been before."""
        if number == len(self._results):
            values = compute()
            self._results.append(values if isinstance(values, tuple) else (values,))
            self._save_if_due()
        values = self._results[number]
        return values if len(values) > 1 else values[0]

    def _save_if_due(self) -> None:
        self._written = self._path is None
        if not self._written and (time.perf_counter() - self._saved_at) * SHARE >= self._seconds:
            self._write()

    def _write(self) -> None:
        assert self._path is not None
        assert self._state is not None
        started = time.perf_counter()
        arrays = _pack(self._state) | {"labels": self._labels, "about": np.array(json.dumps(self._about))}
        arrays |= {f"result.{i}.{j}": part for i, parts in enumerate(self._results) for j, part in enumerate(parts)}
        try:
            with replacing(self._path) as part, part.open("wb") as file:
                np.savez(file, allow_pickle=False, **arrays)
        except OSError as error:
            if not self._warned:
                message = f"checkpoint {self._path} cannot be written ({error}): the fit goes on, and tries again."
                warnings.warn(message, RuntimeWarning, stacklevel=lines_of_this_package())
            self._warned = True
        self._written, self._saved_at = True, time.perf_counter()
        self._seconds = self._saved_at - started

    @property
    def _about(self) -> dict[str, Any]:
        return {"em_ppl": "checkpoint", "tol": self._tol, "settings": self._settings}

    # --- when it goes on ----------------------------------------------------------------------------------------------

    def resume(self, compiled: Likelihoods, scheme: Scheme, make_model: MakeModel) -> State | None:
        """Return the state that the file holds, None if there is no file.

        Parameters
        ----------
        compiled : CompiledModel or Blocks
            The likelihoods.
        scheme : Scheme
            What the fit was asked for.
        make_model : callable
            Makes what the group can be, given what parameters are measured in.

        Raises
        ------
        ValueError
            If the file is no checkpoint, or that of another fit.
        """
        if self._path is None:
            return None
        self._labels = np.array([label_text(label) for label in compiled.data["subject"].values])
        if not self._path.exists():
            return None
        arrays, about = self._read(self._path)
        self._check_settings(about["settings"], arrays["labels"])
        try:
            state = _unpack(arrays, scheme, make_model)
        except KeyError as error:
            raise self._foreign() from error
        model = state.group.model
        if not (np.array_equal(arrays["design"], model.design) and np.array_equal(arrays["level"], model.level)):
            raise self._other("other covariates")
        if not np.isclose(arrays["log_prior"], log_prior(state.found.group), rtol=SAME, atol=SAME):
            raise self._other("other priors of the group")
        self._check_likelihood(compiled, state)
        if about["tol"] != self._tol:
            state = replace(state, status="max_iter")
        self._state, self._results = state, _results(arrays)
        return state

    def _read(self, path: Path) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """Read a file that may be anything."""
        try:
            with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
            about = json.loads(str(arrays["about"]))
            if about["em_ppl"] != "checkpoint":
                raise ValueError(about)
        except (OSError, ValueError, EOFError, KeyError, TypeError, AttributeError, zipfile.BadZipFile) as error:
            raise self._foreign() from error
        return arrays, about

    def _check_settings(self, settings: Mapping[str, Any], labels: NDArray[Any]) -> None:
        for name, value in self._settings.items():
            if settings.get(name) != value:
                raise self._other(f"{name} {settings.get(name)!r}, where this one has {value!r}")
        if not np.array_equal(labels, self._labels):
            raise self._other(f"other subjects ({len(labels)}, the first {labels[0]})")

    def _check_likelihood(self, compiled: Likelihoods, state: State) -> None:
        """Compare every subject's log-likelihood: it is the same if data and model are."""
        group, laplace = state.found.group, state.found.subjects.laplace
        now = compiled.map(_log_likelihood, group, laplace.mode)
        differs = np.flatnonzero(~np.isclose(now, laplace.log_likelihood, rtol=SAME, atol=SAME))
        if differs.size:
            i = int(differs[0])
            raise self._other(
                f"other data or another likelihood: at its parameters, subject {self._labels[i]} has a log-likelihood "
                f"of {now[i]:.6g}, and had {laplace.log_likelihood[i]:.6g}"
            )

    def _foreign(self) -> ValueError:
        return ValueError(f"{self._path} is no checkpoint of em_ppl: delete it, or give another path.")

    def _other(self, what: str) -> ValueError:
        return ValueError(f"{self._path} is the checkpoint of a fit with {what}: delete it, or give another path.")


class Remembering:
    """Likelihoods that ask a checkpoint first what `map` returns."""

    def __init__(self, compiled: Likelihoods, checkpoint: Checkpoint) -> None:
        self._compiled, self._checkpoint, self._calls = compiled, checkpoint, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._compiled, name)

    def map(self, work: Callable[..., Any], *arguments: Any) -> Any:
        """See `CompiledModel.map`."""
        self._calls += 1
        return self._checkpoint.result(self._calls - 1, lambda: self._compiled.map(work, *arguments))


def _log_likelihood(compiled: CompiledModel, group: Group, mode: FloatArray) -> FloatArray:
    return compiled.value_and_gradient(group.complete(mode))[0]


# --- a state as named arrays, and back --------------------------------------------------------------------------------


def _pack(state: State) -> dict[str, NDArray[Any]]:
    last, points = state.found, state.points
    own: dict[str, Any] = {
        "unit": state.group.model.unit,
        "design": state.group.model.design,
        "level": state.group.model.level,
        "log_prior": log_prior(last.group),
        "estimator": state.scheme.estimator,
        "hard": state.scheme.hard,
        "last_hard": last.scheme.hard,
        "chosen": state.scheme.chosen,
        "log_evidence": state.log_evidence,
        "change": state.change,
        "points": np.array(points) if points else np.empty((0, 2, len(state.group.units))),
        "information": state.information,
        "careful_until": state.careful_until,
        "wide_searches": state.wide_searches,
        "several_modes": state.several_modes,
        "status": state.status,
    }
    for name, group in {"group": state.group, "plain": state.plain, "last": last.group}.items():
        own |= {} if group is None else {f"{name}.{part}": getattr(group, part) for part in GROUP}
    own |= {f"start.{f.name}": getattr(state.start, f.name) for f in fields(Start)}
    own |= {f"laplace.{f.name}": getattr(last.subjects.laplace, f.name) for f in fields(LaplaceApproximation)}
    own |= {f"subjects.{f.name}": getattr(last.subjects, f.name) for f in fields(Posteriors) if f.name != "laplace"}
    return {name: np.asarray(value) for name, value in own.items() if value is not None}


def _unpack(arrays: Arrays, scheme: Scheme, make_model: MakeModel) -> State:
    model = make_model(arrays["unit"])
    if str(arrays["estimator"]) != scheme.estimator:  # the corrected beginning of exact EM
        model, scheme = replace(model, distribution=Normal()), replace(scheme, estimator="corrected")

    def group(name: str) -> Group:
        return Group(model, *(arrays[f"{name}.{part}"] for part in GROUP))

    if scheme.estimator == "exact" or arrays["hard"].size:
        scheme = scheme.laid(group("last"))
    laplace = LaplaceApproximation(**{f.name: arrays[f"laplace.{f.name}"] for f in fields(LaplaceApproximation)})
    rest: dict[str, Any] = {f.name: arrays.get(f"subjects.{f.name}") for f in fields(Posteriors) if f.name != "laplace"}
    return State(
        group=group("group"),
        start=Start(arrays["start.mode"], arrays["start.curvature"], arrays.get("start.slope")),
        scheme=replace(scheme, hard=arrays["hard"], chosen=bool(arrays["chosen"])),
        last=Step(group("last"), Posteriors(laplace, **rest), replace(scheme, hard=arrays["last_hard"])),
        log_evidence=tuple(arrays["log_evidence"].tolist()),
        change=tuple(arrays["change"].tolist()),
        plain=group("plain") if "plain.shared" in arrays else None,
        points=tuple((point, image) for point, image in arrays["points"]),
        information=arrays.get("information"),
        careful_until=int(arrays["careful_until"]),
        wide_searches=int(arrays["wide_searches"]),
        several_modes=arrays.get("several_modes"),
        status=str(arrays["status"]),
    )


def _results(arrays: Arrays) -> list[tuple[NDArray[Any], ...]]:
    """Return what was computed after EM, in order."""
    found: dict[int, list[NDArray[Any]]] = {}
    for name in sorted(name for name in arrays if name.startswith("result.")):
        found.setdefault(int(name.split(".")[1]), []).append(arrays[name])
    return [tuple(found[i]) for i in range(len(found))]
