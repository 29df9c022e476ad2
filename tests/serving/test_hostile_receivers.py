"""Brokers and web servers that do harm: each ends in a line that names them, and memory is kept."""

import contextlib
import re
import socket
import threading
import time
import tracemalloc

import pytest

from stormpsr_jax.live import mqtt, opcua, outbox, webhook

CONNACK = b"\x20\x02\x00\x00"


@pytest.fixture
def serve(system):
    """Starts a server that does the same to every connection."""
    doors, threads = [], []

    def start(act):
        door = socket.create_server(("127.0.0.1", 0))
        doors.append(door)

        def work():
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = door.accept()
                    with connection, contextlib.suppress(OSError):
                        connection.settimeout(10)
                        connection.recv(4096)
                        act(connection)

        threads.append(threading.Thread(target=work))
        threads[-1].start()
        return door.getsockname()[1]

    yield start
    for door in doors:
        door.shutdown(socket.SHUT_RDWR)
        door.close()
    for thread in threads:
        thread.join()


def event():
    return {"type": "event", "step_id": 1}


class Said:
    """What stderr has said so far."""

    def __init__(self, capsys):
        self._capsys, self.text = capsys, ""

    def wait(self, pattern, seconds=5):
        end = time.monotonic() + seconds
        while not re.search(pattern, self.text):
            assert time.monotonic() < end, self.text
            time.sleep(0.02)
            self.text += self._capsys.readouterr().err


@pytest.fixture
def said(capsys):
    return Said(capsys)


@contextlib.contextmanager
def ended(output):
    try:
        yield output
    finally:
        output.close(0.1)


def published(number, qos, size):
    """A PUBLISH packet of so many bytes of payload."""
    body = b"\x00\x01a" + (number.to_bytes(2, "big") if qos else b"") + bytes(size)
    left, length = len(body), b""
    while left or not length:
        left, digit = divmod(left, 128)
        length += bytes([digit | 128 * (left > 0)])
    return bytes([0x30 | qos << 1]) + length + body


@pytest.mark.parametrize("qos", [0, 1, 2])
def test_a_broker_that_publishes_to_us_is_left_and_nothing_is_kept(qos, serve, said):
    pytest.importorskip("paho", reason="needs the extra live")
    sent = []

    def act(connection):
        connection.sendall(CONNACK)
        for number in range(1, 100):
            connection.sendall(published(number, qos, 2**20))
            sent.append(number)

    port = serve(act)
    tracemalloc.start()
    with ended(mqtt.Mqtt(f"mqtt://127.0.0.1:{port}/line")):
        said.wait(rf"warning: mqtt://127\.0\.0\.1:{port}/line: publishes to us, who have")
        time.sleep(0.2)
    assert tracemalloc.get_traced_memory()[1] < 2**23
    tracemalloc.stop()
    assert len(sent) < 20, "the connection is ended"


@pytest.mark.parametrize(
    "packet",
    [b"\x90\xff\xff\xff\x7f", b"\x40\x82\x00\x00\x01", b"HTTP/1.1 400"],
    ids=["long", "length", "http"],
)
def test_a_broker_whose_packets_are_no_answers_is_left(packet, serve, said):
    pytest.importorskip("paho", reason="needs the extra live")
    port = serve(lambda connection: (connection.sendall(packet), time.sleep(0.1)))
    with ended(mqtt.Mqtt(f"mqtt://127.0.0.1:{port}/line")):
        said.wait(f"127.0.0.1:{port}/line: sends what is no answer of a broker")
    said.wait("")
    assert said.text.count("warning") == 1


def test_a_broker_that_answers_without_end_is_left(serve, said):
    pytest.importorskip("paho", reason="needs the extra live")

    def act(connection):
        connection.sendall(CONNACK)
        while True:
            connection.sendall(1000 * b"\x40\x02\x12\x34")

    with ended(mqtt.Mqtt(f"mqtt://127.0.0.1:{serve(act)}/line")):
        said.wait("answers more often than it was asked")


