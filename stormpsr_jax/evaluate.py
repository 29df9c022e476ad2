"""Decodes, fuses and scores prediction files: ``python -m stormpsr_jax.evaluate --help``.

Needs labels and predictions alone; NumPy only. From Python it is `stormpsr_jax.psr.evaluate`. Each
of these commands has a --help of its own:

    evaluate tables METRICS.json      more of its result
    evaluate compare A.json B.json    the difference of two results
    evaluate detections               how good detections are, frame by frame
"""

import argparse
import re
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from stormpsr_jax.base import files
from stormpsr_jax.base.errors import tell
from stormpsr_jax.psr import analysis, detection_scores, streams
from stormpsr_jax.psr.accumulation import DECODERS, Settings
from stormpsr_jax.psr.cli import (
    OneLineParser,
    add_decoding_flags,
    add_label_flags,
    decoding_settings,
    fail_for,
    share,
)
from stormpsr_jax.psr.evaluation import (
    PROTOCOLS,
    evaluate,
    evaluate_recordings,
    risks_of,
)
from stormpsr_jax.psr.learned_beliefs import Weights, default_weights, read_weights
from stormpsr_jax.psr.risk import RISK
from stormpsr_jax.recordings import scores, words
from stormpsr_jax.recordings.evaluation_set import FLAGS, LabelledPredictions, load_recordings
from stormpsr_jax.recordings.find import SPLITS
from stormpsr_jax.recordings.procedure import Procedure, load_procedure

__all__ = ["evaluate", "main"]

# What weights of the learned fusion are for, by kind.
_SAID = {
    "scores": "all that both networks say (--scores)",
    "csv": "prediction files of both streams",
    "detections": "detections alone",
    "clips": "clips alone, without a detector",
}


def main(argv: Sequence[str] | None = None) -> None:
    """The command; exit code 2 and one line on stderr for input that is wrong."""
    argv = sys.argv[1:] if argv is None else list(argv)
    commands = {
        "tables": _main_tables,
        "compare": _main_compare,
        "detections": _main_detections,
    }
    try:
        if argv and argv[0] in commands:
            commands[argv[0]](argv[1:])
        else:
            _main_evaluate(argv)
    except (OSError, ValueError, MemoryError) as error:
        fail_for(error)


def _main_evaluate(argv: Sequence[str]) -> None:
    args = _parser().parse_args(argv)
    for flag in ("removal", "gate", "unseen_decay", "risk"):
        if args.protocol == "released" and getattr(args, flag) is not None:
            raise ValueError(f"--{flag} needs --protocol=paper")
    if not any((args.asd, args.temporal, args.scores, args.fusion)):
        raise ValueError("no predictions; pass --asd, --temporal or both")
    as_read = load_procedure(args.procedure)
    procedure = as_read.at(args.fps)
    recordings = load_recordings(
        procedure,
        args.labels,
        args.asd,
        args.temporal,
        scores_dir=args.scores,
        visibility_dir=args.visibility,
        variant=args.variant,
        with_errors=args.with_errors,
        split=args.split,
        terms=words.terms(args.words, args.labels_fps, procedure),
        label_fps=as_read.fps,
    )
    weights = _fusion(args, procedure, recordings)
    settings = decoding_settings(args, weights)
    # A threshold without a risk is meant as it is.
    given = (args.threshold or {}) if args.risk is None else {}
    risks = {s: r for s, r in risks_of(args.risk, args.protocol).items() if s not in given}
    result = evaluate_recordings(
        procedure, recordings, settings, weights=weights, protocol=args.protocol, risks=risks
    )
    if args.out is not None:
        files.write_json(args.out, result)
    _tell_absent(args)
    for kind, key in (("check", "checks"), ("note", "risk_notes"), ("warning", "warnings")):
        for line in result[key]:
            tell(kind, line)
    print(analysis.overview(result))
    if args.report is not None:  # last: drawing needs libraries, which nothing above does
        _write_report(args.report, procedure, recordings, result)


def _write_report(
    path: str,
    procedure: Procedure,
    recordings: Mapping[str, LabelledPredictions],
    result: dict[str, Any],
) -> None:
    from stormpsr_jax.report import figures, pages, report

    if missing := pages.missing():
        raise ValueError(f"--report={path} is not written, all else is done: it needs {missing}")
    report.write_report(
        path,
        title=f"Steps of {procedure.name}",
        metrics=result,
        procedure=procedure,
        truth={name: r.truth for name, r in recordings.items()},
        visible={
            name: r.visibility
            for name, r in recordings.items()
            if r.visibility is not None and len(r.visibility[0])
        },
        figures=figures.analysis_figures(result),
    )


def _main_tables(argv: Sequence[str]) -> None:
    parser = _parser_of("tables", None)
    parser.add_argument("result", help="a file that evaluate wrote")
    parser.add_argument("--table", choices=list(analysis.TABLES), help="otherwise all of them")
    args = parser.parse_args(argv)
    result = analysis.load_result(args.result)
    for name in [args.table] if args.table else analysis.TABLES:
        if not args.table:
            print(f"\n{name}")
        print(analysis.format_rows(analysis.TABLES[name](result), args.format))


def _main_compare(argv: Sequence[str]) -> None:
    parser = _parser_of("compare", analysis.__doc__)
    add = parser.add_argument
    add("a", help="a file that evaluate wrote")
    add("b", help="another one on the same recordings; the difference is b − a")
    what = "of both, such as asd, or of a and of b, such as asd,storm; otherwise all that both have"
    add("--streams", help=what)
    args = parser.parse_args(argv)
    named = [] if args.streams is None else args.streams.split(",")
    if len(named) > 2:
        raise ValueError(f"--streams={args.streams} names more than two streams; as asd,storm")
    pair = (named[0], named[-1]) if named else None
    results = analysis.load_result(args.a), analysis.load_result(args.b)
    print(analysis.format_rows(analysis.compare(*results, pair), args.format))


