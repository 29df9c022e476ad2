"""Checks a folder of clip shards, and shows some of its pictures.

    python -m data_prep.check DIR                 opens it, decodes a few pictures a recording
    python -m data_prep.check DIR --all           decodes everything
    python -m data_prep.check DIR --out=SHEET.jpg

Prints a line for each problem (what is wrong, where, what to do) and each split. Warnings are facts
to know that need not be wrong. Writes a contact sheet, DIR/check.jpg unless --out names another
file: boxes of each state with its parts, in red those that do not agree with the step labels, and
pictures around completions. Exit code 0: no problem; 1: problems; 2: wrong usage.
"""

import argparse
import dataclasses
import hashlib
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import simplejpeg
from PIL import Image, ImageDraw, ImageFont, ImageOps

from data_prep import command
from data_prep.notes import agree
from stormpsr_jax.base import files
from stormpsr_jax.base.errors import gathering
from stormpsr_jax.base.progress import Bar
from stormpsr_jax.data.clips import ClipSource, list_splits
from stormpsr_jax.data.folder import LabelledFrames
from stormpsr_jax.psr import monitor
from stormpsr_jax.psr.monitor import clock
from stormpsr_jax.recordings.find import SPLITS
from stormpsr_jax.recordings.label_file import LabelPlace
from stormpsr_jax.recordings.labels import Step
from stormpsr_jax.recordings.procedure import Procedure, load_procedure

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
    settings: list[tuple[str, monitor.LabelWarning]] = []
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
                warnings = monitor.check_labels(checked.procedure, variant, read)
                settings += [(recording.name, warning) for warning in warnings]
                checked.warnings += monitor.without_steps(variant, read, place)
    checked.warnings += monitor.group_warnings(settings, checked.fps)
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
            problem = f"{'/'.join(before)} and {'/'.join(this)} have the same pictures"
            if before[0] == split:
                checked.warnings.append(f"{problem}; if it is the same recording twice, remove one")
            else:
                checked.problems.append(
                    f"{problem}: a recording must be in one split only; remove one of the two and "
                    "prepare the data again"
                )


COMPLETIONS = 24  # shown of all recordings, evenly spread
AROUND = 2.0  # seconds before and after a completion
MARGIN = 0.1  # of the larger side of a box, shown around it
ACROSS, STRIPS = 3, 2  # pictures in a strip, strips beside each other
TILE, LINE, GAP = 160, 16, 8  # pixels of a picture, a line of text, and between strips
DOUBTFUL = (184, 15, 42)


class Tile(NamedTuple):
    """A picture (H, W, 3) uint8, None if it cannot be read; what is below it; whether in red."""

    picture: np.ndarray | None
    caption: str
    doubtful: bool = False


Strip = tuple[str, list[Tile]]  # title, pictures


