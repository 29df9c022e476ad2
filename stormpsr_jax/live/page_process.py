"""The process of the page at the work station, which `serve.Page` starts, and what it answers.

It is told what to show, and asks for what it needs, by messages over a channel: bytes whose first
one is their kind. It ends with the process that has started it, and is nicer than it. Watchers ask
for

* GET /: the page.
* GET /picture?after=ID: the next JPEG, its ID in the header Picture and its box in the header Box;
  204 where there is no new one for long. A slow watcher sees fewer of them.
* GET /events?after=ID: server-sent events. "hello"; "record", what `Page.send` was given, with an
  ID after which a watcher goes on when it comes again; "view"; "beat".
* GET /past: today's units as JSON, the one at hand last. GET /snapshot?frame=N: the JPEG of an
  event's frame; 404 where it is not kept any more.
* POST /reset, and POST /confirm?step=ID (3k: component k is right, 3k + 1: it is incorrect).
* POST /login with the token, where one is needed.
"""

import asyncio
import collections
import contextlib
import json
import os
import re
import secrets
import socket
import sys
import threading
import urllib.parse
from collections.abc import AsyncIterator, Callable, Mapping
from multiprocessing.connection import Connection
from typing import Any

from sse_starlette import ServerSentEvent
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route, Router
from starlette.types import ASGIApp

from stormpsr_jax.live import serve
from stormpsr_jax.pages import web
from stormpsr_jax.pages.access import Access, Address
from stormpsr_jax.report import pages

_NICE = 10
_BEAT = 5  # seconds after which a watcher hears something in any case
_WAIT = 20  # seconds until a request for a picture ends without one
_MAX_FORM = 4096  # bytes
_STEP = re.compile(r"[0-9]{1,6}", re.ASCII)
_ID = re.compile(r"[0-9a-f]{8}-[0-9]{1,15}", re.ASCII)


def main() -> None:
    """Serves until the channel says that it is the end, or has none."""
    os.nice(_NICE)
    channel, listening = Connection(int(sys.argv[1])), socket.socket(fileno=int(sys.argv[2]))
    setup = json.loads(channel.recv_bytes())
    access = Access(Address(*setup["address"]), setup["token"])
    try:
        asyncio.run(_serve(channel, listening, setup, access))
    except Exception as error:
        serve.say(f"{type(error).__name__}: {error}")
        sys.exit(1)


