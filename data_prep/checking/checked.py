"""What the check of a data folder finds."""

import dataclasses
from pathlib import Path

from stormpsr_jax.data.annotation import LabelledFrames
from stormpsr_jax.psr.files.labels import Step
from stormpsr_jax.psr.procedure import Procedure


@dataclasses.dataclass
class Checked:
    """What a check found.

    Attributes:
        directory: the folder.
        problems: what is wrong; a line each.
        warnings: what to know; a line each.
        procedure: None if its file cannot be read.
        fps: frames per second.
        image_size: (H, W).
        clip_length: frames per record.
        splits: by split and name, the recordings whose labels can be read.
        steps: by split and name, (frame, step id) of the label files that can be read.
        shards: by split and name, the shard files.
        num_decoded: frames that were decoded.
    """

    directory: Path
    problems: list[str] = dataclasses.field(default_factory=list)
    warnings: list[str] = dataclasses.field(default_factory=list)
    procedure: Procedure | None = None
    fps: float = 0.0
    image_size: tuple[int, int] = (0, 0)
    clip_length: int = 0
    splits: dict[str, dict[str, LabelledFrames]] = dataclasses.field(default_factory=dict)
    steps: dict[str, dict[str, list[Step]]] = dataclasses.field(default_factory=dict)
    shards: dict[tuple[str, str], Path] = dataclasses.field(default_factory=dict)
    num_decoded: int = 0
