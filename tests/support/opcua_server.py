import json
import logging
import threading

from asyncua import sync, ua
from asyncua.crypto.permission_rules import SimpleRoleRuleset, User, UserRole
from asyncua.server.user_managers import UserManager

_INT = ua.VariantType.Int32
TYPES = {
    "Event": ("", None),
    "Status": ("", None),
    "Connected": (False, None),
    "Step": ("", None),
    "StepId": (0, _INT),
    "Confidence": (0.0, None),
    "States": ([0], _INT),
    "Unsure": ([""], None),
    "Alert": ("", None),
    "Unit": (0, _INT),
    "Missing": ([""], None),
}


class _Users(UserManager):
    def __init__(self, user, password):
        self._known = user, password

    def get_user(self, iserver, username=None, password=None, certificate=None):
        if (username, password) == self._known:
            return User(role=UserRole.Admin)
        return None


class Plant:
    """Serves all nodes Line7.NAME, and of Line9 those that are needed; keeps what is written.

    It needs this (user, password), and speaks with these keys (certificate, key) alone.
    """

    def __init__(self, user=None, keys=None):
        logging.getLogger("asyncua").setLevel(logging.CRITICAL + 1)
        self.written, self.changed = [], threading.Condition()
        self._server = server = sync.Server()
        inner = server.aio_obj
        if user is not None:
            inner.iserver.user_manager = _Users(*user)
        if keys is None:
            server.set_security_policy([ua.SecurityPolicyType.NoSecurity])
        else:
            server.load_certificate(str(keys[0]))
            server.load_private_key(str(keys[1]))
            policy = [ua.SecurityPolicyType.Basic256Sha256_SignAndEncrypt]
            server.set_security_policy(policy, permission_ruleset=SimpleRoleRuleset())
        server.register_namespace("urn:plant")
        for name in [*(f"Line7.{name}" for name in TYPES), "Line9.Event", "Line9.Status"]:
            at = ua.NodeId(name, 2), ua.QualifiedName(name, 2)
            node = server.nodes.objects.add_variable(*at, *TYPES[name.partition(".")[2]])
            node.set_writable()
        service = inner.iserver.attribute_service
        write = service.write

        async def noted(parameters, *rest, **more):
            codes = await write(parameters, *rest, **more)
            with self.changed:
                for one, code in zip(parameters.NodesToWrite, codes, strict=True):
                    if code.is_good():
                        value = one.Value.Value.Value, one.Value.SourceTimestamp
                        self.written.append((str(one.NodeId.Identifier), *value))
                self.changed.notify_all()
            return codes

        service.write = noted
        server.set_endpoint("opc.tcp://127.0.0.1:0")
        server.start()
        self.port = inner.bserver._server.sockets[0].getsockname()[1]
        self.url = f"opc.tcp://127.0.0.1:{self.port}"

    def wait(self, number, name="Line7.Event"):
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.of(name)) >= number, 20), self.written

    def of(self, name):
        return [value for node, value, _ in self.written if node == name]

    def steps(self):
        return [json.loads(text)["step_id"] for text in self.of("Line7.Event")]

    def close(self):
        self._server.stop()
