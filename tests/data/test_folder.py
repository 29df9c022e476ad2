import json

import numpy as np
import pytest

from stormpsr_jax.data import folder


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
        ({"num_frames": np.array([5, 0])}, "num_frames hold values outside 1"),
        ({"first_frame": np.array([0.0, 7.0])}, r"first_frame are float64 \(2,\), expected \(2,\)"),
        ({"states": np.full((5, 4), 2, np.int8)}, "states hold values outside -1…1"),
        ({"boxes": np.full((5, 4), 7.0)}, "boxes hold values outside 0…1"),
        ({"classes": np.full(5, -3)}, "classes hold values outside"),
        ({"visible": np.array(["x"] * 5)}, "visible are <U1"),
        ({"poses": np.zeros((5, 4))}, r"poses are float64 \(5, 4\), expected \(5, 6\)"),
    ],
)
def test_read_labels_errors_name_the_file_and_what_is_wrong(tmp_path, changes, message):
    path = tmp_path / "train.npz"
    np.savez(path, **labels(**changes))
    with pytest.raises(ValueError, match=f"train.npz: .*{message}"):
        folder.read_labels(path, 4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"fps": 0}, "settings.json: fps"),
        ({"splits": ["train"]}, "settings.json: splits"),
        ({"splits": {"../x": []}}, "name '../x'"),
        ({"version": 2}, "version: 2 is not 1, .* make the folder again"),
        ({"fps": 10**400}, "settings.json: fps: number out of range"),
        ({"settings": {"crop": [0, 0, 1]}}, "settings.json: settings: crop: expected array of len"),
        *(
            ({"image_size": size}, "settings.json: image_size: ")
            for size in ([0, 4], [4], [2**40, 4], ["4", 4], [4.0, 4], [True, 4])
        ),
    ],
)
def test_read_settings_errors_name_the_field(tmp_path, changes, message):
    (tmp_path / folder.MARKER).touch()
    settings = {
        "version": 1,
        "fps": 10.0,
        "splits": {"train": ["a"]},
        "image_size": [4, 8],
        "clip_length": 2,
    }
    settings |= {"states": ["0", "1"], "settings": {"source": "x"}}
    write_settings(tmp_path, settings)
    found = folder.read_settings(tmp_path)
    assert (found.image_size, found.settings.aspect) == ((4, 8), "stretch")
    write_settings(tmp_path, settings | changes)
    with pytest.raises(ValueError, match=message) as caught:
        folder.read_settings(tmp_path)
    assert "\n" not in str(caught.value)


def write_settings(path, settings):
    (path / "settings.json").write_text(json.dumps(settings))
