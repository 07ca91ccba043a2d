"""Files are whole or not there."""

import os
import subprocess
import sys

import pytest

from em_ppl.files import replacing


def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(IsADirectoryError), replacing(path) as part:
        part.write_text(f"half of the new {tmp_path.read_text()}")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["file"]
    with replacing(path) as part:
        part.write_text("new")
    assert path.read_text() == "new"
    assert os.listdir(tmp_path) == ["file"]


FULL = """
import os, resource, sys
import em_ppl as em, pymc as pm

@em.subject_model(level=em.Real())
def normal(level, y):
    pm.Normal("y", level, 1.0, observed=y)

fit = em.fit(normal, em.from_subjects([{"y": [a / 2, a / 2 + 1]} for a in range(9)]), progressbar=False)
path = fit.save(sys.argv[1])
before = path.read_bytes()
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))  # as if the disk had no more room
try:
    fit.save(path)
except OSError as error:
    assert "bytes are needed" in str(error), error
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == [path.name]
    print("refused")
"""


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="this system cannot reserve room")
def test_a_disk_without_room_is_an_error_that_leaves_the_old_file(tmp_path):
    """In a process of its own: HDF5 itself would end it."""
    command = [sys.executable, "-W", "ignore", "-c", FULL, str(tmp_path / "fit.nc")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == "refused\n"
