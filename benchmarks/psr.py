"""Times decoding and scoring: ``python benchmarks/psr.py [--labels=DIR]``, on one core, no files.

Predictions are simulated on real label timelines, or on made-up ones of the same length: five
detections and a row of the temporal stream on every frame. Times are CPU times, the best of
several runs.
"""

import argparse
import functools
import os
import pathlib
import time
import tracemalloc

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

from stormpsr_jax.psr import metrics, released, streams
from stormpsr_jax.psr.accumulation import Settings
from stormpsr_jax.recordings import labels
from stormpsr_jax.recordings.evaluation_set import LabelledPredictions
from stormpsr_jax.recordings.labels import states_per_frame, states_to_steps
from stormpsr_jax.recordings.predictions import Detections, TemporalPredictions
from stormpsr_jax.recordings.procedure import load_procedure

PROCEDURE = load_procedure("meccano")
VARIANT = PROCEDURE.variants["assembly"]
WINDOW = 256
NUM_DETECTIONS = 5


def timelines(folder: str | None) -> dict[str, tuple[np.ndarray, list]]:
    """State vectors (N, K) of every frame and steps, by recording."""
    lines = {}
    if folder is None:
        rng = np.random.default_rng(0)
        for name in range(7):
            frames = np.sort(rng.choice(np.arange(500, 15000), 17, replace=False))
            states = np.tril(np.ones((18, 17), np.int8), -1)[:, rng.permutation(17)]
            lines[f"made-up {name}"] = (np.array([0, *frames]), states)
    else:
        for path in sorted(pathlib.Path(folder).glob("*/PSR_labels_raw.csv")):
            lines[path.parent.name] = labels.read_states(path, PROCEDURE)
    return {
        name: (
            states_per_frame(frames, states, 0, int(frames[-1]) + 500),
            states_to_steps(frames, states),
        )
        for name, (frames, states) in lines.items()
    }


def simulate(states: np.ndarray, seed: int) -> tuple[Detections, TemporalPredictions]:
    """Predictions of states (N, K): right in clear views, weak and wrong elsewhere."""
    rng = np.random.default_rng(seed)
    num = len(states)
    clear = np.repeat(rng.random(num // 50 + 1) < 0.3, 50)[:num]
    classes = rng.integers(0, PROCEDURE.error_class + 1, (num, NUM_DETECTIONS))
    confidences = 0.6 * rng.random((num, NUM_DETECTIONS))
    right = PROCEDURE.state_classes((states == 1).astype(np.int8))
    classes[clear, 0] = right[clear]
    confidences[clear, 0] = 0.6 + 0.4 * rng.random(clear.sum())
    detections = Detections(
        np.repeat(np.arange(num), NUM_DETECTIONS),
        classes.ravel(),
        confidences.ravel(),
        np.full((num * NUM_DETECTIONS, 4), 0.5),
    )
    before = states[np.maximum(np.arange(num) - WINDOW, 0)] == 1
    changed = before != (states == 1)
    probabilities = np.where(changed, 0.8, 0.1) + 0.1 * rng.standard_normal(changed.shape)
    probabilities = probabilities.clip(0, 1)
    predicted = (probabilities > 0.5).astype(np.int64)
    return detections, TemporalPredictions(
        np.arange(num), changed.astype(np.int64), predicted, probabilities
    )


def best(function, runs: int = 5) -> float:
    """CPU seconds of the fastest run."""
    times = []
    for _ in range(runs):
        metrics.edit_distance.cache_clear()
        start = time.process_time()
        function()
        times.append(time.process_time() - start)
    return min(times)


def recordings(folder: str | None) -> None:
    settings = Settings(threshold=3.0, window=WINDOW)
    print("fused stream, decoding (B3) and scoring of one recording, in milliseconds")
    print(f"{'recording':<12}{'frames':>8}{'paper':>9}{'released':>10}")
    print("  paper: decode and metrics; released: the released code's rules in released.py")
    for seed, (name, (states, truth)) in enumerate(timelines(folder).items()):
        predictions = simulate(states, seed)

        def paper(predictions=predictions, truth=truth):
            events = streams.decode(PROCEDURE, VARIANT, "storm", settings, *predictions)
            metrics.score_recording(truth, [e[:2] for e in events], PROCEDURE.fps)

        def published(predictions=predictions, truth=truth, states=states):
            r = LabelledPredictions("x", VARIANT, truth, states[:1], *predictions)
            released.evaluate_recording(PROCEDURE, r, "storm", settings, PROCEDURE.fps)

        seconds = best(paper), best(published, 2)
        print(f"{name:<12}{len(states):>8}{1e3 * seconds[0]:>9.1f}{1e3 * seconds[1]:>10.1f}")


def online(folder: str | None) -> None:
    states, _ = next(iter(timelines(folder).values()))
    detections, temporal = simulate(states, 0)
    rows = list(zip(detections.classes.tolist(), detections.confidences.tolist(), strict=True))
    print("\nonline decoder, microseconds a frame (five detections and a temporal row each)")
    for stream in ("asd", "temporal", "storm"):
        decoder = streams.Decoder(
            PROCEDURE, VARIANT, stream, Settings(threshold=3.0, window=WINDOW)
        )
        start = time.process_time()
        for frame in range(len(states)):
            found = rows[NUM_DETECTIONS * frame : NUM_DETECTIONS * (frame + 1)]
            decoder.update(frame, found, temporal.confidences[frame])
        print(f"{stream:<12}{1e6 * (time.process_time() - start) / len(states):>8.1f}")


def growth() -> None:
    settings = Settings("confidence", threshold=1.5, window=WINDOW)
    print("\ncost by length: install and remove every part again and again")
    print(f"{'hours':>5}{'frames':>9}{'events':>8}{'batch µs/frame':>16}{'online peak KiB':>17}")
    for hours in (1, 6, 24):
        num = int(hours * 3600 * PROCEDURE.fps)
        frames = np.arange(0, num, 3)  # a detection on every third frame
        classes = 1 + (frames // 2000) % PROCEDURE.num_states
        detections = Detections(
            frames, classes, np.full(len(frames), 0.9), np.zeros((len(frames), 4))
        )
        decode = functools.partial(streams.decode, PROCEDURE, VARIANT, "asd", settings)
        seconds = best(functools.partial(decode, detections), 2)
        decoder = streams.Decoder(PROCEDURE, VARIANT, "asd", settings)
        events = 0
        tracemalloc.start()
        for frame in range(0, num, 3):
            c = 1 + (frame // 2000) % PROCEDURE.num_states
            events += len(decoder.update(frame, [(c, 0.9)]))
        peak = tracemalloc.get_traced_memory()[1] / 1024
        tracemalloc.stop()
        print(f"{hours:>5}{num:>9}{events:>8}{1e6 * seconds / num:>16.2f}{peak:>17.1f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--labels", help="folder with a folder of MECCANO labels per recording")
    args = parser.parse_args()
    recordings(args.labels)
    online(args.labels)
    growth()


if __name__ == "__main__":
    main()