def write_sheet(path: Path, checked: FolderCheck) -> int:
    """Writes the picture, as JPEG; returns the number of pictures on it, and writes none for 0."""
    strips = [*_states(checked), *_completions(checked)]
    if not strips:
        return 0
    width, height = ACROSS * TILE + GAP, TILE + 2 * LINE + GAP
    sheet = Image.new("RGB", (STRIPS * width, -(-len(strips) // STRIPS) * height), "white")
    for i, strip in enumerate(strips):
        sheet.paste(
            _drawn(*strip, (width - GAP, height)), (i % STRIPS * width, i // STRIPS * height)
        )
    with files.replacing(path) as part:
        sheet.save(part, "JPEG", quality=85)
    return sum(len(tiles) for _, tiles in strips)


def _drawn(title: str, tiles: Sequence[Tile], size: tuple[int, int]) -> Image.Image:
    strip = Image.new("RGB", size, "white")
    draw, font = ImageDraw.Draw(strip), ImageFont.load_default(LINE - 5)
    draw.text((0, 0), title, "black", font)
    for k, tile in enumerate(tiles):
        if tile.picture is not None:
            shown = ImageOps.pad(Image.fromarray(tile.picture), (TILE, TILE), color="black")
            strip.paste(shown, (k * TILE, LINE))
        colour = DOUBTFUL if tile.doubtful else "black"
        draw.text((k * TILE, LINE + TILE), tile.caption, colour, font)
    return strip


def _states(checked: FolderCheck) -> Iterator[Strip]:
    places: dict[int, list[tuple[str, LabelledFrames, int]]] = {}
    for split, recording in checked.recordings():
        known = (recording.classes > 0) & ~np.isnan(recording.boxes).any(axis=1)
        for i in np.flatnonzero(known).tolist():
            places.setdefault(int(recording.classes[i]), []).append((split, recording, i))
    for label, frames_of in sorted(places.items()):
        # The middles of equal shares: boxes at either end of a state may show the next one already.
        at = np.unique(((np.arange(ACROSS) + 0.5) * len(frames_of) / ACROSS).astype(int))
        tiles = [_box(checked, label, *frames_of[i]) for i in at.tolist()]
        yield f"{len(frames_of):,} boxes of {_named(label, checked)}", tiles


def _box(checked: FolderCheck, label: int, split: str, recording: LabelledFrames, i: int) -> Tile:
    procedure, picture = checked.procedure, checked.picture(split, recording, i)
    of_state = procedure.state_classes(recording.states[i : i + 1])
    caption = f"{recording.name} {recording.first_frame + i}"
    fits = bool(agree(np.array([label]), of_state, procedure)[0])
    if not fits:
        caption = f"labels: {_named(int(of_state[0]), checked)}; {caption}"
    cut = None if picture is None else _cut_out(picture, recording.boxes[i])
    return Tile(cut, caption, not fits)


def _named(label: int, checked: FolderCheck) -> str:
    """What the sheet calls the class of a state: its number and its parts, or those it lacks."""
    procedure = checked.procedure
    if not 0 < label < procedure.error_class:
        return "an error state" if label else "no catalogued state"
    there = (procedure.states[label - 1] == 1).tolist()
    has, lacks = (
        [name for name, on in zip(procedure.components, there, strict=True) if on == wanted]
        for wanted in (True, False)
    )
    if len(lacks) < len(has):
        return f"state {label}: " + (f"all but {', '.join(lacks)}" if lacks else "all parts")
    return f"state {label}: {', '.join(has) or 'nothing'}"


def _completions(checked: FolderCheck) -> Iterator[Strip]:
    by_frame: dict[tuple[str, str, int], list[int]] = {}
    recordings = {(split, r.name): r for split, r in checked.recordings() if split != RENDERS}
    for (split, name), recording in recordings.items():
        for frame, step in checked.steps[split][name]:
            if 0 <= frame - recording.first_frame < recording.num_frames:
                by_frame.setdefault((split, name, frame), []).append(step)
    apart = max(1, round(AROUND * checked.fps))
    chosen = np.linspace(0, len(by_frame) - 1, min(len(by_frame), COMPLETIONS)).round().astype(int)
    for split, name, frame in [[*by_frame][i] for i in chosen]:
        recording = recordings[split, name]
        index, last = frame - recording.first_frame, recording.num_frames - 1
        names = map(checked.procedure.step_name, by_frame[split, name, frame])
        indices = [max(0, index - apart), index, min(last, index + apart)]
        captions = [f"{(i - index) / checked.fps:+.1f} s" for i in indices]
        captions[1] = "completed"
        yield (
            f"{split}/{name} {clock(index / checked.fps)} {', '.join(names)}",
            [
                Tile(checked.picture(split, recording, i, TILE), caption)
                for i, caption in zip(indices, captions, strict=True)
            ],
        )


def _cut_out(image: np.ndarray, box: np.ndarray) -> np.ndarray:
    """The part (h, w, 3) of a picture in a box (cx, cy, w, h in 0…1), and some around."""
    height, width = image.shape[:2]
    centre = box[:2].astype(float) * (width, height)
    size = box[2:].astype(float) * (width, height)
    half = size / 2 + MARGIN * size.max()
    x0, y0 = np.clip(np.rint(centre - half), 0, (width - 1, height - 1)).astype(int)
    x1, y1 = np.clip(np.rint(centre + half), (x0 + 1, y0 + 1), (width, height)).astype(int)
    return np.ascontiguousarray(image[y0:y1, x0:x1])


# --- The command ----------------------------------------------------------------------------------


def check(directory: str | Path, *, everything: bool = False, out: str | Path | None = None) -> int:
    """Checks a folder, prints what is found, writes the sheet; returns the number of problems.

    ValueError: there are no clip shards at `directory`, or their preparation was not finished.
    """
    checked = open_folder(directory)
    check_pictures(checked, everything)
    for problem in checked.problems:
        print(f"problem: {problem}")
    for warning in checked.warnings:
        print(f"warning: {warning}")
    for line in in_words(checked):
        print(line)
    sheet = Path(out) if out else Path(directory, "check.jpg")
    if write_sheet(sheet, checked):
        print(f"contact sheet: {sheet}")
    pictures = "every picture decoded" if everything else "a sample of pictures decoded"
    print(
        f"{len(checked.problems)} problems, {len(checked.warnings)} warnings "
        f"({checked.num_decoded:,} frames: {pictures})"
    )
    return len(checked.problems)


def _add_flags(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("directory", metavar="DIR", help="the --out of a data_prep command")
    what = "decode every frame"
    add("--all", action="store_true", dest="everything", help=what)
    add("--out", metavar="FILE", help="the contact sheet, JPEG; default DIR/check.jpg")


main = command.command("check", __doc__, _add_flags, check, failed=bool, interrupted="")

if __name__ == "__main__":
    sys.exit(main())
