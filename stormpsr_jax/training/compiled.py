"""Compiled programs on disk, which the next run of the same work folder need not compile again.

WORKDIR/compiled/<program>    a seal of 32 bytes, and what JAX has compiled

A compiled program is code, and reading one from a folder of somebody else would run theirs. So
each carries a seal (HMAC-SHA256) by a key of this user, which never leaves `~/.cache/stormpsr_jax`.
What does not carry it, whether damaged, cut short or of another user, is not there for JAX. The
seal is also of the processor, as code for another one may end this process.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import importlib
import os
import platform
import re
import secrets
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax

from stormpsr_jax.base import files
from stormpsr_jax.base.errors import tell

# Private: publicly, JAX has only a store without seals, which keeps damaged entries for ever, and
# whose size is bounded by a lock on all of it.
_jax_cache: Any = importlib.import_module("jax._src.compilation_cache")
_interface: Any = importlib.import_module("jax._src.compilation_cache_interface")

MIN_SECONDS = 0.1  # of compiling, below which a program is not kept
_SEAL = hashlib.sha256().digest_size
# A file of a program: JAX's name for it, which ends in a checksum, whole or being written.
_PROGRAM = re.compile(r".+-[0-9a-f]{64}(\.\d+-[0-9a-f]{8}\.part)?")


class Store(_interface.CacheInterface):
    """Programs by name in a folder; safe for several threads and processes."""

    def __init__(self, folder: Path, most: int, key: bytes):
        """Opens it.

        Args:
            folder: which is there.
            most: bytes of all programs; those that were not used for longest are removed.
            key: of the seals.
        """
        self._path, self._most = folder, most
        self._key = key + _processor()
        self._lock = threading.Lock()

    def get(self, key: str) -> bytes | None:
        """The program of a name, if it is there and carries the seal."""
        path = self._path / key
        try:
            files.check_regular(path, "remove it")
            if path.stat().st_size > self._most:
                return None
            sealed = path.read_bytes()
            seal, program = sealed[:_SEAL], sealed[_SEAL:]
            if not hmac.compare_digest(seal, self._sealed(key, program)):
                return None
            os.utime(path)  # used now
        except (OSError, ValueError):
            return None
        return program

    def put(self, key: str, value: bytes) -> None:
        """Keeps a program, unless there is no room for it; training goes on without."""
        path = self._path / key
        part = path.with_name(f"{key}.{os.getpid()}-{secrets.token_hex(4)}.part")
        with contextlib.suppress(OSError), self._lock:
            if self._make_room(len(value) + _SEAL):
                with files.replacing(path, part):
                    part.write_bytes(self._sealed(key, value) + value)

    def _sealed(self, key: str, program: bytes) -> bytes:
        return hmac.digest(self._key, key.encode() + b"\0" + program, "sha256")

    def _make_room(self, wanted: int) -> bool:
        """Removes what was not used for longest; returns whether so many bytes then fit.

        Files of others are left alone, and do not count.
        """
        known = []
        for path in self._path.iterdir():
            if not _PROGRAM.fullmatch(path.name):
                continue
            with contextlib.suppress(FileNotFoundError):  # another process removes them too
                status = path.lstat()
                known.append((status.st_mtime_ns, status.st_size, path))
        total = sum(size for _, size, _ in known)
        for _, size, path in sorted(known):
            if total + wanted <= self._most:
                break
            path.unlink(missing_ok=True)
            total -= size
        return total + wanted <= self._most


@contextlib.contextmanager
def kept(folder: Path, most: int) -> Iterator[None]:
    """Within it, JAX keeps compiled programs in a folder, and finds those that are there.

    Nothing changes where the environment names a store of JAX's own (JAX_COMPILATION_CACHE_DIR), or
    where `most` is 0.

    Args:
        folder: made if there is none.
        most: bytes that it may grow to.
    """
    if not most or jax.config.values["jax_compilation_cache_dir"]:
        yield
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        store = Store(folder, most, _user_key())
    except (OSError, RuntimeError) as error:
        tell("warning", f"no compiled programs are kept in {folder}: {error}")
        yield
        return
    wanted = {
        "jax_compilation_cache_dir": str(folder),
        "jax_persistent_cache_min_compile_time_secs": MIN_SECONDS,
        "jax_persistent_cache_enable_xla_caches": "none",  # XLA's own files have no seal
    }
    before = {name: jax.config.values[name] for name in wanted}
    _switch(store, wanted)
    try:
        yield
    finally:
        _switch(None, before)


def _switch(store: Store | None, settings: dict[str, Any]) -> None:
    for name, value in settings.items():
        jax.config.update(name, value)
    _jax_cache._cache, _jax_cache._cache_initialized = store, store is not None


def _user_key() -> bytes:
    """The key of this user, made at the first time.

    Raises:
        OSError, RuntimeError: there is no home folder, or it cannot be written.
    """
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    path = Path(home) / "stormpsr_jax" / "compiled.key"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        part = path.with_name(f"{path.name}.{os.getpid()}-{secrets.token_hex(4)}.part")
        file = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            os.write(file, secrets.token_bytes(_SEAL))
            with contextlib.suppress(FileExistsError):  # of another process, which came first
                os.link(part, path)
        finally:
            os.close(file)
            part.unlink()
    status = path.stat()
    if status.st_uid != os.getuid() or status.st_mode & 0o077 or status.st_size != _SEAL:
        raise OSError(f"{path} is damaged, or others can read it; remove it")
    return path.read_bytes()


def _processor() -> bytes:
    """What tells processors apart that cannot run each other's code."""
    kind = platform.machine()
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
        names = ("model name", "flags", "Features", "CPU part")
        kind += "\n".join(sorted({line for line in lines if line.startswith(names)}))
    return kind.encode()
