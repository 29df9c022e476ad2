"""What the check of a data folder finds."""

import dataclasses
from pathlib import Path

from stormpsr_jax.data.annotation import LabelledFrames
from stormpsr_jax.psr.files.labels import Step
from stormpsr_jax.psr.procedure import Procedure


@dataclasses.dataclass
class Findings:
    """What a check found, also of a folder whose procedure or settings cannot be read.

    Attributes:
        directory: the folder.
        problems: what is wrong; a line each.
        warnings: what to know; a line each.
        shards: by split and name, the shard files.
        num_decoded: frames that were decoded.
    """

    directory: Path
    problems: list[str] = dataclasses.field(default_factory=list)
    warnings: list[str] = dataclasses.field(default_factory=list)
    shards: dict[tuple[str, str], Path] = dataclasses.field(default_factory=dict)
    num_decoded: int = 0


@dataclasses.dataclass(kw_only=True)
class Checked(Findings):
    """What a check found in a folder that is known to be of a procedure.

    Attributes:
        procedure: of the recordings.
        fps: frames per second.
        image_size: (H, W).
        clip_length: frames per record.
        splits: by split and name, the recordings whose labels can be read.
        steps: by split and name, (frame, step id) of the label files that can be read.
    """

    procedure: Procedure
    fps: float
    image_size: tuple[int, int]
    clip_length: int
    splits: dict[str, dict[str, LabelledFrames]] = dataclasses.field(default_factory=dict)
    steps: dict[str, dict[str, list[Step]]] = dataclasses.field(default_factory=dict)
