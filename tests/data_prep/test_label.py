import asyncio
import gc
import json
import random
from pathlib import Path

import numpy as np
import pytest

from data_prep import matching
from data_prep.label import frames
from data_prep.label.boxes import Box, BoxFolder
from data_prep.label.labels import LabelFolder
from data_prep.label.models import TrainingOptions, training
from data_prep.label.runner import CommandRunner
from data_prep.label.store import State, open_store
from stormpsr_jax.media import video
from stormpsr_jax.recordings.recording import LabelPlace, Recording
from stormpsr_jax.recordings.words import Terms
from tests.data_prep.test_own_formats import cvat_project
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
    "constant.mp4": {},
    "variable.mp4": {"variable": True},
    "variable.mkv": {"variable": True},
    "open.mp4": {"x264-params": "open-gop=1"},
    "turned.mp4": {"turned": True},
    "refreshed.mp4": {"x264-params": "intra-refresh=1"},
    "cut.mp4": {"start": 40},
    "cut.ts": {"start": 31},
    "hevc.mp4": {"codec": "libx265", "x265-params": "keyint=30:log-level=none"},
    "part2.avi": {"codec": "mpeg4"},
    "dvd.mpg": {"codec": "mpeg2video"},
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
    film = frames.Film(place, 13.0)
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
    return frames.Film(write_film(tmp_path / "bench.mp4"), 5.0)


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


