"""The process of the page at the work station, which `serve.Page` starts.

It is told what to show, and asks for what it needs, by messages over a channel: bytes whose first
one is their kind. It ends with the process that has started it, and is nicer than it.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import signal
import socket
import sys
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

from stormpsr_jax.live.access import Access, Address
from stormpsr_jax.live.page_messages import BACKLOG, END, STARTED, say

_AT_ONCE = 32  # that are taken in one round of the loop
_NICE = 10
_MAX_CONNECTIONS = 200
_DESCRIPTORS = 32  # of the process itself
_MAX_HEAD = 16_384  # bytes of a request's


def main() -> None:
    """Serves until the channel says that it is the end, or has none."""
    # Those who send a signal to all processes mean the other one, which ends this one.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    os.nice(_NICE)
    channel, listening = Connection(int(sys.argv[1])), socket.socket(fileno=int(sys.argv[2]))
    setup = json.loads(channel.recv_bytes())
    address = Address(*setup["address"])
    server = _Server(listening, setup["title"], Access(address, setup["token"]), channel.send_bytes)
    try:
        channel.send_bytes(STARTED)
        while (message := channel.recv_bytes())[:1] != END:
            server.take(message)
    except (OSError, EOFError):  # nobody needs the page any more
        os._exit(0)
    server.close()


class _Server:
    """Runs in a thread, as uvicorn would handle signals in the main one."""

    def __init__(
        self, listening: socket.socket, title: str, access: Access, say: Callable[[bytes], None]
    ):
        self._socket, self._title, self._access, self._say = listening, title, access, say
        self._started, self._closing = threading.Event(), False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        self._started.wait()

    def take(self, message: bytes) -> None:
        self._loop.call_soon_threadsafe(self._watchers.take, message[:1], message[1:])

    def close(self) -> None:
        self._closing = True
        self._loop.call_soon_threadsafe(self._end)
        self._thread.join(2)

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except Exception as error:
            say(f"{type(error).__name__}: {error}")
        if not self._closing:
            os._exit(1)  # the main thread would go on without a server

    async def _serve(self) -> None:
        import uvicorn

        from stormpsr_jax.live.connections import Connections, bounded
        from stormpsr_jax.live.watchers import Watchers

        self._loop = asyncio.get_running_loop()
        connections = Connections(_most())
        self._loop.set_exception_handler(_one_line)
        self._watchers = Watchers(self._title, self._access, connections, self._say)
        self._server = uvicorn.Server(
            uvicorn.Config(
                self._watchers.app,
                http=bounded(connections),
                h11_max_incomplete_event_size=_MAX_HEAD,
                ws="none",
                lifespan="off",
                log_config=None,
                log_level="critical",
                access_log=False,
                server_header=False,
                proxy_headers=False,
                backlog=_AT_ONCE,  # which asyncio makes the one number too
                timeout_graceful_shutdown=1,
            )
        )
        serving = asyncio.ensure_future(self._server.serve([self._socket]))
        while not (self._server.started or serving.done()):
            await asyncio.sleep(0.005)
        self._socket.listen(BACKLOG)
        self._started.set()
        await serving

    def _end(self) -> None:
        self._server.should_exit = True
        self._watchers.end()


def _most() -> int:
    """How many connections there may be, by the limit on open files, which is raised if it can be.

    Besides them, the loop may have taken those of four rounds that it has still to close.
    """
    others = _DESCRIPTORS + 4 * _AT_ONCE
    wanted = others + _MAX_CONNECTIONS
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(hard, wanted)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        return max(1, soft - others)
    return _MAX_CONNECTIONS


def _one_line(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """In place of the tracebacks of asyncio."""
    error = context.get("exception")
    say(context["message"] + (f" ({type(error).__name__}: {error})" if error else ""))


if __name__ == "__main__":
    main()
