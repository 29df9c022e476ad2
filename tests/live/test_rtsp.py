"""A stream from a real RTSP server, which is killed and started again at random moments."""

import functools
import json
import random
import subprocess
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import simplejpeg

from stormpsr_jax.live.capture import Capture, Clock
from stormpsr_jax.live.live_sources import live_source
from stormpsr_jax.live.station import Station
from stormpsr_jax.serving.files.unit import Reset
from tests.support.live_data import scripted
from tests.support.model_data import PICTURES
from tests.support.played import Screen
from tests.support.processes import free_port

PYTHON = "/usr/bin/python3"  # Debian's, which has GStreamer's modules
SERVER = Path(__file__).parents[1] / "support" / "rtsp_server.py"
FPS, SIDE, COLUMNS, BITS = 10, 32, 6, 24
NEEDED = ("appsrc", "videoconvert", "x264enc", "rtph264pay")
_LOOK = f"""
import gi
gi.require_version("Gst", "1.0"), gi.require_version("GstRtspServer", "1.0")
from gi.repository import Gst, GstRtspServer
Gst.init(None)
missing = [name for name in {NEEDED} if not Gst.ElementFactory.find(name)]
assert not missing, missing
"""


@functools.cache
def missing() -> str:
    """Why there is no server to test with; '' if there is one."""
    try:
        done = subprocess.run([PYTHON, "-c", _LOOK], capture_output=True, text=True, timeout=60)
    except OSError as error:
        return str(error)
    return done.stderr.strip().splitlines()[-1] if done.returncode else ""


@pytest.fixture(autouse=True)
def _server_or_skip():
    if why := missing():
        pytest.skip(
            f"no GStreamer RTSP server ({why}): apt-get install gstreamer1.0-rtsp python3-gst-1.0 "
            "gir1.2-gst-rtsp-server-1.0 gstreamer1.0-plugins-ugly"
        )


def serve(port: str) -> subprocess.Popen:
    process = subprocess.Popen([PYTHON, SERVER, port, str(FPS)], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n"
    return process


def number_of(picture: np.ndarray) -> int:
    bits = [
        int(picture[SIDE * (k // COLUMNS) + SIDE // 2, SIDE * (k % COLUMNS) + SIDE // 2, 0]) > 127
        for k in range(BITS)
    ]
    return sum(bit << k for k, bit in enumerate(bits))


class Seen(Screen):
    """An output that keeps which pictures there were, when they came, and the lines."""

    def frame(self, jpeg, view):
        if jpeg is not None:
            number = number_of(simplejpeg.decode_jpeg(jpeg))
            self.pictures.append((number, round(view["time_s"] * FPS), time.time()))


def watch(kills: int, seed: int) -> tuple[Seen, list[tuple[float, float]]]:
    """What is seen while the server is killed so often; when it was gone: (from, to)."""
    port, chance, gaps, stop = str(free_port()), random.Random(seed), [], []
    server, seen = serve(port), Seen(every=1)
    live, clock = scripted("temporal"), Clock(FPS)
    source = live_source(f"rtsp://127.0.0.1:{port}/numbers")
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
            server.kill()
            server.wait()
            gone = time.time()
            time.sleep(chance.uniform(0, 1.5))
            server = serve(port)
            gaps.append((gone, time.time()))
        time.sleep(6)
    finally:
        stop.append(1)
        thread.join(20)
        server.kill()
        server.wait()
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


def test_rtsp_nothing_is_lost_or_doubled_outside_the_gaps():
    check(*watch(2, seed=0))


@pytest.mark.slow  # five minutes
def test_rtsp_twenty_restarts():
    check(*watch(20, seed=1))
