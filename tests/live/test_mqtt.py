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

pytest.importorskip("paho", reason="needs the extra live")

BROKER = shutil.which("mosquitto", path=f"{os.environ['PATH']}:/usr/sbin")
needs_broker = pytest.mark.skipif(BROKER is None, reason="no mosquitto (Debian: apt install it)")


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


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
def broker(system, tmp_path):
    broker = Broker(tmp_path)
    yield broker
    broker.stop()


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

    def wait(self, done, seconds=30):
        with self.changed:
            assert self.changed.wait_for(lambda: done(self), seconds), self.heard

    def of(self, topic):
        return [text for name, text, _ in self.heard if name == topic]

    def steps(self):
        return [json.loads(text)["step_id"] for text in self.of("line/7/events")]

    def close(self):
        self._client.disconnect()
        self._client.loop_stop()


@needs_broker
def test_mqtt_no_event_is_lost_when_the_broker_restarts_twice(broker, capsys):
    listener = Subscriber(broker.port)
    ours = mqtt.Mqtt(f"mqtt://127.0.0.1:{broker.port}/line/7")
    listener.wait(lambda s: s.of("line/7/available") == ["online"])
    sent = []

    def send_some():
        for _ in range(5):
            sent.append(len(sent))
            start = time.perf_counter()
            ours.send({"type": "event", "step_id": sent[-1]})
            assert time.perf_counter() - start < 0.1, "send waits for nobody"
            time.sleep(0.02)

    def all_heard(listener):
        return set(listener.steps()) == set(sent)

    for how in (signal.SIGTERM, signal.SIGKILL):
        send_some()
        # A broker that is killed forgets what it has not saved yet: the listener has to have it.
        listener.wait(all_heard)
        time.sleep(1.2 if how == signal.SIGKILL else 0)
        broker.stop(how)
        send_some()
        broker.start()
        send_some()
        listener.wait(all_heard)
    ours.close()
    listener.wait(lambda s: s.of("line/7/available")[-1] == "offline")
    listener.close()
    # QoS 1: at least once, and in order but for what comes twice.
    assert list(dict.fromkeys(listener.steps())) == sent
    assert ours.dropped == 0
    assert "connects again" in capsys.readouterr().err


@needs_broker
def test_mqtt_topics_and_last_will(broker):
    listener = Subscriber(broker.port)
    ours = mqtt.Mqtt(f"mqtt://127.0.0.1:{broker.port}/line/7/")
    records = [{"type": kind, "step_id": i} for i, kind in enumerate(("event", "alert", "unit"))]
    for record in [*records, {"type": "status", "fps": 9.9}]:
        ours.send(record)
    listener.wait(lambda s: s.of("line/7/status"))
    assert [json.loads(text) for text in listener.of("line/7/events")] == records
    listener.close()
    later = Subscriber(broker.port, "later")
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


class Way:
    """Passes on what a client and a broker say; the client's side alone can be cut."""

    def __init__(self, port):
        self.ends = []  # (client's, broker's) of each connection
        self._to, self._threads = port, []
        self._door = socket.create_server(("127.0.0.1", 0))
        self.port = self._door.getsockname()[1]
        self._start(self._accept)

    def _start(self, act, *values):
        self._threads.append(threading.Thread(target=act, args=values))
        self._threads[-1].start()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                ends = self._door.accept()[0], socket.create_connection(("127.0.0.1", self._to))
                self.ends.append(ends)
                self._start(self._copy, *ends)
                self._start(self._copy, *reversed(ends))

    def _copy(self, source, target):
        with contextlib.suppress(OSError):
            while data := source.recv(4096):
                target.sendall(data)

    def cut(self):
        self.ends[-1][0].shutdown(socket.SHUT_RDWR)

    def close(self):
        for end in (self._door, *(end for ends in self.ends for end in ends)):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
        for thread in self._threads:
            thread.join()


@needs_broker
def test_mqtt_who_is_back_stays_online_though_the_broker_did_not_notice_the_cut(
    broker, monkeypatch
):
    monkeypatch.setattr(mqtt, "_KEEP_ALIVE", 1)  # the will of a silent connection comes after 1.5 s
    listener = Subscriber(broker.port)
    way = Way(broker.port)
    ours = mqtt.Mqtt(f"mqtt://127.0.0.1:{way.port}/line/7")
    try:
        listener.wait(lambda s: s.of("line/7/available") == ["online"])
        way.cut()
        listener.wait(lambda s: s.of("line/7/available").count("online") == 2)
        time.sleep(3)
        # A busy machine may have lost that connection too, and be back soon.
        listener.wait(lambda s: s.of("line/7/available")[-1] == "online", 3)
    finally:
        ours.close()
        listener.close()
        way.close()
    assert 0 < len(ours._client._client_id) <= 23, "brokers need not take longer ones"


