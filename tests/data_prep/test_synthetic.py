import functools
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import simplejpeg

from data_prep import synthetic
from data_prep.rendering import seeds
from data_prep.worlds import hiding, motion, objects, rendered, timelines
from stormpsr_jax.data.annotation import NOT_ANNOTATED
from stormpsr_jax.data.clips import ClipSource
from stormpsr_jax.psr.procedure import load_procedure
from tests.support.digests import digests

LABELS = Path(__file__).parents[2] / "../shared/data/meccano_psr_labels"
SYNTHETIC = load_procedure("synthetic")
MECCANO = load_procedure("meccano")

_record = functools.partial(
    synthetic.make_recording,
    seed=0,
    occlusion="default",
    size=16,
    renders=rendered.cad_recordings(SYNTHETIC, 3, 3),
    directory=None,
    time_scale=1.0,
    pace=1.0,
)


def _write_labels(directory):
    """Short timelines of the 17-component procedure with an incorrect part and a removal."""
    for split, name, frames in (
        ("train", "a", (0, 20, 50, 60)),
        ("train", "b", (0, 30, 31, 70)),
        ("val", "c", (0, 10, 45, 80)),
        ("test", "d", (0, 20, 50, 60)),
    ):
        folder = directory / split / name
        folder.mkdir(parents=True)
        states = ("0" * 17, "1" + "0" * 16, "1" * 3 + "0" * 14, "0" * 17)
        rows = [f"{f:05d}.jpg,{','.join(s)}" for f, s in zip(frames, states, strict=True)]
        rows[2] = rows[2].replace("1,1,1", "1,1,-1")
        (folder / "PSR_labels_raw.csv").write_text("\n".join(rows) + "\n")
    return directory


@pytest.mark.usefixtures("system")  # workers
def test_make_dataset_same_seed_same_bytes_for_any_workers(tmp_path):
    labels = _write_labels(tmp_path / "labels")
    make = functools.partial(
        synthetic.make_dataset, size=16, cad_per_state=0, timelines=labels, time_scale=8.0
    )
    for name, seed, workers in (("one", 3, 1), ("two", 3, 2), ("other", 4, 1)):
        procedure = make(tmp_path / name, seed=seed, workers=workers)
    assert procedure == MECCANO  # the fps of the labels' procedure stays
    one, two, other = (digests(tmp_path / name) for name in ("one", "two", "other"))
    assert one == two
    shards = [path for path in one if path.startswith("clips-")]
    assert len(shards) == 4
    assert all(one[path] != other[path] for path in shards)
    with np.load(tmp_path / "one" / "labels" / "train.npz") as file:
        assert file["recordings"].tolist() == ["a", "b"]
        assert -1 in file["states"]


def test_make_recording_annotations_fit_what_is_visible():
    data = _record("train", "train_000", procedure=SYNTHETIC)
    images = [simplejpeg.decode_jpeg(jpeg) for jpeg in data.jpegs]
    assert len(images) == len(data.states) == len(data.visible)
    assert {image.shape for image in images} == {(16, 16, 3)}
    annotated = data.visible > 0.9
    assert 0.05 < annotated.mean() < 0.5
    np.testing.assert_array_equal(~np.isnan(data.boxes).any(1), annotated)
    classes = SYNTHETIC.state_classes(data.states)
    np.testing.assert_array_equal(data.classes, np.where(annotated, classes, -1))
    low = data.boxes[annotated, :2] - data.boxes[annotated, 2:] / 2
    high = data.boxes[annotated, :2] + data.boxes[annotated, 2:] / 2
    assert low.min() >= -1e-6
    assert high.max() <= 1 + 1e-6
    height = data.boxes[annotated, 3].mean()
    assert 0.45 < height < 0.75
    # Completions happen under the hands.
    events = np.flatnonzero((data.states[1:] != data.states[:-1]).any(1)) + 1
    assert np.mean(data.visible[events] > 0.9) < 0.1
    assert list(data.jpegs) == []  # consumed once


