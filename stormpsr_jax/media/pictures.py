"""Pictures of a recording as JPEG files of one size, and the boxes on them.

A picture comes as a JPEG or PNG file or as an array (a frame of a video). It is resized with
antialiasing; a JPEG file that needs no change at all is kept as it is. Pictures in grey or CMYK
become RGB, and those that EXIF says to rotate are rotated. A picture that cannot be decoded to its
end, or has another size than those before it, is an error.
"""

import contextlib
import dataclasses
import io
import math
import os
import re
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import simplejpeg
from PIL import Image, ImageOps

from stormpsr_jax.base import folders
from stormpsr_jax.base.folders import printable, read_errors
from stormpsr_jax.media.framing import WHOLE, Framing, Placement
from stormpsr_jax.recordings.pictures import Picture, Pictures, Timestamps

_ENDS = 2**16  # bytes at either end of a file that tell its content
# Of the JPEG files that are written; small parts are told apart by colour.
QUALITY, SUBSAMPLING = 92, "444"
MAX_PIXELS = 2**25  # far above any camera's; what is larger is not read
# JPEG files are decoded at k/8 of their size before they are resized, which takes a third of the
# time. What is decoded is at least this many times as large as what is asked for. Below, aliasing
# costs 5 dB (51 → 46 dB against resizing the whole picture); above, only time.
_REDUCED = 1.5
# The same where pictures are loaded again and again. From 640 to 224 pixels it is half size that is
# decoded, which libjpeg-turbo does fastest: 2/3 of the time, and 1 dB less (53 → 52).
_LOADED = 1.4

_IMAGE_FILE = re.compile(r"[A-Za-z_]*([0-9]{1,9})\.(?:jpe?g|png)", re.IGNORECASE | re.ASCII)
_IMAGE_ENDINGS = (".jpg", ".jpeg", ".png")
_ORIENTATION = 0x0112  # EXIF tag


@dataclasses.dataclass(frozen=True)
class ImageFiles:
    """Pictures that lie in a folder as one file each, numbered by their names."""

    folder: Path
    first_frame: int
    num_frames: int

    def timestamps(self, fps: float) -> Timestamps:
        """Returns the pictures, which are the frames."""
        numbers = np.arange(self.num_frames)
        return Timestamps(numbers / fps, numbers)

    def read(self) -> Iterator[tuple[str, bytes]]:
        """Yields (place, content) in order; ValueError if a file cannot be read."""
        for path in self._paths():
            with read_errors(path):
                content = path.read_bytes()
            yield printable(path), content

    def first(self) -> tuple[str, bytes]:
        """Returns (place, content) of the first one; ValueError if it cannot be read."""
        return next(self.read())

    def fingerprint(self) -> int:
        """See `fingerprint_all`."""
        return fingerprint_all(self._paths())

    def _paths(self) -> list[Path]:
        numbers = number_images(self.folder, folders.entries(self.folder)[1])
        return [self.folder / name for _, name in sorted(numbers.items())]


def has_images(files: Iterable[str]) -> bool:
    """Says whether there are image files among the files of a folder."""
    return any(name.lower().endswith(_IMAGE_ENDINGS) for name in files)


def number_images(folder: Path, files: Iterable[str]) -> dict[int, str]:
    """Returns the image files of a folder by their numbers.

    Raises:
        ValueError: a name without a number, a number given twice, or one that is missing.
    """
    numbers: dict[int, str] = {}
    for name in files:
        if not name.lower().endswith(_IMAGE_ENDINGS):
            continue
        match = _IMAGE_FILE.fullmatch(name)
        if not match:
            raise ValueError(f"{printable(folder / name)}: not a frame's name such as 00012.jpg")
        other = numbers.setdefault(int(match[1]), name)
        if other != name:
            raise ValueError(f"{printable(folder)}: {other} and {name} are the same frame")
    first, last = min(numbers), max(numbers)
    if missing := last - first + 1 - len(numbers):
        gap = next(number for number in range(first, last) if number not in numbers)
        raise ValueError(
            f"{printable(folder)}: frame {gap} is missing ({missing} of the frames {first}…{last} "
            "are); download or unpack them again"
        )
    return numbers


