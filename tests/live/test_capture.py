import contextlib
import re
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
