"""What the labels of a recording say, and the PSR label files that say it.

`PSR_labels.csv` and `PSR_labels_with_errors.csv` hold ``<image>,<step id>,<description>``;
`PSR_labels_raw.csv` holds ``<image>,s_0,…,s_{K-1}``, the state vector from that frame on. None has
a header. A frame's number is the one in its image's name. Readers raise ValueError with every
error, with file, line and field.
"""

import dataclasses
import itertools
import os
import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from stormpsr_jax.base import files, folders
from stormpsr_jax.base.errors import first_of, for_each, note, raise_all
from stormpsr_jax.recordings import csvfile
from stormpsr_jax.recordings.procedure import Procedure

# A step is (frame, step id): 3k installs component k, 3k + 1 installs it incorrectly, 3k + 2
# removes it. A state has 1 for a component that is there, 0 for one that is not, -1 for an
# incorrect one.
Step = tuple[int, int]
VALUES = (1, -1, 0)  # of a component after step 3k, 3k + 1, 3k + 2
_END = "\r\n"  # of lines, as in the shipped files
STEPS, WITH_ERRORS, STATES = PSR_FILES = (
    "PSR_labels.csv",
    "PSR_labels_with_errors.csv",
    "PSR_labels_raw.csv",
)
# Steps that are changes of another recording's states hardly ever are those of their own.
_MIN_STEPS, _MIN_SHARE = 3, 0.1


@dataclasses.dataclass(frozen=True)
class Labels:
    """What the labels of a recording say; K components.

    Attributes:
        steps: (frame, step id) of the completed steps.
        with_errors: the same with the incorrect installations.
        frames: (M,) int64, ascending, of the states; without rows where nothing gives states.
        states: (M, K) int8 in {-1, 0, 1}, each from its frame on.
        files: the PSR label files that were read, byte for byte.
        digest: changes with what was read.
        counts: whether some of them count frames or pictures in a tool's file, and not seconds.
    """

    steps: list[Step]
    with_errors: list[Step]
    frames: np.ndarray
    states: np.ndarray
    files: Mapping[str, bytes] = dataclasses.field(default_factory=dict)
    digest: int = 0
    counts: bool = False

    def with_states(self, initial_state: Sequence[int], first_frame: int) -> "Labels":
        """Returns the labels with states, which follow from the steps where no file gives them.

        Raises:
            ValueError: a step at or before the first frame, which shows the initial state.
        """
        if len(self.frames):
            return self
        steps = self.with_errors if WITH_ERRORS in self.files else self.steps
        states = steps_to_states(steps, initial_state, first_frame)
        own = self.steps if STEPS in self.files else states_to_steps(*states)
        return dataclasses.replace(self, steps=own, frames=states[0], states=states[1])


def read_folder(
    folder: Path,
    procedure: Procedure,
    needed: str | None = None,
    frames: range | None = None,
    early_start: bool = False,
) -> Labels:
    """Reads the PSR label files of a recording.

    Without `PSR_labels.csv` or `PSR_labels_with_errors.csv`, the steps follow from the states of
    `PSR_labels_raw.csv`, and without that too from the other file of the two.

    Args:
        needed: the file with steps that is wanted, `STEPS` or `WITH_ERRORS`; the other one is not
            read. None reads both.
        frames: of the recording, in which all rows have to lie, in order; None if it is not known.
        early_start: the first state may be from before the recording.

    Raises:
        ValueError: the first errors of each file, with line and field, and how many more it has;
            a file without steps, or with those of another recording, beside one with states.
    """
    there = [name for name in PSR_FILES if name in folders.entries(folder)[1]]
    if needed is not None:  # without states, no other file says what is asked for
        there = [n for n in there if n in (needed, STATES)] if STATES in there else [needed]
    by_file, content, errors = dict[str, Any](), dict[str, bytes](), list[str]()
    for name in there:
        path = folder / name
        try:
            content[name] = files.read_bytes(path)
            parse = _parse_states if name == STATES else _parse_steps
            rows: Any = parse(files.text_of(content[name], path), path, procedure)
            numbers = rows[0].tolist() if name == STATES else [frame for frame, _ in rows]
            if frames is not None:
                _check_frames(content[name], path, numbers, frames, early_start)
            by_file[name] = rows
        except ValueError as error:
            errors += first_of(error, path)
    raise_all(errors)
    digest = 0
    for name, data in content.items():
        digest = zlib.crc32(data, zlib.crc32(name.encode(), digest))
    nothing = np.zeros(0, np.int64), np.zeros((0, procedure.num_components), np.int8)
    at, states = by_file.pop(STATES, nothing)

    def of(name: str) -> list[Step]:
        changes = states_to_steps(at, states, name == WITH_ERRORS) if len(at) else []
        if name in by_file:
            _check_same(folder / name, by_file[name], changes)
            return by_file[name]
        of_other = [
            s for s in next(iter(by_file.values()), []) if name == WITH_ERRORS or s[1] % 3 != 1
        ]
        return changes if len(at) else of_other

    return Labels(of(STEPS), of(WITH_ERRORS), at, states, content, digest)


def _check_same(path: Path, steps: Sequence[Step], changes: Sequence[Step]) -> None:
    if changes and not steps:
        raise ValueError(
            f"{path}: has no step, and {STATES} beside it has {len(changes)}; remove {path.name}, "
            "so that the steps follow from the states, or write it anew"
        )
    both = len(set(steps) & set(changes))
    if min(len(steps), len(changes)) >= _MIN_STEPS and both < _MIN_SHARE * len(steps):
        raise ValueError(
            f"{path}: {both} of its {len(steps)} steps are changes of the states in {STATES} "
            "beside it: one of the two is of another recording; exchange or remove it"
        )


