"""Folders and zip files as downloaded: listing, reading, and names that are refused."""

import os
import struct
import zipfile
from pathlib import Path

import pytest

from stormpsr_jax.media import pictures, trees, zips
from stormpsr_jax.media.pictures import ImageFiles
from stormpsr_jax.media.trees import MAX_FILE_BYTES, Tree, open_trees
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


def test_links_that_make_many_folders_of_a_few_are_not_followed_to_the_end(tmp_path, monkeypatch):
    for i in range(20):
        (tmp_path / f"{i}").mkdir()
        for name in ("a", "b") if i else ():
            (tmp_path / f"{i - 1}" / name).symlink_to(tmp_path / f"{i}")
    monkeypatch.setattr(zips, "MAX_FOLDERS", 100)
    with pytest.raises(ValueError, match="is one more than the 100 folders that are looked into"):
        list(Tree(str(tmp_path / "0")).walk())


def test_folders_that_are_nested_deeply_are_an_error(tmp_path):
    folder = tmp_path / "/".join("a" * 64)
    folder.mkdir(parents=True)
    tree = Tree(str(tmp_path))
    assert len(list(tree.walk())) == 65
    (folder / "a").mkdir()
    with pytest.raises(ValueError, match="a/a: folders nested more than 64 deep are not looked"):
        list(tree.walk())


@pytest.mark.parametrize("name", ["NAME.csv", "NAME.json", "00001.jpg"])
def test_a_file_that_unfolds_is_not_unpacked(tmp_path, monkeypatch, name):
    monkeypatch.setattr(trees, "MAX_FILE_BYTES", 2**20)
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr(name, b"a\n" * 2**20)
        file.writestr("small.csv", b"a\n" * 2**19)
    (tree,) = open_trees(path)
    with pytest.raises(ValueError, match=rf"{name}: what is in it has 2,097,152 bytes, more than"):
        tree.read(name)
    with pytest.raises(ValueError, match="more than 20 times"), tree.on_disk(name):
        pass
    assert len(tree.read("small.csv")) == 2**20


@pytest.mark.parametrize("name", ["NAME.csv", "NAME.json"])
def test_a_label_file_that_unfolds_is_not_unpacked(tmp_path, name):
    """A table of two bytes a line takes 80 times as much memory."""
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr(name, b"a\n" * (2**21 + 1))
        file.writestr("small.csv", b"a\n" * 2**21)
    (tree,) = open_trees(path)
    message = rf"{name}: what is in it has 4,194,306 bytes, more than 20 times"
    with pytest.raises(ValueError, match=message), tree.on_disk(name):
        pass
    with tree.on_disk("small.csv") as copy:
        assert copy.stat().st_size == 2**22


def test_walk_links_to_other_places_are_followed(tmp_path):
    write_folder(tmp_path / "elsewhere/0001", ["1.jpg"])
    (tmp_path / "data").mkdir()
    (tmp_path / "data/0001").symlink_to(tmp_path / "elsewhere/0001")
    (tree,) = open_trees(tmp_path / "data")
    assert list(tree.walk()) == [("", ["0001"], []), ("0001", [], ["1.jpg"])]


def test_walk_non_utf8_names_are_errors(tmp_path):
    os.mkdir(os.fsencode(tmp_path) + b"/caf\xe9")
    with pytest.raises(ValueError, match=r"the name b'caf\\xe9' is not UTF-8; rename it"):
        list(open_trees(tmp_path)[0].walk())


def test_entries_errors_links_to_nowhere_and_pipes_are_named_together(tmp_path):
    write_folder(tmp_path / "0001", ["1.jpg"])
    (tmp_path / "0001/PSR_labels_raw.csv").symlink_to("elsewhere.csv")
    os.mkfifo(tmp_path / "0001/PSR_labels.csv")
    (tmp_path / "0001/.#lock").symlink_to("somebody@somewhere")  # an editor's; hidden
    (tree,) = open_trees(tmp_path)
    with pytest.raises(ValueError, match="0001") as caught:
        tree.entries("0001")
    assert str(caught.value).splitlines() == [
        f"{tmp_path}/0001/PSR_labels.csv: is no regular file (a pipe or a device?); remove it",
        f"{tmp_path}/0001/PSR_labels_raw.csv: is a link to elsewhere.csv, where nothing is; mend "
        "or remove it",
    ]
    for name in ("PSR_labels_raw.csv", "PSR_labels.csv"):
        with pytest.raises(ValueError, match=f"{name}: is "):
            tree.exists(f"0001/{name}")


