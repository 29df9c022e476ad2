"""Models of LDraw as parts: places, colours, windings, steps, and what is refused."""

import random
import time
from pathlib import Path

import numpy as np
import pytest
import trimesh

from data_prep.products import ldraw
from tests.support import ldraw_files as files

DEBIAN = Path("/usr/share/ldraw")


@pytest.fixture
def library(tmp_path):
    return files.write(tmp_path / "library")


def read(library, text, flat=False, name="model.ldr", **others):
    model = library.parent / name
    model.write_text(text)
    return ldraw.read(model, library, flat)


def volume(part):
    mesh = trimesh.Trimesh(part.vertices, part.faces)
    assert mesh.is_watertight
    return mesh.volume


def test_a_part_lies_where_the_model_places_it_in_millimetres_with_z_up(library):
    """A block of 20 × 8 × 20 units, its middle 100 to the right, 50 up and 30 to the back."""
    (part,) = read(library, files.place("BLOCK.dat", at=(100, -50, 30)))
    np.testing.assert_allclose(part.vertices.mean(0), [40, 12, 20])
    np.testing.assert_allclose(np.ptp(part.vertices, axis=0), [8, 8, 3.2])
    np.testing.assert_allclose(volume(part), 8 * 8 * 3.2)


@pytest.mark.parametrize("name", ["cube.dat", "cubecw.dat"])
@pytest.mark.parametrize("mirrored", [(), (0,), (0, 1), (0, 1, 2)])
@pytest.mark.parametrize("inverted", [False, True])
def test_faces_look_outwards_whatever_winding_mirrors_and_inversions_say(
    library, name, mirrored, inverted
):
    """A file that inverts a shape does so to show a hollow one from inside."""
    scale = [-1 if axis in mirrored else 1 for axis in range(3)]
    invert = "0 BFC INVERTNEXT\n" if inverted else ""
    text = "0 Thing\n0 BFC CERTIFY CCW\n" + invert + files.place(name, scale=scale)
    files.write(library, {"parts/thing.dat": text + files.place(name, at=(5, 0, 0))})
    (part,) = read(library, files.place("thing.dat"))
    one = 8 * ldraw.MILLIMETRES**3
    np.testing.assert_allclose(
        trimesh.Trimesh(part.vertices, part.faces).volume, 0 if inverted else 2 * one, atol=1e-9
    )


def test_colours_are_those_of_codes_inherited_down_to_the_faces(library):
    files.write(
        library,
        {"parts/two.dat": "0 Two\n" + files.place("cube.dat", 1) + files.place("cube.dat")},
    )
    text = files.place("two.dat", 4) + files.place("two.dat") + files.place("two.dat", "0x200ff00")
    for part, own in zip(read(library, text), [(1, 0, 0), (np.nan,) * 3, (0, 1, 0)], strict=True):
        blue = np.array([0, 0, 128]) / 255
        np.testing.assert_allclose(part.colours, [*[blue] * 12, *[own] * 12])


def test_titles_have_the_colour_of_the_part_and_lead_on_from_moved_files(library):
    files.write(library, {"parts/old.dat": "0 ~Moved to block\n" + files.place("block.dat")})
    text = files.place("block.dat", 1) + files.place("old.dat", 4) + files.place("block.dat")
    titles = [part.title for part in read(library, text)]
    assert titles == ["Block 2 x 1 dark blue", "Block 2 x 1 red", "Block 2 x 1"]


MPD = (
    "0 FILE main.ldr\n0 Main\n"
    + files.place("block.dat", 4)
    + "0 STEP\n"
    + files.place("left wing.ldr", 1, at=(0, -50, 0))
    + files.place("block.dat", 4, at=(0, -20, 0))
    + "0 ROTSTEP 0 30 0\n"
    + files.place("pin.dat", 4, at=(0, -90, 0))
    + "0 FILE left wing.ldr\n0 Wing\n"
    + files.place("block.dat")
    + "0 STEP\n"
    + files.place("block.dat", 4, at=(0, -10, 0))
    + "0 NOFILE\n1 lines that nobody reads\n"
    + "0 FILE pin.dat\n0 Pin\n0 BFC CERTIFY CCW\n"
    + files.place("cube.dat")
)


def test_a_submodel_is_one_part_and_steps_are_those_of_the_model(library):
    parts = read(library, MPD, name="model.mpd")
    assert [(part.title, part.step) for part in parts] == [
        ("Block 2 x 1 red", 0),
        ("left wing dark blue", 1),
        ("Block 2 x 1 red", 1),
        ("Pin red", 2),
    ]
    np.testing.assert_allclose(parts[1].vertices[:, 2].min(), (50 - 4) * 0.4)


