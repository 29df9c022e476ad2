"""What the page at the work station answers; runs in its process (`page_process`).

Watchers ask for the next picture when they have shown the last one, so that a slow one sees fewer
of them; the more there are, the fewer each gets. They ask for

* GET /: the page.
* GET /picture?after=ID: the next JPEG, its ID in the header Picture and its box in the header Box;
  204 where there is no new one for long.
* GET /events?after=ID: server-sent events. "hello"; "record", what `Page.send` was given, with an
  ID after which a watcher goes on when it comes again; "view"; "beat".
* POST /reset with the header Reset-Token of "hello".
* POST /login with the token, where one is needed.

Who may do what is decided by the path that was asked for, as the server has it, and by nothing that
the header Host could bend.
"""

from __future__ import annotations

import asyncio
import collections
import json
import re
import secrets
import urllib.parse
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Any

from stormpsr_jax.live import page_messages
from stormpsr_jax.live.access import HEADERS, Access
from stormpsr_jax.live.connections import Connections
from stormpsr_jax.report import pages

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

_INTERVAL = 0.1  # seconds between pictures, at least
_INTERVAL_EACH = 0.01  # at least so many times the watchers: 100 pictures a second, all together
_BURST = 200  # pictures that may go out at once, before that rate counts
_KEPT = 500  # records, for watchers that were away
_BEAT = 5  # seconds after which a watcher hears something in any case
_WAIT = 20  # seconds until a request for a picture ends without one
_MAX_FORM = 4096  # bytes
_ID = re.compile(r"[0-9a-f]{8}-[0-9]{1,15}", re.ASCII)


class Watchers:
    """Answers all watchers; used in the server's thread alone.

    Attributes:
        app: what answers, for an ASGI server.
    """

    def __init__(
        self,
        title: str,
        access: Access,
        connections: Connections,
        say: Callable[[bytes], None],
    ):
        """`say` tells the recognition what is asked of it, see `page_process`."""
        self._title, self._access, self._connections, self._say = title, access, connections, say
        self._reset_token = secrets.token_urlsafe()
        self._board = _Board()
        self._loop = asyncio.get_running_loop()
        self._closing = self._pausing = self._asked = False
        self._next_picture = 0.0  # the time at which the next one may go out, or before
        self.app = self._app()

    def take(self, kind: bytes, content: bytes) -> None:
        """Takes what recognition tells."""
        board = self._board
        if kind == page_messages.RECORD:
            board.add(content)
        elif kind == page_messages.STATUS:
            board.show_status(content)
        elif kind == page_messages.VIEW:
            board.show_view(content)
        elif kind == page_messages.PICTURE:
            box, _, jpeg = content.partition(b"\n")
            board.show_picture(jpeg, box.decode("ascii"))
            self._asked = False
        if kind in page_messages.FRAMES and not self._pausing:
            self._pausing = True
            pause = max(_INTERVAL, _INTERVAL_EACH * board.num_watchers)
            self._loop.call_later(pause, self._take_next)

    def _take_next(self) -> None:
        self._pausing = False
        self._say(page_messages.TAKES)

    def end(self) -> None:
        """Ends all answers that wait for something."""
        self._closing = True
        self._board.wake_all()

    def _app(self) -> ASGIApp:
        from starlette.requests import Request
        from starlette.responses import PlainTextResponse
        from starlette.routing import Route, Router

        routes = [
            Route("/", self._get_page),
            Route("/picture", self._get_picture),
            Route("/events", self._get_events),
            Route("/reset", self._post_reset, methods=["POST"]),
            Route("/login", self._post_login, methods=["POST"]),
            Route("/station.css", self._get_style),
            Route("/station.js", self._get_script),
        ]
        # Its own redirects would lead wherever the header Host says.
        router = Router(routes, redirect_slashes=False)
        headers = [(k.lower().encode(), v.encode()) for k, v in HEADERS.items()]

        async def guarded(scope: Scope, receive: Receive, send: Send) -> None:
            async def send_with_headers(message: Message) -> None:
                if message["type"] == "http.response.start":
                    message["headers"] = [*message["headers"], *headers]
                await send(message)

            request = Request(scope)
            method, path = scope["method"], scope["path"]
            refusal = self._access.refusal(method, path, request.headers)
            may_watch = refusal is None and self._access.may_watch(request.headers, request.cookies)
            answer: ASGIApp
            if refusal is not None:
                answer = PlainTextResponse(f"{refusal}\n", 403)
            elif may_watch or path in ("/login", "/station.css"):  # which everybody may have
                answer = router
            elif path == "/" and method == "GET":
                answer = self._login_page()
            else:
                answer = PlainTextResponse("needs the token\n", 401)
            client = tuple(scope["client"] or ()) or None
            self._connections.asks(client, may_watch)
            try:
                await answer(scope, receive, send_with_headers)
            finally:
                self._connections.answered(client, may_watch)

        return guarded

    def _html(self, name: str, status: int = 200, **values: Any) -> Response:
        from starlette.responses import HTMLResponse

        return HTMLResponse(pages.template(name).render(title=self._title, **values), status)

    def _login_page(self, failed: bool = False) -> Response:
        return self._html("station_login.html", 401, failed=failed)

    async def _get_page(self, request: Request) -> Response:
        return self._html("station.html")

    async def _get_style(self, request: Request) -> Response:
        return _text("station.css", "text/css")

    async def _get_script(self, request: Request) -> Response:
        return _text("station.js", "text/javascript")

    async def _post_login(self, request: Request) -> Response:
        from starlette.responses import RedirectResponse

        body = b""
        async for part in request.stream():
            body += part
            if len(body) > _MAX_FORM:
                break
        form = dict(urllib.parse.parse_qsl(body[:_MAX_FORM].decode("latin-1")))
        if not self._access.is_token(form.get("token", "").strip()):
            await asyncio.sleep(1)
            return self._login_page(failed=True)
        answer = RedirectResponse("./", 303)
        answer.set_cookie(
            self._access.cookie_name,
            self._access.cookie,
            httponly=True,
            samesite="lax",
            # Behind a proxy with TLS only the browser knows. `Access` has compared the rest.
            secure=request.headers["origin"].startswith("https://"),
        )
        return answer

    async def _post_reset(self, request: Request) -> Response:
        from starlette.responses import PlainTextResponse

        given = request.headers.get("reset-token", "")
        if not secrets.compare_digest(given.encode(), self._reset_token.encode()):
            return PlainTextResponse("needs the header Reset-Token of this page\n", 403)
        self._say(page_messages.RESET)
        return PlainTextResponse("the next unit begins\n", 202)

    async def _get_picture(self, request: Request) -> Response:
        from starlette.responses import PlainTextResponse, Response

        board, after = self._board, request.query_params.get("after", "")
        if after and not _ID.fullmatch(after):
            return PlainTextResponse("after is not the ID of a picture\n", 400)
        until = self._loop.time() + _WAIT
        while not self._closing:
            new = board.new_picture
            if board.jpeg is not None and board.picture_id != after:
                await self._turn()
                headers = {"Picture": board.picture_id, "Box": board.box}
                return Response(board.jpeg, headers=headers, media_type="image/jpeg")
            if not self._asked:
                self._asked = True
                self._say(page_messages.WANTED % board.num_pictures)
            if not await _is_set(new, until - self._loop.time()):
                break
        return Response(status_code=204)

    async def _turn(self) -> None:
        """Waits until one more picture may go out, whatever those who ask say that they have."""
        now = self._loop.time()
        self._next_picture = max(self._next_picture, now - _BURST * _INTERVAL_EACH)
        self._next_picture += _INTERVAL_EACH
        if self._next_picture > now:
            await asyncio.sleep(self._next_picture - now)

    async def _get_events(self, request: Request) -> Response:
        from starlette.responses import StreamingResponse

        after = request.headers.get("last-event-id") or request.query_params.get("after", "")
        return StreamingResponse(self._stream(after), media_type="text/event-stream")

    async def _stream(self, after: str) -> AsyncIterator[bytes]:
        board = self._board
        at, view, status = board.position(after), None, None
        hello = {"start": board.start, "title": self._title, "reset_token": self._reset_token}
        board.num_watchers += 1
        try:
            yield _event("hello", json.dumps(hello).encode())
            while True:
                news = board.news
                for number, text in [item for item in board.records if item[0] > at]:
                    at = number
                    yield _event("record", text, f"{board.start}-{number}")
                if board.status is not None and board.status is not status:
                    status = board.status
                    yield _event("record", status)
                if board.view is not None and board.view is not view:
                    view = board.view
                    yield _event("view", view)
                if self._closing:  # after the last news, such as that a file has ended
                    return
                if not await _is_set(news, _BEAT):
                    yield _event("beat", b"0")
        finally:
            board.num_watchers -= 1


