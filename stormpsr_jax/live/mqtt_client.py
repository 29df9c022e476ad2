"""An MQTT client that publishes alone: whatever else a broker sends ends the connection.

paho-mqtt keeps, without a bound, what a broker publishes to somebody who has subscribed to nothing,
and reads packets of 256 MiB. To one who only publishes (QoS 1, MQTT 3.1.1), brokers answer in three
kinds of packets of 2 and 4 bytes. So this client reads the bytes before paho-mqtt does.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable

from paho.mqtt import client, enums

# The first byte of each answer (CONNACK, PUBACK, PINGRESP), and how many come after the second.
_ANSWERS = {0x20: 2, 0x40: 2, 0xD0: 0}
_PUBLISH = 0x30  # the upper half of its first byte
_MOST = 20_000  # bytes of answers a second; there is one for each record, and 1000 records wait
READ = "_sock_recv"  # paho-mqtt's function that reads from the socket


class Client(client.Client):
    """Refuses, with ConnectionError where paho-mqtt reads, what is no answer to a publisher."""

    def __init__(self, refused: Callable[[str], None]):
        """`refused` is told, in the thread of the client, what the broker has sent."""
        if not hasattr(client.Client, READ):  # and what this class refuses would not be refused
            raise ValueError("--mqtt needs another version of paho-mqtt: pip install 'paho-mqtt<3'")
        # The same on each connection, so that a broker ends the one before, and its last will comes
        # before our next word and not after it. 23 characters, the most that all brokers take.
        name = f"stormpsr-{secrets.token_hex(7)}"
        super().__init__(enums.CallbackAPIVersion.VERSION2, client_id=name)
        self._refused = refused
        self.on_socket_open = lambda *_: self._begin()
        self._begin()

    def _begin(self) -> None:
        """A new connection, on which nothing was said yet."""
        self._kind: int | None = None  # the first byte of a packet whose second one is to come
        self._left = 0  # bytes of a packet that are to come
        self._since, self._read = time.monotonic(), 0  # this second, and bytes that came in it

    def _sock_recv(self, bufsize: int) -> bytes:
        answers = super()._sock_recv(bufsize)
        now = time.monotonic()
        if now >= self._since + 1:
            self._since, self._read = now, 0
        self._read += len(answers)
        if self._read > _MOST:
            self._refuse("answers more often than it was asked")
        for byte in answers:
            if self._left:
                self._left -= 1
            elif self._kind is not None:
                if byte != _ANSWERS[self._kind]:
                    self._refuse("sends what is no answer of a broker")
                self._kind, self._left = None, byte
            elif byte in _ANSWERS:
                self._kind = byte
            else:
                publishes = byte & 0xF0 == _PUBLISH
                self._refuse(
                    "publishes to us, who have subscribed to nothing"
                    if publishes
                    else "sends what is no answer of a broker"
                )
        return answers

    def _refuse(self, what: str) -> None:
        self._refused(f"{what}; the connection is ended, goes on trying")
        raise ConnectionError(what)
