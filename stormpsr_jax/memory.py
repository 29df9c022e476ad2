"""Whether something fits into the memory of this machine, before the system has to kill for it."""

import os
from pathlib import Path

_MEMINFO = Path("/proc/meminfo")


def available_bytes() -> int:
    """Memory that can be had without swapping: what is free and what the page cache would give."""
    if _MEMINFO.exists():
        for line in _MEMINFO.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def check_fits(num_bytes: int, what: str) -> None:
    """Raises MemoryError if that many bytes are more than this machine has left."""
    if num_bytes > (available := available_bytes()):
        raise MemoryError(
            f"{what} needs {num_bytes / 2**30:,.1f} GiB, {available / 2**30:,.1f} GiB are free"
        )
