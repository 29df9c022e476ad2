"""What is installed: what results hang on, and what to install where something is missing."""

import functools
import hashlib
import importlib.metadata
import importlib.util
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stormpsr_jax.base import errors

# The packages on which the bytes of data folders and results depend.
_LIBRARIES = (
    "array-record", "av", "cascadio", "flax", "jax", "jaxlib", "numba", "numpy",
    "onnxruntime", "pillow", "protobuf", "simplejpeg", "tensorflow-datasets", "trimesh",
)  # fmt: skip
_ROOT = Path(__file__).parents[2]


def check_extra(name: str, modules: Sequence[str], purpose: str) -> None:
    """Raises ValueError if a module of an extra ('': none) is missing, saying what needs it."""
    for module in modules:
        if importlib.util.find_spec(module) is None:
            package = f"'.[{name}]'" if name else "."
            raise ValueError(f"{purpose} needs {module!r}: pip install {package} in the clone")


def name_missing() -> None:
    """From now on, a package that is missing ends the process with status 2 and a line about it.

    For processes that run a command, before any of its modules is imported.
    """

    def report(kind: type[BaseException], error: BaseException, trace: Any) -> None:
        if not isinstance(error, ModuleNotFoundError):
            return sys.__excepthook__(kind, error, trace)
        module = (error.name or str(error)).partition(".")[0]
        install = "pip install . in the clone, with the extras of docs/start.md"
        errors.tell("error", f"{module!r} is not installed, and this needs it: {install}")
        sys.exit(2)  # Python takes it for the status of the process

    if not os.environ.get("STORMPSR_TRACEBACK"):
        sys.excepthook = report


@functools.cache
def code() -> str:
    """Returns the checksum of the code of this project."""
    digest = hashlib.sha256()
    for package in ("stormpsr_jax", "data_prep"):
        for path in sorted((_ROOT / package).rglob("*.py")):
            digest.update(f"{path.relative_to(_ROOT).as_posix()}\0".encode() + path.read_bytes())
    return digest.hexdigest()


def versions() -> dict[str, str]:
    """Returns the versions of Python and of the libraries that a result may hang on."""

    def version(name: str) -> str:
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            return "missing"

    return {"Python": platform.python_version(), **{name: version(name) for name in _LIBRARIES}}


def commit() -> str | None:
    """Returns the commit of the clone that this package is in, and whether its code is another.

    None: it is in none, or git is missing.
    """
    if not (_ROOT / ".git").exists():
        return None
    git = ["git", "-C", str(_ROOT), "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty"]
    try:
        return subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
