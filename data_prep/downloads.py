"""What is known of data sets as they are downloaded, to hold against what is read.

A recording in another split, a picture too few or a video that begins elsewhere shifts all labels
by a little, which no format tells.
"""

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from data_prep.notes import some
from stormpsr_jax.base import folders
from stormpsr_jax.base.folders import printable
from stormpsr_jax.media import pictures, video
from stormpsr_jax.media.pictures import ImageFiles, Pictures
from stormpsr_jax.media.video import Video
from stormpsr_jax.recordings.recording import Recording

# Put together from the code, label files and results that the authors and others have published.
# Nobody who wrote it has seen the archives of pictures.
_DOWNLOADS = Path(__file__).with_name("downloads.json")


@dataclasses.dataclass(frozen=True)
class Download:
    """A data set as it is downloaded.

    Attributes:
        title: its name in messages.
        first_frame: the usual number of a recording's first picture.
        last_frames: by split and recording, the number of the last picture; None: not known.
        split_frames: by split, its number of pictures, where that is known in sum only.
        first_frames: by recording, the number of the first picture, where it is not the usual one.
        video_starts: the same of the first frame of its video.
        any_first: whether image files may begin with another number, which labels then use too,
            and the first state be labelled before that.
    """

    title: str
    first_frame: int
    last_frames: Mapping[str, Mapping[str, int | None]] = dataclasses.field(default_factory=dict)
    split_frames: Mapping[str, int] = dataclasses.field(default_factory=dict)
    first_frames: Mapping[str, int] = dataclasses.field(default_factory=dict)
    video_starts: Mapping[str, int] = dataclasses.field(default_factory=dict)
    any_first: bool = False

    def open(self, path: Path, name: str, fps: float) -> Pictures:
        """Opens a video or folder of images; ValueError: damaged, incomplete, or another rate."""
        if video.is_video(path.name):
            return video.open_constant_rate(
                path, self.video_starts.get(name, self.first_frame), fps
            )
        numbers = pictures.number_images(path, folders.entries(path)[1])
        first = min(numbers)
        if first != self.first_frame and not self.any_first:
            raise ValueError(
                f"{printable(path)}: the first frame is {first}, {self.title} starts at "
                f"{self.first_frame}; frames before it are missing, or were numbered otherwise "
                "when they were extracted"
            )
        return ImageFiles(path, first, len(numbers))

    def compare(self, recordings: Sequence[Recording]) -> list[str]:
        """Returns lines about recordings as they were found: splits and frames."""
        return [self._of_splits(recordings), *self._of_frames(recordings)]

    def _of_splits(self, recordings: Sequence[Recording]) -> str:
        known = {name: split for split, names in self.last_frames.items() for name in names}
        there = {recording.name: recording.split for recording in recordings}
        others = [
            f"{name} in {split} instead of {known.get(name, 'none that is known')}"
            for name, split in there.items()
            if known.get(name) != split
        ]
        missing = [name for name in known if name not in there]
        line = (
            f"{len(there) - len(others)} of {len(there)} recordings are in the split that "
            f"{self.title} has them in"
        )
        if others:
            line += f"; others: {some(others)}"
        if missing:
            line += (
                f"; {len(missing)} of its {len(known)} recordings are not there: {some(missing)}"
            )
        return line

    def _of_frames(self, recordings: Sequence[Recording]) -> Iterator[str]:
        """Compares first and last frames, and the sums of the splits of which no more is known."""
        last = {name: at for its in self.last_frames.values() for name, at in its.items()}
        known = [recording for recording in recordings if last.get(recording.name) is not None]
        others = []
        for recording in known:
            name, frames = recording.name, recording.video
            starts = self.video_starts if isinstance(frames, Video) else self.first_frames
            wanted = starts.get(name, self.first_frame), last[name]
            there = frames.first_frame, frames.first_frame + frames.num_frames - 1
            if there != wanted:
                others.append(
                    f"{name} has {there[0]}…{there[1]} instead of {wanted[0]}…{wanted[1]}"
                )
        if known:
            line = (
                f"{len(known) - len(others)} of {len(recordings)} recordings have the frame "
                "numbers known of the download, of "
                f"{len(recordings) - len(known)} they are not known"
            )
            yield line + (f"; others: {some(others)}" if others else "")
        for split, expected in self.split_frames.items():
            of_split = {r.name: r.video.num_frames for r in recordings if r.split == split}
            if of_split.keys() == self.last_frames[split].keys():
                count = sum(of_split.values())
                known_as = "as known" if count == expected else f"known are {expected:,}"
                yield f"split {split} has {count:,} frames in sum, {known_as}"


def read(name: str, title: str, first_frame: int = 0, any_first: bool = False) -> Download:
    """Returns what is known of "industreal" or "meccano"."""
    known = json.loads(_DOWNLOADS.read_text("utf-8"))[name]
    return Download(title, first_frame, any_first=any_first, **known)
