"""Receivers of live recognition, an MQTT broker and a web server, which may be away.

``recognise --mqtt=mqtt://HOST/PREFIX`` publishes, by paho-mqtt (extra `live`):

* PREFIX/available: "online" or "offline", retained; also where we are gone without a word.
* PREFIX/events: events, alerts and finished units, in their order, at least once each (QoS 1).
* PREFIX/status: the newest status, retained.

``recognise --webhook=URL`` posts each record as JSON, in their order, at least once each. What did
not arrive is sent again with growing pauses, under the same Idempotency-Key, by which a
receiver tells that it has the record already. Redirects are not followed, and proxies of the
environment are not used.
"""

import base64
import collections
import contextlib
import http.client
import json
import os
import re
import secrets
import threading
import time
import urllib.parse
import uuid
from collections.abc import Callable, Collection, Mapping
from typing import Any
from urllib.parse import SplitResult

from stormpsr_jax.base import installed
from stormpsr_jax.base.errors import one_line, tell

SIZE = 1000  # records that wait; of a kilobyte at most, as a rule
TIMEOUT = 10.0  # seconds in which a receiver has to answer
FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 30.0  # seconds, between attempts
_MAX_SAID = 200  # characters of what a receiver says


class Away(Exception):
    """A receiver has not taken a record, for a reason that may pass; the text says which."""


class Outbox:
    """Hands records to a receiver, one after the other, in a thread of its own.

    Where the receiver is away for long, the oldest record is dropped for a new one. Of those of
    type "status" only the newest one waits, so that they never push out an event.
    """

    def __init__(self, name: str):
        """Starts the thread."""
        self.dropped = 0  # records that did not arrive
        self._name = name
        self._waiting: collections.deque[tuple[str, bytes]] = collections.deque()
        self._under_way = False  # whether a record is being delivered that was not counted yet
        self._changed = threading.Condition()
        self._closing = threading.Event()
        self._deadline = float("inf")
        self._warned: str | None = None
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    def _attempt(self, kind: str, text: bytes) -> bool:
        """Hands over a record; False: it did not arrive, and is dropped; `Away`: try again."""
        raise NotImplementedError

    def send(self, record: Mapping[str, Any]) -> None:
        """Takes a record; never waits."""
        kind = str(record.get("type"))
        with self._changed:
            if self._closing.is_set():
                self.dropped += 1
                return
            if kind == "status":
                events = [item for item in self._waiting if item[0] != kind]
                self._waiting = collections.deque(events)
            elif len(self._waiting) >= SIZE:
                self._waiting.popleft()
                self.dropped += 1
            self._waiting.append((kind, encode(record)))
            self._changed.notify_all()

    def warn(self, text: str) -> None:
        """Prints a line about the receiver, unless it says what the last one said.

        The text may come from the receiver: what cannot be seen is written out, and it is cut.
        """
        if text != self._warned:
            self._warned = text
            tell("warning", f"{self._name}: {one_line(text, _MAX_SAID)}")

    def is_over(self) -> bool:
        """Whether the time is up that `close` leaves for what is still waiting."""
        return time.monotonic() >= self._deadline

    def close(self, timeout: float = 5) -> None:
        """Delivers what waits, for so many seconds at most; the rest is dropped and counted."""
        with self._changed:
            self._deadline = time.monotonic() + timeout
            self._closing.set()
            self._changed.notify_all()
        self._thread.join(timeout + 0.5)
        with self._changed:
            self.dropped += len(self._waiting) + self._under_way
            self._waiting.clear()
            self._under_way = False
        if self.dropped:
            self.warn(f"{self.dropped} records did not arrive")

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closing.is_set())
                if not self._waiting or self.is_over():
                    return
                self._under_way, (kind, text) = True, self._waiting.popleft()
            try:
                arrived = self._deliver(kind, text)
            except Exception as error:  # the records after this one have to go on
                self.warn(f"{type(error).__name__}: {error}")
                arrived = False
            with self._changed:
                self.dropped += self._under_way and not arrived
                self._under_way = False
            if arrived:
                self._warned = None

    def _deliver(self, kind: str, text: bytes) -> bool:
        pause = FIRST_PAUSE
        while True:
            is_last = self._closing.is_set()  # one more, as the receiver may be back since
            try:
                return self._attempt(kind, text)
            except Away as error:
                self.warn(f"{error}; goes on trying")
            if is_last or self.is_over():
                return False
            self._closing.wait(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)


def encode(record: Mapping[str, Any]) -> bytes:
    """Returns a record as JSON in UTF-8."""
    text = json.dumps(record, ensure_ascii=False)
    return text.encode("utf-8", "replace")  # names of files may hold what is no Unicode


