"""A live recogniser that is told what it sees, and captures without a source."""

import contextlib
import dataclasses
import http.client
import json
import queue
import threading
import urllib.parse

import numpy as np

from stormpsr_jax.live import serve
from stormpsr_jax.live.capture import Clock, TimedPicture
from stormpsr_jax.live.station import Station
from stormpsr_jax.pages.access import Address
from stormpsr_jax.psr import Decoder, Procedure, Settings, learned_beliefs, learned_stream
from stormpsr_jax.serving.content import Window
from stormpsr_jax.serving.files.unit import parse_reset
from stormpsr_jax.serving.frames import Frames, ProductShare, Views
from stormpsr_jax.serving.online import Live
from tests.support import toy

FPS = 10.0
CONTENT = toy.content(
    "seal, cover, screw", "100 110 111 010", name="pump", fps=10, variant="assembly"
)
CONTENT["variants"]["assembly"]["precedence"] = [[0, 3]]
PROCEDURE = Procedure.from_json(CONTENT)
NOTHING, SEAL, COVER, SCREW, ONLY_COVER = range(5)  # classes; 0 is no detection
WEIGHTS = learned_beliefs.default_weights("scores")
SETTINGS = Settings("confidence", threshold=1.5, decay=0.9, window=4)


def picture(seen: int, confidence: float = 0.9) -> np.ndarray:
    """A picture uint8 (4, 4, 3) in which the detector sees this class."""
    shown = np.zeros((4, 4, 3), np.uint8)
    shown[0, 0] = seen, round(100 * confidence), 0
    return shown


def detect(images):
    """What `picture` says; of its scores only the states."""
    first = images[:, 0, 0].astype(float)
    boxes = np.tile([0.5, 0.5, 0.5, 0.5], (len(images), 1, 1))
    classes = first[:, :1].astype(int)
    states = np.log(np.eye(5)[classes[:, 0] - 1] * 0.95 + 0.01)
    return boxes, classes, first[:, 1:2] / 100, (np.full(len(images), 5.0), states, None)


def scripted(stream="asd", product_share=None, sure=None, remove=-2.0) -> Live:
    """A live recogniser of pictures made by `picture`; stream "temporal" detects nothing.

    With `sure` that is the bar of stream "learned" for installations; `remove` is its threshold.
    """
    procedure, variant = PROCEDURE.at(FPS), PROCEDURE.variants["assembly"]
    embed = {"encode": lambda x: x[:, 0, 0].astype(np.float32), "temporal": changed}
    functions = {} if stream == "temporal" else {"detect": detect}
    if stream != "asd":
        functions |= embed

    def decoder():
        if stream != "learned":
            return Decoder(procedure, variant, stream, SETTINGS)
        settings = learned_stream.LearnedSettings(install=0.5, remove=remove, sure=sure)
        return learned_stream.LearnedDecoder(procedure, variant, settings, WEIGHTS)

    return Live(
        prepare=lambda shown: Views(shown, shown),
        frames=lambda decoder: Frames(functions, Window(4, 1), decoder),
        decoder=decoder,
        product=ProductShare(product_share, FPS, station=True),
        fps=FPS,
        of_model="scripted",
    )


def changed(windows):
    """The component of the class that is seen has changed; without logits."""
    return np.eye(4, 3, -1)[windows[:, -1, 0].astype(int) % 4] * 0.9, None


@dataclasses.dataclass
class Script:
    """A capture of given pictures, (seconds, picture)."""

    shown: list
    dropped: int = 0
    reconnections: int = 0
    connected: bool = True
    ended: bool = False
    is_file: bool = False
    trouble: str = ""
    error: Exception | None = None
    before: object = None

    def get(self, seconds):
        import time

        if not self.shown:
            self.ended, self.connected = True, False
            return None
        if self.before is not None:
            self.before(self)
        return TimedPicture(*self.shown.pop(0), time.monotonic())


def frames(*runs, start=0):
    """Pictures one a frame: (class, count) after (class, count)."""
    classes = [seen for seen, count in runs for _ in range(count)]
    return [((start + i) / FPS, picture(seen)) for i, seen in enumerate(classes)]


# --- A station that is played a script, a screen for it, and its page on loopback -----------------


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
