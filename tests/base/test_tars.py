"""Tar files that are read in place."""

import io
import tarfile

import pytest

from stormpsr_jax.base.trees import open_trees

FILES = {"synth/labels.json": b"{}", "synth/images/1.png": b"abc", "./top.txt": b"x" * 600}


def write(path, members=FILES, mode="w"):
    with tarfile.open(path, mode) as file:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            file.addfile(entry, io.BytesIO(content))
    return path


def test_a_tar_file_is_a_tree_like_the_folder_that_it_unpacks_to(tmp_path):
    path = write(tmp_path / "a.tar")
    with tarfile.open(path) as file:
        file.extractall(tmp_path / "unpacked")
    (tar,), (folder,) = open_trees(path), open_trees(tmp_path / "unpacked")
    assert list(tar.walk()) == list(folder.walk())
    for name in ("synth/labels.json", "synth/images/1.png", "top.txt"):
        assert tar.read(name) == folder.read(name)
        assert (tar.size(name), tar.fingerprint(name)) == (
            folder.size(name),
            folder.fingerprint(name),
        )
    assert not tar.exists("synth")
    with pytest.raises(ValueError, match=r"a\.tar/nothing: no such file in the zip file"):
        tar.read("nothing")


def test_errors_what_cannot_be_read_in_place_is_named(tmp_path):
    write(tmp_path / "packed.tar", mode="w:gz")
    whole = write(tmp_path / "whole.tar").read_bytes()
    (tmp_path / "cut.tar").write_bytes(whole[: 5 * 512 + 200])
    with tarfile.open(tmp_path / "link.tar", "w") as file:
        entry = tarfile.TarInfo("a.txt")
        entry.type, entry.linkname = tarfile.SYMTYPE, "/etc/passwd"
        file.addfile(entry)
    write(tmp_path / "out.tar", {"../out.txt": b"x"})
    for name, message in (
        ("packed", "as a tar file without compression"),
        ("cut", "as a tar file without compression|its files overlap"),
        ("link", "'a.txt' is no plain file in it"),
        ("out", "leads out of the zip file"),
    ):
        with pytest.raises(ValueError, match=rf"{name}\.tar: .*({message})"):
            open_trees(tmp_path / f"{name}.tar")
