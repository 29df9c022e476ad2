"""The synthetic run over several seeds, from the general encoder and from scratch, as one table.

    python benchmarks/seeds.py --workdir=runs/seeds --seeds=0,1,2,3 --starts=general_encoder,scratch

A seed sets both the scene (timelines, lights, camera paths, colours) and the training. The runs of
one seed share their rendered data and the detector, which does not depend on where the encoder
starts. What is finished is not run again.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
from absl import app, flags

from stormpsr_jax.psr import analysis
from stormpsr_jax.psr.streams import STREAMS

_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of all runs.", required=True)
_SEEDS = flags.DEFINE_list("seeds", ["0", "1", "2", "3"], "Seeds.")
_STARTS = flags.DEFINE_list("starts", ["general_encoder", "scratch"], "Encoders to start from.")
_CONFIG = flags.DEFINE_string("config", "synthetic", "Config, by name or path.")


def one(config: str, folder: Path, data: Path, seed: str, start: str) -> dict:
    """Runs a seed to the end and returns its metrics."""
    if not (folder / "metrics.json").exists():
        words = [sys.executable, "-m", "stormpsr_jax.main", f"--config={config}"]
        words += [f"--workdir={folder}", f"--config.data.dir={data}", f"--config.seed={seed}"]
        words += [f"--config.data.synthetic.seed={seed}"]
        if start == "scratch":
            words.append("--config.init_from=")
        subprocess.run(words, check=True)
    return json.loads((folder / "metrics.json").read_text())


def cells(result: dict) -> dict[str, float]:
    """The figures of one run that the table shows."""
    row = {}
    for stream in STREAMS:
        for key in ("f1", "pos", "delay_s"):
            value = result["streams"].get(stream, {}).get(key)
            row[f"{stream} {key}"] = np.nan if value is None else value
    both = analysis.mean_delays_of_both(result) or {"asd_delay_s": np.nan, "storm_delay_s": np.nan}
    row["both asd"], row["both storm"] = both["asd_delay_s"], both["storm_delay_s"]
    return row


def main(_):
    root = Path(_WORKDIR.value)
    for start in _STARTS.value:
        rows = []
        for seed in _SEEDS.value:
            folder = root / f"{start}_{seed}"
            _share_detector(root / f"{_STARTS.value[0]}_{seed}", folder)
            rows.append(cells(one(_CONFIG.value, folder, root / f"data_{seed}", seed, start)))
        print(f"\nstart: {start}\n")
        print("| seed | " + " | ".join(f"{s} F1 / POS / delay s" for s in STREAMS), end="")
        print(" | delay on steps both found, asd → storm |\n|---" + "|---" * 4 + "|")
        for seed, row in zip(_SEEDS.value, rows, strict=True):
            print(_line(seed, row))
        print(_line("mean", {k: np.nanmean([r[k] for r in rows]) for k in rows[0]}))
        print(_line("std", {k: np.nanstd([r[k] for r in rows]) for k in rows[0]}))


def _share_detector(first: Path, folder: Path) -> None:
    """Copies the detector of this seed's first run into another run of the seed."""
    if (first / "detector" / "done.json").exists() and not (folder / "detector").exists():
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copytree(first / "detector", folder / "detector.part")
        (folder / "detector.part").rename(folder / "detector")


def _line(name: str, row: dict[str, float]) -> str:
    streams = [
        f"{row[f'{s} f1']:.3f} / {row[f'{s} pos']:.3f} / {row[f'{s} delay_s']:.1f}" for s in STREAMS
    ]
    both = f"{row['both asd']:.1f} → {row['both storm']:.1f}"
    return "| " + " | ".join([name, *streams, both]) + " |"


if __name__ == "__main__":
    app.run(main)
