"""The page at the work station: ``recognise --serve``. Needs starlette and uvicorn (extra `live`).

Recognition hands over what is to be seen and never waits: `Page.frame` and `Page.send` keep what
they are given and wake the server, which runs in a thread of its own. A picture is encoded once,
by recognition, and only if the page wants one. Watchers ask for the next picture when they have
shown the last one, so that a slow one sees fewer of them; the more there are, the fewer each gets.

The `view` of `Page.frame` is a dict of plain values for JSON, a new one each time; all keys are
optional:

* "recording" (text) and "time_s" (seconds since its first frame);
* "unit" (its number) and "waiting": whether the unit before it, which is finished, has still to be
  taken away;
* "source": "opening", "live", "lost" or "ended", the state of the camera;
* "checklist": [{"step_id", "name", "status", "time_s"}], in order; the status is "done", "next",
  "open", "missing" or "wrong", the time that of its completion, or None;
* "beliefs": [{"component", "right", "wrong"}], how likely (0…1) it sits right, and wrong;
* "box": {"x0", "y0", "x1", "y1", "label", "error"} or None: corners in 0…1 of the picture, and
  whether it is an error state; counts where there is a picture;
* "latency_ms", "fps" and "dropped" (frames): numbers or None.

What a watcher asks for:

* GET /: the page.
* GET /picture?after=ID: the next JPEG, its ID in the header Picture and its box in the header Box;
  204 where there is no new one for long.
* GET /events?after=ID: server-sent events. "hello"; "record", what `send` was given, with an ID
  after which a watcher goes on when it comes again; "view"; "beat".
* POST /reset with the header Reset-Token of "hello".
* POST /login with the token, where one is needed.
"""

from __future__ import annotations

import asyncio
import collections
import importlib.util
import json
import secrets
import socket
import sys
import threading
import time
import urllib.parse
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

from stormpsr_jax import installed, pages
from stormpsr_jax.recognition.access import HEADERS, Access, Address
from stormpsr_jax.recognition.outbox import encode

