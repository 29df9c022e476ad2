"""Against a real broker, mosquitto; without it, these tests skip."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import threading
import time

import pytest

from stormpsr_jax.live import mqtt
from tests.support.receivers import Double, broker, free_port

pytest.importorskip("paho", reason="needs the extra live")

BROKER = shutil.which("mosquitto", path=f"{os.environ['PATH']}:/usr/sbin")
needs_broker = pytest.mark.skipif(BROKER is None, reason="no mosquitto (Debian: apt install it)")


class Broker:
    """mosquitto, which keeps its state on disk so that it may be killed."""

    def __init__(self, folder, *lines):
        self.port = free_port()
        self._config = folder / "mosquitto.conf"
        state = ["persistence true", f"persistence_location {folder}/", "autosave_interval 1"]
        # Another user than the one who starts it could not read the folders of tests.
        lines = lines or ("allow_anonymous true",)
        text = [f"listener {self.port} 127.0.0.1", *state, "autosave_on_changes true", "user root"]
        self._config.write_text("\n".join([*text, *lines, ""]))
        self.start()

    def start(self):
        self._process = subprocess.Popen(
            [BROKER, "-c", self._config], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        for _ in range(100):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port)):
                return
            time.sleep(0.05)
        raise AssertionError("mosquitto does not start")

    def stop(self, how=signal.SIGTERM):
        self._process.send_signal(how)
        self._process.wait(10)


@pytest.fixture
def started(system, tmp_path):
    started = Broker(tmp_path)
    yield started
    started.stop()


class Subscriber:
    """Somebody else's client; its session outlasts a connection."""

    def __init__(self, port, name="listener"):
        from paho.mqtt import client, enums

        self.heard, self.changed = [], threading.Condition()
        self._subscribed = threading.Event()
        version = enums.CallbackAPIVersion.VERSION2
        self._client = client.Client(version, client_id=name, clean_session=False)
        self._client.on_connect = lambda c, *_: c.subscribe("#", qos=1)
        self._client.on_subscribe = lambda *_: self._subscribed.set()
        self._client.on_message = self._on_message
        self._client.reconnect_delay_set(1, 1)
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
def test_no_event_is_lost_when_the_broker_is_killed(started, capsys):
    listener = Subscriber(started.port)
    ours = mqtt.Mqtt(f"mqtt://127.0.0.1:{started.port}/line/7")
    listener.wait(lambda s: s.of("line/7/available") == ["online"])

    def send(*numbers):
        for number in numbers:
            ours.send({"type": "event", "step_id": number})

    def steps(listener):
        return [json.loads(text)["step_id"] for text in listener.of("line/7/events")]

    send(0, 1, 2)
    # A broker that is killed forgets what it has not saved yet: the listener has to have it.
    listener.wait(lambda s: len(steps(s)) == 3)
    time.sleep(1.2)
    started.stop(signal.SIGKILL)
    send(3, 4, 5)
    started.start()
    send(6)
    listener.wait(lambda s: set(steps(s)) == set(range(7)))
    ours.close()
    listener.wait(lambda s: s.of("line/7/available")[-1] == "offline")
    listener.close()
    # QoS 1: at least once, and in order but for what comes twice.
    assert list(dict.fromkeys(steps(listener))) == list(range(7))
    assert ours.dropped == 0
    assert "connects again" in capsys.readouterr().err


@needs_broker
def test_topics_and_last_will(started):
    listener = Subscriber(started.port)
    ours = mqtt.Mqtt(f"mqtt://127.0.0.1:{started.port}/line/7/")
    records = [{"type": kind, "step_id": i} for i, kind in enumerate(("event", "alert", "unit"))]
    for record in [*records, {"type": "status", "fps": 9.9}]:
        ours.send(record)
    listener.wait(lambda s: s.of("line/7/status"))
    assert [json.loads(text) for text in listener.of("line/7/events")] == records
    listener.close()
    later = Subscriber(started.port, "later")
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


def test_the_name_is_the_same_on_each_connection(system):
    """So that a broker which has not noticed a cut ends the old one before the new "online"."""
    with Double(broker) as double:
        ours = mqtt.Mqtt(f"mqtt://127.0.0.1:{double.port}/line/7")
        for number in range(2):
            ours.send({"type": "event", "step_id": number})
            double.wait(number + 1)
            ours._client.socket().shutdown(socket.SHUT_RDWR)
        ours.close()
    (name,) = set(double.heads)
    assert name.startswith("stormpsr-")
    assert len(name) <= 23, "brokers need not take longer ones"


@needs_broker
def test_the_password_is_used_and_never_printed(system, tmp_path, capsys):
    users = tmp_path / "users"
    words = ["mosquitto_passwd", "-b", "-c", users, "worker", "p@ss/word"]
    subprocess.run(words, check=True, stderr=subprocess.DEVNULL)
    started = Broker(tmp_path, "allow_anonymous false", f"password_file {users}")
    at, dropped = f"127.0.0.1:{started.port}/line", []
    try:
        for password, seconds in (("p%40ss%2Fword", 10), ("s3cret", 1)):
            ours = mqtt.Mqtt(f"mqtt://worker:{password}@{at}")
            ours.send({"type": "event"})
            ours.close(seconds)
            dropped.append(ours.dropped)
    finally:
        started.stop()
    assert dropped == [0, 1]
    error = capsys.readouterr().err
    assert f"warning: mqtt://{at}: refuses the connection: Not authorized" in error
    assert "s3cret" not in error
    assert "worker" not in error
