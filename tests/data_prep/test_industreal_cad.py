"""IndustReal's synthetic pictures in both layouts that its authors' code reads, and mistakes."""

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_prep import check, industreal_cad
from data_prep.reading import renders
from data_prep.writing import parallel, shards
from stormpsr_jax.base.cluster import Cluster
from stormpsr_jax.data.clips import ClipSource
from stormpsr_jax.media.framing import Framing
from stormpsr_jax.psr.procedure import load_procedure
from tests.support import downloads
from tests.support.commands import refused

PROCEDURE = load_procedure("industreal")
SMALL = Framing((8, 16))


def make(data, out, **options):
    return industreal_cad.make_dataset(out, data=data, **{"framing": SMALL, **options})


def source(out):
    return ClipSource(out, "cad", PROCEDURE)


@pytest.fixture
def synth(tmp_path):
    downloads.make_renders(tmp_path / "synth", (18, 32), per_state=3)
    return tmp_path / "synth"


def content(synth):
    return json.loads((synth / "labels.json").read_text())


def write(synth, **changes):
    (synth / "labels.json").write_text(json.dumps(content(synth) | changes))


def test_synth_a_recording_of_each_state_and_nothing_else(synth, tmp_path, caplog):
    caplog.set_level("INFO", logger="absl")
    assert make(synth, tmp_path / "out")
    assert "66 pictures of 22 states; 3 of no catalogued state are left out" in caplog.text
    found = source(tmp_path / "out")
    assert list(found.recordings) == [f"cad_{state:02d}" for state in range(1, 23)]
    for i, recording in enumerate(found.recordings.values()):
        np.testing.assert_array_equal(recording.states, [PROCEDURE.states[i]] * 3)
        assert (recording.classes == -2).all()
        assert np.isnan(recording.boxes).all()
    # Each state has its own pictures, in the order of their names.
    names = content(synth)["images"]
    for state in (1, 9, 22):
        for row in range(3):
            image = Image.open(synth / "images" / names[3 * (state - 1) + row])
            expected = np.asarray(image).mean(axis=(0, 1))
            shown = found.rows(f"cad_{state:02d}", [row])[0].mean(axis=(0, 1))
            np.testing.assert_allclose(shown, expected, atol=3)
    assert check.check(tmp_path / "out") == 0


def test_synth_states_behind_a_background_count_too(synth, tmp_path):
    """The published code drops them; it takes for granted that backgrounds stand last."""
    there = content(synth)
    order = [-1, *range(len(there["images"]) - 1)]
    write(synth, **{key: [values[i] for i in order] for key, values in there.items()})
    assert make(synth, tmp_path / "out")
    assert sum(r.num_frames for r in source(tmp_path / "out").recordings.values()) == 66


def test_unity_classes_are_renumbered_and_boxes_mapped(tmp_path):
    shown = [22, 1, 0, 23, 5, 1]
    downloads.make_unity(tmp_path / "data", (18, 32), shown)
    assert make(tmp_path / "data", tmp_path / "out")
    found = source(tmp_path / "out")
    assert list(found.recordings) == ["cad_01", "cad_05", "cad_22"]
    for name, levels in (("cad_01", [10, 50]), ("cad_05", [40]), ("cad_22", [0])):
        recording = found.recordings[name]
        means = found.rows(name, np.arange(len(levels))).mean(axis=(1, 2, 3))
        np.testing.assert_allclose(means, levels, atol=2)
        assert recording.classes.tolist() == [int(name[-2:])] * len(levels)
        np.testing.assert_allclose(recording.boxes, [[0.5, 0.25, 0.5, 0.25]] * len(levels))


def test_unity_a_crop_moves_boxes_and_loses_some(tmp_path):
    downloads.make_unity(tmp_path / "data", (18, 32), [1, 2])
    assert make(tmp_path / "data", tmp_path / "low", framing=Framing((8, 8), region=(0, 0, 1, 0.5)))
    recording = source(tmp_path / "low").recordings["cad_01"]
    np.testing.assert_allclose(recording.boxes, [[0.5, 0.5, 0.5, 0.5]], atol=1e-6)
    gone = Framing((8, 8), region=(0, 0.5, 1, 1))
    assert make(tmp_path / "data", tmp_path / "high", framing=gone)
    recording = source(tmp_path / "high").recordings["cad_01"]
    assert recording.classes.tolist() == [-2]


def test_unity_classes_are_a_permutation():
    assert sorted(renders.UNITY_CLASSES) == list(range(24))


@pytest.mark.parametrize("layout", ["synth", "unity"])
@pytest.mark.usefixtures("system")  # workers
def test_a_zip_file_gives_the_same_as_a_folder(tmp_path, layout):
    if layout == "synth":
        downloads.make_renders(tmp_path / "data", (18, 32), per_state=2)
    else:
        downloads.make_unity(tmp_path / "data", (18, 32), [3, 4, 0])
    path = tmp_path / "packed.zip"
    with zipfile.ZipFile(path, "w") as file:
        for member in sorted((tmp_path / "data").rglob("*")):
            file.write(member, Path("top", member.relative_to(tmp_path / "data")))
    assert make(tmp_path / "data", tmp_path / "a")
    assert make(path, tmp_path / "b", workers=2)
    for name in source(tmp_path / "a").recordings:
        a, b = (source(tmp_path / out) for out in "ab")
        assert a.content_checksum(name) == b.content_checksum(name)


