import contextlib
import shutil
import ssl
import time

import pytest

from stormpsr_jax.live import receivers
from tests.support.processes import free_port
from tests.support.receivers import (
    REFUSED,
    Double,
    Said,
    broker,
    hanging_up,
    make_keys,
    saying,
    web_server,
)

ESCAPES = b"\x1b[2Jerror: \x9b\x1b]0;forged\x07 all is lost\r\n"
PASSWORDS = "p%40s%3A%2Fs3cret"


# How it is opened, and the address that lines name.
SINKS = {
    "mqtt": (
        lambda port, secure="": receivers.Mqtt(
            f"mqtt{secure}://u:{PASSWORDS}@127.0.0.1:{port}/line"
        ),
        "mqtt://127.0.0.1:{}/line",
    ),
    "webhook": (
        lambda port, secure="": receivers.Webhook(
            f"http{secure}://u:{PASSWORDS}@127.0.0.1:{port}/s3cret"
        ),
        "http://127.0.0.1:{}",
    ),
}
FAULTS = {
    "is down": None,
    "is silent": saying(),
    "hangs up": hanging_up,
    "talks nonsense": saying(ESCAPES, 70_000 * b"\x9b"),
    "refuses": {
        "mqtt": saying(REFUSED),
        "webhook": saying(b"HTTP/1.1 503 \x1b[31m\r\n\r\n"),
    },
}


@pytest.fixture(params=SINKS)
def kind(system, request):
    pytest.importorskip({"mqtt": "paho"}.get(request.param, "json"))
    return request.param


def taking(kind, port=0, tls=None):
    return Double({"mqtt": broker, "webhook": web_server()}[kind], port, tls)


@pytest.fixture
def said(capsys, monkeypatch):
    monkeypatch.setattr(receivers, "PATIENCE", 0.3)
    monkeypatch.setattr(receivers, "TIMEOUT", 0.5)
    monkeypatch.setattr(receivers, "FIRST_PAUSE", 0.05)
    return Said(capsys)


def event(number):
    return {"type": "event", "step_id": number}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_receiver_is_named_waited_for_and_gets_everything_when_it_is_back(fault, kind, said):
    start, name = SINKS[kind]
    port, act = free_port(), FAULTS[fault]
    act = act[kind] if fault == "refuses" else act
    with contextlib.nullcontext() if act is None else Double(act, port):
        ours = start(port)
        begin = time.perf_counter()
        for number in range(3):
            ours.send(event(number))
        assert time.perf_counter() - begin < 0.3, "send waits for nobody"
        said.wait(f"warning: {name.format(port)}: ")
    with taking(kind, port) as taker:
        taker.wait(3)
        ours.close()
        assert list(dict.fromkeys(taker.steps())) == [0, 1, 2]
    assert ours.dropped == 0
    said.wait("")
    for line in said.text.splitlines():
        assert line.startswith(f"warning: {name.format(port)}: "), line
        assert line.isprintable()
        assert len(line) < 300
    assert "s3cret" not in said.text


def test_close_is_bounded_and_counts_what_did_not_arrive(kind, said):
    start, name = SINKS[kind]
    with Double(saying()) as silent:
        ours = start(silent.port)
        for number in range(3):
            ours.send(event(number))
        said.wait({"mqtt": "has not taken a record for 0.3 s", "webhook": "has not answered"}[kind])
        begin = time.monotonic()
        ours.close(0.2)
        assert time.monotonic() - begin < 4
    assert ours.dropped == 3
    said.wait(f"warning: {name.format(silent.port)}: 3 records did not arrive")


@pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl to make a certificate")
def test_certificates_are_checked(kind, tmp_path, monkeypatch, said):
    start, _ = SINKS[kind]
    keys = make_keys(tmp_path / "keys")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(keys / "certificate.pem", keys / "key.pem")
    dropped = []
    with taking(kind, tls=context) as taker:
        for trusted in (False, True):
            if trusted:
                monkeypatch.setenv("SSL_CERT_FILE", str(keys / "certificate.pem"))
            ours = start(taker.port, "s")
            ours.send(event(trusted))
            ours.close(3 if trusted else 0.5)
            dropped.append(ours.dropped)
    assert dropped == [1, 0]
    assert taker.steps() == [1]


def test_order_is_kept_where_the_server_fails_at_times(system, said):
    with Double(web_server(503, None, 302, 204, 500, 422)) as receiver:
        url = f"http://worker:p%40ss@127.0.0.1:{receiver.port}/hooks/secret?line=7"
        ours = receivers.Webhook(url)
        for number in range(4):
            ours.send(event(number))
        receiver.wait(8)
        ours.close()
    assert receiver.steps() == [0, 0, 0, 0, 1, 1, 2, 3], (
        "422 refuses a record, and holds nothing up"
    )
    assert ours.dropped == 1
    keys = [headers["Idempotency-Key"] for _, _, headers in receiver.heads]
    assert len(set(keys[:4])) == 1
    assert len(set(keys)) == 4, "the same key for the same record alone"
    for _, path, headers in receiver.heads:
        assert path == "/hooks/secret?line=7", "redirects are not followed"
        assert headers["Content-Type"] == "application/json"
        assert headers["Authorization"] == "Basic d29ya2VyOnBAc3M="
    said.wait("refuses a record with status 422")
    error = said.text
    assert f"warning: http://127.0.0.1:{receiver.port}: answers with status 503" in error
    assert "status 302, a redirect, which is not followed" in error
    assert "secret" not in error
    assert "p@ss" not in error


def test_mqtt_topics_last_will_and_login(system):
    pytest.importorskip("paho")
    with Double(broker) as double:
        ours = receivers.Mqtt(f"mqtt://u:{PASSWORDS}@127.0.0.1:{double.port}/line/7/")
        for kind in ("event", "alert", "status"):
            ours.send({"type": kind, "step_id": 3})
        double.wait(3)
        ours.close()
    assert double.greeting[1:] == ["line/7/available", "offline", "u", "p@s:/s3cret"]
    assert [record["type"] for record in double.records] == ["event", "alert", "status"]
    assert double.heads == [
        ("line/7/available", True, "online"),
        ("line/7/events", False),
        ("line/7/events", False),
        ("line/7/status", True),
        ("line/7/available", True, "offline"),
    ]


BAD = """
{}://u:hunter2@host:0/a
{}://u:hunter2@host:port/a
{}://u:hunter2/x@host/a
{}://u:hunter2@[::1/a
{}://u:hunter2@ho st/a
{}://u:hunter2@LONG/a
{}://u:hunter2@host/a\rb
{}:///hunter2
host/hunter2
ftp://u:hunter2@host/a
mqtt://u:hunter2@host/
mqtt://u:hunter2@host/a%23
mqtt://u:hunter2@host/a?b
mqtt://u:hunter2@host/$SYS
mqtt://:hunter2@host/a
mqtt://u:hunter2@host/LONGLONGLONG
http://host/hunter2 b
http://host/hunter2/ü
""".replace("LONG", 70 * "h")


@pytest.mark.parametrize("url", BAD.strip().split("\n"))
@pytest.mark.parametrize(
    ("parse", "scheme"), [(receivers.parse_broker, "mqtt"), (receivers.parse_hook, "http")]
)
def test_what_is_no_address_is_refused_in_a_line_that_repeats_no_password(parse, scheme, url):
    with pytest.raises(ValueError, match=r"^--(mqtt|webhook): must be like .*$") as error:
        parse(url.format(scheme))
    assert "hunter2" not in str(error.value)
