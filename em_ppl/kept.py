"""What takes long to work out and is the same in every process: on disk, beside what PyTensor compiles."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import pytensor

from em_ppl.files import replacing

__all__ = ["digest", "folder", "kept"]

Result = TypeVar("Result")


def folder() -> Path:
    """Where it lies; made, if it is not there."""
    path = Path(pytensor.config.base_compiledir) / "em_ppl"
    path.mkdir(parents=True, exist_ok=True)
    return path


def digest(*about: object) -> str:
    """Return a short name for what the ``repr`` of these says."""
    return hashlib.sha256(repr(about).encode()).hexdigest()[:32]


def kept(name: str, make: Callable[[], Result], *, worth: Callable[[Result], bool] = lambda made: True) -> Result:
    """Return what is kept under a name; if that is nothing, or cannot be read, make it, and keep it if it is worth it.

    The name must say all that the result hangs on, versions of libraries included (see `digest`).
    """
    file = folder() / f"{name}.pickle"
    with suppress(Exception):  # whatever a broken file makes pickle raise
        made: Result = pickle.loads(file.read_bytes())
        return made
    made = make()
    with suppress(OSError):  # a full disk, or one that is only read
        if worth(made):
            with replacing(file) as part:
                part.write_bytes(pickle.dumps(made))
    return made
