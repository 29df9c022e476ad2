"""What the commands that make clip shards of recorded pictures have in common."""

import os
import sys
from collections.abc import Callable

from absl import app, flags, logging

from data_prep import pictures
from data_prep.pictures import Framing
from data_prep.trees import Tree, open_trees

flags.disclaim_key_flags()  # --help of a command shows its flags from here too


def define_flags(flag_values: flags.FlagValues) -> None:
    """Defines the flags that the commands have in common."""
    fv = {"flag_values": flag_values}
    flags.DEFINE_string("out", None, "Folder for the clip shards.", required=True, **fv)
    flags.DEFINE_integer("size", 224, "Height and width in pixels.", lower_bound=8, **fv)
    flags.DEFINE_enum(
        "aspect", "stretch", pictures.ASPECTS, "How a picture becomes a square.", **fv
    )
    flags.DEFINE_list("crop", None, "x0,y0,x1,y1 in 0..1: use this part of the picture.", **fv)
    flags.DEFINE_integer("quality", 92, "Of the JPEG files.", 1, 100, **fv)
    flags.DEFINE_integer("workers", 2, "Processes.", lower_bound=1, **fv)
    flags.DEFINE_string(
        "recordings", "*", "Glob: make only these, other runs make the others.", **fv
    )


def framing_of(flag_values: flags.FlagValues) -> Framing:
    """Returns the framing that the flags ask for; ValueError if it is impossible."""
    f = flag_values
    try:
        region = tuple(float(text) for text in f.crop or pictures.WHOLE)
        _, _, _, _ = region
    except ValueError as error:
        raise ValueError(f"--crop={','.join(f.crop)} is not four numbers x0,y0,x1,y1") from error
    return Framing((f.size, f.size), f.aspect, region, f.quality)


def run_command(
    define: Callable[[flags.FlagValues], None], main: Callable[[flags.FlagValues], None]
) -> None:
    """Runs a command; what goes wrong is one line `error: …` and exit code 2."""
    define(flags.FLAGS)

    def parse(arguments: list[str]) -> list[str]:
        try:
            rest = flags.FLAGS(arguments)
        except flags.Error as error:
            _exit(f"error: {error}")
        if len(rest) > 1:
            _exit(f"error: unknown argument {rest[1]!r}; options look like --out=DIR")
        return rest

    def call(_: list[str]) -> None:
        logging.set_verbosity(logging.INFO)
        try:
            main(flags.FLAGS)
        except (ValueError, OSError, RuntimeError) as error:
            if os.environ.get("STORMPSR_TRACEBACK"):
                raise
            _exit(f"error: {error}")
        except KeyboardInterrupt:
            _exit("interrupted; run the same command again, finished recordings are kept", 130)

    app.run(call, flags_parser=parse)


def _exit(message: str, code: int = 2) -> None:
    print(" ".join(message.split("\n")), file=sys.stderr)
    sys.exit(code)


def open_flag(flag: str, path: str) -> list[Tree]:
    """Returns the trees of a flag's folder or zip file; ValueError names the flag."""
    try:
        return open_trees(path)
    except ValueError as error:
        raise ValueError(f"--{flag}: {error}") from error
