"""Zip files: equal to the standard library, zip64, parts, and ones that are refused in one line."""

import pickle
import random
import struct
import zipfile
from pathlib import Path

import pytest

from stormpsr_jax.base import zips
from stormpsr_jax.base.trees import Zip, open_trees, zip_of


def write(path: Path, members: dict[str, bytes], **options) -> Path:
    with zipfile.ZipFile(path, "w", **options) as file:
        for name, content in members.items():
            info = zipfile.ZipInfo(name)  # of 1980, as today's date may be any bytes
            file.writestr(info, content, compress_type=file.compression)
    return path


def contents(file: Zip) -> dict[str, bytes]:
    found = {}
    for name in file.archive.members:
        with file.open(name, 2**20)[0] as member:
            found[name] = member.read()
    return found


@pytest.mark.parametrize("seed", range(6))
def test_files_are_those_that_the_standard_library_finds(tmp_path, seed):
    """In any order, packed or not, with notes, extra fields and names of all alphabets."""
    rng = random.Random(seed)
    folders = ["", "a/", "a/b/", "a/b.c/", "Größe/", "a b/x/"]
    names = [
        rng.choice(folders) + rng.choice(["", "é", ".", "日本 "]) + f"{i:03d}.jpg"
        for i in range(40)
    ]
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as file:
        file.comment = b"PK" * rng.randrange(100)
        for name in names:
            info = zipfile.ZipInfo(name)
            info.compress_type = rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))
            info.comment, info.extra = rng.choice((b"", b"note")), rng.choice((b"", b"UT\1\0x"))
            file.writestr(info, rng.randbytes(rng.randrange(300)))
        file.writestr("empty/", b"")
        file.writestr("__MACOSX/a.jpg", b"")
    if seed % 2:  # a program in front, that unpacks it
        path.write_bytes(b"#!/bin/sh\n" + path.read_bytes())
    with zipfile.ZipFile(path) as file:
        expected = {name: file.read(name) for name in names}
    found = pickle.loads(pickle.dumps(zip_of(path)))
    assert contents(found) == expected
    assert "empty" in found.entries("")[0]
    assert found.exists(names[0])
    assert not found.exists("a/none.jpg")


def test_files_beyond_4_gib_are_read(tmp_path):
    path = tmp_path / "large.zip"
    with path.open("wb") as disk:
        disk.seek(5 * 2**30)  # nothing is written up to there
        with zipfile.ZipFile(disk, "w") as file:
            file.writestr("rec/1.jpg", b"one")
    assert contents(zip_of(path)) == {"rec/1.jpg": b"one"}


# --- In parts -------------------------------------------------------------------------------------