def test_make_recording_splits_and_names_share_no_timeline_camera_or_light(tmp_path):
    def first_frames(split, name, seed):
        when, how, looks, noise = seeds.streams(seed, "recording", split, name)
        return [rng.integers(2**62) for rng in (when, how, looks, noise)]

    drawn = [
        number
        for seed in (0, 1)
        for split in ("train", "val", "test", "cad")
        for name in ("train_000", "train_001", "val_000")
        for number in first_frames(split, name, seed)
    ]
    assert len(set(drawn)) == len(drawn) == 2 * 4 * 3 * 4
    labels = _write_labels(tmp_path)
    one, two = (  # the same timeline
        _record(split, name, procedure=MECCANO, directory=labels)
        for split, name in (("train", "a"), ("test", "d"))
    )
    np.testing.assert_array_equal(one.states, two.states)
    first_one, first_two = (simplejpeg.decode_jpeg(next(d.jpegs)) for d in (one, two))
    assert np.abs(first_one.astype(int) - first_two).mean() > 5


def test_make_recording_clean_renders_show_each_state_wholly():
    pictures = []
    for number in (1, 21):
        data = _record("cad", f"cad_{number:02d}", procedure=SYNTHETIC)
        jpegs = list(data.jpegs)
        assert data.visible.tolist() == [1, 1, 1]
        assert data.classes.tolist() == [number] * 3
        assert (data.states == SYNTHETIC.states[number - 1]).all()
        assert not np.isnan(data.boxes).any()
        pictures.append([simplejpeg.decode_jpeg(jpeg) for jpeg in jpegs])
    for picture in np.concatenate(pictures).astype(int):  # nothing but the plain background
        corners = picture[[0, 0, -1, -1], [0, -1, 0, -1]]
        assert np.ptp(corners, axis=0).max() < 30
    colourful = [np.ptp(np.array(p), axis=-1).mean() for p in pictures]
    assert colourful[1] > 1.5 * colourful[0]


def test_make_recording_renders_of_parts_that_sit_wrong():
    """What such pictures show is what their states say: other poses in every picture."""
    data = _record("cad", "wrong_21", procedure=SYNTHETIC, size=48)
    jpegs = list(data.jpegs)
    boxed = ~np.isnan(data.boxes).any(axis=1)
    np.testing.assert_array_equal(data.classes, np.where(boxed, SYNTHETIC.error_class, -1))
    np.testing.assert_array_equal(boxed, data.visible > 0.9)
    assert (np.abs(data.states) == SYNTHETIC.states[20]).all()
    assert (data.states == -1).any(1).all()
    # The same workplaces and cameras, with every part as it should be.
    product = synthetic.toy_product(11, seeds.streams(0, "product")[0])
    _, how, looks, noise = seeds.streams(0, "recording", "cad", "wrong_21")
    views = motion.plan_views(3, how, hands=synthetic.WRONG_HANDS, turn=synthetic.WRONG_TURN)
    right = objects.Body(product.mesh(SYNTHETIC.states[20]))
    places = (synthetic.Workplace(product, lambda _: right, looks) for _ in range(3))
    pictures = (place.picture(views, i, data.states[i], 48) for i, place in enumerate(places))
    same = rendered.encode("x", 0, pictures, data.states, SYNTHETIC, noise)
    shown = data.visible > 0.5
    assert shown.any()
    for i, (wrong, as_it_should_be) in enumerate(zip(jpegs, same.jpegs, strict=True)):
        a, b = (simplejpeg.decode_jpeg(x).astype(int) for x in (wrong, as_it_should_be))
        corners = (slice(None, 4), slice(None, 4))
        assert np.abs(a[corners] - b[corners]).max() < 3  # the same light and background
        assert not shown[i] or (np.abs(a - b).max(-1) > 40).sum() > 30