def test_flat_takes_submodels_apart_and_their_steps_come_first(library):
    parts = read(library, MPD, flat=True, name="model.mpd")
    assert [(part.title, part.step) for part in parts] == [
        ("Block 2 x 1 red", 0),
        ("Block 2 x 1 dark blue", 1),
        ("Block 2 x 1 red", 2),
        ("Block 2 x 1 red", 3),
        ("Pin red", 4),
    ]
    heights = [part.vertices[:, 2].mean() / 0.4 for part in parts]
    np.testing.assert_allclose(heights, [0, 50, 60, 20, 90])


def deep(count):
    return "".join(
        f"0 FILE f{i}.dat\n" + files.place(f"f{i + 1}.dat" if i < count - 1 else "cube.dat")
        for i in range(count)
    )


def doubling(count):
    """Files of which each places the next one twice."""
    return "".join(
        f"0 FILE f{i}.ldr\n" + 2 * files.place(f"f{i + 1}.ldr" if i < count - 1 else "block.dat")
        for i in range(count)
    )


WRONG = {
    "no parts": ("0 nothing\n", "model.mpd: places no part"),
    "unknown": (
        files.place("roof.dat"),
        "line 1: 'roof.dat' is neither in the model nor in --parts",
    ),
    "outside": (files.place("../../secret.dat"), "line 1: '../../secret.dat' is not the name of"),
    "absolute": (files.place("/etc/passwd"), "line 1: '/etc/passwd' is not the name of a file"),
    "drive": (files.place("c:\\x.dat"), "line 1: 'c:/x.dat' is not the name of a file"),
    "short": ("1 4 0 0 0 1 0 0\n", "line 1: a line of type 1 has 15 fields"),
    "number": (files.place("block.dat").replace("0 0 0", "0 x 0"), "line 1: could not convert"),
    "huge": (files.place("block.dat", at=(0, "1e300", 0)), "line 1: has numbers that are not"),
    "nan": (files.place("block.dat", at=(0, "nan", 0)), "line 1: has numbers that are not"),
    "colour": (files.place("block.dat", 99), "line 1: colour 99 is not in"),
    "colour's name": (files.place("block.dat", "red"), "line 1: 'red' is not the code of a colour"),
    "own faces": ("3 4 0 0 0 1 0 0 0 1 0\n", "line 1: faces of a model belong to no part"),
    "no faces": (
        "0 FILE m.ldr\n" + files.place("x.dat") + "0 FILE x.dat\n0 X\n",
        "line 2: x.dat has no faces",
    ),
    "before": (files.place("x.dat") + "0 FILE x.dat\n0 X\n", "line 1: stands before the first"),
    "twice": (2 * ("0 FILE a.ldr\n" + files.place("block.dat")), "line 4: a.ldr is there twice"),
    "cycle": (
        "0 FILE a.ldr\n" + files.place("b.dat") + "0 FILE b.dat\n" + files.place("B.DAT"),
        "line 4: b.dat places itself (b.dat → b.dat)",
    ),
    "deep": (deep(80), "line 130: files place files more than 64 deep"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_model_is_one_line_with_its_place(library, name):
    text, expected = WRONG[name]
    with pytest.raises(ValueError) as error:
        read(library, text, name="model.mpd")
    assert expected in str(error.value)
    assert "\n" not in str(error.value)


def test_a_model_that_unfolds_is_refused(library, monkeypatch):
    monkeypatch.setattr(ldraw, "MAX_FACES", 20_000)
    with pytest.raises(ValueError, match=r"with it f\d+\.ldr has more than 20,000 faces"):
        read(library, doubling(30), name="model.mpd")
    own = "0 FILE a.ldr\n" + files.place("b.dat") + "0 FILE b.dat\n"
    with pytest.raises(ValueError, match=r"line 20004: with it b\.dat has more than 20,000 faces"):
        read(library, own + 30_000 * "3 4 0 0 0 1 0 0 0 1 0\n", name="model.mpd")
    with pytest.raises(ValueError, match="with it the model has more than 20,000 faces"):
        read(library, 2000 * files.place("block.dat"))


def test_flat_models_that_unfold_or_hold_themselves_are_refused(library):
    with pytest.raises(ValueError, match=r"line \d+: with it the model has over 5,000 parts"):
        read(library, doubling(30), flat=True, name="model.mpd")
    text = "0 FILE a.ldr\n" + files.place("b.ldr") + "0 FILE b.ldr\n" + files.place("a.ldr")
    with pytest.raises(ValueError, match=r"line 4: a\.ldr places itself"):
        read(library, text, flat=True, name="model.mpd")


def test_what_places_nothing_again_and_again_is_refused(library, monkeypatch):
    monkeypatch.setattr(ldraw, "MAX_STEPS", 1000)
    text = doubling(12).replace("block.dat", "empty.ldr") + "0 FILE empty.ldr\n0 Nothing\n"
    with pytest.raises(ValueError, match=r"f0\.ldr: has over 1,000 steps, with those of submodels"):
        read(library, text, flat=True, name="model.mpd")


def test_faces_of_all_files_together_are_counted(library, monkeypatch):
    """Each of the files is small enough, and so is the model."""
    monkeypatch.setattr(ldraw, "MAX_FACES", 12)
    text = "0 FILE a.ldr\n" + files.place("f0.dat") + deep(3)
    assert len(read(library, text, name="model.mpd")[0].faces) == 12
    with pytest.raises(ValueError, match=r"line \d+: with f\d\.dat all files have over 60 faces"):
        read(library, "0 FILE a.ldr\n" + files.place("f0.dat") + deep(9), name="model.mpd")


def test_a_long_line_with_a_colour_takes_no_time(library):
    line = "0 !COLOUR Long " + 20_000 * "CODE 1 "
    started = time.process_time()
    read(library, line + "\n" + files.place("block.dat"))
    assert time.process_time() - started < 5


def test_files_that_are_moved_in_a_circle_have_a_title(library):
    for one, other in (("here", "there"), ("there", "here")):
        files.write(
            library, {f"parts/{one}.dat": f"0 ~Moved to {other}\n" + files.place("cube.dat")}
        )
    (part,) = read(library, files.place("here.dat", 4))
    assert part.title == "Moved to here red"


def test_a_mark_of_the_encoding_is_no_part_of_a_line(library):
    parts = read(library, "\ufeff" + MPD, name="model.mpd")
    assert [part.title for part in parts][-1] == "Pin red"


def test_files_are_read_up_to_a_number_of_bytes(library, monkeypatch):
    monkeypatch.setattr(ldraw, "MAX_BYTES", 500)
    with pytest.raises(ValueError, match=r"Cube\.dat: with it the model takes more than"):
        read(library, files.place("block.dat"))


def test_a_folder_that_is_no_library_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"--parts=.*: is no library of LDraw"):
        read(files.write(tmp_path / "library") / "parts" / "s", files.place("block.dat"))


def test_damaged_models_are_read_or_refused_in_a_line(library):
    """A file with bytes changed, cut out, or words of the format put in."""
    rng = random.Random(0)
    words = ("1 16 ", "0 STEP\n", "4 16 ", "-", "e9", "0 FILE x\n", " ", "0 BFC INVERTNEXT\n")
    model = library.parent / "model.mpd"
    refused = []
    for _ in range(300):
        data = bytearray(MPD.encode())
        for _ in range(rng.randint(1, 6)):
            at = rng.randrange(len(data))
            kind = rng.randrange(3)
            if kind == 0:
                data[at] = rng.randrange(256)
            elif kind == 1:
                del data[at : at + rng.randint(1, 20)]
            else:
                data[at:at] = rng.choice(words).encode()
        model.write_bytes(data)
        try:
            ldraw.read(model, library, rng.random() < 0.5)
        except ValueError as error:
            refused.append(str(error))
    assert 100 < len(refused) < 300
    assert not any("\n" in line for line in refused)


@pytest.mark.usefixtures("system")  # thousands of files
def test_bricks_of_the_official_library_have_their_sizes_and_look_outwards(tmp_path):
    """8 mm a stud, 9.6 mm a brick and 1.6 mm of studs; a plate is a third as high."""
    if not (DEBIAN / "parts" / "3001.dat").exists():
        pytest.skip("needs Debian's ldraw-parts-free")
    model = tmp_path / "model.ldr"
    text = files.place("3001.dat", 4) + files.place("3023.dat", 14) + files.place("3068b.dat", 1)
    model.write_text(text)
    brick, plate, tile = ldraw.read(model, DEBIAN)
    assert [part.title for part in (brick, plate)] == ["Brick 2 x 4 red", "Plate 1 x 2 yellow"]
    for part, size, share in (
        (brick, (32, 16, 11.2), (0.3, 0.6)),
        (plate, (16, 8, 4.8), (0.3, 0.8)),
        (tile, (16, 16, 3.2), (0.5, 0.9)),
    ):
        np.testing.assert_allclose(np.ptp(part.vertices, axis=0), size, atol=1e-3)
        filled = trimesh.Trimesh(part.vertices, part.faces).volume / np.prod(size)
        assert share[0] < filled < share[1]  # hollow from below
