"""A user's own classes and functions, each named by an import path such as `my.module:Name`.

Importing a module executes it. So only people give such a path, in a config, on a command line or
in a call; a path that a file from outside names is never followed by itself.
"""

import ast
import importlib
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stormpsr_jax.base import results
from stormpsr_jax.base.errors import one_line
from stormpsr_jax.base.files import shorten


def named(path: str, place: str) -> Any:
    """What an import path MODULE:NAME, of a field or flag, names; ValueError if it is not there."""
    module, _, name = path.partition(":")
    try:
        return getattr(importlib.import_module(module), name)
    except Exception as error:  # of a module, nearly anything
        what = traceback.format_exception_only(error)[-1]
        raise ValueError(one_line(f"{place}={path}: cannot be imported: {what}", 400)) from error


def values(text: str, place: str) -> dict[str, Any]:
    """Reads values such as "depth=2,act=gelu,rates=(1, 2)"; ValueError names the place."""
    try:
        call: Any = ast.parse(f"_({text})", mode="eval").body  # nothing is executed
        pairs = {k.arg: k.value for k in call.keywords}
        if call.args or call.func.id != "_" or None in pairs:
            raise ValueError
        return {n: getattr(v, "id", "") or ast.literal_eval(v) for n, v in pairs.items()}
    except (SyntaxError, ValueError, AttributeError) as error:
        raise ValueError(f"{place}={shorten(text)}: should be like depth=2,width=64") from error


def checksums(paths: Mapping[str, str]) -> dict[str, str]:
    """By import path the checksum of its module's file, of what `named` takes by place."""
    digests = {}
    for place, path in paths.items():
        named(path, place)
        if file := getattr(sys.modules[path.partition(":")[0]], "__file__", None):
            digests[f"code of {path}"] = results.of_input(Path(file))
    return digests
