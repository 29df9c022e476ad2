"""Brings the parts of recordings together, wherever they lie, and chooses the split of each."""

import functools
import hashlib
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from absl import logging

from stormpsr_jax.base import files, folders
from stormpsr_jax.base.errors import for_each, gathering, raise_all
from stormpsr_jax.base.folders import printable
from stormpsr_jax.data import folder as data_folder
from stormpsr_jax.media import pictures, sources, video
from stormpsr_jax.media.pictures import ImageFiles, Pictures
from stormpsr_jax.recordings import box_files, csvfile
from stormpsr_jax.recordings.boxes import (
    Boxes,
    Picture,
    by_frame,
    by_recording,
    join_pictures,
    of_one,
)
from stormpsr_jax.recordings.find import SPLITS, split_of
from stormpsr_jax.recordings.label_file import LabelPlace
from stormpsr_jax.recordings.labels import STATES
from stormpsr_jax.recordings.procedure import Procedure
from stormpsr_jax.recordings.recording import Recording, read_recording

P = TypeVar("P", Path, LabelPlace)

DEFAULT_SHARES = "70/15/15"
_SHARES = re.compile(r"([0-9]{1,3})/([0-9]{1,3})/([0-9]{1,3})", re.ASCII)


def find_labels(top: Path, flag: str, left_out: Collection[str] = ()) -> dict[str, LabelPlace]:
    """The folders with a file of labels; ValueError: none, or all recordings in two places."""
    walked = folders.walk(top, left_out)
    by_name = sources.by_name((path.name, path) for path, _, names in walked if STATES in names)
    if not by_name:
        raise ValueError(
            f"{flag}: no folder <train|val|test>/<recording> with a {STATES} is in it; unpack the "
            "archives, if it holds some"
        )
    places = only_places(by_name, flag, "labels")
    return {name: LabelPlace(path) for name, path in places.items()}


def find_box_files(
    top: Path,
    flag: str,
    recording_of: Callable[[Path], str | None],
    left_out: Collection[str] = (),
) -> dict[str, Path]:
    """The file of boxes of each recording, whose name `recording_of` gives (None: another file)."""
    walked = folders.walk(top, left_out)
    by_name = sources.by_name(
        (name, path)
        for path in (folder / file for folder, _, names in walked for file in names)
        if (name := recording_of(path)) is not None
    )
    return only_places(by_name, flag, "boxes")


def only_places(by_name: Mapping[str, Sequence[P]], flag: str, kind: str) -> dict[str, P]:
    """Returns the place of each recording; ValueError names all that have several."""
    raise_all(
        [
            f"{flag}: recording {name}: {kind} in {' and '.join(map(str, its))}; keep one of "
            "these or, if they are of several recordings, rename all but one"
            for name, its in by_name.items()
            if len(its) > 1
        ]
    )
    return {name: place for name, [place] in by_name.items()}


def read_boxes(path: Path) -> Boxes:
    """Reads the boxes of a recording: of a COCO file, or of a folder of YOLO's."""
    if path.is_file():
        return of_one(box_files.coco(files.read_json(path), path), path.stem)

    def picture(name: str) -> Picture:
        return box_files.yolo(files.read_text(path / name), str(path / name))

    there = filter(box_files.is_of_picture, folders.entries(path)[1])
    pictures = for_each([(name,) for name in there], picture)
    return join_pictures(by_frame(pictures).values())


def find_boxes(path: str | Path, names: Collection[str]) -> dict[str, Callable[[], Boxes]]:
    """Finds the boxes of each recording, of which labels have `names`.

    `path` is a folder with <recording>.json (COCO) and folders <recording>/ of .txt files (YOLO);
    or a COCO file of all recordings, or a folder with that alone. ValueError: there are none, a
    recording has both, or a file of all recordings has mistakes.
    """
    top, places = folders.require(path, "--boxes", "or a COCO file"), list[tuple[str, Path]]()
    for folder, _, there in folders.walk(top):
        if of_cvat := [name for name in there if name.lower().endswith(".xml")]:
            what = "CVAT's XML is not read for boxes; export the task as COCO 1.0"
            raise ValueError(f"{folder / of_cvat[0]}: {what}")
        coco = [name for name in there if name.lower().endswith(".json")]
        places += [(name.rpartition(".")[0], folder / name) for name in coco]
        if folder != top and any(map(box_files.is_of_picture, there)):
            places.append((folder.name, folder))
    by_name = sources.by_name(places)
    if not by_name:
        raise ValueError(
            f"--boxes={path}: has no <recording>.json (COCO) or <recording>/*.txt (YOLO)"
        )
    (_, shared), *others = places
    if not others and (shared == top or not by_name.keys() & set(names)) and shared.is_file():
        of_each = by_recording(box_files.coco(files.read_json(shared), shared), names)
        return {name: functools.partial(of_each.__getitem__, name) for name in of_each}
    each = only_places(by_name, "--boxes", "boxes")
    return {name: functools.partial(read_boxes, place) for name, place in each.items()}


