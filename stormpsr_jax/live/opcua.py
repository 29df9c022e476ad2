"""Live recognition to an OPC UA server: ``recognise --opcua=opc.tcp://HOST/PATH#ns=2;s=Line7``.

Each record is one request that writes the values of some nodes, whose names begin with what stands
behind the #: Line7.Event, Line7.Step, … (`opcua_nodes`). The server has to have the nodes; nothing
is made there. Records come in their order, at least once each, with the time of the record as the
source's timestamp.

Needs asyncua (extra `opcua`), which is imported when there is a server to connect to.
"""

from __future__ import annotations

import contextlib
import datetime
import importlib.util
import json
import os
import re
import urllib.parse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from stormpsr_jax.base import installed
from stormpsr_jax.live import addresses
from stormpsr_jax.live.opcua_nodes import EVENT, STATUS, Value, values_of
from stormpsr_jax.live.outbox import SIZE, Outbox
from stormpsr_jax.live.told import Told

if TYPE_CHECKING:
    from stormpsr_jax.live.opcua_client import Connection

PASSWORD = "STORMPSR_OPCUA_PASSWORD"  # a password on the command line is seen by every user
KEYS = ("certificate.pem", "key.pem", "server.pem")
_FORM = "--opcua: must be like opc.tcp://HOST:4840/PATH#ns=2;s=Line7"
_PORT = 4840
_MAX_NAME = 200  # bytes
_NODE = re.compile(r"ns=([0-9]{1,5});s=([^\x00-\x1f\x7f]+)")
_TIMEOUT = 10.0  # seconds of a whole request, and of connecting
_FIRST_PAUSE, _LONGEST_PAUSE = 1, 30  # seconds, between attempts
_NO_TIMES = "BadWriteNotSupported"  # of a server that sets the timestamps itself