@pytest.mark.parametrize("name", ["cad_21", "wrong_21"])
def test_make_recording_renders_tell_how_the_product_lies(name):
    """Its axes span all of it, but for the near rim of the board, and little more."""
    data = _record("cad", name, procedure=SYNTHETIC, size=64)
    list(data.jpegs)
    assert data.poses.shape == (3, 6)
    for pose, box in zip(data.poses, data.boxes, strict=True):
        if np.isnan(box).any():
            continue
        middle, x_axis, y_axis = pose.reshape(3, 2)
        corners = middle + [a * x_axis + b * y_axis for a in (-1, 1) for b in (-1, 1)]
        low, high = box[:2] - box[2:] / 2, box[:2] + box[2:] / 2
        assert (corners.min(0) < low + 0.02).all()
        assert (corners.max(0) > high - 0.08).all()
        assert (np.ptp(corners, axis=0) < 2 * box[2:]).all()
        assert x_axis[0] * y_axis[1] - x_axis[1] * y_axis[0] < 0  # seen from above, y is down


def test_make_recording_recordings_do_not_tell_how_the_product_lies():
    assert _record("train", "train_000", procedure=SYNTHETIC).poses is None


def test_cad_recordings_right_and_wrong_ones_of_the_states_that_show_something():
    assert rendered.cad_recordings(SYNTHETIC, 0, 0) == {}
    right = rendered.cad_recordings(SYNTHETIC, 3, 0)
    assert right == {f"cad_{c:02d}": 3 for c in range(1, SYNTHETIC.num_states + 1)}
    wrong = rendered.cad_recordings(SYNTHETIC, 0, 2)
    shown = np.flatnonzero(SYNTHETIC.states.any(axis=1)) + 1
    assert wrong == {f"wrong_{c:02d}": 2 for c in shown}
    assert 0 < len(wrong) < len(right)
    assert rendered.cad_recordings(SYNTHETIC, 3, 2) == right | wrong


@pytest.mark.usefixtures("system")  # workers
def test_make_dataset_wrong_renders_change_no_other_recording(tmp_path):
    """The same bytes for any workers, and those of the right renders as without the wrong ones."""
    make = functools.partial(
        synthetic.make_dataset, size=16, cad_per_state=1, recordings={}, seed=5
    )
    make(tmp_path / "without")
    for name, workers in (("one", 1), ("two", 2)):
        make(tmp_path / name, cad_wrong=2, workers=workers)
    without, one, two = (digests(tmp_path / name) for name in ("without", "one", "two"))
    assert one == two
    clips = {path for path in without if path.startswith("clips-")}

    def pictures(folder):
        source = ClipSource(tmp_path / folder, "cad", SYNTHETIC)
        return {
            name: source.jpegs(name, range(r.num_frames)) for name, r in source.recordings.items()
        }

    before, after = pictures("without"), pictures("one")
    assert len(clips) == len(before) == SYNTHETIC.num_states
    assert {name: after[name] for name in before} == before
    added = after.keys() - before.keys()
    assert len(added) == SYNTHETIC.states.any(axis=1).sum()
    assert all(name.startswith("wrong_") for name in added)
    different = {jpeg for name in added for jpeg in after[name]}
    assert len(different) == 2 * len(added)


@pytest.mark.usefixtures("system")  # workers
def test_make_dataset_rehearsals_are_full_of_mistakes_and_change_nothing_else(tmp_path):
    make = functools.partial(
        synthetic.make_dataset, size=8, fps=1, cad_per_state=0, recordings={"train": 2, "test": 1}
    )
    make(tmp_path / "without")
    make(tmp_path / "with", error_recordings=3, workers=2)

    def pictures(folder, split):
        source = ClipSource(tmp_path / folder, split, SYNTHETIC)
        return {
            name: (source.jpegs(name, range(r.num_frames)), (r.states == -1).any(0).mean())
            for name, r in source.recordings.items()
        }

    before, after = pictures("without", "train"), pictures("with", "train")
    assert pictures("without", "test") == pictures("with", "test")
    assert {name: after[name] for name in before} == before
    added = after.keys() - before.keys()
    assert added == {f"rehearsal_{i:03d}" for i in range(3)}
    assert max(wrong for _, wrong in before.values()) < 0.25
    assert 0.3 < np.mean([after[name][1] for name in added]) < 0.7
    source = ClipSource(tmp_path / "with", "train", SYNTHETIC)
    for name, r in source.recordings.items():
        looked_at = name not in added
        assert (
            (r.classes != NOT_ANNOTATED).all() if looked_at else (r.classes == NOT_ANNOTATED).all()
        )
        assert np.isfinite(r.boxes).any() == looked_at
        assert (r.visible > 0).any()
    with pytest.raises(ValueError, match="--error_recordings=3 are made up"):
        make(tmp_path / "none", error_recordings=3, timelines=tmp_path)