def open_pictures(path: Path, fps: float, first_frame: int, title: str = "") -> Pictures:
    """Opens a video of a data set, whose first frame has the number given, or a folder of images.

    ValueError: damaged, incomplete, another rate, or, where the data set `title` is named, images
    that begin with another number; labels use the numbers of images, whatever these are.
    """
    if video.is_video(path.name):
        return video.open_constant_rate(path, first_frame, fps)
    numbers = pictures.number_images(path, folders.entries(path)[1])
    first = min(numbers)
    if title and first != first_frame:
        raise ValueError(
            f"{printable(path)}: the first frame is {first}, {title} starts at {first_frame}; "
            "frames before it are missing, or were numbered otherwise when they were extracted"
        )
    return ImageFiles(path, first, len(numbers))


def images_first(pictured: Mapping[str, Sequence[Path]]) -> dict[str, list[Path]]:
    """Returns the places of pictures; of a recording with images, those without its videos."""
    images = {n: [p for p in its if not video.is_video(p.name)] for n, its in pictured.items()}
    return {name: images[name] or list(its) for name, its in pictured.items()}


def match(
    labelled: Mapping[str, LabelPlace],
    pictured: Mapping[str, Sequence[Path]],
    boxed: Mapping[str, Callable[[], Boxes]],
    open_video: Callable[[Path, str], Pictures],
    flag: str,
    procedure: Procedure,
    tops: tuple[Path, Path] | None = None,
    **more: Any,
) -> list[Recording]:
    """Reads the recordings that have labels; a line in the log names the other pictures.

    Args:
        boxed: by recording, what gives its boxes.
        open_video: opens the video, or the folder of images, of a recording.
        flag: says where the pictures are.
        tops: the folders of labels and pictures, which say the splits; None: no split yet.
        more: arguments of `read_recording`, of all of them.

    Raises:
        ValueError: all recordings that lack a part, have two of one, or miss pictures; or as of
            `splits_of`; or all errors in labels and boxes.
    """
    problems = []
    unlabelled = [name for name in pictured if name not in labelled]
    if without := [name for name in labelled if name not in pictured]:
        problems.append(f"labels without frames ({flag}): {', '.join(without)}")
    if unlabelled and problems:  # the same ones under other names?
        problems.append(f"frames without labels: {', '.join(unlabelled)}")
    if without := [name for name in boxed if name not in labelled]:
        problems.append(f"boxes without labels: {', '.join(without)}")
    videos = dict[str, Pictures]()
    for name in sorted(labelled.keys() & pictured.keys()):
        with gathering(problems):
            place = only_places({name: pictured[name]}, flag, "frames")[name]
            videos[name] = open_video(place, name)
    raise_all(problems)
    splits = dict[str, str]()
    if tops is not None:
        splits = splits_of(*tops, labelled, {name: pictured[name][0] for name in labelled})

    def read(name: str, video: Pictures) -> Recording:
        return read_recording(
            name, video, labelled[name], procedure, read_boxes=boxed.get(name), **more
        )

    recordings = for_each(videos.items(), read)
    for recording in recordings:
        recording.split = splits.get(recording.name, "")
    if unlabelled:
        first = printable(pictured[unlabelled[0]][0])
        what = "pictures without labels are left out: %s (%s%s)"
        logging.warning(what, ", ".join(unlabelled), first, ", …" * (len(unlabelled) > 1))
    return recordings


def splits_of(
    labels: Path,
    pictures: Path,
    labelled: Mapping[str, LabelPlace],
    pictured: Mapping[str, Path],
    above: bool = True,
) -> dict[str, str]:
    """Returns the split of each recording: that of its labels, or else of its pictures.

    `labels` and `pictures` are the folders in which they were found; `above` is as of
    `find.split_of`. ValueError names all recordings that are in no split, or whose pictures are in
    another one.
    """
    splits, problems = {}, []
    for name, place in labelled.items():
        of_pictures = split_of(pictured[name], pictures, above)
        of_labels = split_of(place.path, labels, above) or of_pictures
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


# --- Splits of a user's own recordings ------------------------------------------------------------


