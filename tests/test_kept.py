"""What is kept on disk from one process to the next."""

import pytest

from em_ppl import kept as module
from em_ppl.kept import digest, kept


@pytest.fixture
def made(tmp_path, monkeypatch):
    """Count what is made."""
    monkeypatch.setattr(module, "folder", lambda: tmp_path)
    return []


def making(made, result):
    return lambda: made.append(result) or result


def test_what_was_made_once_is_read(made):
    assert [kept("one", making(made, (1, "a"))) for _ in range(3)] == [(1, "a")] * 3
    assert kept("other", making(made, 2)) == 2
    assert made == [(1, "a"), 2]


@pytest.mark.parametrize("broken", [b"", b"nonsense", b"\x80\x04cnowhere\nnothing\n."])
def test_what_cannot_be_read_is_made_again(made, tmp_path, broken):
    kept("one", making(made, 1))
    [file] = tmp_path.iterdir()
    file.write_bytes(broken)
    assert kept("one", making(made, 1)) == kept("one", making(made, 1)) == 1
    assert made == [1, 1]


def test_what_is_not_worth_it_is_not_kept(made, tmp_path):
    for _ in range(2):
        kept("one", making(made, 1), worth=lambda result: result != 1)
    assert made == [1, 1]
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written_costs_time_only(made, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "folder", lambda: tmp_path / "nowhere")
    assert [kept("one", making(made, 1)) for _ in range(2)] == [1, 1]
    assert made == [1, 1]


def test_digests_tell_apart():
    assert digest(1, "a") == digest(1, "a")
    assert len({digest(1, "a"), digest("1a"), digest(1, ["a"]), digest("a", 1), digest(True, "a")}) == 5
