"""A station that is played a script, a screen for it, and its page on loopback."""

import contextlib
import http.client
import json
import queue
import threading
import urllib.parse

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
    page.port = urllib.parse.urlsplit(page.url).port
    try:
        yield page
    finally:
        page.close()


def ask(port, path="/", method="GET", body=None, **headers):
    """Returns status, headers and body; a header Host given is the one that is sent."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request(method, path, body, headers)
    answer = connection.getresponse()
    found = answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read()
    connection.close()
    return found


class Events:
    """The server-sent events of a page; a context."""

    def __init__(self, port, after="", **headers):
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        self._connection.request("GET", f"/events?after={after}", headers=headers)
        self._answer = self._connection.getresponse()
        assert self._answer.status == 200
        assert self._answer.getheader("Content-Type").startswith("text/event-stream")

    def next(self, wanted=None):
        while True:
            fields = {}
            while line := self._answer.readline().decode().rstrip("\n"):
                name, _, value = line.partition(": ")
                fields[name] = value
            found = fields["event"], fields.get("id"), json.loads(fields["data"])
            if wanted in (None, found[0]):
                return found

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._connection.close()
