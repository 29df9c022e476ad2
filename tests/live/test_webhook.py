"""Against a real server on loopback that fails at times."""

import base64
import itertools
import shutil
import socketserver
import ssl
import subprocess
import time

import pytest

from stormpsr_jax.live import webhook
from tests.support.webhook_receiver import Receiver


@pytest.fixture
def receiver(system):
    receiver = Receiver(503, None, 302, 204, 500, 429)
    yield receiver
    receiver.close()


def event(number):
    return {"type": "event", "step_id": number}


def test_webhook_order_is_kept_where_the_server_fails_at_times(receiver, capsys):
    url = f"http://worker:p%40ss@127.0.0.1:{receiver.port}/hooks/secret?line=7"
    ours = webhook.Webhook(url, first_pause=0.01)
    for i in range(5):
        start = time.perf_counter()
        ours.send(event(i))
        assert time.perf_counter() - start < 0.1, "send waits for nobody"
    receiver.wait(10)
    ours.close()
    assert receiver.steps() == [0, 1, 2, 3, 4]
    assert [body["step_id"] for *_, body in receiver.requests] == [0, 0, 0, 0, 1, 1, 1, 2, 3, 4]
    assert ours.dropped == 0
    keys = [headers["Idempotency-Key"] for _, _, headers, _ in receiver.requests]
    assert len(set(keys[:4])) == 1
    assert len(set(keys)) == 5, "the same key for the same record alone"
    for _, path, headers, _ in receiver.requests:
        assert path == "/hooks/secret?line=7", "redirects are not followed"
        assert headers["Content-Type"] == "application/json"
        assert headers["Authorization"] == "Basic d29ya2VyOnBAc3M="
    error = capsys.readouterr().err
    assert f"warning: http://127.0.0.1:{receiver.port}: answers with status 503" in error
    assert "status 302, a redirect, which is not followed" in error
    assert "secret" not in error
    assert "p@ss" not in error


@pytest.mark.usefixtures("system")
def test_webhook_goes_on_when_the_server_is_back(capsys):
    receiver = Receiver()
    port = receiver.port
    receiver.close()
    ours = webhook.Webhook(f"http://127.0.0.1:{port}/", first_pause=0.02)
    for i in range(3):
        ours.send(event(i))
    time.sleep(0.2)
    receiver = Receiver(port=port)
    try:
        receiver.wait(3)
        assert receiver.steps() == [0, 1, 2]
        ours.close()
    finally:
        receiver.close()
    assert capsys.readouterr().err.count("Connection refused; goes on trying") == 1


@pytest.mark.usefixtures("system")
def test_webhook_a_record_that_is_refused_holds_nothing_up(capsys):
    receiver = Receiver(422)
    ours = webhook.Webhook(f"http://127.0.0.1:{receiver.port}/", first_pause=9)
    for i in range(2):
        ours.send(event(i))
    receiver.wait(2)
    ours.close()
    receiver.close()
    assert (receiver.steps(422), receiver.steps(), ours.dropped) == ([0], [1], 1)
    assert "refuses a record with status 422" in capsys.readouterr().err


def test_webhook_pauses_grow_and_close_ends_them(monkeypatch, capsys):
    attempts = []

    def post(self, text, key):
        attempts.append(time.monotonic())
        raise ConnectionRefusedError(111, "Connection refused")

    monkeypatch.setattr(webhook.Webhook, "_post", post)
    ours = webhook.Webhook("https://somewhere.example/", first_pause=0.05)
    ours.send(event(0))
    while len(attempts) < 4:
        time.sleep(0.01)
    pauses = [b - a for a, b in itertools.pairwise(attempts)]
    assert pauses[0] >= 0.05
    assert pauses[1] >= 0.1
    assert pauses[2] >= 0.2
    start = time.monotonic()
    ours.send(event(1))
    ours.close(20)
    assert time.monotonic() - start < 5
    assert ours.dropped == 2


def test_webhook_close_is_bounded_by_its_time(capsys):
    with socketserver.TCPServer(("127.0.0.1", 0), None) as server:  # never answers
        ours = webhook.Webhook(f"http://127.0.0.1:{server.server_address[1]}/")
        ours.send(event(0))
        start = time.monotonic()
        ours.close(0.2)
        assert time.monotonic() - start < 3


@pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl to make a certificate")
def test_certificates_are_checked_and_a_trusted_server_gets_the_records(
    tmp_path, monkeypatch, capsys
):
    certificate = ["-keyout", tmp_path / "key.pem", "-out", tmp_path / "cert.pem", "-days", "1"]
    words = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", *certificate]
    words += ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    subprocess.run(words, check=True, stderr=subprocess.DEVNULL)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
    receiver = Receiver(tls=context)
    dropped = []
    try:
        for trusted in (False, True):
            if trusted:
                monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "cert.pem"))
            ours = webhook.Webhook(f"https://127.0.0.1:{receiver.port}/", first_pause=9)
            ours.send(event(int(trusted)))
            ours.close(3)
            dropped.append(ours.dropped)
    finally:
        receiver.close()
    assert dropped == [1, 0]
    assert receiver.steps() == [1]
    assert "certificate verify failed" in capsys.readouterr().err


def test_the_password_may_be_in_the_environment(monkeypatch):
    monkeypatch.setenv(webhook.PASSWORD, "p@ss:w")
    for url, user in (
        ("http://worker@host/", b"worker:p@ss:w"),
        ("http://worker:p%40ss@host/", b"worker:p@ss"),
    ):
        word = webhook.parse(url).authorization.removeprefix("Basic ")
        assert base64.b64decode(word) == user
    assert webhook.parse("http://host/").authorization is None


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://host/secret", "http://host"),
        ("https://u:p@host:8443/secret?key=1", "https://host:8443"),
        ("http://[::1]:80/", "http://[::1]:80"),
    ],
)
def test_parse_shown_without_its_secrets(url, shown):
    assert str(webhook.parse(url)) == shown


@pytest.mark.parametrize(
    "url",
    [
        "host/hunter2",
        "file:///etc/hunter2",
        "ftp://host/hunter2",
        "http:///hunter2",
        "http://u:hunter2@host:0/",
        "http://u:hunter2@host:port/",
        "http://u:hunter2/x@host/",
        "http://host/hunter2 b",
        "http://host/hunter2/ü",
        "http://host/hunter2\r\nX: y",
        "http://" + "h" * 70 + "/hunter2",
    ],
)
def test_parse_errors_one_line_without_what_may_be_secret(url):
    with pytest.raises(ValueError, match="--webhook: must be like https://") as error:
        webhook.parse(url)
    assert "hunter2" not in str(error.value)
    assert "\n" not in str(error.value)
