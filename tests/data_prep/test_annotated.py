"""Three kinds of frames: with a box, looked at and empty, not looked at."""

import collections
import csv
import dataclasses
import itertools
import json
from pathlib import Path

import numpy as np
import pytest

from data_prep import industreal, meccano
from data_prep.check import check
from data_prep.checking import statistics
from data_prep.reading import asd_labels, layout
from data_prep.reading.labels import read_labels
from data_prep.reading.remarks import describe
from data_prep.writing import recorded
from stormpsr_jax.data.annotation import EMPTY, NOT_ANNOTATED
from stormpsr_jax.data.clips import ClipSource
from stormpsr_jax.media.framing import Framing
from stormpsr_jax.media.trees import Tree, open_trees
from tests.support import meccano_data, own_data
from tests.support.industreal_data import PROCEDURE as INDUSTREAL
from tests.support.industreal_data import make_data as make_industreal
from tests.support.meccano_data import REPOSITORY, make, make_data

REAL = REPOSITORY / "../shared/data"
NUM_FRAMES = 26000
needs_real = pytest.mark.skipif(
    not (REAL / "meccano_asd_labels").is_dir(), reason="the shipped labels are not here"
)


@pytest.fixture(scope="module")
def real():
    """The 20 recordings of MECCANO with their own labels; pictures are only counted."""
    found = layout.find_labels(open_trees(REAL / "meccano_psr_labels"), "--labels")
    boxed = meccano.find_boxes(REAL / "meccano_asd_labels")
    recordings = []
    for name, (split, folder) in found.items():
        pictures = layout.ImageFiles(Tree("nowhere"), name, 1, NUM_FRAMES)
        recordings.append(layout.RecordingFiles(name, split, pictures, folder, boxed.get(name)))
    procedure = meccano_data.PROCEDURE
    known = {r.name: read_labels(meccano.FORMAT, r, procedure) for r in recordings}
    return recordings, known


def rows_of(path: Path) -> list[tuple[int, int]]:
    """(frame, visible interval) of an ASD file."""
    with path.open() as file:
        return [(int(row[0]), int(row[2])) for row in csv.reader(file)]


def classes_of(recording, known, monkeypatch, framing=meccano_data.SIZE):
    """The classes that the shards of a recording get."""
    monkeypatch.setattr(recorded.pictures, "picture_size", lambda _: (1080, 1920))
    of_states = np.full(recording.pictures.num_frames, 1)
    return recorded._boxes(recording, known, of_states, framing)


@needs_real
def test_meccano_golden_frames_of_the_real_files(real, monkeypatch):
    recordings, known = real
    unsure = {}
    for recording in recordings:
        _, classes = classes_of(recording, known[recording.name], monkeypatch)
        counts = collections.Counter(np.sign(classes + 0.5).tolist())
        if recording.name == "0005":  # has no ASD file: nobody has looked at it
            assert (classes == NOT_ANNOTATED).all()
            continue
        (path,) = (REAL / "meccano_asd_labels").glob(f"*/{recording.name}_GT.csv")
        rows = rows_of(path)
        boxed = {frame for frame, _ in rows}
        assert set((np.flatnonzero(classes >= 0) + 1).tolist()) == boxed
        # What one visible interval leaves out.
        gaps = [
            frame
            for (start, interval), (end, other) in itertools.pairwise(rows)
            if interval == other
            for frame in range(start + 1, end)
        ]
        assert (np.flatnonzero(classes == NOT_ANNOTATED) + 1).tolist() == gaps
        assert counts[-1.0] == NUM_FRAMES - len(boxed)
        if gaps:
            unsure[recording.name] = len(gaps)
    assert unsure == {"0015": 324}
    lines = describe(recordings, known, meccano_data.PROCEDURE)
    boxes, annotated = 13657 - 22, 19 * NUM_FRAMES - 324
    assert lines[1] == (
        f"{annotated - boxes} frames are annotated as empty, {NUM_FRAMES + 324} are not annotated"
    )
    assert lines[-1] == "no boxes (ASD labels) for recordings 0005"


@needs_real
def test_meccano_boxes_that_a_crop_loses_say_nothing(real, monkeypatch):
    recordings, known = real
    (recording,) = (r for r in recordings if r.name == "0002")
    _, whole = classes_of(recording, known["0002"], monkeypatch)
    left_half = Framing((16, 16), region=(0, 0, 0.5, 1))
    boxes, cropped = classes_of(recording, known["0002"], monkeypatch, left_half)
    lost = (whole >= 0) & np.isnan(boxes[:, 0])
    assert 100 < lost.sum() < (whole >= 0).sum()
    assert (cropped[lost] == NOT_ANNOTATED).all()
    np.testing.assert_array_equal(cropped[~lost], whole[~lost])


@needs_real
@pytest.mark.parametrize("every", [2, 3, 10])
def test_meccano_of_sparse_boxes_the_other_frames_are_unknown(tmp_path, every):
    """Somebody draws a box on every so-many-th of the frames that show the whole object."""
    (path,) = (REAL / "meccano_asd_labels").glob("*/0002_GT.csv")
    lines = path.read_text().splitlines(keepends=True)
    (tmp_path / "0002_GT.csv").write_text("".join(lines[::every]))
    dense, sparse = map(asd_labels.read_meccano_boxes, (path, tmp_path / "0002_GT.csv"))
    assert (dense.sparse, sparse.sparse) == (False, True)
    looked_at = np.flatnonzero(sparse.looked_at(1, NUM_FRAMES)) + 1
    assert looked_at.tolist() == [frame for frame, _ in rows_of(path)][::every]
    assert dense.looked_at(1, NUM_FRAMES).all()


