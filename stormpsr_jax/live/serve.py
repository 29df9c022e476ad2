"""The page at the work station: ``recognise --serve``. Needs the extra `live`.

Recognition hands over what is to be seen and never waits: a thread passes it on to a process of the
page's own (`page_process`). So whatever comes over the network takes neither descriptors nor memory
of recognition, and cannot end it. A page whose process has died is started again, with what it has
to show.
"""

import collections
import contextlib
import itertools
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.connection import Connection
from typing import Any

from stormpsr_jax.base import installed
from stormpsr_jax.base.errors import tell
from stormpsr_jax.live.receivers import encode
from stormpsr_jax.pages.access import LIBRARIES, Access, Address, listening

# What the process is told. After the kind: JSON; of a picture its box as JSON, a line, the JPEG.
# Today's units as JSON; of an event the number of its frame, a line, its JPEG.
RECORD, STATUS, VIEW, PICTURE, END, PAST, SNAPSHOT = (bytes([c]) for c in b"rsvpeun")
# How many of a kind are kept, for watchers that were away; of the others the newest one. Those of
# snapshots have some ten MiB.
KEPT = {RECORD: 500, SNAPSHOT: 300}
# What it says: it has started; the next unit is to begin; somebody waits for a picture; somebody
# has confirmed a step, whose id comes behind it.
STARTED, RESET, WANTED, CONFIRM = b"started", b"reset", b"wanted", b"confirm "
_PROCESS = "stormpsr_jax.live.page_process"
_UNSEEN = 1.0  # seconds between pictures while nobody asks: the last one is what is seen at first
_INTERVAL = 0.1  # seconds between what the process is told, if it says nothing
_START = 60.0  # seconds in which the process has to start
_PAUSE = 1.0  # seconds before it is started again
_MAX_ANSWER = 32  # bytes of what the process says


