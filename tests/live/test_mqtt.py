"""Against a real broker, mosquitto; without it, these tests skip."""

import contextlib
import json
import os
import shutil
import socket
import subprocess
import threading
import time

import pytest

from stormpsr_jax.live import receivers
from tests.support.processes import free_port

pytest.importorskip("paho", reason="needs the extra live")

BROKER = shutil.which("mosquitto", path=f"{os.environ['PATH']}:/usr/sbin")
needs_broker = pytest.mark.skipif(BROKER is None, reason="no mosquitto (Debian: apt install it)")


@contextlib.contextmanager
def mosquitto(folder, *lines):
    port, config = free_port(), folder / "mosquitto.conf"
    # Another user than the one who starts it could not read the folders of tests.
    config.write_text("\n".join([f"listener {port} 127.0.0.1", "user root", *lines, ""]))
    words, nowhere = [BROKER, "-c", config], subprocess.DEVNULL
    with subprocess.Popen(words, stdout=nowhere, stderr=nowhere) as process:
        for _ in range(100):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                break
            time.sleep(0.05)
        yield port
        process.terminate()


class Subscriber:
    def __init__(self, port, name):
        from paho.mqtt import client, enums

        self.heard, self.changed = [], threading.Condition()
        self._subscribed = threading.Event()
        version = enums.CallbackAPIVersion.VERSION2
        self._client = client.Client(version, client_id=name)
        self._client.on_connect = lambda c, *_: c.subscribe("#", qos=1)
        self._client.on_subscribe = lambda *_: self._subscribed.set()
        self._client.on_message = self._on_message
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()
        assert self._subscribed.wait(5)

    def _on_message(self, client, data, message):
        with self.changed:
            self.heard.append((message.topic, message.payload.decode(), message.retain))
            self.changed.notify_all()

    def wait(self, done):
        with self.changed:
            assert self.changed.wait_for(lambda: done(self), 30), self.heard

    def of(self, topic):
        return [text for name, text, _ in self.heard if name == topic]

    def close(self):
        self._client.disconnect()
        self._client.loop_stop()


@needs_broker
def test_topics_and_last_will(system, tmp_path):
    with mosquitto(tmp_path, "allow_anonymous true") as port:
        listener = Subscriber(port, "listener")
        ours = receivers.Mqtt(f"mqtt://127.0.0.1:{port}/line/7/")
        records = [{"type": kind, "step_id": i} for i, kind in enumerate(("event", "alert"))]
        for record in [*records, {"type": "status", "fps": 9.9}]:
            ours.send(record)
        listener.wait(lambda s: s.of("line/7/status"))
        assert [json.loads(text) for text in listener.of("line/7/events")] == records
        listener.close()
        later = Subscriber(port, "later")
        later.wait(lambda s: len(s.heard) >= 2)
        assert sorted(later.heard) == [
            ("line/7/available", "online", True),
            ("line/7/status", '{"type": "status", "fps": 9.9}', True),
        ]
        ours._client.socket().shutdown(socket.SHUT_RDWR)  # as if the cable were cut
        later.wait(lambda s: s.of("line/7/available")[1:3] == ["offline", "online"])
        ours.close()
        later.wait(lambda s: s.of("line/7/available")[-1] == "offline")
        later.close()


@needs_broker
def test_the_password_is_used_and_never_printed(system, tmp_path, capsys):
    users, dropped = tmp_path / "users", []
    words = ["mosquitto_passwd", "-b", "-c", users, "worker", "p@ss/word"]
    subprocess.run(words, check=True, stderr=subprocess.DEVNULL)
    with mosquitto(tmp_path, "allow_anonymous false", f"password_file {users}") as port:
        for password, seconds in (("p%40ss%2Fword", 10), ("s3cret", 1)):
            ours = receivers.Mqtt(f"mqtt://worker:{password}@127.0.0.1:{port}/line")
            ours.send({"type": "event"})
            ours.close(seconds)
            dropped.append(ours.dropped)
    assert dropped == [0, 1]
    error = capsys.readouterr().err
    assert f"warning: mqtt://127.0.0.1:{port}/line: refuses the connection: Not autho" in error
    assert "s3cret" not in error
    assert "worker" not in error
