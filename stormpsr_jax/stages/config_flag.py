"""The flag --config of a command: the name of a config that ships, or the path of a file."""

import argparse
import ast
import importlib.util
import os
import re
import sys
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from stormpsr_jax.base import results
from stormpsr_jax.base.errors import lines_of, raise_all, tell
from stormpsr_jax.base.files import shorten
from stormpsr_jax.configs import default as default_config
from stormpsr_jax.configs.fields import Field, Section
from stormpsr_jax.psr.cli import OneLineParser

_FOLDER = Path(__file__).parents[1] / "configs"


def shipped() -> list[str]:
    """Returns the names of the configs that ship and can be run."""
    names = {path.stem for path in _FOLDER.glob("*.py")}
    return sorted(names - {"__init__", "default", "fields"})


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
        if not os.path.isfile(config):
            raise ValueError(f"no file {config}; configs that ship go by name alone: {known}")
        return value
    if config not in shipped():
        raise ValueError(
            f"unknown config {config!r}; those that ship are {known}; a path ends in .py"
        )
    return f"{_FOLDER / config}.py{colon}{extra}"


def add_config(parser: argparse.ArgumentParser, default: str | None = None) -> None:
    """Adds --config to a parser, to parse with `parse`; `default`: its name or path, else needed.

    It has --config.FIELD=VALUE too, for all fields of the config.
    """
    what = f"name of a config ({', '.join(shipped())}), or the path of a file"
    parser.add_argument(
        "--config", metavar="NAME", default=default, required=default is None, help=what
    )
    what = "another value of a field of the config, such as --config.seed=1"
    parser.add_argument("--config.FIELD=VALUE", action="store_true", dest="field", help=what)


def parse(parser: OneLineParser, argv: Sequence[str] | None) -> argparse.Namespace:
    """Parses a command line; mistakes on it end the process with a line each, and status 2.

    The config has to have the fields of configs/default.py, with values of the same types. With
    STORMPSR_TRACEBACK set in the environment it is shown where an error was found.

    Args:
        parser: with what `add_config` adds.
        argv: the words; None for those of the process.

    Returns:
        What was parsed; `config` is the ConfigDict.
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
    """Returns the config that a value of --config means, with other values of some fields.

    Raises:
        ValueError: what is wrong with it, a line each.
    """
    config = _read(value)
    raise_all([f"--config.{m}" for m in _find_errors(config, default_config.described())])
    for word in fields:
        _set(config, word)
    return config


def _set(config: ConfigDict, word: str) -> None:
    """Gives a field another value; `word`: --config.FIELD=VALUE, or --[no]config.FIELD."""
    option, sign, text = word.partition("=")
    negated, name = option.startswith("--no"), option.partition("config.")[2]
    section: Any = config
    leaf = name
    try:
        while "." in leaf:
            first, leaf = leaf.split(".", 1)
            section = section[first]
        like = section[leaf]
    except (KeyError, TypeError) as error:
        reason = " ".join(str(error.args[0]).split())
        raise ValueError(f"the config has no such field: {name}: {reason}{_near(name)}") from error
    described: Any = default_config.described()
    for part in name.split("."):
        described = getattr(described, part)
    example = described.example if isinstance(described, Field) else like
    if not sign and isinstance(like, bool):
        text = str(not negated)
    section[leaf] = value_of(f"--config.{name}", text, like, example)


def _near(name: str) -> str:
    """Names the fields that are called like one that is none, in its section or below it first."""
    section, _, leaf = name.rpartition(".")
    known = results.flatten(default_config.get_config().to_dict())
    every = [field for field in known if field.endswith(f".{leaf}")]
    near = [field for field in every if field.startswith(f"{section}.")] or every
    return f"; there is {', '.join(f'--config.{field}' for field in near[:3])}" if near else ""


def value_of(field: str, text: str, like: Any, example: Any = None) -> Any:
    """Returns the value that a text means for a field.

    Args:
        like: another value of the field.
        example: one to name in messages, and whose kind the items of a list have to have.

    Raises:
        ValueError: it is no value of that type.
    """
    example = example if example not in (None, ()) else like
    value: Any = text
    try:
        if isinstance(like, bool):
            value = {"true": True, "1": True, "false": False, "0": False}[text.lower()]
        elif isinstance(like, int | float):
            value = type(like)(text)
        elif not isinstance(like, str):
            value = ast.literal_eval(text)
            value = value if isinstance(value, tuple) else (value,)
    except (KeyError, ValueError, SyntaxError, MemoryError, RecursionError):
        value = None
    if value is None or not _is_like(value, example):
        raise ValueError(f"{field}={shorten(text)[1:-1]}: should be like {example!r}")
    return value


def _find_errors(config: ConfigDict, described: Section, prefix: str = "") -> Iterator[str]:
    """Yields the fields that are missing, unknown, or of another type than in `described()`."""
    ours = vars(described)
    for name in ours:
        if name not in config:
            yield f"{prefix}{name}: is missing"
    for name in config:
        field, value = f"{prefix}{name}", config[name]
        if name not in ours:
            yield f"{field}: there is no such field; see configs/default.py"
        elif isinstance(ours[name], Section) and isinstance(value, ConfigDict):
            yield from _find_errors(value, ours[name], f"{field}.")
        else:
            like = ours[name].example if isinstance(ours[name], Field) else ours[name]
            if not _is_like(value, like):
                yield f"{field}={shorten(value)}: should be like {like!r}"


def _is_like(value: Any, ours: Any) -> bool:
    if isinstance(ours, tuple | list) and isinstance(value, tuple | list):
        return all(_is_like(item, ours[0]) for item in value)
    kinds = (float, int) if isinstance(ours, float) else type(ours)
    return isinstance(value, kinds) and isinstance(value, bool) == isinstance(ours, bool)


def _read(argument: str) -> ConfigDict:
    """Loads the config that a value of --config means; ValueError says where it fails."""
    path, *words = resolve(argument).split(":", 1)
    try:
        spec = importlib.util.spec_from_file_location("config", os.path.abspath(path))
        assert spec is not None  # as the name ends in .py
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        config = module.get_config(*words)
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
