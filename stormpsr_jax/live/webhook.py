"""Live recognition to a web server: ``recognise --webhook=URL`` posts each record as JSON.

Records come in their order, one request each, at least once each. What could not be delivered is
sent again with growing pauses, under the same Idempotency-Key, by which a receiver tells that it
has the record already. Redirects are not followed, and proxies of the environment are not used.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import io
import os
import socket
import ssl
import threading
import time
import urllib.parse
import uuid
from collections.abc import Iterator
from typing import Any, NamedTuple

from stormpsr_jax.live import addresses
from stormpsr_jax.live.outbox import SIZE, Outbox

_FORM = "--webhook: must be like https://HOST/PATH"
PASSWORD = "STORMPSR_WEBHOOK_PASSWORD"  # a password on the command line is seen by every user
_TIMEOUT = 10.0  # seconds of a whole request, from connecting to the end of the answer's head
_MAX_HEAD = 65_536  # bytes of the heads of an answer, of which "100 Continue" may be any number
_FIRST_PAUSE, _LONGEST_PAUSE = 1, 60  # seconds, between attempts
_REFUSALS = (400, 413, 415, 422)  # of this very record: sending it again changes nothing


class Target(NamedTuple):
    """Where to post, as `parse` reads it."""

    scheme: str
    host: str
    port: int | None
    path: str
    authorization: str | None

    def __repr__(self) -> str:
        """The server alone: user and password are secret, and the path often is."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}{f':{self.port}' if self.port else ''}"


def parse(url: str) -> Target:
    """Reads http[s]://[USER[:PASSWORD]@]HOST[:PORT]/PATH.

    Where a user has no password, it is that of the environment variable STORMPSR_WEBHOOK_PASSWORD.

    Raises:
        ValueError: it is none. The message does not repeat it, as it may hold a password.
    """
    parts = addresses.split(url, _FORM)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(_FORM)
    if not (url.isascii() and url.isprintable()) or " " in url:
        raise ValueError(f"{_FORM}; percent-encode special characters")
    authorization = None
    if parts.username is not None:
        user = urllib.parse.unquote_to_bytes(parts.username)
        password = os.environ.get(PASSWORD, "").encode()
        if parts.password:
            password = urllib.parse.unquote_to_bytes(parts.password)
        word = base64.b64encode(user + b":" + password).decode()
        authorization = f"Basic {word}"
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Target(parts.scheme, parts.hostname, parts.port, path, authorization)


class _Lines(io.BufferedReader):
    """Lines of at most `_MAX_HEAD` bytes, all together."""

    _left = _MAX_HEAD

    def readline(self, limit: int | None = -1, /) -> bytes:
        line = super().readline(limit)
        self._left -= len(line)
        if self._left < 0:
            raise http.client.HTTPException
        return line


class _Answer(http.client.HTTPResponse):
    """An answer whose heads end: to read them takes recognition's time."""

    def __init__(self, *args: Any, **options: Any):
        super().__init__(*args, **options)
        self.fp = _Lines(self.fp.detach())


class Webhook(Outbox):
    """Posts records, and posts them again where that failed, in a thread of its own."""

    def __init__(self, url: str, size: int = SIZE, first_pause: float = _FIRST_PAUSE):
        """Opens no connection yet.

        Args:
            url: see `parse`.
            size: of the queue; see `Outbox`.
            first_pause: seconds until the second attempt; each further one takes twice as long, up
                to a minute.

        Raises:
            ValueError: the URL is none.
        """
        self._target = parse(url)
        secure = self._target.scheme == "https"
        self._context = ssl.create_default_context() if secure else None
        self._first_pause = first_pause
        super().__init__(repr(self._target), size)

    def _deliver(self, kind: str, text: bytes) -> bool:
        key, pause = str(uuid.uuid4()), self._first_pause
        while not self.is_over():
            try:
                status = self._post(text, key)
            except OSError as error:
                self.warn(f"{str(error) or type(error).__name__}; goes on trying")
            except http.client.HTTPException as error:  # whose text is the server's
                what = f"answers what is no HTTP ({type(error).__name__})"
                self.warn(f"{what}; goes on trying")
            else:
                if 200 <= status < 300:
                    return True
                if status in _REFUSALS:
                    self.warn(f"refuses a record with status {status}")
                    return False
                redirect = 300 <= status < 400
                what = ", a redirect, which is not followed" if redirect else ""
                self.warn(f"answers with status {status}{what}; goes on trying")
            if not self.pause(pause):
                return self._last_attempt(text, key)
            pause = min(2 * pause, _LONGEST_PAUSE)
        return False

    def _last_attempt(self, text: bytes, key: str) -> bool:
        """While the queue is being closed: one more, as the receiver may be back since."""
        try:
            return 200 <= self._post(text, key) < 300
        except (OSError, http.client.HTTPException):
            return False

    def _post(self, text: bytes, key: str) -> int:
        """Returns the status of the answer, whose text nobody reads."""
        target = self._target
        headers = {"Content-Type": "application/json", "Idempotency-Key": key}
        headers["User-Agent"] = "stormpsr-jax"
        if target.authorization:
            headers["Authorization"] = target.authorization
        with self._connected() as connection:
            connection.request("POST", target.path, text, headers)
            return connection.getresponse().status

    @contextlib.contextmanager
    def _connected(self) -> Iterator[http.client.HTTPConnection]:
        """A connection that ends after `_TIMEOUT` seconds, also where something comes all the time.

        Raises:
            TimeoutError: it did.
        """
        start = time.monotonic()
        host, port, secure = self._target.host, self._target.port, self._context
        connection = http.client.HTTPConnection(host, port)
        if secure is not None:
            connection = http.client.HTTPSConnection(host, port, context=secure)
        plain = socket.create_connection((host, connection.port), _TIMEOUT)
        over = threading.Event()

        def end() -> None:
            over.set()
            with contextlib.suppress(OSError):  # the server has hung up
                handle.shutdown(socket.SHUT_RDWR)

        timer = threading.Timer(start + _TIMEOUT - time.monotonic(), end)
        timer.daemon = True
        # A handle of its own, as TLS takes that of `plain` over.
        with contextlib.closing(connection), plain, plain.dup() as handle:
            timer.start()
            connection.response_class = _Answer
            try:
                connection.sock = plain
                if secure is not None:
                    connection.sock = secure.wrap_socket(plain, server_hostname=host)
                yield connection
            except (OSError, http.client.HTTPException):
                if not over.is_set():
                    raise
            finally:
                timer.cancel()
        if over.is_set():
            raise TimeoutError(f"has not answered within {_TIMEOUT:g} s")
