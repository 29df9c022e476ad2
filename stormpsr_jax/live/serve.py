"""The page at the work station: ``recognise --serve``. Needs starlette and uvicorn (extra `live`).

Recognition hands over what is to be seen and never waits: `Page.frame` and `Page.send` keep what
they are given and wake a thread, which passes it on to a process of the page's own
(`page_process`). So whatever comes over the network takes neither descriptors nor memory of
recognition, and cannot end it. A page whose process has died is started again, with what it has to
show.

A picture is encoded once, by recognition, and only if the page wants one.

The `view` of `Page.frame` is a dict of plain values for JSON, a new one each time; all keys are
optional:

* "recording" (text) and "time_s" (seconds since its first frame);
* "unit" (its number) and "waiting": whether the unit before it, which is finished, has still to be
  taken away;
* "fits": whether the pictures fit the model, or None; "holding": whether steps are held back until
  that is known;
* "source": "opening", "live", "lost" or "ended", the state of the camera;
* "checklist": [{"step_id", "name", "status", "time_s"}], in order; the status is "done", "next",
  "open", "missing" or "wrong", the time that of its completion, or None;
* "beliefs": [{"component", "right", "wrong"}], how likely (0…1) it sits right, and wrong;
* "box": {"x0", "y0", "x1", "y1", "label", "error"} or None: corners in 0…1 of the picture, and
  whether it is an error state; counts where there is a picture;
* "latency_ms", "fps" and "dropped" (frames): numbers or None.
"""

from __future__ import annotations

import collections
import dataclasses
import errno
import importlib.util
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection
from typing import Any

from stormpsr_jax.base import installed
from stormpsr_jax.live import page_messages, page_process
from stormpsr_jax.live.access import Access, Address
from stormpsr_jax.live.outbox import encode

_UNSEEN = 1.0  # seconds between pictures while nobody asks: the last one is what is seen at first
_KEPT = 500  # records, for watchers that were away
_MAX_BOX = 2000  # bytes
_TAKEN = 2.0  # seconds for which the page of a process that was just killed may have the address
_START = 60.0  # seconds in which the process has to start
_PAUSES = (0.5, 1.0, 2.0, 4.0, 8.0)  # seconds before it is started again; the last one from then on
_LASTED = 60.0  # seconds after which a process that dies counts as the first one


