"""The model and the video that ship with the package, each called `demo`.

`stormpsr_jax.load_model("demo")` and `python -m stormpsr_jax.recognise --model=demo demo --out=DIR`
use them. tools/demo.py has made the files beside this one; provenance.json says of what.
"""

import os
from pathlib import Path

NAME = "demo"
_FOLDER = Path(__file__).parent
MODEL = _FOLDER / "model"
VIDEO = _FOLDER / "demo.mp4"
LABELS = _FOLDER / "labels"  # the truth of the video, labels by the clock
PROVENANCE = _FOLDER / "provenance.json"


def model_folder(word: str | os.PathLike) -> Path:
    """The folder of the model that ships for the text "demo", else the folder itself.

    Raises:
        ValueError: for the text, and there is a model in a folder of that name.
    """
    if word != NAME:
        return Path(word)
    here = Path(NAME)
    if (here / "model.json").exists() or (here / "model").exists():
        raise ValueError(_two("model", "a model in the folder"))
    return MODEL


def video(taken: bool) -> Path:
    """The video that ships.

    Args:
        taken: whether there is a recording in a folder called demo, which could be meant as well.

    Raises:
        ValueError: it is taken.
    """
    if taken:
        raise ValueError(_two("video", "a recording in the folder"))
    return VIDEO


def _two(ours: str, theirs: str) -> str:
    return (
        f"demo: could be the {ours} that ships or {theirs} ./demo; write ./demo for the folder, or "
        "start from another directory for the one that ships"
    )
