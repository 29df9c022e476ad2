"""What other tools write, to our files: ``python -m stormpsr_jax.psr.convert --help``.

``convert coco`` and ``convert yolo`` make detection files, of COCO results and of YOLO text files;
the image ids of results are explained by a COCO annotation file, or are frame numbers, or
``<recording>_<frame>`` as Ultralytics takes them from pictures so named. ``convert frames``
renumbers the frames of prediction files that count them at another rate than the labels.
``convert labels`` writes labels of every kind, labels by the clock too, as folders of PSR files.
"""

import argparse
import dataclasses
import math
import pathlib
from collections.abc import Callable, Sequence

import numpy as np

from stormpsr_jax.base import files, folders
from stormpsr_jax.base.errors import for_each
from stormpsr_jax.psr.cli import OneLineParser, add_label_flags, fail_for
from stormpsr_jax.recordings import box_files, find, labels, predictions, words
from stormpsr_jax.recordings.box_files import ClassMap
from stormpsr_jax.recordings.boxes import Picture, by_frame
from stormpsr_jax.recordings.csvfile import MAX_FRAME
from stormpsr_jax.recordings.label_file import LabelPlace
from stormpsr_jax.recordings.labels import STATES, STEPS, WITH_ERRORS, Labels
from stormpsr_jax.recordings.predictions import Detections
from stormpsr_jax.recordings.procedure import Procedure, load_procedure


def main(argv: Sequence[str] | None = None) -> None:
    """The command; exit code 2 and a line for each error on stderr for input that is wrong."""
    args = _parser().parse_args(argv)
    try:
        args.run(args)
    except (OSError, ValueError) as error:
        fail_for(error)


def _main_detections(args: argparse.Namespace) -> None:
    procedure = load_procedure(args.procedure)
    rates = None if args.fps is None else _rates(args.fps, procedure)
    classes = ClassMap(args.classes, procedure)
    print(classes)
    if args.recording is not None:
        files.check_name(args.recording, "--recording")
    read = _from_coco if args.format == "coco" else _from_yolo
    rows: dict[str, list[tuple]] = {} if args.recording is None else {args.recording: []}
    for (name, frame), picture in read(args, classes).items():
        of_recording, sides = rows.setdefault(name, []), np.tile(picture.size or (1, 1), 2)
        for box in picture.boxes:
            of_recording.append((frame, box.category, box.score, *(box.at / sides)))
    out = pathlib.Path(args.out)
    detections = {name: Detections.of_rows(of_one) for name, of_one in sorted(rows.items())}
    if rates is not None:
        detections = {name: renumber(found, *rates) for name, found in detections.items()}
    out.mkdir(parents=True, exist_ok=True)
    for name, found in detections.items():
        path = out / f"{name}{predictions.SUFFIX}"
        predictions.write(path, name, found)
        print(f"{path}: {len(found.frames)} detections")


def _from_coco(args: argparse.Namespace, classes: ClassMap) -> dict[tuple[str, int], Picture]:
    """Converts COCO results: boxes in 0…1 where --images tells the image sizes, else in pixels."""

    def owner(picture: Picture) -> str:
        return args.recording or (_named_before if args.images is None else _folder_of)(picture)

    results = files.read_json(args.results)
    if args.images is None:
        return by_frame(box_files.coco_results(results, args.results, None, classes), owner)
    listed = box_files.coco_images(files.read_json(args.images), args.images)
    pictures = by_frame(listed.values(), owner)
    box_files.coco_results(results, args.results, listed, classes)  # adds them to the pictures
    return pictures


