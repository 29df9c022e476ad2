"""Zip files: what a process has of one, zip64, parts, and ones that were made to do harm."""

import pickle
import random
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from stormpsr_jax.media import zip_bytes, zips
from stormpsr_jax.media.pictures import ImageFiles
from stormpsr_jax.media.trees import open_trees

STREAMS = ("rgb", "depth", "stereo_left")
END = b"PK\5\6"


def write_zip(path: Path, members: dict[str, bytes], **options) -> Path:
    with zipfile.ZipFile(path, "w", **options) as file:
        for name, content in members.items():
            info = zipfile.ZipInfo(name)  # of 1980, as today's date may be any bytes
            info.external_attr = 0o600 << 16
            file.writestr(info, content, compress_type=file.compression)
    return path


def recordings(count: int, frames: int) -> dict[str, bytes]:
    return {
        f"train_p1/{r:02d}_assy/{stream}/{i:06d}.jpg": f"{r} {stream} {i}".encode()
        for r in range(count)
        for stream in STREAMS
        for i in range(frames)
    }


def change(path: Path, mark: bytes, offset: int, form: str, value: int) -> None:
    """Overwrites a number behind the last place of a mark."""
    data = bytearray(path.read_bytes())
    struct.pack_into(form, data, data.rindex(mark) + offset, value)
    path.write_bytes(data)


def contents(tree) -> dict[str, bytes]:
    """What is read of all files of a tree."""
    return {
        name: tree.read(name)
        for folder, _, names in tree.walk()
        for name in (f"{folder}/{last}" if folder else last for last in names)
    }


# --- What a process has of it ---------------------------------------------------------------------


def test_a_worker_looks_at_the_entries_of_its_recording_alone(tmp_path, monkeypatch):
    path = write_zip(tmp_path / "train_p1.zip", recordings(5, 40))
    (listed,) = open_trees(path, STREAMS[1:])
    assert sorted(listed.index.folders) == sorted(
        {"", "train_p1"} | {f"train_p1/{r:02d}_assy{rgb}" for r in range(5) for rgb in ("", "/rgb")}
    )
    tree, seen, entries = pickle.loads(pickle.dumps(listed)), [], zip_bytes.entries

    def watched(*args):
        for entry in entries(*args):
            seen.append(entry[2].decode())
            yield entry

    monkeypatch.setattr(zip_bytes, "entries", watched)
    folder = "train_p1/03_assy/rgb"
    read = [content for _, content in ImageFiles(tree, folder, 0, 40).read()]
    assert read == [f"3 rgb {i}".encode() for i in range(40)]
    assert set(seen) == {f"{folder}/{i:06d}.jpg" for i in range(40)}
    keys, places = zips._open_folder(tree.index, folder)._places
    assert keys.shape == (40,)
    assert places.shape == (40, 2)


def test_an_index_is_as_large_for_many_pictures_as_for_few(tmp_path):
    sizes = {}
    for frames in (10, 1000):
        (tree,) = open_trees(write_zip(tmp_path / f"{frames}.zip", recordings(2, frames)))
        sizes[frames] = len(pickle.dumps(tree))
    assert sizes[10] < 1500
    assert sizes[1000] - sizes[10] < 20  # longer numbers


