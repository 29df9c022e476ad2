"""Finds the recordings of a data set: pictures, label files and boxes."""

import dataclasses
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from absl import logging

from data_prep.reading.boxes import Boxes
from stormpsr_jax.base import folders
from stormpsr_jax.base.errors import gathering, raise_all
from stormpsr_jax.base.folders import printable
from stormpsr_jax.media import finding, pictures, video
from stormpsr_jax.media.pictures import ImageFiles, Pictures
from stormpsr_jax.recordings.label_files import STATES, Labelled, split_of

# Put together from the code, label files and results that the authors and others have published.
# Nobody who wrote it has seen the archives of pictures.
_DOWNLOADS = Path(__file__).with_name("downloads.json")
P = TypeVar("P", Path, Labelled)


@dataclasses.dataclass(frozen=True)
class Download:
    """What is known of a data set as it is downloaded, to hold against what is read.

    Attributes:
        last_frames: by split and recording, the number of the last picture; None: not known.
        split_frames: by split, its number of pictures, where that is known in sum only.
        first_frames: by recording, the number of the first picture, where it is not the usual one.
        video_starts: by recording, the number of the picture that the first frame of its video is,
            where it is not the usual first number.
    """

    last_frames: Mapping[str, Mapping[str, int | None]] = dataclasses.field(default_factory=dict)
    split_frames: Mapping[str, int] = dataclasses.field(default_factory=dict)
    first_frames: Mapping[str, int] = dataclasses.field(default_factory=dict)
    video_starts: Mapping[str, int] = dataclasses.field(default_factory=dict)


def known_download(name: str) -> Download:
    """Returns what is known of "industreal" or "meccano"."""
    return Download(**json.loads(_DOWNLOADS.read_text("utf-8"))[name])


@dataclasses.dataclass(frozen=True)
class Format:
    """What is particular to a data set.

    Attributes:
        title: its name in messages.
        first_frame: number of a recording's first frame.
        frames_flag: the flag that says where the pictures are.
        read_boxes: reads the file of a recording's boxes; None if there are none.
        any_first: whether image files may begin with another number, which labels then use too,
            and the first state be labelled before that.
        download: what is known of its recordings; None if they are a user's own.
    """

    title: str
    first_frame: int
    frames_flag: str
    read_boxes: Callable[[Path], Boxes] | None = None
    any_first: bool = False
    download: Download | None = dataclasses.field(default_factory=Download)

    def open_pictures(self, path: Path, name: str, fps: float) -> Pictures:
        """Opens a video or folder of images; ValueError: damaged, incomplete, or another rate."""
        if self.download is None:
            return finding.open_recording(path, fps)
        if video.is_video(path.name):
            start = self.download.video_starts.get(name, self.first_frame)
            return video.open_constant_rate(path, start, fps)
        numbers = pictures.number_images(path, folders.entries(path)[1])
        first = min(numbers)
        if first != self.first_frame and not self.any_first:
            raise ValueError(
                f"{printable(path)}: the first frame is {first}, {self.title} starts at "
                f"{self.first_frame}; frames before it are missing, or were numbered otherwise "
                "when they were extracted"
            )
        return ImageFiles(path, first, len(numbers))


@dataclasses.dataclass(frozen=True)
class RecordingFiles:
    """Where the parts of a recording are. Picklable.

    Attributes:
        split: "train", "val" or "test".
        labels: its PSR label files; of a user's own, maybe a file of a label format.
        boxes: file (or folder) of its boxes, or the boxes themselves where one file has those of
            several recordings; None if there are none.
    """

    name: str
    split: str
    pictures: Pictures
    labels: Labelled
    boxes: Path | Boxes | None


def find_labels(top: Path, flag: str, left_out: Collection[str] = ()) -> dict[str, Labelled]:
    """The folders with a file of labels; ValueError: none, or all recordings in two places."""
    walked = folders.walk(top, left_out)
    found = finding.by_name((path.name, path) for path, _, names in walked if STATES in names)
    if not found:
        raise ValueError(
            f"{flag}: no folder <train|val|test>/<recording> with a {STATES} is in it; unpack the "
            "archives, if it holds some"
        )
    places = only_places(found, flag, "labels")
    return {name: Labelled(path) for name, path in places.items()}


