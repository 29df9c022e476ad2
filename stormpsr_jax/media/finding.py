"""Finds and opens recordings: videos, and folders of pictures."""

from collections.abc import Collection, Iterable
from pathlib import Path

from stormpsr_jax.base import folders
from stormpsr_jax.base.errors import for_each, tell
from stormpsr_jax.base.files import check_name
from stormpsr_jax.base.folders import printable
from stormpsr_jax.media import pictures, video
from stormpsr_jax.media.pictures import ImageFiles, Pictures


def find_pictures(
    top: Path, inside: str = "", left_out: Collection[str] = ()
) -> dict[str, list[Path]]:
    """Finds folders of image files, and videos, by the recording that they are of.

    Args:
        top: a folder, or a video.
        inside: '' if a folder has the name of its recording; else the name of the folder, or
            video, of pictures that is inside of a folder of that name, in small or capital letters.
            A video may always have the recording's name.
        left_out: names of folders that are not looked into.

    Archives are left out, with a warning.

    Returns:
        The places found for each name; a video's place is its file.
    """
    places: list[tuple[str, Path]] = []
    for folder, _, names in folders.walk(top, left_out):
        last = folder.name
        if pictures.has_images(names) and top not in (folder, folder / names[0]):
            if inside in ("", last.lower()):
                places.append((folder.parent.name if inside else last, folder))
        for name in filter(video.is_video, names):
            stem = name.rpartition(".")[0]
            places.append((last if inside and stem.lower() == inside else stem, folder / name))
        if packed := list(filter(folders.is_archive, names)):
            what = f"{len(packed)} archives are not read, such as {packed[0]}; unpack what you need"
            tell("warning", f"{printable(folder)}: {what}")
    return by_name(places)


def by_name(places: Iterable[tuple[str, Path]]) -> dict[str, list[Path]]:
    """Returns the places of each name, both in order, names in the form of files.check_name.

    Raises:
        ValueError: all names that cannot be those of recordings.
    """
    found: dict[str, list[Path]] = {}

    def add(name: str, place: Path) -> None:
        found.setdefault(check_name(name, printable(place)), []).append(place)

    for_each(places, add)
    return dict(sorted(found.items()))


def open_recording(path: Path, fps: float) -> Pictures:
    """Opens a video, resampled to fps, or a folder of images, which is taken to have that rate.

    ValueError if it cannot be read.
    """
    if video.is_video(path.name):
        return video.open_resampled(path, fps)
    numbers = pictures.number_images(path, folders.entries(path)[1])
    return ImageFiles(path, min(numbers), len(numbers))
