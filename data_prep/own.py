"""Makes clip shards of your own recordings: videos, or folders of images, with labels.

    python -m data_prep.own --videos=DIR --labels=DIR --procedure=FILE --out=DIR

docs/own-product.md takes you from there to a trained model. For a recording NAME:

* --videos holds NAME.mp4 (or .mov, .mkv, .webm, .avi, …), or a folder NAME of numbered images;
* --labels holds NAME.csv with the header `time,step` (as `stormpsr label` writes it),
  `start,end,step` (seconds, or m:ss) or `frame,step`; or what Label Studio, CVAT or ELAN export, of
  a recording or of a project; or a folder NAME with PSR_labels.csv (docs/formats.md). Files are
  known by what is in them. --words says what labels call the steps (data_prep.labels map);
* --boxes, if given, holds NAME.json (COCO) or a folder NAME of YOLO text files; or it is a COCO
  file, or holds just one, with images NAME/000010.jpg of all recordings. Coordinates are those of
  the original picture, upright; without boxes the detector cannot be trained.

Where boxes say that the product would be small in the pictures made, these show what is around it,
which a network learns to find; --locate=never or always decides otherwise.

A video is resampled by its timestamps to a constant --fps (the procedure's, unless given): frame i,
counted from 0, is the last picture at or before i / fps seconds after the first one. A pause is
filled with the picture before it, and logged; one of more than a minute is an error. Numbers in PSR
label files and names of boxes are those of the resampled frames; `--export_frames=DIR` writes these
as images, to draw boxes on. A folder of images is taken to have --fps already, and keeps the
numbers in its names. Videos without labels are left out, with a line in the log.

Splits are drawn by recording (70/15/15, or --splits=80/10/10; --split_seed), so that each has an
incorrect installation if there are enough, unless --videos or --labels have folders train, val and
test, or --splits=FILE says so: a CSV with the header `recording,split`.

The same command again makes what is new. With --remake it also makes those again whose labels,
boxes or pictures have changed, and takes those out that are gone. All others stay as they are, in
the split that they have, so that a draw never lets a network learn from what it was scored on.
"""

import argparse
import sys
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg
from absl import logging

from data_prep import command, matching
from data_prep.writing import from_files
from data_prep.writing.locating import LOCATE
from stormpsr_jax.base import folders
from stormpsr_jax.base.errors import for_each, lines_of, one_line, raise_all
from stormpsr_jax.media import sources
from stormpsr_jax.media.video import Video
from stormpsr_jax.psr.cli import add_label_flags
from stormpsr_jax.recordings import find
from stormpsr_jax.recordings.find import SPLITS
from stormpsr_jax.recordings.label_file import LabelPlace
from stormpsr_jax.recordings.procedure import Procedure
from stormpsr_jax.recordings.recording import Recording
from stormpsr_jax.recordings.words import Terms, terms

_SAME_RATE = 0.01  # a video at 29.97 has the rate of a tool that counts 30


def find_recordings(
    videos: str | Path,
    labels: str | Path,
    procedure: Procedure,
    *,
    boxes: str | Path | None = None,
    splits: str = "",
    split_seed: int = 0,
    before: Mapping[str, str] | None = None,
    terms: Terms | None = None,
) -> list[Recording]:
    """Finds the recordings and brings the parts of each together; no draw changes splits `before`.

    ValueError: as of `matching.match`, and all mistakes in a COCO file of several recordings.
    """
    of_videos = folders.require(videos, "--videos", "or a video")
    of_labels = folders.require(labels, "--labels", "or a label file")
    pictured = sources.find_pictures(of_videos)
    result = find.search(of_labels, None, pictured, splits)
    raise_all(result.lines)
    labelled = result.labels
    if not labelled and not pictured:
        raise ValueError(f"--videos={videos}: no videos and no folders of images are in it")
    without = [name for name in pictured if name not in labelled]
    why = [reason for path, reason in result.unread.items() if path.stem in without]
    if without and (why or not labelled):
        raise_all([f"frames without labels: {', '.join(without)}", *why])
    for line in result.warnings if without else ():
        logging.warning("%s", line)
    try:
        recordings = matching.match(
            labelled,
            pictured,
            matching.find_boxes(boxes, labelled) if boxes is not None else {},
            lambda path, name: sources.open_recording(path, procedure.fps),
            f"--videos={videos}",
            procedure,
            terms=terms,
        )
        by_name = {recording.name: recording for recording in recordings}
        chosen = matching.choose_splits(
            splits,
            split_seed,
            before or {},
            (of_labels, of_videos),
            labelled,
            {name: pictured[name][0] for name in labelled},
            lambda name: matching.kind_of(by_name[name]),
        )
    except ValueError as error:
        raise_all([*lines_of(error), *_of_projects(labelled, pictured)])
        raise
    for recording in recordings:
        recording.split = chosen[recording.name]
    return recordings


def _of_projects(labelled: Mapping[str, LabelPlace], pictured: Collection[str]) -> list[str]:
    """Says how a file of several recordings calls them, where some are not `pictured` by that."""
    lines = []
    for place in dict.fromkeys(labelled.values()):
        names = [name for name in labelled if labelled[name] == place]
        if len(names) > 1 and not set(names) <= set(pictured):
            lines.append(
                f"{place}: has labels of {', '.join(names)}, as the labelling tool "
                "calls the videos; give those in --videos these names"
            )
    return lines


