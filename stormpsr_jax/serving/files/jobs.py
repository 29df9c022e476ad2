"""Sources to recognise into folders of results: here one by one, or on a Ray cluster."""

import contextlib
import dataclasses
import functools
import secrets
import time
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from stormpsr_jax.base import cluster, files
from stormpsr_jax.base.progress import Bar, Progress
from stormpsr_jax.media.sources import Source
from stormpsr_jax.serving.files import recording, results
from stormpsr_jax.serving.files.recording import RecordingOptions
from stormpsr_jax.serving.model import Model, load_model


@dataclasses.dataclass(frozen=True)
class Request:
    """A source and what is wanted of it.

    Attributes:
        out: folder of the folder of its results.
        checksum: of its model.json.
        modules: see `load_model`.
    """

    source: Source
    out: Path
    model: Path
    checksum: str
    variant: str
    options: RecordingOptions
    modules: tuple[str, ...] = ()

    @property
    def made_from(self) -> dict[str, Any]:
        """All that the results depend on but the source."""
        options = msgspec.to_builtins(dataclasses.replace(self.options, batch=None))
        return {"model": self.checksum, "variant": self.variant, **options}


class Done(NamedTuple):
    """A line that tells of a job that has ended, and whether its source fits the model."""

    line: str
    fits: bool | None


# A job that has ended, what tells of it, or its exception.
End = tuple[Request, Done | None, Exception | None]


def here(jobs: Sequence[Request], model: Model) -> Generator[End]:
    """Recognises one source after the other, each with a bar of its own."""
    end: End
    for i, job in enumerate(jobs):
        with _OneBar(f"{i + 1}/{len(jobs)} {job.source.name}") as bar:
            try:
                end = job, recognise(job, bar, model), None
            except Exception as error:  # whoever asks for the next end decides
                end = job, None, error
        yield end


def on_cluster(head: str, jobs: Sequence[Request], lock: Path) -> Generator[End]:
    """Recognises sources as `cluster.run` does; removes what tasks that are given up leave."""
    try:
        with contextlib.closing(cluster.run(head, recognise, jobs, lock=lock, gpus=True)) as ends:
            for index, done, error in ends:
                yield jobs[index], done, error
    finally:
        results.remove_parts(lock.parent, {job.source.name for job in jobs})


class _OneBar(contextlib.ExitStack):
    """The bar of one job, which is shown from when its length is known."""

    def __init__(self, desc: str):
        super().__init__()
        self._desc = desc

    def begin(self, num_frames: int) -> None:
        bar = self.enter_context(Bar(total=num_frames, desc=self._desc, unit="frame"))
        self.advance = bar.update


def recognise(job: Request, progress: Progress, model: Model | None = None) -> Done:
    """Recognises a source, unless it is finished; says what came of it.

    Raises:
        ValueError: it cannot be read, has changed meanwhile, or its results would take the place of
            something that was changed by hand.
        MemoryError: no memory for the batch.
        OSError: a result cannot be written.
    """
    source, folder = job.source, job.out / job.source.name
    made_from, stamp = job.made_from, source.stamp()
    if done := results.finished(folder, stamp, source.checksum, made_from):
        return Done(f"{folder}: finished before{_warning(done.fits, done.product)}", done.fits)
    start, options = time.monotonic(), job.options
    model = model or _model(job.model, job.checksum, job.modules)
    pictures = source.open(model.fps)
    progress.begin(pictures.num_frames * (2 if options.video or options.clips else 1))
    with files.replacing_folder(folder, secrets.token_hex(4)) as part:
        num_events, product = recording.recognise(
            model,
            source.name,
            pictures,
            job.variant,
            part,
            options,
            source=source.place,
            progress=progress.advance,
        )
        checksum = source.checksum()
        if source.stamp() != stamp:
            raise ValueError(f"{source.place}: changed while it was read; run the command again")
        results.write_record(part, {"stamp": stamp, "checksum": checksum}, made_from, product)
    length, seconds = pictures.num_frames / model.fps, time.monotonic() - start
    line = f"{folder}: {num_events} events in {length:.0f} s of video, took {seconds:.1f} s"
    if num_events and not model.calibrated(options.stream, options.settings):
        line += "; confidences are not calibrated"
    return Done(line + _warning(product.fits, str(product)), product.fits)


def _warning(fits: bool | None, why: str) -> str:
    return f"; it does not show the model's product: {why}" if fits is False else ""


@functools.lru_cache(1)
def _model(folder: Path, checksum: str, modules: tuple[str, ...]) -> Model:
    """The model that a process last used; the checksum of its model.json tells another one."""
    del checksum
    return load_model(folder, modules)
