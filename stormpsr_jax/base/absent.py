"""Commands where packages are missing: --help works all the same, else a line says what to install.

The standard library alone. A package calls `begin` before any of its modules is imported, as a
command imports at its top what may be missing.
"""

import importlib.abc
import importlib.machinery
import os
import sys
import types
from collections.abc import Sequence
from typing import Any

from stormpsr_jax.base import errors, installed

# What modules of commands import at their top, of the packages that a small installation lacks.
_NAMES = {
    "PIL", "absl", "array_record", "flax", "google", "jax", "ml_collections", "ml_dtypes",
    "msgspec", "safetensors", "simplejpeg", "tensorflow_datasets", "tqdm",
}  # fmt: skip


def begin() -> None:
    """Prepares for a command of `sys.orig_argv`; in a process that runs none it must not be called.

    With --help, a missing package has a stand-in: the process ends when it has printed the flags.
    Without, an error that a package is missing ends the process with status 2 and a line.
    """
    if {"-h", "--help"} & set(sys.orig_argv):
        sys.meta_path.append(_StandIns())
    elif not os.environ.get("STORMPSR_TRACEBACK"):
        sys.excepthook = _tell


def _tell(kind: type[BaseException], error: BaseException, trace: Any) -> None:
    if not isinstance(error, ModuleNotFoundError):
        return sys.__excepthook__(kind, error, trace)
    errors.tell("error", installed.remedy(error))
    sys.exit(2)  # Python takes it for the status of the process


class _Anything(type):
    """Classes that have every attribute, and may be called, subscripted and inherited from."""

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__") or name == "dtype":  # by which NumPy knows its own
            raise AttributeError(name)
        return _StandIn

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        return _StandIn

    def __getitem__(cls, key: Any) -> Any:
        return _StandIn


class _StandIn(metaclass=_Anything):
    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Takes the keywords that a class of a package takes."""


class _Module(types.ModuleType):
    def __getattr__(self, name: str) -> Any:
        return getattr(_StandIn, name)


class _StandIns(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """The last finder: asked for what no other one has found."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: Any = None
    ) -> importlib.machinery.ModuleSpec | None:
        known = name.partition(".")[0] in _NAMES
        return importlib.machinery.ModuleSpec(name, self, is_package=True) if known else None

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType:
        return _Module(spec.name)

    def exec_module(self, module: types.ModuleType) -> None:
        """Nothing is in it."""
