"""The documentation keeps its word: the Python in it runs, and what it names is there."""

import re
from pathlib import Path

import pytest

import em_ppl as em

ROOT = Path(__file__).parents[1]
PAGES = sorted((ROOT / "docs").rglob("*.md"))
BLOCK = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)


def blocks(page):
    """Return Python to run, at its line of the page; a block that begins with a comment ``not run`` is left out."""
    text = page.read_text()
    for block in BLOCK.finditer(text):
        if not block[1].startswith("# not run"):
            yield "\n" * text[: block.start(1)].count("\n") + block[1]


@pytest.mark.long
@pytest.mark.parametrize("page", [p for p in PAGES if any(blocks(p))], ids=lambda page: page.stem)
def test_python_of_a_page_runs(page, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    names = {"__name__": page.stem}
    for block in blocks(page):
        exec(compile(block, page, "exec"), names)


@pytest.mark.parametrize("page", [ROOT / "README.md", *PAGES], ids=lambda page: page.stem)
def test_names_of_a_page_are_there(page):
    named = set(re.findall(r"\bem\.(?!py\b)(\w+)", page.read_text()))
    assert sorted(name for name in named if not hasattr(em, name)) == []


def test_every_public_name_is_in_the_reference():
    pages = "\n".join(page.read_text() for page in (ROOT / "docs" / "api").glob("*.md"))
    assert sorted(re.findall(r"^::: em_ppl\.(?:\w+\.)?(\w+)$", pages, re.MULTILINE)) == sorted(em.__all__)