def test_make_dataset_pictures_of_rehearsals_are_shown_for_several_frames(tmp_path):
    make = functools.partial(
        synthetic.make_dataset,
        size=8,
        fps=1,
        cad_per_state=0,
        recordings={"train": 1},
        error_recordings=1,
    )
    make(tmp_path / "each")
    make(tmp_path / "third", error_recordings_step=3)
    each, third = (ClipSource(tmp_path / f, "train", SYNTHETIC) for f in ("each", "third"))
    name = "train_000"
    numbers = each.numbers(name)
    assert third.jpegs(name, numbers) == each.jpegs(name, numbers)
    name = "rehearsal_000"
    numbers = each.numbers(name)
    assert (third.numbers(name) == numbers).all()
    shown = np.arange(len(numbers)) // 3 * 3
    of_each, of_third = each.recordings[name], third.recordings[name]
    for field in ("states", "visible", "boxes", "classes"):
        expected = getattr(of_each, field)[shown]
        np.testing.assert_array_equal(getattr(of_third, field), expected)
    assert (of_each.states != of_third.states).any()
    jpegs = third.jpegs(name, numbers)
    assert jpegs == [jpegs[i] for i in shown]
    assert len(set(jpegs)) == len(set(shown))
    # The same scenes, though the grain of the pictures is drawn anew for each that is made.
    held, made = (source.frames(name, numbers).astype(int) for source in (third, each))
    assert 2 * np.abs(held - made[shown]).mean() < np.abs(held - made[np.roll(shown, 30)]).mean()
    with pytest.raises(ValueError, match="--error_recordings_step=0 is below 1"):
        make(tmp_path / "none", error_recordings_step=0)


def test_make_recording_wrong_poses_of_a_rehearsal_are_its_own(monkeypatch):
    used = []
    monkeypatch.setattr(synthetic, "bodies_of", lambda product: used.append(product))
    names = ("train_000", "train_001", "rehearsal_000", "rehearsal_001", "rehearsal_001")
    for name in names:
        _record("train", name, procedure=SYNTHETIC)
    poses = [np.stack([part.wrong for part in product.parts]) for product in used]
    distances = [[float(np.abs(a - b).max()) for b in poses] for a in poses]
    assert distances[0][1] == distances[3][4] == 0
    assert min(distances[0][2], distances[0][3], distances[2][3]) > 0.1
    for product in used:
        right = np.stack([part.right for part in product.parts])
        assert (right == np.stack([part.right for part in used[0].parts])).all()


@pytest.mark.skipif(not LABELS.exists(), reason="needs the MECCANO label files")
def test_make_recording_matches_a_real_meccano_label_file():
    data = _record("train", "0018", procedure=MECCANO, directory=LABELS, time_scale=200.0, size=8)
    text = (LABELS / "train" / "0018" / "PSR_labels_raw.csv").read_text().split()
    real = [[int(v) for v in row.split(",")[1:]] for row in text]
    changes = np.flatnonzero((data.states[1:] != data.states[:-1]).any(1)) + 1
    assert data.states[[0, *changes]].tolist() == real
    assert -1 in data.states
    frames = np.array([int(row.split(".")[0]) for row in text[1:]])
    assert np.abs(data.first_frame + changes - frames / 200).max() < 6


