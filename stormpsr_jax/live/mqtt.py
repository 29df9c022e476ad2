"""Live recognition to an MQTT broker: ``recognise --mqtt=mqtt://HOST/PREFIX``.

* PREFIX/available: "online" or "offline", retained; also where we are gone without a word.
* PREFIX/events: events, alerts and finished units, in their order, at least once each (QoS 1).
* PREFIX/status: the newest status, retained.

Needs paho-mqtt (extra `live`), which is imported when there is a broker to connect to.
"""

import importlib.util
import re
import secrets
import threading
import time
import urllib.parse
from collections.abc import Callable
from typing import Any

from stormpsr_jax.base import installed
from stormpsr_jax.live import addresses
from stormpsr_jax.live.addresses import Url
from stormpsr_jax.live.outbox import Outbox

PASSWORD = "STORMPSR_MQTT_PASSWORD"  # a password on the command line is seen by every user
_PORTS = {"mqtt": 1883, "mqtts": 8883}
_FORM = "--mqtt: must be like mqtt://HOST/PREFIX or mqtts://USER:PASSWORD@HOST:8883/PREFIX"
_MAX_PREFIX = 200  # bytes
_KEEP_ALIVE = 15  # seconds; a broker that says nothing for 1.5 times as long is taken for gone
_LONGEST_PAUSE = 30  # seconds, between attempts to connect
PATIENCE = 4.0  # seconds after which a broker that has not taken a record is named


def parse(url: str) -> tuple[Url, str]:
    """Reads mqtt[s]://[USER[:PASSWORD]@]HOST[:PORT]/PREFIX, and returns the prefix too, decoded.

    Errors as of `addresses.parse`.
    """
    broker = addresses.parse(url, _FORM, _PORTS, PASSWORD)
    prefix = urllib.parse.unquote(broker.path).strip("/")
    if {"?", "#"} & {*url} or not prefix or re.search(r"[+#\x00-\x1f\x7f]", prefix):
        raise ValueError(f"{_FORM}; PREFIX is the beginning of topics, without ?, # and +")
    if prefix.startswith("$") or len(prefix.encode("utf-8", "replace")) > _MAX_PREFIX:
        raise ValueError(f"{_FORM}; PREFIX has at most {_MAX_PREFIX} bytes, and no $ in front")
    return broker, prefix


class Mqtt(Outbox):
    """Publishes records; connects, and connects again, by itself."""

    def __init__(self, url: str):
        """Starts to connect, and returns at once.

        Raises:
            ValueError: the URL is none, or paho-mqtt is missing.
        """
        broker, self._prefix = parse(url)
        if importlib.util.find_spec("paho") is None:
            raise ValueError(f"--mqtt needs paho-mqtt: {installed.extra('live')}")
        from paho.mqtt import client, enums

        self._connected = self._refused = False
        self._acknowledged: set[int] = set()  # ids of messages that the broker has taken
        self._news = threading.Condition()
        # The same name on each connection, so that a broker ends the one before, and its last will
        # comes before our next word and not after it. All brokers take 23 characters.
        name = f"stormpsr-{secrets.token_hex(7)}"
        self._client = client.Client(enums.CallbackAPIVersion.VERSION2, client_id=name)
        if broker.user is not None:
            self._client.username_pw_set(broker.user, broker.password)
        if broker.scheme == "mqtts":
            self._client.tls_set()
        self._client.will_set(self._topic("available"), "offline", qos=1, retain=True)
        self._client.reconnect_delay_set(1, _LONGEST_PAUSE)
        self._client.on_connect = self._on_connect
        self._client.on_connect_fail = lambda *_: self.warn("cannot be reached; goes on trying")
        self._client.on_disconnect = self._on_disconnect
        self._client.on_publish = self._on_publish
        super().__init__(f"{broker}/{self._prefix}")
        self._client.connect_async(broker.host, broker.port or 0, keepalive=_KEEP_ALIVE)
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
        """Returns the id under which the broker will acknowledge it."""
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

    # --- Called in the thread of the client -------------------------------------------------------

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