@pytest.mark.parametrize("first", [0, 1, 5, 200])
def test_every_answer_to_a_connection_is_taken_or_told(first, serve, said):
    """No byte in a CONNACK ends the thread that would connect again."""
    pytest.importorskip("paho", reason="needs the extra live")
    port = serve(lambda connection: connection.sendall(bytes([0x20, 2, first % 2, first])))
    with ended(mqtt.Mqtt(f"mqtt://127.0.0.1:{port}/line")):
        said.wait("refuses the connection|ends the connection before|the connection is lost")


def test_a_broker_that_hangs_up_before_it_answers_is_named(serve, said):
    pytest.importorskip("paho", reason="needs the extra live")
    port = serve(lambda connection: None)
    with ended(mqtt.Mqtt(f"mqtt://127.0.0.1:{port}/line")):
        said.wait(f"mqtt://127.0.0.1:{port}/line: ends the connection before it has answered")


@pytest.mark.parametrize("answer", [b"", CONNACK], ids=["nothing", "no acknowledgement"])
def test_a_broker_that_takes_no_record_is_named(answer, serve, said, monkeypatch):
    pytest.importorskip("paho", reason="needs the extra live")
    monkeypatch.setattr(outbox, "PATIENCE", 0.3)
    gone = threading.Event()
    port = serve(lambda connection: (connection.sendall(answer), gone.wait(5)))
    with ended(mqtt.Mqtt(f"mqtt://127.0.0.1:{port}/line")) as ours:
        ours.send(event())
        said.wait(f"127.0.0.1:{port}/line: has not taken a record for 0.3 s; goes on trying")
        gone.set()


def test_a_broker_that_comes_and_goes_finds_one_word_online(serve, monkeypatch):
    """The word "online" is not put into the queue of paho-mqtt once for each connection."""
    pytest.importorskip("paho", reason="needs the extra live")
    heard = []

    def act(connection):
        connection.sendall(CONNACK)
        time.sleep(0.1)
        heard.append(connection.recv(65536).count(b"online"))

    port = serve(act)
    with ended(mqtt.Mqtt(f"mqtt://127.0.0.1:{port}/line")) as ours:
        ours._client.reconnect_delay_set(1, 1)
        end = time.monotonic() + 8
        while len(heard) < 2 and time.monotonic() < end:
            time.sleep(0.02)
    assert heard[:2] == [1, 1]


def drip(head, piece):
    def act(connection):
        connection.sendall(head)
        while True:
            connection.sendall(piece)
            time.sleep(0.02)

    return act


