"""Recognises the steps in videos: ``python -m stormpsr_jax.recognise --help``.

    python -m stormpsr_jax.recognise --model=MODEL SOURCE… --out=DIR

MODEL is a model folder, or a work folder that has one. SOURCE is a video file, a folder of videos,
a folder of numbered pictures (which is taken to have the model's frame rate), or a pattern such as
'day1/*.mp4'. Each gets a folder DIR/NAME with events.csv, events.jsonl, the predictions of both
streams and report.html; docs/recognise.md describes them. Running the same command again is always
right: finished recordings are skipped. The exit status is 1 if one could not be recognised.
"""

import argparse
import dataclasses
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from stormpsr_jax import files, memory
from stormpsr_jax.mistakes import lines_of, message_of, raise_all
from stormpsr_jax.psr import learned
from stormpsr_jax.psr.cli import OneLineParser, fail, per_stream
from stormpsr_jax.training import interruption


def main(argv: Sequence[str] | None = None) -> int:
    """The command; exit status 2 and a line on stderr for each mistake on the command line."""
    args = _parser().parse_intermixed_args(argv)
    try:
        memory.check_start()  # before JAX is imported, which may not even fit
        with interruption.handled():
            return _run(args)
    except (ValueError, OSError, MemoryError) as error:
        if os.environ.get("STORMPSR_TRACEBACK"):
            raise
        fail(message_of(error) or "there is not enough memory; lower --batch")
    except RuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        fail("the device has not enough memory for a batch; lower --batch")


def _run(args: argparse.Namespace) -> int:
    from stormpsr_jax.model import load_model
    from stormpsr_jax.recognition import sources

    folder = _model_folder(args.model)
    out = Path(args.out)
    found, mistakes = sources.find(args.source, out)
    try:
        if args.video or any(source.is_video for source in found):
            sources.check_video_extra("reading and writing videos")
    except ValueError as error:
        mistakes += lines_of(error)
    try:
        model = load_model(folder)
        if model.pictures is None:
            raise ValueError(
                f"{folder}: this model takes embeddings, not pictures; see docs/model.md"
            )
        settings = _settings(model, args)
        variants = _variants(model, found, args.variant)
    except ValueError as error:
        mistakes += lines_of(error)
    raise_all(mistakes)
    lock = files.open_locked(out / ".lock", wait=False)
    if lock is None:
        raise ValueError(
            f"another process is writing to {out}; wait for its end, or give another --out"
        )
    made_from = {"model": files.checksum(folder / "model.json"), "video": args.video}
    made_from |= {"stream": settings[0], "settings": dataclasses.asdict(settings[1])}
    failed = 0
    with lock:
        for i, source in enumerate(found):
            count = f"{i + 1}/{len(found)} {source.name}"
            try:
                _recognise(model, source, variants[i], settings, made_from, count, args)
            except ValueError as error:
                if os.environ.get("STORMPSR_TRACEBACK"):
                    raise
                failed += 1
                for line in lines_of(error):
                    named = line if source.name in line else f"{source.place}: {line}"
                    print(f"error: {named}", file=sys.stderr, flush=True)
    if failed:
        print(f"{failed} of {len(found)} could not be recognised", file=sys.stderr)
    return int(failed > 0)


def _model_folder(path: str) -> Path:
    inside = Path(path, "model")
    return inside if inside.is_dir() else Path(path)


def _settings(model, args: argparse.Namespace) -> tuple:
    """The stream to decode and its settings, with --threshold in them."""
    try:
        settings = model.settings(args.stream)
    except ValueError as error:
        raise ValueError(f"--stream: {error}") from error
    stream = args.stream or model.default_stream
    if args.threshold is not None:
        if stream not in args.threshold:
            raise ValueError(
                f"--threshold names {', '.join(args.threshold)}, but stream {stream} is decoded; "
                f"--threshold={stream}=T, or another --stream"
            )
        if stream == learned.STREAM:
            return stream, dataclasses.replace(settings, install=args.threshold[stream])
        if settings.decoder == "naive":
            raise ValueError("--threshold: the model is decoded by 'naive', which has none")
        settings = dataclasses.replace(settings, threshold=args.threshold[stream])
    return stream, settings


def _variants(model, found: Sequence, variant: str | None) -> list[str]:
    """The variant of each source: the one given, the only one, or the one that its name says."""
    procedure = model.procedure
    if variant is None and len(procedure.variants) == 1:
        (variant,) = procedure.variants
    names, mistakes = [], []
    for name in [source.name for source in found] if variant is None else [""]:
        try:
            names.append(procedure.variant_for(name, variant).name)
        except ValueError as error:
            mistakes.append(str(error))
    raise_all(mistakes)
    return names if variant is None else names * len(found)


def _recognise(model, source, variant, settings, made_from, count, args) -> None:
    """Recognises one source, unless it is finished."""
    from stormpsr_jax.progress import Bar
    from stormpsr_jax.recognition import recording, results

    folder = Path(args.out, source.name)
    made_from = made_from | {"variant": variant}
    stamp = source.stamp()
    if results.is_finished(folder, stamp, source.checksum, made_from):
        print(f"{folder}: finished before", flush=True)
        return
    start = time.monotonic()
    pictures = source.open(model.fps)
    decoder = model.decoder(settings[0], variant, settings=settings[1])
    with results.replacing_folder(folder) as part:
        with Bar(total=pictures.num_frames, desc=count, unit="frame") as progress:
            num_events = recording.recognise(
                model,
                source.name,
                pictures,
                decoder,
                part,
                source=source.place.name,
                batch=args.batch or model.batch,
                video=args.video,
                progress=progress.update,
            )
        checksum = source.checksum()
        if source.stamp() != stamp:
            raise ValueError(f"{source.place}: changed while it was read; run the command again")
        results.write_record(part, {"stamp": stamp, "checksum": checksum}, made_from)
    length, seconds = pictures.num_frames / model.fps, time.monotonic() - start
    print(
        f"{folder}: {num_events} events in {length:.0f} s of video, took {seconds:.1f} s",
        flush=True,
    )


def _batch(text: str) -> int:
    if (value := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"{value} is less than 1")
    return value


def _parser() -> OneLineParser:
    parser = OneLineParser(
        prog="python -m stormpsr_jax.recognise",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add(
        "source", nargs="+", metavar="SOURCE", help="videos, folders, patterns, folders of pictures"
    )
    add("--model", required=True, metavar="MODEL", help="a model folder, or a work folder")
    add("--out", required=True, metavar="DIR", help="folder for the results")
    add("--variant", metavar="NAME", help="of all sources; otherwise found by their names")
    add(
        "--stream",
        metavar="NAME",
        help="asd, temporal, storm or learned; otherwise the last of these that the model has",
    )
    add(
        "--threshold",
        type=per_stream,
        metavar="T",
        help="in place of the model's: a number, or stream=T such as storm=4 (of "
        "learned: the logit above which a part is reported as installed)",
    )
    add("--video", action="store_true", help="write an annotated video too")
    add("--batch", type=_batch, metavar="N", help="frames computed at once; otherwise the model's")
    return parser


if __name__ == "__main__":
    sys.exit(main())
