import collections
import io
import json
from unittest import mock

import numpy as np
import pytest
import simplejpeg
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from data_prep.writing import shards
from stormpsr_jax.data import clips
from stormpsr_jax.data import folder as data_folder
from stormpsr_jax.data.clips import ClipSource
from stormpsr_jax.recordings.procedure import Procedure
from tests.support import toy

SIZE = (16, 24)
CLIP_LENGTH = 4
NUM_FRAMES = {"b": 23, "a": 4, "c": 41, "d": 1}
FIRST_FRAMES = {"b": 1, "a": 0, "c": 100, "d": 7}


def toy_procedure(**changes) -> Procedure:
    content = toy.content("base, wheel", "10 11")
    return Procedure.from_json(content | changes)


def toy_jpegs(name: str) -> list[bytes]:
    rng = np.random.default_rng(ord(name))
    # 4 x 4 blocks, so that JPEG keeps the images apart.
    blocks = rng.integers(0, 256, (NUM_FRAMES[name], SIZE[0] // 4, SIZE[1] // 4, 3), np.uint8)
    return [simplejpeg.encode_jpeg(x.repeat(4, 0).repeat(4, 1)) for x in blocks]


def toy_labels(name: str) -> dict[str, np.ndarray]:
    n = NUM_FRAMES[name]
    rng = np.random.default_rng(1000 + ord(name))
    boxes = rng.uniform(0, 1, (n, 4)).astype(np.float32)
    boxes[rng.uniform(size=n) < 0.5] = np.nan
    visible = rng.uniform(0, 1, n).astype(np.float32)
    visible[::3] = np.nan
    states = rng.integers(-1, 2, (n, 2)).astype(np.int8)
    return {
        "states": states,
        "boxes": boxes,
        "classes": rng.integers(-1, 4, n).astype(np.int16),
        "visible": visible,
    }


def make(split: str, name: str) -> shards.RecordingData:
    jpegs = toy_jpegs(name)
    if split == "broken":
        jpegs[5] = jpegs[5][:-30]
    return shards.RecordingData(name, FIRST_FRAMES[name], jpegs, **toy_labels(name))


def build(folder, splits=None):
    shards.build(
        folder,
        procedure=toy_procedure().at(12.5),
        image_size=SIZE,
        splits=splits or {"train": ["b", "a", "c"], "test": ["d"], "val": []},
        make=make,
        clip_length=CLIP_LENGTH,
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("clips") / "data"
    build(path)
    return path


@pytest.fixture(scope="module")
def source(folder):
    return ClipSource(folder, "train", toy_procedure())


def test_clip_source_labels_come_back_exactly(source):
    assert list(source.recordings) == ["a", "b", "c"]
    assert source.fps == 12.5
    assert source.image_size == SIZE
    assert source.split == "train"
    assert source.procedure == toy_procedure()
    for name, recording in source.recordings.items():
        assert recording.name == name
        assert recording.first_frame == FIRST_FRAMES[name]
        assert recording.num_frames == NUM_FRAMES[name]
        for key, expected in toy_labels(name).items():
            np.testing.assert_array_equal(getattr(recording, key), expected)
            assert getattr(recording, key).dtype == expected.dtype


@st.composite
def requests(draw):
    name = draw(st.sampled_from(["a", "b", "c"]))
    first = FIRST_FRAMES[name]
    frame = st.integers(first, first + NUM_FRAMES[name] - 1)
    return name, draw(st.lists(frame, max_size=30))


@given(requests())
@settings(max_examples=40, deadline=None)
def test_frames_same_as_a_plain_list(source, request):
    name, frames = request
    jpegs = toy_jpegs(name)
    expected = [jpegs[frame - FIRST_FRAMES[name]] for frame in frames]
    assert source.jpegs(name, frames) == expected
    images = source.frames(name, frames)
    assert images.shape == (len(frames), *SIZE, 3)
    assert images.dtype == np.uint8
    for image, jpeg in zip(images, expected, strict=True):
        difference = image.astype(int) - np.asarray(Image.open(io.BytesIO(jpeg)))
        assert np.abs(difference).max() <= 2  # both use libjpeg-turbo, perhaps of two versions


@pytest.mark.parametrize("most", [2_000, 7])
def test_channel_statistics_matches_all_pixels(folder, monkeypatch, most):
    """Of the pictures at places 0, s, 2 s, … of the split, all of them where they are few."""
    monkeypatch.setattr(clips, "STATISTICS_PICTURES", most)
    source = ClipSource(folder, "train", toy_procedure())
    pictures = np.concatenate(
        [source.rows(name, range(r.num_frames)) for name, r in source.recordings.items()]
    )
    step = -(-len(pictures) // most)
    assert (step == 1) == (most == 2_000)
    pixels = pictures[::step].reshape(-1, 3) / 255
    mean, std = source.channel_statistics()
    np.testing.assert_allclose(mean, pixels.mean(axis=0), rtol=1e-9)
    np.testing.assert_allclose(std, pixels.std(axis=0), rtol=1e-9)


def test_frames_reads_a_record_once_and_decodes_only_what_is_asked(folder, monkeypatch):
    source = ClipSource(folder, "train", toy_procedure())
    read, decoded = collections.Counter(), []
    plain_reader, plain_decode = source._reader, simplejpeg.decode_jpeg

    def counting(name):
        reader = plain_reader(name)
        return mock.Mock(read=lambda records: read.update(records) or reader.read(records))

    monkeypatch.setattr(source, "_reader", counting)
    monkeypatch.setattr(
        clips.simplejpeg,
        "decode_jpeg",
        lambda jpeg, **options: decoded.append(jpeg) or plain_decode(jpeg, **options),
    )
    wanted = [100, 100, 100, 103, 120, 101, 139, 103]
    source.frames("c", wanted)
    assert read == {0: 1, 5: 1, 9: 1}
    jpegs = toy_jpegs("c")
    assert sorted(decoded) == sorted(jpegs[i] for i in (0, 1, 3, 20, 39))
    read.clear()
    for frame in range(1, 24):  # one by one in order: still each record once
        source.frames("b", [frame])
    assert read == dict.fromkeys(range(6), 1)


@pytest.mark.parametrize(
    ("name", "frames", "message"),
    [
        ("b", [1, 24], r"b: frame 24 is outside the recording, 1…23"),
        ("b", [0, 5], r"b: frame 0 is outside the recording, 1…23"),
        ("c", [-1], r"c: frame -1 is outside the recording, 100…140"),
        ("d", [7], r"no recording 'd' in split 'train'"),
    ],
)
def test_frames_what_is_not_there_is_an_error(source, name, frames, message):
    with pytest.raises(ValueError, match=message):
        source.frames(name, frames)
    with pytest.raises(ValueError, match=message):
        source.jpegs(name, frames)


def test_frames_broken_jpeg_is_named(tmp_path):
    build(tmp_path, {"broken": ["b"]})
    source = ClipSource(tmp_path, "broken", toy_procedure())
    assert source.frames("b", [5, 7]).shape == (2, *SIZE, 3)
    with pytest.raises(ValueError, match=r"clips-broken.*: frame 6 of 'b' is not a readable JPEG"):
        source.frames("b", [5, 6])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"name": "other"},
            "'other' asked for: they have name toy instead of other;",
        ),
        (
            {
                "components": ["base", "wheel", "lid"],
                "states": ["100"],
                "variants": {"all": {"initial_state": "000", "expected": [], "recordings": ["*"]}},
            },
            "they have components .*instead of .*'wheel', 'lid'.*; states ",
        ),
        ({"states": ["10", "01"]}, "they have states .*instead of .*'10', '01'.*;"),
    ],
)
def test_clip_source_other_procedure_is_refused(folder, changes, message):
    with pytest.raises(ValueError, match=f"made for procedure 'toy', do not .*{message}"):
        ClipSource(folder, "train", toy_procedure(**changes))