class Server(NamedTuple):
    """Where to write, as `parse` reads it."""

    host: str
    port: int
    path: str
    user: str | None
    password: str | None
    node: str

    @property
    def url(self) -> str:
        """The endpoint, without user and password."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"opc.tcp://{host}:{self.port}{self.path}"

    def __repr__(self) -> str:
        """Without user and password."""
        return f"{self.url}#{self.node}"


def parse(url: str) -> Server:
    """Reads opc.tcp://[USER[:PASSWORD]@]HOST[:PORT][/PATH]#ns=N;s=NAME.

    Special characters of user, password and name are percent-encoded. Where a user has no password,
    it is that of the environment variable STORMPSR_OPCUA_PASSWORD.

    Raises:
        ValueError: it is none. The message does not repeat it, as it may hold a password.
    """
    parts = addresses.split(url, _FORM)
    if parts.scheme != "opc.tcp" or not parts.hostname or parts.query:
        raise ValueError(_FORM)
    if not (url.isascii() and url.isprintable()) or " " in url:
        raise ValueError(f"{_FORM}; percent-encode special characters")
    node = urllib.parse.unquote(parts.fragment, errors="replace")
    match = _NODE.fullmatch(node)
    if not match or int(match[1]) > 65_535 or len(match[2].encode()) > _MAX_NAME:
        raise ValueError(f"{_FORM}; behind the # is the node id that the nodes' names begin with")
    user, password = addresses.login(parts, _FORM, PASSWORD)
    return Server(parts.hostname, parts.port or _PORT, parts.path, user, password, node)


def check_keys(folder: str | os.PathLike) -> Path:
    """Returns the folder of --opcua-keys.

    Raises:
        ValueError: it lacks a file, or others may read the key.
    """
    path = Path(folder)
    if missing := [name for name in KEYS if not (path / name).is_file()]:
        raise ValueError(
            f"--opcua-keys={folder}: has no {' and no '.join(missing)}; it holds "
            "our certificate and its key, and the server's certificate"
        )
    if os.name == "posix" and (path / "key.pem").stat().st_mode & 0o077:
        raise ValueError(f"{path / 'key.pem'}: others may read this key; chmod 600 it")
    return path


class OpcUa(Outbox):
    """Writes records, and writes them again where that failed, in a thread of its own."""

    def __init__(
        self,
        url: str,
        keys: str | os.PathLike | None = None,
        *,
        initial_state: Sequence[int] = (),
        state: Sequence[int] | None = None,
        size: int = SIZE,
        first_pause: float = _FIRST_PAUSE,
    ):
        """Opens no connection yet.

        Args:
            url: see `parse`.
            keys: folder of the certificates; None for no encryption.
            initial_state, state: see `Told`.
            size: of the queue; see `Outbox`.
            first_pause: seconds until the second attempt; each further one takes twice as long, up
                to half a minute.

        Raises:
            ValueError: the URL or the folder is none, or asyncua is missing.
        """
        self._server = parse(url)
        folder = None if keys is None else check_keys(keys)
        if importlib.util.find_spec("asyncua") is None:
            raise ValueError(f"--opcua needs asyncua: {installed.extra('opcua')}")
        from stormpsr_jax.live import opcua_client

        server = self._server
        target = opcua_client.Target(server.url, server.user, server.password, folder)
        self._connection: Connection = opcua_client.Connection(target, _TIMEOUT)
        self._told = Told(initial_state, state)
        self._first_pause = first_pause
        self._stamped = True  # until the server says that it does not take times
        self._refused: set[str] = set()  # nodes that a line has named
        super().__init__(repr(server), size)

    def send(self, record: Mapping[str, Any]) -> None:
        """Takes a record; never waits and never raises.

        The states after it wait with it: they have to be right where a record before is dropped.
        """
        states = self._told.states if self._told.take(record) else None
        super().send({"type": record.get("type"), "record": record, "states": states})

    def close(self, timeout: float = 5) -> None:
        """Writes what waits, for so many seconds at most, and ends the connection."""
        super().close(timeout)
        self._connection.close()

    def _deliver(self, kind: str, text: bytes) -> bool:
        waiting = json.loads(text)
        record = waiting["record"]
        line = json.dumps(record, ensure_ascii=False)
        parts = values_of(record, line, waiting["states"])
        values = {f"{self._server.node}.{name}": value for name, value in parts.items()}
        needed = f"{self._server.node}.{STATUS if kind == 'status' else EVENT}"
        pause = self._first_pause
        while not self.is_over():
            try:
                refused = self._write(values, _moment(record))
            except Exception as error:
                # Of many kinds, as what a server sends is read amid this.
                self.warn(f"{_reason(error)}; goes on trying")
            else:
                self._tell_refused(refused)
                return needed not in refused
            if not self.pause(pause):
                return self._last_attempt(values, record, needed)
            pause = min(2 * pause, _LONGEST_PAUSE)
        return False

    def _write(
        self, values: Mapping[str, Value], moment: datetime.datetime | None
    ) -> dict[str, str]:
        refused = self._connection.write(values, moment if self._stamped else None)
        if self._stamped and _NO_TIMES in refused.values():
            self._stamped = False
            refused = self._connection.write(values, None)
        return refused

    def _last_attempt(
        self, values: Mapping[str, Value], record: Mapping[str, Any], needed: str
    ) -> bool:
        """While the queue is being closed: one more, as the server may be back since."""
        with contextlib.suppress(Exception):
            return needed not in self._write(values, _moment(record))
        return False

    def _tell_refused(self, refused: Mapping[str, str]) -> None:
        """Prints a line about nodes that the server does not take, once for each."""
        if new := [name for name in refused if name not in self._refused]:
            self._refused.update(new)
            shown = ", ".join(f"{name} ({refused[name]})" for name in new)
            self.warn(f"does not take {shown}; the server has to have these nodes, to be written")


def _reason(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return f"has not answered within {_TIMEOUT:g} s"
    return str(error) or type(error).__name__


def _moment(record: Mapping[str, Any]) -> datetime.datetime | None:
    """The time of a record, as OPC UA has it: UTC without saying so."""
    try:
        moment = datetime.datetime.fromisoformat(record["wall_time"])
    except (KeyError, TypeError, ValueError):
        return None
    return moment.astimezone(datetime.UTC).replace(tzinfo=None)
