import dataclasses
import functools
import hashlib
import itertools

import numpy as np
import pytest
import simplejpeg

from data_prep import synthetic
from data_prep.worlds import timelines, worlds
from tests.support.recipes import SYNTHETIC, recipe

FPS = 5.0


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


@pytest.mark.parametrize("name", ["toy", "bench"])
def test_the_finished_product_is_looked_at_last_and_nothing_else_is_other_than_without(
    name, monkeypatch
):
    slow = dataclasses.replace(SYNTHETIC, fps=2.0)
    seconds = []
    for number in range(4):
        told = recording(worlds.WORLDS[name], f"train_{number:03d}", size=16, procedure=slow)
        with monkeypatch.context() as patch:
            patch.setattr(timelines, "LAST_LOOK", (0.0, 0.0))
            before = recording(worlds.WORLDS[name], f"train_{number:03d}", size=16, procedure=slow)
        shown, pictures = list(told.jpegs), list(before.jpegs)
        count = len(pictures)
        assert shown[:count] == pictures
        assert (told.states[:count] == before.states).all()
        assert (told.states[count:] == told.states[count - 1]).all()
        assert (told.visible[count + 2 :] > 0.9).all()  # hands and head take a second
        seconds.append((len(shown) - count) / slow.fps)
    assert all(2 <= s <= 30 for s in seconds)
    assert np.ptp(seconds) > 5


def test_rehearsals_end_without_a_last_look():
    rehearsed = recipe().timeline("train", "rehearsal_001")
    assert rehearsed.last_look == 0
    assert recipe().timeline("train", "train_000").last_look > 0


def test_anywhere_half_of_its_recordings_are_those_of_toy():
    def first(world, name):
        return next(iter(recording(world, name).jpegs))

    names = [f"train_{i:03d}" for i in range(6)]
    same = [first(worlds.ANYWHERE, name) == first(worlds.TOY, name) for name in names]
    assert 0 < sum(same) < 6


def test_command_makes_a_world_of_its_flags(monkeypatch):
    told = {}
    monkeypatch.setattr(synthetic, "make_dataset", lambda out, **given: told.update(given))
    synthetic.main(["--out=x", "--world=bench"])
    assert told["world"] == "bench"
    synthetic.main(["--out=x", "--product_seed=1"])
    assert told["world"] == "anywhere"
    synthetic.main(["--out=x"])
    assert told["world"] == "toy"
    assert worlds.TOY.unlike_toy() == {}
    assert worlds.BENCH.unlike_toy()["world"] == "bench"
    brighter = dataclasses.replace(worlds.BENCH, exposure=worlds.ANYWHERE.exposure)
    assert brighter.unlike_toy() != worlds.BENCH.unlike_toy()


@functools.cache
def drawn(count=60):
    rngs = map(np.random.default_rng, range(count))
    habits = worlds.BENCH.habits
    return [timelines.draw_timeline(SYNTHETIC, rng, habits=habits) for rng in rngs]


def test_bench_pauses_are_those_of_real_recordings():
    """Between those of IndustReal and MECCANO; the figures are in `worlds`."""
    pauses = [np.diff(t.frames)[1:] / FPS for t in drawn()]
    assert 45 < np.median(np.concatenate(pauses)) < 63
    medians = np.log([np.median(p) for p in pauses])
    assert 0.2 < medians.std() < 0.5
    assert 0.5 < np.mean([np.log(p).std() for p in pauses]) < 0.9


def test_bench_errors_are_those_of_real_recordings():
    installed = wrong = corrected = together = events = 0
    for timeline in drawn():
        for _, changed in timelines.changes(timeline):
            installed += sum(old != -1 and new != 0 for old, new in changed.values())
            wrong += sum(new == -1 for _, new in changed.values())
            events += 1
            together += len(changed) > 1
        corrected += int((timeline.states == -1).any(0).sum() - (timeline.states[-1] == -1).sum())
    assert 0.05 < wrong / installed < 0.13
    assert 0.5 < corrected / wrong < 0.9
    assert 0.2 < together / events < 0.56


def test_bench_the_product_is_whole_in_view_a_tenth_of_the_time():
    boxed, away = [], []
    slow = dataclasses.replace(SYNTHETIC, fps=0.5)
    for i in range(3):
        data = recording(worlds.BENCH, f"train_{i:03d}", size=8, procedure=slow)
        list(data.jpegs)
        boxed.append(np.mean(~np.isnan(data.boxes[:, 0])))
        away.append(np.mean(data.visible == 0))
    assert 0.04 < np.mean(boxed) < 0.2
    assert 0.1 < np.mean(away) < 0.5