class _Board:
    """What watchers see; used in the server's thread alone. They keep nothing, but ask here."""

    def __init__(self) -> None:
        self.start = secrets.token_hex(4)  # tells this server from the one before a restart
        self.num_watchers = 0
        self.records: collections.deque[tuple[int, bytes]] = collections.deque(maxlen=_KEPT)
        self.status: bytes | None = None
        self.view: bytes | None = None
        self.jpeg: bytes | None = None
        self.box, self.picture_id = "null", ""
        self._num_records = self.num_pictures = 0
        self.news, self.new_picture = asyncio.Event(), asyncio.Event()  # each is set once

    def add(self, text: bytes) -> None:
        self._num_records += 1
        self.records.append((self._num_records, text))
        self._wake_news()

    def show_status(self, text: bytes) -> None:
        self.status = text
        self._wake_news()

    def show_picture(self, jpeg: bytes, box: str) -> None:
        self.num_pictures += 1
        self.jpeg, self.box = jpeg, box
        self.picture_id = f"{self.start}-{self.num_pictures}"
        self.new_picture.set()
        self.new_picture = asyncio.Event()

    def show_view(self, view: bytes) -> None:
        self.view = view
        self._wake_news()

    def position(self, after: str) -> int:
        """The number of the last record that a watcher has, by its ID."""
        start, _, number = after.partition("-")
        return int(number) if _ID.fullmatch(after) and start == self.start else 0

    def wake_all(self) -> None:
        self._wake_news()
        self.new_picture.set()

    def _wake_news(self) -> None:
        self.news.set()
        self.news = asyncio.Event()


async def _is_set(event: asyncio.Event, seconds: float) -> bool:
    try:
        await asyncio.wait_for(event.wait(), seconds)
    except TimeoutError:
        return False
    return True


def _event(name: str, data: bytes, number: str | None = None) -> bytes:
    head = f"event: {name}\n" + (f"id: {number}\n" if number else "")
    return head.encode() + b"data: " + data + b"\n\n"


def _text(name: str, kind: str) -> Response:
    from starlette.responses import Response

    return Response(pages.template(name).render(), media_type=kind)
