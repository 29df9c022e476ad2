"""One recording from its pictures to the folder of its results."""

import contextlib
import dataclasses
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from stormpsr_jax.media.ahead import ahead
from stormpsr_jax.media.pictures import Pictures, read_upright
from stormpsr_jax.psr.events import reports
from stormpsr_jax.report import pages
from stormpsr_jax.serving.checklist import Checklist
from stormpsr_jax.serving.files import overlay, results
from stormpsr_jax.serving.files.clips import FOLDER, Clips
from stormpsr_jax.serving.files.page import Report
from stormpsr_jax.serving.files.thumbnails import reduced
from stormpsr_jax.serving.frames import chunks
from stormpsr_jax.serving.model import Model
from stormpsr_jax.serving.product_share import ProductShare

VIDEO = "annotated.mp4"
_DEPTH = 8  # pictures that are read ahead of those that are shown


@dataclasses.dataclass(frozen=True)
class RecordingOptions:
    """What is wanted of a recording.

    Attributes:
        stream, settings: how its events are decoded; None for the model's own.
        video, clips: write the annotated video, and one of each event, of some seconds.
        certain: events of a lower confidence are listed as uncertain.
    """

    stream: str | None = None
    settings: Any | None = None
    batch: int | None = None
    video: bool = False
    clips: bool = False
    certain: float = 0.0


def recognise(
    model: Model,
    name: str,
    pictures: Pictures,
    variant: str,
    folder: Path,
    options: RecordingOptions,
    *,
    source: Path,
    progress: Callable[[int], object] = lambda count: None,
) -> tuple[int, ProductShare]:
    """Recognises a recording, whose pictures are from `source`, and writes its results.

    The pictures are read twice: by the networks, and behind them by what shows them. Returns the
    number of events in its table, and whether it shows the model's product.

    Raises:
        ValueError: a picture cannot be read.
        MemoryError: no memory for the batch.
        OSError: a result cannot be written.
    """
    decoder = model.decoder(options.stream, variant, settings=options.settings)
    procedure, fps, batch = decoder.procedure, model.fps, options.batch or model.batch
    video, clips, certain = options.video, options.clips, options.certain
    first = pictures.first_frame
    checklist = Checklist(procedure, decoder.variant, decoder.floor, fps)
    report = Report(procedure, decoder.variant, fps, first, pictures.num_frames, certain)
    framing = model.framing_of("detector")  # the one that boxes are told in
    calibrated = model.calibrated(decoder.stream, decoder.settings)
    missing = pages.missing()
    product = model.product_share()
    with contextlib.ExitStack() as stack:
        rows = stack.enter_context(
            contextlib.closing(model.rows_of(pictures, decoder.stream, batch))
        )
        writer = stack.enter_context(
            results.Writer(folder, name, procedure, fps, first, certain, calibrated)
        )
        if video:
            write_frame = stack.enter_context(
                overlay.writing_video(folder / VIDEO, procedure, framing, fps)
            )
        if clips:
            of_events = Clips(folder / FOLDER, procedure, framing, fps)
        shown_again = ahead((picture for picture in read_upright(pictures)), _DEPTH)
        stack.enter_context(contextlib.closing(shown_again))
        numbered = enumerate(shown_again, first)
        frames = model.frames(decoder, stream=decoder.stream, batch=batch)
        for chunk in frames.over(chunks(rows, batch, first)):
            alerts = []
            for frame in chunk:
                product.update(frame)
                alerts += (news := checklist.update(frame))
                report.add(frame, news)
                pictured = any(event.kind in ("report", "unsure") for event in frame.events)
                if not (video or clips or (pictured and not missing)):
                    continue
                picture = next(picture for number, picture in numbered if number == frame.number)
                if pictured:
                    report.show(frame.number, picture)
                if not (video or clips):
                    continue
                time = (frame.number - first) / fps
                shown = overlay.Shown(time, checklist.rows(), frame, decoder.floor)
                picture = reduced(picture)
                if video:
                    write_frame(picture, shown)
                if clips:
                    names = [f"{frame.number:06d}_{e.step_id}" for e in reports(frame.events)]
                    of_events.add(frame.number, picture, shown, names)
                progress(1)
            writer.write(chunk, alerts)
            progress(len(chunk))
        if clips:
            of_events.finish()
        # Of another product nothing is missing.
        alerts = [] if product.fits is False else checklist.finish()
        writer.write_alerts(alerts)
        report.add_alerts(alerts)
        writer.finish(product)
    if missing:
        what = "%s: no report.html, which needs %s"
        logging.getLogger(__name__).warning(what, name, missing)
    else:
        report.write(
            folder / "report.html",
            name=name,
            rows=checklist.rows(),
            stream=decoder.stream,
            settings=decoder.settings,
            calibrated=calibrated,
            source=source.name,
            product=product,
        )
    return 0 if product.fits is False else report.num_events, product