def cut(path: Path, count: int) -> list[Path]:
    """Replaces a zip file by its parts."""
    data = path.read_bytes()
    size = -(-len(data) // count)
    parts = [path.with_name(f"{path.name}.{i + 1:03d}") for i in range(count)]
    for i, part in enumerate(parts):
        part.write_bytes(data[i * size : (i + 1) * size])
    path.unlink()
    return parts


@pytest.mark.parametrize("count", [2, 40])
def test_parts_are_read_as_one_file(tmp_path, count):
    """Of 40, each ends within a file or an entry."""
    members = {f"images/{i}.png": bytes([i]) * 50 for i in range(20)}
    parts = cut(write(tmp_path / "x.zip", members), count)
    for found in (zip_of(parts[-1]), open_trees(tmp_path)[1]):
        assert contents(found) == members
        assert found.show("images/3.png") == f"{tmp_path}/x.zip/images/3.png"
    write(tmp_path / "x.zip", {"joined.png": b""})
    _, found = open_trees(tmp_path)
    assert [*found.archive.members] == ["joined.png"]


def test_parts_missing_or_in_another_order_are_one_line(tmp_path):
    members = {f"images/{i}.png": bytes([i]) * 500 for i in range(9)}
    first, second, third = cut(write(tmp_path / "x.zip", members), 3)
    there = {part: part.read_bytes() for part in (first, second, third)}
    whole = r"x\.zip: not a whole zip file .*last of which here is x\.zip\.00%d, one is missing"
    for changes, message in (
        ({first: None}, r"x\.zip\.001 is missing, x\.zip\.002 is there: they are parts of one zip"),
        ({second: None}, r"x\.zip\.002 is missing, x\.zip\.003 is there"),
        ({third: None}, whole % 2),
        ({first: there[third], third: there[first]}, r"x\.zip"),
        ({first: there[second], second: there[first]}, "cannot be unpacked"),
    ):
        for part, data in (there | changes).items():
            part.unlink(missing_ok=True)
            if data is not None:
                part.write_bytes(data)
        with pytest.raises(ValueError, match=message) as raised:
            contents(open_trees(tmp_path)[1])
        assert "\n" not in str(raised.value)


# --- Refused --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "message"),
    [
        *((name, "leads out of") for name in (b"../../passwd", b"/etc/passwd", b"C:/windows/x")),
        *((name, "leads out of") for name in (b"a/../../b", b"..\\..\\x.jpg")),
        *((name, "control characters") for name in (b"a\0b.jpg", b"a/\x1b[2J", b"\xc2\x85/1.jpg")),
        (b"d/" * 65 + b"x.jpg", "nested more than 64 deep"),
        (b"a" * 2000, "paths of more than 1,024 characters"),
        (b"caf\xe9/00001.jpg", "not a whole zip file .*utf-8"),
        (b"good/1.jpg", "good/1.jpg: is in the zip file twice"),
    ],
)
def test_a_zip_file_with_such_a_name_is_refused(tmp_path, name, message):
    """With this name as it is; zipfile itself would clean it up."""
    path = write(tmp_path / "a.zip", {"good/1.jpg": b"", "~" * len(name): b"content"})
    path.write_bytes(path.read_bytes().replace(b"~" * len(name), name))
    with pytest.raises(ValueError, match=rf"a\.zip.*{message}") as raised:
        zip_of(path)
    assert str(raised.value).isprintable()
    assert len(str(raised.value)) < 300 + len(str(tmp_path))


def test_a_file_that_is_a_link_or_unfolds_or_lies_is_not_read(tmp_path):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        link = zipfile.ZipInfo("link.csv")
        link.external_attr = 0o120777 << 16
        file.writestr(link, "/etc/passwd")
        file.writestr("large.csv", bytes(10**6))
    found = zip_of(path)
    for name, message in (("link.csv", "is a link"), ("large.csv", "more than 20 times as many")):
        with pytest.raises(ValueError, match=rf"a\.zip/{name}: .*{message}"):
            found.open(name, 10**6 - 1)
    path.write_bytes(path.read_bytes().replace(struct.pack("<L", 10**6), struct.pack("<L", 10)))
    with (
        pytest.raises(ValueError, match=r"large\.csv: cannot be unpacked"),
        zips.read_errors(found.show("large.csv")),
    ):
        found.open("large.csv", 2**20)[0].read()


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({f"{i}.csv": b"" for i in range(4)}, "a.zip: 4 files of 0 bytes are wanted .* 3 files"),
        ({f"{i}.csv": bytes(2**21) for i in range(3)}, "6,291,456 bytes, more than 20 times"),
        ({"a.csv": random.Random(0).randbytes(2**20 + 1)}, "1,048,577 bytes .* 1,048,576 bytes"),
    ],
)
def test_nothing_is_read_of_a_zip_file_that_has_too_much(tmp_path, monkeypatch, members, message):
    monkeypatch.setattr(zips, "MAX_MEMBERS", 3)
    if len(members) == 1:
        monkeypatch.setattr(zips, "MAX_BYTES", 2**20)
    path = write(tmp_path / "a.zip", members, compression=zipfile.ZIP_DEFLATED)
    with pytest.raises(ValueError, match=message):
        zip_of(path).check([*members])