def _from_yolo(args: argparse.Namespace, classes: ClassMap) -> dict[tuple[str, int], Picture]:
    """Converts a folder of YOLO text files, or one with a folder of such files a recording.

    Files are of the recording that their folder is named after, unless it is called "labels", as
    Ultralytics calls every one, or has those of several videos: then of the one that stands before
    the frame's number.
    """
    folder = folders.require(args.folder, "--folder")
    if args.first_frame < 0:
        raise ValueError(f"--first_frame={args.first_frame} is not a number from 0 up")
    owners = dict.fromkeys(_texts(folder), args.recording)
    if not owners and args.recording is None:
        for inner in sorted(path for path in folder.iterdir() if path.is_dir()):
            paths = _texts(inner / "labels") or _texts(inner)
            owners |= {path: files.check_name(inner.name, str(inner)) for path in paths}
    if not owners:
        raise ValueError(f"{folder}: holds no .txt files of frames")

    def read(path: pathlib.Path) -> Picture:
        return box_files.yolo(files.read_text(path), str(path), classes)

    pictures = for_each([(path,) for path in owners], read)
    numbers = for_each([(picture,) for picture in pictures], Picture.frame_number)
    name = folder.resolve().name
    if name != "labels" and len({video for video, _ in numbers}) == 1:
        owners = {path: owner or name for path, owner in owners.items()}
    of_place = {str(path): owner for path, owner in owners.items()}
    return by_frame(pictures, lambda p: of_place[p.place] or _named_before(p), args.first_frame)


def _texts(folder: pathlib.Path) -> list[pathlib.Path]:
    return sorted(p for p in folder.glob("*.txt") if box_files.is_of_picture(p.name))


def _folder_of(picture: Picture) -> str:
    """The recording that a picture's folder is named after (the one above, if that is "rgb")."""
    folders = [name for name in picture.folders if name not in ("rgb", ".", "")]
    if not folders:
        raise ValueError(
            f"{picture.place}: {files.shorten(picture.name)} is in no folder that names its "
            "recording; pass --recording"
        )
    return files.check_name(folders[-1], picture.place)


def _named_before(picture: Picture) -> str:
    if not (name := picture.frame_number()[0]):
        raise ValueError(
            f"{picture.place}: {files.shorten(picture.name)} names no recording before the frame's "
            "number, so --recording is needed (of COCO results, or --images)"
        )
    return files.check_name(name, picture.place)


def _main_frames(args: argparse.Namespace) -> None:
    procedure = load_procedure(args.procedure)
    rates = _rates(args.fps, procedure)
    folder, out = folders.require(args.predictions, "--predictions"), pathlib.Path(args.out)
    paths = sorted(folder.glob(f"*{predictions.SUFFIX}"))
    if not paths:
        raise ValueError(
            f"{folder}: has no files <rec>{predictions.SUFFIX}; --predictions needs one"
        )
    if out.resolve() == folder.resolve():
        raise ValueError(f"--out={out} is --predictions too; converting twice would go unnoticed")
    read = for_each([(path, procedure) for path in paths], predictions.read_either)
    changed = [renumber(found, *rates) for found in read]
    out.mkdir(parents=True, exist_ok=True)
    for path, before, after in zip(paths, read, changed, strict=True):
        predictions.write(out / path.name, path.name.removesuffix(predictions.SUFFIX), after)
        print(f"{out / path.name}: {len(after.frames)} rows of {len(before.frames)}")


def _main_labels(args: argparse.Namespace) -> None:
    procedure = load_procedure(args.procedure).at(args.fps)
    terms = words.terms(args.words, args.labels_fps, procedure)
    places = find.find(args.labels)

    def read(name: str, place: LabelPlace) -> Labels:
        variant = procedure.variant_for(name, args.variant)
        content = place.read(procedure, variant, terms=terms, recording=name)
        try:
            return content.with_states(variant.initial_state, 0)
        except ValueError as error:
            raise ValueError(
                f"{place}: {error}, which shows the variant's initial state"
            ) from error

    for name, content in zip(places, for_each(places.items(), read), strict=True):
        folder = pathlib.Path(args.out) / name
        folder.mkdir(parents=True, exist_ok=True)
        labels.write_steps(folder / STEPS, content.steps, procedure)
        labels.write_steps(folder / WITH_ERRORS, content.with_errors, procedure)
        labels.write_states(folder / STATES, content.frames, content.states)
        print(f"{folder}: {len(content.steps)} steps")


