import gc
import random

import numpy as np
import pytest

from data_prep.label import frames
from data_prep.label.boxes import Box, BoxFolder
from data_prep.label.labels import LabelFolder
from data_prep.label.store import State, open_store
from stormpsr_jax.media import video
from stormpsr_jax.recordings.words import Terms
from tests.data_prep.test_own_inputs import cvat_project
from tests.support import videos
from tests.support.own_data import PROCEDURE, rotate

av = pytest.importorskip("av", reason="needs the extra video")


def write_film(path, codec="libx264", *, num=150, variable=False, turned=False, start=0, **options):
    """Small pictures, no two alike; from a packet on, as of one that was cut."""
    draw = np.random.default_rng(0)
    whole = path.with_name(f"whole-{path.name}") if start else path
    small = draw.integers(0, 255, (num, 6, 8, 3), np.uint8)
    times = [(37 * i + int(draw.integers(30))) / 1000 for i in range(num)] if variable else None
    coding = {"codec": codec, "fps": 30, "options": {"g": "30", "bf": "2", **options}}
    videos.write(whole, small.repeat(8, 1).repeat(8, 2), times, **coding)
    if start:
        with av.open(str(whole)) as source, av.open(str(path), "w") as container:
            stream = container.add_stream_from_template(source.streams.video[0])
            for packet in list(source.demux(video=0))[start:-1]:
                packet.stream = stream
                container.mux(packet)
    if turned:
        rotate(path)
    return path


FILMS = {
    "variable.mkv": {"variable": True},
    "open.mp4": {"x264-params": "open-gop=1"},
    "turned.mp4": {"turned": True},
    "refreshed.mp4": {"x264-params": "intra-refresh=1"},
    "cut.ts": {"start": 31},
    "hevc.mp4": {"codec": "libx265", "x265-params": "keyint=30:log-level=none"},
    "part2.avi": {"codec": "mpeg4"},
    "vp9.webm": {"codec": "libvpx-vp9"},
}


@pytest.fixture
def frozen():
    """What the tests before have left is not looked through, as the page's server has it."""
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.mark.parametrize("name", FILMS)
def test_any_frame_is_the_picture_that_own_stores(frozen, system, tmp_path, monkeypatch, name):
    place = write_film(tmp_path / name, **FILMS[name])
    stored = [picture.tobytes() for _, picture in video.open_resampled(place, 13.0).read()]
    monkeypatch.setattr(frames, "KEPT_BYTES", 50_000)  # ten pictures
    film = frames.Video(place, 13.0)
    assert film.num_frames == len(stored)
    every = [*range(len(stored))]
    anywhere = random.Random(0).choices(every, k=60)
    for frame in (*anywhere, *every, *reversed(every)):
        assert film.picture(frame).tobytes() == stored[frame], frame
    assert film._kept_bytes <= 50_000
    film.close()
    assert film.picture(7).tobytes() == stored[7]


@pytest.fixture
def film(tmp_path):
    return frames.Video(write_film(tmp_path / "bench.mp4"), 5.0)


@pytest.fixture
def kept(tmp_path):
    """The folder of labels as the page has it."""
    (tmp_path / "labels").mkdir()
    with open_store(tmp_path / "labels") as kept:
        yield kept


def labels_in(folder, fps=PROCEDURE.fps):
    return LabelFolder(folder, PROCEDURE.at(fps), Terms(), ["bench3", "bench4"])


def write(labels, name, film, steps, **state):
    labels.find()
    return labels.write(name, film, labels.read(name, film), steps, State(**state))


def test_labels_of_others_stay_as_they_are_until_they_are_changed(film, kept):
    root = kept.folder
    (root / "repair1").mkdir()
    table = "start;end;step;who\n0,1;1,0;Install seal;me\n"
    (root / "bench1.csv").write_text(table)
    (root / "repair1/PSR_labels.csv").write_text("00009.jpg,8,Remove screw\n")
    (root / "bench2.txt").write_text("step\ttime\nInstall seal\t1\n")
    (root / "all.xml").write_text(cvat_project(["bench3", "bench4"]))
    (root / "other.json").write_text("{}")
    labels = labels_in(kept)
    assert labels.unread[0].startswith(f"{root}/other.json is of no label format")
    with pytest.raises(ValueError, match="has the labels of several recordings"):
        write(labels, "bench3", film, [])
    assert labels.read("bench1", film).steps == labels.read("bench2", film).steps == [(5, 0)]
    assert labels.read("repair1", film).steps == [(9, 8)]
    given = [path for path in root.rglob("*.*") if path.is_file()]
    before = {path: path.read_bytes() for path in given}
    for name in ("bench1", "bench2", "repair1"):
        write(labels, name, film, labels.read(name, film).steps, done=True)
    assert {path: path.read_bytes() for path in before} == before
    for name, step in (("bench1", 3), ("bench2", 3), ("repair1", 7)):
        write(labels, name, film, [(11, step)])
        write(labels, name, film, [(12, step)])  # a file of the page's own is just replaced
    there = {".label", "all.xml", "other.json", "bench1.csv", "bench2.csv", "repair1.csv"}
    assert {path.name for path in root.iterdir()} == there
    assert (root / "bench1.csv").read_text() == "time,step\n2.4,Install cover\n"
    assert (root / ".label/before/bench1/1/bench1.csv").read_text() == table
    assert (root / ".label/before/bench2/1/bench2.txt").exists()
    assert (root / ".label/before/repair1/1/PSR_labels.csv").exists()
    assert not list((root / ".label/before").glob("*/2"))
    write(labels, "bench1", film, [])
    assert not (root / "bench1.csv").exists()
    write(labels, "bench1", film, [], done=True)
    assert (root / "bench1.csv").read_text() == "time,step\n"


def test_nothing_is_written_through_a_link_out_of_the_folder(film, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (tmp_path / "one").mkdir()
    (tmp_path / "one/.label").symlink_to(elsewhere)
    with pytest.raises(ValueError, match="is a link out of"), open_store(tmp_path / "one"):
        pass
    (tmp_path / "two").mkdir()
    (tmp_path / "two/train").symlink_to(elsewhere)
    (elsewhere / "bench.csv").write_text("time,step\n1,0\n")
    with open_store(tmp_path / "two") as kept, pytest.raises(ValueError, match="is a link out of"):
        write(labels_in(kept), "bench", film, [(3, 0)])
    assert [path.name for path in elsewhere.iterdir()] == ["bench.csv"]
    assert (elsewhere / "bench.csv").read_text() == "time,step\n1,0\n"


def test_boxes_of_yolo_are_shown_and_kept_when_the_page_changes_them(film, kept):
    boxes, yolo = BoxFolder(kept, 5.0), kept.folder / "boxes/bench"
    yolo.mkdir(parents=True)
    (yolo / "000003.txt").write_text("0 0.5 0.5 0.25 0.5\n")
    (yolo / "000007.txt").write_text("")
    drawn = [Box(3, 24, 12, 16, 24), Box(7, 0, 0, 0, 0)]
    assert boxes.read("bench", film)[0] == drawn
    boxes.write("bench", film, drawn[:1])
    assert boxes.read("bench", film)[0] == drawn[:1]
    assert len([*kept.own.glob("before/bench/1/*.txt")]) == 2
    assert not [*yolo.iterdir()]
