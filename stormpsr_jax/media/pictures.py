"""Pictures of a recording as JPEG files of one size, and the boxes on them.

A picture comes as a JPEG or PNG file or as an array (a frame of a video). It is resized with
antialiasing; a JPEG file that needs no change at all is kept as it is. Repaired, with a line in the
log: pictures in grey or CMYK become RGB, and those that EXIF says to rotate are rotated. A picture
that cannot be decoded to its end, or has another size than those before it, is an error.
"""

import contextlib
import dataclasses
import io
import logging
import os
import re
import struct
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import simplejpeg
from PIL import Image, ImageOps

from stormpsr_jax.base import folders
from stormpsr_jax.base.folders import printable, read_errors
from stormpsr_jax.media.framing import Framing, Placement
from stormpsr_jax.media.jpegs import decode_reduced
from stormpsr_jax.recordings.pictures import Picture, Pictures, Timestamps

_LOG = logging.getLogger(__name__)

# Far above any real picture; what is larger is not read.
MAX_FILE_BYTES = 128 * 2**20
_ENDS = 2**16  # bytes at either end of a file that tell its content
# Of the JPEG files that are written; small parts are told apart by colour.
QUALITY, SUBSAMPLING = 92, "444"
# A picture of few bytes that is one pixel wide and very long would be huge in the middle of being
# resized.
MAX_PIXELS, MAX_SIDE = 2**25, 2**14
MAX_FRAME_PIXELS = 2**24  # of a video, whose decoder holds up to 17 frames; 5.7K is just smaller
# What a picture file may have besides the bytes of its pixels, such as a preview or the film of a
# phone: it may be a million tiny pieces, each of which takes time.
MAX_NOTES, BYTES_OF_PIXEL = 2**22, 8
MAX_SCANS = 100  # of a progressive JPEG file
_START_OF_SCAN = b"\xff\xda"  # a marker, which cannot be part of compressed data

_IMAGE_FILE = re.compile(r"[A-Za-z_]*([0-9]{1,9})\.(?:jpe?g|png)", re.IGNORECASE | re.ASCII)
_IMAGE_ENDINGS = (".jpg", ".jpeg", ".png")
_ORIENTATION = 0x0112  # EXIF tag
# Where Pillow finds it. To look behind the picture of a PNG file, it decodes it whole.
_JPEG_NOTE = b"Exif\0\0"
_PNG_NOTES = b"eXIf", b"Raw profile type exif", b"XML:com.adobe.xmp"


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
            yield printable(path), read_file(path)

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


def read_file(path: Path) -> bytes:
    """Returns the content of a picture file; ValueError: unreadable, or above MAX_FILE_BYTES."""
    with read_errors(path), path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        content = file.read(MAX_FILE_BYTES + 1) if size <= MAX_FILE_BYTES else b""
    if max(size, len(content)) > MAX_FILE_BYTES:
        raise ValueError(
            f"{printable(path)}: has more than {MAX_FILE_BYTES >> 20} MiB, which no picture has; "
            "it is not read"
        )
    return content


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
    first = None
    repairs = set()
    for place, picture in pictures:
        examined = _examine(place, picture)
        if first is None:
            first = examined.size
            placement = framing.place(*first)
        _check_size(place, examined.size, first)
        if examined.repair and examined.repair not in repairs:
            repairs.add(examined.repair)
            _LOG.warning("%s: %s; and so on in this recording", place, examined.repair)
        unchanged = examined.is_plain and first == framing.size and placement.is_whole
        if unchanged and isinstance(picture, bytes):
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
    first = None
    for place, picture in pictures.read():
        examined = _examine(place, picture)
        first = first or examined.size
        _check_size(place, examined.size, first)
        if isinstance(picture, np.ndarray):
            yield picture
        elif examined.is_jpeg:
            yield _decode(place, picture)
        else:
            yield np.asarray(_upright(place, picture))


@dataclasses.dataclass(frozen=True)
class _Examined:
    """What the head of a picture says."""

    size: tuple[int, int]  # (H, W), upright
    is_plain: bool = False  # a JPEG file in colour that needs no repair
    is_jpeg: bool = False  # one that simplejpeg decodes to upright RGB
    repair: str = ""  # what is done to it


