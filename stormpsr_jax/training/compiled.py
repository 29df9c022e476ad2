"""Compiled programs on disk, by JAX's own cache: the next run, of whatever folder, finds them.

~/.cache/stormpsr_jax/compiled/<jaxlib and processor>/<program>-cache
"""

import contextlib
import hashlib
import os
import platform
import re
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jaxlib
from jax.experimental.compilation_cache import compilation_cache

from stormpsr_jax.base.errors import tell

MIN_SECONDS = 0.1  # of compiling, below which a program is not kept
DAYS = 30  # after which a program is compiled anew, so that the folder does not grow for ever
_UNREADABLE = re.compile(r"Error reading persistent compilation cache entry for '(\w+)'")


@contextlib.contextmanager
def kept() -> Iterator[None]:
    """Within it, JAX keeps compiled programs of this user, and finds those that are there.

    Where JAX_COMPILATION_CACHE_DIR names a folder, JAX uses that one by itself.
    """
    if jax.config.values["jax_compilation_cache_dir"]:
        yield
        return
    try:
        home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        folder = Path(home) / "stormpsr_jax" / "compiled" / _machine()
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        _remove_old(folder.parent)
    except (OSError, RuntimeError) as error:
        tell("warning", f"no compiled programs are kept: {error}")
        yield
        return
    wanted = {
        "jax_compilation_cache_dir": str(folder),
        "jax_persistent_cache_min_compile_time_secs": MIN_SECONDS,
        "jax_persistent_cache_enable_xla_caches": "none",  # XLA's own files would stay for ever
    }
    before = {name: jax.config.values[name] for name in wanted}
    _configure(wanted)
    show = warnings.showwarning

    def shown(message: Any, *rest: Any, **options: Any) -> None:
        if found := _UNREADABLE.match(str(message)):  # JAX compiles it again, and writes it if
            for path in folder.glob(f"{found[1]}-*"):  # none is there
                path.unlink(missing_ok=True)
        else:
            show(message, *rest, **options)

    warnings.showwarning = shown
    try:
        yield
    finally:
        warnings.showwarning = show
        _configure(before)


def _configure(settings: dict[str, Any]) -> None:
    for name, value in settings.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()  # the one that is open has another folder


def _machine() -> str:
    """What tells machines apart that cannot run each other's code."""
    kind = platform.machine()
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
        names = ("model name", "flags", "Features", "CPU part")
        kind += "\n".join(sorted({line for line in lines if line.startswith(names)}))
    return f"{jaxlib.__version__}-{hashlib.sha256(kind.encode()).hexdigest()[:12]}"


def _remove_old(folder: Path) -> None:
    oldest = time.time() - DAYS * 86_400
    for path in folder.glob("*/*-cache"):
        with contextlib.suppress(FileNotFoundError):  # another process removes them too
            if path.lstat().st_mtime < oldest:
                path.unlink()