@needs_broker
def test_mqtt_password_is_used_and_never_printed(tmp_path, capsys, monkeypatch):
    users = tmp_path / "users"
    words = ["mosquitto_passwd", "-b", "-c", users, "worker", "p@ss/word"]
    subprocess.run(words, check=True, stderr=subprocess.DEVNULL)
    broker = Broker(tmp_path, "allow_anonymous false", f"password_file {users}")
    at = f"127.0.0.1:{broker.port}/line"
    try:
        for url, variable in (
            (f"mqtt://worker:p%40ss%2Fword@{at}", None),
            (f"mqtt://worker@{at}", "p@ss/word"),
        ):
            if variable:
                monkeypatch.setenv(mqtt.PASSWORD, variable)
            ours = mqtt.Mqtt(url)
            ours.send({"type": "event"})
            ours.close(10)
            assert ours.dropped == 0
        assert capsys.readouterr().err == ""
        ours = mqtt.Mqtt(f"mqtt://worker:secret@{at}")
        ours.send({"type": "event"})
        ours.close(1)
    finally:
        broker.stop()
    assert ours.dropped == 1
    error = capsys.readouterr().err
    assert f"warning: mqtt://{at}: refuses the connection: Not authorized" in error
    assert "secret" not in error
    assert "worker" not in error


@needs_broker
@pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl to make a certificate")
def test_mqtt_certificates_are_checked(tmp_path, capsys, monkeypatch):
    certificate = ["-keyout", tmp_path / "key.pem", "-out", tmp_path / "cert.pem", "-days", "1"]
    words = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", *certificate]
    words += ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    subprocess.run(words, check=True, stderr=subprocess.DEVNULL)
    secure = (f"certfile {tmp_path}/cert.pem", f"keyfile {tmp_path}/key.pem")
    broker = Broker(tmp_path, *secure, "allow_anonymous true")
    dropped = []
    try:
        for trusted in (None, tmp_path / "cert.pem"):
            if trusted:
                monkeypatch.setenv("SSL_CERT_FILE", str(trusted))
            ours = mqtt.Mqtt(f"mqtts://127.0.0.1:{broker.port}/line")
            ours.send({"type": "event"})
            ours.close(5 if trusted else 1)
            dropped.append(ours.dropped)
    finally:
        broker.stop()
    assert dropped == [1, 0]
    assert "cannot be reached" in capsys.readouterr().err


def test_mqtt_without_a_broker_nothing_waits(capsys):
    ours = mqtt.Mqtt(f"mqtt://127.0.0.1:{free_port()}/line", size=3)
    start = time.perf_counter()
    for i in range(20):
        ours.send({"type": "event", "step_id": i})
    assert time.perf_counter() - start < 0.5
    start = time.monotonic()
    ours.close(0.3)
    assert time.monotonic() - start < 5
    assert ours.dropped == 20
    assert "cannot be reached; goes on trying" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("mqtt://host/a", "mqtt://host:1883/a"),
        ("mqtts://u:p%2F@[::1]:99/a/b%20c/", "mqtts://[::1]:99/a/b c"),
        ("mqtts://host/a", "mqtts://host:8883/a"),
    ],
)
def test_parse_shown_without_user_and_password(url, shown):
    assert repr(mqtt.parse(url)) == str(mqtt.parse(url)) == shown


def test_parse_user_and_password_are_decoded(monkeypatch):
    broker = mqtt.parse("mqtt://a%40b:p%3Aq@host/x")
    assert (broker.user, broker.password) == ("a@b", "p:q")
    monkeypatch.setenv(mqtt.PASSWORD, "of the environment")
    assert mqtt.parse("mqtt://a@host/x").password == "of the environment"
    assert mqtt.parse("mqtt://host/x").password is None


@pytest.mark.parametrize(
    "url",
    [
        "host/a",
        "http://u:hunter2@host/a",
        "mqtt://u:hunter2@host",
        "mqtt://u:hunter2@host/",
        "mqtt://u:hunter2@host/a/#",
        "mqtt://u:hunter2@host/a%23",
        "mqtt://u:hunter2@host/a?b",
        "mqtt://u:hunter2@host/$SYS",
        "mqtt://u:hunter2@host:0/a",
        "mqtt://u:hunter2@host:port/a",
        "mqtt://u:hunter2/x@host/a",
        "mqtt://u:hunter2@[::1/a",
        "mqtt://:hunter2@host/a",
        "mqtt://u:hunter2@" + "h" * 70 + "/a",
        "mqtt://u:hunter2@host/" + "a" * 201,
    ],
)
def test_parse_errors_one_line_without_the_password(url):
    with pytest.raises(ValueError, match="--mqtt: must be like mqtt://") as error:
        mqtt.parse(url)
    assert "hunter2" not in str(error.value)
    assert "\n" not in str(error.value)
