"""Files that are whole or not there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["replacing"]


@contextmanager
def replacing(path: str | os.PathLike[str], size: int = 0) -> Iterator[Path]:
    """Give a file to write, which takes the name `path` once it is whole and on the disk.

    Whatever stops the writing (an error, a full disk, a kill, a power cut) leaves an earlier file as it was.

    Parameters
    ----------
    path : path
        The file's name.
    size : int
        Bytes for which there must be room before anything is written: HDF5 does not survive a disk that becomes full.

    Raises
    ------
    OSError
        If there is no room.
    """
    target = Path(path)
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        if size and hasattr(os, "posix_fallocate"):
            _reserve(part, size)
        yield part
        with part.open("rb+") as written:
            os.fsync(written.fileno())
        os.replace(part, target)
    finally:
        part.unlink(missing_ok=True)


def _reserve(part: Path, size: int) -> None:
    with part.open("wb") as empty:
        try:
            os.posix_fallocate(empty.fileno(), 0, size)
        except OSError as error:
            raise OSError(error.errno, f"{error.strerror}: {size:,} bytes are needed", str(part.parent)) from error