def test_occlusion_levels_are_ordered_and_completions_hidden():
    clear, hidden = {}, {}
    for level in hiding.OCCLUSIONS:
        visible, at_events = [], []
        for name in ("train_000", "train_001", "train_002", "train_003"):
            when, how, looks, _ = seeds.streams(0, "recording", "train", name)
            timeline = timelines.draw_timeline(SYNTHETIC, when)
            product = synthetic.toy_product(11, np.random.default_rng(0))
            places = np.array([part.right[:2, 3] for part in product.parts])
            plan = motion.plan_recording(timeline, places, 5, hiding.OCCLUSIONS[level], how)
            workplace = synthetic.Workplace(product, synthetic.bodies_of(product), looks)
            states = timeline.per_frame()
            events = [frame for frame, _ in timelines.changes(timeline)]
            for chosen, shares in ((range(0, len(states), 8), visible), (events, at_events)):
                shares += [workplace.picture(plan, i, states[i], 16).visible for i in chosen]
        clear[level] = np.mean(np.array(visible) > 0.9)
        hidden[level] = np.mean(np.array(at_events) < 0.9)
    assert clear["light"] > 1.3 * clear["default"] > 1.3 * clear["heavy"] > 0
    assert 0.12 < clear["default"] < 0.35
    assert min(hidden.values()) > 0.9


def test_seeds_of_datasets_and_objects_are_disjoint(tmp_path):
    border = synthetic.FIRST_OBJECT_SEED
    for seed in (border, border + 5, -1):
        with pytest.raises(ValueError, match=f"--seed={seed}"):
            synthetic.make_dataset(tmp_path / "d", seed=seed)
    for seed in (0, border - 1):
        with pytest.raises(ValueError, match=f"--seed={seed}"):
            synthetic.make_objects(tmp_path / "d", seed=seed, objects={"train": 1})
    with pytest.raises(ValueError, match="--occlusion=none"):
        synthetic.make_dataset(tmp_path / "d", occlusion="none")
    with pytest.raises(ValueError, match=r"--pace=0\.5 is below 1"):
        synthetic.make_dataset(tmp_path / "d", pace=0.5)
    with pytest.raises(ValueError, match=r"--pace=2\.0 is for made-up timelines"):
        synthetic.make_dataset(tmp_path / "d", pace=2.0, timelines=tmp_path)
    assert not (tmp_path / "d").exists()


def test_make_object_related_states_of_one_product():
    states = objects.related_states(np.random.default_rng(0), 11)
    assert len(np.unique(states, axis=0)) == len(states) == objects.OBJECT_STATES
    for i, state in enumerate(states[1:], 1):
        assert ((states[:i] != state).sum(1) == 1).any()


def test_main_objects_and_recordings(tmp_path):
    out = tmp_path / "objects"
    common = ("--size=8", "--workers=1")
    synthetic.main([f"--out={out}", "--objects=2", *common])
    with np.load(out / "labels" / "train.npz") as file:
        assert file["recordings"].tolist() == ["object_00000"]
        assert file["states"].shape == (100, 11)
        assert len(np.unique(file["states"], axis=0)) > 5
        assert 0.2 < np.mean(file["visible"] > 0.9) < 0.95
    with np.load(out / "labels" / "val.npz") as file:
        assert file["recordings"].tolist() == ["object_00001"]
    out = tmp_path / "cad"
    none = ("--train=0", "--val=0", "--test=0", "--cad_per_state=1", "--fps=4")
    synthetic.main([f"--out={out}", *none, *common])
    with np.load(out / "labels" / "cad.npz") as file:
        assert file["classes"].tolist() == list(range(1, 22))
    out = tmp_path / "wrong"
    synthetic.main([f"--out={out}", *none[:3], "--cad_per_state=0", "--cad_wrong=2", *common])
    with np.load(out / "labels" / "cad.npz") as file:
        assert set(file["classes"].tolist()) == {-1, 22}  # hands hide some
        assert (file["states"] == -1).any(1).all()
        assert len(file["states"]) == 2 * SYNTHETIC.states.any(axis=1).sum()


