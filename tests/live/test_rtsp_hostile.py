"""Servers that send elsewhere, say nothing, or never end: nothing else is opened, nothing hangs."""

import contextlib
import io
import itertools
import re
import socket
import threading
import time

import av
import numpy as np
import pytest

from stormpsr_jax.live import live_sources
from stormpsr_jax.live.live_sources import live_source

LOGIN = b'RTSP/1.0 401 Unauthorized\r\nCSeq: %d\r\nWWW-Authenticate: Basic realm="x"\r\n\r\n'
SDP = (
    "v=0\r\no=- 1 1 IN IP4 {at}\r\ns=x\r\nc=IN IP4 {at}\r\nt=0 0\r\na=control:*\r\n"
    "m=video {port} RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\n"
    "a=fmtp:96 packetization-mode=1\r\na=control:{control}\r\n"
)


class Server:
    """One that gives its pictures, unless `say` has another answer.

    Use it as a context. `say(method, head, number)` gets the head of a request and its CSeq, and
    returns bytes, or None for what a server says.
    """

    def __init__(self, say=lambda method, head, number: None, sdp=None, media=None):
        self.say, self.media = say, media or packets
        self.sdp = sdp or SDP.format(at="127.0.0.1", port=0, control="track1")
        self.heads = []

    def __enter__(self):
        self._door = socket.create_server(("127.0.0.1", 0))
        self.port = self._door.getsockname()[1]
        self.url = f"rtsp://me:secret@127.0.0.1:{self.port}/x"
        self._over = False
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *error):
        self._over = True
        with contextlib.suppress(OSError):
            self._door.shutdown(socket.SHUT_RDWR)
        self._door.close()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._door.accept()
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection):
        heard = b""
        with connection, contextlib.suppress(OSError):
            while True:
                while b"\r\n\r\n" not in heard:
                    piece = connection.recv(4096)
                    if not piece:
                        return
                    heard += piece
                head, _, heard = heard.partition(b"\r\n\r\n")
                if head.startswith((b"$", b"RTSP/")):
                    continue  # what the receiver reports, or answers
                self.heads.append(head.decode())
                method = head.partition(b" ")[0].decode()
                number = int(re.search(rb"CSeq: (\d+)", head)[1])
                said = self.say(method, head.decode(), number)
                connection.sendall(self._usual(method, number) if said is None else said)
                if method == "PLAY":
                    threading.Thread(target=self._play, args=(connection,), daemon=True).start()

    def _usual(self, method, number):
        more, body = "", ""
        if method == "OPTIONS":
            more = "Public: OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN\r\n"
        elif method == "DESCRIBE":
            more, body = "Content-Type: application/sdp\r\n", self.sdp
        elif method == "SETUP":
            more = "Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\nSession: 1\r\n"
        more += f"Content-Length: {len(body)}\r\n" if body else ""
        return f"RTSP/1.0 200 OK\r\nCSeq: {number}\r\n{more}\r\n{body}".encode()

    def _play(self, connection):
        with contextlib.suppress(OSError, ValueError):
            for packet in self.media():
                if self._over:
                    return
                connection.sendall(packet)


def interleaved(payload: bytes, number: int, ticks: int, last: bool = True) -> bytes:
    """An RTP packet, as it comes over the connection of the server."""
    head = bytes([0x80, 96 | 128 * last]) + number.to_bytes(2, "big") + ticks.to_bytes(4, "big")
    packet = head + b"same" + payload
    return b"$\0" + len(packet).to_bytes(2, "big") + packet


def encoded(count: int) -> list[list[bytes]]:
    """The NAL units of so many pictures of 64 x 48; picture i is of one grey, 8 · i."""
    file = io.BytesIO()
    with av.open(file, "w", format="h264") as container:
        options = {"tune": "zerolatency", "g": "5", "preset": "ultrafast"}
        stream = container.add_stream("libx264", rate=10, options=options)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        found = []
        for i in range(count):
            grey = np.full((48, 64, 3), 8 * i % 256, np.uint8)
            for packet in stream.encode(av.VideoFrame.from_ndarray(grey, format="rgb24")):
                units = re.split(rb"\0\0\0?\x01", bytes(packet))
                found.append([unit for unit in units if unit])
        stream.encode()
    return found


def packets(fps=50):
    """The media of the usual server: pictures at their pace, for some seconds."""
    pictures, number = encoded(32), 0
    for i in range(10 * fps):
        for unit in pictures[i % 32]:
            last = unit is pictures[i % 32][-1]
            yield interleaved(unit, number % 2**16, 90_000 // fps * i, last)
            number += 1
        time.sleep(1 / fps)


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
