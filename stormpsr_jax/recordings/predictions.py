"""Prediction files of both streams, in the released code's formats, and what is visible when.

Readers raise ValueError with every error of a file, with its line and field.
"""

import contextlib
import csv
import dataclasses
import itertools
import operator
import os
import pathlib
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, TypeVar

import numpy as np

from stormpsr_jax.base import files, folders
from stormpsr_jax.base.errors import for_each
from stormpsr_jax.recordings import csvfile
from stormpsr_jax.recordings.labels import Step, check_ascending
from stormpsr_jax.recordings.procedure import Procedure

SUFFIX = "_results_pred.csv"  # of a file's name, after the recording's
VISIBLE_FROM = "PSR_labels_visible_from.csv"  # beside the labels of a render
_VISIBILITY_HEADER = ["frame", "visible"]
_VISIBLE_FROM_HEADER = ["frame", "step_id", "visible_from"]
# What tools call the columns, where that is another name.
_CALLED = {"framenr": "frame", "confidence": "conf", "score": "conf", "cls": "class"}
# Decimals of a confidence in the files. Whoever decodes without them rounds with `as_written`.
DETECTION_DECIMALS = 6
TEMPORAL_DECIMALS = 4


@dataclasses.dataclass
class Detections:
    """The detector's rows of one recording.

    Attributes:
        frames: (M,) int64, ascending; rows of one frame in file order.
        classes: (M,) int64; 0 background, 1…S catalogued states, S+1 error state.
        confidences: (M,) float64 in 0…1.
        boxes: (M, 4) float64, centre x, centre y, width, height, in any one unit.
    """

    HEADER: ClassVar = ["name", "frame", "class", "conf", "x", "y", "w", "h"]

    frames: np.ndarray
    classes: np.ndarray
    confidences: np.ndarray
    boxes: np.ndarray

    @classmethod
    def of_rows(cls, rows: Iterable[Sequence[float]]) -> "Detections":
        """Makes detections of rows (frame, class, confidence, x, y, w, h), frames in any order."""
        table = np.array(list(rows), np.float64).reshape(-1, 7)
        table = table[np.argsort(table[:, 0], kind="stable")]
        frames, classes = table[:, :2].astype(np.int64).T.copy()
        return cls(frames, classes, table[:, 2].copy(), table[:, 3:].copy())

    def rows(self, name: str, numbers: Iterator[int]) -> Iterator[list]:
        """Iterates over the rows of the file of a recording."""
        numbers_of = np.column_stack([self.confidences, self.boxes]).tolist()
        columns = self.frames.tolist(), self.classes.tolist(), numbers_of
        for frame, c, values in zip(*columns, strict=True):
            yield [name, frame, c, *(f"{value:.{DETECTION_DECIMALS}f}" for value in values)]

    def tops(self) -> np.ndarray:
        """Returns the places of the frames' most confident rows, of equal ones the first."""
        first = np.unique(self.frames, return_index=True)[1]
        return np.lexsort((-self.confidences, self.frames))[first]

    def per_frame(self) -> Iterator[tuple[int, list[tuple[int, float]]]]:
        """Iterates over the frames that have rows: (frame, [(class, confidence), …]).

        Both are what `Decoder.update` and `Monitor.update` take.
        """
        columns = self.frames.tolist(), self.classes.tolist(), self.confidences.tolist()
        rows = zip(*columns, strict=True)
        for frame, group in itertools.groupby(rows, key=operator.itemgetter(0)):
            yield frame, [(c, confidence) for _, c, confidence in group]


@dataclasses.dataclass
class TemporalPredictions:
    """The spatio-temporal stream's clips of one recording, each named by its last frame.

    Attributes:
        frames: (M,) int64, strictly ascending.
        labels: (M, K) int64, 1 where the component changed within the clip (XOR of its ends).
        predicted: (M, K) int64, the network's decision.
        confidences: (M, K) float64 in 0…1, P(component changed inside the window).
    """

    HEADER: ClassVar = ["", "clip", "framenr", "GT", "Pred", "Conf"]

    frames: np.ndarray
    labels: np.ndarray
    predicted: np.ndarray
    confidences: np.ndarray

    def rows(self, name: str, numbers: Iterator[int]) -> Iterator[list]:
        """Iterates over the rows of the file of a recording; `numbers` are of its rows."""
        arrays = (self.frames, self.labels, self.predicted, self.confidences)
        for frame, *lists, values in zip(*(a.tolist() for a in arrays), strict=True):
            confidences = ", ".join(f"{value:.{TEMPORAL_DECIMALS}f}" for value in values)
            yield [next(numbers), name, frame, *lists, f"[{confidences}]"]


P = TypeVar("P", bound=Detections | TemporalPredictions)


def take_rows(found: P, rows: np.ndarray) -> P:
    """Returns those rows of the predictions of a recording."""
    return type(found)(*(array[rows] for array in vars(found).values()))


def as_written(values: Iterable[float], decimals: int) -> list[float]:
    """Returns what a reader finds where these confidences were written with so many decimals."""
    return [float(f"{value:.{decimals}f}") for value in values]


