"""What there is to recognise: video files, folders of them, folders of numbered pictures."""

import collections
import contextlib
import dataclasses
import hashlib
import os
from collections.abc import Collection, Generator, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from stormpsr_jax import demo
from stormpsr_jax.base import files, folders
from stormpsr_jax.base.errors import for_each, gathering, tell
from stormpsr_jax.base.files import check_name
from stormpsr_jax.base.folders import printable, read_errors
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
    by_name_of: dict[str, list[Path]] = {}

    def add(name: str, place: Path) -> None:
        by_name_of.setdefault(check_name(name, printable(place)), []).append(place)

    for_each(places, add)
    return dict(sorted(by_name_of.items()))


def open_recording(path: Path, fps: float) -> Pictures:
    """Opens a video, resampled to fps, or a folder of images, which is taken to have that rate.

    ValueError if it cannot be read.
    """
    if video.is_video(path.name):
        return video.open_resampled(path, fps)
    numbers = pictures.number_images(path, folders.entries(path)[1])
    return ImageFiles(path, min(numbers), len(numbers))


@dataclasses.dataclass(frozen=True)
class Source:
    """A recording to recognise."""

    name: str  # the file's without its ending, or the folder's
    place: Path  # the video file, or the folder of pictures

    @property
    def is_video(self) -> bool:
        """Whether it is a video file; else it is a folder of pictures."""
        return not self.place.is_dir()

    def open(self, fps: float) -> Pictures:
        """Opens it, as `data_prep.own` does; ValueError: it cannot be read, or PyAV is missing."""
        return open_recording(self.place, fps)

    def stamp(self) -> str:
        """Tells, by the sizes and times of change of its files, whether it may have changed."""
        digest = hashlib.sha256()
        with read_errors(self.place):
            for path in self._files():
                status = path.stat()
                digest.update(f"{path.name}\0{status.st_size}\0{status.st_mtime_ns}\0".encode())
        return digest.hexdigest()

    def checksum(self) -> str:
        """Of the content of its files and, of pictures, their names."""
        digest = hashlib.sha256()
        with read_errors(self.place):
            for path in self._files():
                name = "" if self.is_video else path.name
                digest.update(f"{name}\0{files.checksum(path)}\0".encode())
        return digest.hexdigest()

    def _files(self) -> list[Path]:
        if self.is_video:
            return [self.place]
        names = folders.entries(self.place)[1]
        return [self.place / name for name in names if pictures.has_images([name])]


def open_source(place: str | os.PathLike) -> Source:
    """Returns the one recording at a path; the text "demo" is the video that ships.

    Raises:
        ValueError: there is none, or its name cannot be that of a recording.
    """
    if place == demo.NAME:
        place = demo.video(taken=_holds_pictures(Path(place)))
    place = Path(place)
    place_text = printable(place)
    if place.is_dir():
        if not _holds_pictures(place):
            raise ValueError(f"{place_text}: no pictures (such as 00012.jpg) are in this folder")
        name = place.resolve().name
    elif not place.is_file():
        what = "is no regular file" if place.exists() else "no such file or folder"
        raise ValueError(f"{place_text}: {what}")
    elif folders.is_archive(place):
        raise ValueError(f"{place_text}: archives are not read; unpack it, and give the folder")
    elif not video.is_video(place.name):
        raise ValueError(
            f"{place_text}: is no video by its ending; known are {', '.join(video.VIDEO_ENDINGS)}"
        )
    else:
        name = place.name.rpartition(".")[0]
    return Source(files.check_name(name, place_text), place)


def _holds_pictures(folder: Path) -> bool:
    return folder.is_dir() and pictures.has_images(folders.entries(folder)[1])


def find(words: Iterable[str], out: Path) -> tuple[list[Source], list[str]]:
    """Finds the recordings that SOURCE… names.

    Args:
        words: paths of videos, of folders (of pictures, or of videos and folders of pictures at any
            depth), and "demo", the video that ships.
        out: what lies in this folder, that of the results, is no source.

    Returns:
        the recordings, in their order, and the errors: all words that lead to nothing, all names
        that cannot be those of results, and all names that several recordings have.
    """
    places: dict[Path, None] = {}  # each once
    opened: list[Source] = []
    errors: list[str] = []
    for word in words:
        with gathering(errors):
            places |= dict.fromkeys(_places(word, out.resolve()))
    for place in places:
        with gathering(errors):
            opened.append(open_source(place))
    return opened, errors + _twice(opened)


def _places(word: str, out: Path) -> list[Path]:
    path = Path(word)
    if word == demo.NAME:
        return [demo.video(taken=path.is_dir() and bool(_kept(path, out)))]
    if not path.is_dir():
        if not path.exists():
            raise ValueError(f"{printable(word)}: no such file or folder")
        return [path]
    if kept := _kept(path, out):
        return kept
    raise ValueError(f"{path}: no videos and no folders of pictures are in it")


def _kept(folder: Path, out: Path) -> list[Path]:
    """The folder itself if it holds pictures, and the videos and folders of pictures in it."""
    places = [folder] if _holds_pictures(folder) else []
    for of_name in find_pictures(folder).values():
        places += of_name
    return sorted(place for place in places if out not in place.resolve().parents)


def _twice(found: Sequence[Source]) -> list[str]:
    places: dict[str, list[str]] = {}
    for source in found:
        places.setdefault(source.name, []).append(str(source.place))
    return [
        f"{' and '.join(of_name)}: are both called {name}, the name of the folder of their "
        "results; give one of them only, or rename the other"
        for name, of_name in places.items()
        if len(of_name) > 1
    ]


_Item = TypeVar("_Item")


def ahead(items: Generator[_Item], depth: int) -> Generator[_Item]:
    """Iterates over items that a thread makes, at most `depth` of them ahead.

    An error of the thread is raised here, after the items before it. When this iterator is closed,
    the thread ends, and `items` are closed.
    """
    with contextlib.closing(items), ThreadPoolExecutor(1) as thread:
        waiting = collections.deque(thread.submit(next, items, None) for _ in range(depth))
        try:
            while (item := waiting.popleft().result()) is not None:
                waiting.append(thread.submit(next, items, None))
                yield item
                del item  # which may be large, while the next one is waited for
        finally:
            thread.shutdown(wait=False, cancel_futures=True)