def parse_url(text: str, form: str, schemes: Collection[str]) -> SplitResult:
    """Reads SCHEME://[USER[:PASSWORD]@]HOST[:PORT][PATH][?QUERY], such as connecting takes.

    Args:
        form: what it must be like, for messages.
        schemes: those that it may have.

    Raises:
        ValueError: it is no such address. The message does not repeat it, as it may hold a
            password.
    """
    try:
        parts = urllib.parse.urlsplit(text)
        port = parts.port
        (parts.hostname or "").encode("idna")  # as connecting does
    except ValueError:  # whose text may hold a part of the password
        parts, port = urllib.parse.urlsplit(""), None
    if not text.isprintable() or " " in parts.netloc or not parts.netloc:
        raise ValueError(f"{form}; percent-encode special characters")
    if parts.scheme not in schemes or not parts.hostname or port == 0:
        raise ValueError(form)
    if parts.password and not parts.username and not parts.scheme.startswith("http"):
        raise ValueError(f"{form}; there is a password without a user")
    return parts


def server_of(url: SplitResult) -> str:
    """The server alone: user and password are secret, and the path of a webhook often is."""
    host = f"[{url.hostname}]" if ":" in (url.hostname or "") else url.hostname
    return f"{url.scheme}://{host}{f':{url.port}' if url.port else ''}"


def login_of(url: SplitResult, variable: str) -> tuple[str, str | None] | None:
    """User and password, where there is a user; the latter may be in a variable."""
    if url.username is None:
        return None
    secret = urllib.parse.unquote(url.password) if url.password else os.environ.get(variable)
    return urllib.parse.unquote(url.username), secret


# --- MQTT -----------------------------------------------------------------------------------------

_PORTS = {"mqtt": 1883, "mqtts": 8883}
_MQTT = "--mqtt: must be like mqtt://HOST/PREFIX or mqtts://USER:PASSWORD@HOST:8883/PREFIX"
_MAX_PREFIX = 200  # bytes
_KEEP_ALIVE = 15  # seconds; a broker that says nothing for 1.5 times as long is taken for gone
PATIENCE = 4.0  # seconds after which a broker that has not taken a record is named


def parse_broker(url: str) -> tuple[SplitResult, str]:
    """Reads mqtt[s]://[USER[:PASSWORD]@]HOST[:PORT]/PREFIX; returns the prefix too, decoded."""
    broker = parse_url(url, _MQTT, _PORTS)
    prefix = urllib.parse.unquote(broker.path).strip("/")
    if {"?", "#"} & {*url} or not prefix or re.search(r"[+#\x00-\x1f\x7f]", prefix):
        raise ValueError(f"{_MQTT}; PREFIX is the beginning of topics, without ?, # and +")
    if prefix.startswith("$") or len(prefix.encode("utf-8", "replace")) > _MAX_PREFIX:
        raise ValueError(f"{_MQTT}; PREFIX has at most {_MAX_PREFIX} bytes, and no $ in front")
    return broker, prefix


