"""Finds the product in videos, so that the pictures made of them show it closely."""

import dataclasses
import functools
import hashlib
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stormpsr_jax.base import files
from stormpsr_jax.base.progress import Bar
from stormpsr_jax.data.folder import LOCATOR
from stormpsr_jax.media import pictures
from stormpsr_jax.media.framing import WHOLE, Framing
from stormpsr_jax.recordings.recording import Recording

if TYPE_CHECKING:
    from stormpsr_jax.serving.frames import Locating

LOCATE = ("auto", "always", "never")
# What is said of such pictures.
CLOSE = "pictures show what is around the product, which is found in each video (--locate)"
MOST = 4_000  # pictures that are learnt from, evenly spaced

_LOG = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Located:
    """A trained locator, in a file of the folder made with it; `size` (H, W) is of what it sees."""

    path: Path
    size: tuple[int, int]
    sha256: str

    def locating(self) -> "Locating":
        """What follows the product through a video."""
        from stormpsr_jax.serving.frames import Locating  # here, as few commands need networks

        return Locating(_function(self.path, self.size), self.size)


@functools.lru_cache(1)
def _function(path: Path, size: tuple[int, int]) -> Any:
    from stormpsr_jax.serving.content import Pictures
    from stormpsr_jax.serving.functions import Network, functions
    from stormpsr_jax.training import locator
    from stormpsr_jax.weights import parameters

    params, _ = parameters.load_params(path)
    network = Network(locator.network(), {"params": params})
    seen = Pictures(size, locator.MEAN, locator.STD, locator_size=size)
    return functions({"locator": network}, seen, 1, 1)["locate"]


def locator_of(
    recordings: Sequence[Recording], out: Path, framing: Framing, locate: str, small: bool
) -> Located | None:
    """The locator that a folder's pictures are cut out by; None: they show videos as they are.

    A folder keeps what it was made with. A new one's is trained on the boxes of split train.

    Args:
        locate: of LOCATE; "auto": if there are boxes to learn from, no crop is asked for, and the
            product is `small` without.

    Raises:
        ValueError: "always", and no boxes to learn from, a crop, or a folder made without.
    """
    if locate == "never":
        return None
    if (settings := out / "settings.json").is_file():
        made_with = files.read_json(settings).get("settings", {}).get("locator")
        if made_with is not None:
            return Located(out / LOCATOR, tuple(made_with["size"]), made_with["sha256"])
        if locate == "auto":
            return None
        raise ValueError(f"--locate=always: {out} was made without; write into another folder")
    boxed = [r for r in recordings if r.split == "train" and r.boxes and len(r.boxes.boxes)]
    if locate == "auto" and (not small or framing.region != WHOLE or not boxed):
        return None
    if framing.region != WHOLE:
        raise ValueError("--locate=always finds the part of each picture itself: leave out --crop")
    if not boxed:
        raise ValueError("--locate=always: no recording of split train has boxes to learn from")
    from stormpsr_jax.training import locator
    from stormpsr_jax.weights import parameters, torch_files

    digest = hashlib.sha256("".join(str(r.boxes and r.boxes.digest) for r in boxed).encode())
    made_from, path = digest.hexdigest(), out / LOCATOR
    size = locator.size_for(*pictures.picture_size(boxed[0].video))
    if not path.is_file() or torch_files.read_safetensors(path)[1].get("boxes") != f'"{made_from}"':
        seen, boxes = _learnt_from(boxed, size)
        _LOG.info("locator: learns from %d boxes", len(boxes))
        params = locator.train(seen, boxes)
        out.mkdir(parents=True, exist_ok=True)
        parameters.save_params(path, params, metadata={"boxes": made_from})
    return Located(path, size, files.checksum(path))


def _learnt_from(
    boxed: Sequence[Recording], size: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Small pictures with a box (N, *size, 3), and the boxes in them (N, 4).

    Not those without one: nearly all of them show the product, with hands in front of it.
    """
    framing, seen, boxes = Framing(size, "pad"), [], []
    boxes_of = [recording.boxes for recording in boxed if recording.boxes]
    every = -(-sum(len(of_recording.boxes) for of_recording in boxes_of) // MOST)
    total = sum(recording.video.num_frames for recording in boxed)
    with Bar(total=total, desc="pictures with boxes", unit="frame") as bar:
        for recording, of_recording in zip(boxed, boxes_of, strict=True):
            at = of_recording.of_frames(recording.video.first_frame, recording.video.num_frames)
            wanted = set(np.flatnonzero(at >= 0)[::every].tolist())
            for i, picture in enumerate(pictures.read_upright(recording.video)):
                bar.update()
                if i in wanted:
                    seen.append(framing.prepare(picture))
                    box = framing.place(*picture.shape[:2]).map_boxes(
                        of_recording.boxes[at[i]][None]
                    )
                    boxes.append(box[0])
    return np.stack(seen), np.array(boxes, np.float32)