@pytest.mark.parametrize(
    "act",
    [
        drip(b"", b"H"),
        drip(b"HTTP/1.1 204 OK\r\n", b"a: b\r\n"),
        drip(b"HTTP/1.1 204 OK\r\nx: ", b"y"),
        drip(b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
        lambda connection: connection.recv(65536) and connection.recv(1),
    ],
    ids=["status", "fields", "field", "continue", "nothing"],
)
def test_a_web_server_has_a_time_for_a_whole_answer(act, serve, said, monkeypatch):
    monkeypatch.setattr(webhook, "_TIMEOUT", 0.5)
    port = serve(act)
    with ended(webhook.Webhook(f"http://127.0.0.1:{port}/", first_pause=0.01)) as ours:
        ours.send(event())
        said.wait(f"http://127.0.0.1:{port}: has not answered within 0.5 s; goes on trying")


def test_a_web_server_that_floods_before_it_answers_is_left(serve, said):
    def act(connection):
        while True:
            connection.sendall(1000 * b"HTTP/1.1 100 Continue\r\na: b\r\n\r\n")

    port = serve(act)
    with ended(webhook.Webhook(f"http://127.0.0.1:{port}/", first_pause=0.01)) as ours:
        ours.send(event())
        said.wait(f"http://127.0.0.1:{port}: answers what is no HTTP .HTTPException.; goes on", 3)


def test_a_web_server_that_drips_its_certificate_has_that_time_too(serve, said, monkeypatch):
    monkeypatch.setattr(webhook, "_TIMEOUT", 0.5)
    port = serve(drip(b"\x16\x03\x03\x40\x00\x02\x00\x3f\xfc\x03\x03", b"a"))
    with ended(webhook.Webhook(f"https://127.0.0.1:{port}/", first_pause=0.01)) as ours:
        ours.send(event())
        said.wait(f"https://127.0.0.1:{port}: has not answered within 0.5 s; goes on trying")


def test_a_web_server_that_is_slow_is_named_before_its_time_is_over(serve, said, monkeypatch):
    assert outbox.PATIENCE < 5
    monkeypatch.setattr(outbox, "PATIENCE", 0.3)
    gone = threading.Event()
    port = serve(lambda connection: gone.wait(9))
    with ended(webhook.Webhook(f"http://127.0.0.1:{port}/")) as ours:
        ours.send(event())
        said.wait(f"http://127.0.0.1:{port}: has not taken a record for 0.3 s")
        gone.set()


@pytest.mark.parametrize(
    "answer",
    [
        b"\x1b[2Jerror: all is lost\r\n\r\n",
        b"HTTP/1.1 abc \x1b]0;forged\x07\r\n\r\n",
        b"HTTP/1.1 200" + 60_000 * b"x" + b"\r\n\r\n",
        70_000 * b"\x9b",
        b"HTTP/1.1 204 OK\r\n" + 200 * b"a: \x1b[31m\r\n" + b"\r\n",
    ],
)
def test_what_a_web_server_says_reaches_the_terminal_in_no_other_form(answer, serve, said):
    port = serve(lambda connection: connection.sendall(answer))
    with ended(webhook.Webhook(f"http://127.0.0.1:{port}/", first_pause=9)) as ours:
        ours.send(event())
        said.wait("goes on trying")
    said.wait("did not arrive")
    lines = said.text.splitlines()
    assert len(lines) == 2
    assert all(line.startswith(f"warning: http://127.0.0.1:{port}: ") for line in lines)
    assert said.text.replace("\n", "").isprintable()
    assert len(said.text) < 500


def test_whatever_a_receiver_says_is_cut_and_written_out(capsys):
    box = outbox.Outbox("receiver")
    box.warn("a\x1b[2J\x9b\u202e\r\nwarning: forged " + 60_000 * "x")
    box.close(1)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(r"warning: receiver: a\x1b[2J\x9b\u202e warning: forged xxx")
    assert len(line) < 300


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (b"ACKF" + (2**32 - 1).to_bytes(4, "little"), "sends more than 1,048,576 bytes"),
        (b"MSGC" + (2**31).to_bytes(4, "little"), "sends more than 1,048,576 bytes"),
        (b"HTTP/1.1 400 \r\n\r\n", "goes on trying"),
        (b"ACKF" + (28).to_bytes(4, "little") + bytes(20), "goes on trying"),
    ],
    ids=["long", "chunk", "http", "zeros"],
)
def test_an_opc_ua_server_that_answers_without_end_or_sense_is_left(
    answer, told, serve, said, monkeypatch
):
    pytest.importorskip("asyncua", reason="needs the extra opcua")
    monkeypatch.setattr(opcua, "_TIMEOUT", 2)
    sent = []

    def act(connection):
        connection.sendall(answer)
        for _ in range(64):
            connection.sendall(bytes(2**20))
            sent.append(1)

    port = serve(act)
    with ended(opcua.OpcUa(f"opc.tcp://127.0.0.1:{port}#ns=2;s=x", first_pause=60)) as ours:
        tracemalloc.start()
        ours.send(event())
        said.wait(rf"warning: opc\.tcp://127\.0\.0\.1:{port}#ns=2;s=x: .*{told}")
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 2**24
    assert len(sent) < 20, "the connection is ended"
    assert "Traceback" not in said.text
