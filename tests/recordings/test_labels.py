"""Conversion between states and steps, on the shipped label files and as a property."""

import pathlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stormpsr_jax.recordings import labels
from stormpsr_jax.recordings.labels import states_per_frame, states_to_steps, steps_to_states
from stormpsr_jax.recordings.procedure import load_procedure

MECCANO = load_procedure("meccano")
SHIPPED = pathlib.Path(__file__).parents[2] / "../shared/data/meccano_psr_labels"
# In train/0016 the headlamp is -1 (wrong) from 1144 to 2578 and from 2691 to 11134 in the raw
# states. The shipped steps call that an installation and a removal, as if it were 1.
HEADLAMP = [(1144, 24), (2578, 26), (2691, 24), (11134, 26)]
SHIPPED_ONLY = {("0016", False): HEADLAMP, ("0016", True): HEADLAMP}
CONVERTED_ONLY = {("0016", True): [(1144, 25), (2691, 25)]}


@pytest.mark.parametrize("with_errors", [False, True])
def test_states_to_steps_golden_shipped_labels(with_errors):
    if not SHIPPED.exists():
        pytest.skip("the MECCANO label files are not here")
    name = "PSR_labels_with_errors.csv" if with_errors else "PSR_labels.csv"
    folders = sorted(SHIPPED.glob("*/*"))
    assert len(folders) == 20
    for folder in folders:
        frames, states = labels.read_states(folder / "PSR_labels_raw.csv", MECCANO)
        converted = set(states_to_steps(frames, states, with_errors))
        shipped = labels.read_steps(folder / name, MECCANO)
        key = (folder.name, with_errors)
        assert sorted(set(shipped) - converted) == SHIPPED_ONLY.get(key, []), folder
        assert sorted(converted - set(shipped)) == CONVERTED_ONLY.get(key, []), folder


def test_written_steps_golden_shipped_bytes(tmp_path):
    folder = SHIPPED / "test" / "0012"
    if not folder.exists():
        pytest.skip("the MECCANO label files are not here")
    for name in ("PSR_labels.csv", "PSR_labels_with_errors.csv"):
        steps = labels.read_steps(folder / name, MECCANO)
        labels.write_steps(tmp_path / name, steps, MECCANO)
        # The shipped files misspell "damping".
        expected = (folder / name).read_bytes().replace(b"dampling", b"damping")
        assert (tmp_path / name).read_bytes() == expected
    frames, states = labels.read_states(folder / "PSR_labels_raw.csv", MECCANO)
    labels.write_states(tmp_path / "raw.csv", frames, states)
    assert (tmp_path / "raw.csv").read_bytes() == (folder / "PSR_labels_raw.csv").read_bytes()


@st.composite
def timelines(draw, values):
    num = draw(st.integers(1, 5))
    frames = sorted(draw(st.sets(st.integers(0, 60), min_size=1, max_size=10)))
    rows = [draw(st.lists(st.sampled_from(values), min_size=num, max_size=num)) for _ in frames]
    return np.array(frames), np.array(rows, np.int8)


def literal_steps(frames, states, with_errors):
    steps = []
    for m in range(1, len(frames)):
        for k in range(states.shape[1]):
            before, after = states[m - 1, k], states[m, k]
            if before != 1 and after == 1:
                steps.append((frames[m], 3 * k))
            if before == 1 and after != 1:
                steps.append((frames[m], 3 * k + 2))
            if with_errors and before != -1 and after == -1:
                steps.append((frames[m], 3 * k + 1))
    return sorted(steps)


@settings(max_examples=40, deadline=None)
@given(timelines([-1, 0, 1]), st.booleans())
def test_states_to_steps_matches_literal_transcription(timeline, with_errors):
    assert states_to_steps(*timeline, with_errors) == literal_steps(*timeline, with_errors)


@settings(max_examples=40, deadline=None)
@given(timelines([-1, 0, 1]))
def test_steps_to_states_round_trip_with_errors(timeline):
    frames, states = timeline
    # Steps do not say when an incorrect part was taken off: replace -1 → 0 by staying.
    for m in range(1, len(states)):
        states[m] = np.where((states[m - 1] == -1) & (states[m] == 0), -1, states[m])
    steps = states_to_steps(frames, states, with_errors=True)
    back = steps_to_states(steps, states[0], frames[0])
    per_frame = states_per_frame(*back, 0, 70)
    assert (per_frame == states_per_frame(frames, states, 0, 70)).all()