def choose_splits(
    spec: str,
    seed: int,
    before: Mapping[str, str],
    tops: tuple[Path, Path],
    labelled: Mapping[str, LabelPlace],
    pictured: Mapping[str, Path],
    has_wrong: Callable[[str], bool],
) -> Mapping[str, str]:
    """The split of each recording.

    Args:
        spec: a CSV file, or shares such as 70/15/15; '' means the folders that recordings lie in,
            and if none lies in one, DEFAULT_SHARES.
        before: splits that no draw changes: what is scored on must not be learnt from later.
        tops: the folders in which the labels and the pictures of recordings were found.
        has_wrong: whether a recording, by its name, has an incorrect installation.

    Raises:
        ValueError: too few recordings for the draw; recordings without a split or in two.
    """
    if not spec:
        in_folders = [split_of(place.path, tops[0]) for place in labelled.values()]
        in_folders += [split_of(path, tops[1]) for path in pictured.values()]
        if any(in_folders):
            return splits_of(*tops, labelled, pictured, above=False)
    if match := _SHARES.fullmatch(spec or DEFAULT_SHARES):
        shares = [int(share) for share in match.groups()]
        return draw_splits(
            list(labelled), shares, seed, before, {n: has_wrong(n) for n in labelled}
        )
    return _read_splits(Path(spec), labelled)


def draw_splits(
    names: Sequence[str],
    shares: Sequence[int],
    seed: int,
    before: Mapping[str, str],
    wrong: Mapping[str, bool],
) -> dict[str, str]:
    """Draws the split of each recording; the same arguments give the same splits.

    Incorrect installations go to train, val and test in this order, until each has a recording with
    one (those that are `wrong`). Each share that is not 0 gets a recording at least. Recordings
    keep the split that they had `before`; the others are drawn so that all together come as near to
    the shares as they can.
    """
    used = {split: share for split, share in zip(SPLITS, shares, strict=True) if share}
    spec = "/".join(map(str, shares))
    if not used:
        raise ValueError(f"--splits={spec}: all shares are 0")
    chosen = {name: before[name] for name in names if name in before}
    new = sorted(
        (name for name in names if name not in before),
        key=lambda name: hashlib.sha256(f"{seed}/{name}".encode()).digest(),
    )
    first, *others = used  # train takes what the others leave
    for i, split in enumerate(others):
        there = [*chosen.values()]
        wanted = max(1, round(len(names) * used[split] / sum(used.values()))) - there.count(split)
        empty = [other for other in (first, *others[i + 1 :]) if other not in there]
        for _ in range(min(wanted, len(new) - len(empty))):  # one for each that has none yet
            chosen[_take(new, chosen, wrong, split, (first, *others[i + 1 :]))] = split
    chosen |= dict.fromkeys(new, first)
    if missing := [split for split in used if split not in chosen.values()]:
        how = ", delete --out to draw anew" if before else ""
        raise ValueError(
            f"{len(names)} recordings are too few to draw {', '.join(used)} from ({spec}), which "
            f"need one each, and none is left for {', '.join(missing)}: record more, cut a long "
            f"recording into several{how}, or say with --splits=FILE which one is for what"
        )
    return {name: chosen[name] for name in names}


def _take(
    new: list[str],
    chosen: Mapping[str, str],
    wrong: Mapping[str, bool],
    split: str,
    later: Sequence[str],
) -> str:
    """Takes out of `new` the recording that `split` gets next; `later` choose after it."""
    have = {of for name, of in chosen.items() if wrong[name]}
    lacks = split not in have
    needy = {*(later[:1] if lacks else later)} - have
    is_kept = len(needy) >= sum(wrong[name] for name in new)
    place = (is_kept, -lacks - (not have - {later[0]}))  # of an incorrect one among the others
    taken = min(new, key=lambda name: place if wrong[name] else (False, 0))
    new.remove(taken)
    return taken


def splits_of_folder(out: str | Path) -> dict[str, str]:
    """The splits of the recordings that a data folder has or is to have; ValueError if damaged."""
    path = Path(out, "settings.json")
    if not path.is_file():
        return {}
    settings = data_folder.load_settings(path, data_folder.Settings)
    return {name: split for split, names in settings.splits.items() for name in names}


def _read_splits(path: Path, names: Iterable[str]) -> dict[str, str]:
    if not path.is_file():
        raise ValueError(
            f"--splits={path}: neither a file nor shares of train, val and test such as 70/15/15"
        )
    header = ["recording", "split"]
    rows = csvfile.read_rows(path)
    if not rows or [text.strip().lower() for text in rows[0][1]] != header:
        raise ValueError(f"{path}: line 1: header: has to be recording,split")
    chosen: dict[str, str] = {}

    def add(line: csvfile.Line, row: list[str]) -> None:
        line.check_width(row, header)
        name, split = files.check_name(row[0].strip(), f"{path}: line {line}"), row[1].strip()
        if split not in SPLITS:
            raise line.error("split", f"{files.shorten(split)} is not one of {', '.join(SPLITS)}")
        if chosen.setdefault(name, split) != split:
            raise line.error("recording", f"{name} is in {chosen[name]} above")

    for_each(rows[1:], add)
    problems = []
    if without := [name for name in names if name not in chosen]:
        problems.append(f"{path}: has no row for recordings {', '.join(without)}")
    if without := [name for name in chosen if name not in set(names)]:
        problems.append(f"{path}: recordings without video and labels: {', '.join(without)}")
    raise_all(problems)
    return chosen
