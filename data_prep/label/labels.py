"""The labels of the videos as files: read at the frames of `data_prep.own`, written as it reads.

A file that the page writes is `NAME.csv` with the header `time,step`; a step at frame i is at i
divided by the procedure's frames per second, cut off to milliseconds, which no reader takes for
another frame.
"""

import csv
import io
import math
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import NamedTuple

from data_prep.label.frames import Video
from data_prep.label.store import LabelStore, State, revision
from stormpsr_jax.base import files
from stormpsr_jax.base.errors import lines_of, raise_all
from stormpsr_jax.psr import monitor
from stormpsr_jax.recordings import find, label_file
from stormpsr_jax.recordings.label_file import TimedStep
from stormpsr_jax.recordings.label_tools import Unit
from stormpsr_jax.recordings.labels import PSR_FILES, Labels, Step, steps_to_states
from stormpsr_jax.recordings.procedure import Procedure
from stormpsr_jax.recordings.words import Terms

_MAX_STEPS = 100_000  # of a recording


class Snapshot(NamedTuple):
    """What is on the disk about a recording; `revision` changes with any of it."""

    steps: list[Step]
    revision: str
    state: State


class LabelFolder:
    """The labels of all recordings."""

    def __init__(
        self, store: LabelStore, procedure: Procedure, terms: Terms, names: Collection[str]
    ):
        """Looks for labels of recordings of these names."""
        self.store, self._procedure, self._terms = store, procedure, terms
        self._names = names
        self.find()

    def find(self) -> None:
        """Looks again."""
        found = find.search(self.store.folder, pictured=self._names)
        self.places, self.errors = found.labels, found.errors  # by recording
        self.unread = found.warnings  # lines about files that may be labels, and are not read

    def read(self, name: str, video: Video) -> Snapshot:
        """The labels of a recording; ValueError has all mistakes but steps that change nothing."""
        raise_all(self.errors.get(name, []))
        steps = self._read(name, video) if name in self.places else []
        state = self.store.state(name)
        return Snapshot(steps, self.revision(name), state)

    def revision(self, name: str) -> str:
        """Returns a text that changes with the labels of a recording, and what is kept besides."""
        return revision(self.files_of(name), self.store.state(name))

    def files_of(self, name: str) -> list[Path]:
        """The files that are the labels of a recording."""
        if name not in self.places:
            return []
        path = self.places[name].path
        found = [path / file for file in PSR_FILES] if path.is_dir() else [path]
        return [file for file in found if file.is_file()]

    def _read(self, name: str, video: Video) -> list[Step]:
        place, last, procedure = self.places[name], video.num_frames - 1, self._procedure
        if not place.is_file:
            variant = procedure.variant_for(name)
            read = place.read(procedure, variant)
            steps = [*read.with_errors]
            if len(read.frames):
                begins = zip(read.states[0].tolist(), variant.initial_state, strict=True)
                steps += [
                    (0, 3 * k + (2, 0, 1)[value])
                    for k, (value, before) in enumerate(begins)
                    if value != before
                ]
            if wrong := [frame for frame, _ in steps if not 0 <= frame <= last]:
                raise ValueError(f"{place}: frame {wrong[0]} is not one of the recording's")
            return sorted(steps)
        steps = []
        for step in place.timed(procedure, self._terms, name, with_pictures=True):
            frame = label_file.frame_of(step, procedure.fps, 0, video.timestamps, place)
            if not 0 <= frame <= last + 1:
                raise ValueError(f"{place}: {step.place}: {step.when} is outside of the recording")
            steps.append((min(frame, last), step.step_id))
        return sorted(steps)

    def write(
        self, name: str, video: Video, before: Snapshot, steps: Sequence[Step], state: State
    ) -> Snapshot:
        """Writes the labels of a recording, of which `before` was read; returns what is there then.

        A file stays as it is if it says the same. ValueError: a step or a frame that there is not.
        """
        steps, _ = self._checked(steps, video), self._checked(state.answered, video)
        place = self.places.get(name)
        if steps != before.steps or (state.done and place is None):
            path = None if place is None else place.path
            if place is not None and list(self.places.values()).count(place) > 1:
                raise ValueError(
                    f"{path}: has the labels of several recordings; give each a file of its own "
                    "(python -m stormpsr_jax.psr.convert labels), and take this one away"
                )
            target = self.store.folder / f"{name}.csv"
            if path is not None:
                target = path.with_name(f"{name}.csv")
            ours = path == target and files.read_text(target) == self._text(before.steps)
            others = [] if ours else self.files_of(name)
            text = self._text(steps) if steps or state.done else None
            self.store.replace(name, target, text, others)
            self.find()
        self.store.write_state(name, state)
        return self.read(name, video)

    def _checked(self, steps: Sequence[Step], video: Video) -> list[Step]:
        if len(steps) > _MAX_STEPS:
            raise ValueError(f"{len(steps)} labels, more than {_MAX_STEPS}")
        for frame, step in steps:
            files.whole(frame, "frame", 0, video.num_frames - 1)
            files.whole(step, "step_id", 0, 3 * self._procedure.num_components - 1)
        if len(set(steps)) < len(steps):
            raise ValueError("a step is given twice at one frame")
        return sorted(steps)

    def _text(self, steps: Sequence[Step]) -> str:
        rows = io.StringIO()
        table = csv.writer(rows, lineterminator="\n")
        table.writerow(["time", "step"])
        for frame, step in steps:
            # A millionth of a millisecond: 0.29 · 1000 = 289.99999999999997.
            milliseconds = math.floor(1000 * frame / self._procedure.fps + 1e-6)
            time = f"{milliseconds / 1000:.3f}".rstrip("0").rstrip(".")
            table.writerow([time, self._procedure.step_name(step)])
        return rows.getvalue()

    def warnings(self, name: str, steps: Sequence[Step]) -> list[tuple[int, str]]:
        """What `data_prep.own` does not take, or `labels check` would warn of: [(frame, text)].

        But for changes within a clip: a rework may be as quick as that, and its labels are right.
        """
        variant = self._procedure.variant_for(name)
        timed = [TimedStep(frame, f"frame {frame}", step, Unit.FRAMES) for frame, step in steps]
        try:
            first, changes = label_file.to_frames(
                name, timed, variant.initial_state, self._procedure
            )
        except ValueError as error:
            lines = [line.removeprefix(f"{name}: frame ") for line in lines_of(error)]
            return [(int(line.partition(":")[0]), line.partition(": ")[2]) for line in lines]
        states = steps_to_states(changes, first, 0)
        read = Labels(list(steps), list(steps), *states)
        found = monitor.check_labels(self._procedure, variant, read)
        return [(warning.frame, warning.text) for warning in found]
