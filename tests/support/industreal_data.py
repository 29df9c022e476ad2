"""What the tests of IndustReal have in common: small recordings in its layout.

The numbers of categories are written down here as the data set has them, and not taken from the
code that is tested: the number of a box's category is the authors' class, while the file's own
table calls class n number n + 1.
"""

import json
from pathlib import Path

import numpy as np
import simplejpeg

from stormpsr_jax.recordings.procedure import load_procedure
from tests.support import videos

PROCEDURE = load_procedure("industreal")
LATE = "11_assy_0_1"  # whose pictures begin at 000030.jpg
FRAMES = {"01_assy_0_1": 8, "02_main_0_1": 6, LATE: 8, "05_assy_1_2": 7, "03_assy_0_1": 9}
SPLITS = dict.fromkeys(("01_assy_0_1", "02_main_0_1", LATE), "train") | {
    **{"05_assy_1_2": "val", "03_assy_0_1": "test"}
}
BASE, FULL, ODD = "10000000000", "11110111111", "11000000000"
ERROR = "1,-1" + ",0" * 9
# The authors' classes, 0 … 23.
CLASSES = """
    background 10000000000 10010010000 10010100000 10010110000 11100000000 11110010000 11110100000
    11110110000 11110111100 11110111110 11110110001 11110111101 11110111111 11110101111 11110011111
    11110011110 11110101110 11100001110 11101101110 11101011110 11101111110 11101111111 error_state
""".split()
TABLE = [{"id": n + 1, "name": name, "supercategory": ""} for n, name in enumerate(CLASSES)]


def first_frame(name: str) -> int:
    return 30 if name == LATE else 0


def row(frame: int, state: str) -> str:
    return f"{frame:06d}.jpg,{state if ',' in state else ','.join(state)}\n"


def raw_labels(name: str, first: int = 0) -> str:
    if "main" in name:
        return row(first, FULL)
    rows = ((0, BASE), (2, ODD), (3, ERROR), (4, "11110111110"))
    return "".join(row(first + at, state) for at, state in rows)


def coco(name: str, first: int = 0) -> dict:
    """Boxes of the second to fifth frame, in no order: base, error state (twice), full."""
    images = [
        {"id": 10 + i, "file_name": f"{first + i:06d}.jpg", "width": 1280, "height": 720}
        for i in (3, 1, 0, 2, 4)
    ]
    annotations = [
        {"id": 100 + i, "image_id": 10 + i, "category_id": category, "bbox": bbox}
        for i, category, bbox in (
            (2, 23, [320, 180, 640, 360]),
            (1, 1, [0, 0, 128, 72]),
            (4, 13, [1152, 648, 192, 144]),  # reaches over the corner
            (3, 23, [640, 360, 64, 36]),
        )
    ]
    if "main" in name:
        images, annotations = images[:2], []
    table = [dict(category) for category in TABLE]
    return {"images": images, "categories": table, "annotations": annotations}


def picture(name: str, row: int) -> np.ndarray:
    return np.full((44, 80, 3), 20 * row + len(name), np.uint8)


def make_recording(recording: Path, count: int) -> None:
    """A folder of a recording as in the downloads; its pictures tell their row by their grey."""
    name, first = recording.name, first_frame(recording.name)
    for stream in ("rgb", "stereo_left", "depth"):
        (recording / stream).mkdir(parents=True)
        for i in range(count):
            jpeg = simplejpeg.encode_jpeg(picture(name, i))
            (recording / stream / f"{first + i:06d}.jpg").write_bytes(jpeg)
    (recording / "PSR_labels_raw.csv").write_text(raw_labels(name, first))
    if "main" not in name:
        steps = f"{first + 4:06d}.jpg,3,Install front chassis\n"
        (recording / "PSR_labels.csv").write_text(steps)
    (recording / "OD_labels.json").write_text(json.dumps(coco(name, first)))
    (recording / "gaze.csv").write_text(f"{first:06d}.jpg,1,2\n")


def make_data(folder: Path) -> Path:
    for name, count in FRAMES.items():
        make_recording(folder / "recordings" / SPLITS[name] / name, count)
    (folder / "train.csv").write_text("for another task\n")
    (folder / "part_geometries/fbx_files").mkdir(parents=True)
    (folder / "part_geometries/fbx_files/texture.png").write_bytes(b"no frame of a recording")
    return folder


def write_video(path: Path, name: str, rows: range) -> None:
    """A video of 10 frames/s as all_rgb_videos.zip has them."""
    videos.write(path, (picture(name, i) for i in rows), fps=10)
