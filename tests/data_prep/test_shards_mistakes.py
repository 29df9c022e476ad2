"""Arguments and recordings that do not fit, and makers that fail: one clear error each."""

import functools
import re

import numpy as np
import pytest
import simplejpeg

from tests.support.digests import digests
from tests.support.shards_data import build, make, toy_procedure, toy_recording


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fps": 6}, "fps 5.0 → 6.0"),
        ({"image_size": (24, 24)}, "image_size"),
        ({"splits": {"train": ["a", "b", "c"]}}, r"splits.test \['d'\] → absent"),
        ({"settings": {"seed": {"scene": 1}}}, "settings.seed.scene absent → 1"),
        ({"procedure": toy_procedure(name="other")}, "name toy → other"),
        ({"procedure": toy_procedure(states=["100"])}, r"states \["),
    ],
)
def test_build_other_arguments_are_refused(built, change, message):
    before = digests(built)
    with pytest.raises(ValueError, match=f"made with other arguments .*{message}.*another folder"):
        build(built, **change)
    assert digests(built) == before


@pytest.mark.parametrize(
    ("kind", "workers", "error", "message"),
    [
        ("value", 1, ValueError, "recording train/b: no b here"),
        ("value", 2, ValueError, "recording train/b: no b here"),
        ("key", 1, RuntimeError, "recording train/b: KeyError: 'no b here'"),
    ],
)
@pytest.mark.usefixtures("system")  # workers
def test_build_failure_names_the_recording(tmp_path, kind, workers, error, message):
    failing = functools.partial(make, fail=f"{kind},b")
    with pytest.raises(error, match=message):
        build(tmp_path / "out", make=failing, workers=workers)
    assert not (tmp_path / "out" / "dataset_info.json").exists()
    assert not list((tmp_path / "out").glob("unfinished/*"))


def altered(split, name, change):
    data = toy_recording(name)
    change(data)
    return data


def set_value(key, index, value):
    def change(data):
        array = np.array(getattr(data, key), float)
        array[index] = value
        setattr(data, key, array)

    return change


def set_poses(value):
    def change(data):
        data.poses = np.full((len(data.states), 6), value)

    return change


def set_jpegs(function):
    def change(data):
        data.jpegs = function(list(data.jpegs))

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (set_value("states", (2, 1), 2), r"states of frame 3 are outside -1…1"),
        (set_value("classes", 4, 5), r"classes of frame 5 are outside -2…4"),
        (set_value("boxes", (0, 0), 1.5), r"boxes of frame 1 are outside 0…1"),
        (set_value("visible", 1, -0.1), r"visible of frame 2 are outside"),
        (set_poses(101.0), r"poses of frame 1 are outside -100…100"),
        (set_jpegs(lambda jpegs: jpegs[:-2]), "it has 15 images for its 17 labelled frames"),
        (set_jpegs(lambda jpegs: jpegs * 2), "more images than its 17 labelled frames"),
        (set_jpegs(lambda jpegs: [jpegs[0], b"GIF89a"]), "frame 2 is not a JPEG"),
        (
            set_jpegs(lambda jpegs: [simplejpeg.encode_jpeg(np.zeros((24, 16, 3), np.uint8))]),
            r"frame 1 is 24x16 \(HxW\), image_size is 16x24",
        ),
    ],
)
def test_build_unfit_recordings_are_refused(tmp_path, change, message):
    assert len(toy_recording("d").states) == 13
    changing = functools.partial(altered, change=change)
    with pytest.raises(ValueError, match=rf"recording train/h: .*{message}"):
        build(tmp_path, make=changing, splits={"train": ["h"]})
    assert not list(tmp_path.glob("clips-*"))
    assert not list(tmp_path.glob("unfinished/*"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"splits": {"train": ["a"], "test": ["a"]}}, "'a' is in split 'test' and in 'train'"),
        ({"splits": {"train": ["a", "a"]}}, "'a' is in split 'train' and in 'train'"),
        ({"splits": {"train": ["../a"]}}, "recording: name '../a': begins with a dot; rename it"),
        ({"splits": {"train": ["a\\b"]}}, "has a / or"),
        ({"splits": {"train": ["u\u0308"]}}, "is not in Unicode NFC"),
        ({"splits": {"tr-ain": ["a"]}}, "letters, digits"),
        ({"splits": {"train": []}}, "no recording"),
        ({"clip_length": 0}, "clip_length = 0 is not positive"),
        ({"workers": 0}, "--workers=0 is less than 1"),
    ],
)
def test_build_wrong_arguments_are_refused(tmp_path, change, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        build(tmp_path / "out", **change)
    assert not (tmp_path / "out").exists()


def test_build_long_lists_are_compared_by_what_differs(tmp_path):
    names = [f"recording_{i:02d}" for i in range(20)]
    build(tmp_path, splits={"train": [*names, "gone"]}, make=make_any)
    with pytest.raises(ValueError, match=r"splits.train \['gone'\] → \['new'\]"):
        build(tmp_path, splits={"train": [*names, "new"]})


def make_any(split, name):
    data = toy_recording("a")
    data.name = name
    return data