def find_files(
    top: Path,
    flag: str,
    what: str,
    recording_of: Callable[[Path], str | None],
    left_out: Collection[str] = (),
) -> dict[str, Path]:
    """A file of each recording.

    Args:
        what: is in the files.
        recording_of: a file -> name of the recording; None of another file.
        left_out: names of folders that are not looked into.
    """
    walked = folders.walk(top, left_out)
    found = finding.by_name(
        (name, path)
        for path in (folder / file for folder, _, names in walked for file in names)
        if (name := recording_of(path)) is not None
    )
    return only_places(found, flag, what)


def only_places(found: Mapping[str, Sequence[P]], flag: str, what: str) -> dict[str, P]:
    """Returns the place of each recording; ValueError names all that have several."""
    raise_all(
        [
            f"{flag}: recording {name}: {what} in {' and '.join(map(str, its))}; keep one of "
            "these or, if they are of several recordings, rename all but one"
            for name, its in found.items()
            if len(its) > 1
        ]
    )
    return {name: place for name, [place] in found.items()}


def splits_of(
    labels: str | Path,
    pictures: str | Path,
    labelled: Mapping[str, Labelled],
    pictured: Mapping[str, Path],
    above: bool = True,
) -> dict[str, str]:
    """The split of each recording: that of its labels, or else of its pictures.

    `above` is of `label_files.split_of`. ValueError names all recordings that are in no split, or
    whose pictures are in another one.
    """
    splits, problems = {}, []
    for name, place in labelled.items():
        of_pictures = split_of(pictured[name], Path(pictures), above)
        of_labels = split_of(place.path, Path(labels), above) or of_pictures
        if not of_labels:
            problems.append(f"{place}: is in no folder train, val or test")
        elif of_pictures not in ("", of_labels):
            problems.append(
                f"recording {name}: frames in split {of_pictures}, labels in {of_labels}"
            )
        else:
            splits[name] = of_labels
    raise_all(problems)
    return splits


def match(
    form: Format,
    labelled: Mapping[str, Labelled],
    pictured: Mapping[str, Sequence[Path]],
    boxed: Mapping[str, Path | Boxes],
    fps: float,
    choose_splits: Callable[[Mapping[str, Labelled], Mapping[str, Path]], dict[str, str]],
) -> list[RecordingFiles]:
    """Brings the parts of each recording together.

    Pictures without labels are left out, with a line in the log. Of a download, image files go
    before videos of the same recording. `choose_splits` is as `splits_of`, of labels and pictures.

    Raises:
        ValueError: all recordings that lack a part, have two of one, miss pictures, or are in two
            splits.
    """
    problems = []
    unlabelled = [name for name in pictured if name not in labelled]
    if without := [name for name in labelled if name not in pictured]:
        problems.append(f"labels without frames ({form.frames_flag}): {', '.join(without)}")
    if unlabelled and problems:  # the same ones under other names?
        problems.append(f"frames without labels: {', '.join(unlabelled)}")
    if without := [name for name in boxed if name not in labelled]:
        problems.append(f"boxes without labels: {', '.join(without)}")
    chosen, opened = {}, {}
    for name in labelled.keys() & pictured.keys():
        there = pictured[name]
        images = [place for place in there if not video.is_video(place.name)]
        chosen[name] = images if images and form.download else there
    for name, [place, *others] in sorted(chosen.items()):
        with gathering(problems):
            if others:
                only_places({name: chosen[name]}, form.frames_flag, "frames")
            opened[name] = form.open_pictures(place, name, fps)
    raise_all(problems)
    splits = choose_splits(labelled, {name: place for name, [place] in chosen.items()})
    if unlabelled:
        first = printable(pictured[unlabelled[0]][0])
        what = "pictures without labels are left out: %s (%s%s)"
        more = ", …" * (len(unlabelled) > 1)
        logging.warning(what, ", ".join(unlabelled), first, more)
    return [
        RecordingFiles(name, splits[name], opened[name], labelled[name], boxed.get(name))
        for name in labelled
    ]
