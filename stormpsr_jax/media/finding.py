"""Finds and opens recordings: videos and folders of pictures, in folders and zip files."""

import contextlib
import re
from collections.abc import Iterable

from stormpsr_jax.base.errors import gathering, raise_all, tell
from stormpsr_jax.base.files import check_name
from stormpsr_jax.base.trees import Place, Tree, join
from stormpsr_jax.media import pictures, video
from stormpsr_jax.media.pictures import ImageFiles, Pictures

_MAGIC = re.compile(rb"....ftyp|\x1aE\xdf\xa3|RIFF....AVI ", re.DOTALL)  # how videos begin


def find_pictures(trees: Iterable[Tree], inside: str = "") -> dict[str, list[Place]]:
    """Finds folders of image files, and videos, by the recording that they are of.

    Args:
        inside: '' if a folder has the name of its recording; else the name of the folder, or
            video, of pictures that is inside of a folder of that name, in small or capital letters.
            A video may always have the recording's name.

    A video whose name has no ending is left out, with a warning.

    Returns:
        The places found for each name; a video's place is its file.
    """
    places: list[tuple[str, Place]] = []
    for tree in trees:
        for folder, _, files in tree.walk():
            above, _, last = folder.rpartition("/")
            if pictures.has_images(files) and folder and inside in ("", last.lower()):
                name = above.rpartition("/")[2] if inside else last
                places.append((name, Place(tree, folder)))
            for file in filter(video.is_video, files):
                stem = file.rpartition(".")[0]
                name = last if inside and stem.lower() == inside else stem
                places.append((name, Place(tree, join(folder, file))))
            for file in (name for name in files if "." not in name):
                with contextlib.suppress(ValueError), tree.open(join(folder, file))[0] as content:
                    if _MAGIC.match(content.read(12)):
                        what = "is a video whose name has no ending, and is left out; add .mp4"
                        tell("warning", f"{tree.show(join(folder, file))}: {what}")
    return by_name(places)


def by_name(places: Iterable[tuple[str, Place]]) -> dict[str, list[Place]]:
    """Returns the places of each name, both in order, names in the form of files.check_name.

    Raises:
        ValueError: all names that cannot be those of recordings.
    """
    found: dict[str, list[Place]] = {}
    problems: list[str] = []
    for name, place in places:
        with gathering(problems):
            found.setdefault(check_name(name, str(place)), []).append(place)
    raise_all(problems)
    return dict(sorted(found.items()))


def open_recording(tree: Tree, name: str, fps: float) -> Pictures:
    """Opens a video, resampled to fps, or a folder of images, which is taken to have that rate.

    ValueError if it cannot be read.
    """
    if video.is_video(name):
        return video.open_resampled(tree, name, fps)
    numbers = pictures.number_images(tree, name, tree.entries(name)[1])
    return ImageFiles(tree, name, min(numbers), len(numbers))
