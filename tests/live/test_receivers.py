import contextlib
import itertools
import shutil
import ssl
import time

import pytest

from stormpsr_jax.live import mqtt, outbox, webhook
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
        lambda port, secure="": mqtt.Mqtt(f"mqtt{secure}://u:{PASSWORDS}@127.0.0.1:{port}/line"),
        "mqtt://127.0.0.1:{}/line",
    ),
    "webhook": (
        lambda port, secure="": webhook.Webhook(
            f"http{secure}://u:{PASSWORDS}@127.0.0.1:{port}/s3cret", first_pause=0.05
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
    monkeypatch.setattr(outbox, "PATIENCE", 0.3)
    return Said(capsys)


def event(number):
    return {"type": "event", "step_id": number}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_receiver_is_named_waited_for_and_gets_everything_when_it_is_back(
    fault, kind, said, monkeypatch
):
    monkeypatch.setattr(webhook, "TIMEOUT", 0.5)
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
        said.wait("has not taken a record for 0.3 s; goes on trying")
        begin = time.monotonic()
        ours.close(0.2)
        assert time.monotonic() - begin < 4
    assert ours.dropped == 3
    said.wait(f"warning: {name.format(silent.port)}: 3 records did not arrive")
    assert outbox.Outbox.__init__.__defaults__[0] == 1000


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


BAD_URLS = [
    ("{}://u:hunter2@host:0/a"),
    ("{}://u:hunter2@host:port/a"),
    ("{}://u:hunter2/x@host/a"),
    ("{}://u:hunter2@[::1/a"),
    ("{}://u:hunter2@ho st/a"),
    ("{}://u:hunter2@" + "h" * 70 + "/a"),
    ("{}://u:hunter2@host/a\r\nb"),
    ("{}:///hunter2"),
    ("host/hunter2"),
    ("ftp://u:hunter2@host/a"),
]
BAD = [
    *[
        (parse, url.format(scheme))
        for (parse, scheme), url in itertools.product(
            [(mqtt.parse, "mqtt"), (webhook.parse, "http")], BAD_URLS
        )
    ],
    (mqtt.parse, "mqtt://u:hunter2@host/"),
    (mqtt.parse, "mqtt://u:hunter2@host/a%23"),
    (mqtt.parse, "mqtt://u:hunter2@host/a?b"),
    (mqtt.parse, "mqtt://u:hunter2@host/$SYS"),
    (mqtt.parse, "mqtt://:hunter2@host/a"),
    (mqtt.parse, "mqtt://u:hunter2@host/" + "a" * 201),
    (webhook.parse, "http://host/hunter2 b"),
    (webhook.parse, "http://host/hunter2/ü"),
]


@pytest.mark.parametrize(("parse", "url"), BAD)
def test_what_is_no_address_is_refused_in_a_line_that_repeats_no_password(parse, url):
    with pytest.raises(ValueError, match=r"^--(mqtt|webhook): must be like .*$") as error:
        parse(url)
    assert "hunter2" not in str(error.value)
