"""The folder of a recording's results: events, predictions, and what they were made from."""

from __future__ import annotations

import contextlib
import csv
import json
import math
import re
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

from stormpsr_jax.base import files, results
from stormpsr_jax.base.results import RECORD
from stormpsr_jax.psr.events import Event
from stormpsr_jax.psr.monitor import Alert
from stormpsr_jax.recordings import predictions
from stormpsr_jax.recordings.procedure import Procedure
from stormpsr_jax.serving.frames import Frame, ProductShare, changes, detections
from stormpsr_jax.serving.online import PERSON

EVENTS, UNSURE = "events.csv", "unsure.csv"
_PART = re.compile(r"\.(.+)\.[0-9a-f]{8}\.part")
_HEADER = ["time", "step", "confidence", "frame", "step_id", "stream"]


# --- Finished recordings --------------------------------------------------------------------------


class Record(results.Record, omit_defaults=False):
    """Of finished results: whether their source shows the model's product (or None), and why."""

    fits: bool | None = None
    product: str = ""


def finished(
    folder: Path, stamp: str, checksum: Callable[[], str], made_from: Mapping
) -> Record | None:
    """Returns the record of a recording's results, if of the same source, model and options.

    `stamp` is of the source; another one may still be of the same content, whose checksum is asked
    for then. `made_from` is all else that the results depend on. What was changed by hand since
    stays so: labels are made by correcting events.csv.

    Raises:
        ValueError: they would have to be made again, but there is a result that was changed by
            hand, or something that is no result at all.
    """
    if not folder.exists():
        return None
    record = _read_record(folder)
    results_of, source = record.results or {}, record.made_from.get("source", {})
    there = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if not p.is_dir()}
    there -= {RECORD}
    if record.made_from.get("options") == made_from and there >= set(results_of):
        if source.get("stamp") == stamp or source.get("checksum") == checksum():
            return record
    for name in sorted(there):
        if name not in results_of or files.checksum(folder / name) != results_of[name]:
            what = "changed since it was made" if name in results_of else "not made by this command"
            raise ValueError(
                f"{folder / name}: was {what}, and the results beside it have to be made again (of "
                "another source, model or option, or one is missing); move it elsewhere (corrected "
                "events to your labels), or give another --out"
            )
    return None


def _read_record(folder: Path) -> Record:
    try:
        if (record := results.read(folder, Record)) is not None:
            return record
        error = f"{folder / RECORD}: missing"
    except ValueError as damage:
        error = str(damage)
    raise ValueError(
        f"{error}; {folder} is not known to hold results: remove it, or give another --out"
    )


def remove_parts(out: Path, names: Container[str]) -> None:
    """Removes what killed processes have left of the results of these recordings."""
    for path in out.iterdir():
        if (match := _PART.fullmatch(path.name)) and match[1] in names:
            files.remove(path)


# --- Results --------------------------------------------------------------------------------------