# --- What a folder says of itself -----------------------------------------------------------------


def labels(**changes):
    """Two recordings of 3 and 2 frames, 4 components."""
    arrays = {
        "recordings": np.array(["a", "b"]),
        "first_frame": np.array([0, 7]),
        "num_frames": np.array([3, 2]),
        "num_records": np.array([1, 1]),
        "states": np.zeros((5, 4), np.int8),
        "boxes": np.full((5, 4), np.nan, np.float32),
        "classes": np.full(5, -1, np.int16),
        "visible": np.full(5, 0.5, np.float32),
    }
    return {name: a for name, a in (arrays | changes).items() if a is not None}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"recordings": np.array(["a", "../b"])}, "name '../b': begins with a dot"),
        ({"boxes": None}, "has no boxes; delete it and run the same data_prep command"),
        ({"recordings": np.array(["a", "a"])}, "two recordings have the same name"),
        ({"recordings": np.array([{}, {}])}, "damaged"),  # would be a pickle
        ({"num_frames": np.array([3, 3])}, r"states are int8 \(5, 4\), expected \(6, 4\)"),
        ({"poses": np.zeros((5, 4))}, r"poses are float64 \(5, 4\), expected \(5, 6\)"),
    ],
)
def test_read_labels_errors_name_the_file_and_what_is_wrong(tmp_path, changes, message):
    path = tmp_path / "train.npz"
    np.savez(path, **labels(**changes))
    with pytest.raises(ValueError, match=f"train.npz: .*{message}"):
        data_folder.read_labels(path, 4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"splits": {"../x": []}}, "name '../x'"),
        ({"version": 2}, "version: 2 is not 1, .* make the folder again"),
        ({"settings": {"crop": [0, 0, 1]}}, "settings.json: settings: crop: expected array of len"),
        ({"image_size": [4.0, 4]}, "settings.json: image_size: "),
    ],
)
def test_read_settings_errors_name_the_field(tmp_path, changes, message):
    (tmp_path / data_folder.MARKER).touch()
    settings = {
        "version": 1,
        "fps": 10.0,
        "splits": {"train": ["a"]},
        "image_size": [4, 8],
        "clip_length": 2,
    }
    settings |= {"states": ["0", "1"], "settings": {"source": "x"}}
    write_settings(tmp_path, settings)
    found = data_folder.read_settings(tmp_path)
    assert (found.image_size, found.settings.aspect) == ((4, 8), "stretch")
    write_settings(tmp_path, settings | changes)
    with pytest.raises(ValueError, match=message) as caught:
        data_folder.read_settings(tmp_path)
    assert "\n" not in str(caught.value)


def write_settings(path, settings):
    (path / "settings.json").write_text(json.dumps(settings))
