"""Benchmarks are run by hand, when there is time for it; here, that they can be."""

import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).parent / "benchmarks"


def test_every_benchmark_finds_what_it_imports():
    names = sorted(file.stem for file in FOLDER.glob("*.py") if file.stem != "__main__")
    assert "speed" in names
    code = f"import {', '.join(names)}"
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], cwd=FOLDER, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_table_of_all_of_them_can_be_asked_for():
    done = subprocess.run([sys.executable, "-W", "ignore", FOLDER, "--help"], capture_output=True, text=True)
    assert "one_core" in done.stdout, done.stderr
