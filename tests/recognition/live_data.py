"""A live recogniser that is told what it sees, and captures without a source."""

import dataclasses

import numpy as np

from stormpsr_jax.live import Live
from stormpsr_jax.psr import Decoder, Procedure, Settings
from stormpsr_jax.recognition.capture import Taken
from stormpsr_jax.stream import Recogniser

FPS = 10.0
PROCEDURE = Procedure.from_json(
    {
        "name": "pump",
        "fps": 10,
        "components": ["seal", "cover", "screw"],
        "states": ["100", "110", "111", "010"],
        "variants": {
            "assembly": {
                "initial_state": "000",
                "expected": [0, 3, 6],
                "recordings": ["*"],
                "precedence": [[0, 3]],
            }
        },
    }
)
NOTHING, SEAL, COVER, SCREW, ONLY_COVER = range(5)  # classes; 0 is no detection
SETTINGS = Settings("confidence", threshold=1.5, decay=0.9, window=4)


def picture(seen: int, confidence: float = 0.9) -> np.ndarray:
    """A picture uint8 (4, 4, 3) in which the detector sees this class."""
    shown = np.zeros((4, 4, 3), np.uint8)
    shown[0, 0] = seen, round(100 * confidence), 0
    return shown


def detect(images):
    """What `picture` says, without scores."""
    first = images[:, 0, 0].astype(float)
    boxes = np.tile([0.5, 0.5, 0.5, 0.5], (len(images), 1, 1))
    return boxes, first[:, :1].astype(int), first[:, 1:2] / 100, None


def scripted(stream="asd") -> Live:
    """A live recogniser of pictures made by `picture`; stream "temporal" detects nothing."""
    embed = {"encode": lambda x: x[:, 0, 0].astype(np.float32), "temporal": changed}
    recogniser = embed | {"detect": None} if stream == "temporal" else {}
    recogniser = {"encode": None, "temporal": None, "detect": detect} | recogniser
    return Live(
        prepare=lambda shown: shown,
        recogniser=lambda: Recogniser(**recogniser, frames=4, stride=1),
        decoder=lambda: Decoder(
            PROCEDURE, PROCEDURE.variants["assembly"], stream, SETTINGS, FPS, None
        ),
        fps=FPS,
        frame_step=1,
        window=(4, 3) if stream == "temporal" else None,
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
        return Taken(*self.shown.pop(0), time.monotonic())


def frames(*runs, start=0):
    """Pictures one a frame: (class, count) after (class, count)."""
    classes = [seen for seen, count in runs for _ in range(count)]
    return [((start + i) / FPS, picture(seen)) for i, seen in enumerate(classes)]
