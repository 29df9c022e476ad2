"""A station that is played a script, a screen for it, and its page on loopback."""

import contextlib
import json
import queue
import threading

from stormpsr_jax.live import serve
from stormpsr_jax.live.capture import Clock
from stormpsr_jax.live.station import Station
from stormpsr_jax.pages.access import Address
from stormpsr_jax.serving.files.unit import parse_reset
from tests.support.live_data import FPS, Script, scripted


class Screen:
    """Keeps what it is sent; wants every so manieth picture, or none."""

    def __init__(self, every=0):
        self.every = every
        self.records, self.pictures, self.views = [], [], []
        self.units, self.snapshots = [], []

    def past(self, units):
        self.units = units

    def snapshot(self, frame, jpeg):
        self.snapshots.append((frame, jpeg))

    def send(self, record):
        self.records.append(record)

    @property
    def wants_picture(self):
        return bool(self.every) and len(self.views) % self.every == 0

    def frame(self, jpeg, view):
        json.dumps(view, allow_nan=False)
        self.pictures.append(jpeg)
        self.views.append(view)


def play(
    shown, reset="key", *, live=None, stop_at=None, before=None, outputs=(), screen=None, **options
):
    """The lines that are told about pictures, as objects.

    It is stopped with picture `stop_at`; `before(script, number)` is called before each picture.
    """
    told, stop = [], []

    def each(script):
        number = len(shown) - len(script.shown)
        if before:
            before(script, number)
        if number == stop_at:
            stop.append(1)

    tell = lambda line: told.append(json.loads(line))  # noqa: E731
    clock, live = Clock(FPS, 0.0), live or scripted()
    one = Station(live, "x", clock=clock, reset=parse_reset(reset), tell=tell, **options)
    one.restore()
    one.run(Script(list(shown), before=each), stop, outputs, screen)
    return told


def of(told, kind):
    return [line for line in told if line["type"] == kind]


def steps_of(told, kind):
    return [line["step_id"] for line in of(told, kind)]


def ids(steps):
    return [step["step_id"] for step in steps]


@contextlib.contextmanager
def serving(title, host="127.0.0.1", port=0, token=None):
    """A page; what is asked of it is in its `resets` and `confirmed`."""
    resets, confirmed = threading.Semaphore(0), queue.SimpleQueue()
    on = {"on_reset": resets.release, "on_confirm": confirmed.put}
    page = serve.Page(Address(host, port), title=title, token=token, **on)
    page.resets, page.confirmed = resets, confirmed
    try:
        yield page
    finally:
        page.close()
