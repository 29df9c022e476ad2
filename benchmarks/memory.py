"""Peak memory of every stage, on recordings of some length and on ones ten times as long.

    python benchmarks/memory.py [--frames=2000] [--recordings=4] [--steps=20]

The same number of recordings, steps and batches; only their length differs. Prints the peak
resident memory of each stage's process for both, less that of a process which only imports the
package, and the ratio of the peaks; stages run one by one, each in its own process.
"""

import argparse
import functools
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import simplejpeg

from data_prep.writing import shards
from stormpsr_jax.psr.procedure import load_procedure

PROCEDURE = load_procedure("synthetic")
SIZE = 64
STAGES = ("pretrain", "embed", "temporal", "finetune", "detector", "predict", "fuse", "evaluate")


def recording(split: str, name: str, *, num_frames: int) -> shards.RecordingData:
    """A recording of plain coloured pictures: one colour a state, parts added at even times."""
    parts = np.arange(num_frames) * (PROCEDURE.num_components + 1) // num_frames
    states = (np.arange(PROCEDURE.num_components) < parts[:, None]).astype(np.int8)
    rng = np.random.default_rng(int(name[-1]))
    noise = rng.integers(0, 40, (SIZE, SIZE, 3), np.uint8)
    colours = rng.integers(0, 200, (PROCEDURE.num_components + 1, 3), np.uint8)
    jpegs = [simplejpeg.encode_jpeg(noise + colour) for colour in colours]
    return shards.RecordingData(
        name,
        0,
        (jpegs[p] for p in parts),
        states,
        np.full((num_frames, 4), 0.5),
        PROCEDURE.state_classes(states),
        np.ones(num_frames),
    )


def peak_mib(words: list[str], env: dict[str, str]) -> float:
    """Runs a command and returns its peak resident memory in MiB."""
    process = subprocess.Popen(words, env=env, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"{' '.join(words)} failed")
    return usage.ru_maxrss / 1024


def measure(root: Path, num_frames: int, args: argparse.Namespace) -> dict[str, float]:
    """Peak memory in MiB by stage, on recordings of num_frames frames."""
    names = [[f"{split}_{i}" for i in range(args.recordings)] for split in ("train", "val", "test")]
    make = functools.partial(recording, num_frames=num_frames)
    arguments = {
        "procedure": PROCEDURE,
        "image_size": (SIZE, SIZE),
        "splits": dict(zip(("train", "val", "test"), names, strict=True)),
    }
    shards.build(root / "data", make=make, **arguments)
    words = [sys.executable, "-m", "stormpsr_jax.main", "--config=synthetic"]
    words += [f"--workdir={root / 'run'}", f"--config.data.dir={root / 'data'}"]
    without = ("pretrain.cad_per_state", "detector.cad", "detector.cad_wrong", "detector.pose_loss")
    words += [f"--config.{field}=0" for field in without]
    for stage in ("pretrain", "temporal", "finetune", "detector"):
        words += [f"--config.{stage}.{field}={args.steps}" for field in ("steps", "eval_every")]
    found = {}
    for i, stage in enumerate(STAGES):
        stages = f"--config.stages={STAGES[: i + 1]!r}"
        found[stage] = peak_mib([*words, stages], dict(os.environ))
        print(f"{num_frames} frames, {stage}: {found[stage]:.0f} MiB", file=sys.stderr, flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--frames", type=int, default=2_000, help="Frames of a short recording.")
    parser.add_argument("--recordings", type=int, default=4, help="Recordings in each split.")
    parser.add_argument("--steps", type=int, default=20, help="Steps of each trained stage.")
    args = parser.parse_args()
    imports = peak_mib([sys.executable, "-c", "import stormpsr_jax.stages.run"], dict(os.environ))
    with tempfile.TemporaryDirectory() as root:
        short, long = (
            measure(Path(root, str(n)), n, args) for n in (args.frames, 10 * args.frames)
        )
    print(f"imports alone: {imports:.0f} MiB")
    print(f"| stage | {args.frames} frames, MiB | {10 * args.frames} frames, MiB | ratio |")
    print("|---|---|---|---|")
    for stage in STAGES:
        ratio = long[stage] / short[stage]
        print(f"| {stage} | {short[stage]:.0f} | {long[stage]:.0f} | {ratio:.2f} |")
    print(json.dumps({"worst_ratio": max(long[s] / short[s] for s in STAGES)}))


if __name__ == "__main__":
    main()
