"""Whole files, locks, JSON fields."""

import os
import pickle

import pytest

from stormpsr_jax.base import files
from stormpsr_jax.base.errors import first_of, lines_of, raise_all


def test_open_locked_one_has_it_and_links_are_refused(tmp_path):
    path = tmp_path / "lock"
    path.write_text("kept")
    with files.open_locked(path) as held:
        held.seek(0)
        assert held.read() == b"kept"
        assert files.open_locked(path) is None
    with files.open_locked(path):
        pass
    os.symlink(path, tmp_path / "link")
    with pytest.raises(OSError, match="link") as caught:
        files.open_locked(tmp_path / "link")
    assert caught.value.filename == str(tmp_path / "link")


def test_read_text_errors_what_may_never_end_is_not_read(tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe", "/dev/zero", "/dev/null"):
        with pytest.raises(ValueError, match="is not a regular file"):
            files.read_text(path)
    monkeypatch.setattr(files, "MAX_TEXT", 10)
    (tmp_path / "a").write_text("0123456789")
    assert files.read_text(tmp_path / "a") == "0123456789"
    (tmp_path / "a").write_text("0123456789x")
    with pytest.raises(ValueError, match="larger than 10 bytes"):
        files.read_text(tmp_path / "a")


def test_raise_all_errors_that_are_only_counted_are_not_lost():
    many = [str(i) for i in range(25)]
    with pytest.raises(ValueError, match=r"0\n1\n(?s:.*)and 5 more errors$") as caught:
        raise_all(many)
    assert lines_of(pickle.loads(pickle.dumps(caught.value))) == many
    assert lines_of(ValueError("one")) == ["one"]
    assert first_of(caught.value, "f") == [*"01234", "f: 20 more errors"]
    assert first_of(ValueError("one"), "f") == ["one"]


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("", "is empty"),
        (".hidden", "begins with a dot"),
        ("a/b", "has a / or"),
        ("a\\b", "has a / or"),
        ("a\nb", "has control characters"),
        ("a\udcffb", "has control characters in it, or is not UTF-8"),
        ("a\u3000", "has white space in front or behind"),
        ("a\u202egpj.exe", "has control characters"),
        ("ü" * 101, "has 202 bytes, more than 200"),
    ],
)
def test_check_name_errors_say_what_is_wrong_on_one_line(name, what):
    with pytest.raises(ValueError, match=rf"^splits.csv: line 2: name '.*': {what}.*; rename it$"):
        files.check_name(name, "splits.csv: line 2")
