"""Steps of a procedure: from what is seen at each frame to events, and from events to scores.

Functions on arrays and lists, in NumPy alone. A product has K components. Step 3k installs
component k, 3k + 1 installs it incorrectly, 3k + 2 removes it. A state has 1 for a component that
is there, 0 for one that is not and -1 for an incorrect one. What happens when is (frame, step id).

`accumulate` makes steps of what is seen at each frame. `score_recording` and `summarise` give POS,
F1 and delay, `order_similarity_of_sets` POS where steps share a frame, and `score_wrong_parts` says
how many incorrect installations were reported as installed.
Times are frames, or seconds where a name ends in _s; what is undefined is None. An argument that is
wrong is a ValueError that names it, and the row.

Somebody with predictions of their own needs no file. A detector sees the first of two components
from frame 60 on, and a clip model noticed the change at frame 40; both are fused and scored:

>>> import numpy as np
>>> from stormpsr_jax import psr
>>> frames = np.arange(100)
>>> confidences = np.where(frames >= 60, 0.9, 0.0)
>>> changes = np.where(frames[:, None] >= 40, [0.8, 0.0], 0.0)
>>> events = psr.accumulate("00", frames, ["10"] * 100, confidences, changes, threshold=1.5)
>>> [(frame, step_id) for frame, step_id, _ in events]
[(43, 0)]
>>> psr.score_recording([(40, 0)], events, fps=10)["delay_s"]
0.3

A `Procedure` names the components, the states that a detector has as classes, and what is expected;
a file has the same. It is for what works frame by frame, with a state that can be saved:

>>> procedure = psr.Procedure.from_json({
...     "name": "pump", "fps": 10, "components": ["frame", "wheel"], "states": ["00", "10", "11"],
...     "variants": {"new": {"initial_state": "00", "expected": [0, 3], "recordings": ["*"]}},
... })
>>> variant, settings = procedure.variants["new"], psr.Settings(threshold=1.5, window=64)
>>> decoder = psr.Decoder(procedure, variant, "storm", settings)
>>> monitor = psr.Monitor(procedure, variant)
>>> for frame in frames.tolist():
...     rows = [(2, 0.9)] if frame >= 60 else []
...     for event in decoder.update(frame, rows, changes[frame]):
...         print(event.frame, event.time_s, event.name, round(event.confidence, 3))
...         alerts = monitor.update(event.frame, [event.step_id])
43 4.3 Install frame 0.4
>>> saved = decoder.state()
>>> [alert.message for alert in monitor.finish()]
['Install wheel is missing at the end']

Whole recordings, each stream alone and both fused:

>>> classes = np.full(40, 2)
>>> detections = psr.Detections(frames[60:], classes, confidences[60:], np.full((40, 4), 0.5))
>>> temporal = psr.TemporalPredictions(frames, *np.zeros((2, 100, 2), int), changes)
>>> for stream in psr.STREAMS:
...     found = psr.decode(procedure, variant, stream, settings, detections, temporal)
...     print(stream, [event[:2] for event in found])
asd [(61, 0)]
temporal [(41, 0)]
storm [(43, 0)]

And the same of folders of files:

>>> import pathlib, tempfile
>>> folder = tempfile.TemporaryDirectory()
>>> root = pathlib.Path(folder.name)
>>> for name in ("labels/a", "asd", "temporal"):
...     (root / name).mkdir(parents=True)
>>> psr.write_steps(root / "labels/a/PSR_labels.csv", [(40, 0)], procedure)
>>> psr.write_states(root / "labels/a/PSR_labels_raw.csv", [0, 40], [[0, 0], [1, 0]])
>>> psr.write_detections(root / "asd/a_results_pred.csv", "a", detections)
>>> psr.write_temporal(root / "temporal/a_results_pred.csv", "a", temporal)
>>> folders = root / "labels", root / "asd", root / "temporal"
>>> result = psr.evaluate(procedure, *folders, settings=settings)
>>> {stream: figures["delay_s"] for stream, figures in result["streams"].items()}
{'asd': 2.1, 'temporal': 0.1, 'storm': 0.3}
>>> steps = psr.read_steps(root / "labels/a/PSR_labels.csv", procedure)
>>> starts, states = psr.read_states(root / "labels/a/PSR_labels_raw.csv", procedure)
>>> seen = psr.read_detections(root / "asd/a_results_pred.csv", procedure)
>>> clips = psr.read_temporal(root / "temporal/a_results_pred.csv", procedure)
>>> steps, starts.tolist(), len(seen.frames), len(clips.frames)
([(40, 0)], [0, 40], 40, 100)
>>> psr.load_procedure("industreal").num_states
22
"""

from stormpsr_jax.psr.accumulation import DECODERS, STREAMS, Settings, accumulate
from stormpsr_jax.psr.evaluation import evaluate
from stormpsr_jax.psr.events import Event
from stormpsr_jax.psr.metrics import match_steps, order_similarity, score_recording, summarise
from stormpsr_jax.psr.monitor import Alert, Monitor
from stormpsr_jax.psr.step_sets import order_similarity as order_similarity_of_sets
from stormpsr_jax.psr.streams import Decoder, decode
from stormpsr_jax.psr.wrong_parts import score_recording as score_wrong_parts
from stormpsr_jax.psr.wrong_parts import wrong_installations
from stormpsr_jax.recordings.labels import (
    read_states,
    read_steps,
    states_per_frame,
    states_to_steps,
    steps_to_states,
    write_states,
    write_steps,
)
from stormpsr_jax.recordings.predictions import (
    Detections,
    TemporalPredictions,
    read_detections,
    read_temporal,
    write_detections,
    write_temporal,
)
from stormpsr_jax.recordings.procedure import Procedure, Variant, load_procedure

# In the order of the API's page: functions on arrays, what has a procedure, files.
__all__ = ["accumulate", "match_steps", "order_similarity", "order_similarity_of_sets"]
__all__ += ["score_recording", "score_wrong_parts", "summarise"]
__all__ += ["states_per_frame", "states_to_steps", "steps_to_states", "wrong_installations"]
__all__ += ["DECODERS", "STREAMS", "Alert", "Decoder", "Detections", "Event", "Monitor"]
__all__ += ["Procedure", "Settings", "TemporalPredictions", "Variant", "decode", "load_procedure"]
__all__ += ["evaluate", "read_detections", "read_states", "read_steps", "read_temporal"]
__all__ += ["write_detections", "write_states", "write_steps", "write_temporal"]
