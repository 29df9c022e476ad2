"""The boxes of the videos, for `data_prep.own --boxes`: COCO files, drawn ones and those between.

`boxes/NAME.json` has an image for each frame that somebody looked at, or that lies between two
drawn boxes which are at most `CARRIED` seconds apart: their boxes carry over to it, as a straight
line. An image without a box shows no whole object. The list `drawn` beside them says which frames
were drawn. Files without that list, and YOLO's folders, are of others: all are drawn.
"""

import itertools
import json
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np

from data_prep import matching
from data_prep.label.frames import Video
from data_prep.label.store import LabelStore, revision
from stormpsr_jax.base import files
from stormpsr_jax.recordings import box_files
from stormpsr_jax.recordings import boxes as psr_boxes
from stormpsr_jax.recordings.find import BOXES

CARRIED = 5.0  # seconds: a camera on a head moves
MAX_BOXES = 10_000


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path] if path.is_file() else []
    return sorted(file for file in path.iterdir() if box_files.is_of_picture(file.name))


class Box(msgspec.Struct, frozen=True, order=True):
    """A box at a frame: its upper left corner, width and height, in pixels.

    All 0 says that somebody has looked, and no whole object is there.
    """

    frame: int
    x: float
    y: float
    w: float
    h: float

    @property
    def corner(self) -> tuple[float, float, float, float]:
        """x, y, w, h."""
        return self.x, self.y, self.w, self.h


class BoxFolder:
    """The boxes of all recordings."""

    def __init__(self, store: LabelStore, fps: float):
        self._store, self._fps = store, fps
        self.folder = store.folder / BOXES

    def path(self, name: str) -> Path | None:
        """The file of a recording's boxes, or their folder; None without one."""
        there = (self.folder / f"{name}{ending}" for ending in (".json", ""))
        return next((path for path in there if _files(path)), None)

    def read(self, name: str, video: Video) -> tuple[list[Box], str]:
        """A recording's drawn boxes, and their file's revision; ValueError has all mistakes."""
        if (path := self.path(name)) is None:
            return [], revision([])
        boxes = matching.read_boxes(path)
        boxes.of_frames(0, video.num_frames)
        corners = boxes.boxes * ([video.width, video.height] * 2)
        corners[:, :2] -= corners[:, 2:] / 2
        drawn = zip(boxes.frames.tolist(), corners.round(3).tolist(), strict=True)
        kept = {frame: Box(frame, *corner) for frame, corner in drawn}
        kept |= {frame: Box(frame, 0, 0, 0, 0) for frame in boxes.empty.tolist()}
        frames = set(kept)
        if path.suffix == ".json" and "drawn" in (data := files.read_json(path)):
            frames &= files.fit(data["drawn"], set[int], f"{path}: drawn")
        return [kept[frame] for frame in sorted(frames)], revision(_files(path))

    def write(self, name: str, video: Video, boxes: Sequence[Box]) -> None:
        """Writes a recording's drawn boxes; ValueError: one is no box, or of no frame."""
        if len(boxes) > MAX_BOXES or len({box.frame for box in boxes}) < len(boxes):
            raise ValueError(f"more than {MAX_BOXES} boxes, or two at one frame")
        picture = psr_boxes.Picture(name, name, (video.width, video.height), [])
        for box in boxes:
            files.whole(box.frame, "frame", 0, video.num_frames - 1)
            if any(box.corner):
                at = box.x + box.w / 2, box.y + box.h / 2, box.w, box.h
                picture.shares(psr_boxes.Box(f"frame {box.frame}", at))
        path, target, boxes = self.path(name), self.folder / f"{name}.json", sorted(boxes)
        if boxes != self.read(name, video)[0]:
            ours = path == target and "drawn" in files.read_json(target)
            text = self._text(name, video, boxes) if boxes else None
            self._store.replace(name, target, text, [] if ours or not path else _files(path))

    def _text(self, name: str, video: Video, drawn: Sequence[Box]) -> str:
        images, annotations = [], []
        for number, box in enumerate(self._carried(drawn), start=1):
            size = {"width": video.width, "height": video.height}
            images.append({"id": number, "file_name": f"{name}/{box.frame:06d}.jpg", **size})
            if any(box.corner):
                entry = {"bbox": box.corner, "area": box.w * box.h, "iscrowd": 0}
                annotations.append({"id": number, "image_id": number, "category_id": 1, **entry})
        content = {
            "images": images,
            "annotations": annotations,
            "categories": [{"id": 1, "name": "product"}],
            "drawn": [box.frame for box in drawn],
        }
        return json.dumps(content, allow_nan=False) + "\n"

    def _carried(self, drawn: Sequence[Box]) -> list[Box]:
        carried = list(drawn)
        for a, b in itertools.pairwise(drawn):
            length = b.frame - a.frame
            if any(a.corner) and any(b.corner) and length <= CARRIED * self._fps:
                both = np.array([a.corner, b.corner])
                for i in range(1, length):
                    between = (both[0] + i / length * (both[1] - both[0])).round(3).tolist()
                    carried.append(Box(a.frame + i, *between))
        return sorted(carried)