def test_another_process_reads_with_the_index_that_it_gets(tmp_path):
    (tree,) = open_trees(write_zip(tmp_path / "train_p1.zip", recordings(2, 3)))
    code = """
import pickle, sys
tree = pickle.load(sys.stdin.buffer)
sys.stdout.buffer.write(tree.read("train_p1/01_assy/rgb/000002.jpg"))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], input=pickle.dumps(tree), stdout=subprocess.PIPE, check=True
    )
    assert done.stdout == b"1 rgb 2"


def test_a_zip_file_that_changed_since_it_was_listed_is_an_error(tmp_path):
    path = write_zip(tmp_path / "a.zip", {"rec/1.jpg": b"one"})
    (tree,) = open_trees(path)
    write_zip(path, {"rec/1.jpg": b"another"})
    with pytest.raises(ValueError, match=r"a\.zip: has changed since it was listed; run the"):
        tree.read("rec/1.jpg")


# --- Against the standard library -----------------------------------------------------------------


@pytest.mark.parametrize("seed", range(8))
def test_files_are_those_that_the_standard_library_finds(tmp_path, seed):
    """In any order, packed or not, with notes, extra fields and names of all alphabets."""
    rng = random.Random(seed)
    folders = ["", "a/", "a/b/", "a/b.c/", "Größe/", "a b/x/"]
    names = [
        rng.choice(folders) + rng.choice(["", "é", ".", "日本 "]) + f"{i:03d}.jpg"
        for i in range(60)
    ]
    rng.shuffle(names)
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as file:
        file.comment = b"PK" * rng.randrange(100)
        for name in names:
            info = zipfile.ZipInfo(name)
            info.compress_type = rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))
            info.comment, info.extra = rng.choice((b"", b"note")), rng.choice((b"", b"UT\1\0x"))
            file.writestr(info, rng.randbytes(rng.randrange(300)))
        file.writestr("empty/", b"")
    if seed % 2:  # a program in front, that unpacks it
        path.write_bytes(b"#!/bin/sh\n" + path.read_bytes())
    (tree,) = open_trees(path)
    with zipfile.ZipFile(path) as file:
        expected = {name: file.read(name) for name in names}
    visible = {name: c for name, c in expected.items() if "/." not in f"/{name}"}
    assert contents(tree) == visible
    assert {name: tree.read(name) for name in names} == expected
    assert {folder for folder, _, _ in tree.walk()} >= {"", "empty"}
    assert not tree.exists("a/none.jpg")
    assert tree.exists(names[0])


def test_files_beyond_4_gib_are_read(tmp_path):
    path = tmp_path / "large.zip"
    with path.open("wb") as disk:
        disk.seek(5 * 2**30)  # nothing is written up to there
        with zipfile.ZipFile(disk, "w") as file:
            file.writestr("rec/1.jpg", b"one")
            file.writestr("rec/2.jpg", b"two")
    (tree,) = open_trees(path)
    assert contents(tree) == {"rec/1.jpg": b"one", "rec/2.jpg": b"two"}


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
    parts = cut(write_zip(tmp_path / "x.zip", members), count)
    for given in (tmp_path, parts[0], parts[-1]):
        tree = open_trees(given)[-1]
        assert contents(tree) == members
        assert tree.show("images/3.png") == f"{tmp_path}/x.zip/images/3.png"


def test_parts_beside_the_joined_file_are_left_alone(tmp_path):
    members = {"images/1.png": b"one"}
    path = write_zip(tmp_path / "x.zip", members)
    data = path.read_bytes()
    cut(path, 2)
    path.write_bytes(data)
    _, tree = open_trees(tmp_path)
    assert tree.index.parts == (str(path),)
    assert contents(tree) == members


def test_parts_missing_or_in_another_order_are_one_line(tmp_path):
    members = {f"images/{i}.png": bytes([i]) * 500 for i in range(9)}
    first, second, third = cut(write_zip(tmp_path / "x.zip", members), 3)
    there = {part: part.read_bytes() for part in (first, second, third)}
    whole = (
        r"x\.zip: not a whole zip file .*last of which here is x\.zip\.00%d, one is missing, cut"
    )
    for changes, message in (
        ({first: None}, r"x\.zip\.001 is missing, x\.zip\.002 is there: they are parts of one zip"),
        ({second: None}, r"x\.zip\.002 is missing, x\.zip\.003 is there"),
        ({third: None}, whole % 2),
        ({second: None, third: None}, whole % 1),
        ({first: there[third], third: there[first]}, whole % 3),
        ({third: there[third][:-9]}, whole % 3),
    ):
        for part, data in (there | changes).items():
            part.unlink(missing_ok=True)
            if data is not None:
                part.write_bytes(data)
        with pytest.raises(ValueError, match=message) as raised:
            open_trees(tmp_path)
        assert len(str(raised.value).splitlines()) == 1


def test_parts_in_the_middle_that_changed_places_are_noticed_when_read(tmp_path):
    members = {f"images/{i}.png": bytes([i]) * 500 for i in range(9)}
    first, second, _ = cut(write_zip(tmp_path / "x.zip", members), 3)
    swapped = second.read_bytes(), first.read_bytes()
    first.write_bytes(swapped[0])
    second.write_bytes(swapped[1])
    with pytest.raises(ValueError, match=r"x\.zip/images/0\.png: cannot be unpacked"):
        open_trees(tmp_path)[1].read("images/0.png")


# --- Made to do harm ------------------------------------------------------------------------------


def refused(path: Path) -> str:
    """The line that a zip file is refused with."""
    with pytest.raises(ValueError, match=path.name) as raised:
        list(open_trees(path)[0].walk())
    assert len(str(raised.value).splitlines()) == 1
    assert len(str(raised.value)) < 400 + len(str(path))
    return str(raised.value)


def test_folders_without_end_are_refused(tmp_path):
    """A hundred thousand such paths took 3.2 GiB."""
    names = {"/".join([f"{i}", *"d" * 62, "x"]): b"" for i in range(1100)}
    said = refused(write_zip(tmp_path / "a.zip", names))
    assert "has 65537 folders or more, the most that is read is 65536; unpack what you" in said


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("d/" * 65 + "x.jpg", "folders nested 65 deep, the most that is read is 64"),
        ("a" * 2000 + ".jpg", "a path of 2004 bytes, the most that is read is 1024"),
        ("a" * 2000 + "/x.jpg", "a path of 2001 bytes"),
    ],
)
def test_long_and_deep_paths_are_refused(tmp_path, name, message):
    assert message in refused(write_zip(tmp_path / "a.zip", {"rec/1.jpg": b"", name: b""}))


@pytest.mark.parametrize(("limit", "most"), [("MAX_FILES", 4), ("MAX_DIRECTORY_BYTES", 200)])
def test_more_files_than_the_limits_are_refused(tmp_path, monkeypatch, limit, most):
    path = write_zip(tmp_path / "a.zip", {f"rec/{i}.jpg": b"" for i in range(5)})
    list(open_trees(path)[0].walk())
    monkeypatch.setattr(zips, limit, most)
    assert f"the most that is read is {most}; unpack what you need" in refused(path)


def test_limits_leave_room_for_the_largest_data_set():
    """Five streams of IndustReal's 207,072 frames, in one zip file of six folders a recording."""
    members, path = (
        5 * 207_072 + 84 * 8,
        len("recordings/train/01_assy_0_1/ambient_light/000000.jpg"),
    )
    assert members < zips.MAX_FILES
    assert members * (46 + path + 28 + 24) < zips.MAX_DIRECTORY_BYTES  # zip64, times
    assert 84 * 6 < zips.MAX_FOLDERS