def _parser() -> argparse.ArgumentParser:
    parser = OneLineParser(prog="python -m stormpsr_jax.psr.convert", description=__doc__)
    formats = parser.add_subparsers(dest="format", required=True)

    def sub(name: str, text: str, run: Callable[..., None], out: str) -> argparse.ArgumentParser:
        made = formats.add_parser(name, help=text)
        made.set_defaults(run=run)
        made.add_argument("--out", required=True, help=f"folder for {out}")
        text = "a packaged procedure's name, or a procedure file"
        made.add_argument("--procedure", required=True, help=text)
        return made

    name = "<rec>_results_pred.csv"
    coco_results = sub("coco", "COCO results", _main_detections, name)
    add = coco_results.add_argument
    add("--results", required=True, help="the JSON file of detections")
    add("--images", help="the annotation file that explains the image ids")
    yolo = sub("yolo", "a folder of YOLO text files, or of such folders", _main_detections, name)
    add = yolo.add_argument
    add("--folder", required=True, help="such as runs/detect/predict/labels")
    text = "number of a recording's first frame in the files' names, which becomes 0; "
    text += "Ultralytics counts the frames of a video from 1"
    add("--first_frame", type=int, default=0, metavar="N", help=text)
    text = "prediction files whose frames count otherwise"
    frames = sub("frames", text, _main_frames, name)
    text = "folder of <rec>_results_pred.csv, of either stream"
    frames.add_argument("--predictions", required=True, help=text)
    text = "labels of every kind, as folders of PSR files"
    add = sub("labels", text, _main_labels, "a folder per recording").add_argument
    add("--labels", required=True, help="folder or file of labels")
    add_label_flags(add)
    add("--variant", help="of all recordings; otherwise found by their names")
    add("--fps", type=float, help="frames per second of labels by the clock; or the procedure's")
    text = "frames counted at FROM a second become frames at TO, or at the procedure's rate"
    for command in (coco_results, yolo, frames):
        command.add_argument("--fps", required=command is frames, metavar="FROM[:TO]", help=text)
    for command in (coco_results, yolo):
        text = "name of the recording; otherwise that of the folder, or of the file or image "
        command.add_argument("--recording", help=text + "before the frame's number")
        text = "JSON file {detector's class: class of the procedure, state, background or error}"
        command.add_argument("--classes", required=True, help=text)
    return parser


# --- Frame rates ----------------------------------------------------------------------------------


def _rates(text: str, procedure: Procedure) -> tuple[float, float]:
    """Two rates of "25:5"; of "25" the second is the procedure's."""
    source, _, target = text.partition(":")
    try:
        rates = float(source), float(target) if target else procedure.fps
    except ValueError:
        rates = (math.nan, math.nan)
    if not all(files.MIN_FPS <= rate <= files.MAX_FPS for rate in rates):
        raise ValueError(
            f"--fps={text} is not FROM or FROM:TO, frames per second such as 25:5, each in "
            f"{files.MIN_FPS:g}…{files.MAX_FPS:g}"
        )
    return rates


def renumber(rows: predictions.P, source: float, target: float) -> predictions.P:
    """Renumbers the frames of predictions of either stream.

    A frame at `source` frames a second becomes the first frame at `target` frames a second at or
    after its time, as a step of labels by the clock does: what was seen then is known from that
    frame on, and never before. Where several frames fall on one, the best of them is kept: of
    detections the frame with the most confident row, with all its rows; of the temporal stream's
    clips the last, which ends nearest to the frame. At a higher rate, the frames between have no
    rows. ValueError: a number that no file may have.
    """
    # A millionth: 11 / 25 · 50 is a little more than 22.
    exact = np.ceil(rows.frames * (target / source) - 1e-6)
    if len(exact) and exact.max() > MAX_FRAME:
        raise ValueError(f"--fps={source:g}:{target:g} leads to frames after {MAX_FRAME}")
    changed = dataclasses.replace(rows, frames=exact.astype(np.int64))
    if isinstance(changed, Detections):
        rows_kept = np.isin(rows.frames, rows.frames[changed.tops()])
    else:
        rows_kept = np.diff(changed.frames, append=MAX_FRAME + 1) > 0
    return predictions.take_rows(changed, rows_kept)


if __name__ == "__main__":
    main()
