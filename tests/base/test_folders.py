"""Folders of a user's files: listing, walking, and what is refused."""

import os
from pathlib import Path

import pytest

from stormpsr_jax.base import folders


def write(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    return folder


def test_walk_is_in_order_and_leaves_out_what_is_hidden_or_of_macos(tmp_path):
    names = ("b/2.jpg", "b/1.jpg", "a/x", "depth/1.jpg", "__MACOSX/b/._1.jpg", ".label/a.csv")
    top = write(tmp_path, *names, ".hidden", "c.csv")
    (top / "link").symlink_to(top / "b")
    assert list(folders.walk(top, ("depth",))) == [
        (top, ["a", "b", "link"], ["c.csv"]),
        (top / "a", [], ["x"]),
        (top / "b", [], ["1.jpg", "2.jpg"]),
        (top / "link", [], ["1.jpg", "2.jpg"]),
    ]
    assert list(folders.walk(top / "c.csv")) == [(top, [], ["c.csv"])]


@pytest.mark.parametrize("loop", ["itself", "above"])
def test_walk_symlink_loops_are_errors(tmp_path, loop):
    write(tmp_path / "data/0001", "1.jpg")
    if loop == "above":
        (tmp_path / "data/0001/again").symlink_to(tmp_path / "data")
        message = r"data/0001/again: symlink loop"
    else:
        (tmp_path / "data/self").symlink_to(tmp_path / "data/self")
        message = "cannot be listed .*symbolic links"
    with pytest.raises(ValueError, match=message):
        list(folders.walk(tmp_path / "data"))


def test_entries_that_are_no_files_are_named_all_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe\n")
    (tmp_path / "link").symlink_to("gone")
    with pytest.raises(ValueError, match="link: is a link to gone, which does not exist") as raised:
        folders.entries(tmp_path)
    lines = str(raised.value).splitlines()
    assert lines[0] == f"'{tmp_path}/pipe\\n': is no regular file (a pipe or a device?); remove it"
    assert len(lines) == 2
    with pytest.raises(ValueError, match=r"none: cannot be listed \(No such file"):
        folders.entries(tmp_path / "none")


ARCHIVES = ["a.zip", "a.ZIP", "a.zip.001", "synth.tar", "a.tar.gz", "a.tgz", "a.7z", "a.rar"]


@pytest.mark.parametrize("name", ARCHIVES)
def test_an_archive_in_place_of_a_folder_is_refused(tmp_path, name):
    (tmp_path / name).write_bytes(b"PK")
    for also in ("", "or a label file"):
        with pytest.raises(ValueError) as raised:
            folders.require(tmp_path / name, "--data", also)
        what = "archives are not read; unpack it, and give the folder"
        assert str(raised.value) == f"--data={tmp_path / name}: {what}"
    (tmp_path / "folder" / name).mkdir(parents=True)
    assert folders.require(tmp_path / "folder" / name, "--data").is_dir()