def other_rates(found: Iterable[Recording], labels_fps: float) -> list[str]:
    """Returns a warning if videos whose labels count frames have another rate than --labels_fps."""
    rates: dict[str, float] = {}
    for recording in found:
        video = recording.video
        if not isinstance(video, Video) or len(video.times) < 2:
            continue
        rate = (len(video.times) - 1) / float(video.times[-1] - video.times[0])
        if recording.labels.counts and abs(labels_fps / rate - 1) > _SAME_RATE:
            rates[recording.name] = rate
    if not rates:
        return []
    those = ", ".join(sorted({f"{rate:.3g}" for rate in rates.values()}))
    return [
        f"--labels_fps={labels_fps:g}, but the videos of {one_line(', '.join(rates), 200)} have "
        f"{those} pictures a second: this is right only if the labelling tool counted "
        f"{labels_fps:g}, as tag Video of Label Studio says with frameRate. Numbers of a video's "
        "pictures, as CVAT has them, go by the video"
    ]


def make_dataset(
    out: str | Path,
    *,
    videos: str | Path,
    labels: str | Path,
    procedure: Procedure,
    boxes: str | Path | None = None,
    splits: str = "",
    split_seed: int = 0,
    terms: Terms | None = None,
    **options: Any,
) -> bool:
    """Makes the clip shards; see the module and from_files.build. ValueError has all errors."""
    matched = find_recordings(
        videos,
        labels,
        procedure,
        boxes=boxes,
        splits=splits,
        split_seed=split_seed,
        before=matching.splits_of_folder(out),
        terms=terms,
    )
    for split in SPLITS:
        names = [recording.name for recording in matched if recording.split == split]
        logging.info("split %s: %s", split, ", ".join(names) or "no recordings")
    warnings = []
    if terms is not None and terms.fps is not None:
        warnings += other_rates(matched, terms.fps)
    boxed = {recording.split for recording in matched if recording.boxes is not None}
    missing = [split for split in ("train", "val") if split not in boxed]
    if boxes is not None and missing:
        warnings.append(
            f"no boxes in split {' and '.join(missing)}, so own:boxes cannot train the detector: "
            "draw some there, or train with --config=own"
        )
    return from_files.build(matched, out, procedure=procedure, warnings=warnings, **options)


def write_frames(recordings: Iterable[Recording], folder: str | Path, every: int) -> int:
    """Writes every so-many-th frame as <folder>/<recording>/<frame>.jpg; returns how many.

    ValueError: all recordings that have other pictures there, such as those of another rate.
    """
    wanted = {}

    def plan(recording: Recording) -> None:
        place, first = Path(folder, recording.name), recording.video.first_frame
        frames = range(first, first + recording.video.num_frames, every)
        wanted[place] = recording.video, frames
        there = {path.name for path in place.glob("[0-9]*.jpg")}
        if others := sorted(there - {f"{frame:06d}.jpg" for frame in frames}):
            raise ValueError(
                f"{place / others[0]}: is there from another export ({len(others)} of its pictures "
                f"are); move {place} away, or give another folder"
            )

    for_each([(recording,) for recording in recordings], plan)
    for place, (pictures, frames) in wanted.items():
        place.mkdir(parents=True, exist_ok=True)
        for frame, (_, picture) in enumerate(pictures.read(), start=frames.start):
            if frame in frames:
                if isinstance(picture, np.ndarray):
                    picture = simplejpeg.encode_jpeg(picture, 95)
                (place / f"{frame:06d}.jpg").write_bytes(picture)
    return sum(len(frames) for _, frames in wanted.values())


def _make_or_export(
    procedure: Procedure,
    fps: float | None,
    export_frames: str | None,
    export_every: int,
    words: str | None,
    labels_fps: float | None,
    **given: Any,
) -> None:
    procedure = procedure.at(fps)
    of_labels = terms(words, labels_fps, procedure)
    if export_frames is None:
        make_dataset(procedure=procedure, terms=of_labels, **given)
        return
    keys = ("videos", "labels", "boxes", "splits", "split_seed")
    recordings = find_recordings(
        procedure=procedure, terms=of_labels, **{key: given[key] for key in keys}
    )
    count = write_frames(recordings, export_frames, export_every)
    logging.info("%s: %d pictures of %d recordings", export_frames, count, len(recordings))


def _add_flags(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--videos", required=True, metavar="PATH", help="folder of the videos")
    add("--labels", required=True, metavar="PATH", help="folder or file of the labels")
    add_label_flags(add)
    add("--procedure", required=True, metavar="FILE", help="procedure file of the product")
    add("--fps", type=float, metavar="F", help="frames per second; default: the procedure's")
    add(
        "--boxes",
        metavar="PATH",
        help="boxes: a COCO file, or a folder of these or of YOLO files",
    )
    what = "find the product and show it closely; auto: where it is small (%(default)s)"
    add("--locate", choices=LOCATE, default="auto", help=what)
    shares = matching.DEFAULT_SHARES
    add("--splits", default="", help=f"shares such as {shares}, or a CSV recording,split")
    add("--split_seed", type=int, default=0, metavar="N", help="of the draw of splits")
    add(
        "--export_frames", metavar="DIR", help="write the frames there, to draw boxes on; no shards"
    )
    add(
        "--export_every",
        type=command.at_least(1),
        default=10,
        metavar="N",
        help="of so many frames write one (%(default)s)",
    )
    command.add_recording_flags(parser, ray=True)


main = command.command("own", __doc__, _add_flags, _make_or_export)

if __name__ == "__main__":
    sys.exit(main())
