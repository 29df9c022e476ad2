"""What is known of the data sets as they are downloaded, to hold against what is read.

`downloads.json` was put together from the code, label files and results that the authors and others
have published. Nobody who wrote it has seen the archives of pictures.
"""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path

_FILE = Path(__file__).with_name("downloads.json")


@dataclasses.dataclass(frozen=True)
class Download:
    """What is known of a data set.

    Attributes:
        last_frames: by split and recording, the number of the last picture; None: not known.
        split_frames: by split, its number of pictures, where that is known in sum only.
        first_frames: by recording, the number of the first picture, where it is not the usual one.
        video_starts: by recording, the number of the picture that the first frame of its video is,
            where it is not the usual first number.
    """

    last_frames: Mapping[str, Mapping[str, int | None]] = dataclasses.field(default_factory=dict)
    split_frames: Mapping[str, int] = dataclasses.field(default_factory=dict)
    first_frames: Mapping[str, int] = dataclasses.field(default_factory=dict)
    video_starts: Mapping[str, int] = dataclasses.field(default_factory=dict)


def known(name: str) -> Download:
    """Returns what is known of "industreal" or "meccano"."""
    return Download(**json.loads(_FILE.read_text("utf-8"))[name])