def _main_detections(argv: Sequence[str]) -> None:
    parser = _parser_of("detections", detection_scores.__doc__)
    add = parser.add_argument
    add("--procedure", required=True, help="a packaged procedure's name, or a procedure file")
    add("--asd", required=True, help="folder with <rec>_results_pred.csv")
    add("--boxes", help="folder with <rec>_results_gt.csv; otherwise --asd has them")
    text = "pixels, where detections are in shares of the picture"
    add("--picture", type=_size, metavar="WxH", help=text)
    text = "detections count above it, not at it (%(default)s)"
    add("--confidence", type=share, default=0.5, help=text)
    add("--out", help="a JSON file to write besides")
    args = parser.parse_args(argv)
    procedure = load_procedure(args.procedure)
    recordings = detection_scores.load(procedure, args.asd, args.boxes, picture=args.picture)
    result = detection_scores.score(procedure, recordings, args.confidence)
    if args.out is not None:
        files.write_json(args.out, result)
    for rows_of in detection_scores.tables_of(result):
        print(analysis.format_rows(rows_of, args.format), end="\n\n")


def _parser_of(name: str, description: str | None) -> OneLineParser:
    parser = OneLineParser(prog=f"python -m stormpsr_jax.evaluate {name}", description=description)
    parser.add_argument("--format", choices=analysis.FORMATS, default="text")
    return parser


def _size(text: str) -> tuple[float, float]:
    match = re.fullmatch(r"([1-9]\d{0,5})x([1-9]\d{0,5})", text, re.ASCII)
    if not match:
        raise argparse.ArgumentTypeError(f"{text!r} is not a size such as 1280x720")
    return float(match[1]), float(match[2])


def _fusion(
    args: argparse.Namespace,
    procedure: Procedure,
    recordings: Mapping[str, LabelledPredictions],
) -> Weights | None:
    """The weights of the learned fusion, where asked for; without --scores makes these too."""
    if args.scores is None and args.fusion is None:
        return None
    if args.protocol == "released" or args.decoder != "expected":
        raise ValueError(
            "--scores and --fusion are for the learned fusion, which needs --protocol=paper and "
            "--decoder=expected"
        )
    if args.scores is None:
        if args.asd is None:
            raise ValueError("--fusion needs --scores, or --asd (and --temporal)")
        for r in recordings.values():
            r.scores = scores.from_predictions(r.detections, r.temporal, procedure)
    kinds = {r.scores.kind for r in recordings.values() if r.scores is not None}
    kind = kinds.pop() if len(kinds) == 1 else "csv"
    if args.fusion in (None, "default"):
        return default_weights(kind)
    weights = read_weights(args.fusion)
    if kind != weights.kind and {"detections", "clips"} & {kind, weights.kind}:
        raise ValueError(
            f"--fusion={args.fusion}: its weights are for {_SAID[weights.kind]}, and here are "
            f"{_SAID[kind]}"
        )
    return weights


def _tell_absent(args: argparse.Namespace) -> None:
    """Says which streams are absent, and why; fitted ones come only where they are asked for."""
    for stream in (s for s in streams.STREAMS if not s.fitted):
        flags = [f"--{FLAGS[kind]}" for kind in stream.needs]
        why = f"it needs {' and '.join(flags)}" if len(flags) > 1 else f"{flags[0]} is not given"
        if not all(getattr(args, FLAGS[kind]) for kind in stream.needs):
            tell(f"no {stream.name} stream", why)
        elif args.decoder not in stream.decoders:
            tell(f"no {stream.name} stream", f"the {args.decoder} decoder has no fused one")


def _parser() -> argparse.ArgumentParser:
    parser = OneLineParser(prog="python -m stormpsr_jax.evaluate", description=__doc__)
    add = parser.add_argument
    add("--procedure", required=True, help="a packaged procedure's name, or a procedure file")
    add("--split", choices=SPLITS, help="of labels that lie below folders of splits")
    add("--variant", help="of all recordings; otherwise found by their names")
    add("--fps", type=float, help="frames per second of labels by the clock; or the procedure's")
    text = "folder with <rec>/PSR_labels.csv, or labelling tools' files"
    add("--labels", required=True, help=text)
    add_label_flags(add)
    add("--asd", help="folder with <rec>_results_pred.csv of the detector")
    add("--temporal", help="folder with <rec>_results_pred.csv of the spatio-temporal stream")
    add("--scores", help="folder with <rec>.npz of both, for the learned fusion")
    text = "weights of the learned fusion, such as WORKDIR/fuse/fusion.json, or 'default' for "
    text += "those of the package; without --scores it reads --asd and --temporal"
    add("--fusion", metavar="FILE", help=text)
    add("--decoder", choices=DECODERS, default=Settings().decoder)
    add("--protocol", choices=PROTOCOLS, default="paper")
    add_decoding_flags(parser)
    text = "share of the incorrect installations that may be reported as installed, of all "
    text += f"streams; 1 is any (otherwise {RISK} of the learned fusion, and any of the others)"
    add("--risk", type=share, metavar="R", help=text)
    add("--visibility", help="folder with <rec>.csv of the visible fraction per frame")
    add("--with_errors", action="store_true", help="score PSR_labels_with_errors.csv")
    add("--out", help="the JSON file to write; otherwise the table alone is printed")
    add("--report", help="an HTML file to write besides, with figures and timelines")
    return parser


if __name__ == "__main__":
    main()
