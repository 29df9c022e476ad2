"""The flag --config of a command: the name of a config that ships, or the path of a file."""

import os
import sys
from pathlib import Path

from absl import flags
from ml_collections import ConfigDict, config_flags

flags.disclaim_key_flags()  # --config belongs to the command that asks for it, also in its --help

_FOLDER = Path(__file__).parent / "configs"


def shipped() -> list[str]:
    """Returns the names of the configs that ship and can be run."""
    names = {path.stem for path in _FOLDER.glob("*.py")}
    return sorted(names - {"__init__", "default"})


def resolve(value: str) -> str:
    """Returns the path that a value of --config means, with what follows its colon.

    What ends in .py is a path, such as `configs/own.py:boxes`, and anything else the name of a
    config that ships, such as `own:boxes`.

    Raises:
      ValueError: there is no such file or name; lists the names.
    """
    config, colon, extra = value.partition(":")
    known = ", ".join(shipped())
    if config.endswith(".py"):
        if not Path(config).is_file():
            raise ValueError(f"no file {config}; configs that ship go by name alone: {known}")
        return value
    if config not in shipped():
        raise ValueError(
            f"unknown config {config!r}; those that ship are {known}; a path ends in .py"
        )
    return f"{_FOLDER / config}.py{colon}{extra}"


def define_config(default: str | None = None) -> flags.FlagHolder[ConfigDict]:
    """Defines --config, and --config.FIELD for all its fields.

    Args:
      default: the name or path to take if the flag is not given.
    """
    default = default and resolve(default)
    holder = config_flags.DEFINE_config_file(
        "config", default, f"Name of a config ({', '.join(shipped())}), or the path of a file."
    )
    flag = flags.FLAGS["config"]
    flag.parser = _NameOrPath(flag.parser)
    return holder


def parse_flags(argv: list[str]) -> list[str]:
    """Parses a command line for `absl.app.run`; a mistake ends the process with one line.

    With STORMPSR_TRACEBACK set in the environment it is shown where the mistake was found.
    """
    try:
        return flags.FLAGS(argv)
    except (flags.Error, AttributeError) as error:
        if os.environ.get("STORMPSR_TRACEBACK"):
            raise
        text = str(error)
        if isinstance(error, AttributeError):  # of a ConfigDict, around a KeyError with the words
            key = error.args[0].args[0] if isinstance(error.args[0], KeyError) else error
            text = f"the config has no such field: {key}"
        sys.exit("error: " + " ".join(text.split()))


class _NameOrPath(flags.ArgumentParser):
    """Resolves the value before ml_collections loads it as a file."""

    def __init__(self, of_paths: flags.ArgumentParser):
        self._of_paths = of_paths

    def parse(self, argument: str) -> ConfigDict:
        path = resolve(argument)
        try:
            return self._of_paths.parse(path)
        except (TypeError, ValueError) as error:
            # ml_collections puts a traceback into the message, of which only mistakes inside the
            # file have need: neither its own errors nor a call with one argument too many.
            cause = error.__context__
            if isinstance(cause, ValueError):
                raise cause from None
            if isinstance(cause, TypeError) and cause.__traceback__.tb_next is None:
                raise ValueError("this config takes nothing after a colon") from None
            raise