async def _serve(
    channel: Connection, listening: socket.socket, setup: Mapping[str, Any], access: Access
) -> None:
    loop = asyncio.get_running_loop()
    watchers = _Watchers(setup, access, channel.send_bytes)
    server = web.server(watchers.app)
    told: set[str] = set()

    def tell_once(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """In place of the tracebacks of asyncio."""
        if (message := context["message"]) not in told:
            told.add(message)
            serve.say(f"{message} ({context.get('exception')})")

    def end() -> None:
        watchers.end()
        server.should_exit = True

    def listen() -> None:
        try:
            while (message := channel.recv_bytes()) != serve.END:
                loop.call_soon_threadsafe(watchers.take, message[:1], message[1:])
            loop.call_soon_threadsafe(end)
        except (OSError, EOFError):  # nobody needs the page any more
            os._exit(0)

    loop.set_exception_handler(tell_once)
    channel.send_bytes(serve.STARTED)
    threading.Thread(target=listen, daemon=True).start()
    await server.serve([listening])


class _Watchers:
    """Answers all watchers, who keep nothing, but ask here; used in the server's thread alone."""

    def __init__(self, setup: Mapping[str, Any], access: Access, say: Callable[[bytes], None]):
        """`say` tells the recognition what is asked of it."""
        self._title, self._access, self._say = setup["title"], access, say
        self._start = secrets.token_hex(4)  # tells this server from the one before a restart
        self._records = collections.deque[tuple[int, str]](maxlen=serve.KEPT[serve.RECORD])
        # The newest of the other kinds.
        self._newest = {serve.PAST: b'{"units": []}', serve.STATUS: b"", serve.VIEW: b""}
        self._jpeg, self._box = b"", "null"
        self._snapshots: dict[str, bytes] = {}  # by the number of the frame, the oldest first
        self._num_records = self._num_pictures = 0
        self._asked = self._closing = False
        self._news = asyncio.Event()  # set once, when there is some; then there is another one
        self.app = self._app()

    def take(self, kind: bytes, content: bytes) -> None:
        """Takes what recognition tells."""
        if kind == serve.RECORD:
            self._num_records += 1
            self._records.append((self._num_records, content.decode()))
        elif kind == serve.SNAPSHOT:
            frame, _, jpeg = content.partition(b"\n")
            self._snapshots[frame.decode("ascii")] = jpeg
            if len(self._snapshots) > serve.KEPT[serve.SNAPSHOT]:
                self._snapshots.pop(next(iter(self._snapshots)))
        elif kind == serve.PICTURE:
            box, _, self._jpeg = content.partition(b"\n")
            self._box = box.decode("ascii")
            self._num_pictures += 1
            self._asked = False
        else:
            self._newest[kind] = content
        self._wake()

    def end(self) -> None:
        """Ends all answers that wait for something."""
        self._closing = True
        self._wake()

    def _wake(self) -> None:
        self._news.set()
        self._news = asyncio.Event()

    def _app(self) -> ASGIApp:
        routes = [
            Route("/", self._get_page),
            Route("/picture", self._get_picture),
            Route("/events", self._get_events),
            Route("/past", self._get_past),
            Route("/snapshot", self._get_snapshot),
            Route("/reset", self._post_action, methods=["POST"]),
            Route("/confirm", self._post_action, methods=["POST"]),
            Route("/login", self._post_login, methods=["POST"]),
            Route("/station.css", _file("station.css", "text/css")),
            Route("/station.js", _file("station.js", "text/javascript")),
        ]
        # Its own redirects would lead wherever the header Host says.
        router = Router(routes, redirect_slashes=False)
        for_all = ("/login", "/station.css")
        return web.guarded(router, self._access, self._for_a_stranger, for_all=for_all)

    def _for_a_stranger(self, request: Request) -> Response:
        if request.url.path == "/" and request.method == "GET":
            return self._login_page()
        return PlainTextResponse("needs the token\n", 401)

    def _login_page(self, failed: bool = False) -> Response:
        page = pages.template("station_login.html").render(title=self._title, failed=failed)
        return HTMLResponse(page, 401)

    async def _get_page(self, request: Request) -> Response:
        return HTMLResponse(pages.template("station.html").render(title=self._title))

    async def _post_login(self, request: Request) -> Response:
        form: dict[str, str] = {}
        with contextlib.suppress(ValueError):  # it is too long
            body = await web.body(request, _MAX_FORM)
            form = dict(urllib.parse.parse_qsl(body.decode("latin-1")))
        if not self._access.is_token(form.get("token", "").strip()):
            await asyncio.sleep(1)
            return self._login_page(failed=True)
        # Behind a proxy with TLS only the browser knows. `Access` has compared the rest.
        secure = request.headers["origin"].startswith("https://")
        return web.let_in(RedirectResponse("./", 303), self._access, secure=secure)

    async def _post_action(self, request: Request) -> Response:
        message, step = serve.RESET, request.query_params.get("step", "")
        if request.url.path == "/confirm":
            if not _STEP.fullmatch(step):
                return PlainTextResponse("step is not the ID of an installation\n", 400)
            message = serve.CONFIRM + step.encode()
        self._say(message)
        return PlainTextResponse("recognition has been told\n", 202)

    async def _get_picture(self, request: Request) -> Response:
        after = request.query_params.get("after", "")
        if after and not _ID.fullmatch(after):
            return PlainTextResponse("after is not the ID of a picture\n", 400)
        try:
            async with asyncio.timeout(_WAIT):
                while not (self._jpeg and after != f"{self._start}-{self._num_pictures}"):
                    if self._closing:
                        return Response(status_code=204)
                    if not self._asked:
                        self._asked = True
                        self._say(serve.WANTED)
                    await self._news.wait()
        except TimeoutError:
            return Response(status_code=204)
        headers = {"Picture": f"{self._start}-{self._num_pictures}", "Box": self._box}
        return Response(self._jpeg, headers=headers, media_type="image/jpeg")

    async def _get_past(self, request: Request) -> Response:
        return Response(self._newest[serve.PAST], media_type="application/json")

    async def _get_snapshot(self, request: Request) -> Response:
        jpeg = self._snapshots.get(request.query_params.get("frame", ""))
        if jpeg is None:
            return PlainTextResponse("there is no such picture\n", 404)
        return Response(jpeg, media_type="image/jpeg")

    async def _get_events(self, request: Request) -> Response:
        after = request.headers.get("last-event-id") or request.query_params.get("after", "")
        return web.events(self._stream(after), _BEAT, lambda: web.event("0", "beat"))

    async def _stream(self, after: str) -> AsyncIterator[ServerSentEvent]:
        start, _, number = after.partition("-")
        at = int(number) if _ID.fullmatch(after) and start == self._start else 0
        newest = {serve.STATUS: b"", serve.VIEW: b""}
        hello = {"start": self._start, "title": self._title}
        yield web.event(json.dumps(hello), "hello")
        while True:
            news = self._news
            for number_of, text in [item for item in self._records if item[0] > at]:
                at = number_of
                yield web.event(text, "record", f"{self._start}-{number_of}")
            for kind, name in ((serve.STATUS, "record"), (serve.VIEW, "view")):
                if self._newest[kind] != newest[kind]:
                    newest[kind] = self._newest[kind]
                    yield web.event(newest[kind].decode(), name)
            if self._closing:  # after the last news, such as that a file has ended
                return
            await news.wait()


def _file(name: str, kind: str) -> Callable[[Request], Response]:
    return lambda request: Response(pages.template(name).render(), media_type=kind)


if __name__ == "__main__":
    main()
