"""What recordings take, told before they are made: measured on the first frames of each kind."""

import dataclasses
import os
import re
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from data_prep.writing.parallel import Workers
from data_prep.writing.recording_shard import RecordingData

FRAMES = 60  # of each kind that are made, at most: at 5 frames a second, hands have come in by then
SECONDS = 3.0  # that they may take
FILE = 3 * 2**15  # bytes that a shard has besides its frames: it comes in blocks of 64 KiB


@dataclasses.dataclass(frozen=True)
class RenderingCost:
    """Of recordings: frames, seconds of one process that makes them, bytes that they fill."""

    frames: int
    seconds: float
    size: float


def measure(
    make: Callable[[str, str], RecordingData],
    recordings: Sequence[tuple[str, str]],
    num_frames: Mapping[str, int],
) -> RenderingCost:
    """Makes the first frames of a recording of each kind.

    `recordings` are (split, name) of all that are to be made; `make` makes the pictures of one as
    they are asked for.
    """
    kinds: dict[str, list[tuple[str, str]]] = {}
    for split, name in recordings:
        kinds.setdefault(_kind(split, name), []).append((split, name))
    seconds = size = 0.0
    for of_kind in kinds.values():
        jpegs = iter(make(*of_kind[0]).jpegs)
        made, start = [len(next(jpegs))], time.monotonic()  # the first one also loads what it needs
        for jpeg in jpegs:
            made.append(len(jpeg))
            if len(made) > FRAMES or time.monotonic() - start > SECONDS:
                break
        frames = sum(num_frames[name] for _, name in of_kind)
        seconds += frames * (time.monotonic() - start) / max(1, len(made) - 1)
        size += frames * sum(made) / len(made) + len(of_kind) * FILE
    return RenderingCost(sum(num_frames[name] for _, name in recordings), seconds, size)


def _kind(split: str, name: str) -> str:
    """What a name has besides its number and its split: train_000 and val_001 cost the same."""
    stem = re.sub("[0-9]+", "", name)
    return stem if split == "cad" else stem.replace(split, "recording", 1)


def tell(cost: RenderingCost, workers: Workers, out: Path) -> str:
    """A line of what it takes, with how many processes, and of the room that there is."""
    if isinstance(workers, int):
        count = min(workers, os.cpu_count() or 1)
        time_taken = f"about {_duration(cost.seconds / count)} with {count} of this machine's cores"
    else:
        time_taken = f"about {_duration(cost.seconds)} of one of this machine's cores"
    there = next(folder for folder in (out, *out.absolute().parents) if folder.is_dir())
    free = shutil.disk_usage(there).free
    return (
        f"{cost.frames:,} frames are to be rendered: {time_taken}, and {_size(cost.size)}, of "
        f"{_size(free)} that are free"
    )


def _duration(seconds: float) -> str:
    if seconds < 60:
        return "a minute or less"
    if seconds < 5400:
        return f"{seconds / 60:.0f} minutes"
    return f"{seconds / 3600:.1f} hours"


def _size(count: float) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e8 else f"{count / 1e6:.1f} MB"