class Page:
    """Serves the page of one work station."""

    def __init__(
        self,
        address: Address,
        *,
        title: str,
        on_reset: Callable[[], None],
        on_confirm: Callable[[int], None],
        token: str | None = None,
    ):
        """Starts the server.

        Args:
            on_reset: called when somebody asks for the next unit, in a thread of the page's; has to
                return at once.
            on_confirm: likewise, with the id of a step that somebody has confirmed.

        Raises:
            ValueError: the address cannot be had, or needs a token, a library is missing, or the
                process cannot be started.
        """
        installed.check_extra("live", LIBRARIES, "--serve")
        Access(address, token)
        self._socket = listening(address, f"--serve={address}")
        address = Address(address.host, self._socket.getsockname()[1])
        self.url = f"http://{address}/"
        # By the channel, as everybody on a machine can see the words of a command.
        setup = {"address": address, "title": title, "token": token}
        self._setup = json.dumps(setup).encode()
        self._on_reset, self._on_confirm = on_reset, on_confirm
        self._lock = threading.Lock()  # of what is shown
        # What is shown, by kind, each with the number of what it was told as.
        self._shown: dict[bytes, collections.deque[tuple[int, bytes]]] = {}
        self._count = 0
        self._picture_at = -_UNSEEN
        self._wanted, self._closing = False, threading.Event()
        try:
            self._start()
        except OSError as error:
            self._socket.close()
            raise ValueError(f"--serve={address}: the page cannot be started ({error})") from error
        self._thread = threading.Thread(target=self._keep_up, name="page", daemon=True)
        self._thread.start()

    def send(self, record: Mapping[str, Any]) -> None:
        """Shows a record; never waits."""
        self._show(STATUS if record.get("type") == "status" else RECORD, encode(record))

    @property
    def wants_picture(self) -> bool:
        """Whether a picture given now would be seen, or the last one is old."""
        return self._wanted or time.monotonic() > self._picture_at + _UNSEEN

    def frame(self, jpeg: bytes | None, view: Mapping[str, Any]) -> None:
        """Shows a picture (None: the last one) and what `Screen.show` knows now; never waits."""
        self._show(VIEW, encode({key: value for key, value in view.items() if key != "box"}))
        if jpeg is not None:
            self._wanted, self._picture_at = False, time.monotonic()
            self._show(PICTURE, json.dumps(view.get("box")).encode() + b"\n" + jpeg)

    def past(self, units: Sequence[Mapping[str, Any]]) -> None:
        """Shows today's units, the one at hand last; never waits."""
        self._show(PAST, encode({"units": units}))

    def snapshot(self, frame: int, jpeg: bytes) -> None:
        """Takes the picture of a frame with an event; never waits."""
        self._show(SNAPSHOT, b"%d\n%s" % (frame, jpeg))

    def close(self, timeout: float = 3) -> None:
        """Ends the server, and the connections of its watchers, within so many seconds."""
        self._closing.set()
        self._thread.join(timeout)
        if self._thread.is_alive():
            self._process.kill()
            self._thread.join(1)
        self._socket.close()

    def _show(self, kind: bytes, content: bytes) -> None:
        with self._lock:
            self._count += 1
            kept = self._shown.setdefault(kind, collections.deque(maxlen=KEPT.get(kind, 1)))
            kept.append((self._count, kind + content))

    # --- The process ------------------------------------------------------------------------------

    def _start(self) -> None:
        ours, theirs = socket.socketpair()
        fds = theirs.fileno(), self._socket.fileno()
        # No secret of the environment is needed there, and the modules are those of this process.
        environment = {k: v for k, v in os.environ.items() if not k.startswith("STORMPSR_")}
        environment["PYTHONPATH"] = os.pathsep.join(map(os.path.abspath, sys.path))
        channel = Connection(ours.detach())
        try:
            with theirs:
                self._process = subprocess.Popen(
                    [sys.executable, "-P", "-m", _PROCESS, *map(str, fds)],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,  # the lines of recognition are on this process's
                    pass_fds=fds,
                    env=environment,
                    start_new_session=True,  # Ctrl-C is for recognition, which ends it then
                )
            channel.send_bytes(self._setup)
            if not channel.poll(_START):
                raise OSError(f"it has said nothing for {_START:.0f} s")
            channel.recv_bytes(_MAX_ANSWER)
        except (OSError, EOFError) as error:
            channel.close()  # with which the process ends
            raise OSError(str(error) or "it has ended at once") from error
        self._channel = channel

    def _keep_up(self) -> None:
        """Starts the process again when it has died."""
        trouble = self._talk()
        while not self._closing.is_set():
            say(f"{trouble}; recognition goes on, and the page begins again in {_PAUSE} s")
            if self._closing.wait(_PAUSE):
                return
            try:
                self._start()
                trouble = self._talk()
            except OSError as error:
                trouble = f"the page cannot be started ({error})"

    def _talk(self) -> str:
        """Tells the process all that there is, and then what comes, and hears it, until it ends.

        Returns why it has ended.
        """
        channel, told = self._channel, 0
        with contextlib.suppress(OSError, EOFError), channel:
            closing = False
            while not closing:
                closing = self._closing.is_set()
                with self._lock:
                    shown = itertools.chain.from_iterable(self._shown.values())
                    news = sorted(item for item in shown if item[0] > told)
                    told = self._count
                for _, message in news:
                    channel.send_bytes(message)
                if closing or not channel.poll(_INTERVAL):
                    continue
                asked = channel.recv_bytes(_MAX_ANSWER)
                if asked == RESET:
                    self._on_reset()
                elif asked == WANTED:
                    self._wanted = True
                elif asked.startswith(CONFIRM):
                    self._on_confirm(int(asked.removeprefix(CONFIRM)))
            channel.send_bytes(END)
            while channel.recv_bytes(_MAX_ANSWER):
                continue  # until its watchers have all news, and it ends
        self._process.kill()  # without its channel it is of no use
        return f"its process has ended with status {self._process.wait()}"


def say(text: str) -> None:
    """Prints a warning of the page's."""
    tell("warning", f"--serve: {text}")
