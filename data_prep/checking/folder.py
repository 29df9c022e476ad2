"""Opens a folder of clip shards as a run does, and says what is wrong with it or doubtful."""

import dataclasses
import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import simplejpeg

from stormpsr_jax.base.errors import gathering
from stormpsr_jax.base.progress import Bar
from stormpsr_jax.data.annotation import LabelledFrames
from stormpsr_jax.data.clips import ClipSource, list_splits
from stormpsr_jax.psr import agreement
from stormpsr_jax.recordings.find import SPLITS
from stormpsr_jax.recordings.labels import Step
from stormpsr_jax.recordings.procedure import Procedure, load_procedure
from stormpsr_jax.recordings.recording import LabelPlace

RENDERS = "cad"  # a split of single states, which no procedure leads to
SAMPLED = 3  # pictures of a recording, evenly spread, the first and the last among them


@dataclasses.dataclass
class FolderCheck:
    """A folder of clip shards, and what a check found.

    Attributes:
        sources: by split, those that can be opened.
        steps: by split and recording, (frame, step id) with the incorrect installations.
        problems: what is wrong; a line each.
        warnings: what to know; a line each.
        num_decoded: pictures that were decoded.
    """

    directory: Path
    procedure: Procedure
    sources: dict[str, ClipSource] = dataclasses.field(default_factory=dict)
    steps: dict[str, dict[str, list[Step]]] = dataclasses.field(default_factory=dict)
    problems: list[str] = dataclasses.field(default_factory=list)
    warnings: list[str] = dataclasses.field(default_factory=list)
    num_decoded: int = 0

    @property
    def fps(self) -> float:
        """Frames per second of all recordings; of a folder that has none, the procedure's."""
        return next((source.fps for source in self.sources.values()), self.procedure.fps)

    def recordings(self) -> Iterator[tuple[str, LabelledFrames]]:
        """Yields (split, recording) of all of them."""
        for split, source in self.sources.items():
            for recording in source.recordings.values():
                yield split, recording

    def picture(
        self, split: str, recording: LabelledFrames, index: int, at_least: int = 0
    ) -> np.ndarray | None:
        """A frame as (H, W, 3) uint8 RGB; None if it cannot be read.

        The decoder halves the size while `at_least` pixels of each side are left; 0: as stored.
        """
        try:
            (jpeg,) = self.sources[split].jpegs(recording.name, [recording.first_frame + index])
            return simplejpeg.decode_jpeg(jpeg, min_height=at_least, min_width=at_least)
        except ValueError:  # `check_pictures` names it
            return None


def open_folder(directory: str | Path) -> FolderCheck:
    """Opens the splits of a folder, and reads its labels; ValueError as of `data_prep.check`."""
    folder = Path(directory)
    checked = FolderCheck(folder, load_procedure(folder / "procedure.json"))
    there = list_splits(folder)
    for split in sorted(there, key=lambda split: [*SPLITS, *there].index(split)):
        with gathering(checked.problems):
            checked.sources[split] = ClipSource(folder, split, checked.procedure)
    found: list[tuple[str, agreement.LabelWarning]] = []
    for split, recording in checked.recordings():
        place = folder / "labels" / split / recording.name
        steps = checked.steps.setdefault(split, {})
        steps[recording.name] = []
        with gathering(checked.problems):
            read = LabelPlace(place).read(checked.procedure, None)
            wrong = [step for step in read.with_errors if step[1] % 3 == 1]
            steps[recording.name] = sorted({*read.steps, *wrong})
            if split != RENDERS:
                variant = checked.procedure.variant_for(recording.name)
                warnings = agreement.of_labels(checked.procedure, variant, read)
                found += [(recording.name, warning) for warning in warnings]
                checked.warnings += agreement.without_steps(variant, read, place)
    checked.warnings += agreement.group_warnings(found, checked.fps)
    return checked


def in_words(checked: FolderCheck) -> Iterator[str]:
    """Yields a line for each split: what it holds, and what it never shows, so cannot teach."""
    for split, source in checked.sources.items():
        recordings = source.recordings.values()
        states = np.concatenate([recording.states for recording in recordings])
        shown = set(checked.procedure.state_classes(np.unique(states, axis=0)).tolist())
        never = [k for k in range(1, checked.procedure.num_states + 1) if k not in shown]
        named = ", ".join(map(str, never)) or "none"
        yield (
            f"{split}: {len(recordings)} recordings, {len(states):,} frames; states never seen: "
            f"{named}"
        )


def check_pictures(checked: FolderCheck, everything: bool) -> None:
    """Decodes a sample of the pictures of each recording, or all; array_record has checksums."""
    total = sum(
        recording.num_frames if everything else SAMPLED for _, recording in checked.recordings()
    )
    desc = "reading every frame" if everything else "reading a sample"
    alike: dict[bytes, tuple[str, str]] = {}
    with Bar(desc=desc, total=total, unit="frame", smoothing=0) as bar:
        for split, recording in checked.recordings():
            source, last = checked.sources[split], recording.num_frames - 1
            rows = np.unique(np.linspace(0, last, last + 1 if everything else SAMPLED).round())
            digest, read = hashlib.blake2b(), 0
            for row in rows.astype(int).tolist():
                bar.update(1)
                try:
                    picture = source.frames(recording.name, [recording.first_frame + row])
                    digest.update(picture.data)
                    read += 1
                except ValueError as error:
                    if str(error) not in checked.problems:  # of a record, for each of its frames
                        checked.problems.append(str(error))
            checked.num_decoded += read
            this = split, recording.name
            if not read or (before := alike.setdefault(digest.digest(), this)) == this:
                continue
            what = f"{'/'.join(before)} and {'/'.join(this)} have the same pictures"
            if before[0] == split:
                checked.warnings.append(f"{what}; if it is the same recording twice, remove one")
            else:
                checked.problems.append(
                    f"{what}: a recording must be in one split only; remove one of the two and "
                    "prepare the data again"
                )
