"""A bounded queue between live recognition, which never waits, and a receiver that may be away."""

import collections
import json
import threading
import time
from collections.abc import Mapping
from typing import Any

from stormpsr_jax.base.errors import one_line, tell

SIZE = 1000  # records that wait; of a kilobyte at most, as a rule
TIMEOUT = 10.0  # seconds in which a receiver has to answer
FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 30.0  # seconds, between attempts
_MAX_SAID = 200  # characters of what a receiver says


class Away(Exception):
    """A receiver has not taken a record, for a reason that may pass; the text says which."""


class Outbox:
    """Hands records to a receiver, one after the other, in a thread of its own.

    Where the receiver is away for long, the oldest record is dropped for a new one. Of those of
    type "status" only the newest one waits, so that they never push out an event.
    """

    def __init__(self, name: str):
        """Starts the thread."""
        self.dropped = 0  # records that did not arrive
        self._name = name
        self._waiting: collections.deque[tuple[str, bytes]] = collections.deque()
        self._status: bytes | None = None
        self._under_way = False  # whether a record is being delivered that was not counted yet
        self._changed = threading.Condition()
        self._closing = threading.Event()
        self._deadline = float("inf")
        self._warned: str | None = None
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    def _attempt(self, kind: str, text: bytes) -> bool:
        """Hands over a record; False: it did not arrive, and is dropped; `Away`: try again."""
        raise NotImplementedError

    def send(self, record: Mapping[str, Any]) -> None:
        """Takes a record; never waits."""
        text = encode(record)
        with self._changed:
            if self._closing.is_set():
                self.dropped += 1
            elif record.get("type") == "status":
                self._status = text
            else:
                if len(self._waiting) == SIZE:
                    self._waiting.popleft()
                    self.dropped += 1
                self._waiting.append((str(record.get("type")), text))
            self._changed.notify_all()

    def warn(self, text: str) -> None:
        """Prints a line about the receiver, unless it says what the last one said.

        The text may come from the receiver: what cannot be seen is written out, and it is cut.
        """
        if text != self._warned:
            self._warned = text
            tell("warning", f"{self._name}: {one_line(text, _MAX_SAID)}")

    def is_over(self) -> bool:
        """Whether the time is up that `close` leaves for what is still waiting."""
        return time.monotonic() >= self._deadline

    def close(self, timeout: float = 5) -> None:
        """Delivers what waits, for so many seconds at most; the rest is dropped and counted."""
        with self._changed:
            self._deadline = time.monotonic() + timeout
            self._closing.set()
            self._changed.notify_all()
        self._thread.join(timeout + 0.5)
        with self._changed:
            self.dropped += len(self._waiting) + (self._status is not None) + self._under_way
            self._waiting.clear()
            self._status, self._under_way = None, False
        if self.dropped:
            self.warn(f"{self.dropped} records did not arrive")

    def _work(self) -> None:
        while (item := self._next()) is not None:
            try:
                arrived = self._deliver(*item)
            except Exception as error:  # the records after this one have to go on
                self.warn(f"{type(error).__name__}: {error}")
                arrived = False
            with self._changed:
                self.dropped += self._under_way and not arrived
                self._under_way = False
            if arrived:
                self._warned = None

    def _deliver(self, kind: str, text: bytes) -> bool:
        pause = FIRST_PAUSE
        while True:
            is_last = self._closing.is_set()  # one more, as the receiver may be back since
            try:
                return self._attempt(kind, text)
            except Away as error:
                self.warn(f"{error}; goes on trying")
            if is_last or self.is_over():
                return False
            self._closing.wait(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)

    def _next(self) -> tuple[str, bytes] | None:
        with self._changed:
            while True:
                if self.is_over():
                    return None
                self._under_way = bool(self._waiting) or self._status is not None
                if self._waiting:
                    return self._waiting.popleft()
                if self._status is not None:
                    text, self._status = self._status, None
                    return "status", text
                if self._closing.is_set():
                    return None
                self._changed.wait()


def reason(error: Exception) -> str:
    """Says why a receiver is away."""
    if isinstance(error, TimeoutError):
        return f"has not answered within {TIMEOUT:g} s"
    return str(error) or type(error).__name__


def encode(record: Mapping[str, Any]) -> bytes:
    """Returns a record as JSON in UTF-8."""
    text = json.dumps(record, ensure_ascii=False)
    return text.encode("utf-8", "replace")  # names of files may hold what is no Unicode
