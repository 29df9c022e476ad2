"""How a page is served: who gets an answer, and what goes with each of them."""

from collections.abc import AsyncIterator, Callable, Collection, Mapping

import uvicorn
from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from stormpsr_jax.pages.access import HEADERS, Access

_MAX_CONNECTIONS = 200  # more are answered with status 503
_GONE = 30  # seconds after which a watcher that takes nothing any more is left
_MAX_HEAD = 16_384  # bytes of a request's


def guarded(
    app: ASGIApp,
    access: Access,
    stranger: Callable[[Request], Response],
    *,
    for_all: Collection[str] = (),
    headers: Mapping[str, str] = HEADERS,
) -> ASGIApp:
    """Returns what answers in an app's place, and lets through whom the rules of a page let in.

    Args:
        stranger: the answer to who has no token.
        for_all: paths that need no token.
    """
    added = [(name.lower().encode(), value.encode()) for name, value in headers.items()]

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                others = [item for item in message["headers"] if item[0] != b"cache-control"]
                message["headers"] = [*others, *added]
            await send(message)

        request, chosen = Request(scope), app
        refusal = access.refusal(scope["method"], scope["path"], request.headers)
        if refusal is not None:
            chosen = PlainTextResponse(f"{refusal}\n", 403)
        elif scope["path"] not in for_all:
            if not access.may_watch(request.headers, request.cookies):
                chosen = stranger(request)
        await chosen(scope, receive, send_with_headers)

    return answer


def let_in(answer: Response, access: Access, *, secure: bool = False) -> Response:
    """Gives a browser, with an answer, the cookie of who has the token; `secure`: for TLS alone."""
    name, value = access.cookie_name, access.cookie
    answer.set_cookie(name, value, httponly=True, samesite="lax", secure=secure)
    return answer


async def body(request: Request, most: int) -> bytes:
    """Returns what a request sends; ValueError if that is more than so many bytes."""
    content = b""
    async for part in request.stream():
        content += part
        if len(content) > most:
            raise ValueError(f"a request has at most {most} bytes")
    return content


def event(data: str, name: str | None = None, number: str | None = None) -> ServerSentEvent:
    """Returns a server-sent event of one line of data."""
    return ServerSentEvent(data, event=name, id=number, sep="\n")


def events(
    news: AsyncIterator[ServerSentEvent],
    beat: int,
    beaten: Callable[[], ServerSentEvent] | None = None,
) -> Response:
    """Answers with server-sent events, and with one of `beaten` every `beat` seconds."""
    return EventSourceResponse(
        news, sep="\n", ping=beat, ping_message_factory=beaten, send_timeout=_GONE
    )


def server(app: ASGIApp) -> uvicorn.Server:
    """Returns what serves an app on sockets."""
    return uvicorn.Server(
        uvicorn.Config(
            app,
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