_INTERVAL = 0.1  # seconds between pictures, at least
_INTERVAL_EACH = 0.01  # at least so many times the watchers: 100 pictures a second, all together
_UNSEEN = 1.0  # seconds between pictures while nobody asks: the last one is what is seen at first
_KEPT = 500  # records, for watchers that were away
_BEAT = 5  # seconds after which a watcher hears something in any case
_WAIT = 20  # seconds until a request for a picture ends without one
_MAX_CONNECTIONS = 200
_MAX_FORM, _MAX_BOX = 4096, 2000  # bytes


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
            on_reset: called when somebody asks for the next unit, in the server's thread; has to
                return at once, as `threading.Event.set` does.
            token: that watchers need; see `access.read_token`.

        Raises:
            ValueError: the address cannot be had, or needs a token, or a library is missing.
        """
        missing = [m for m in ("starlette", "uvicorn") if importlib.util.find_spec(m) is None]
        if missing:
            raise ValueError(f"--serve needs {missing[0]}: {installed.extra('live')}")
        Access(address, token)
        try:
            family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
            self._socket = socket.create_server(address, family=family, backlog=128)
        except OSError as error:
            why = error.strerror or error
            raise ValueError(f"--serve={address}: cannot be opened ({why})") from error
        address = Address(address.host, self._socket.getsockname()[1])
        self.url = f"http://{address}/"
        self._title, self._on_reset = title, on_reset
        self._access = Access(address, token)
        self._reset_token = secrets.token_urlsafe()
        self._board = _Board()
        self._woken = self._warned = False
        self._view: Mapping[str, Any] = {}
        # A JPEG and the box in it: the latest, and the last one that was shown.
        self._picture = self._shown = None, None
        self._picture_at = -_UNSEEN
        self._closing = False
        self._server = self._make_server()
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._run, name="page", daemon=True)
        self._thread.start()
        self._started.wait()

    def send(self, record: Mapping[str, Any]) -> None:
        """Shows a record; never waits and never raises."""
        if (text := encode(record)) is None:
            self._warn("a record")
        else:
            self._in_loop(self._board.add, str(record.get("type")), text)

    @property
    def wants_picture(self) -> bool:
        """Whether a picture given now would be seen: somebody waits for one, and none is coming."""
        if self._picture is not self._shown:
            return False
        return self._board.num_waiting > 0 or time.monotonic() > self._picture_at + _UNSEEN

    def frame(self, jpeg: bytes | None, view: Mapping[str, Any]) -> None:
        """Shows a picture (None: the last one) and what is known now; never waits or raises."""
        if jpeg is not None:
            self._picture, self._picture_at = (jpeg, view.get("box")), time.monotonic()
        self._view = view
        if not self._woken:
            self._woken = True
            self._in_loop(self._show_soon)

    def close(self, timeout: float = 3) -> None:
        """Ends the server, and the connections of its watchers, within so many seconds."""
        self._in_loop(self._end)
        self._thread.join(timeout)

    def _warn(self, what: str) -> None:
        if not self._warned:
            self._warned = True
            print(f"warning: --serve: {what} holds what JSON has not", file=sys.stderr, flush=True)

    def _in_loop(self, action: Callable[..., None], *args: Any) -> None:
        try:
            self._loop.call_soon_threadsafe(action, *args)
        except RuntimeError:
            pass  # the server has ended

    # --- In the server's thread -------------------------------------------------------------------

    def _run(self) -> None:
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._last_shown = -1.0
        self._started.set()
        await self._server.serve([self._socket])

    def _make_server(self):
        import uvicorn

        return uvicorn.Server(
            uvicorn.Config(
                self._app(),
                http="h11",
                ws="none",
                lifespan="off",
                log_config=None,
                log_level="critical",
                access_log=False,
                server_header=False,
                proxy_headers=False,
                limit_concurrency=_MAX_CONNECTIONS,
                timeout_graceful_shutdown=1,
            )
        )

    def _end(self) -> None:
        self._closing = True
        self._server.should_exit = True
        self._board.wake_all()

    def _show_soon(self) -> None:
        interval = max(_INTERVAL, _INTERVAL_EACH * self._board.num_watchers)
        wait = self._last_shown + interval - self._loop.time()
        if wait > 0:
            self._loop.call_later(wait, self._show)
        else:
            self._show()

    def _show(self) -> None:
        self._woken = False  # before the latest is taken: what comes now is shown in any case
        view, picture = self._view, self._picture
        self._last_shown = self._loop.time()
        text = encode({key: value for key, value in view.items() if key != "box"})
        if text is None:
            self._warn("a view")
        elif text != self._board.view:
            self._board.show_view(text)
        if picture is not self._shown:
            self._shown = picture
            jpeg, box = picture
            if encode({"box": box}) is None:
                self._warn("a view")
                box = None
            self._board.show_picture(jpeg, _header(box))

    def _app(self):
        from starlette.applications import Starlette
        from starlette.requests import Request
        from starlette.responses import PlainTextResponse
        from starlette.routing import Route

        app = Starlette(
            routes=[
                Route("/", self._get_page),
                Route("/picture", self._get_picture),
                Route("/events", self._get_events),
                Route("/reset", self._post_reset, methods=["POST"]),
                Route("/login", self._post_login, methods=["POST"]),
                Route("/station.css", self._get_style),
                Route("/station.js", self._get_script),
            ]
        )
        headers = [(k.lower().encode(), v.encode()) for k, v in HEADERS.items()]

        async def guarded(scope, receive, send) -> None:
            async def send_with_headers(message) -> None:
                if message["type"] == "http.response.start":
                    message["headers"] = [*message["headers"], *headers]
                await send(message)

            request = Request(scope)
            method, path = request.method, request.url.path
            refusal = self._access.refusal(method, path, request.headers)
            answer = app
            if refusal is not None:
                answer = PlainTextResponse(f"{refusal}\n", 403)
            elif path not in ("/login", "/station.css"):  # which everybody may have
                if not self._access.may_watch(request.headers, request.cookies):
                    asks = path == "/" and method == "GET"
                    answer = (
                        self._login_page() if asks else PlainTextResponse("needs the token\n", 401)
                    )
            await answer(scope, receive, send_with_headers)

        return guarded

    def _html(self, name: str, status: int = 200, **values: Any):
        from starlette.responses import HTMLResponse

        return HTMLResponse(pages.template(name).render(title=self._title, **values), status)

    def _login_page(self, failed: bool = False):
        return self._html("station_login.html", 401, failed=failed)

    async def _get_page(self, request):
        return self._html("station.html")

    async def _get_style(self, request):
        return _text("station.css", "text/css")

    async def _get_script(self, request):
        return _text("station.js", "text/javascript")

    async def _post_login(self, request):
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
            self._access.cookie_name, self._access.cookie, httponly=True, samesite="lax"
        )
        return answer

    async def _post_reset(self, request):
        from starlette.responses import PlainTextResponse

        given = request.headers.get("reset-token", "")
        if not secrets.compare_digest(given.encode(), self._reset_token.encode()):
            return PlainTextResponse("needs the header Reset-Token of this page\n", 403)
        self._on_reset()
        return PlainTextResponse("the next unit begins\n", 202)

    async def _get_picture(self, request):
        from starlette.responses import Response

        board, after = self._board, request.query_params.get("after", "")
        until = self._loop.time() + _WAIT
        while not self._closing:
            new = board.new_picture
            if board.jpeg is not None and board.picture_id != after:
                headers = {"Picture": board.picture_id, "Box": board.box}
                return Response(board.jpeg, headers=headers, media_type="image/jpeg")
            board.num_waiting += 1
            try:
                if not await _is_set(new, until - self._loop.time()):
                    break
            finally:
                board.num_waiting -= 1
        return Response(status_code=204)

    async def _get_events(self, request):
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
            while not self._closing:
                news = board.news
                for number, text in [item for item in board.records if item[0] > at]:
                    at = number
                    yield _event("record", text, f"{board.start}-{number}")
                if board.status is not status:
                    status = board.status
                    yield _event("record", status)
                if board.view is not view:
                    view = board.view
                    yield _event("view", view)
                if not await _is_set(news, _BEAT):
                    yield _event("beat", b"0")
        finally:
            board.num_watchers -= 1


class _Board:
    """What watchers see; used in the server's thread alone. They keep nothing, but ask here."""

    def __init__(self):
        self.start = secrets.token_hex(4)  # tells this server from the one before a restart
        self.num_watchers = 0
        self.num_waiting = 0  # requests for a picture that there is not yet
        self.records: collections.deque[tuple[int, bytes]] = collections.deque(maxlen=_KEPT)
        self.status: bytes | None = None
        self.view: bytes | None = None
        self.jpeg: bytes | None = None
        self.box, self.picture_id = "null", ""
        self._num_records = self._num_pictures = 0
        self.news, self.new_picture = asyncio.Event(), asyncio.Event()  # each is set once

    def add(self, kind: str, text: bytes) -> None:
        if kind == "status":
            self.status = text
        else:
            self._num_records += 1
            self.records.append((self._num_records, text))
        self._wake_news()

    def show_picture(self, jpeg: bytes, box: str) -> None:
        self._num_pictures += 1
        self.jpeg, self.box = jpeg, box
        self.picture_id = f"{self.start}-{self._num_pictures}"
        self.new_picture.set()
        self.new_picture = asyncio.Event()

    def show_view(self, view: bytes) -> None:
        self.view = view
        self._wake_news()

    def position(self, after: str) -> int:
        """The number of the last record that a watcher has, by its ID."""
        start, _, number = after.partition("-")
        return int(number) if start == self.start and number.isdecimal() else 0

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


def _header(box: Mapping[str, Any] | None) -> str:
    """A box as JSON in ASCII; one whose label is too long for a header is left out."""
    text = json.dumps(box)
    return text if len(text) <= _MAX_BOX else "null"


def _text(name: str, kind: str):
    from starlette.responses import Response

    return Response(pages.template(name).render(), media_type=kind)
