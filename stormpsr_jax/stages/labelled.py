"""The labels of a split and what stage `predict` has left for it."""

from __future__ import annotations

from pathlib import Path

from stormpsr_jax.psr.files.recordings import LabelledPredictions, load_recordings
from stormpsr_jax.stages.context import Context


def read_split(context: Context, split: str) -> dict[str, LabelledPredictions]:
    """The labels and predictions of a split; scores only if stage `fuse` is run."""
    folder = context.workdir / "predictions" / split

    def there(name: str) -> Path | None:
        return folder / name if (folder / name).is_dir() else None

    if not there("asd") and not there("temporal"):
        raise ValueError(f"{folder}: no predictions; run stage 'predict' on split {split!r} first")
    return load_recordings(
        context.procedure,
        context.folder(split) / "labels" / split,
        there("asd"),
        there("temporal"),
        scores_dir=folder / "scores" if "fuse" in context.config.stages else None,
        visibility_dir=there("visibility"),
    )
