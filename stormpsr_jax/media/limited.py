"""Work in a process that has a limit of memory and time.

For parsers of files of others, which a small file can make take any of both, before anybody can
look. The process is asked by a pickle on its stdin, and answers on its stdout.
"""

import math
import os
import pickle
import resource
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, NoReturn


def call(module: str, request: Any, place: str, advice: str) -> bytes:
    """Returns what a module, run as a program, answers to a request that can be pickled.

    The module reads the request with `pickle.load`, and calls `limit` and `end`.

    Raises:
        ValueError: the process was ended, by its limit of time or otherwise; names the `place`.
    """
    # Without -P, a program in the folder where a user happens to be would be found first.
    done = subprocess.run(
        [sys.executable, "-P", "-m", module],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(p or os.getcwd() for p in sys.path)},
        input=pickle.dumps(request),
        capture_output=True,
    )
    if not done.returncode:
        return done.stdout
    if done.returncode > 0:
        raise RuntimeError(f"{place}: {done.stderr.decode(errors='replace')}")
    if done.returncode == -signal.SIGXCPU:
        raise ValueError(f"{place}: reading it takes longer than a file of its size may; {advice}")
    how = signal.Signals(-done.returncode).name
    raise ValueError(f"{place}: reading it ended a process by {how}; {advice}")


def limit(memory: int, seconds: int) -> None:
    """Limits what this process takes from now on: bytes of memory (on Linux), seconds of a core."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    used = math.ceil(usage.ru_utime + usage.ru_stime)
    limits = {resource.RLIMIT_CPU: used + seconds}
    if sys.platform == "linux":  # elsewhere it does not count what is mapped
        pages = int(Path("/proc/self/statm").read_text().split()[5])
        limits[resource.RLIMIT_DATA] = pages * resource.getpagesize() + memory
    for kind, most in limits.items():
        hard = resource.getrlimit(kind)[1]
        resource.setrlimit(kind, (most if hard < 0 else min(most, hard), hard))


def end() -> NoReturn:
    """Ends this process after its answer: what a library does at exit would count to its limits."""
    sys.stdout.flush()
    os._exit(0)
