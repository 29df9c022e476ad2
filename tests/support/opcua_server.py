"""An OPC UA server on loopback whose nodes live recognition writes to."""

import asyncio
import json
import threading

from asyncua import Server, ua
from asyncua.crypto.permission_rules import SimpleRoleRuleset, User, UserRole
from asyncua.server.user_managers import UserManager

TYPES = {
    "Event": "",
    "Status": "",
    "Connected": False,
    "Step": "",
    "StepId": 0,
    "Confidence": 0.0,
    "States": [0],
    "Alert": "",
    "Unit": 0,
    "Missing": [""],
}
_INT = ua.VariantType.Int32


class _Users(UserManager):
    def __init__(self, user, password):
        self._known = user, password

    def get_user(self, iserver, username=None, password=None, certificate=None):
        if (username, password) == self._known:
            return User(role=UserRole.Admin)
        return None


class Plant:
    """Serves all nodes Line7.NAME, and of Line9 those that are needed; keeps what is written.

    Args:
        port: 0 takes a free one.
        user: (user, password) that are needed; None lets everybody in.
        keys: (certificate, key) with which alone it speaks; None for no encryption.
    """

    def __init__(self, port=0, user=None, keys=None):
        self.written, self.changed = [], threading.Condition()
        self._user, self._keys, self.port = user, keys, port
        self._ready, self._failed = threading.Event(), None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        assert self._ready.wait(20)
        if self._failed is not None:
            self._thread.join()
            raise self._failed

    @property
    def url(self):
        return f"opc.tcp://127.0.0.1:{self.port}"

    def wait(self, number, name="Line7.Event"):
        """Waits until a node was written so often, and returns all its values."""
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.of(name)) >= number, 20), self.written
        return self.of(name)

    def of(self, name):
        return [value for node, value, _ in self.written if node == name]

    def steps(self):
        return [json.loads(text)["step_id"] for text in self.of("Line7.Event")]

    def times(self, name):
        return [time for node, _, time in self.written if node == name]

    def hang_up(self):
        """Ends all connections."""
        for client in list(self._server.bserver.clients):
            self._loop.call_soon_threadsafe(client.transport.abort)

    def close(self):
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()
        self._loop.close()

    def _run(self):
        try:
            self._loop.run_until_complete(self._serve())
        except Exception as error:  # raised where it was started
            self._failed = error
            self._ready.set()

    async def _serve(self):
        self._stop = asyncio.Event()
        server = self._server = Server(user_manager=_Users(*self._user) if self._user else None)
        await server.init()
        if self._keys is None:
            server.set_security_policy([ua.SecurityPolicyType.NoSecurity])
        else:
            await server.load_certificate(self._keys[0])
            await server.load_private_key(self._keys[1])
            server.set_security_policy(
                [ua.SecurityPolicyType.Basic256Sha256_SignAndEncrypt],
                permission_ruleset=SimpleRoleRuleset(),
            )
        await server.register_namespace("urn:plant")
        names = [f"Line7.{name}" for name in TYPES] + ["Line9.Event", "Line9.Status"]
        for name in names:
            value = TYPES[name.partition(".")[2]]
            whole = isinstance(value[0] if isinstance(value, list) else value, int)
            kind = _INT if whole and value is not False else None
            node = await server.nodes.objects.add_variable(
                ua.NodeId(name, 2), ua.QualifiedName(name, 2), value, kind
            )
            await node.set_writable()
        server.set_endpoint(f"opc.tcp://127.0.0.1:{self.port}")
        write = server.iserver.attribute_service.write

        async def noted(parameters, *rest, **more):
            codes = await write(parameters, *rest, **more)
            with self.changed:
                for one, code in zip(parameters.NodesToWrite, codes, strict=True):
                    if code.is_good():
                        value = one.Value.Value.Value, one.Value.SourceTimestamp
                        self.written.append((str(one.NodeId.Identifier), *value))
                self.changed.notify_all()
            return codes

        server.iserver.attribute_service.write = noted
        async with server:
            self.port = server.bserver._server.sockets[0].getsockname()[1]
            self._ready.set()
            await self._stop.wait()
