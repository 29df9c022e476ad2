"""Procedure step recognition in egocentric video: STORM-PSR in JAX and Flax.

`load_model(DIR)` gives a trained model, `load_model("demo")` one that ships (docs/recognise.md).
`stormpsr_jax.psr` has decoding, fusion and metrics (docs/psr.md), without JAX.
"""

import importlib.metadata
import sys
from typing import Any

__all__ = ["__version__", "load_model"]

try:
    __version__ = importlib.metadata.version("stormpsr-jax")
except importlib.metadata.PackageNotFoundError:  # a checkout that was not installed
    __version__ = "unknown"

if sys.argv[:1] == ["-m"]:  # Python has not yet found the module of the command
    from stormpsr_jax.base import installed

    installed.name_missing()


def __getattr__(name: str) -> Any:
    # Not imported above: it needs packages which stormpsr_jax.psr does without.
    if name == "load_model":
        from stormpsr_jax.serving.folder import load_model

        return load_model
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
