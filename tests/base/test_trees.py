"""Folders and zip files as downloaded: listing, reading, and names that are refused."""

import zipfile
from pathlib import Path

import pytest

from stormpsr_jax.base.trees import Tree, open_trees
from stormpsr_jax.media import pictures
from stormpsr_jax.media.pictures import ImageFiles
from tests.support.pictures_data import as_zip, jpeg, photograph


def write_folder(folder: Path, names) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for i, name in enumerate(names):
        (folder / name).write_bytes(jpeg(photograph(i)))


def test_image_files_zip_is_read_like_the_folder(tmp_path):
    names = [f"{i:05d}.jpg" for i in range(7, 12)]
    write_folder(tmp_path / "data/RGB/0001", names)
    (tmp_path / "data/RGB/0001/notes.txt").write_text("hello")
    (tmp_path / "data/RGB/0001/._00007.jpg").write_bytes(b"of macOS")
    found = []
    for path in (tmp_path / "data", as_zip(tmp_path / "data")):
        (tree,) = open_trees(path)
        assert [folder for folder, _, _ in tree.walk()] == ["", "RGB", "RGB/0001"]
        files = pictures.number_images(tree, "RGB/0001", tree.entries("RGB/0001")[1])
        assert files == {i: f"{i:05d}.jpg" for i in range(7, 12)}
        read = list(ImageFiles(tree, "RGB/0001", 7, 5).read())
        assert read[0][0] == f"{path}/RGB/0001/00007.jpg"
        found.append([data for _, data in read])
    assert found[0] == found[1] == [jpeg(photograph(i)) for i in range(5)]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["1.jpg", "2.jpg", "4.jpg", "7.jpg"], r"frame 3 is missing \(3 of the frames 1…7 are\)"),
        (["00001.jpg", "1.png"], "00001.jpg and 1.png are the same frame"),
        (["00001.jpg", "cover 2.jpg"], "cover 2.jpg: not a frame's name"),
    ],
)
def test_number_images_gaps_and_strangers_are_errors(tmp_path, names, message):
    with pytest.raises(ValueError, match=message):
        pictures.number_images(Tree(str(tmp_path)), "rec", names)


@pytest.mark.parametrize("loop", ["itself", "above"])
def test_walk_symlink_loops_are_errors(tmp_path, loop):
    write_folder(tmp_path / "data/0001", ["1.jpg"])
    if loop == "above":
        (tmp_path / "data/0001/again").symlink_to(tmp_path / "data")
        message = r"data/0001/again: symlink loop"
    else:
        (tmp_path / "data/self").symlink_to(tmp_path / "data/self")
        message = "cannot be listed .*symbolic links"
    with pytest.raises(ValueError, match=message):
        list(open_trees(tmp_path / "data")[0].walk())


def test_fingerprint_tells_content_and_not_where_it_is(tmp_path):
    content = bytes(range(256)) * 1024  # four times what is read at either end
    changed = {
        "as it was": content,
        "start": b"!" + content[1:],
        "end": content[:-1] + b"!",
        "longer": content + content[-(2**16) :],
    }
    found = {}
    for name, data in changed.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.mp4").write_bytes(data)
        trees = open_trees(tmp_path / name) + open_trees(as_zip(tmp_path / name))
        (found[name],) = {tree.fingerprint("a.mp4") for tree in trees}
    assert len(set(found.values())) == len(changed)


def test_what_unfolds_in_a_zip_file_is_not_unpacked(tmp_path):
    """A table of two bytes a line takes 80 times as much memory; a picture does not."""
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("a.csv", b"a\n" * (2**21 + 1))
        file.writestr("small.csv", b"a\n" * 2**21)
        file.writestr("00001.jpg", bytes(2**27 + 1))
    (tree,) = open_trees(path)
    with pytest.raises(ValueError, match=r"a\.csv: what is in it has 4,194,306 bytes"):
        with tree.on_disk("a.csv"):
            pass
    with tree.on_disk("small.csv") as copy:
        assert copy.stat().st_size == 2**22
    assert len(tree.read("a.csv")) == 2**22 + 2
    for read in (tree.fingerprint, tree.open, tree.read):
        with pytest.raises(ValueError, match=r"00001\.jpg: what is in it has 134,217,729 bytes"):
            read("00001.jpg")


def test_trees_of_a_flag_are_a_folder_and_its_zip_files(tmp_path):
    write_folder(tmp_path / "data/0001", ["1.jpg"])
    path = as_zip(tmp_path / "data")
    folder, packed = open_trees(tmp_path)
    assert packed.read("0001/1.jpg") == folder.read("data/0001/1.jpg")
    data = path.read_bytes()
    (tmp_path / "half.zip").write_bytes(data[:-30])
    with pytest.raises(ValueError, match=r"half\.zip: not a whole zip file .*download it again"):
        open_trees(tmp_path)
    unread = []
    assert len(open_trees(tmp_path, spare="half.zip".__eq__, unread=unread)) == 2
    assert "half.zip: not a whole" in unread[0]
    with pytest.raises(ValueError, match=r"nothing\.zip: no such folder or zip file"):
        open_trees(tmp_path / "nothing.zip")
