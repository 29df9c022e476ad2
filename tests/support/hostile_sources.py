"""Sources that are broken or that lie, each made by code; those that refer have a module."""

import os
import re
import shutil
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import fault_pictures
import numpy as np
from PIL import Image

from tests.support.hostile_mp4 import fragmented, mp4
from tests.support.model_data import video
from tests.support.recognise_data import write_pictures, write_video


class Place(NamedTuple):
    """Where a source is made.

    Attributes:
        folder: for it.
        media: sound videos and pictures, by name.
        bait: a file that nobody names.
        beside: another one, in the folder.
        port: of this machine, that nobody names.
    """

    folder: Path
    media: Path
    bait: Path
    beside: Path
    port: int


Maker = Callable[[Place], Path | str]


class Sources(dict[str, tuple[Maker, str]]):
    """By name: what makes a source, and what the line says that names it, '' of a sound one."""

    def add(self, name: str, text: str):
        """Decorates a maker."""

        def add(maker: Maker) -> Maker:
            assert name not in self
            self[name] = (maker, text)
            return maker

        return add

    def file(self, name: str, text: str, ending: str, content: Callable[[Place], bytes]) -> None:
        """Adds a video file of this content."""

        def make(place: Place) -> Path:
            path = place.folder / f"x{ending}"
            path.write_bytes(content(place))
            return path

        self.add(name, text)(make)


def content_of(name: str) -> Callable[[Place], bytes]:
    """That of a sound file."""
    return lambda place: (place.media / name).read_bytes()


def changed(name: str, *changes: tuple[bytes, int, bytes]) -> Callable[[Place], bytes]:
    """A video in which, so many bytes after each of these words, something else stands."""

    def content(place: Place) -> bytes:
        data = bytearray(content_of(name)(place))
        for word, offset, other in changes:
            at = data.index(word) + offset
            data[at : at + len(other)] = other
        return bytes(data)

    return content


NO_VIDEO = "is not a video that can be read"
BROKEN = Sources()

# --- Broken ---------------------------------------------------------------------------------------

BROKEN.file("empty", "is empty (0 bytes)", ".mp4", lambda place: b"")
BROKEN.file("one byte", NO_VIDEO, ".mp4", lambda place: b"\0")
BROKEN.file("head alone", NO_VIDEO, ".mp4", lambda place: content_of("video.mp4")(place)[:100])
BROKEN.file("half an mp4", NO_VIDEO, ".mp4", lambda place: content_of("video.mp4")(place)[:6000])
BROKEN.file(
    "half an mkv", "is cut off: it ends at", ".mkv", lambda p: _half(content_of("video.mkv")(p))
)
BROKEN.file(
    "half an avi", "is cut off: it ends at", ".avi", lambda p: _half(content_of("video.avi")(p))
)
BROKEN.file("zeros", NO_VIDEO, ".mov", lambda place: bytes(100_000))
BROKEN.file("noise", NO_VIDEO, ".mkv", lambda place: np.random.default_rng(0).bytes(100_000))
BROKEN.file("text", NO_VIDEO, ".mp4", lambda place: b"time,step\n1,0\n")
BROKEN.file("a picture", NO_VIDEO, ".mp4", content_of("plain.jpg"))
BROKEN.file("an animation", NO_VIDEO, ".webm", content_of("other.gif"))
BROKEN.file("sound alone", "there is no video in it", ".mp4", content_of("sound.mp4"))
BROKEN.file(
    "no frames",
    "the video has no frames",
    ".mp4",
    lambda place: _without_samples(content_of("video.mp4")(place)),
)
BROKEN.file("one frame", "", ".mp4", content_of("one.mp4"))
BROKEN.file(
    "joined end to end",
    "timestamps go back",
    ".mkv",
    lambda place: 2 * content_of("video.mkv")(place),
)
BROKEN.file(
    "joined streams", "timestamps go back", ".ts", lambda place: 2 * content_of("video.ts")(place)
)


