"""What the commands share: errors of one line with exit code 2, flags by stream. NumPy only."""

import argparse
import contextlib
import dataclasses
import difflib
import io
import os
import re
import select
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

from stormpsr_jax.base.errors import message_of, tell
from stormpsr_jax.psr import streams
from stormpsr_jax.psr.accumulation import Settings
from stormpsr_jax.psr.learned_beliefs import Weights
from stormpsr_jax.psr.stream import Stream

_STDOUT = 1  # number of the open file
_STORE = re.compile(r"(--[\w.]+=)?(gs|gcs|s3|az|abfss?|hdfs)://.*")
# Flags that set a field of settings: by stream, and of all streams.
_PER_STREAM = ("threshold", "removal", "confidence", "gate")
_OF_ALL = ("decoder", "decay", "unseen_decay", "weight", "window")


def fail(*messages: str) -> NoReturn:
    """Prints each line of the messages on stderr, as an error, and exits with code 2."""
    for message in messages:
        for line in message.split("\n"):
            tell("error", line)
    sys.exit(2)


def fail_for(error: Exception) -> NoReturn:
    """Ends a command with what an error says; see `fail`.

    An output that nobody reads any more, as of `… | head`, is no error: nothing is said of it,
    and the exit code is 1. A broken pipe to another process is one.
    """
    if isinstance(error, BrokenPipeError):
        poll = select.poll()
        poll.register(_STDOUT, select.POLLOUT)
        if any(event & select.POLLERR for _, event in poll.poll(0)):
            drop_output()
            sys.exit(1)
    fail(message_of(error) or "there is not enough memory")  # Python's own MemoryError says nothing


def drop_output() -> None:
    """Lets what is left to print go nowhere: Python writes it when it ends, and would complain."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), _STDOUT)


def print_anything() -> None:
    """Lets "?" stand for characters that the encoding of the terminal or file does not have.

    What is printed to an output that is closed goes nowhere.
    """
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def per_stream(text: str) -> dict[str, float]:
    """The type of a flag that takes "6" or "asd=6,temporal=4,storm=4": values by stream.

    A number alone is meant for all streams that sum up evidence.
    """
    try:
        number = float(text)
        return {stream.name: number for stream in streams.STREAMS if stream.settings is Settings}
    except ValueError:
        pass
    values = {}
    for part in text.split(","):
        stream, _, value = part.partition("=")
        if stream not in streams.names() or stream in values:
            raise argparse.ArgumentTypeError(
                f"{text!r} is neither a number nor like asd=6,temporal=4,storm=4"
            )
        try:
            values[stream] = float(value)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{value!r} in {text!r} is not a number") from None
    return values


def share(text: str) -> float:
    """The type of a flag that takes a number in 0…1."""
    with contextlib.suppress(ValueError):
        if 0 <= (value := float(text)) <= 1:
            return value
    raise argparse.ArgumentTypeError(f"{text!r} is not a number in 0…1, such as 0.1")


def add_decoding_flags(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of how streams are decoded, which `decoding_settings` reads."""
    default, add = Settings(), parser.add_argument
    meanings = {s.name: s.appearance.threshold for s in streams.STREAMS if s.appearance.threshold}
    logits = "".join(f"; {name}=2 is {meaning}" for name, meaning in meanings.items())
    by_stream = "given as --threshold"
    text = f"T: a number, or asd=6,temporal=4,storm=4 ({default.threshold}){logits}"
    add("--threshold", type=per_stream, help=text)
    text = f"T of removals that are not expected, {by_stream}; decoder 'expected' then "
    text += "completes allowed steps too (otherwise --threshold, and expected steps alone)"
    add("--removal", type=per_stream, help=text)
    text = "per frame without evidence (%(default)s)"
    add("--decay", type=float, default=default.decay, help=text)
    text = "per frame without a detection above the floor, or of stream temporal without a row; "
    text += "1 keeps sums there (otherwise as --decay)"
    add("--unseen_decay", type=float, metavar="DECAY", help=text)
    add("--weight", type=float, default=default.weight, help="of the temporal stream (%(default)s)")
    add("--window", type=int, default=default.window, help="frames of a clip (%(default)s)")
    text = f"floor of the detector's confidence, {by_stream} ({default.confidence})"
    add("--confidence", type=per_stream, help=text)
    text = f"a clip's component counts as changed above this probability, {by_stream} "
    add("--gate", type=per_stream, help=text + f"({default.gate})")