class Writer:
    """Writes predictions as they come, and events at the end, when it is known whether they fit.

    Use it as a context: the predictions are there, whole, once it has ended without an error.
    """

    def __init__(
        self,
        folder: Path,
        recording: str,
        procedure: Procedure,
        fps: float,
        first_frame: int,
        calibrated: bool = True,
    ):
        """Writes into `folder`; times count from the frame `first_frame` on."""
        self._calibrated = calibrated  # whether confidences are probabilities
        self._folder, self._recording, self._procedure = folder, recording, procedure
        self._fps, self._first, self._last = fps, first_frame, first_frame
        self._stack = contextlib.ExitStack()
        self._predictions: dict[str, Callable[[Any], None]] = {}
        self._lines: list[dict[str, Any]] = []
        # By type of a line; that of what is not sure is there with its first row.
        self._tables: dict[str, list[Sequence[object]]] = {"event": []}

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, *error: Any) -> None:
        self._stack.__exit__(*error)

    def write(self, frames: Sequence[Frame], alerts: list[Alert]) -> None:
        """Takes the next frames and their alerts."""
        self._last = frames[-1].number
        if (found := detections(frames)) is not None:
            self._predict("asd", found)
        if (changed := changes(frames)) is not None:
            self._predict("temporal", changed)
        for event in (event for frame in frames for event in frame.events):
            kind = kind_of(event)
            if kind not in ("seen", "gone"):
                time = label_time(event.frame - self._first, self._fps)
                confidence = f"{confidence_of(event):.4f}"
                row = [time, event.name, confidence, event.frame, event.step_id]
                self._tables.setdefault(kind, []).append([*row, event.stream])
            record = of_event(event, self._procedure, self._calibrated, None)
            self._lines.append({"type": kind, **self._when(event.frame), **record})
        self.write_alerts(alerts)

    def finish(self, product: ProductShare) -> None:
        """Writes events and alerts; of a source without the model's product no rows in the tables.

        Raises:
            OSError: a file cannot be written.
        """
        told, fits = product.fits is not False, product.fits
        names = {"event": EVENTS, "unsure": UNSURE}
        for kind, rows in self._tables.items():
            with _writing(self._folder / names[kind]) as file:
                table = csv.writer(file, lineterminator="\n")
                table.writerows([_HEADER, *(rows if told else ())])
        status = {"type": "status", **self._when(self._last), **of_product(product)}
        with _writing(self._folder / "events.jsonl") as file:
            for line in [*self._lines, status]:
                known = line | {"fits": fits} if "fits" in line else line
                file.write(json.dumps(known, ensure_ascii=False, allow_nan=False) + "\n")

    def write_alerts(self, alerts: list[Alert]) -> None:
        """Takes alerts, for events.jsonl."""
        for alert in alerts:
            line = {"type": "alert", **self._when(alert.frame), **of_alert(alert)}
            self._lines.append(line)

    def _when(self, frame: int) -> dict[str, Any]:
        time = (frame - self._first) / self._fps
        return {"recording": self._recording, "time_s": round(time, 6), "frame": frame}

    def _predict(self, stream: str, rows: Any) -> None:
        if stream not in self._predictions:
            path = self._folder / stream / f"{self._recording}{predictions.SUFFIX}"
            path.parent.mkdir()
            writing = predictions.writing(path, self._recording, type(rows))
            self._predictions[stream] = self._stack.enter_context(writing)
        self._predictions[stream](rows)


def label_time(frames: int, fps: float) -> str:
    """Returns when a frame is, in seconds, so that as a label it means this very frame.

    A label counts from the first frame at or after its time (`label_file`), so milliseconds,
    or what is less than a frame of so many a second, are rounded down.
    """
    digits = max(3, math.floor(math.log10(fps)) + 1)
    return f"{math.floor(10**digits * frames / fps + 1e-6) / 10**digits:.{digits}f}"


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[TextIO]:
    with files.replacing(path) as part, part.open("w", newline="", encoding="utf-8") as file:
        yield file


def kind_of(event: Event) -> str:
    """Returns the type of an event's line: "event", "seen", "unsure", "gone" or "confirmed".

    That is a report, a step that was seen, one that is not sure, the end of that as the part was
    taken off, and one that a person has confirmed.
    """
    if event.stream == PERSON:
        return "confirmed"
    return "event" if event.kind == "report" else event.kind


def confidence_of(event: Event) -> float:
    """Returns how sure an event is; of one that is not sure, the part's own evidence alone is."""
    if event.kind == "unsure":
        return event.evidence.get("own", event.confidence)
    return event.confidence


def of_event(
    event: Event, procedure: Procedure, calibrated: bool, fits: bool | None
) -> dict[str, Any]:
    """Returns what an event says, without when it was."""
    return {
        "step_id": event.step_id,
        "step": event.name,
        "component": procedure.components[event.step_id // 3],
        "state": event.state,
        "confidence": confidence_of(event),
        "stream": event.stream,
        "evidence": event.evidence,
        "calibrated": calibrated and event.stream != PERSON,
        "fits": fits,
    }


def of_alert(alert: Alert) -> dict[str, Any]:
    """Returns what an alert says, without when it was."""
    fields = {"alert": alert.kind, "message": alert.message, "step_id": alert.step_id}
    return fields | {"other": alert.other, "since": alert.since}


def of_product(product: ProductShare) -> dict[str, Any]:
    """Returns whether a source shows the model's product, and by which shares that is told."""
    share = product.share
    return {
        "fits": product.fits,
        "share": None if share is None else round(share, 4),
        "validation_share": product.of_model,
    }