def test_meccano_shards_and_their_statistics(tmp_path, caplog):
    caplog.set_level("INFO", logger="absl")
    data = make_data(tmp_path)
    framing = Framing((16, 16), region=(0.3, 0, 1, 1))  # loses most of the box of frame 6
    assert make(data, tmp_path / "out", framing=framing)
    of_boxes = 3 * 4
    empty = 14 + 11 + 12 - of_boxes
    assert f"{empty} frames are annotated as empty, 9 are not annotated" in caplog.messages
    train = ClipSource(tmp_path / "out", "train", meccano_data.PROCEDURE).recordings
    classes = train["0001"].classes
    assert np.flatnonzero(classes >= 0).tolist() == [4, 6, 7]
    assert np.flatnonzero(classes == NOT_ANNOTATED).tolist() == [5]
    assert (train["0002"].classes == NOT_ANNOTATED).all()
    found = statistics.split_statistics(list(train.values()), meccano_data.PROCEDURE, 12.0)
    rows = dict(statistics.table({"train": found}))
    assert rows["Frames annotated as empty"] == [f"{10 / 23:.1%}"]
    assert rows["Frames not annotated"] == [f"{10 / 23:.1%}"]
    assert check(tmp_path / "out") == 0


def test_industreal_of_a_file_without_boxes_the_listed_images_are_empty(tmp_path):
    data = make_industreal(tmp_path)
    industreal.make_dataset(tmp_path / "out", data=data, framing=Framing((8, 8)))
    train = ClipSource(tmp_path / "out", "train", INDUSTREAL).recordings
    expected = [NOT_ANNOTATED, EMPTY, NOT_ANNOTATED, EMPTY, NOT_ANNOTATED, NOT_ANNOTATED]
    assert train["02_main_0_1"].classes.tolist() == expected
    assert np.flatnonzero(train["01_assy_0_1"].classes < 0).tolist() == [0, 5, 6, 7]
    assert (train["01_assy_0_1"].classes != NOT_ANNOTATED).all()


COCO = {
    "images": [
        {"id": i, "file_name": f"bench1/{frame:06d}.jpg", "width": 64, "height": 48}
        for i, frame in enumerate((6, 8, 10))
    ],
    "categories": [{"id": 1, "name": "pump"}],
    "annotations": [{"id": 1, "image_id": 0, "category_id": 1, "bbox": [16, 12, 16, 24]}],
}


def write_own(folder: Path, kind: str) -> Path:
    folder.mkdir()
    if kind == "yolo":
        (folder / "bench1").mkdir()
        (folder / "bench1/000006.txt").write_text("0 0.375 0.5 0.25 0.5\n")
        (folder / "bench1/000008.txt").write_text("")
        (folder / "bench1/000010.txt").write_text("\n \n")
        return folder
    content = dict(COCO)
    if kind == "shared":  # and of others that have none, or that are no recording's
        names = ("bench2/000003.jpg", "elsewhere/000001.jpg", "cover")
        content["images"] = COCO["images"] + [
            {"id": 10 + i, "file_name": name} for i, name in enumerate(names)
        ]
    name = "bench1.json" if kind == "coco" else "all.json"
    (folder / name).write_text(json.dumps(content))
    return folder


@pytest.mark.parametrize("kind", ["coco", "shared", "yolo"])
def test_own_listed_images_and_empty_files_have_been_looked_at(tmp_path, kind):
    data = own_data.make_data(tmp_path / "data")
    boxes = write_own(tmp_path / "boxes", kind)
    assert own_data.make(data, tmp_path / "out", boxes=boxes)
    found = {name: r.classes for name, (r, _) in own_data.opened(tmp_path / "out").items()}
    expected = np.full(20, NOT_ANNOTATED)
    expected[[6, 8, 10]] = 1, EMPTY, EMPTY
    np.testing.assert_array_equal(found["bench1"], expected)
    others = np.full(20, NOT_ANNOTATED)
    if kind == "shared":
        others[3] = EMPTY
    np.testing.assert_array_equal(found["bench2"], others)
    assert (found["bench3"] == NOT_ANNOTATED).all()


@pytest.mark.parametrize(
    "change",
    [{"empty": np.array([3])}, {"frames": np.array([2])}, {"unsure": np.array([[2, 9]])}],
)
def test_boxes_digest_changes_with_what_was_looked_at(change):
    boxes = asd_labels.Boxes(np.array([1]), np.full((1, 4), 0.5), ("x: line 1",), 0)
    assert dataclasses.replace(boxes, **change).digest != boxes.digest


def test_boxes_looked_at_from_any_frame_on(tmp_path):
    path = tmp_path / "x_GT.csv"
    frames = [(4, 0), (5, 0), (9, 0), (10, 0), (10**9, 0)]  # a file from outside may say anything
    path.write_text("".join(f"{frame},0,{i},0.5,0.5,0.2,0.2\n" for frame, i in frames))
    boxes = asd_labels.read_meccano_boxes(path)
    for first, count in ((0, 20), (4, 3), (6, 2), (7, 30), (12, 5)):
        numbers = np.arange(first, first + count)
        expected = (numbers < 6) | (numbers == 9) | (numbers == 10)
        np.testing.assert_array_equal(boxes.looked_at(first, count), expected)
