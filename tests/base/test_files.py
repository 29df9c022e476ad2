"""Whole files, locks, JSON fields."""

import os
import pickle
from typing import Annotated

import msgspec
import pytest

from stormpsr_jax.base import files, memory
from stormpsr_jax.base.errors import first_of, for_each, lines_of, raise_all
from stormpsr_jax.psr.files import csvfile


def test_replacing_the_old_content_stays_until_the_new_is_whole(tmp_path):
    path = tmp_path / "a.json"
    files.write_json(path, {"x": 1})

    def fail_halfway():
        with files.replacing(path) as part:
            part.write_text("{half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_halfway()
    assert files.read_json(path) == {"x": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_replacing_leaves_devices_and_pipes_as_they_are(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="is not a regular file"):
        files.write_text(tmp_path / "pipe", "")
    assert (tmp_path / "pipe").is_fifo()


def test_write_json_errors_not_a_number(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        files.write_json(tmp_path / "a.json", float("nan"))
    assert not list(tmp_path.iterdir())


def test_open_locked_one_has_it_and_links_and_pipes_are_refused(tmp_path):
    path = tmp_path / "lock"
    path.write_text("kept")
    with files.open_locked(path, wait=False) as held:
        held.seek(0)
        assert held.read() == b"kept"
        assert files.open_locked(path, wait=False) is None
    with files.open_locked(path, wait=False):
        pass
    os.symlink(path, tmp_path / "link")
    os.mkfifo(tmp_path / "pipe")
    for name, message in (("link", "link"), ("pipe", "is not a regular file; remove it")):
        with pytest.raises(OSError, match=message) as caught:
            files.open_locked(tmp_path / name, wait=False)
        assert caught.value.filename == str(tmp_path / name)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ('{"a": 1, "a": 2}', "'a' is given twice"),
        ('{"a": NaN}', "NaN is not a number"),
        ('{"a": \n', "line 2: not JSON"),
        ("[" * 100_000, "nested too deeply"),
    ],
)
def test_read_json_errors_name_file_and_place(tmp_path, text, what):
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=what) as caught:
        files.read_json(path)
    assert str(path) in str(caught.value)


def test_field_errors_missing_and_wrong_type():
    data = {"n": 3, "flag": True, "text": "x" * 100}
    assert files.field(data, "n", int, "f") == 3
    assert files.field(data, "flag", bool, "f") is True
    with pytest.raises(ValueError, match="f: m: is missing"):
        files.field(data, "m", int, "f")
    with pytest.raises(ValueError, match="f: flag: True has the wrong type"):
        files.field(data, "flag", (int, float), "f")
    with pytest.raises(ValueError, match=r"f: text: 'x{37}…' has the wrong type"):
        files.field(data, "text", int, "f")
    with pytest.raises(ValueError, match="is not an object"):
        files.field([], "m", int, "f")


def test_number_errors_not_finite_or_outside():
    assert files.number(2, "f") == 2.0
    for value in (float("nan"), float("inf"), True, "2", 10**400):
        with pytest.raises(ValueError, match="is not a number"):
            files.number(value, "f")
    with pytest.raises(ValueError, match="2 is not in 0…1"):
        files.number(2, "f", 0, 1)