def _examine(place: str, picture: Picture) -> _Examined:
    if isinstance(picture, np.ndarray):
        check_pixels(place, *picture.shape[:2])
        return _Examined(picture.shape[:2])
    is_png = picture.startswith(b"\x89PNG")
    try:
        if is_png:
            width, height = struct.unpack_from(">II", picture.ljust(24, b"\0"), 16)
            colours = "RGB"
        else:
            height, width, colours, _ = simplejpeg.decode_jpeg_header(picture)
    except ValueError as error:
        what = "is empty" if not picture else f"is not a JPEG or PNG picture ({error})"
        raise ValueError(f"{place}: {what}") from error
    check_pixels(place, height, width)  # of a large one Pillow would warn in its own lines
    if len(picture) > (most := MAX_NOTES + BYTES_OF_PIXEL * height * width):
        raise ValueError(
            f"{place}: has {len(picture):,} bytes; of {height}x{width} (HxW) pixels and what is "
            f"noted with them, {most:,} are the most that are read: save it anew"
        )
    if not is_png and (scans := picture.count(_START_OF_SCAN)) > MAX_SCANS:
        raise ValueError(
            f"{place}: {scans} scans, each of which takes as long as a picture; cameras write at "
            "most ten: save it anew"
        )
    orientation = 1
    if any(note in picture for note in _PNG_NOTES) if is_png else _JPEG_NOTE in picture[: 2**16]:
        with _pillow(place, picture) as image:
            noted = image.getexif().get(_ORIENTATION, 1)
        orientation = noted if noted in range(2, 9) else 1
    elif is_png:
        with _pillow(place, picture):  # is its head that of a picture?
            pass
    repairs = [f"rotated as EXIF says (orientation {orientation})"] if orientation > 1 else []
    if colours in ("CMYK", "YCCK", "Gray"):
        repairs.append(f"{colours} converted to RGB")
    return _Examined(
        (width, height) if orientation > 4 else (height, width),
        not is_png and not repairs,
        not is_png and orientation == 1 and colours in ("YCbCr", "RGB", "Gray"),
        " and ".join(repairs),
    )


def _fit(place: str, picture: Picture, examined: _Examined, placement: Placement) -> np.ndarray:
    """Returns the picture as (H, W, 3) uint8 of size placement.size."""
    size: tuple[float, float] = examined.size
    if isinstance(picture, np.ndarray):
        image = Image.fromarray(picture)
    elif examined.is_jpeg:
        x0, y0, x1, y1 = placement.part
        _, _, w, h = placement.inside
        with _spoilt(place):
            wanted = h / (y1 - y0), w / (x1 - x0)
            array, size = decode_reduced(picture, examined.size, wanted)
        image = Image.fromarray(array)
    else:
        image = _upright(place, picture)
    return placement.resize(image, size)


def _upright(place: str, picture: bytes) -> Image.Image:
    with _pillow(place, picture) as opened:
        image = ImageOps.exif_transpose(opened)
        if image.mode.startswith("I"):  # 16 bits of grey, which Pillow would cut off at 255
            deep = np.asarray(image).astype(np.uint32)
            image = Image.fromarray(((deep + 128) // 257).astype(np.uint8))
        return image.convert("RGB")


def _decode(place: str, jpeg: bytes) -> np.ndarray:
    with _spoilt(place):
        return simplejpeg.decode_jpeg(jpeg)


@contextlib.contextmanager
def _pillow(place: str, picture: bytes) -> Iterator[Image.Image]:
    """Opens a picture with Pillow, whose errors become a ValueError that names it."""
    with _spoilt(place):
        image = Image.open(io.BytesIO(picture), formats=("JPEG", "PNG"))
    with image:
        check_pixels(place, image.height, image.width)
        with _spoilt(place):
            yield image


@contextlib.contextmanager
def _spoilt(place: str) -> Iterator[None]:
    try:
        yield
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f"{place}: the picture is damaged or cut off ({error})") from error


def _check_size(place: str, size: tuple[int, int], first: tuple[int, int]) -> None:
    if size != first:
        raise ValueError(
            f"{place}: is {_by(size)} (HxW), the first picture of the recording is {_by(first)}; "
            "all of them have to have one size"
        )


def check_pixels(place: str, height: int, width: int, most: int = MAX_PIXELS) -> None:
    """Raises ValueError if a picture of that size, of `most` pixels, is not read."""
    if height * width > most or max(height, width) > MAX_SIDE:
        raise ValueError(
            f"{place}: {height}x{width} (HxW) is more than {most:,} pixels, or {MAX_SIDE:,} a "
            "side; make it smaller"
        )


def _by(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"
