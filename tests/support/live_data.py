"""A live recogniser that is told what it sees, and captures without a source."""

import dataclasses

import numpy as np

from stormpsr_jax.live.capture import TimedPicture
from stormpsr_jax.psr import Decoder, Procedure, Settings, learned_beliefs, learned_stream
from stormpsr_jax.serving.content import Window
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
