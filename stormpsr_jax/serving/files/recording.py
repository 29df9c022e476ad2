"""Sources to recognise into folders of results."""

import contextlib
import dataclasses
import functools
import logging
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from stormpsr_jax.base import cluster, files
from stormpsr_jax.base.progress import Bar
from stormpsr_jax.base.results import checksums
from stormpsr_jax.base.results import write as write_record
from stormpsr_jax.media.pictures import Pictures, read_upright
from stormpsr_jax.media.sources import Source, ahead
from stormpsr_jax.report import pages
from stormpsr_jax.serving.files import results
from stormpsr_jax.serving.files.overlay import Shown, reduced, writing_video
from stormpsr_jax.serving.files.page import Report
from stormpsr_jax.serving.folder import load_model
from stormpsr_jax.serving.frames import ProductShare, chunks
from stormpsr_jax.serving.model import Model
from stormpsr_jax.serving.online import Checklist

VIDEO = "annotated.mp4"
_DEPTH = 8  # pictures that are read ahead of those that are shown


@dataclasses.dataclass(frozen=True)
class RecordingOptions:
    """What is wanted of a recording."""

    stream: str | None = None  # None for the model's own, as of settings and batch
    settings: Any | None = None
    batch: int | None = None
    video: bool = False  # writes the annotated video


class Done(NamedTuple):
    """A line that tells of a recording that is recognised, and whether it fits the model."""

    line: str
    fits: bool | None


def recognise(
    model: Model,
    checksum: str,
    source: Source,
    folder: Path,
    variant: str,
    options: RecordingOptions,
    title: str,
) -> Done:
    """Recognises a source into the folder of its results, unless it is finished.

    Args:
        checksum: of the model's model.json.
        title: of the bar that shows the progress; "": none does.

    Raises:
        ValueError: it cannot be read, has changed meanwhile, or its results would take the place of
            something that was changed by hand.
        MemoryError: no memory for the batch.
        OSError: a result cannot be written.
    """
    made_from = msgspec.json.decode(msgspec.json.encode(dataclasses.replace(options, batch=None)))
    made_from, stamp = {"model": checksum, "variant": variant, **made_from}, source.stamp()
    if done := results.finished(folder, stamp, source.checksum, made_from):
        return Done(f"{folder}: finished before{_warning(done.fits, done.product)}", done.fits)
    start, pictures = time.monotonic(), source.open(model.fps)
    total = pictures.num_frames * (2 if options.video else 1)
    with (
        Bar(total=total, desc=title, unit="frame", disable=not title) as bar,
        files.replacing_folder(folder, secrets.token_hex(4)) as part,
    ):
        num_events, product = write(
            model, source.name, pictures, variant, part, options, source.place.name, bar.update
        )
        made = {"source": {"stamp": stamp, "checksum": source.checksum()}, "options": made_from}
        if source.stamp() != stamp:
            raise ValueError(f"{source.place}: changed while it was read; run the command again")
        known = checksums(part, sorted(path for path in part.rglob("*") if path.is_file()))
        record = results.Record(made, results=known, fits=product.fits, product=str(product))
        write_record(part, record)
    length, seconds = pictures.num_frames / model.fps, time.monotonic() - start
    line = f"{folder}: {num_events} events in {length:.0f} s of video, took {seconds:.1f} s"
    if num_events and not model.calibrated(options.stream, options.settings):
        line += "; confidences are not calibrated"
    return Done(line + _warning(product.fits, str(product)), product.fits)


# A source, the folder of its results, its variant, and what is wanted of it.
Job = tuple[Source, Path, str, RecordingOptions]


def here(model: Model, checksum: str, jobs: Sequence[Job]) -> Iterator[cluster.End]:
    """Recognises one source after the other; yields as `cluster.run`."""
    for i, job in enumerate(jobs):
        try:
            done = recognise(model, checksum, *job, f"{i + 1}/{len(jobs)} {job[0].name}")
        except Exception as error:  # whoever asks for the next one decides
            yield i, None, error
        else:
            yield i, done, None


def on_cluster(
    head: str, lock: Path, of: tuple[Path, str, tuple[str, ...]], jobs: Sequence[Job]
) -> Iterator[cluster.End]:
    """Recognises sources as `cluster.run` does; `of`: model folder, its checksum, its modules."""
    try:
        call = functools.partial(_there, of)
        with contextlib.closing(cluster.run(head, call, jobs, lock=lock, gpus=True)) as ends:
            yield from ends
    finally:  # what tasks that are given up leave
        results.remove_parts(lock.parent, {source.name for source, *_ in jobs})


def _there(of: tuple[Path, str, tuple[str, ...]], job: Job) -> Done:
    return recognise(_model(of), of[1], *job, "")


@functools.lru_cache(1)
def _model(of: tuple[Path, str, tuple[str, ...]]) -> Model:
    """The model that a process last used; the checksum of its model.json tells another one."""
    return load_model(of[0], of[2])


def _warning(fits: bool | None, why: str) -> str:
    return f"; it does not show the model's product: {why}" if fits is False else ""


def write(
    model: Model,
    name: str,
    pictures: Pictures,
    variant: str,
    folder: Path,
    options: RecordingOptions,
    source: str,
    progress: Callable[[int], object] = lambda count: None,
) -> tuple[int, ProductShare]:
    """Recognises the pictures of a recording, which are from `source`, and writes its results.

    They are read twice: by the networks, and behind them by what shows them. Returns the number of
    events in its table, and whether it shows the model's product. Errors as in `recognise`.
    """
    decoder = model.decoder(options.stream, variant, settings=options.settings)
    procedure, fps, batch = decoder.procedure, model.fps, options.batch or model.batch
    first = pictures.first_frame
    checklist = Checklist(procedure, decoder.variant, decoder.floor, fps)
    report = Report(procedure, decoder.variant, fps, first, pictures.num_frames)
    framing = model.pictures.framing_of("detector")  # the one that boxes are told in
    calibrated = model.calibrated(decoder.stream, decoder.settings)
    missing = pages.missing()
    product = model.product_share()
    with contextlib.ExitStack() as stack:
        rows = stack.enter_context(
            contextlib.closing(model.rows_of(pictures, decoder.stream, batch))
        )
        writer = stack.enter_context(
            results.Writer(folder, name, procedure, fps, first, calibrated)
        )
        write_frame = None
        if options.video:
            video = writing_video(folder / VIDEO, procedure, framing, fps)
            write_frame = stack.enter_context(video)
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
                if write_frame is None and (missing or not pictured):
                    continue
                picture = next(picture for number, picture in numbered if number == frame.number)
                if pictured:
                    report.show(frame.number, picture)
                if write_frame is not None:
                    seconds = (frame.number - first) / fps
                    state = Shown(seconds, checklist.rows(), frame, decoder.floor)
                    write_frame(reduced(picture), state)
                    progress(1)
            writer.write(chunk, alerts)
            progress(len(chunk))
        # Of another product nothing is missing.
        alerts = [] if product.fits is False else checklist.finish()
        writer.write_alerts(alerts)
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
            source=source,
            product=product,
            alerts=alerts,
        )
    return 0 if product.fits is False else report.num_events, product
