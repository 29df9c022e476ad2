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

from stormpsr_jax.live import capture
from stormpsr_jax.live.capture import Capture, Clock, live_source

FPS = 10.0


def frame_at(seconds):
    return int(seconds * FPS + 0.5)


class Fake:
    """Opened again and again, gives one list of (own time, picture) after the other."""

    is_file = False
    name = "fake"

    def __init__(self, *sessions, pause=0.0):
        self.sessions, self.pause, self.opened = list(sessions), pause, []

    @contextlib.contextmanager
    def open(self):
        self.opened.append(time.monotonic())
        session = self.sessions.pop(0) if self.sessions else None
        if session is None:
            raise ValueError("fake: cannot be read (gone)")
        yield self.read(session)

    def read(self, session):
        for own, picture in session:
            time.sleep(self.pause)
            yield own, lambda picture=picture: picture


def taken_from(source, count, fps=FPS, depth=100, **options):
    with Capture(source, Clock(fps), frame_at, depth=depth, **options) as one:
        got = []
        while len(got) < count and (taken := one.get(10)) is not None:
            got.append(taken)
        return got, one


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch):
    monkeypatch.setattr(capture, "FIRST_PAUSE", 0.05)
    monkeypatch.setattr(capture, "LAST_PAUSE", 0.2)


def test_capture_errors_a_source_that_never_was_there_ends_it():
    got, one = taken_from(Fake(None, [(0, 0), (0.1, 1)]), 1)
    assert got == []
    assert one.ended
    assert "cannot be read (gone)" in str(one.error)
    got, one = taken_from(Fake(None, [(0, 0), (0.1, 1)], pause=0.1), 1, after=-1)
    assert len(got) == 1  # but not of one that goes on


def test_capture_a_source_that_is_lost_is_opened_again_and_the_clock_goes_on():
    sessions = [[(i / FPS, i) for i in range(start, start + 20)] for start in (0, 20)]
    source = Fake(sessions[0], None, sessions[1], pause=1 / FPS / 2)
    got, one = taken_from(source, 20)
    pictures, times = [taken.picture for taken in got], [taken.time for taken in got]
    assert pictures == sorted(set(pictures))
    assert pictures[-1] >= 20, "of the second session too"
    assert times == sorted(set(times))
    assert (one.dropped, one.reconnections) == (0, 2)
    assert len(source.opened) == 3


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("camera:0/../../etc/passwd", "cameras are camera:0, camera:1, …"),
        ("rtsp:///x", "addresses are rtsp://HOST/PATH"),
        ("rtsp://me:secret@/x", "^rtsp://…: addresses are"),
        ("rtsps://host/x", "addresses are rtsp://"),
        ("'rtsp://me:secret@host/x'", "^'rtsp://…: addresses are"),
        ("rtsp:me:secret@host/x", "^rtsp://…: addresses are"),
        ("rtsp://me:sec ret@host/x", "^rtsp://…: addresses are"),
        ("rtsp://host:99999/secret", "addresses are"),
        ("none.mp4", "no such file or folder"),
        ("http://host/secret.m3u8", "^http://host…: addresses are"),
        (".", "no pictures"),
    ],
)
def test_live_source_errors(word, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=message) as raised:
        live_source(word)
    assert "sec" not in str(raised.value).removeprefix("rtsps").replace("seconds", "")


def test_device_only_what_was_named_is_opened(monkeypatch):
    opened = []

    def fail(place, **options):
        opened.append((place, options))
        raise av.error.TimeoutError(110, "Connection timed out")

    monkeypatch.setattr(av, "open", fail)
    monkeypatch.setattr(capture.sys, "platform", "linux")
    for word, place, form in (
        ("camera:3", "/dev/video3", "v4l2"),
        ("rtsp://me:secret@host:99/x?y", "rtsp://me:secret@host:99/x?y", "rtsp"),
    ):
        source = live_source(word)
        assert "secret" not in source.name
        with pytest.raises(ValueError, match="cannot be read") as raised, source.open():
            pass
        assert "secret" not in str(raised.value)
        assert opened[-1][0] == place
        assert opened[-1][1]["format"] == form
        assert opened[-1][1]["timeout"] == (5.0, 5.0)
    options = opened[-1][1]["options"]
    assert options["protocol_whitelist"] == "tcp"
    assert options["rtsp_transport"] == "tcp"
    monkeypatch.setattr(capture.sys, "platform", "win32")
    with pytest.raises(ValueError, match="on Linux and macOS only"):
        live_source("camera:0")


def test_the_password_of_a_stream_may_be_in_the_environment(monkeypatch):
    monkeypatch.setenv(capture.PASSWORD, "p@ss/w:rd")
    for word, place in (
        ("rtsp://me@host:99/x?y", "rtsp://me:p%40ss%2Fw%3Ard@host:99/x?y"),
        ("rtsp://me:@host/x", "rtsp://me:p%40ss%2Fw%3Ard@host/x"),
        ("rtsp://me:other@host/x", "rtsp://me:other@host/x"),
        ("rtsp://host/x", "rtsp://host/x"),
    ):
        assert live_source(word)._place == place


def test_capture_a_source_that_hangs_is_told_as_lost_until_it_goes_on(monkeypatch):
    monkeypatch.setattr(capture, "PATIENCE", 0.3)
    monkeypatch.setattr(capture, "_GRACE", 0.3)
    goes_on = threading.Event()

    class Hanging(Fake):
        def read(self, session):
            for number in session:
                time.sleep(0.12)
                if number == 4:
                    goes_on.wait(20)  # as in a driver
                yield None, lambda: np.zeros((2, 2, 3), np.uint8)

    with Capture(Hanging(range(8)), Clock(FPS), frame_at, depth=10) as one:
        while one.get(0.05) is None:
            pass
        assert one.connected
        while one.connected:
            one.get(0.05)
        assert re.fullmatch("fake: no picture for [0-9]+ s", one.trouble)
        goes_on.set()
        while not one.connected:
            assert one.get(0.05) is not None or not one.ended


# --- Servers of streams, also those that mean harm ------------------------------------------------


LOGIN = b'RTSP/1.0 401 Unauthorized\r\nCSeq: %d\r\nWWW-Authenticate: Basic realm="x"\r\n\r\n'
SDP = (
    "v=0\r\no=- 1 1 IN IP4 {at}\r\ns=x\r\nc=IN IP4 {at}\r\nt=0 0\r\na=control:*\r\n"
    "m=video {port} RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\n"
    "a=fmtp:96 packetization-mode=1\r\na=control:{control}\r\n"
)


class Server:
    """One that gives its pictures, unless `say` has another answer; at the end all is cut.

    Use it as a context. `say(method, head, number)` gets the head of a request and its CSeq, and
    returns bytes, or None for what a server says.
    """

    def __init__(self, say=lambda *_: None, sdp=None):
        self.say = say
        self.sdp = sdp or SDP.format(at="127.0.0.1", port=0, control="track1")
        self.heads = []
        self._door = socket.create_server(("127.0.0.1", 0))
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
            for i, units in enumerate(encoded(greys(500))):
                for unit in units:
                    last = unit is units[-1]
                    connection.sendall(interleaved(unit, number, 90_000 // 50 * i, last))
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
