"""A stream that loses its server at random moments, and servers that mean harm.

Of those that send elsewhere, say nothing, or never end: nothing else is opened, nothing hangs.
"""

import contextlib
import io
import itertools
import json
import random
import re
import socket
import threading
import time

import av
import numpy as np
import pytest
import simplejpeg

from stormpsr_jax.live import capture
from stormpsr_jax.live.capture import Capture, Clock, live_source
from stormpsr_jax.live.station import Station
from stormpsr_jax.serving.files.unit import Reset
from tests.support.live_data import scripted
from tests.support.model_data import PICTURES
from tests.support.played import Screen

LOGIN = b'RTSP/1.0 401 Unauthorized\r\nCSeq: %d\r\nWWW-Authenticate: Basic realm="x"\r\n\r\n'
SDP = (
    "v=0\r\no=- 1 1 IN IP4 {at}\r\ns=x\r\nc=IN IP4 {at}\r\nt=0 0\r\na=control:*\r\n"
    "m=video {port} RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\n"
    "a=fmtp:96 packetization-mode=1\r\na=control:{control}\r\n"
)


class Server:
    """One that gives its pictures, unless `say` has another answer; at the end all is cut.

    Use it as a context. `say(method, head, number)` gets the head of a request and its CSeq, and
    returns bytes, or None for what a server says. `pictures()` are encoded when they are asked for.
    """

    def __init__(self, say=lambda *_: None, sdp=None, pictures=lambda: greys(500), fps=50, port=0):
        self.say, self.pictures, self.fps = say, pictures, fps
        self.sdp = sdp or SDP.format(at="127.0.0.1", port=0, control="track1")
        self.heads = []
        self._door = socket.create_server(("127.0.0.1", port))
        self._open = [self._door]
        self.port = self._door.getsockname()[1]
        self.url = f"rtsp://me:secret@127.0.0.1:{self.port}/x"
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *error):
        for one in self._open:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._door.accept()
                self._open.append(connection)
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
        with contextlib.suppress(OSError):
            number = 0
            for i, units in enumerate(encoded(self.pictures())):
                for unit in units:
                    last = unit is units[-1]
                    connection.sendall(interleaved(unit, number, 90_000 // self.fps * i, last))
                    number += 1


def interleaved(payload: bytes, number: int, ticks: int, last: bool) -> bytes:
    """An RTP packet, as it comes over the connection of the server."""
    head = (
        bytes([0x80, 96 | 128 * last])
        + (number % 2**16).to_bytes(2, "big")
        + ticks.to_bytes(4, "big")
    )
    packet = head + b"same" + payload
    return b"$\0" + len(packet).to_bytes(2, "big") + packet


def encoded(pictures):
    """The NAL units of each of some pictures (H, W, 3)."""
    with av.open(io.BytesIO(), "w", format="h264") as container:
        options = {"tune": "zerolatency", "g": "5", "preset": "ultrafast"}
        stream = container.add_stream("libx264", rate=10, options=options)
        for picture in pictures:
            if not stream.codec_context.is_open:
                stream.height, stream.width = picture.shape[:2]
            (packet,) = stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24"))
            yield [unit for unit in re.split(rb"\0\0\0?\x01", bytes(packet)) if unit]


def greys(count):
    """Picture i is of one grey, 8 · i, for a while."""
    for i in range(count):
        yield np.full((48, 64, 3), 8 * i % 256, np.uint8)
        time.sleep(1 / 50)


# --- A server that goes and comes ----------------------------------------------------------------

FPS, SIDE, COLUMNS, ROWS = 10, 32, 6, 4
BITS = COLUMNS * ROWS


def numbered():
    """Picture n is taken n / FPS seconds after the epoch; squares are white for a 1 of its bits."""
    for number in itertools.count(int(time.time() * FPS) + 1):
        time.sleep(max(0, number / FPS - time.time()))
        bits = np.array([number >> k & 1 for k in range(BITS)], np.uint8).reshape(ROWS, COLUMNS)
        yield np.kron(255 * bits, np.ones((SIDE, SIDE), np.uint8))[..., None].repeat(3, axis=2)


def number_of(picture: np.ndarray) -> int:
    bits = picture[SIDE // 2 :: SIDE, SIDE // 2 :: SIDE, 0].ravel() > 127
    return int((bits * 2 ** np.arange(BITS)).sum())


class Seen(Screen):
    """An output that keeps which pictures there were, when they came, and the lines."""

    def frame(self, jpeg, view):
        if jpeg is not None:
            number = number_of(simplejpeg.decode_jpeg(jpeg))
            self.pictures.append((number, round(view["time_s"] * FPS), time.time()))


def watch(kills: int, seed: int) -> tuple[Seen, list[tuple[float, float]]]:
    """What is seen while the server is killed so often; when it was gone: (from, to)."""
    chance, gaps, stop, seen = random.Random(seed), [], [], Seen(every=1)
    server = Server(pictures=numbered, fps=FPS)
    live, clock = scripted("temporal"), Clock(FPS)
    source = live_source(server.url)
    station = Station(
        live,
        source.name,
        clock=clock,
        reset=Reset(),
        framing=PICTURES.framing_of("encoder"),
        tell=lambda line: None,
    )
    errors = []

    def run():
        try:
            with Capture(source, clock, live.frame_at, depth=10) as capture:
                station.run(capture, stop, [seen], seen)
        except Exception as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        for _ in range(kills):
            before = len(seen.pictures)
            end = time.monotonic() + 20
            while len(seen.pictures) < before + 5 and time.monotonic() < end:
                time.sleep(0.05)
            time.sleep(chance.uniform(0, 1.5))
            server.__exit__()
            gone = time.time()
            time.sleep(chance.uniform(0, 1.5))
            server = Server(pictures=numbered, fps=FPS, port=server.port)
            gaps.append((gone, time.time()))
        time.sleep(6)
    finally:
        stop.append(1)
        thread.join(20)
        server.__exit__()
    assert not errors
    assert not thread.is_alive()
    return seen, gaps


def check(seen: Seen, gaps: list[tuple[float, float]]) -> None:
    numbers, frames, came = (np.array(column) for column in zip(*seen.pictures, strict=True))
    steps = np.diff(numbers) % 2**BITS
    assert (steps > 0).all()  # none is doubled
    assert (steps < 2**BITS // 2).all()
    assert (np.diff(frames) > 0).all()
    # None is lost but while the server was gone, and until the source was opened again.
    lost = np.flatnonzero(steps > 1)
    assert len(lost) <= len(gaps)
    for i in lost:
        assert any(came[i] < to + 5 and came[i + 1] > gone for gone, to in gaps)
    # The time axis is that of the server's clock all the time, but for what pictures take to come.
    drift = (frames - frames[0]) - np.concatenate([[0], np.cumsum(steps)])
    assert np.abs(drift).max() <= FPS // 2, drift
    # Five seconds after each gap a picture comes as soon as it was taken.
    now = (came * FPS).astype(np.int64)
    late = ((now - numbers + 2**BITS // 2) % 2**BITS - 2**BITS // 2) / FPS
    for _, to in gaps:
        after = (came > to + 5) & (came < to + 6)
        if not any(to < other < to + 6 for other, _ in gaps):
            assert after.any()
        assert late[after].max(initial=0) < 1.0
    statuses = [line for line in seen.records if line["type"] == "status"]
    assert statuses[-1]["reconnections"] >= len(gaps)
    assert statuses[-1]["dropped"] == 0
    assert {line["connected"] for line in statuses} == {True, False}
    json.dumps(seen.records)


@pytest.mark.parametrize("kills", [2, pytest.param(20, marks=pytest.mark.slow)])  # five minutes
def test_rtsp_nothing_is_lost_or_doubled_outside_the_gaps(system, kills):
    check(*watch(kills, seed=kills))


# --- Servers that mean harm ----------------------------------------------------------------------


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(capture, "PATIENCE", 1.0)
    monkeypatch.setattr(capture, "BLIND", 1.5)


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


def test_stream_gives_the_pictures_of_a_server_with_a_login(system):
    with Server(after_login(lambda method, head, number: None)) as server:
        seen = pictures(server.url, 12)
        grey = [round(float(picture.mean()) / 8) for picture in seen]
        assert seen[0].shape == (48, 64, 3)
        assert grey == list(range(grey[0], grey[0] + 12))
        assert any("Authorization: Basic bWU6c2VjcmV0" in head for head in server.heads)
        assert all("/x" in head for head in server.heads)


@pytest.mark.parametrize("when", ["OPTIONS", "DESCRIBE", "SETUP", "PLAY"])
@pytest.mark.parametrize("scheme", ["rtsp", "tcp", "http", "file"])
def test_stream_a_server_that_sends_elsewhere_is_not_followed(when, scheme, other, impatient):
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


def test_stream_a_description_of_other_addresses_opens_none(other):
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


@pytest.mark.system
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
def test_stream_errors_of_what_is_no_server(say, impatient):
    with Server(say) as server:
        assert "cannot be read" in message(server.url)
