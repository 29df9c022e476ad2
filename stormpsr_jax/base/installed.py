"""What is installed, to tell whether machines that work together have the same; what is missing."""

import functools
import hashlib
import importlib.metadata
import importlib.util
import os
import platform
import re
import subprocess
import sys
import tomllib
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
# Of those whose modules have other names, some that a command may miss.
_PACKAGES = {"absl": "absl-py", "paho": "paho-mqtt"}


def extra(name: str) -> str:
    """Returns how to install an extra ('': none). By its name alone no index has this package.

    Whoever registered that name would have their code run by those who follow such a hint.
    """
    of = f"[{name}]" if name else ""
    clone, wheel = (f"'.{of}'", f"'WHEEL{of}'") if name else (".", "WHEEL")
    by_address = f"'stormpsr-jax{of} @ git+ADDRESS' with the repository's"
    return f"pip install {clone} in the clone, {wheel} with its file, or {by_address}"


def check_extra(name: str, modules: Sequence[str], what: str) -> None:
    """Raises ValueError if a module of an extra ('': none) is missing, saying what needs it."""
    for module in modules:
        if importlib.util.find_spec(module) is None:
            raise ValueError(f"{what} needs {module!r}: {extra(name)}")


def remedy(error: ModuleNotFoundError) -> str:
    """Returns a line about a module that an import did not find: its name, what to install."""
    module = (error.name or str(error)).partition(".")[0]
    package = _PACKAGES.get(module, module.replace("_", "-"))
    of = (name for name, wanted in requirements().items() if package in wanted)
    return f"{module!r} is not installed, and this needs it: {extra(next(of, ''))}"


def name_missing() -> None:
    """From now on, a package that is missing ends the process with status 2 and its `remedy`.

    For processes that run a command, before any of its modules is imported.
    """
    if not os.environ.get("STORMPSR_TRACEBACK"):
        sys.excepthook = _tell


def _tell(kind: type[BaseException], error: BaseException, trace: Any) -> None:
    if not isinstance(error, ModuleNotFoundError):
        return sys.__excepthook__(kind, error, trace)
    errors.tell("error", remedy(error))
    sys.exit(2)  # Python takes it for the status of the process


@functools.cache
def requirements() -> dict[str, dict[str, str]]:
    """By extra ('': every installation) and package, the versions that the project declares."""
    declared: dict[str, list[str]] = {"": []}
    if (path := _ROOT / "pyproject.toml").is_file():  # of a clone
        project = tomllib.loads(path.read_text("utf-8"))["project"]
        declared = {"": project["dependencies"], **project["optional-dependencies"]}
    elif _version("stormpsr-jax") != "missing":
        for line in importlib.metadata.requires("stormpsr-jax") or ():
            named = re.search(r"extra == ['\"]([^'\"]+)", line)
            declared.setdefault(named[1] if named else "", []).append(line)
    found: dict[str, dict[str, str]] = {}
    for extra, lines in declared.items():
        parts = (re.match(r"([\w.-]+)(?:\[.*\])?([^;]*)", line) for line in lines)
        found[extra] = {m[1]: m[2].strip(" ()") for m in parts if m and m[1] != "stormpsr-jax"}
    return found


@functools.cache
def code() -> str:
    """Returns the checksum of the code of this project."""
    digest = hashlib.sha256()
    for package in ("stormpsr_jax", "data_prep"):
        for path in sorted((_ROOT / package).rglob("*.py")):
            digest.update(f"{path.relative_to(_ROOT).as_posix()}\0".encode() + path.read_bytes())
    return digest.hexdigest()


def parts() -> dict[str, str]:
    """Returns `versions`, and the code of this project."""
    return {**versions(), "stormpsr_jax": code()}


def versions() -> dict[str, str]:
    """Returns the versions of Python and of the libraries that a result may hang on."""
    return {"Python": platform.python_version(), **{name: _version(name) for name in _LIBRARIES}}


def commit() -> str | None:
    """Returns the commit of the clone that this package is in, and whether its code is another.

    None: it is in none, or git is missing.
    """
    if not (_ROOT / ".git").exists():
        return None

    def git(*words: str) -> str:
        done = ["git", "-C", str(_ROOT), *words]
        return subprocess.run(done, capture_output=True, text=True, check=True).stdout.strip()

    try:
        changed = git("status", "--porcelain", "--", "stormpsr_jax", "data_prep", "configs")
        return git("rev-parse", "HEAD") + " with changes" * bool(changed)
    except (OSError, subprocess.CalledProcessError):
        return None


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "missing"