@pytest.mark.parametrize("character", ["\0", "\n", "\r", "\x1b", "\x7f", "\x85"])
@pytest.mark.parametrize("name", ["rec/1~.jpg", "re~c/1.jpg", "rec/~"])
def test_names_with_control_characters_are_refused(tmp_path, name, character):
    stand_in = "é" if ord(character) > 127 else "~"  # zipfile would clean the name up
    path = write_zip(tmp_path / "a.zip", {name.replace("~", stand_in): b"content"})
    data = path.read_bytes()
    assert data.count(stand_in.encode()) == 2
    path.write_bytes(data.replace(stand_in.encode(), character.encode()))
    said = refused(path)
    assert "in the zip file has control characters in it; rename that file" in said
    assert said.isprintable()


def test_a_directory_that_counts_wrong_is_refused(tmp_path):
    path = write_zip(tmp_path / "a.zip", {f"rec/{i}.jpg": b"x" for i in range(5)})
    change(path, END, 10, "<H", 6)
    assert "it lists 5 files, and says that it has 6); download it again" in refused(path)


@pytest.mark.parametrize(
    ("offset", "form", "value", "message"),
    [
        (12, "<L", 100, "its directory is not where it should be"),  # its size
        (12, "<L", 2**31, "its directory is not where it should be"),
        (16, "<L", 2**31, "its directory is not where it should be"),  # its place
    ],
)
def test_a_directory_that_is_elsewhere_is_refused(tmp_path, offset, form, value, message):
    path = write_zip(tmp_path / "a.zip", {f"rec/{i}.jpg": b"x" for i in range(5)})
    change(path, END, offset, form, value)
    said = refused(path)
    assert message in said or "its directory is damaged" in said


def test_entries_that_share_their_content_are_refused(tmp_path):
    """Fifty files of which each is all of the zip file before its directory."""
    one = write_zip(tmp_path / "one.zip", {"rec/01.jpg": bytes(1000)})
    data = one.read_bytes()
    start, end = data.index(b"PK\1\2"), data.index(END)
    entry = data[start:end]
    entries = b"".join(entry.replace(b"01.jpg", b"%02d.jpg" % i) for i in range(50))
    path = tmp_path / "a.zip"
    path.write_bytes(
        data[:start] + entries + struct.pack("<4s4H2LH", END, 0, 0, 50, 50, len(entries), start, 0)
    )
    assert "its files overlap: they take 50500 bytes" in refused(path)


def test_a_name_given_twice_is_refused(tmp_path):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("rec/1.jpg", b"one")
        with pytest.warns(UserWarning, match="Duplicate"):
            file.writestr("rec/1.jpg", b"two")
    assert "a.zip/rec: '1.jpg' is in the zip file twice" in refused(path)


def test_a_picture_that_grows_a_thousandfold_is_not_unpacked_to_its_end(tmp_path):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as file:
        with file.open("rec/1.jpg", "w") as member:
            for _ in range(129):
                member.write(bytes(2**20))
    (tree,) = open_trees(path)
    for read in (tree.fingerprint, tree.open, tree.read):
        with pytest.raises(ValueError, match=r"rec/1\.jpg: .* more than 20 times as many"):
            read("rec/1.jpg")