def test_make_recording_renders_a_picture_when_it_is_asked_for(monkeypatch):
    rendered = []
    picture = synthetic.Workplace.picture
    monkeypatch.setattr(
        synthetic.Workplace,
        "picture",
        lambda *args: rendered.append(args[2]) or picture(*args),
    )
    data = _record("train", "train_000", procedure=SYNTHETIC)
    assert rendered == []
    next(data.jpegs)
    next(data.jpegs)
    assert rendered == [0, 1]
    assert (data.visible[:2] > 0).all()
    assert (data.visible[2:] == 0).all()


@pytest.mark.parametrize(("real", "pace"), [(False, 1.0), (False, 3.0), (True, 1.0)])
def test_make_dataset_knows_the_frames_beforehand(tmp_path, monkeypatch, real, pace):
    """They make the total of the progress right from the start."""
    told = {}
    monkeypatch.setattr(synthetic.shards, "build", lambda _, **arguments: told.update(arguments))
    labels = _write_labels(tmp_path) if real else None
    counts = {"train": 1, "test": 2}
    procedure = synthetic.make_dataset(
        tmp_path / "out",
        recordings=counts,
        cad_per_state=3,
        cad_wrong=2,
        error_recordings=0 if real else 2,
        timelines=labels,
        time_scale=2.0,
        pace=pace,
    )
    renders = rendered.cad_recordings(procedure, 3, 2)
    record = functools.partial(
        _record, directory=labels, time_scale=2.0, pace=pace, renders=renders
    )
    made = {
        name: len(record(split, name, procedure=procedure).states)
        for split, names in told["splits"].items()
        for name in names
    }
    assert told["num_frames"] == made
    assert made["wrong_02"] == 2
    shown = int(procedure.states.any(axis=1).sum())  # the others have nothing that could be wrong
    recorded = 4 if real else 3 + 2  # with the rehearsals
    assert len(made) == recorded + procedure.num_states + shown


def test_main_globs_fill_one_folder(tmp_path):
    def run(out, *arguments):
        common = [f"--out={out}", "--size=16", "--workers=1", "--cad_per_state=2"]
        assert synthetic.main([*common, *arguments]) == 0

    small = ("--train=0", "--val=0", "--test=0")
    run(tmp_path / "whole", *small)
    run(tmp_path / "parts", *small, "--recordings=cad_0*")
    assert not (tmp_path / "parts" / "dataset_info.json").exists()
    run(tmp_path / "parts", *small, "--recordings=cad/cad_[1-9]*")
    assert digests(tmp_path / "parts") == digests(tmp_path / "whole")

    objects = ("--objects=2",)
    run(tmp_path / "objects", *objects, "--recordings=object_00001")
    assert len(list((tmp_path / "objects").glob("clips-*"))) == 1


def test_command_ctrl_c_takes_effect_at_the_next_picture(tmp_path):
    """A recording of this size takes a minute."""
    out = tmp_path / "out"
    counts = ["--train=1", "--val=1", "--test=1", "--cad_per_state=0"]
    process = subprocess.Popen(
        [sys.executable, "-m", "data_prep.synthetic", f"--out={out}", "--size=384", *counts],
        cwd=Path(__file__).parents[2],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stderr=subprocess.PIPE,
        start_new_session=True,
        text=True,
    )
    first = process.stderr.readline()
    numbers = [seeds.streams(0, "recording", s, f"{s}_000")[0] for s in ("train", "val", "test")]
    frames = [timelines.draw_timeline(SYNTHETIC, rng).num_frames for rng in numbers]
    assert f" 0/{sum(frames)} [" in first, "the total is right from the start"
    deadline = time.monotonic() + 120
    while not list(out.glob("unfinished/*[0-9]")):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    start = time.monotonic()
    os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=120)
    assert time.monotonic() - start < 10
    assert process.returncode == 130
    assert said.splitlines()[-1].startswith("interrupted; run the same command again")
    assert "Traceback" not in said
    assert not list(out.glob("clips-*"))
