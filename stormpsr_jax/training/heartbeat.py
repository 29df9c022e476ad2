"""Which process of a run has died, stopped or failed: one line, before JAX ends the others.

JAX notices the end of a process too, and ends the others from C++ with a stack trace (its callback
for the purpose cannot be called from Python in 0.10.2). So each process writes a beat into JAX's
store of keys and values, which process 0 holds. Process 0 looks at all beats and writes down who is
lost; the others look at that, and at process 0's own beat.
"""

import atexit
import contextlib
import os
import threading
import time
from collections.abc import Iterable
from typing import Any

import jax

from stormpsr_jax.base.errors import tell

BEAT_SECONDS = 2.0
# A process that says nothing for this long is taken for dead, and the others end.
SILENT_SECONDS = 30.0
# The same once a connection between processes is lost: one of them is dead then.
SUSPECT_SECONDS = 8.0

_BEATS, _FROM_0 = "stormpsr_jax/beats/", "stormpsr_jax/from_0/"
_DONE, _FAILED, _CUT_OFF = "done", "failed", "cut off"


class Heartbeat:
    """Says, from a thread of its own, that this process is alive, and notices which one is not."""

    def __init__(self, client: Any, process_id: int):
        """Begins to beat; `client` is JAX's, of the run."""
        self._client, self._id = client, process_id
        self._number, self._cut_off = 0, False
        # Of each process: its newest beat, and when that came.
        self._seen: dict[int, tuple[str, float]] = {}
        self._ended = threading.Event()
        self._answered = time.monotonic()  # when process 0 last did
        self._beat()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)
        self._thread.start()
        if process_id:
            threading.Thread(target=self._watch_0, name="heartbeat of 0", daemon=True).start()
        atexit.register(self.end)  # before JAX's own end, which waits for the others

    def end(self, failed: bool = False) -> None:
        """Says that this process ends, in order or with an error of its own; looks no more."""
        if not self._ended.is_set():
            self._ended.set()
            # Process 0, which holds the store, may have ended.
            with contextlib.suppress(jax.errors.JaxRuntimeError):
                self._beat(_FAILED if failed else _DONE)

    def connection_lost(self) -> None:
        """Waits for the line that says which process is lost, which ends this one."""
        self._cut_off = True
        self._thread.join(3 * SUSPECT_SECONDS)

    def _run(self) -> None:
        while not self._ended.wait(BEAT_SECONDS):
            try:
                self._beat(_CUT_OFF if self._cut_off else "")
                lost = self._look()
            except jax.errors.JaxRuntimeError:
                lost = "process 0 has ended, or cannot be reached any more"
            self._answered = time.monotonic()
            if lost:
                self._exit(lost)

    def _watch_0(self) -> None:
        """Notices that process 0 has stopped, which leaves this one waiting for its store."""
        late = 0
        while not self._ended.wait(BEAT_SECONDS):
            limit = SUSPECT_SECONDS if self._cut_off else SILENT_SECONDS
            late = late + 1 if time.monotonic() - self._answered > limit else 0
            # Once may be this process itself, that nothing of Python ran in for a while.
            if late == 2:
                self._exit(_silent([0], limit))

    def _exit(self, lost: str) -> None:
        if self._ended.is_set():
            return
        remedy = "its own output says why, unless it was killed; run the same command again on all"
        tell("error", f"{lost}; {remedy}")
        if self._id == 0:
            time.sleep(2 * BEAT_SECONDS)  # the others read it here
        os._exit(1)

    def _beat(self, word: str = "") -> None:
        self._number += 1
        value = f"{self._number} {word}"
        self._write(f"{_BEATS}{self._id}", value)
        if self._id == 0:
            self._write(f"{_FROM_0}beat", value)

    def _write(self, key: str, value: str) -> None:
        self._client.key_value_set(key, value, allow_overwrite=True)

    def _look(self) -> str:
        """Says which process is lost; '' if none is."""
        if self._id:
            news = {key[len(_FROM_0) :]: value for key, value in self._read(_FROM_0)}
            return news.get("lost") or self._of_silent([(0, news.get("beat", ""))])
        beats = [(int(key[len(_BEATS) :]), value) for key, value in self._read(_BEATS)]
        lost = self._of_silent(beats)
        if lost:
            self._write(f"{_FROM_0}lost", lost)
        return lost

    def _read(self, folder: str) -> list[tuple[str, str]]:
        return self._client.key_value_dir_get(folder)

    def _of_silent(self, beats: Iterable[tuple[int, str]]) -> str:
        now = time.monotonic()
        for i, beat in beats:
            if self._seen.get(i, ("", 0))[0] != beat:
                self._seen[i] = beat, now
            if beat.endswith(_FAILED):
                return f"process {i} has ended with an error"
        suspect = self._cut_off or any(beat.endswith(_CUT_OFF) for _, beat in beats)
        limit = SUSPECT_SECONDS if suspect else SILENT_SECONDS
        silent = [
            i
            for i, (beat, since) in self._seen.items()
            if now - since > limit and not beat.endswith(_DONE)
        ]
        return _silent(silent, limit) if silent else ""


def _silent(processes: Iterable[int], limit: float) -> str:
    return f"process {', '.join(map(str, processes))} has not been heard of for {limit:.0f} s"
