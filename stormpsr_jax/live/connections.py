"""The connections of a page: how many there may be, and how long one may take to ask.

Who has not yet shown that he may watch gets `PATIENCE` seconds for each request, head and body,
from the moment that the connection is made or the request before has been answered. Where there are
as many connections as there may be, a new one takes the place of the one that has waited longest
among those that do not watch; where all watch, it is closed itself.
"""

from __future__ import annotations

import asyncio
import collections
import dataclasses
from typing import Any

from stormpsr_jax.live import page_messages

PATIENCE = 5.0  # seconds
_SWEEP = 0.5  # seconds
_REPORT_EVERY = 10.0  # seconds
_MAX_SENDERS = 100  # that are told apart between two reports
_Client = tuple[str, int]  # address and port


@dataclasses.dataclass
class Connection:
    """One of a page's.

    Attributes:
        transport: of it.
        since: when it was made, or last asked or was answered.
        begun: whether it has sent something since.
        watching: requests of somebody who may watch that are being answered.
        trusted: whether there was one.
    """

    transport: asyncio.Transport
    since: float
    begun: bool = False
    watching: int = 0
    trusted: bool = False

    @property
    def sender(self) -> str:
        """The address that it is of."""
        return _client(self.transport)[0]


class Connections:
    """All connections of a page; used in the server's thread alone."""

    def __init__(self, most: int):
        """`most`: how many there may be."""
        self._most = most
        self._loop = asyncio.get_running_loop()
        self._open: dict[_Client | None, Connection] = {}
        self._closed: collections.Counter[str] = collections.Counter()
        self._reported = -_REPORT_EVERY
        self._loop.call_later(_SWEEP, self._sweep)

    def opened(self, transport: asyncio.Transport) -> None:
        """Takes a new connection, and closes one if there are too many."""
        if len(self._open) >= self._most:
            others = [one for one in self._open.values() if not one.watching]
            if not others:
                self._count(_client(transport)[0])
                transport.abort()
                return
            self._close(min(others, key=lambda one: one.since))
        self._open[_client(transport)] = Connection(transport, self._loop.time())

    def sent(self, transport: asyncio.Transport) -> None:
        """Notes that something came."""
        if (one := self._open.get(_client(transport))) is not None:
            one.begun = True

    def closed(self, transport: asyncio.Transport) -> None:
        """Forgets a connection that has ended."""
        self._forget(transport)

    def asks(self, client: _Client | None, may_watch: bool) -> None:
        """Notes that the head of a request is complete, and whether its sender may watch."""
        if (one := self._open.get(client)) is not None:
            one.since = self._loop.time()
            one.watching += may_watch
            one.trusted |= may_watch

    def answered(self, client: _Client | None, may_watch: bool) -> None:
        """Notes that a request has its answer."""
        if (one := self._open.get(client)) is not None:
            one.since, one.begun = self._loop.time(), False
            one.watching -= may_watch

    def _forget(self, transport: asyncio.Transport) -> None:
        one = self._open.get(_client(transport))
        if one is not None and one.transport is transport:
            del self._open[_client(transport)]

    def _close(self, one: Connection) -> None:
        self._count(one.sender)
        self._forget(one.transport)
        one.transport.abort()

    def _sweep(self) -> None:
        now = self._loop.time()
        for one in list(self._open.values()):
            # A watcher's network may be slow to take the last answer.
            slow = one.trusted and one.transport.get_write_buffer_size() > 0
            if one.watching or slow or now < one.since + PATIENCE:
                continue
            if one.begun:
                self._close(one)
            else:  # as browsers do, in case they will need it
                self._forget(one.transport)
                one.transport.abort()
        self._report(now)
        self._loop.call_later(_SWEEP, self._sweep)

    def _count(self, sender: str) -> None:
        if sender in self._closed or len(self._closed) < _MAX_SENDERS:
            self._closed[sender] += 1

    def _report(self, now: float) -> None:
        if not self._closed or now < self._reported + _REPORT_EVERY:
            return
        self._reported = now
        ((sender, number),) = self._closed.most_common(1)
        others = f", and some of {len(self._closed) - 1} others" if len(self._closed) > 1 else ""
        page_messages.say(
            f"closed {number} connections of {sender}{others}: more than {self._most} at once, or "
            f"no whole request within {PATIENCE:g} s"
        )
        self._closed.clear()


def bounded(connections: Connections) -> type[asyncio.Protocol]:
    """Returns uvicorn's protocol for HTTP, with `connections` told of each connection."""
    from uvicorn.protocols.http.h11_impl import H11Protocol

    class Bounded(H11Protocol):
        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            connections.opened(transport)

        def data_received(self, data: bytes) -> None:
            connections.sent(self.transport)
            super().data_received(data)

        def connection_lost(self, exc: Exception | None) -> None:
            connections.closed(self.transport)
            super().connection_lost(exc)

    return Bounded


def _client(transport: asyncio.Transport) -> _Client:
    """As `scope["client"]` has it."""
    host, port, *_ = transport.get_extra_info("peername")
    return host, port