def fingerprint_all(paths: Sequence[Path]) -> int:
    """Returns a number to tell other content of files by, of which three are opened.

    It is of how many bytes each has: of pictures that are exchanged hardly one has as many.
    """
    with read_errors(paths[0].parent):
        sizes = ",".join(str(path.stat().st_size) for path in paths)
    ends = (paths[0], paths[len(paths) // 2], paths[-1])
    return zlib.crc32(f"{sizes} {[fingerprint(path) for path in ends]}".encode())


def fingerprint(path: Path) -> int:
    """Returns a number of a file's size, first and last 64 KiB, to tell other content by."""
    with read_errors(path), path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        digest = zlib.crc32(file.read(_ENDS), zlib.crc32(str(size).encode()))
        file.seek(max(size - _ENDS, 0))
        return zlib.crc32(file.read(_ENDS), digest)


def picture_size(pictures: Pictures) -> tuple[int, int]:
    """Returns (H, W) of the first picture, upright; ValueError if it cannot be read."""
    return size_of(*pictures.first())


def size_of(place: str, picture: Picture) -> tuple[int, int]:
    """Returns (H, W) of a picture, upright; ValueError if it cannot be read."""
    return _examine(place, picture).size


def encode(pictures: Iterable[tuple[str, Picture]], framing: Framing) -> Iterator[bytes]:
    """Yields the pictures of one recording as JPEG files of size framing.size.

    Args:
        pictures: (place as messages name it, picture), all of one size.

    Raises:
        ValueError: a picture cannot be decoded to its end, or has another size than the first one.
    """
    for place, picture, examined in _all_examined(pictures):
        placement = framing.place(*examined.size)
        whole = placement.part == WHOLE and placement.inside == (0, 0, *framing.size[::-1])
        if (
            whole
            and examined.size == framing.size
            and examined.is_plain
            and isinstance(picture, bytes)
        ):
            _decode(place, picture)  # whole to its end?
            yield picture
        else:
            result = _fit(place, picture, examined, placement)
            yield simplejpeg.encode_jpeg(result, QUALITY, "RGB", SUBSAMPLING, fastdct=False)


def read_upright(pictures: Pictures) -> Iterator[np.ndarray]:
    """Yields the pictures of one recording whole, as (H, W, 3) uint8 RGB, upright.

    Raises:
        ValueError: a picture cannot be decoded to its end, or has another size than the first one.
    """
    for place, picture, examined in _all_examined(pictures.read()):
        if isinstance(picture, np.ndarray):
            yield picture
        elif examined.is_plain:
            yield _decode(place, picture)
        else:
            yield np.asarray(_upright(place, examined.image))


@dataclasses.dataclass(frozen=True)
class _Examined:
    """What the head of a picture says."""

    size: tuple[int, int]  # (H, W), upright
    image: Image.Image
    is_plain: bool = False  # a JPEG file of upright RGB


def _all_examined(
    pictures: Iterable[tuple[str, Picture]],
) -> Iterator[tuple[str, Picture, _Examined]]:
    """Yields the pictures of a recording; ValueError where one has another size than the first."""
    first = None
    for place, picture in pictures:
        examined = _examine(place, picture)
        first = first or examined.size
        if examined.size != first:
            size, of_first = ("x".join(map(str, its)) for its in (examined.size, first))
            raise ValueError(
                f"{place}: is {size} (HxW), the first picture of the recording is {of_first}; all "
                "of them have to have one size"
            )
        yield place, picture, examined


def _examine(place: str, picture: Picture) -> _Examined:
    if isinstance(picture, np.ndarray):
        return _Examined(picture.shape[:2], Image.fromarray(picture))
    if not picture:
        raise ValueError(f"{place}: is empty")
    with _spoilt(place):
        image = Image.open(io.BytesIO(picture), formats=("JPEG", "PNG"))
        orientation = image.getexif().get(_ORIENTATION, 1)
    check_pixels(place, image.height, image.width)
    is_plain = image.format == "JPEG" and image.mode == "RGB" and orientation not in range(2, 9)
    size = image.size if orientation in range(5, 9) else image.size[::-1]
    return _Examined(size, image, is_plain)


def _fit(place: str, picture: Picture, examined: _Examined, placement: Placement) -> np.ndarray:
    """Returns the picture as (H, W, 3) uint8 of size placement.size."""
    image, size = examined.image, examined.size
    if isinstance(picture, np.ndarray):
        return placement.resize(image, size)
    if not examined.is_plain:
        return placement.resize(_upright(place, image), size)
    x0, y0, x1, y1 = placement.part
    _, _, w, h = placement.inside
    with _spoilt(place):
        array, reduced = _decode_reduced(picture, size, (h / (y1 - y0), w / (x1 - x0)), _REDUCED)
    return placement.resize(Image.fromarray(array), reduced)


def _upright(place: str, image: Image.Image) -> Image.Image:
    with _spoilt(place):
        image = ImageOps.exif_transpose(image)
        if image.mode.startswith("I"):  # 16 bits of grey, which Pillow would cut off at 255
            deep = np.asarray(image).astype(np.uint32)
            image = Image.fromarray(((deep + 128) // 257).astype(np.uint8))
        return image.convert("RGB")


def _decode(place: str, jpeg: bytes) -> np.ndarray:
    with _spoilt(place):
        return simplejpeg.decode_jpeg(jpeg)


@contextlib.contextmanager
def _spoilt(place: str) -> Iterator[None]:
    try:
        yield
    except Image.UnidentifiedImageError as error:
        raise ValueError(f"{place}: is not a JPEG or PNG picture") from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f"{place}: the picture is damaged or cut off ({error})") from error


def check_pixels(place: str, height: int, width: int) -> None:
    """Raises ValueError if a picture of that size is not read."""
    if height * width > MAX_PIXELS:
        raise ValueError(
            f"{place}: {height}x{width} (HxW) is more than {MAX_PIXELS:,} pixels; make it smaller"
        )


def decode_smaller(jpeg: bytes, out: np.ndarray) -> None:
    """Decodes a JPEG file into a smaller picture (H, W, 3) uint8: bicubic, with antialiasing.

    ValueError: it cannot be decoded to its end.
    """
    size, whole = out.shape[:2], simplejpeg.decode_jpeg_header(jpeg)[:2]
    array, (height, width) = _decode_reduced(jpeg, whole, size, _LOADED)
    box = (0, 0, min(width, array.shape[1]), min(height, array.shape[0]))
    image = Image.fromarray(array).resize(size[::-1], Image.Resampling.BICUBIC, box=box)
    out[:] = np.asarray(image)


def _decode_reduced(
    jpeg: bytes, whole: tuple[int, int], wanted: tuple[float, float], reduced: float
) -> tuple[np.ndarray, tuple[float, float]]:
    """Decodes a JPEG file of size `whole` (H, W) at the smallest k/8 that suffices for `wanted`.

    Returns (h, w, 3) uint8 RGB, and the size of the whole picture at that scale, no whole number
    perhaps; ValueError: it is cut off.
    """
    low = [math.ceil(reduced * side) for side in wanted]
    array = simplejpeg.decode_jpeg(jpeg, min_height=low[0], min_width=low[1])
    eighths: float = 8 * array.shape[0] / whole[0]
    for k in range(1, 9):  # the sizes were rounded up
        if all(-(-side * k // 8) == part for side, part in zip(whole, array.shape, strict=False)):
            eighths = k
            break
    return array, (whole[0] * eighths / 8, whole[1] * eighths / 8)
