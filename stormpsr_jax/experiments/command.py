"""What the commands that make many runs have in common: flags, mistakes in a line, Ctrl-C."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from absl import app, flags, logging
from ml_collections import ConfigDict

from stormpsr_jax import config_flag
from stormpsr_jax.mistakes import message_of
from stormpsr_jax.psr.cli import print_anything
from stormpsr_jax.training.interruption import EXIT_INTERRUPTED

# Words of the command line, the config, the folder of all runs, seeds, and whether to plan alone.
Make = Callable[[Sequence[str], ConfigDict, Path, Sequence[int], bool], None]


def define_flags() -> None:
    """Defines --config, --workdir, --seeds and --plan."""
    config_flag.define_config()
    flags.DEFINE_string("workdir", None, "Folder of all runs and tables.")
    flags.DEFINE_integer("seeds", 3, "How many seeds every row is trained with.")
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
    seeds = range(f.config.seed, f.config.seed + f.seeds)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        make(argv[1:], f.config, Path(f.workdir).resolve(), seeds, f.plan)
    except (ValueError, OSError, MemoryError) as error:
        sys.exit("\n".join(f"error: {line}" for line in message_of(error).splitlines()))
    except KeyboardInterrupt:
        print("stopped; the same command goes on", file=sys.stderr)
        sys.exit(EXIT_INTERRUPTED)