def find(path: str | os.PathLike, flag: str, suffix: str = SUFFIX) -> dict[str, pathlib.Path]:
    """Returns the files ``<rec>_results_pred.csv`` of a folder, by recording.

    Where a folder has none and nothing but one folder, as an archive unpacks, it is that folder's,
    and so on.

    Raises:
        ValueError: `path`, which was given with `flag`, is no folder.
    """
    by_recording: dict[str, pathlib.Path] = {}
    for folder, inner, names in folders.walk(folders.require(path, flag)):
        for place in (folder / name for name in names if name.endswith(suffix)):
            by_recording[files.check_name(place.name.removesuffix(suffix), str(place))] = place
        if by_recording or len(inner) != 1:
            break
    return by_recording


def read_detections(
    path: str | os.PathLike, procedure: Procedure, others: Container[str] = ()
) -> Detections:
    """Reads ``<name>,<frame>,<class>,<conf>,<x>,<y>,<w>,<h>`` below one header row.

    A row ``<name>,<frame>,0`` says that nothing was detected in a frame, as does no row of it.

    Args:
        others: names of other recordings, which no row may name.
    """
    rows = _below_header(path, Detections.HEADER, "frame")
    _check_recording(rows, 0, "name", others)
    classes_are = f", the classes of procedure {procedure.name!r} (check --procedure)"

    def parse(line: csvfile.Line, row: list[str]) -> tuple | None:
        if len(row) == 3 and row[2].strip() == "0":  # as in the files published with IndustReal
            line.frame(row[1])
            return None
        line.check_width(row, Detections.HEADER)
        return (
            line.frame(row[1]),
            line.integer(row[2], 0, procedure.error_class, "class", classes_are),
            line.share(row[3], "conf"),
            *(line.number(row[i], Detections.HEADER[i]) for i in range(4, 8)),
        )

    return Detections.of_rows(row for row in for_each(rows, parse) if row is not None)


def read_temporal(
    path: str | os.PathLike, procedure: Procedure, others: Container[str] = ()
) -> TemporalPredictions:
    """Reads ``,clip,framenr,GT,Pred,Conf`` (with that header), the last three bracketed lists.

    Of several rows for one frame the first counts, as in the released code. `others` is as of
    `read_detections`.
    """
    rows = _below_header(path, TemporalPredictions.HEADER, "framenr")
    _check_recording(rows, 1, "clip", others)
    k = procedure.num_components

    def parse(line: csvfile.Line, row: list[str]) -> tuple[int, list[list[float]]]:
        line.check_width(row, TemporalPredictions.HEADER)
        frame = line.frame(row[2], "framenr")
        lists = []
        for text, field in zip(row[3:], TemporalPredictions.HEADER[3:], strict=True):
            values = _bracketed(text)
            if values is None or len(values) != k:
                got = "that is not one" if values is None else f"not {len(values)}"
                what = f"a bracketed list of {k} numbers is needed, one per component of procedure "
                what += f"{procedure.name!r}, {got}"
                raise line.error(field, what)
            kind = "a probability in 0…1" if field == "Conf" else "0 or 1"
            for i, value in enumerate(values, start=1):
                if not 0 <= value <= 1 or (field != "Conf" and value not in (0, 1)):
                    raise line.error(field, f"{value:g} at place {i} is not {kind}")
            lists.append(values)
        return frame, lists

    parsed = for_each(rows, parse)
    frames = np.array([frame for frame, _ in parsed], np.int64)
    lists = np.array([lists for _, lists in parsed], np.float64).reshape(len(rows), 3, k)
    labels, predicted, confidences = lists.transpose(1, 0, 2)
    first = np.unique(frames, return_index=True)[1]
    changes, predicted = labels.astype(np.int64), predicted.astype(np.int64)
    return take_rows(TemporalPredictions(frames, changes, predicted, confidences), first)


def read_either(path: str | os.PathLike, procedure: Procedure) -> Detections | TemporalPredictions:
    """Reads a prediction file of either stream, which the header shows."""
    rows = csvfile.read_rows(path)
    temporal = bool(rows) and len(rows[0][1]) == len(TemporalPredictions.HEADER)
    return read_temporal(path, procedure) if temporal else read_detections(path, procedure)


def _bracketed(text: str) -> list[float] | None:
    text = text.strip()
    if not (text.startswith("[") and text.endswith("]")):
        return None
    try:
        return list(map(float, text[1:-1].replace(",", " ").split()))
    except ValueError:
        return None


def read_visibility(path: str | os.PathLike) -> tuple[np.ndarray, np.ndarray]:
    """Reads ``frame,visible`` (with that header).

    Returns:
        frames (M,) int64, strictly ascending, and visible fractions (M,) float64 in 0…1; NaN where
        the field is empty.
    """
    rows = _below_header(path, _VISIBILITY_HEADER, "frame")

    def parse(line: csvfile.Line, row: list[str]) -> tuple[int, float]:
        line.check_width(row, _VISIBILITY_HEADER)
        frame = line.frame(row[0])
        text = row[1].strip()
        return frame, line.share(text, "visible") if text else np.nan

    parsed = for_each(rows, parse)
    frames, visible = [frame for frame, _ in parsed], [fraction for _, fraction in parsed]
    check_ascending(rows, frames, "frame")
    return np.array(frames, np.int64), np.array(visible, np.float64)


