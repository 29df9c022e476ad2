"""What the commands that make many runs have in common: flags, mistakes in a line, Ctrl-C."""

from __future__ import annotations

import dataclasses
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from absl import app, flags, logging
from ml_collections import ConfigDict

from stormpsr_jax.base import config_flag
from stormpsr_jax.base.interruption import EXIT_INTERRUPTED
from stormpsr_jax.base.mistakes import message_of
from stormpsr_jax.psr.cli import print_anything


@dataclasses.dataclass(frozen=True)
class Request:
    """What a command line asks for.

    Attributes:
        words: without the flags.
        config: of one run.
        root: folder of all runs and tables.
        seeds: that every row is trained with: that of the config and those after it.
        others: work folders whose finished stages are taken over where they are the very same.
        plan: show what is left to run, and no more.
    """

    words: tuple[str, ...]
    config: ConfigDict
    root: Path
    seeds: range
    others: tuple[Path, ...] = ()
    plan: bool = False


Make = Callable[[Request], None]


def define_flags() -> None:
    """Defines --config, --workdir, --seeds, --from and --plan."""
    config_flag.define_config()
    flags.DEFINE_string("workdir", None, "Folder of all runs and tables.")
    flags.DEFINE_integer("seeds", 3, "How many seeds every row is trained with.")
    flags.DEFINE_list("from", [], "Work folders whose stages are taken over, if the very same.")
    flags.DEFINE_bool("plan", False, "Show what is left to run, and end.")


def run(make: Make) -> None:
    """Runs a command, whose flags `define_flags` has defined."""
    app.run(lambda argv: _main(argv, make), flags_parser=config_flag.parse_flags)


def _main(argv: list[str], make: Make) -> None:
    logging.set_verbosity(logging.WARNING)
    print_anything()
    f = flags.FLAGS
    for name in ("config", "workdir"):
        if not f[name].value:
            sys.exit(f"error: --{name} is missing; see --help")
    if f.seeds < 1:
        sys.exit(f"error: --seeds={f.seeds} is less than 1")
    request = Request(
        tuple(argv[1:]),
        f.config,
        Path(f.workdir).resolve(),
        range(f.config.seed, f.config.seed + f.seeds),
        tuple(Path(folder).resolve() for folder in f["from"].value),
        f.plan,
    )
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        make(request)
    except (ValueError, OSError, MemoryError) as error:
        sys.exit("\n".join(f"error: {line}" for line in message_of(error).splitlines()))
    except KeyboardInterrupt:
        print("stopped; the same command goes on", file=sys.stderr)
        sys.exit(EXIT_INTERRUPTED)