class Page:
    """Serves the page of one work station.

    Attributes:
        url: where it is.
    """

    def __init__(
        self,
        address: Address,
        *,
        title: str,
        on_reset: Callable[[], None],
        token: str | None = None,
    ):
        """Starts the server.

        Args:
            address: where to listen; see `access.parse`.
            title: of the page: the procedure and its variant, for people.
            on_reset: called when somebody asks for the next unit, in a thread of the page's; has to
                return at once, as `threading.Event.set` does.
            token: that watchers need; see `access.read_token`.

        Raises:
            ValueError: the address cannot be had, or needs a token, a library is missing, or the
                process cannot be started.
        """
        missing = [m for m in ("starlette", "uvicorn") if importlib.util.find_spec(m) is None]
        if missing:
            raise ValueError(f"--serve needs {missing[0]}: {installed.extra('live')}")
        Access(address, token)
        self._socket = _listening(address)
        address = Address(address.host, self._socket.getsockname()[1])
        self.url = f"http://{address}/"
        # By the channel, as everybody on a machine can see the words of a command.
        self._setup = json.dumps({"address": address, "title": title, "token": token}).encode()
        self._on_reset = on_reset
        self._warned = False
        self._changed = threading.Condition()  # of all of these
        self._records: collections.deque[bytes] = collections.deque(maxlen=_KEPT)
        self._state = _Shown()
        self._picture_at = -_UNSEEN
        self._closing = False
        # Of the process at hand: its channel, whether it takes a frame now, the pictures that it
        # was sent, whether somebody waits for one after these, and the last one.
        self._channel: Connection | None = None
        self._takes = self._wanted = False
        self._num_pictures = 0
        self._sent_picture: tuple[bytes, Any] | None = None
        try:
            self._process = self._start()
        except OSError as error:
            self._socket.close()
            raise ValueError(f"--serve={address}: the page cannot be started ({error})") from error
        self._thread = threading.Thread(target=self._watch, name="page", daemon=True)
        self._thread.start()

    def send(self, record: Mapping[str, Any]) -> None:
        """Shows a record; never waits and never raises."""
        if (text := encode(record)) is None:
            self._warn("a record")
            return
        with self._changed:
            if record.get("type") == "status":
                self._state.status = text
            else:
                self._records.append(text)
                self._state.num_records += 1
            self._changed.notify_all()

    @property
    def wants_picture(self) -> bool:
        """Whether a picture given now would be seen: somebody waits for one, and none is coming."""
        if self._state.picture is not self._sent_picture:
            return False
        return self._wanted or time.monotonic() > self._picture_at + _UNSEEN

    def frame(self, jpeg: bytes | None, view: Mapping[str, Any]) -> None:
        """Shows a picture (None: the last one) and what is known now; never waits or raises."""
        with self._changed:
            if jpeg is not None:
                self._state.picture = jpeg, view.get("box")
                self._picture_at = time.monotonic()
            self._state.view = view
            self._changed.notify_all()

    def close(self, timeout: float = 3) -> None:
        """Ends the server, and the connections of its watchers, within so many seconds."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join(timeout)
        if self._thread.is_alive():
            self._process.kill()
            self._thread.join(1)
        self._socket.close()

    def _warn(self, what: str) -> None:
        if not self._warned:
            self._warned = True
            page_messages.say(f"{what} holds what JSON has not")

    # --- The process ------------------------------------------------------------------------------

    def _start(self) -> subprocess.Popen:
        """Starts the process and the thread that tells it things; OSError if it does not start."""
        ours, theirs = socket.socketpair()
        fds = theirs.fileno(), self._socket.fileno()
        # No secret of the environment is needed there, and the modules are those of this process.
        environment = {k: v for k, v in os.environ.items() if not k.startswith("STORMPSR_")}
        environment["PYTHONPATH"] = os.pathsep.join(map(os.path.abspath, sys.path))
        channel = Connection(ours.detach())
        try:
            with theirs:
                process = subprocess.Popen(
                    [sys.executable, "-P", "-m", page_process.__name__, *map(str, fds)],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,  # the lines of recognition are on this process's
                    pass_fds=fds,
                    env=environment,
                    start_new_session=True,  # Ctrl-C is for recognition, which ends it then
                )
        except OSError:
            channel.close()
            raise
        try:
            channel.send_bytes(self._setup)
            if not channel.poll(_START):
                raise OSError(f"it has said nothing for {_START:.0f} s")
            channel.recv_bytes(page_messages.MAX_ANSWER)
        except (OSError, EOFError) as error:
            channel.close()
            process.kill()
            status = process.wait()
            raise OSError(str(error) or f"it has ended with status {status}") from error
        with self._changed:
            self._channel, self._takes, self._wanted = channel, True, False
            self._num_pictures = 0
        self._telling = threading.Thread(
            target=self._tell, args=(channel,), name="page", daemon=True
        )
        self._telling.start()
        return process

    def _watch(self) -> None:
        """Hears what the process says, and starts it again when it has died."""
        failures, began, trouble = 0, time.monotonic(), ""
        while True:
            if (channel := self._channel) is not None:
                self._hear(channel)
                self._process.kill()  # without its channel it is of no use
                trouble = f"its process has ended with status {self._process.wait()}"
                self._telling.join()  # which can write no more: nobody reads
                channel.close()
                failures = 0 if time.monotonic() > began + _LASTED else failures
            pause = _PAUSES[min(failures, len(_PAUSES) - 1)]
            failures += 1
            with self._changed:
                if not self._closing:
                    page_messages.say(
                        f"{trouble}; recognition goes on, and the page begins again in {pause} s"
                    )
                if self._changed.wait_for(lambda: self._closing, pause):
                    return
            began = time.monotonic()
            try:
                self._process = self._start()
            except OSError as error:
                trouble = f"the page cannot be started ({error})"

    def _hear(self, channel: Connection) -> None:
        """Does what a process asks for, until it ends."""
        try:
            while True:
                message = channel.recv_bytes(page_messages.MAX_ANSWER)
                if message == page_messages.RESET:
                    self._on_reset()
                with self._changed:
                    self._takes |= message == page_messages.TAKES
                    self._wanted |= message == page_messages.WANTED % self._num_pictures
                    self._changed.notify_all()
        except (OSError, EOFError):
            with self._changed:
                self._channel = None
                self._changed.notify_all()

    def _tell(self, channel: Connection) -> None:
        """Tells a process all that there is, and then what comes, until it or the page ends."""
        shown = _Shown()

        def has_news() -> bool:
            if self._closing or self._channel is not channel:
                return True
            now = self._state
            framed = now.view is not shown.view or now.picture is not shown.picture
            records = now.num_records > shown.num_records or now.status is not shown.status
            return records or (self._takes and framed)

        text = None
        while True:
            with self._changed:
                self._changed.wait_for(has_news)
                if self._channel is not channel:
                    return
                closing, now = self._closing, dataclasses.replace(self._state)
                missed = min(now.num_records - shown.num_records, len(self._records))
                records = list(self._records)[len(self._records) - missed :]
                if not (self._takes or closing):
                    now.view, now.picture = shown.view, shown.picture
                elif now.picture is not shown.picture:
                    self._sent_picture, self._wanted = now.picture, False
                    self._num_pictures += 1
            messages = [page_messages.RECORD + record for record in records]
            if now.status is not None and now.status is not shown.status:
                messages.append(page_messages.STATUS + now.status)
            if now.view is not None and now.view is not shown.view:
                new = self._encoded(now.view)
                if new is not None and new != text:
                    text = new
                    messages.append(page_messages.VIEW + new)
            if now.picture is not None and now.picture is not shown.picture:
                messages.append(page_messages.PICTURE + self._with_box(*now.picture))
            if messages and messages[-1][:1] in page_messages.FRAMES:
                with self._changed:
                    self._takes = False  # until it says so again
            shown = now
            try:
                for message in messages:
                    channel.send_bytes(message)
                if closing:
                    channel.send_bytes(page_messages.END)
                    return
            except OSError:
                return  # `_hear` notices it too

    def _encoded(self, view: Mapping[str, Any]) -> bytes | None:
        text = encode({key: value for key, value in view.items() if key != "box"})
        if text is None:
            self._warn("a view")
        return text

    def _with_box(self, jpeg: bytes, box: Mapping[str, Any] | None) -> bytes:
        """A line with the box, as JSON in ASCII, and the picture.

        A box whose label is too long for a header is left out.
        """
        if encode({"box": box}) is None:
            self._warn("a view")
            box = None
        line = json.dumps(box)
        return (line if len(line) <= _MAX_BOX else "null").encode() + b"\n" + jpeg


@dataclasses.dataclass
class _Shown:
    """What is shown: the number of records, the last status, a view, a JPEG and the box in it."""

    num_records: int = 0
    status: bytes | None = None
    view: Mapping[str, Any] | None = None
    picture: tuple[bytes, Any] | None = None


def _listening(address: Address) -> socket.socket:
    """Opens the address; ValueError if it cannot be had."""
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    end = time.monotonic() + _TAKEN
    while True:
        try:
            return socket.create_server(address, family=family, backlog=page_messages.BACKLOG)
        except OSError as error:
            # The page of a process that was killed just now ends by itself.
            if error.errno != errno.EADDRINUSE or time.monotonic() > end:
                why = error.strerror or error
                raise ValueError(f"--serve={address}: cannot be opened ({why})") from error
        time.sleep(0.05)
