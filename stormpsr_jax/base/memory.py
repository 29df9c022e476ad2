"""The memory of this machine: whether something fits into it, and keeping what is freed."""

import ctypes
import os
from pathlib import Path

_MEMINFO = Path("/proc/meminfo")
# How many times as much as packed there may be in files of labels, predictions and arrays. Those
# of data sets and of networks have up to ten.
MAX_GROWTH = 20
# Parameters of glibc's mallopt(3).
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4


def keep_freed() -> None:
    """Keeps freed memory in this process for its next arrays, where the C library is glibc.

    By default large arrays go back to the system as soon as they are free. A training step on a CPU
    then gets tens of MiB of new pages each time, which takes it a sixth of its time.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt:
        for parameter, value in ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, 2**31 - 1), (_TOP_PAD, 2**26)):
            mallopt(parameter, value)


def available_bytes() -> int:
    """Memory that can be had without swapping: what is free and what the page cache would give."""
    if _MEMINFO.exists():  # of Linux
        for line in _MEMINFO.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def check_growth(packed: int, unpacked: int, free: int, place: str) -> None:
    """Raises ValueError if so few bytes become so many, beyond those that are free to any."""
    if unpacked > max(free, MAX_GROWTH * packed):
        raise ValueError(
            f"{place} has {unpacked:,} bytes, more than {MAX_GROWTH} times as many as packed; "
            "unpack it, if it is what you take it for"
        )


def check_fits(num_bytes: int, purpose: str) -> None:
    """Raises MemoryError if that many bytes are more than this machine has left."""
    if num_bytes > (available := available_bytes()):
        raise MemoryError(
            f"{purpose} needs {num_bytes / 2**30:,.1f} GiB, {available / 2**30:,.1f} GiB are free"
        )
