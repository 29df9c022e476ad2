"""Protocol `released` beside `paper` on golden inputs: benchmarks/results/psr-protocols.md.

    python benchmarks/psr_protocols.py [--golden=DIR] [--labels=DIR] [--decoder=D] [--threshold=T]

Each protocol decodes and each scores, in all four combinations, so that a difference can be traced
to the decoding or to the scoring. The inputs are simulated: the figures compare two programs, they
say nothing about a model.
"""

import argparse
import dataclasses
import pathlib

import numpy as np

from stormpsr_jax.psr.evaluation import released
from stormpsr_jax.psr.files import labels, predictions
from stormpsr_jax.psr.procedure import load_procedure
from stormpsr_jax.psr.scoring import metrics
from stormpsr_jax.psr.streams import batch
from stormpsr_jax.psr.streams.rules import DECODERS, STREAMS, Settings

SHARED = pathlib.Path(__file__).parents[1] / "../shared"
PROFILES = ("clean", "noisy", "sparse", "flicker", "early", "asd_only", "temporal_only")
STRIDE = 4  # frames between the clips of the golden temporal predictions


def held(temporal):
    """Every clip's row repeated up to the next clip: protocol `paper` wants one for every frame."""
    frames = (temporal.frames[:, None] + np.arange(STRIDE)).ravel()
    columns = dataclasses.astuple(temporal)[1:]
    repeated = (np.repeat(column, STRIDE, axis=0) for column in columns)
    return predictions.TemporalPredictions(frames, *repeated)


def read(procedure, golden, labels_dir, profile):
    """By recording: the truth, and the predictions of both streams."""
    found = {}
    for path in sorted((golden / procedure.name / profile / "asd").glob("*_results_pred.csv")):
        recording = path.name.removesuffix("_results_pred.csv")
        (folder,) = labels_dir.glob(f"**/{recording}")
        found[recording] = (
            labels.read_steps(folder / "PSR_labels.csv", procedure),
            predictions.read_detections(path, procedure),
            predictions.read_temporal(path.parents[1] / "temporal" / path.name, procedure),
        )
    return found


def score(protocol, truth, events, stream, window, fps):
    if protocol == "paper":
        return metrics.score_recording(truth, [event[:2] for event in events], fps)
    scores = released.score_recording(truth, events, None if stream == "asd" else window)
    return {**scores, "delay_s": scores["delay_frames"] / fps}


def cell(summary):
    delay = "–" if summary["delay_s"] is None else f"{summary['delay_s']:.1f}"
    return f"{summary['pos']:.3f} / {summary['f1']:.3f} / {delay}"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--golden", type=pathlib.Path, default=SHARED / "golden")
    parser.add_argument(
        "--labels", type=pathlib.Path, default=SHARED / "data" / "meccano_psr_labels"
    )
    parser.add_argument("--decoder", choices=DECODERS, default="expected")
    parser.add_argument("--threshold", type=float, default=6.0)
    args = parser.parse_args()
    settings = Settings(args.decoder, args.threshold)

    print("| procedure, profile | stream | decoded and scored by released ", end="")
    print("| released, scored by paper | paper, scored by released | paper |")
    print("|---|---|---|---|---|---|")
    roots = {"industreal": args.golden / "industreal" / "labels", "meccano": args.labels}
    for name, labels_dir in roots.items():
        procedure = load_procedure(name)
        for profile in PROFILES:
            recordings = read(procedure, args.golden, labels_dir, profile)
            for stream in STREAMS:
                if stream == "storm" and args.decoder == "naive":
                    continue
                scored = {(d, s): {} for d in ("released", "paper") for s in ("released", "paper")}
                for recording, (truth, asd, temporal) in recordings.items():
                    how = procedure, procedure.variant_for(recording), stream, settings, asd
                    events = {
                        "released": released.decode(*how, temporal),
                        "paper": batch.decode(*how, held(temporal)),
                    }
                    for decoded_by, scored_by in scored:
                        rows = events[decoded_by]
                        if decoded_by == "paper":  # scored like the other's, which has only ones
                            rows = [(event.frame, event.step_id, 1.0) for event in rows]
                        scored[decoded_by, scored_by][recording] = score(
                            scored_by, truth, rows, stream, settings.window, procedure.fps
                        )
                summaries = {
                    key: (released if key[1] == "released" else metrics).summarise(rows)
                    for key, rows in scored.items()
                }
                cells = " | ".join(cell(summary) for summary in summaries.values())
                print(f"| {name}, {profile} | {stream} | {cells} |")


if __name__ == "__main__":
    main()