def test_read_text_errors_what_may_never_end_is_not_read(tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", "/dev/zero", "/dev/null"):
        with pytest.raises(ValueError, match="is not a regular file"):
            files.read_text(path)
    with pytest.raises(ValueError, match="cannot be read"):
        files.read_text(tmp_path)
    monkeypatch.setattr(files, "MAX_TEXT", 10)
    (tmp_path / "a").write_text("0123456789")
    assert files.read_text(tmp_path / "a") == "0123456789"
    (tmp_path / "a").write_text("0123456789x")
    with pytest.raises(ValueError, match="larger than 10 bytes"):
        files.read_text(tmp_path / "a")


def test_raise_all_mistakes_that_are_only_counted_are_not_lost():
    many = [str(i) for i in range(25)]
    with pytest.raises(ValueError, match=r"0\n1\n(?s:.*)and 5 more mistakes$") as caught:
        raise_all(many)
    assert lines_of(pickle.loads(pickle.dumps(caught.value))) == many
    assert lines_of(ValueError("one")) == ["one"]
    assert first_of(caught.value, "f") == [*"01234", "f: 20 more mistakes"]
    assert first_of(ValueError("one"), "f") == ["one"]


def test_for_each_results_or_all_mistakes():
    assert for_each([("1", 2), ("11", 2)], int) == [1, 3]
    with pytest.raises(ValueError, match=r"'x'.*\n.*'y'") as caught:
        for_each([("x",), ("1",), ("y",)], int)
    assert len(lines_of(caught.value)) == 2


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


def test_replacing_never_writes_through_a_link(tmp_path):
    (tmp_path / "other").write_text("as it was")
    (tmp_path / "file.part").symlink_to(tmp_path / "other")
    files.write_text(tmp_path / "file", "new")
    assert (tmp_path / "other").read_text() == "as it was"
    assert (tmp_path / "file").read_text() == "new"
    assert not (tmp_path / "file").is_symlink()


def test_a_whole_number_that_programs_do_not_read_alike_is_refused():
    assert files.field({"id": 2**53}, "id", int, "a.json") == 2**53
    assert files.field({"id": 2**61}, "id", (int, float), "a.json") == 2**61
    for value in (2**61 - 1, -(2**53) - 1):
        with pytest.raises(ValueError, match=r"a\.json: id: .* is beyond"):
            files.field({"id": value}, "id", (int, str), "a.json")


def test_what_would_not_fit_into_memory_is_not_parsed(tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "available_bytes", lambda: 2**20)
    for name, unit, read in (
        ("a.csv", "a,1\n", csvfile.read_rows),
        ("b.csv", "\r", csvfile.read_rows),
        ("c.json", "[],", files.read_json),
        ("d.json", '{"":{', files.read_json),
    ):
        path = tmp_path / name
        path.write_text(unit * 10_000)
        with pytest.raises(ValueError, match=rf"^{path}: what is in it needs 0.0 GiB, 0.0 GiB are"):
            read(path)
    (tmp_path / "e.csv").write_text("a,1\n" * 1000)
    assert len(csvfile.read_rows(tmp_path / "e.csv")) == 1000


def test_after_a_thousand_mistakes_nobody_looks_for_more():
    looked = 0

    def fail(i):
        nonlocal looked
        looked += 1
        raise ValueError(f"mistake {i}")

    with pytest.raises(ValueError, match=r"mistake 19\nand at least 980 more mistakes$"):
        for_each([(i,) for i in range(5000)], fail)
    assert looked == 1000


class Inner(msgspec.Struct, forbid_unknown_fields=True):
    share: Annotated[float, msgspec.Meta(ge=0, le=1)]


class Outer(msgspec.Struct):
    count: int
    inner: list[Inner]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"count": 1.0}, "a.json: count: expected int, got float"),
        ({"inner": [{"share": 0.5}, {}]}, "a.json: inner: [1]: share: is missing"),
        ({"inner": [{"share": 2}]}, "a.json: inner: [0]: share: expected float <= 1.0"),
        ({"inner": [{"share": 10**400}]}, "a.json: inner: [0]: share: number out of range"),
        (
            {"inner": [{"share": 1, "more\n": 1}]},
            "a.json: inner: [0]: 'more\\n': is no field that is known",
        ),
    ],
)
def test_fit_errors_name_file_and_field(changes, message):
    data = {"count": 3, "inner": [{"share": 1}], "other": "passed over"}
    assert files.fit(data, Outer, "a.json") == Outer(3, [Inner(1.0)])
    with pytest.raises(ValueError) as caught:
        files.fit(data | changes, Outer, "a.json")
    assert str(caught.value) == message
