"""Procedures, decoding, fusion and metrics, in NumPy alone.

Detections of an assembly in which the front chassis and its pin were added at frame 40 (state 5 of
IndustReal), seen from frame 60 on, and a clip model that noticed the change at once:

>>> import numpy as np
>>> from stormpsr_jax import psr
>>> procedure = psr.load_procedure("industreal")
>>> variant = procedure.variant_for("01_assy_0_1")
>>> frames = np.arange(60, 100)
>>> detections = psr.Detections(
...     frames, np.full(40, 5), np.full(40, 0.9), np.full((40, 4), 0.5)
... )
>>> clips = np.arange(100)
>>> changed = np.zeros((100, 11))
>>> changed[40:, 1:3] = 0.8  # components 1 and 2
>>> none = np.zeros((100, 11), int)
>>> temporal = psr.TemporalPredictions(clips, none, none, changed)

Each stream alone and both fused (Eq. 9), then scored against the labels:

>>> truth = [(40, 3), (40, 6)]
>>> settings = psr.Settings(decoder="expected", threshold=1.5, window=64)
>>> for stream in psr.STREAMS:
...     events = psr.decode(procedure, variant, stream, settings, detections, temporal)
...     scores = psr.score_recording(truth, [e[:2] for e in events], procedure.fps)
...     print(stream, [e[:2] for e in events], scores["f1"], scores["delay_s"])
asd [(61, 3), (61, 6)] 1.0 2.1
temporal [(41, 3), (41, 6)] 1.0 0.1
storm [(43, 3), (43, 6)] 1.0 0.3

Online, frame by frame, with a state that can be saved:

>>> decoder = psr.Decoder(procedure, variant, "storm", settings)
>>> for frame in range(100):
...     rows = [(5, 0.9)] if frame >= 60 else []
...     for event in decoder.update(frame, rows, changed[frame]):
...         print(event.frame, event.time_s, event.name, round(event.confidence, 3))
43 4.3 Install front chassis 0.4
43 4.3 Install front chassis pin 0.4
>>> saved = decoder.state()
"""

from stormpsr_jax.psr.evaluation.evaluate import evaluate
from stormpsr_jax.psr.files.labels import (
    read_states,
    read_steps,
    states_per_frame,
    states_to_steps,
    steps_to_states,
    write_states,
    write_steps,
)
from stormpsr_jax.psr.files.predictions import (
    Detections,
    TemporalPredictions,
    read_detections,
    read_temporal,
    write_detections,
    write_temporal,
)
from stormpsr_jax.psr.monitor import Alert, Monitor
from stormpsr_jax.psr.procedure import Procedure, Variant, load_procedure
from stormpsr_jax.psr.scoring.metrics import (
    match_steps,
    order_similarity,
    score_recording,
    summarise,
)
from stormpsr_jax.psr.streams import accumulated
from stormpsr_jax.psr.streams.accumulated import Decoder, decode, sweep
from stormpsr_jax.psr.streams.stream import DECODERS, Event, Settings

STREAMS = tuple(stream.name for stream in accumulated.STREAMS)

__all__ = [
    "DECODERS",
    "STREAMS",
    "Alert",
    "Decoder",
    "Detections",
    "Event",
    "Monitor",
    "Procedure",
    "Settings",
    "TemporalPredictions",
    "Variant",
    "decode",
    "evaluate",
    "load_procedure",
    "match_steps",
    "order_similarity",
    "read_detections",
    "read_states",
    "read_steps",
    "read_temporal",
    "score_recording",
    "states_per_frame",
    "states_to_steps",
    "steps_to_states",
    "summarise",
    "sweep",
    "write_detections",
    "write_states",
    "write_steps",
    "write_temporal",
]