def _half(data: bytes) -> bytes:
    return data[: len(data) // 2]


def _without_samples(data: bytes) -> bytes:
    """An MP4 file whose tables have no rows."""
    data = bytearray(data)
    for table, offset in ((b"stts", 8), (b"stsz", 12), (b"stsc", 8), (b"stco", 8)):
        at = data.index(table) + offset
        data[at : at + 4] = bytes(4)
    return bytes(data)


@BROKEN.add("nothing there", "no such file or folder")
def _(place):
    return place.folder / "x.mp4"


@BROKEN.add("a pipe", "is no regular file")
def _(place):
    os.mkfifo(place.folder / "x.mp4")
    return place.folder / "x.mp4"


@BROKEN.add("a device", "is no regular file")
def _(place):
    (place.folder / "x.mp4").symlink_to("/dev/zero")
    return place.folder / "x.mp4"


@BROKEN.add("a link to nothing", "no such file or folder")
def _(place):
    (place.folder / "x.mp4").symlink_to("nothing.mp4")
    return place.folder / "x.mp4"


@BROKEN.add("a pipe among videos", "is no regular file")
def _(place):
    os.mkfifo(place.folder / "x.mp4")
    return place.folder


@BROKEN.add("a link to nothing among videos", "is a link to nothing.mp4, where nothing is")
def _(place):
    (place.folder / "x.mp4").symlink_to("nothing.mp4")
    return place.folder


@BROKEN.add("a pipe of control characters among videos", "is no regular file")
def _(place):
    os.mkfifo(place.folder / "x\n\x1b[31m.mp4")
    return place.folder


@BROKEN.add("a folder in itself", "symlink loop")
def _(place):
    (place.folder / "x").symlink_to(place.folder)
    return place.folder


@BROKEN.add("a folder as a video", "no videos and no folders of pictures")
def _(place):
    (place.folder / "x.mp4").mkdir()
    return place.folder / "x.mp4"


@BROKEN.add("a name of control characters", "control characters")
def _(place):
    shutil.copy(place.media / "video.mp4", place.folder / "x\n\x1b[31m.mp4")
    return place.folder / "x\n\x1b[31m.mp4"


@BROKEN.add("four gigabytes of nothing", NO_VIDEO)
def _(place):
    with (place.folder / "x.ts").open("wb") as file:
        file.truncate(2**32)
    return place.folder / "x.ts"


# --- Lying ----------------------------------------------------------------------------------------

SIDE = struct.pack(">HH", 60_000, 60_000)
# What a container says of its pictures' size does not count, where these say themselves.
BROKEN.file("a huge head", "", ".mov", changed("png.mov", (b"stsd", 44, SIDE)))
BROKEN.file("a huge head of an mp4", "", ".mp4", changed("video.mp4", (b"stsd", 44, SIDE)))
BROKEN.file(
    "a huge head of an avi",
    "",
    ".avi",
    changed("video.avi", (b"strf", 12, struct.pack("<ii", 60_000, 60_000))),
)
BROKEN.file(
    "huge pictures", NO_VIDEO, ".mov", lambda place: _huge(content_of("png.mov")(place), 60_000)
)
BROKEN.file(
    "large pictures", NO_VIDEO, ".mov", lambda place: _huge(content_of("png.mov")(place), 30_000)
)
BROKEN.file(
    "huge pictures of an avi",
    NO_VIDEO,
    ".avi",
    lambda place: re.sub(
        rb"(\xff\xc0..\x08)....", rb"\1" + SIDE, content_of("video.avi")(place), flags=re.S
    ),
)
BROKEN.file(
    "huge pictures and a huge head",
    NO_VIDEO,
    ".mov",
    lambda place: _huge(changed("png.mov", (b"stsd", 44, SIDE))(place), 60_000),
)


def _huge(data: bytes, side: int) -> bytes:
    """A MOV file whose PNG pictures say another size than its head."""
    data = bytearray(data)
    at = data.find(b"IHDR")
    while at >= 0:
        struct.pack_into(">II", data, at + 4, side, side)
        struct.pack_into(">I", data, at + 17, zlib.crc32(data[at : at + 17]))
        at = data.find(b"IHDR", at + 4)
    return bytes(data)


BROKEN.file(
    "a million samples a minute apart",
    "frames; of a file of",
    ".mp4",
    lambda place: mp4(10**6, 711_000, gap=59, ticks=1),
)
BROKEN.file(
    "edits that each show everything",
    "takes more memory than 384 MiB",
    ".mp4",
    lambda place: mp4(2000, 30_000, edits=20_000),
)
BROKEN.file(
    "a fragment of a hundred million samples",
    "takes more memory than 384 MiB",
    ".mp4",
    lambda place: fragmented(10**8),
)


@BROKEN.add("frames of 4096 x 4097", "is not a video that can be read")
def _(place):
    return write_video(place.folder / "x.mkv", np.zeros((1, 4097, 4096, 3), np.uint8), [0.0])


MOST = b"\xff\xff\xff\xff"
BROKEN.file("no ticks a second", "", ".mp4", changed("video.mp4", (b"mdhd", 16, bytes(4))))
BROKEN.file("ticks of a quarter nanosecond", "", ".mp4", changed("video.mp4", (b"mdhd", 16, MOST)))
BROKEN.file("a tick a second", "", ".mp4", changed("video.mp4", (b"mdhd", 16, b"\0\0\0\1")))
BROKEN.file("frames of a day", "", ".mp4", changed("video.mp4", (b"stts", 16, b"\x7f\xff\xff\xff")))
BROKEN.file(
    "billions of frames",
    NO_VIDEO,
    ".mp4",
    changed("video.mp4", (b"stsz", 12, b"\x7f\xff\xff\xff")),
)
BROKEN.file(
    "billions of times", "", ".mp4", changed("video.mp4", (b"stts", 12, b"\x7f\xff\xff\xff"))
)
BROKEN.file(
    "frames elsewhere",
    "the video has no frames",
    ".mp4",
    changed("video.mp4", (b"stco", 12, b"\x7f\xff\xff\xff")),
)
BROKEN.file("a matrix of nothing", "", ".mp4", changed("video.mp4", (b"tkhd", 44, bytes(36))))
BROKEN.file(
    "a matrix of the largest numbers",
    "",
    ".mp4",
    changed("video.mp4", (b"tkhd", 44, struct.pack(">9i", *(2**31 - 1, -(2**31), 0) * 3))),
)
BROKEN.file(
    "upside down",
    "",
    ".mp4",
    changed(
        "video.mp4", (b"tkhd", 44, struct.pack(">9i", -65536, 0, 0, 0, -65536, 0, 0, 0, 2**30))
    ),
)
BROKEN.file("an atom that never ends", "", ".mp4", changed("video.mp4", (b"moov", -4, MOST)))
BROKEN.file("atoms in atoms", NO_VIDEO, ".mp4", lambda place: _nested(100_000))


def _nested(depth: int) -> bytes:
    sizes = (8 * (depth - i) for i in range(depth))
    return b"".join(struct.pack(">I", size) + b"moov" for size in sizes)


@BROKEN.add("uneven frames", "")
def _(place):
    return shutil.copy(place.media / "uneven.mkv", place.folder / "x.mkv")


@BROKEN.add("a gap of a day", "timestamps jump from")
def _(place):
    times = np.array([0, 0.1, 86_400, 86_400.1])
    return write_video(place.folder / "x.mkv", video(4, 48, 64), times)


@BROKEN.add("a thousand frames a second", "")
def _(place):
    times = np.arange(60) / 1000
    return write_video(place.folder / "x.mkv", video(60, 48, 64), times)


def playlist(target: str) -> str:
    """Of one file."""
    return (
        "#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXT-X-MEDIA-SEQUENCE:0\n#EXTINF:5,\n"
        f"{target}\n#EXT-X-ENDLIST\n"
    )


# --- Folders of pictures --------------------------------------------------------------------------


def _pictures(name: str, text: str, spoil: Callable[[Place, Path], object]) -> None:
    """Adds a folder of twelve pictures, of which the fourth is spoilt."""

    def make(place: Place) -> Path:
        folder = write_pictures(place.folder / "x", video(12, 48, 64), 1)
        spoil(place, folder / "00004.jpg")
        return folder

    BROKEN.add(name, text)(make)


def _png(size: tuple[int, int], chunk: bytes = b"") -> bytes:
    """A PNG file that says its size, and has no picture."""

    def part(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    head = part(b"IHDR", struct.pack(">IIBBBBB", *size, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk + part(b"IDAT", b"") + part(b"IEND", b"")


def _scans(place: Place, path: Path) -> None:
    data = (place.media / "progressive.jpg").read_bytes()
    last = data.rindex(b"\xff\xda")
    path.write_bytes(data[:last] + data[last:-2] * 20_000 + data[-2:])


_pictures(
    "half a picture", "the JPEG is damaged", lambda _, p: p.write_bytes(_half(p.read_bytes()))
)
_pictures("an empty picture", "is empty", lambda _, p: p.write_bytes(b""))
_pictures("a long PNG", "134217728x1", lambda _, p: p.write_bytes(_png((1, 2**27))))
_pictures("a huge PNG", "00004.jpg", lambda _, p: p.write_bytes(_png((60_000, 60_000))))
_pictures(
    "a huge JPEG",
    "00004.jpg",
    lambda _, p: p.write_bytes(fault_pictures.resized(p.read_bytes(), "jpg", (65_000, 65_000))),
)
_pictures("twenty thousand scans", "00004.jpg", _scans)
_pictures("a large picture", "00004.jpg", lambda _, p: Image.new("L", (8000, 8000)).save(p))
_pictures("a missing picture", "frame 4 is missing", lambda _, p: p.unlink())
_pictures("a playlist as a picture", "00004.jpg", lambda d, p: p.write_text(playlist(str(d.bait))))
_pictures(
    "a drawing that refers",
    "00004.jpg",
    lambda d, p: p.write_text(f'<svg><image href="{d.bait}"/></svg>'),
)
_pictures(
    "a PostScript picture",
    "00004.jpg",
    lambda d, p: p.write_text(f"%!PS-Adobe-3.0 EPSF-3.0\n({d.bait}) run\n"),
)
_pictures("a pipe as a picture", "is no regular file", lambda _, p: (p.unlink(), os.mkfifo(p)))
_pictures(
    "a number of a thousand millions",
    "frame 4 is missing (999999987 of the frames",
    lambda _, p: p.rename(p.with_name("999999999.jpg")),
)
