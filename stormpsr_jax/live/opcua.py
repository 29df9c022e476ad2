"""Live recognition to an OPC UA server: ``recognise --opcua=opc.tcp://HOST/PATH#ns=2;s=Line7``.

Each record is one request that writes the values of some nodes, whose names begin with what stands
behind the #: Line7.Event, Line7.Step, … (docs/recognise.md has them as a table). The server has to
have the nodes; nothing is made there. Records come in their order, at least once each, with the
time of the record as the source's timestamp.

Needs asyncua (extra `opcua`), which is imported when there is a server to connect to.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import datetime
import importlib.util
import json
import logging
import os
import re
import threading
import urllib.parse
from collections.abc import Coroutine, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from stormpsr_jax.base import installed
from stormpsr_jax.live import addresses
from stormpsr_jax.live.addresses import Url
from stormpsr_jax.live.outbox import TIMEOUT, Away, Outbox, reason
from stormpsr_jax.live.told import Told

if TYPE_CHECKING:
    from asyncua import Client

PASSWORD = "STORMPSR_OPCUA_PASSWORD"  # a password on the command line is seen by every user
KEYS = ("certificate.pem", "key.pem", "server.pem")
EVENT, STATUS = "Event", "Status"  # which a server has to have
_FORM = "--opcua: must be like opc.tcp://HOST:4840/PATH#ns=2;s=Line7"
_PORTS = {"opc.tcp": 4840}
_MAX_NAME = 200  # bytes
_NODE = re.compile(r"ns=([0-9]{1,5});s=([^\x00-\x1f\x7f]+)")
_SESSION_MS = 60_000  # after which the server forgets a client that is gone without a word
_APPLICATION = "urn:stormpsr-jax"
_NO_TIMES = "BadWriteNotSupported"  # of a server that sets the timestamps itself
T = TypeVar("T")


def parse(url: str) -> tuple[Url, str]:
    """Reads opc.tcp://[USER[:PASSWORD]@]HOST[:PORT][/PATH]#ns=N;s=NAME.

    Special characters of user, password and name are percent-encoded. Where a user has no password,
    it is that of the environment variable STORMPSR_OPCUA_PASSWORD.

    Returns:
        The server, and the node id that the nodes' ids begin with.

    Raises:
        ValueError: it is none. The message does not repeat it, as it may hold a password.
    """
    server = addresses.parse(url, _FORM, _PORTS, PASSWORD)
    node = urllib.parse.unquote(server.fragment, errors="replace")
    match = _NODE.fullmatch(node)
    if not match or int(match[1]) > 65_535 or len(match[2].encode()) > _MAX_NAME:
        raise ValueError(f"{_FORM}; behind the # is the node id that the nodes' names begin with")
    if server.query or not server.path.isascii() or " " in server.path:
        raise ValueError(f"{_FORM}; percent-encode special characters")
    return server, node


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
        told: Told | None = None,
        **options: Any,
    ):
        """Opens no connection yet.

        Args:
            keys: folder of the certificates; None for no encryption.
            told: before; None is nothing, of a product without components.

        Raises:
            ValueError: the URL or the folder is none, or asyncua is missing.
        """
        self._server, self._node = parse(url)
        self._keys = None if keys is None else check_keys(keys)
        if importlib.util.find_spec("asyncua") is None:
            raise ValueError(f"--opcua needs asyncua: {installed.extra('opcua')}")
        # It logs what servers say, and tracebacks of it; what matters is raised too.
        logging.getLogger("asyncua").setLevel(logging.CRITICAL + 1)
        self._told = Told(()) if told is None else copy.deepcopy(told)
        self._stamped = True  # until the server says that it does not take times
        self._refused: set[str] = set()  # nodes that a line has named
        self._client: Client | None = None
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, name="opcua", daemon=True).start()
        super().__init__(f"{self._server}{self._server.path}#{self._node}", **options)

    def send(self, record: Mapping[str, Any]) -> None:
        """Takes a record; never waits and never raises.

        The states after it wait with it: they have to be right where a record before is dropped.
        """
        told: dict[str, Any] = {"states": None, "unsure": None}
        if self._told.take(record):
            told = {"states": self._told.states, "unsure": list(self._told.unsure.values())}
        super().send({"type": record.get("type"), "record": record, **told})

    def close(self, timeout: float = 5) -> None:
        """Writes what waits, for so many seconds at most, and ends the connection."""
        super().close(timeout)
        client, self._client = self._client, None
        for work in [_rest_ended()] if client is None else [client.disconnect(), _rest_ended()]:
            with contextlib.suppress(Exception):  # it is over either way
                self._run(work, 1)
        self._loop.call_soon_threadsafe(self._loop.stop)

    def _attempt(self, kind: str, text: bytes) -> bool:
        waiting = json.loads(text)
        record = waiting["record"]
        found = _values_of(record, waiting["states"], waiting["unsure"])
        values = {f"{self._node}.{name}": value for name, value in found.items()}
        try:
            refused = self._run(self._write(values, record), TIMEOUT)
        except Exception as error:  # of many kinds, as what a server sends is read amid this
            raise Away(reason(error)) from error
        if new := [name for name in refused if name not in self._refused]:
            self._refused.update(new)
            shown = ", ".join(f"{name} ({refused[name]})" for name in new)
            self.warn(f"does not take {shown}; the server has to have these nodes, to be written")
        return f"{self._node}.{STATUS if kind == 'status' else EVENT}" not in refused

    def _run(self, work: Coroutine[Any, Any, T], seconds: float) -> T:
        """Runs it in the thread of asyncio; TimeoutError where it takes longer."""
        running = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return running.result(seconds)
        finally:
            running.cancel()  # which asyncua may take its time for; nobody waits

    # --- In the thread of asyncio -----------------------------------------------------------------

    async def _write(
        self, values: Mapping[str, tuple[str, Any]], record: Mapping[str, Any]
    ) -> dict[str, str]:
        """Writes (type, value) by node id, over a new connection if there is none.

        Returns:
            By node id, the name of the status code of each that was not written.
        """
        if (client := self._client) is None:
            client = self._client = await self._connected()
        try:
            moment = _moment(record) if self._stamped else None
            refused = await self._written(client, values, moment)
            if self._stamped and _NO_TIMES in refused.values():
                self._stamped = False
                refused = await self._written(client, values, None)
            return refused
        except BaseException:
            if self._client is client:
                self._client = None
            client.disconnect_socket()
            raise

    async def _written(
        self,
        client: Client,
        values: Mapping[str, tuple[str, Any]],
        moment: datetime.datetime | None,
    ) -> dict[str, str]:
        from asyncua import ua

        at = None if moment is None else ua.DateTime.fromisoformat(moment.isoformat())
        written = []
        for kind, value in values.values():
            is_list = isinstance(value, list)
            variant = ua.Variant(value, getattr(ua.VariantType, kind), is_array=is_list)
            written.append(ua.DataValue(variant, SourceTimestamp=at))
        nodes = [client.get_node(name) for name in values]
        codes = await client.write_values(nodes, written, raise_on_partial_error=False)
        named = zip(values, codes, strict=True)
        return {name: code.name for name, code in named if not code.is_good()}

    async def _connected(self) -> Client:
        from asyncua import Client
        from asyncua.crypto.security_policies import SecurityPolicyBasic256Sha256

        server = self._server
        client = Client(f"{server}{server.path}", timeout=TIMEOUT)
        client.name = client.description = "stormpsr-jax"
        client.application_uri, client.session_timeout = _APPLICATION, _SESSION_MS
        if server.user is not None:
            client.set_user(server.user)
            client.set_password(server.password or "")
        if self._keys is not None:
            certificate = self._keys / "certificate.pem"
            client.application_uri = _uri_of(certificate) or _APPLICATION
            await client.set_security(
                SecurityPolicyBasic256Sha256,
                certificate,
                self._keys / "key.pem",
                server_certificate=str(self._keys / "server.pem"),
            )
        try:
            await client.connect()
        except BaseException:
            client.disconnect_socket()
            raise
        return client


async def _rest_ended() -> None:
    """Cancels what asyncio still does, such as connecting."""
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _values_of(
    record: Mapping[str, Any], states: Sequence[int] | None, unsure: Sequence[str] | None
) -> dict[str, tuple[str, Any]]:
    """Returns the type and the value of each node that a record is written to, by its name.

    Args:
        record: a line of live recognition.
        states, unsure: of the components after it, and the installations that are not sure; None
            where it tells nothing of them.
    """
    kind, text = record.get("type"), json.dumps(record, ensure_ascii=False)
    if kind == "status":
        return {STATUS: ("String", text), "Connected": ("Boolean", bool(record.get("connected")))}
    found: dict[str, tuple[str, Any]] = {EVENT: ("String", text)}
    if kind in ("event", "uncertain", "confirmed"):  # not "unsure": nobody may take it for done
        found["Step"] = "String", str(record.get("step", ""))
        found["StepId"] = "Int32", int(record["step_id"])
        found["Confidence"] = "Double", float(record.get("confidence", 0))
    elif kind == "alert":
        found["Alert"] = "String", str(record.get("message", ""))
    elif kind == "unit":
        found["Unit"] = "Int32", int(record.get("unit", 0))
        found["Missing"] = "String", [row["step"] for row in record.get("missing", ())]
    if states is not None and unsure is not None:
        found["States"], found["Unsure"] = ("Int32", list(states)), ("String", list(unsure))
    return found


def _moment(record: Mapping[str, Any]) -> datetime.datetime | None:
    """The time of a record, as OPC UA has it: UTC without saying so."""
    try:
        moment = datetime.datetime.fromisoformat(record["wall_time"])
    except (KeyError, TypeError, ValueError):
        return None
    return moment.astimezone(datetime.UTC).replace(tzinfo=None)


def _uri_of(certificate: Path) -> str | None:
    """The URI in a certificate, which servers compare with what a client says of itself."""
    from cryptography import x509

    parsed = x509.load_pem_x509_certificate(certificate.read_bytes())
    try:
        names = parsed.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return None
    return next(iter(names.get_values_for_type(x509.UniformResourceIdentifier)), None)
