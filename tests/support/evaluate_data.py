import json

import numpy as np

from stormpsr_jax import evaluate
from stormpsr_jax.recordings import labels, predictions, scores
from stormpsr_jax.recordings.labels import states_per_frame, states_to_steps
from stormpsr_jax.recordings.procedure import load_procedure
from tests.support.processes import refused
from tests.support.simulated_scores import simulate

PROCEDURE = load_procedure("industreal")
WINDOW = 32


def make_files(root, names=("01_assy_a", "02_assy_b", "07_main_c")):
    """Label and prediction folders of recordings that are recognised a little late."""
    for kind in ("asd", "temporal", "labels", "visibility"):
        (root / kind).mkdir(parents=True)
    for seed, name in enumerate(names):
        rng = np.random.default_rng(seed)
        variant = PROCEDURE.variant_for(name)
        targets = PROCEDURE.states[[3, 7, 8]] if "assy" in name else PROCEDURE.states[[14, 19]]
        states = np.vstack([variant.initial_state, targets]).astype(np.int8)
        changes = np.array([0, *(40 + np.sort(rng.choice(300, len(targets), replace=False)))])
        folder = root / "labels" / name
        folder.mkdir()
        steps = states_to_steps(changes, states)
        labels.write_steps(folder / "PSR_labels.csv", steps, PROCEDURE)
        labels.write_states(folder / "PSR_labels_raw.csv", changes, states)
        per_frame = states_per_frame(changes, states, 0, 400)
        frames = np.arange(10, 400, 2)
        late = predictions.Detections(
            frames,
            PROCEDURE.state_classes(per_frame[frames - 10]),
            0.6 + 0.3 * rng.random(len(frames)),
            rng.random((len(frames), 4)),
        )
        predictions.write_detections(root / "asd" / f"{name}_results_pred.csv", name, late)
        frames = np.arange(400)
        change = per_frame != per_frame[np.maximum(frames - WINDOW, 0)]
        clips = predictions.TemporalPredictions(
            frames, change.astype(int), change.astype(int), np.where(change, 0.9, 0.1)
        )
        predictions.write_temporal(root / "temporal" / f"{name}_results_pred.csv", name, clips)
        predictions.write_visibility(
            root / "visibility" / f"{name}.csv", frames, rng.random(len(frames))
        )
    return root


def make_scored(root):
    for kind in ("labels", "asd", "temporal", "scores"):
        (root / kind).mkdir()
    for seed in range(2):
        r = simulate(seed)
        (root / "labels" / r.name).mkdir()
        path = root / "labels" / r.name / "PSR_labels_raw.csv"
        labels.write_states(path, r.frames, r.states)
        scores.write_scores(root / "scores" / f"{r.name}.npz", r.scores)
        predictions.write_detections(
            root / "asd" / f"{r.name}_results_pred.csv",
            r.name,
            predictions.Detections(
                r.scores.frames,
                r.scores.states.argmax(1) + 1,
                np.exp(r.scores.states.max(1)) / (1 + np.exp(-r.scores.objectness)),
                np.zeros((len(r.scores.frames), 4)),
            ),
        )
        changed = 1 / (1 + np.exp(-r.scores.temporal[:, :11]))
        whole = np.zeros(changed.shape, int)
        predictions.write_temporal(
            root / "temporal" / f"{r.name}_results_pred.csv",
            r.name,
            predictions.TemporalPredictions(r.scores.frames, whole, whole, changed),
        )
    return root


def command(files, *flags, streams=("asd", "temporal"), out="out.json"):
    return [
        "--procedure=industreal",
        f"--labels={files / 'labels'}",
        *(f"--{s}={files / s}" for s in streams),
        "--threshold=asd=1.5,temporal=1,storm=1",
        f"--window={WINDOW}",
        f"--out={files / out}",
        *flags,
    ]


def run_scored(folder, *flags, streams=("asd", "temporal")):
    """The streams of what `make_scored` has written."""
    words = ["--procedure=synthetic", f"--labels={folder / 'labels'}"]
    words += [f"--{stream}={folder / stream}" for stream in streams]
    evaluate.main([*words, f"--out={folder / 'out.json'}", *flags])
    return json.loads((folder / "out.json").read_text())["streams"]


def run(files, *flags, **options):
    evaluate.main(command(files, *flags, **options))
    return json.loads((files / options.get("out", "out.json")).read_text())


def fails(files, capsys, *flags, **options):
    return refused(capsys, evaluate.main, command(files, *flags, **options))


def put_wrong(files):
    """Has a component that is installed first in 01_assy_a be incorrect 30 frames before that."""
    path = files / "labels" / "01_assy_a" / "PSR_labels_raw.csv"
    frames, states = labels.read_states(path, PROCEDURE)
    k = int(np.flatnonzero(states[1] > states[0])[0])
    wrong = states[0].copy()
    wrong[k] = -1
    frames = np.insert(frames, 1, frames[1] - 30)
    labels.write_states(path, frames, np.insert(states, 1, wrong, axis=0))
    return k, int(frames[1]), int(frames[2])
