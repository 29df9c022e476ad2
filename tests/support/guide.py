"""Pages whose commands tests give, in a user's folder, and the videos that they are given on."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np

from tests.support import videos
from tests.support.processes import ROOT, environment, finish, start

REPOSITORY = ROOT
PAGE = "docs/own-product.md"
COLOURS = [(200, 40, 40), (40, 200, 40), (40, 40, 220)]
# A few steps of the smallest models.
SMALL = {
    "init_from": "",
    "encoder.patch_size": 16,
    "encoder.width": 32,
    "encoder.depth": 1,
    "encoder.num_heads": 2,
    "encoder.stem": "()",
    "encoder.hidden": 32,
    "window.frames": 8,
    "temporal_model.depth": 1,
    "temporal_model.dim_head": 8,
    "temporal_model.mlp_dim": 32,
    "detector.width": 8,
    "detector.depth": 1,
    "detector.init_from": "",
    "pretrain.n_per_state": 1,
    "pretrain.any_frames": 4,
    "temporal.batch": 8,
    "finetune.batch": 4,
    "detector.batch": 8,
    "predict.batch": 16,
    **{f"{stage}.steps": 2 for stage in ("pretrain", "temporal", "finetune", "detector")},
    **{f"{stage}.eval_every": 2 for stage in ("pretrain", "temporal", "finetune", "detector")},
}


def block(kind: str, name: str, page: str = PAGE) -> str:
    """The fenced block after the line <!-- kind: name --> of a page."""
    text = (REPOSITORY / page).read_text("utf-8")
    (found,) = re.findall(rf"<!-- {kind}: {name} -->\n```\w*\n(.*?)```", text, re.DOTALL)
    return found


def additions() -> dict[str, tuple[int, list[str]]]:
    """By addition that CONTRIBUTING.md lists: how many files it says, and which it names."""
    text = (REPOSITORY / "CONTRIBUTING.md").read_text("utf-8")
    items = re.findall(r"^\* \*\*(an? .+?)\*\*, (\d+) files?: (.+?)(?=\n\*|\Z)", text, re.M | re.S)
    return {
        name: (int(number), re.findall(r"`((?:[\w.]+/)*\w+\.(?:py|json|toml))`", said))
        for name, number, said in items
    }


def follow(folder: Path, name: str, *extra: str) -> str:
    """Runs the commands of a block in a folder that has the repository's configs."""
    output = ""
    for line in block("guide", name).strip().splitlines():
        words = shlex.split(line)
        if words[:2] == ["stormpsr", "train"]:
            words = ["python", "-m", "data_prep.train", *words[2:]]
        assert words[:2] == ["python", "-m"]
        if words[2] in ("stormpsr_jax.main", "data_prep.train"):
            given = {word.partition("=")[0] for word in words}
            small = {f"--config.{key}": value for key, value in SMALL.items()}
            words += [f"{flag}={value}" for flag, value in small.items() if flag not in given]
            words += extra
        options = {"cwd": folder, "stderr": subprocess.PIPE}
        process = start(
            [sys.executable, *words[1:]], env=environment(OMP_NUM_THREADS="1"), **options
        )
        output += finish(process)[0]
    return output


def film(path: Path, completions: list[float], seed: int, seconds: int = 18, fps: int = 10) -> None:
    """An object that gets a bar of colour at each completion, hidden around it."""
    rng = np.random.default_rng(seed)
    table = rng.integers(0, 200, (6, 8, 3), np.uint8).repeat(12, 0).repeat(12, 1)

    def shown(i: int) -> np.ndarray:
        picture = table.copy()
        picture[20:60, 25:75] = (120, 110, 100)
        for k, end in enumerate(completions):
            if i / fps >= end:
                picture[25 + 10 * k : 33 + 10 * k, 30:70] = COLOURS[k]
            if abs(i / fps - end) < 0.5:
                picture[10:62, 20:60] = (220, 180, 150)
        return picture + rng.integers(0, 9, picture.shape, np.uint8)

    videos.write(path, map(shown, range(seconds * fps)), fps=fps)
