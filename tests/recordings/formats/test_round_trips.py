"""Labels of every format come back in the frame that they were written for."""

import bisect
import random

import numpy as np
import pytest

from stormpsr_jax.media import video
from stormpsr_jax.recordings import label_times
from stormpsr_jax.recordings.label_file import LabelFile
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


@pytest.mark.parametrize("name", [*label_formats.TIMED, *label_formats.PICTURED])
def test_labels_of_a_variable_rate_count_from_the_first_frame_that_shows_the_picture(
    tmp_path, name
):
    """The truth is found frame by frame, as the video is resampled."""
    exact = name not in ("times.csv", "tabs.txt", "intervals.csv")
    write = (label_formats.TIMED | label_formats.PICTURED)[name]
    rng = np.random.default_rng(36)
    for _ in range(40):
        fps = float(rng.choice([5, 10, 12.5, 24, 29.97]))
        times = np.cumsum(
            rng.choice([0.02, 1 / 30, 1 / 24, 0.1, 0.7], 60) * rng.uniform(0.9, 1.1, 60)
        )
        times -= times[0]
        grid = np.arange(int((times[-1] + 1e-3) * fps) + 1) / fps
        shows = [bisect.bisect_right(times, t + video.TIME_TOLERANCE) - 1 for t in grid]
        pictures = np.unique(rng.choice(np.arange(1, len(times)), 5))
        ids = [3 * int(k) for k in rng.permutation(5)[: len(pictures)]]
        steps = []
        for m, step_id in zip(pictures.tolist(), ids, strict=True):
            if exact:
                later = [n for n, shown in enumerate(shows) if shown >= m]
            else:  # times of people count as they stand
                later = [n for n, t in enumerate(grid) if t >= times[m] - 1e-8]
            steps.append((later[0] if later else len(grid) - 1, step_id, m))
        events = [(times[m], m, PROCEDURE.step_name(step_id)) for _, step_id, m in steps]
        write(tmp_path / name, events, fps)
        timed = LabelFile(tmp_path / name).timed(PROCEDURE, Terms(), "a", with_pictures=True)
        shown = video.Video(tmp_path, len(grid), times, fps=fps)
        given = timed, UP.initial_state, PROCEDURE.at(fps)
        _, found = label_times.to_frames(tmp_path / name, *given, shown)
        assert found == [(frame, step_id) for frame, step_id, _ in steps if frame > 0]
