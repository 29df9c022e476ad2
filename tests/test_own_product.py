"""The product that the guide is measured on: what its videos show, and the labels and boxes say."""

import json

import av
import numpy as np
import pytest

from benchmarks import own_product
from data_prep import own
from stormpsr_jax.data.clips import ClipSource
from stormpsr_jax.media.framing import Framing
from stormpsr_jax.recordings.procedure import load_procedure


@pytest.fixture(scope="module")
def filmed(system, tmp_path_factory):
    """A workdir with the videos of a recording of each split and of a rehearsal, 16 pixels wide."""
    folder = tmp_path_factory.mktemp("product")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(own_product, "SIZE", 16)
        patch.setattr(own_product, "FPS", 1)
        patch.setattr(own_product, "RECORDINGS", {"train": 1, "val": 1, "test": 1})
        procedure = own_product.write_procedure(folder / "lamp.json")
        own_product.film_all(folder, procedure, own_product.guide_places(1), 1, 1)
    return folder


def test_own_product_labels_and_boxes_fit_the_videos(filmed, tmp_path):
    procedure = load_procedure(filmed / "lamp.json")
    own.make_dataset(
        tmp_path / "data",
        videos=filmed / "videos",
        labels=filmed / "labels",
        boxes=filmed / "boxes",
        procedure=procedure,
        framing=Framing((16, 16)),
    )
    source = ClipSource(tmp_path / "data", "train", procedure)
    assert sorted(source.recordings) == ["rehearsal_00", "train_00"]
    recording, rehearsal = source.recordings["train_00"], source.recordings["rehearsal_00"]
    assert (recording.states[0] == 0).all()
    assert (recording.states == 1).any(axis=0).sum() >= len(own_product.LAMP) - 1  # one forgotten
    content = json.loads((filmed / "boxes/train_00.json").read_text())
    assert 0 < len(content["annotations"]) < len(content["images"])
    assert np.isfinite(recording.boxes[:, 0]).sum() == len(content["annotations"])
    assert not np.isfinite(rehearsal.boxes[:, 0]).any()
    with av.open(str(filmed / "videos/train/train_00.mp4")) as video:
        shown = sum(1 for _ in video.decode(video=0))
    assert shown == own_product.REPEATS * recording.num_frames