def test_changed_labels_are_noticed_and_made_again(synth, tmp_path):
    out = tmp_path / "out"
    assert make(synth, out)
    labels = content(synth)["labels"]
    labels[0] = 2
    write(synth, labels=labels)
    with pytest.raises(ValueError, match=r"recording cad_01: its labels.*\n.*cad_02"):
        make(synth, out)
    assert make(synth, out, remake=True)
    counts = [r.num_frames for r in source(out).recordings.values()]
    assert counts == [2, 4, *[3] * 20]


def test_errors_name_the_place(synth, tmp_path):
    there = content(synth)
    images, labels = there["images"], there["labels"]
    for changes, message in (
        ({"labels": labels[:-1]}, "images has 69 entries, labels 68"),
        ({"labels": [0] * 69}, "none of its 69 pictures shows a state of the catalogue"),
        ({"labels": ["1", *labels[1:]]}, r"labels\[0\]: '1' is not a whole number"),
        ({"labels": [True, *labels[1:]]}, r"labels\[0\]: True is not a whole number"),
        ({"labels": [-1, *labels[1:]]}, r"labels\[0\]: -1 is not a whole number"),
        ({"images": ["../x.jpg", *images[1:]]}, r"images\[0\]: '../x.jpg' is no picture in"),
        ({"images": [images[1], *images[1:]]}, r"images\[1\]: '01_00001.jpg' is there twice"),
        ({"images": "all"}, "images: 'all' has the wrong type"),
    ):
        write(synth, **{"images": images, "labels": labels, **changes})
        with pytest.raises(ValueError, match=message):
            make(synth, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    (synth / "labels.json").write_text("{")
    with pytest.raises(ValueError, match=r"synth/labels\.json"):
        make(synth, tmp_path / "out")


def test_errors_of_yolo_files(tmp_path):
    data = tmp_path / "data"
    downloads.make_unity(data, (18, 32), [1, 2])
    path = data / "training/labels/00001.txt"
    good = path.read_text()
    for text, message in (
        ("24 0.5 0.5 0.1 0.1\n", r"00001\.txt: line 1: class: '24' is not in 0…23"),
        ("3 0.5 0.5 0.1\n", "line 1: h: is missing"),
        ("3 0.5 0.5 nan 0.1\n", "line 1: w: 'nan' is not finite"),
        ("-1 0.5 0.5 0.1 0.1\n", "line 1: class: '-1' is not in 0…23"),
        ("3.5 0.5 0.5 0.1 0.1\n", "line 1: class: '3.5' is not whole"),
        ("3 1.5 0.5 0.1 0.1\n", "line 1: x: the box is outside the picture"),
        (good * 2, "has 2 boxes, a render shows one object"),
    ):
        path.write_text(text)
        with pytest.raises(ValueError, match=message):
            make(data, tmp_path / "out")
    path.unlink()
    with pytest.raises(ValueError, match=r"00001\.png: has no .*00001\.txt"):
        make(data, tmp_path / "out")


def test_errors_nothing_to_read_or_too_much(tmp_path, synth, capsys):
    (tmp_path / "empty").mkdir()
    said = refused(
        capsys, industreal_cad.main, [f"--data={tmp_path / 'empty'}", f"--out={tmp_path / 'out'}"]
    )
    assert said.startswith(f"error: --data={tmp_path / 'empty'}: has neither labels_coco.json nor")
    downloads.make_renders(tmp_path / "both/a", (18, 32), per_state=1)
    downloads.make_renders(tmp_path / "both/b", (18, 32), per_state=1)
    with pytest.raises(ValueError, match=r"renders in .*both/a and .*both/b; give one of them"):
        make(tmp_path / "both", tmp_path / "out")


def test_command_flags_reach_the_folder(synth, tmp_path):
    out = tmp_path / "out"
    words = [f"--data={synth}", f"--out={out}", "--size=16", "--quality=70", "--workers=1"]
    assert industreal_cad.main([*words, "--recordings=cad_0*"]) == 0
    settings = json.loads((out / "settings.json").read_text())
    assert settings["image_size"] == [16, 16]
    assert settings["settings"]["quality"] == 70
    assert len(list(out.glob("clips-cad*"))) == 9


def test_ray_makes_the_recordings_on_the_cluster(synth, tmp_path, monkeypatch):
    told = []
    monkeypatch.setattr(parallel, "run", lambda _, jobs, workers, *rest: told.append(workers))
    monkeypatch.setattr(shards, "SHOWN_SECONDS", 0)
    assert industreal_cad.main([f"--data={synth}", f"--out={tmp_path / 'out'}", "--ray=auto"]) == 0
    assert told == [Cluster("auto")]
