"""An OPC UA client that writes alone: each request has a time limit, and its answer a size.

asyncua keeps what a server sends until a message is whole, and takes messages of any size. To one
who only writes, answers have a few hundred bytes, but for the list of endpoints with their
certificates. So the bytes are counted before asyncua has them.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Coroutine, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from asyncua import Client, ua
from asyncua.client.ua_client import UaClient
from asyncua.crypto.security_policies import SecurityPolicyBasic256Sha256
from cryptography import x509

from stormpsr_jax.live.opcua_nodes import Value

_MOST = 1 << 20  # bytes that may come after a request
_SESSION_MS = 60_000  # after which the server forgets a client that is gone without a word
_APPLICATION = "urn:stormpsr-jax"
MAKE = "_make_protocol"  # asyncua's function that makes what reads from the socket
T = TypeVar("T")

_TYPES = {
    "String": ua.VariantType.String,
    "Int32": ua.VariantType.Int32,
    "Double": ua.VariantType.Double,
    "Boolean": ua.VariantType.Boolean,
}


class Target(NamedTuple):
    """Where and as whom to write.

    Attributes:
        url: of the endpoint, without user and password.
        user, password: None for an anonymous one.
        keys: folder of certificate.pem, key.pem and server.pem; None for no encryption.
    """

    url: str
    user: str | None
    password: str | None
    keys: Path | None


class Connection:
    """One connection at a time, and a thread of its own, in which asyncio runs."""

    def __init__(self, target: Target, timeout: float):
        """Opens no connection yet.

        Args:
            target: the server.
            timeout: seconds of a whole request, and of connecting with all that belongs to it.

        Raises:
            ValueError: asyncua is of another version.
        """
        if not hasattr(UaClient, MAKE):  # and what a server sends would have no bound
            raise ValueError("--opcua needs another version of asyncua: pip install 'asyncua<3'")
        # It logs what servers say, and tracebacks of it; what matters is raised too.
        logging.getLogger("asyncua").setLevel(logging.CRITICAL + 1)
        self._target, self._timeout = target, timeout
        self._client: Client | None = None
        self._came = 0  # bytes since the last request
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="opcua", daemon=True)
        self._thread.start()

    def write(self, values: Mapping[str, Value], moment: datetime | None) -> dict[str, str]:
        """Writes values, over a new connection if there is none.

        Args:
            values: by node id.
            moment: when they became so; None leaves that to the server.

        Returns:
            By node id, the name of the status code of each that was not written.

        Raises:
            OSError: there is no connection, or it was lost; TimeoutError: it takes too long.
            asyncua.ua.UaError: the server refuses the request.
        """
        return self._run(self._write(values, moment), self._timeout)

    def close(self, timeout: float = 1) -> None:
        """Says goodbye, for so many seconds at most, and ends the thread."""
        client, self._client = self._client, None
        if client is not None:
            try:
                self._run(client.disconnect(), timeout)
            except Exception:  # it is over either way
                pass
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout)

    def _run(self, work: Coroutine[Any, Any, T], timeout: float) -> T:
        return asyncio.run_coroutine_threadsafe(
            asyncio.wait_for(work, timeout), self._loop
        ).result()

    async def _write(self, values: Mapping[str, Value], moment: datetime | None) -> dict[str, str]:
        self._came = 0
        try:
            if self._client is None:
                self._client = await self._connected()
            nodes = [ua.NodeId.from_string(name) for name in values]
            at = None if moment is None else ua.DateTime.fromisoformat(moment.isoformat())
            written = [
                ua.DataValue(
                    ua.Variant(value.value, _TYPES[value.type], is_array=value.is_array),
                    SourceTimestamp=at,
                )
                for value in values.values()
            ]
            codes = await self._client.uaclient.session.write_attributes(
                nodes, written, ua.AttributeIds.Value
            )
        except BaseException as error:
            if (client := self._client) is not None:
                self._client = None
                client.disconnect_socket()
            if self._came > _MOST:
                raise ConnectionError(f"sends more than {_MOST:,} bytes for an answer") from error
            raise
        if len(codes) != len(nodes):
            raise ua.UaError("answers for another number of nodes")
        return {
            name: code.name for name, code in zip(values, codes, strict=True) if not code.is_good()
        }

    async def _connected(self) -> Client:
        target = self._target
        client = Client(target.url, timeout=self._timeout)
        client.name = client.description = "stormpsr-jax"
        client.application_uri, client.session_timeout = _APPLICATION, _SESSION_MS
        make = getattr(client.uaclient, MAKE)

        def bounded() -> asyncio.Protocol:
            protocol = make()
            received = protocol.data_received

            def count(data: bytes) -> None:
                self._came += len(data)
                if self._came > _MOST:
                    protocol.disconnect_socket()
                else:
                    received(data)

            protocol.data_received = count
            return protocol

        setattr(client.uaclient, MAKE, bounded)
        if target.user is not None:
            client.set_user(target.user)
            client.set_password(target.password or "")
        if target.keys is not None:
            certificate = target.keys / "certificate.pem"
            client.application_uri = _uri_of(certificate) or _APPLICATION
            await client.set_security(
                SecurityPolicyBasic256Sha256,
                certificate,
                target.keys / "key.pem",
                server_certificate=str(target.keys / "server.pem"),
            )
        try:
            await client.connect()
        except BaseException:
            client.disconnect_socket()
            raise
        return client


def _uri_of(certificate: Path) -> str | None:
    """The URI in a certificate, which servers compare with what a client says of itself."""
    parsed = x509.load_pem_x509_certificate(certificate.read_bytes())
    try:
        names = parsed.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return None
    uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    return uris[0] if uris else None