@pytest.mark.parametrize(
    ("name", "fps"),
    [
        *[("constant.mp4", 12.0), ("constant.mp4", 29.97), ("variable.mkv", 7.3)],
        *[("variable.mkv", 29.97), ("cut.mp4", 5.0), ("cut.mp4", 7.3)],
    ],
)
def test_own_reads_labels_at_the_frames_at_which_they_were_set(tmp_path, name, fps):
    place = write_film(tmp_path / name, **FILMS[name])
    film, procedure, draw = frames.Film(place, fps), PROCEDURE.at(fps), random.Random(name)
    pictures = video.open_resampled(place, fps)
    with open_store(tmp_path / "labels") as kept:
        for _ in range(20):
            at = sorted(draw.sample(range(1, film.num_frames), 6))
            steps = list(zip(at, (0, 4, 2, 3, 6, 1), strict=True))
            assert write(labels_in(kept, fps), "bench", film, steps).steps == steps
            labelled = LabelPlace(tmp_path / "labels/bench.csv")
            read = Recording("bench", pictures, labelled, None, procedure).labels
            assert read.frames.tolist() == [0, *at]
            changed = read.states[np.arange(1, 7), [step // 3 for _, step in steps]]
            assert changed.tolist() == [(1, -1, 0)[step % 3] for _, step in steps]


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


def test_what_own_does_not_take_is_saved_and_told(film, kept):
    labels = labels_in(kept)
    steps = [(0, 0), (4, 0), (9, 5)]
    assert write(labels, "bench", film, steps).steps == steps
    told = labels.warnings("bench", steps)
    assert [frame for frame, _ in told] == [4, 9]
    assert "changes nothing: it is installed since frame 0" in told[0][1]
    quick = [(0, 0), (3, 3), (5, 6), (7, 7), (9, 6)]  # a rework within a clip is right
    assert labels.warnings("bench", quick) == []
    for wrong in ([(25, 0)], [(-1, 0)], [(1, 9)], [(1, 0), (1, 0)]):
        with pytest.raises(ValueError, match=r"is not a whole number in|given twice"):
            write(labels, "bench", film, wrong)
    assert labels.read("bench", film).steps == steps


def test_a_kill_between_two_files_leaves_one_of_them(film, tmp_path, monkeypatch):
    root = tmp_path / "labels"
    root.mkdir()
    (root / "bench.txt").write_text("step\ttime\nInstall seal\t1\n")
    outside = tmp_path / "precious.csv"
    outside.write_text("time,step\n")

    def killed(*_):
        raise KeyboardInterrupt

    with open_store(root) as kept, monkeypatch.context() as patch:
        patch.setattr("data_prep.label.store._remove", killed)
        with pytest.raises(KeyboardInterrupt):
            write(labels_in(kept), "bench", film, [(3, 0)])
    assert (root / "bench.txt").exists()
    with open_store(root) as kept:
        assert not (root / "bench.txt").exists()
        assert labels_in(kept).read("bench", film).steps == [(3, 0)]
    (root / "bench.csv").write_text("frame,step\n3,0\n")
    with open_store(root) as kept, monkeypatch.context() as patch:
        patch.setattr("data_prep.label.store.files.write_text", killed)
        with pytest.raises(KeyboardInterrupt):
            write(labels_in(kept), "bench", film, [(4, 0)])
    with open_store(root):
        assert (root / "bench.csv").read_text() == "frame,step\n3,0\n"
    (root / ".label/moving.json").write_text(json.dumps([str(root / "bench.csv"), str(outside)]))
    with pytest.raises(ValueError, match="nothing is written"), open_store(root):
        pass
    assert outside.exists()


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


def test_boxes_are_carried_between_drawn_ones_as_own_reads_them(film, kept):
    drawn = [Box(2, 10, 10, 20, 10), Box(6, 20, 14, 20, 10), Box(8, 0, 0, 0, 0)]
    boxes = BoxFolder(kept, 5.0)
    boxes.write("bench", film, [*reversed(drawn)])
    assert boxes.read("bench", film)[0] == drawn
    assert kept.folder.joinpath("boxes/bench.json").stat().st_size < 3000
    found = matching.find_boxes(kept.folder / "boxes", ["bench"])["bench"]
    read = found()
    assert read.frames.tolist() == [2, 3, 4, 5, 6]
    assert read.empty.tolist() == [8]
    assert read.boxes[2].tolist() == [(15 + 10) / 64, (12 + 5) / 48, 20 / 64, 10 / 48]
    assert labels_in(kept).errors == {}  # the folder of boxes is that of no recording
    far = [Box(0, 1, 1, 9, 9), Box(24, 30, 30, 9, 9)]
    BoxFolder(kept, 1.0).write("bench", film, far)  # 24 seconds apart
    assert found().frames.tolist() == [0, 24]
    # Those of others are all drawn, and kept.
    data = json.loads((kept.folder / "boxes/bench.json").read_text())
    del data["drawn"]
    (kept.folder / "boxes/bench.json").write_text(json.dumps(data))
    assert boxes.read("bench", film)[0] == far
    boxes.write("bench", film, [])
    assert not (kept.folder / "boxes/bench.json").exists()
    assert (kept.own / "before/bench/1/bench.json").exists()
    for wrong in (Box(25, 1, 1, 9, 9), Box(1, 100, 1, 9, 9), Box(1, 1, 1, 0, 9)):
        with pytest.raises(ValueError, match="frame"):
            boxes.write("bench", film, [wrong])


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


def test_each_set_of_videos_trains_in_folders_of_its_own():
    def folders(videos, labels, **wanted):
        told = training(videos, Path(labels), None, "pump.json", TrainingOptions(**wanted))
        return tuple(map(str, told[1:3]))

    assert folders("a/videos", "a/labels") == ("a/data", "a/runs/pump")
    assert folders("a/lamps", "a/labels") == ("a/data_lamps", "a/runs/pump_lamps")
    assert folders("a/videos", "a/new", aspect="pad") == ("a/data_new_pad", "a/runs/pump_new_pad")


def test_a_training_starts_from_the_weights_of_the_last_one_that_has_ended(tmp_path):
    def make(*names):
        for name in names:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).touch()

    def flags():
        given = f"{tmp_path}/videos", tmp_path / "labels", tmp_path / "labels/boxes", "pump.json"
        (_, main), _, workdir, before = training(*given, TrainingOptions())
        assert main[:2] == ["stormpsr_jax.main", "--config=own:boxes"]
        return (workdir.name, before and before.name), [f.replace(f"{runs}/", "") for f in main[4:]]

    runs = tmp_path / "runs"
    assert flags() == (("pump_boxes", None), [])
    make("runs/pump_boxes/config.json")  # it was interrupted, and labels may be others since
    assert flags() == (("pump_boxes", None), ["--remake"])
    weights = [f"runs/pump_boxes/{stage}/best.safetensors" for stage in ("pretrain", "detector")]
    make("runs/pump_boxes/model/model.json", *weights)
    starts = [
        "--config.init_from=pump_boxes/pretrain/best.safetensors",
        "--config.detector.init_from=pump_boxes/detector/best.safetensors",
    ]
    assert flags() == (("pump_boxes_2", "pump_boxes"), starts)
    make("runs/pump_boxes_2/model/model.json")
    assert flags() == (("pump_boxes_3", "pump_boxes_2"), [])


def test_commands_tell_how_far_they_are_and_can_be_stopped(system):
    async def act():
        running = CommandRunner()
        assert await running.run([["timeit", "-n1", "-r1", "pass"]])
        assert running.state == "done"
        assert "1 loop" in running.line
        assert not await running.run([["json.tool", "/nowhere"], ["timeit", "pass"]])
        assert running.state == "failed"
        assert "/nowhere" in running.line
        asyncio.get_running_loop().call_later(2, running.stop)
        await running.run([["timeit", "-s", "import time", "time.sleep(60)"]])
        assert running.state == "idle"

    asyncio.run(act())
