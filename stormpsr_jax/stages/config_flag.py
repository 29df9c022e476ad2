"""The flag --config of a command: the name of a config that ships, or the path of a file."""

import argparse
import ast
import functools
import math
import os
import re
import runpy
import sys
import traceback
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec
from ml_collections import ConfigDict

from stormpsr_jax.base import results
from stormpsr_jax.base.errors import lines_of, raise_all, tell
from stormpsr_jax.base.files import shorten
from stormpsr_jax.configs.default import OWN, Config, Section, names
from stormpsr_jax.psr.cli import OneLineParser

_FOLDER = Path(__file__).parents[1] / "configs"


def shipped() -> list[str]:
    """Returns the names of the configs that ship and can be run."""
    stems = {path.stem for path in _FOLDER.glob("*.py")}
    return sorted(stems - {"__init__", "default"})


def resolve(value: str) -> str:
    """Returns the path that a value of --config means, with what follows its colon.

    What ends in .py is a path, such as `configs/own.py:boxes`, and anything else the name of a
    config that ships, such as `own:boxes`. ValueError if there is none; lists the names.
    """
    config, colon, extra = value.partition(":")
    every = ", ".join(shipped())
    if config.endswith(".py"):
        if not os.path.isfile(config):
            raise ValueError(f"no file {config}; configs that ship go by name alone: {every}")
        return value
    if config not in shipped():
        raise ValueError(
            f"unknown config {config!r}; those that ship are {every}; a path ends in .py"
        )
    return f"{_FOLDER / config}.py{colon}{extra}"


def add_config(parser: argparse.ArgumentParser, default: str | None = None) -> None:
    """Adds --config, needed if there is no `default`, and --config.FIELD=VALUE to a parser."""
    text = f"name of a config ({', '.join(shipped())}), or the path of a file"
    parser.add_argument(
        "--config", metavar="NAME", default=default, required=default is None, help=text
    )
    text = "another value of a field of the config, such as --config.seed=1"
    parser.add_argument("--config.FIELD=VALUE", action="store_true", dest="field", help=text)


def parse(parser: OneLineParser, argv: Sequence[str] | None) -> argparse.Namespace:
    """Parses a command line, of a parser with `add_config`; `config` of the result is a ConfigDict.

    Mistakes end the process with a line each, and status 2. With STORMPSR_TRACEBACK set in the
    environment it is shown where an error was found.
    """
    words = sys.argv[1:] if argv is None else argv
    fields = [word for word in words if re.match(r"--(no)?config\.", word)]
    parser.refuse_stores(fields)
    args = parser.parse_intermixed_args([word for word in words if word not in fields])
    try:
        args.config = load(args.config, fields)
    except ValueError as error:
        if os.environ.get("STORMPSR_TRACEBACK"):
            raise
        for line in lines_of(error):
            tell("error", line)
        sys.exit(2)
    return args


def load(value: str, fields: Sequence[str] = ()) -> ConfigDict:
    """The config that --config and --config.FIELD=VALUE mean; ValueError says all that is wrong."""
    config = _read(value)
    raise_all(find_errors(config))
    for word in fields:
        _set(config, word)
    return config


def typed(config: ConfigDict) -> Config:
    """Returns a config as one frozen value; ValueError lists all that is wrong with its fields."""
    raise_all(find_errors(config))
    return msgspec.convert(config.to_dict(), Config)


def find_errors(config: ConfigDict) -> list[str]:
    """Returns the fields that are missing, unknown, or have a value that they cannot have."""
    hints, values = field_types(), results.flatten(config.to_dict())
    errors = [f"--config.{name}: is missing" for name in hints if name not in values]
    for name, value in values.items():
        if name not in hints:
            errors.append(f"--config.{name}: there is no such field; see configs/default.py")
        elif what := _wrong_with(hints[name], value):
            errors.append(f"--config.{name}={shorten(value)}: {what}")
    return errors


