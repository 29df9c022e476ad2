"""Steps and states of a recording, and the conversion between the two.

A step is (frame, step id): 3k installs component k, 3k + 1 installs it incorrectly, 3k + 2 removes
it. A state has 1 for a component that is there, 0 for one that is not, -1 for an incorrect one.
"""

import itertools
from collections.abc import Iterable, Sequence

import numpy as np

Step = tuple[int, int]
VALUES = (1, -1, 0)  # of a component after step 3k, 3k + 1, 3k + 2


def states_to_steps(
    frames: np.ndarray, states: np.ndarray, with_errors: bool = False
) -> list[Step]:
    """Converts state vectors to the steps between them.

    -1 counts as 0, as a step is complete only when it is done correctly: 0 → 1 is step 3k, 1 → 0 is
    step 3k+2. `with_errors`, a component that becomes -1 adds step 3k+1; a component that ceases to
    be -1 without becoming 1 adds nothing, as in the shipped labels.

    >>> states_to_steps([0, 40, 70], [[0, 0], [1, -1], [1, 1]], with_errors=True)
    [(40, 0), (40, 4), (70, 3)]

    `frames` are (M,) and `states` (M, K), each from its frame on; the result is [(frame, step id)],
    ascending.
    """
    states = np.asarray(states)
    done = states == 1
    steps = []
    for m, k in np.argwhere(done[1:] != done[:-1]):
        steps.append((int(frames[m + 1]), int(3 * k + (0 if done[m + 1, k] else 2))))
    if with_errors:
        wrong = states == -1
        for m, k in np.argwhere(wrong[1:] & ~wrong[:-1]):
            steps.append((int(frames[m + 1]), int(3 * k + 1)))
    return sorted(steps)


def steps_to_states(
    steps: Iterable[Step], initial_state: Sequence[int] | str, first_frame: int
) -> tuple[np.ndarray, np.ndarray]:
    """Converts steps (frame, step id), in any order, back to state vectors.

    Step 3k gives 1, 3k+1 gives -1 and 3k+2 gives 0; of a removal and an incorrect installation in
    one frame the latter holds. Steps do not say when an incorrect part was taken off again, so only
    states free of -1 → 0 come back exactly. `initial_state`, (K,) or a text such as "01", holds
    from ``first_frame`` on.

    >>> frames, states = steps_to_states([(40, 0), (70, 3)], "00", 0)
    >>> frames.tolist(), states.tolist()
    ([0, 40, 70], [[0, 0], [1, 0], [1, 1]])

    Returns:
        frames (M,) int64 and states (M, K) int8, a row per change after the initial one.

    Raises:
        ValueError: a step at or before the first frame, or of a component that does not exist.
    """
    frames = [first_frame]
    rows = [np.array([int(value) for value in initial_state], np.int8)]
    # Within a frame and component in the order remove, install, incorrectly install.
    order = {2: 0, 0: 1, 1: 2}
    for frame, step_id in sorted(steps, key=lambda s: (s[0], order[s[1] % 3], s[1])):
        if frame <= first_frame:
            raise ValueError(f"step {step_id} at frame {frame} is not after frame {first_frame}")
        if not 0 <= step_id < 3 * len(rows[0]):
            raise ValueError(f"step id {step_id} is not in 0…{3 * len(rows[0]) - 1}")
        if frame != frames[-1]:
            frames.append(frame)
            rows.append(rows[-1].copy())
        rows[-1][step_id // 3] = VALUES[step_id % 3]
    changed = [True, *((a != b).any() for a, b in itertools.pairwise(rows))]
    return np.array(frames, np.int64)[changed], np.stack(rows)[changed]


def states_per_frame(
    frames: np.ndarray, states: np.ndarray, first_frame: int, num_frames: int
) -> np.ndarray:
    """Returns the state vector (N, K) int8 of each frame from `first_frame` on.

    `frames` (M,) are ascending, `states` (M, K) each from its frame on; the first also holds
    before.

    >>> states_per_frame([1, 3], [[0, 0], [1, 0]], 0, 5).tolist()
    [[0, 0], [0, 0], [0, 0], [1, 0], [1, 0]]
    """
    rows = np.searchsorted(frames, np.arange(first_frame, first_frame + num_frames), "right") - 1
    return np.asarray(states, np.int8)[np.maximum(rows, 0)]