def test_zip_errors_links_are_not_read_as_files(tmp_path):
    link = zipfile.ZipInfo("0001/PSR_labels.csv")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        file.writestr(link, "/etc/passwd")
    with pytest.raises(ValueError, match=r"a.zip/0001/PSR_labels.csv: is a link in the zip file"):
        open_trees(tmp_path / "a.zip")[0].read("0001/PSR_labels.csv")


def test_walk_leaves_out_what_the_source_says(tmp_path):
    for name in ("depth", "rgb", "__MACOSX"):
        (tmp_path / "0001" / name).mkdir(parents=True)
    folders = [folder for folder, _, _ in open_trees(tmp_path)[0].walk()]
    assert folders == ["", "0001", "0001/depth", "0001/rgb"]
    folders = [folder for folder, _, _ in open_trees(tmp_path, ["depth"])[0].walk()]
    assert folders == ["", "0001", "0001/rgb"]


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


def raw_zip(path: Path, names: list[bytes]) -> Path:
    """A zip file with these names as they are; zipfile itself would clean them up."""
    stand_ins = [chr(ord("p") + i).encode() * len(name) for i, name in enumerate(names)]
    with zipfile.ZipFile(path, "w") as file:
        for stand_in in stand_ins:
            file.writestr(stand_in.decode(), b"content")
    data = path.read_bytes()
    for name, stand_in in zip(names, stand_ins, strict=True):
        assert data.count(stand_in) == 2
        data = data.replace(stand_in, name)
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    "name", [b"../../etc/passwd", b"/etc/passwd", b"C:/windows/x", b"a/../../b", b"..\\..\\x.jpg"]
)
def test_zip_names_that_lead_out_are_errors(tmp_path, name):
    path = raw_zip(tmp_path / "a.zip", [b"good/00001.jpg", name])
    with pytest.raises(ValueError, match=r"a.zip: .* leads out of the zip file"):
        open_trees(path)


def test_zip_names_in_utf8_without_the_flag_are_repaired(tmp_path):
    path = raw_zip(tmp_path / "a.zip", ["caf\u00e9/00001.jpg".encode(), b"win\\0001\\00001.jpg"])
    (tree,) = open_trees(path)
    assert [folder for folder, _, _ in tree.walk()] == ["", "caf\u00e9", "win", "win/0001"]
    with pytest.raises(ValueError, match=r"b.zip: the name .* is not UTF-8"):
        open_trees(raw_zip(tmp_path / "b.zip", [b"caf\xe9/00001.jpg"]))


def test_zip_bomb_is_not_unpacked(tmp_path):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        with file.open("0001/00001.jpg", "w") as member:
            for _ in range(MAX_FILE_BYTES // 2**20 + 1):
                member.write(bytes(2**20))
    (tree,) = open_trees(path)
    with pytest.raises(ValueError, match=r"00001.jpg: what is in it has 135,266,304 bytes"):
        tree.read("0001/00001.jpg")
    # One that says that it is small ends where it says, and then its checksum is wrong.
    data, size = path.read_bytes(), MAX_FILE_BYTES + 2**20
    at = data.rindex(struct.pack("<I", size))
    lying = tmp_path / "lying.zip"
    lying.write_bytes(data[:at] + struct.pack("<I", 1000) + data[at + 4 :])
    with pytest.raises(ValueError, match=r"00001.jpg: cannot be unpacked \(Bad CRC"):
        open_trees(lying)[0].read("0001/00001.jpg")


def test_zip_unreadable_ones_are_errors(tmp_path):
    write_folder(tmp_path / "data/0001", ["1.jpg"])
    path = as_zip(tmp_path / "data")
    data = path.read_bytes()
    path.write_bytes(data[:-30])
    with pytest.raises(ValueError, match=r"data.zip: not a whole zip file .*download it again"):
        open_trees(path)
    damaged = tmp_path / "damaged.zip"
    damaged.write_bytes(data[:1000] + b"!!" + data[1002:])
    with pytest.raises(ValueError, match=r"damaged.zip/0001/1.jpg: cannot be unpacked"):
        open_trees(damaged)[0].read("0001/1.jpg")
    with pytest.raises(ValueError, match=r"nothing.zip: no such folder or zip file"):
        open_trees(tmp_path / "nothing.zip")
