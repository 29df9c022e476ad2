"""The contact sheet of `data_prep.check`: one picture of boxes and completions, to look at.

Its size does not grow with the data: of each state some boxes, and of all completions some.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps

from data_prep.checking.folder import RENDERS, FolderCheck
from data_prep.notes import agree
from stormpsr_jax.base import files
from stormpsr_jax.data.annotation import LabelledFrames
from stormpsr_jax.psr.agreement import clock

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


def write(path: Path, checked: FolderCheck) -> int:
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
    """Boxes of each state that has any, evenly spread over all recordings."""
    places: dict[int, list[tuple[str, LabelledFrames, int]]] = {}
    for split, recording in checked.recordings():
        known = (recording.classes > 0) & ~np.isnan(recording.boxes).any(axis=1)
        for i in np.flatnonzero(known).tolist():
            places.setdefault(int(recording.classes[i]), []).append((split, recording, i))
    for label, found in sorted(places.items()):
        # The middles of equal shares: boxes at either end of a state may show the next one already.
        at = np.unique(((np.arange(ACROSS) + 0.5) * len(found) / ACROSS).astype(int))
        tiles = [_box(checked, label, *found[i]) for i in at.tolist()]
        yield f"{len(found):,} boxes of {_named(label, checked)}", tiles


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
    """The frames before, at and after completions of all recordings but renders of states."""
    found: dict[tuple[str, str, int], list[int]] = {}
    recordings = {(split, r.name): r for split, r in checked.recordings() if split != RENDERS}
    for (split, name), recording in recordings.items():
        for frame, step in checked.steps[split][name]:
            if 0 <= frame - recording.first_frame < recording.num_frames:
                found.setdefault((split, name, frame), []).append(step)
    apart = max(1, round(AROUND * checked.fps))
    chosen = np.linspace(0, len(found) - 1, min(len(found), COMPLETIONS)).round().astype(int)
    for split, name, frame in [[*found][i] for i in chosen]:
        recording = recordings[split, name]
        index, last = frame - recording.first_frame, recording.num_frames - 1
        names = map(checked.procedure.step_name, found[split, name, frame])
        shown = [max(0, index - apart), index, min(last, index + apart)]
        captions = [f"{(i - index) / checked.fps:+.1f} s" for i in shown]
        captions[1] = "completed"
        yield (
            f"{split}/{name} {clock(index / checked.fps)} {', '.join(names)}",
            [
                Tile(checked.picture(split, recording, i, TILE), caption)
                for i, caption in zip(shown, captions, strict=True)
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