@functools.cache
def field_types(of: type[Section] = Config, prefix: str = "") -> dict[str, Any]:
    """Returns the types of all fields by name, such as "temporal.steps"."""
    types: dict[str, Any] = {}
    for name, hint in typing.get_type_hints(of, include_extras=True).items():
        inner = isinstance(hint, type) and issubclass(hint, Section)
        types |= field_types(hint, f"{prefix}{name}.") if inner else {f"{prefix}{name}": hint}
    return types


def choices(hint: Any) -> tuple[str, ...]:
    """The texts that a field of a type may be, besides those of a user's own code."""
    bare = _bare(hint)
    return typing.get_args(bare) if typing.get_origin(bare) is Literal else names(hint)


def _bare(hint: Any) -> Any:
    return hint.__origin__ if hasattr(hint, "__metadata__") else hint


def _wrong_with(hint: Any, value: Any) -> str:
    try:
        converted = msgspec.convert(value, hint)
    except msgspec.ValidationError as error:
        if isinstance(value, str) and choices(hint):
            return f"is not one of {', '.join(choices(hint))}"
        what = str(error).replace("`", "").replace(" - at $", " at ")
        return what[0].lower() + what[1:]
    if names(hint) and value not in names(hint) and not OWN.fullmatch(value):
        return f"is not one of {', '.join(names(hint))}, or MODULE:NAME of yours"
    return "is not a finite number" if converted in (math.inf, -math.inf) else ""


def _set(config: ConfigDict, word: str) -> None:
    """Gives a field another value; `word`: --config.FIELD=VALUE, or --[no]config.FIELD."""
    option, sign, text = word.partition("=")
    name = option.partition("config.")[2]
    if name not in field_types():
        raise ValueError(f"the config has no such field: {name}{_near(name)}")
    hint = field_types()[name]
    if not sign and _bare(hint) is bool:
        text = str(not option.startswith("--no"))
    value: Any = text
    try:
        if typing.get_origin(_bare(hint)) is tuple:
            value = ast.literal_eval(text)
            value = value if isinstance(value, tuple) else (value,)
        elif _bare(hint) is not str and not choices(hint):
            value = msgspec.convert(text.lower(), _bare(hint), strict=False)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        pass  # which is said of the text
    if what := _wrong_with(hint, value):
        raise ValueError(f"--config.{name}={shorten(text)[1:-1]}: {what}")
    config.update_from_flattened_dict({name: value})


def _near(name: str) -> str:
    """Names the fields that are called like one that is none, in its section or below it first."""
    section, _, leaf = name.rpartition(".")
    every = [field for field in field_types() if field.endswith(f".{leaf}")]
    near = [field for field in every if field.startswith(f"{section}.")] or every
    return f"; there is {', '.join(f'--config.{field}' for field in near[:3])}" if near else ""


def flat(config: Config) -> dict[str, Any]:
    """The config as {field: JSON value}, fields joined by dots."""
    return results.flatten(msgspec.json.decode(msgspec.json.encode(config)))


def _read(argument: str) -> ConfigDict:
    """Loads the config that a value of --config means; ValueError says where it fails."""
    path, *words = resolve(argument).split(":", 1)
    try:
        config = runpy.run_path(os.path.abspath(path))["get_config"](*words)
    except Exception as error:
        raise ValueError(_inside(path, error, bool(words))) from error
    if not isinstance(config, ConfigDict):
        raise ValueError(f"{path}: get_config() returns {shorten(config)}, not a ConfigDict")
    return config.lock()


def _inside(path: str, error: Exception, with_words: bool) -> str:
    """Says where in a config file an error is; `with_words`: something followed its colon."""
    full, frames = os.path.abspath(path), traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if frame.filename == full]
    if isinstance(error, SyntaxError) and error.filename == full:
        lines = [error.lineno]
    if with_words and isinstance(error, TypeError) and not lines:
        return f"{path}: this config takes nothing after a colon"
    what = " ".join(traceback.format_exception_only(error)[-1].split())
    return f"{path}: line {lines[-1]}: {what}" if lines else f"{path}: {what}"