def read_visible_from(path: str | os.PathLike, procedure: Procedure) -> dict[Step, int | None]:
    """Reads ``frame,step_id,visible_from`` (with that header), a row an installation of a render.

    Returns:
        {(frame, step id): the first frame from there on that shows whether it is right}; None where
        the field is empty, as none does until the component changes again.
    """
    first_seen: dict[Step, int | None] = {}

    def parse(line: csvfile.Line, row: list[str]) -> None:
        line.check_width(row, _VISIBLE_FROM_HEADER)
        frame, last = line.frame(row[0]), 3 * procedure.num_components - 1
        step = frame, line.integer(row[1], 0, last, "step_id")
        if step[1] % 3 == 2 or step in first_seen:
            what = "is given twice at this frame" if step in first_seen else "is no installation"
            raise line.error("step_id", f"{step[1]} {what}")
        text, last = row[2].strip(), csvfile.MAX_FRAME
        first_seen[step] = line.integer(text, frame, last, "visible_from") if text else None

    for_each(_below_header(path, _VISIBLE_FROM_HEADER, "frame"), parse)
    return first_seen


def write_visible_from(path: str | os.PathLike, found: Mapping[Step, int | None]) -> None:
    """Writes the file that `read_visible_from` reads."""
    csvfile.write(path, [_VISIBLE_FROM_HEADER, *([*s, found[s]] for s in sorted(found))])


def write(
    path: str | os.PathLike, recording: str, predictions: Detections | TemporalPredictions
) -> None:
    """Writes the file that `read_either` reads; confidences at 6 (clips: 4) decimals."""
    with writing(path, recording, type(predictions)) as add:
        add(predictions)


write_detections = write_temporal = write  # as the package calls it


@contextlib.contextmanager
def writing(
    path: str | os.PathLike, recording: str, kind: type[Detections] | type[TemporalPredictions]
) -> Iterator[Callable[[Any], None]]:
    """Gives a function that writes the next predictions of a recording, in any number of calls.

    The file is there, whole, once the block has ended without an error.
    """
    name, numbers = csvfile.plain(recording), itertools.count()
    with files.replacing(path) as part, part.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(kind.HEADER)
        yield lambda predictions: writer.writerows(predictions.rows(name, numbers))


def write_visibility(
    path: str | os.PathLike, frames: Sequence[int] | np.ndarray, visible: np.ndarray
) -> None:
    """Writes the file that `read_visibility` reads: frames (M,), visible (M,), NaN is unknown."""
    rows = zip(np.asarray(frames).tolist(), np.asarray(visible).tolist(), strict=True)
    lines = [[f, "" if v != v else f"{v:.4f}"] for f, v in rows]
    csvfile.write(path, [_VISIBILITY_HEADER, *lines])


def _below_header(path: str | os.PathLike, header: list[str], frame: str) -> list[csvfile.Row]:
    """Returns the rows below the header; ``frame`` names the column of frame numbers."""
    rows = csvfile.read_rows(path)
    if not rows:
        raise ValueError(f"{path}: line 1: header: the file is empty, not even {','.join(header)}")
    line, first = rows[0]
    line.check_width(first, header)
    # A first row of data would be dropped in silence as if it were the header.
    if first[header.index(frame)].strip().isdigit():
        raise line.error("header", f"is missing; the first row must be {','.join(header)}")
    columns = [_CALLED.get(name, name) for name in map(_column, header)]
    for i, name in enumerate(first):
        known = _CALLED.get(_column(name), _column(name))
        if known in columns[1:] and columns[i] != known:  # columns are read by their places
            what = f"column {i + 1} is {files.shorten(name)}, and {header[i] or 'a number'} belongs"
            raise line.error("header", f"{what} there; the columns are {','.join(header)}")
    return rows[1:]


def _column(name: str) -> str:
    """A column's name without what IndustReal's published files put in front: bb_conf is conf."""
    return name.strip().lower().removeprefix("bb_")


def _check_recording(
    rows: Sequence[csvfile.Row], column: int, field: str, others: Container[str]
) -> None:
    """Raises ValueError where rows name one of `others`, as where files were swapped or joined."""
    named = [(line, row[column].strip().removeprefix("'")) for line, row in rows if row[column:]]
    wrong = [(line, name) for line, name in named if name in others]
    if wrong:
        line, name = wrong[0]
        what = f"is {files.shorten(name)} in {'all' if len(wrong) == len(rows) else len(wrong)} "
        what += f"rows, which is another recording; call the file {name}{SUFFIX} if it is of that "
        raise line.error(field, f"{what}one, or correct the column")