def decoding_settings(args: argparse.Namespace, weights: Weights | None = None) -> dict[str, Any]:
    """Returns the settings of every stream, as the flags and --decoder have them.

    What no flag says is as `Stream.defaults` has it for the weights of fitted streams.
    """
    result = {}
    for stream in streams.STREAMS:
        fields, values = {field.name for field in dataclasses.fields(stream.settings)}, {}
        for flag in _PER_STREAM:
            given = getattr(args, flag) or {}
            if stream.name in given:
                field = stream.threshold if flag == "threshold" else flag
                if field not in fields:
                    raise ValueError(f"--{flag}: stream {stream.name} has none")
                values[field] = given[stream.name]
        values |= {flag: getattr(args, flag) for flag in _OF_ALL if flag in fields}
        result[stream.name] = apply_flags(stream, stream.defaults(weights), values)
    return result


def apply_flags(stream: Stream, settings: Any, values: Mapping[str, Any]) -> Any:
    """Returns settings of a stream with the values of flags, by field.

    ValueError names the flag, where that of the settings names the field.
    """
    try:
        return dataclasses.replace(settings, **values)
    except ValueError as error:
        field, *rest = str(error).split("=", 1)
        if field not in values:
            raise
        flag = "threshold" if field == stream.threshold else field
        raise ValueError("=".join([f"--{flag}", *rest])) from error


class OneLineParser(argparse.ArgumentParser):
    """Errors take one line, flags are not abbreviated, a description keeps its lines."""

    def __init__(self, **options: Any) -> None:
        print_anything()
        options.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(allow_abbrev=False, **options)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As in argparse, without paths in object stores."""
        self.refuse_stores(sys.argv[1:] if args is None else list(args))
        return super().parse_known_args(args, namespace)

    def parse_known_intermixed_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As above; from Python 3.13 on it does not call that."""
        self.refuse_stores(sys.argv[1:] if args is None else list(args))
        return super().parse_known_intermixed_args(args, namespace)

    def refuse_stores(self, words: Sequence[str]) -> None:
        """Makes an error of a path in an object store, which Python takes for one of a folder."""
        self._words = words  # for `error`
        if found := next(filter(_STORE.fullmatch, words), None):
            self.error(
                f"{found}: object stores have neither locks nor links; give a path on a disk, such "
                "as NFS or Lustre, and copy from and to the store"
            )

    def error(self, message: str) -> NoReturn:
        """Exits with code 2; of addresses in the message without user and password.

        An unknown flag is named before those that are missing: it may be one of them, misspelt.
        """
        flags = [word.partition("=")[0] for word in self._words]
        options = self._option_string_actions
        unknown = [flag for flag in flags if flag[:2] == "--" and flag[2:] and flag not in options]
        unknown = [flag for flag in unknown if not flag.startswith("--config.")]
        if unknown and ("required: " in message or "unrecognized" in message):
            near = difflib.get_close_matches(unknown[0], [flag for flag in options if flag[2:]], 1)
            if "required: " in message:
                message = f"unrecognized arguments: {' '.join(unknown)}"
            message += f"; did you mean {near[0]}?" if near else ""
        fail(re.sub(r"://\S*@", "://", message) + "; see --help")


def add_label_flags(add: Callable[..., Any]) -> None:
    """Adds --words and --labels_fps, of commands that read labels; `words.terms` takes them."""
    add("--words", metavar="FILE", help="CSV word,step: what labels call the steps")
    what = "frames per second that the labelling tool (or you) counted, where files count frames"
    add("--labels_fps", type=float, metavar="F", help=what)
