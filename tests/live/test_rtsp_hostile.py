"""Servers that send elsewhere, say nothing, or never end: nothing else is opened, nothing hangs."""

import contextlib
import itertools
import socket
import time

import pytest

from stormpsr_jax.live import live_sources
from stormpsr_jax.live.live_sources import live_source
from tests.support.rtsp import LOGIN, SDP, Server


@pytest.fixture(autouse=True)
def _impatient(monkeypatch):
    monkeypatch.setattr(live_sources, "PATIENCE", 1.0)
    monkeypatch.setattr(live_sources, "BLIND", 1.5)


@pytest.fixture
def other(system):
    """An address that nobody named: TCP and UDP on one port of this machine."""
    with contextlib.ExitStack() as stack:
        tcp = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        udp = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        udp.bind(tcp.getsockname())
        tcp.settimeout(0.3)
        udp.settimeout(0.1)
        yield tcp, udp


def nobody_called(other):
    for look in (other[0].accept, lambda: other[1].recv(1)):
        try:
            look()
        except TimeoutError:
            continue
        return False
    return True


def moved(number, place):
    return f"RTSP/1.0 302 Moved\r\nCSeq: {number}\r\nLocation: {place}\r\n\r\n".encode()


def pictures(url, count=1):
    """The first pictures of a source, or the error."""
    with live_source(url).open() as shown:
        return [decode() for _, decode in itertools.islice(shown, count)]


def message(url):
    start = time.monotonic()
    with pytest.raises(ValueError) as raised:
        pictures(url, 10**9)
    assert time.monotonic() - start < 8
    text = str(raised.value)
    assert text.startswith("rtsp://127.0.0.1:")
    assert "secret" not in text
    assert "\n" not in text
    return text


def after_login(say):
    """Answers only who has logged in."""

    def answer(method, head, number):
        if method == "OPTIONS":
            return None
        return say(method, head, number) if "Authorization: " in head else LOGIN % number

    return answer


def test_stream_gives_the_pictures_of_a_server_with_a_login(monkeypatch):
    monkeypatch.setattr(live_sources, "PATIENCE", 20.0)
    with Server(after_login(lambda method, head, number: None)) as server:
        seen = pictures(server.url, 12)
        grey = [round(float(picture.mean()) / 8) for picture in seen]
        assert seen[0].shape == (48, 64, 3)
        assert grey == list(range(grey[0], grey[0] + 12))
        assert any("Authorization: Basic bWU6c2VjcmV0" in head for head in server.heads)
        assert all("/x" in head for head in server.heads)


@pytest.mark.parametrize("when", ["OPTIONS", "DESCRIBE", "SETUP", "PLAY"])
@pytest.mark.parametrize("scheme", ["rtsp", "tcp", "http", "file"])
def test_stream_a_server_that_sends_elsewhere_is_not_followed(when, scheme, other):
    """Also where it does so after login, and only then."""
    port = other[0].getsockname()[1]
    place = "file:///etc/passwd" if scheme == "file" else f"{scheme}://127.0.0.1:{port}/x"

    def say(method, head, number):
        return moved(number, place) if method == when else None

    with Server(say if when == "OPTIONS" else after_login(say)) as server:
        text = message(server.url)
        if scheme != "tcp" and when in ("OPTIONS", "DESCRIBE"):
            assert "sends to another address, which is not followed" in text
        assert nobody_called(other)
        assert ("Authorization" in server.heads[-1]) == (when != "OPTIONS")


def test_stream_a_description_of_other_addresses_opens_none(other, monkeypatch):
    monkeypatch.setattr(live_sources, "PATIENCE", 20.0)
    port = other[0].getsockname()[1]
    for at in ("127.0.0.1", "239.1.2.3/127"):
        sdp = SDP.format(at=at, port=port, control=f"rtsp://127.0.0.1:{port}/x/track1")
        with Server(sdp=sdp) as server:
            assert len(pictures(server.url, 3)) == 3  # over the one connection
            assert nobody_called(other)


def lengths(text):
    def say(method, head, number):
        said = f"Content-Type: application/sdp\r\n{text}\r\n\r\nv=0\r\n"
        return f"RTSP/1.0 200 OK\r\nCSeq: {number}\r\n{said}".encode()

    return say


@pytest.mark.parametrize(
    "say",
    [
        lambda m, h, n: b"",  # nothing, ever
        lambda m, h, n: b"RTSP/1.0 200 OK\r\n" + b"X: y\r\n" * 10**6,
        lambda m, h, n: b"HTTP/1.1 200 OK\r\n\r\n",
        lambda m, h, n: b"RTSP/1.0 200 OK\r\n$\0\0\4RTSP\r\n\r\n",
        lengths("Content-Length: 1000000000"),
        lengths("Content-Length: 5\r\nContent-length: 0"),
        lambda m, h, n: b"$\0\xff\xff" + b"x" * 100,
        lambda m, h, n: (b"$\0\0\1x") * 10**6,
    ],
)
def test_stream_errors_of_what_is_no_server(say):
    with Server(say) as server:
        assert "cannot be read" in message(server.url)