class Mqtt(Outbox):
    """Publishes records; connects, and connects again, by itself."""

    def __init__(self, url: str):
        """Starts to connect, and returns at once.

        Raises:
            ValueError: the URL is none, or paho-mqtt is missing.
        """
        broker, self._prefix = parse_broker(url)
        installed.check_extra("live", ["paho"], "--mqtt")
        from paho.mqtt import client, enums

        self._connected = self._refused = False
        self._acknowledged: set[int] = set()  # ids of messages that the broker has taken
        self._news = threading.Condition()
        # The same name on each connection, so that a broker ends the one before, and its last will
        # comes before our next word and not after it. All brokers take 23 characters.
        name = f"stormpsr-{secrets.token_hex(7)}"
        self._client = client.Client(enums.CallbackAPIVersion.VERSION2, client_id=name)
        if login := login_of(broker, "STORMPSR_MQTT_PASSWORD"):
            self._client.username_pw_set(*login)
        if broker.scheme == "mqtts":
            self._client.tls_set()
        self._client.will_set(self._topic("available"), "offline", qos=1, retain=True)
        self._client.reconnect_delay_set(1, round(_LONGEST_PAUSE))
        self._client.on_connect = self._on_connect
        self._client.on_connect_fail = lambda *_: self.warn("cannot be reached; goes on trying")
        self._client.on_disconnect = self._on_disconnect
        self._client.on_publish = self._on_publish
        super().__init__(f"{server_of(broker)}/{self._prefix}")
        port = broker.port or _PORTS[broker.scheme]
        self._client.connect_async(broker.hostname or "", port, keepalive=_KEEP_ALIVE)
        self._client.loop_start()

    def close(self, timeout: float = 5) -> None:
        """Publishes what waits, for so many seconds at most, and says goodbye."""
        super().close(timeout)
        if self._connected:
            goodbye = self._publish("available", "offline", retain=True)
            with self._news:
                self._news.wait_for(lambda: goodbye in self._acknowledged, 1)
        self._client.disconnect()
        # It may be amid an attempt to connect, which ends in its own time.
        stop = threading.Thread(target=self._client.loop_stop, daemon=True)
        stop.start()
        stop.join(1)

    def _topic(self, name: str) -> str:
        return f"{self._prefix}/{name}"

    def _attempt(self, kind: str, text: bytes) -> bool:
        if not self._wait_for(lambda: self._connected):
            return False
        topic = "status" if kind == "status" else "events"
        message = self._publish(topic, text, retain=kind == "status")
        # If the connection breaks, the client sends it again on the next one.
        return self._wait_for(lambda: message in self._acknowledged)

    def _publish(self, name: str, text: str | bytes, retain: bool) -> int:
        with self._news:
            self._acknowledged.clear()
        return self._client.publish(self._topic(name), text, qos=1, retain=retain).mid

    def _wait_for(self, happened: Callable[[], bool]) -> bool:
        """Waits until it has happened, and returns whether it has before `close` is over."""
        late = time.monotonic() + PATIENCE
        with self._news:
            while not self._news.wait_for(happened, 0.1):
                if self.is_over():
                    return False
                if self._warned is None and time.monotonic() > late:  # nothing else says why
                    self.warn(f"has not taken a record for {PATIENCE:g} s; goes on trying")
        return True

    # In the thread of the client:

    def _on_connect(self, client: Any, _data: Any, _flags: Any, reason: Any, _: Any) -> None:
        self._refused = reason.is_failure
        if self._refused:
            self.warn(f"refuses the connection: {reason}; goes on trying")
            return
        # Not kept for a further connection, which says it anew.
        client.publish(self._topic("available"), "online", qos=0, retain=True)
        with self._news:
            self._connected = True
            self._news.notify_all()

    def _on_disconnect(self, _client: Any, _data: Any, _flags: Any, reason: Any, _: Any) -> None:
        with self._news:
            was_connected, self._connected = self._connected, False
        if was_connected and reason.is_failure:
            self.warn("the connection is lost; connects again")
        elif reason.is_failure and not self._refused:
            self.warn("ends the connection before it has answered; goes on trying")
        self._refused = False

    def _on_publish(self, _client: Any, _data: Any, message: int, *_more: Any) -> None:
        with self._news:
            self._acknowledged.add(message)
            self._news.notify_all()


# --- Webhook --------------------------------------------------------------------------------------

_WEBHOOK = "--webhook: must be like https://HOST/PATH"
_CONNECTIONS = {"http": http.client.HTTPConnection, "https": http.client.HTTPSConnection}
_REFUSALS = (400, 413, 415, 422)  # of this very record: sending it again changes nothing


def parse_hook(url: str) -> SplitResult:
    """Reads http[s]://[USER[:PASSWORD]@]HOST[:PORT]/PATH."""
    if not url.isascii() or " " in url:
        raise ValueError(f"{_WEBHOOK}; percent-encode special characters")
    return parse_url(url, _WEBHOOK, _CONNECTIONS)


class Webhook(Outbox):
    """Posts records, and posts them again where that failed, in a thread of its own."""

    def __init__(self, url: str):
        """Opens no connection yet; ValueError: the URL is none."""
        self._url, self._session = parse_hook(url), uuid.uuid4()
        super().__init__(server_of(self._url))

    def _attempt(self, kind: str, text: bytes) -> bool:
        url = self._url
        headers = {
            "Content-Type": "application/json",
            "Idempotency-Key": str(uuid.uuid5(self._session, text.decode())),
            "User-Agent": "stormpsr-jax",
        }
        if login := login_of(url, "STORMPSR_WEBHOOK_PASSWORD"):
            word = base64.b64encode(f"{login[0]}:{login[1] or ''}".encode()).decode()
            headers["Authorization"] = f"Basic {word}"
        path = (url.path or "/") + (f"?{url.query}" if url.query else "")
        connection = _CONNECTIONS[url.scheme](url.hostname or "", url.port, timeout=TIMEOUT)
        try:
            with contextlib.closing(connection):
                connection.request("POST", path, text, headers)
                status = connection.getresponse().status  # nobody reads the text
        except TimeoutError as error:
            raise Away(f"has not answered within {TIMEOUT:g} s") from error
        except OSError as error:
            raise Away(str(error) or type(error).__name__) from error
        except http.client.HTTPException as error:  # whose text is the server's
            raise Away(f"answers what is no HTTP ({type(error).__name__})") from error
        if status in _REFUSALS:
            self.warn(f"refuses a record with status {status}")
            return False
        if not 200 <= status < 300:
            redirect = ", a redirect, which is not followed" if 300 <= status < 400 else ""
            raise Away(f"answers with status {status}{redirect}")
        return True
