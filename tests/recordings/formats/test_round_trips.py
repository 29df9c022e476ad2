"""Labels of every format come back in the frame that they were written for."""

import random

import pytest

from stormpsr_jax.recordings.recording import LabelPlace
from stormpsr_jax.recordings.steps import states_to_steps, steps_to_states
from stormpsr_jax.recordings.words import Terms
from tests.support import label_formats, toy

PROCEDURE = toy.procedure("seal, cover, screw, pin, cap", "11111", name="toy", fps=10, variant="up")
UP = PROCEDURE.variants["up"]
RATES = [0.1, 1.0, 5, 10, 12.5, 23.976, 24, 25, 29.97, 30, 50, 59.94, 60, 120, 240, 999, 1000]


def recordings(number):
    """So many times a frame rate, and steps (frame, step id) that each change their component."""
    rng = random.Random(36)
    for _ in range(number):
        frames = sorted(rng.sample(range(1, rng.choice([30, 2000, 200_000])), rng.randint(1, 8)))
        state, steps = [0] * 5, []
        for frame in frames:
            k = rng.randrange(5)
            state[k] = rng.choice([value for value in (1, -1, 0) if value != state[k]])
            steps.append((frame, 3 * k + {1: 0, -1: 1, 0: 2}[state[k]]))
        yield rng.choice(RATES), steps


def read(path, procedure, fps, terms=None):
    return LabelPlace(path).read(procedure.at(fps), UP, terms=terms).with_errors


def kept(steps):
    """What states can say: the removal of a wrong part is no step of theirs."""
    frames, states = steps_to_states(steps, UP.initial_state, 0)
    return states_to_steps(frames, states, with_errors=True)


EVERY_FORMAT = label_formats.TIMED | label_formats.FRAMED | label_formats.PICTURED


@pytest.mark.parametrize("name", EVERY_FORMAT)
def test_labels_by_hand_are_exact_to_the_frame(tmp_path, name):
    path = tmp_path / name
    for fps, steps in recordings(40):
        events = [(f / fps, f, PROCEDURE.step_name(s)) for f, s in steps]
        EVERY_FORMAT[name](path, events, fps)
        terms = None
        if name in label_formats.PICTURED:  # of a video of a constant rate
            with pytest.raises(ValueError, match=r"counts the pictures .* --labels_fps=F"):
                read(path, PROCEDURE, fps)
            terms = Terms(fps=fps)
        assert read(path, PROCEDURE, fps, terms) == kept(steps)
