"""The process of the page at the work station, which `serve.Page` starts.

It is told what to show, and asks for what it needs, by messages over a channel: bytes whose first
one is their kind. It ends with the process that has started it, and is nicer than it.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
import threading
from multiprocessing.connection import Connection
from typing import Any

from stormpsr_jax.live.access import Access, Address
from stormpsr_jax.live.page_messages import END, STARTED, say

_NICE = 10
_MAX_CONNECTIONS = 200  # more are answered with status 503
_MAX_HEAD = 16_384  # bytes of a request's


def main() -> None:
    """Serves until the channel says that it is the end, or has none."""
    os.nice(_NICE)
    channel, listening = Connection(int(sys.argv[1])), socket.socket(fileno=int(sys.argv[2]))
    setup = json.loads(channel.recv_bytes())
    access = Access(Address(*setup["address"]), setup["token"])
    try:
        asyncio.run(_serve(channel, listening, setup["title"], access))
    except Exception as error:
        say(f"{type(error).__name__}: {error}")
        sys.exit(1)


async def _serve(channel: Connection, listening: socket.socket, title: str, access: Access) -> None:
    import uvicorn

    from stormpsr_jax.live.watchers import Watchers

    loop = asyncio.get_running_loop()
    watchers = Watchers(title, access, channel.send_bytes)
    server = uvicorn.Server(
        uvicorn.Config(
            watchers.app,
            http="h11",
            h11_max_incomplete_event_size=_MAX_HEAD,
            limit_concurrency=_MAX_CONNECTIONS,
            ws="none",
            lifespan="off",
            log_config=None,
            log_level="critical",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=1,
        )
    )
    told: set[str] = set()

    def tell_once(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """In place of the tracebacks of asyncio."""
        if (message := context["message"]) not in told:
            told.add(message)
            say(f"{message} ({context.get('exception')})")

    def end() -> None:
        watchers.end()
        server.should_exit = True

    def listen() -> None:
        try:
            while (message := channel.recv_bytes()) != END:
                loop.call_soon_threadsafe(watchers.take, message[:1], message[1:])
            loop.call_soon_threadsafe(end)
        except (OSError, EOFError):  # nobody needs the page any more
            os._exit(0)

    loop.set_exception_handler(tell_once)
    channel.send_bytes(STARTED)
    threading.Thread(target=listen, daemon=True).start()
    await server.serve([listening])


if __name__ == "__main__":
    main()
