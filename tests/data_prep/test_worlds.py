import dataclasses
import hashlib
import itertools

import numpy as np
import pytest
import simplejpeg

from data_prep.worlds import timelines, worlds
from tests.support.recipes import SYNTHETIC, recipe


def recording(world, name="train_000", **options):
    split = "cad" if name.startswith(("cad", "wrong")) else "train"
    return recipe(**{"size": 24, "world": world} | options).make(split, name)


# Figures of results.md are of such recordings.
GOLDEN = {
    "toy": "fb2b53796abf7a094a772ad0cb7a3769cb738d5be19ec14427c0f6e772a4e0ae",
    "bench": "5e0183a0d9fdf729dfe51375af500cfdf03a3f4bf3c3cb361d337f08725e3321",
    "anywhere": "0bde9928973b355e57270082c4bcb0f3b4bb0b9807b433ace8323698ec1a106c",
}


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_pictures_and_states(name, monkeypatch):
    """The pixels that are encoded, and with which quality, but for the last look."""
    monkeypatch.setattr(timelines, "LAST_LOOK", (0.0, 0.0))
    digest = hashlib.sha256()

    def keep(pixels, *options, **more):
        digest.update(pixels.tobytes() + repr((options, more)).encode())
        return b""

    monkeypatch.setattr(simplejpeg, "encode_jpeg", keep)
    for recorded in ("train_000", "rehearsal_001", "wrong_12"):
        data = recording(worlds.WORLDS[name], recorded, size=32)
        list(itertools.islice(data.jpegs, 60))
        digest.update(data.states.tobytes() + data.visible.tobytes() + data.boxes.tobytes())
    assert digest.hexdigest() == GOLDEN[name]


@pytest.mark.parametrize(("name", "count"), [("toy", 4), ("bench", 1)])
def test_the_finished_product_is_looked_at_last_and_nothing_else_is_other_than_without(
    name, count, monkeypatch
):
    slow = dataclasses.replace(SYNTHETIC, fps=2.0)
    seconds = []
    for number in range(count):
        told = recording(worlds.WORLDS[name], f"train_{number:03d}", size=16, procedure=slow)
        with monkeypatch.context() as patch:
            patch.setattr(timelines, "LAST_LOOK", (0.0, 0.0))
            before = recording(worlds.WORLDS[name], f"train_{number:03d}", size=16, procedure=slow)
        shown, pictures = list(told.jpegs), list(before.jpegs)
        end = len(pictures)
        assert shown[:end] == pictures
        assert (told.states[:end] == before.states).all()
        assert (told.states[end:] == told.states[end - 1]).all()
        assert (told.visible[end + 2 :] > 0.9).all()  # hands and head take a second
        seconds.append((len(shown) - end) / slow.fps)
    assert all(2 <= s <= 30 for s in seconds)
    assert count == 1 or np.ptp(seconds) > 5
    assert recipe().timeline("train", "rehearsal_001").last_look == 0
