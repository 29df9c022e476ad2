"""Recognises the steps in videos: ``python -m stormpsr_jax.recognise --help``.

    python -m stormpsr_jax.recognise --model=MODEL SOURCE… --out=DIR
    python -m stormpsr_jax.recognise --model=MODEL camera:0|rtsp://…|FILE --realtime

MODEL is a model folder, or a work folder that has one. SOURCE is a video file, a folder of videos,
or one of numbered pictures (which is taken to have the model's frame rate). The word demo is a
model, and a video, that ship with the package. Each source gets a folder DIR/NAME with events.csv,
events.jsonl, the predictions of both streams and report.html; docs/recognise.md describes them.
Running the same command again is always right: finished recordings are skipped. The exit status is
1 if one could not be recognised, and else 3 if one shows the model's product in far too few
pictures: none of its steps is in events.csv then.

A camera, a stream, or a file with --realtime is recognised live: a line of JSON for each event,
alert and unit and, every ten seconds, the status. With --state it goes on where it was killed;
--serve shows it all on a page; --mqtt and --webhook send the lines on.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from stormpsr_jax.base import files, installed, interruption
from stormpsr_jax.base.errors import gathering, lines_of, message_of, raise_all, tell
from stormpsr_jax.psr import streams
from stormpsr_jax.psr.cli import OneLineParser, fail, per_stream, share


def main(argv: Sequence[str] | None = None) -> int:
    """The command; exit status 2 and a line on stderr for each error on the command line."""
    words = sys.argv[1:] if argv is None else argv
    # By itself it would take the SOURCE behind it for its value.
    words = ["--serve=" if word == "--serve" else word for word in words]
    args = _parser().parse_intermixed_args(words)
    try:
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
    from stormpsr_jax.live import capture

    live = args.realtime or any(map(capture.is_live, args.source))
    raise_all(_misplaced(args, live))
    if live:
        from stormpsr_jax.live import watch

        return watch.run(args)
    return _run_files(args)


# Options that one kind of source alone has.
_OF_FILES = ("out", "video", "ray")
_OF_LIVE = (
    "state",
    "alert_clips",
    "reset",
    "serve",
    "token_file",
    "mqtt",
    "webhook",
)


def _misplaced(args: argparse.Namespace, live: bool) -> list[str]:
    """The errors of options that the kind of source does not have."""
    problem = "is for live sources: camera:N, rtsp://…, or a file with --realtime"
    if live:
        problem = "is for files, and this source is live: its results are lines on stdout"
    errors = [
        f"--{name.replace('_', '-')} {problem}"
        for name in (_OF_FILES if live else _OF_LIVE)
        if getattr(args, name) not in (None, False)
    ]
    if not live:
        return errors + ([] if args.out else ["--out=DIR, the folder for the results, is missing"])
    ports = [word for word in args.source if word.isdecimal() and not os.path.exists(word)]
    if args.serve == "" and ports:
        errors.append(f"--serve {ports[0]}: write --serve={ports[0]}, with a =")
    elif len(args.source) > 1:
        errors.append("a live source is recognised alone; start a process for each")
    if args.serve is None and args.token_file is not None:
        errors.append("--token-file is for --serve")
    return errors


def _run_files(args: argparse.Namespace) -> int:
    from stormpsr_jax.media import sources
    from stormpsr_jax.report import pages
    from stormpsr_jax.serving import folder as folders
    from stormpsr_jax.serving.files import recording, results
    from stormpsr_jax.serving.folder import load_model, model_folder

    out = Path(args.out)
    opened, errors = sources.find(args.source, out)
    with gathering(errors):
        if args.video or any(source.is_video for source in opened):
            installed.check_extra("video", ["av"], "reading and writing videos")
        if args.video and (missing := pages.missing()):
            errors.append(f"--video needs {missing}")
    with gathering(errors):
        folder = model_folder(args.model)
        model = load_model(folder, args.modules)
        settings = folders.settings(model, args.stream, args.threshold, args.risk)
        variants = folders.variants(model, [source.name for source in opened], args.variant)
    raise_all(errors)
    tell("stream", args.stream or model.recognises_by)
    folders.note_of_product(model, folder)
    wanted = recording.RecordingOptions(
        *settings,
        batch=args.batch,
        video=args.video,
    )
    checksum = files.checksum(folder / "model.json")
    jobs = [(s, out / s.name, v, wanted) for s, v in zip(opened, variants, strict=True)]
    failed, foreign, lock = 0, 0, out / ".lock"
    with files.only_writer(lock, out):
        results.remove_parts(out, {source.name for source in opened})
        if args.ray is None:
            ends = recording.here(model, checksum, jobs)
        else:
            of = folder, checksum, args.modules
            ends = recording.on_cluster(args.ray, lock, of, jobs)
        for index, done, trouble in ends:
            if trouble is None:
                print(done.line, flush=True)
                foreign += done.fits is False
                continue
            if isinstance(trouble, MemoryError) and str(trouble):  # the model's batch
                raise MemoryError(f"{folder}: {trouble}") from trouble
            known = isinstance(trouble, ValueError | OSError)
            if not known or os.environ.get("STORMPSR_TRACEBACK"):
                raise trouble
            if isinstance(trouble, OSError):  # concerns all sources, such as a full disk
                tell("error", message_of(trouble))
                return 1
            failed += 1
            for text in lines_of(trouble):
                place = str(opened[index].place)
                tell("error", text if place in text else f"{place}: {text}")
    if failed:
        print(f"{failed} of {len(opened)} could not be recognised", file=sys.stderr)
    if foreign:
        what = f"videos do not show the model's product ({model.procedure.name})"
        print(f"{foreign} of {len(opened)} {what}; their events.csv are empty", file=sys.stderr)
    return 1 if failed else 3 if foreign else 0


def _batch(text: str) -> int:
    if (value := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"{value} is less than 1")
    return value


def _parser() -> OneLineParser:
    parser = OneLineParser(
        prog="python -m stormpsr_jax.recognise",
        description=__doc__,
    )
    names = streams.names()
    meanings = {s.name: s.appearance.threshold for s in streams.STREAMS if s.appearance.threshold}
    logits = "; ".join(f"of {name}: {meaning}" for name, meaning in meanings.items())
    add = parser.add_argument
    help_text = "videos, folders, folders of pictures, demo; or one camera:N or rtsp://…"
    add("source", nargs="+", metavar="SOURCE", help=help_text)
    add("--model", required=True, metavar="MODEL", help="a model folder, a work folder, or demo")
    help_text = (
        "modules, by commas, of a temporal network of your own: loading the model executes them"
    )
    add(
        "--modules",
        type=lambda text: (*text.split(","),),
        default=(),
        metavar="NAME",
        help=help_text,
    )
    add("--out", metavar="DIR", help="folder for the results of files")
    add("--variant", metavar="NAME", help="of all sources; otherwise found by their names")
    add(
        "--stream",
        metavar="NAME",
        help=f"{', '.join(names[:-1])} or {names[-1]}; otherwise the model's own "
        "choice, or the last of these that it has",
    )
    add(
        "--threshold",
        type=per_stream,
        metavar="T",
        help=f"in place of the model's: a number, or stream=T such as storm=4 ({logits})",
    )
    add(
        "--risk",
        type=share,
        metavar="R",
        help="share of incorrect installations that may be reported as installed; parts that are "
        "less certain are reported as not sure. 1 is any (otherwise the model's)",
    )
    add("--video", action="store_true", help="write an annotated video too")
    add(
        "--batch",
        type=_batch,
        metavar="N",
        help="frames computed at once; otherwise the model's, and 1 where they come one by one",
    )
    add("--ray", metavar="HOST:PORT", help="a source at a time on each machine of a Ray cluster")
    add("--realtime", action="store_true", help="a video file plays as if it were a camera")
    add("--state", metavar="FILE", help="of a live source: saved there, to go on from")
    help_text = "of a live source: folder for a short video of each alert"
    add("--alert-clips", metavar="DIR", help=help_text)
    add(
        "--reset",
        metavar="WHEN",
        help="the next unit begins: complete, key (Enter), or so many seconds without the object",
    )
    # From here on without types: argparse would print a wrong value, which may hold a password.
    help_text = "of a live source: a page that shows it, on 127.0.0.1:8765 or as said behind ="
    add("--serve", nargs="?", const="", metavar="[HOST:]PORT", help=help_text)
    add("--token-file", metavar="FILE", help="its line is the token that the page asks for")
    # Without a type: argparse would print a wrong address, which may hold a password.
    add("--mqtt", metavar="URL", help="sends the lines to mqtt[s]://[USER@]HOST/PREFIX")
    add("--webhook", metavar="URL", help="posts each line to http[s]://[USER@]HOST/PATH")
    return parser


if __name__ == "__main__":
    sys.exit(main())
