import csv
import dataclasses
import hashlib
import itertools
from pathlib import Path

import numpy as np
import pytest

from data_prep.worlds import timelines
from data_prep.worlds.timelines import USUAL
from stormpsr_jax.psr.procedure import load_procedure

LABELS = Path(__file__).parents[2] / "../shared/data/meccano_psr_labels"
SYNTHETIC = load_procedure("synthetic")


def _drawn(count=150, habits=USUAL):
    rngs = map(np.random.default_rng, range(count))
    return [timelines.draw_timeline(SYNTHETIC, rng, habits=habits) for rng in rngs]


def test_draw_timeline_every_event_is_a_possible_change():
    allowed = {(0, 1), (0, -1), (-1, 0), (-1, 1), (1, 0)}
    seen = set()
    for timeline in _drawn():
        assert (np.diff(timeline.frames) > 0).all()
        assert timeline.frames[0] == timeline.first_frame == 0
        assert timeline.frames[-1] < timeline.num_frames
        assert (timeline.states[0] == 0).all()
        assert (timeline.states[-1] >= 0).all()
        for _, changed in timelines.changes(timeline):
            assert 1 <= len(changed) <= 2
            seen |= set(changed.values())
        assert len(timelines.changes(timeline)) == len(timeline.frames) - 1
    assert seen == allowed


def test_draw_timeline_of_the_toy_is_what_it_has_been():
    """Figures of results.md are of these recordings."""
    digest = hashlib.sha256()
    for seed, wrong in itertools.product(range(100), (None, 0.5)):
        timeline = timelines.draw_timeline(SYNTHETIC, np.random.default_rng(seed), wrong=wrong)
        digest.update(timeline.frames.astype("<i8").tobytes() + timeline.states.tobytes())
        digest.update(str(timeline.num_frames).encode())
    assert digest.hexdigest()[:16] == "0cbb7ba476c137c2"


def test_doubts_tell_when_a_product_is_for_long_in_states_that_are_not_catalogued():
    drawn = _drawn(10)
    assert timelines.doubts(SYNTHETIC, drawn) == []
    few = dataclasses.replace(SYNTHETIC, states=SYNTHETIC.states[-3:])
    (line,) = timelines.doubts(few, drawn)
    states = np.concatenate([timeline.per_frame() for timeline in drawn])
    share = np.mean([not (row < 0).any() and row.sum() < 10 for row in states])
    assert abs(int(line.partition("in ")[2].partition("%")[0]) - 100 * share) < 6
    assert timelines.doubts(few, []) == []


@pytest.mark.skipif(not LABELS.exists(), reason="needs the MECCANO label files")
def test_read_timeline_real_states_in_real_order():
    procedure = load_procedure("meccano")
    found = timelines.find_timelines(LABELS)
    assert {split: len(names) for split, names in found.items()} == {
        "train": 11,
        "val": 2,
        "test": 7,
    }
    for split, names in found.items():
        for name in names:
            with open(LABELS / split / name / "PSR_labels_raw.csv", newline="") as file:
                rows = list(csv.reader(file))
            timeline = timelines.read_timeline(found[split][name], procedure, 12.5)
            np.testing.assert_array_equal(timeline.states, [list(map(int, r[1:])) for r in rows])
            original = np.array([int(r[0].split(".")[0]) for r in rows])
            assert (np.diff(timeline.frames) > 0).all()
            # Rounded, and moved only where two changes would meet.
            moved = timeline.frames - original / 12.5
            assert (moved >= -0.5).all()
            assert moved.max() < 5
            assert timeline.num_frames > timeline.frames[-1] - timeline.first_frame + 5 * 12


def _write(path, frames):
    path.mkdir(parents=True)
    rows = [f"{f:05d}.jpg," + ",".join("1" * i + "0" * (17 - i)) for i, f in enumerate(frames)]
    (path / "PSR_labels_raw.csv").write_text("\n".join(rows))


def test_read_timeline_changes_never_merge(tmp_path):
    _write(tmp_path / "train" / "a", [1, 100, 101, 102, 1000, 1001])
    path = timelines.find_timelines(tmp_path)["train"]["a"]
    procedure = load_procedure("meccano")
    timeline = timelines.read_timeline(path, procedure, 100)
    assert timeline.frames.tolist() == [0, 1, 2, 3, 10, 11]
    assert timeline.per_frame().sum(1)[[0, 1, 2, 3, 9, 10, 11]].tolist() == [0, 1, 2, 3, 3, 4, 5]
    unscaled = timelines.read_timeline(path, procedure, 1)
    assert unscaled.frames.tolist() == [1, 100, 101, 102, 1000, 1001]
    assert unscaled.first_frame == 1
