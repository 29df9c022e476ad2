"""Commands that the page starts: training, and what a model proposes."""

import asyncio
import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Sequence

from stormpsr_jax.base.errors import one_line

_SHARE = re.compile(r"(\d{1,3})%")
_LONGEST = 2**20  # bytes of a line


class CommandRunner:
    """Commands that run one after the other, nicer than the page."""

    def __init__(self) -> None:
        self.state = "idle"  # or "running", "failed", "done"
        self.line = ""  # the last one that they have printed
        self.share: float | None = None  # of what the line counts, in 0…1
        self._process: asyncio.subprocess.Process | None = None
        self._stopped = False

    async def run(self, commands: Sequence[Sequence[str]]) -> bool:
        """Runs `python -m` each of them, until one fails; returns whether none has."""
        self.state, self._stopped = "running", False
        path = os.pathsep.join(word or os.getcwd() for word in sys.path)
        status = 0
        for command in commands:
            self._process = await asyncio.create_subprocess_exec(
                *("nice", "-n", "10", sys.executable, "-P", "-m", *command),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env=os.environ | {"PYTHONPATH": path},
                limit=_LONGEST,
                start_new_session=True,  # what it has started ends with it
            )
            assert self._process.stdout is not None
            async for line in self._process.stdout:
                if text := one_line(line.decode(errors="replace")):
                    self.line = text
                    found = _SHARE.search(text)
                    self.share = min(int(found[1]) / 100, 1.0) if found else None
            status = await self._process.wait()
            if status:
                break
        self.state = "idle" if self._stopped else "failed" if status else "done"
        self.share = None
        return not status

    def stop(self) -> None:
        """Ends them as Ctrl-C does; the second time at once."""
        if self._process is not None and self._process.returncode is None:
            how = signal.SIGKILL if self._stopped else signal.SIGINT
            self._stopped = True
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, how)
