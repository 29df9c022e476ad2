"""Reports errors of assembly in prediction files: ``python -m stormpsr_jax.monitor --help``.

    python -m stormpsr_jax.monitor --procedure=pump.json --asd=ASD --temporal=TEMPORAL

Decodes each recording and checks its steps with a `psr.Monitor`. It reports missed steps, steps
out of order (by the precedence of the procedure's variant), unexpected steps, incorrect
installations, the error state of the detector, and what is missing at the end. Needs no labels;
NumPy only. With --labels it prints how many alerts of incorrect installations are true, and how
many incorrect installations they name. `recognise` reports the same of videos, in events.jsonl.
"""

import argparse
from collections.abc import Mapping, Sequence
from typing import Any

from stormpsr_jax.base import files
from stormpsr_jax.base.errors import tell
from stormpsr_jax.psr.cli import (
    OneLineParser,
    add_decoding_flags,
    add_flags,
    decoding_settings,
    fail_for,
)
from stormpsr_jax.psr.evaluation import tables
from stormpsr_jax.psr.files.predictions import Detections, TemporalPredictions
from stormpsr_jax.psr.files.recordings import KINDS, LabelledPredictions, load_recordings
from stormpsr_jax.psr.monitor import (
    ABOUT_WRONG,
    ERROR_SECONDS,
    Alert,
    Monitor,
    score_alerts,
    summarise_alerts,
)
from stormpsr_jax.psr.procedure import Procedure, Variant, load_procedure
from stormpsr_jax.psr.streams import streams
from stormpsr_jax.psr.streams.accumulated import decode
from stormpsr_jax.psr.streams.stream import DECODERS, Settings

_FILES = tuple(KINDS[kind].flag for kind in ("detections", "windows"))
# By stream that sums evidence up, the flags of the files that it needs.
_FLAGS = {
    stream.name: tuple(f"--{KINDS[kind].flag}" for kind in stream.needs)
    for stream in streams.STREAMS
    if stream.sums
}


def alerts_of(
    procedure: Procedure,
    variant: Variant,
    stream: str,
    settings: Settings,
    detections: Detections | None = None,
    temporal: TemporalPredictions | None = None,
    *,
    error_seconds: float = ERROR_SECONDS,
) -> list[Alert]:
    """Returns the alerts about a whole recording, in the order in which they come.

    Args:
        stream: that is decoded, one that sums evidence up.
        settings: of the stream; its floor is also that of a clear view of the error state.
        error_seconds: see `Monitor`.

    Raises:
        ValueError: as `decode` and `Monitor`.
    """
    steps: dict[int, list[int]] = {}
    for event in decode(procedure, variant, stream, settings, detections, temporal):
        steps.setdefault(event.frame, []).append(event.step_id)
    seen = {} if detections is None else dict(detections.per_frame())
    last = set() if temporal is None or not len(temporal.frames) else {int(temporal.frames[-1])}
    monitor = Monitor(
        procedure, variant, error_seconds=error_seconds, confidence=settings.confidence
    )
    told: list[Alert] = []
    for frame in sorted(steps.keys() | seen.keys() | last):
        told += monitor.update(frame, steps.get(frame, ()), seen.get(frame, ()))
    return told + monitor.finish()


def _stream(args: argparse.Namespace) -> str:
    """The stream to decode: the one asked for, or all that is given, fused."""
    given = {f"--{name}" for name in _FILES if getattr(args, name) is not None}
    if not given:
        raise ValueError("--asd or --temporal, the folder of prediction files, is missing")
    most = 1 if args.decoder == "naive" else len(given)
    possible = [s for s, flags in _FLAGS.items() if given >= set(flags) and len(flags) <= most]
    stream = args.stream or max(possible, key=lambda name: len(_FLAGS[name]))
    if lacks := [flag for flag in _FLAGS[stream] if flag not in given]:
        raise ValueError(f"--stream={stream} needs {' and '.join(lacks)}")
    return stream


def _row(name: str, alert: Alert, fps: float) -> dict[str, Any]:
    return {
        "recording": name,
        "time_s": max(alert.frame, 0) / fps,
        "frame": alert.frame,
        "alert": alert.kind,
        "message": alert.message,
    }


def _run(args: argparse.Namespace) -> None:
    procedure = load_procedure(args.procedure).at(args.fps)
    stream = _stream(args)
    settings = decoding_settings(args)[stream]
    assert isinstance(settings, Settings)  # of all streams of _FLAGS
    recordings = load_recordings(
        procedure, args.labels, args.asd, args.temporal, variant=args.variant
    )
    found = {
        name: alerts_of(
            procedure,
            r.variant,
            stream,
            settings,
            r.detections,
            r.temporal,
            error_seconds=args.error_seconds,
        )
        for name, r in recordings.items()
    }
    if args.out is not None:
        of_each = {
            name: {
                "variant": recordings[name].variant.name,
                "alerts": [alert._asdict() for alert in of_one],
            }
            for name, of_one in found.items()
        }
        head = {"procedure": procedure.name, "stream": stream, "fps": procedure.fps}
        files.write_json(args.out, head | {"recordings": of_each})
    rows = [_row(name, alert, procedure.fps) for name, of_one in found.items() for alert in of_one]
    if rows:
        print(tables.format_rows(rows, args.format))
    if args.labels is not None:
        print(tables.format_rows([_score(args.labels, recordings, found)], args.format))
    if args.format == "text":
        calm = sum(not of_one for of_one in found.values())
        print(f"{len(rows)} alerts; {calm} of {len(found)} recordings have none")


def _score(
    labels: str,
    recordings: Mapping[str, LabelledPredictions],
    found: Mapping[str, Sequence[Alert]],
) -> dict[str, Any]:
    """The alerts of incorrect installations against labels."""
    if without := [name for name, r in recordings.items() if not len(r.frames)]:
        what = "give no states, so that their alerts are not counted"
        tell("warning", f"{labels}: the labels of {', '.join(without)} {what}")
    return summarise_alerts(
        score_alerts(
            r.frames,
            r.states,
            [
                (alert.frame, None if alert.step_id is None else alert.step_id // 3)
                for alert in found[name]
                if alert.kind in ABOUT_WRONG
            ],
        )
        for name, r in recordings.items()
        if len(r.frames)
    )


def main(argv: Sequence[str] | None = None) -> None:
    """The command; exit code 2 and a line for each error on stderr for input that is wrong."""
    args = _parser().parse_args(argv)
    try:
        _run(args)
    except (OSError, ValueError) as error:
        fail_for(error)


def _parser() -> argparse.ArgumentParser:
    parser = OneLineParser(
        prog="python -m stormpsr_jax.monitor",
        description=__doc__,
    )
    add_flags(parser, "procedure", "variant", "fps", "out")
    parser.add_argument("--format", **tables.FLAG)
    add = parser.add_argument
    add("--asd", help="folder with <rec>_results_pred.csv of the detector")
    add("--temporal", help="the same of the spatio-temporal stream")
    add("--labels", help="folder of labels, with which alerts of incorrect installations compare")
    what = "otherwise storm if both are given, else the one that is"
    add("--stream", choices=list(_FLAGS), help=what)
    what = "seconds that an error state must be seen before it is reported (%(default)s)"
    add("--error_seconds", type=float, default=ERROR_SECONDS, metavar="S", help=what)
    add("--decoder", choices=DECODERS, default=Settings().decoder)
    add_decoding_flags(parser)
    return parser


if __name__ == "__main__":
    main()