def _check_frames(
    data: bytes, path: Path, numbers: Sequence[int], frames: range, early_start: bool
) -> None:
    wrong, early_start = dict[int, str](), early_start and path.name == STATES
    for i, frame in enumerate(numbers):
        if frame not in frames and not (early_start and not i and frame < frames.stop):
            where = f"{frames.start}…{frames.stop - 1}"
            wrong[i] = f"frame {frame} is not among the recording's frames {where}"
        elif i and frame < numbers[i - 1]:
            wrong[i] = f"frame {frame} comes after frame {numbers[i - 1]}"
    if wrong:
        lines = [line for line, _ in csvfile.rows_of(files.text_of(data, path), path)]
        raise_all([str(lines[i].error("image", what)) for i, what in wrong.items()])


def read_steps(path: str | os.PathLike, procedure: Procedure) -> list[Step]:
    """Reads `PSR_labels.csv` or `PSR_labels_with_errors.csv`: [(frame, step id)] in file order.

    Errors are also a step given twice at one frame, and an incorrect installation (3k+1) in a file
    that is called `PSR_labels.csv`: it would be asked for in what is scored without errors.
    """
    return _parse_steps(files.read_text(path), path, procedure)


def _parse_steps(text: str, path: str | os.PathLike, procedure: Procedure) -> list[Step]:
    rows = csvfile.rows_of(text, path)
    last = 3 * procedure.num_components - 1
    seen: set[Step] = set()

    def parse(line: csvfile.Line, row: list[str]) -> Step:
        if len(row) == 2:  # the description is for people; a file may leave it out
            row = [*row, ""]
        line.check_width(row, ["image", "step id", "description"])
        frame = line.image(row[0])
        steps_are = f", the steps of procedure {procedure.name!r} (check --procedure)"
        step = (frame, line.integer(row[1], 0, last, "step id", steps_are))
        if step[1] % 3 == 1 and os.path.basename(path) == STEPS:
            name = procedure.step_name(step[1])
            problem = f"{step[1]} ({name}) belongs into {WITH_ERRORS}, which has such steps besides"
            raise line.error("step id", problem)
        if step in seen:
            problem = f"step {step[1]} is given twice at frame {frame}"
            raise line.error("step id", problem)
        seen.add(step)
        return step

    steps = for_each(rows, parse)
    if rows and csvfile.has_open_end(text) and len(rows[-1][1]) == 3:
        name, description = procedure.step_name(steps[-1][1]), rows[-1][1][2]
        if description != name and name.startswith(description):
            raise csvfile.cut_off(rows[-1][0])
    return steps


def read_states(path: str | os.PathLike, procedure: Procedure) -> tuple[np.ndarray, np.ndarray]:
    """Reads `PSR_labels_raw.csv`; one without rows, or of other components, is an error too.

    Returns:
        frames (M,) int64, strictly ascending, and states (M, K) int8 in {-1, 0, 1}; a state holds
        from its frame on.
    """
    return _parse_states(files.read_text(path), path, procedure)


def _parse_states(
    text: str, path: str | os.PathLike, procedure: Procedure
) -> tuple[np.ndarray, np.ndarray]:
    num = procedure.num_components
    names = ["image", *(f"s_{k}" for k in range(num))]
    rows = csvfile.rows_of(text, path)
    if not rows:
        raise ValueError(f"{path}: line 1: image: the file is empty, it needs the first state")
    widths = {len(row) for _, row in rows}
    if len(widths) == 1 and (width := widths.pop()) not in (1, num + 1):
        raise ValueError(
            f"{path}: has states of {width - 1} components, procedure {procedure.name!r} has "
            f"{num}; give --procedure the procedure that these labels were made with"
        )

    def parse(line: csvfile.Line, row: list[str]) -> tuple[int, list[int]]:
        line.check_width(row, names)
        return line.image(row[0]), [
            line.integer(text, -1, 1, name) for text, name in zip(row[1:], names[1:], strict=True)
        ]

    parsed = for_each(rows, parse)
    frames = [frame for frame, _ in parsed]
    check_ascending(rows, frames, "image")
    return np.array(frames, np.int64), np.array([state for _, state in parsed], np.int8)


def check_ascending(rows: Sequence[csvfile.Row], frames: Sequence[int], field: str) -> None:
    """Raises ValueError with every row whose frame does not come after that of the row above."""
    errors: list[str] = []
    for (line, _), (a, b) in zip(rows[1:], itertools.pairwise(frames), strict=True):
        if b <= a:
            what = f"frame {b} does not come after frame {a}"
            note(errors, line.error(field, what))
    raise_all(errors)


def write_steps(path: str | os.PathLike, steps: Iterable[Step], procedure: Procedure) -> None:
    """Writes `PSR_labels.csv` or `PSR_labels_with_errors.csv`, steps in the order given."""
    lines = ([f"{f:05d}.jpg", s, procedure.step_name(s)] for f, s in steps)
    csvfile.write(path, lines, _END)


def write_states(path: str | os.PathLike, frames: Iterable[int], states: np.ndarray) -> None:
    """Writes `PSR_labels_raw.csv`: frames (M,), states (M, K)."""
    rows = zip(frames, np.asarray(states).tolist(), strict=True)
    csvfile.write(path, ([f"{int(frame):05d}.jpg", *state] for frame, state in rows), _END)


# --- Steps and states -----------------------------------------------------------------------------


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
