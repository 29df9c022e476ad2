"""Sources that are broken, that lie, or that would lead elsewhere, each made by code.

`SOURCES` has them by name: what makes one in a folder of its own, and what the line says that names
it, '' where it is recognised after all.
"""

import os
import re
import shutil
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import fault_pictures
import fault_videos
import numpy as np
from model_data import video
from PIL import Image
from recognise_data import write_pictures, write_video


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
SOURCES: dict[str, tuple[Maker, str]] = {}


def source(name: str, text: str):
    """Adds a maker to `SOURCES`."""

    def add(maker: Maker) -> Maker:
        assert name not in SOURCES
        SOURCES[name] = (maker, text)
        return maker

    return add


def _file(name: str, text: str, ending: str, content: Callable[[Place], bytes]) -> None:
    """Adds a video file of this content."""

    def make(place: Place) -> Path:
        path = place.folder / f"x{ending}"
        path.write_bytes(content(place))
        return path

    source(name, text)(make)


def _of(name: str) -> Callable[[Place], bytes]:
    return lambda place: (place.media / name).read_bytes()


def _changed(name: str, *changes: tuple[bytes, int, bytes]) -> Callable[[Place], bytes]:
    """A video in which, so many bytes after each of these words, something else stands."""

    def content(place: Place) -> bytes:
        data = bytearray(_of(name)(place))
        for word, offset, other in changes:
            at = data.index(word) + offset
            data[at : at + len(other)] = other
        return bytes(data)

    return content


NO_VIDEO = "is not a video that can be read"

# --- Broken ---------------------------------------------------------------------------------------

_file("empty", "is empty (0 bytes)", ".mp4", lambda place: b"")
_file("one byte", NO_VIDEO, ".mp4", lambda place: b"\0")
_file("head alone", NO_VIDEO, ".mp4", lambda place: _of("video.mp4")(place)[:100])
_file("half an mp4", NO_VIDEO, ".mp4", lambda place: _of("video.mp4")(place)[:6000])
_file("half an mkv", "is cut off: it ends at", ".mkv", lambda p: _half(_of("video.mkv")(p)))
_file("half an avi", "is cut off: it ends at", ".avi", lambda p: _half(_of("video.avi")(p)))
_file("zeros", NO_VIDEO, ".mov", lambda place: bytes(100_000))
_file("noise", NO_VIDEO, ".mkv", lambda place: np.random.default_rng(0).bytes(100_000))
_file("text", NO_VIDEO, ".mp4", lambda place: b"time,step\n1,0\n")
_file("a picture", NO_VIDEO, ".mp4", _of("plain.jpg"))
_file("an animation", NO_VIDEO, ".webm", _of("other.gif"))
_file("sound alone", "there is no video in it", ".mp4", _of("sound.mp4"))
_file(
    "no frames",
    "the video has no frames",
    ".mp4",
    lambda place: _without_samples(_of("video.mp4")(place)),
)
_file("one frame", "", ".mp4", _of("one.mp4"))
_file("joined end to end", "timestamps go back", ".mkv", lambda place: 2 * _of("video.mkv")(place))
_file("joined streams", "timestamps go back", ".ts", lambda place: 2 * _of("video.ts")(place))


def _half(data: bytes) -> bytes:
    return data[: len(data) // 2]


def _without_samples(data: bytes) -> bytes:
    """An MP4 file whose tables have no rows."""
    data = bytearray(data)
    for table, offset in ((b"stts", 8), (b"stsz", 12), (b"stsc", 8), (b"stco", 8)):
        at = data.index(table) + offset
        data[at : at + 4] = bytes(4)
    return bytes(data)


@source("nothing there", "no such file or folder")
def _(place):
    return place.folder / "x.mp4"


@source("a pipe", "is no regular file")
def _(place):
    os.mkfifo(place.folder / "x.mp4")
    return place.folder / "x.mp4"


@source("a device", "is no regular file")
def _(place):
    (place.folder / "x.mp4").symlink_to("/dev/zero")
    return place.folder / "x.mp4"


@source("a link to nothing", "no such file or folder")
def _(place):
    (place.folder / "x.mp4").symlink_to("nothing.mp4")
    return place.folder / "x.mp4"


@source("a pipe among videos", "is no regular file")
def _(place):
    os.mkfifo(place.folder / "x.mp4")
    return place.folder


@source("a link to nothing among videos", "is a link to nothing.mp4, where nothing is")
def _(place):
    (place.folder / "x.mp4").symlink_to("nothing.mp4")
    return place.folder


@source("a pipe of control characters among videos", "is no regular file")
def _(place):
    os.mkfifo(place.folder / "x\n\x1b[31m.mp4")
    return place.folder


@source("a folder in itself", "symlink loop")
def _(place):
    (place.folder / "x").symlink_to(place.folder)
    return place.folder


@source("a folder as a video", "no videos and no folders of pictures")
def _(place):
    (place.folder / "x.mp4").mkdir()
    return place.folder / "x.mp4"


@source("a name of control characters", "control characters")
def _(place):
    shutil.copy(place.media / "video.mp4", place.folder / "x\n\x1b[31m.mp4")
    return place.folder / "x\n\x1b[31m.mp4"


@source("four gigabytes of nothing", NO_VIDEO)
def _(place):
    with (place.folder / "x.ts").open("wb") as file:
        file.truncate(2**32)
    return place.folder / "x.ts"


# --- Lying ----------------------------------------------------------------------------------------

SIDE = struct.pack(">HH", 60_000, 60_000)
# What a container says of its pictures' size does not count, where these say themselves.
_file("a huge head", "", ".mov", _changed("png.mov", (b"stsd", 44, SIDE)))
_file("a huge head of an mp4", "", ".mp4", _changed("video.mp4", (b"stsd", 44, SIDE)))
_file(
    "a huge head of an avi",
    "",
    ".avi",
    _changed("video.avi", (b"strf", 12, struct.pack("<ii", 60_000, 60_000))),
)
_file("huge pictures", NO_VIDEO, ".mov", lambda place: _huge(_of("png.mov")(place), 60_000))
_file("large pictures", NO_VIDEO, ".mov", lambda place: _huge(_of("png.mov")(place), 30_000))
_file(
    "huge pictures of an avi",
    NO_VIDEO,
    ".avi",
    lambda place: re.sub(
        rb"(\xff\xc0..\x08)....", rb"\1" + SIDE, _of("video.avi")(place), flags=re.S
    ),
)
_file(
    "huge pictures and a huge head",
    NO_VIDEO,
    ".mov",
    lambda place: _huge(_changed("png.mov", (b"stsd", 44, SIDE))(place), 60_000),
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


MOST = b"\xff\xff\xff\xff"
_file("no ticks a second", "", ".mp4", _changed("video.mp4", (b"mdhd", 16, bytes(4))))
_file("ticks of a quarter nanosecond", "", ".mp4", _changed("video.mp4", (b"mdhd", 16, MOST)))
_file("a tick a second", "", ".mp4", _changed("video.mp4", (b"mdhd", 16, b"\0\0\0\1")))
_file("frames of a day", "", ".mp4", _changed("video.mp4", (b"stts", 16, b"\x7f\xff\xff\xff")))
_file(
    "billions of frames",
    NO_VIDEO,
    ".mp4",
    _changed("video.mp4", (b"stsz", 12, b"\x7f\xff\xff\xff")),
)
_file("billions of times", "", ".mp4", _changed("video.mp4", (b"stts", 12, b"\x7f\xff\xff\xff")))
_file(
    "frames elsewhere",
    "the video has no frames",
    ".mp4",
    _changed("video.mp4", (b"stco", 12, b"\x7f\xff\xff\xff")),
)
_file("a matrix of nothing", "", ".mp4", _changed("video.mp4", (b"tkhd", 44, bytes(36))))
_file(
    "a matrix of the largest numbers",
    "",
    ".mp4",
    _changed("video.mp4", (b"tkhd", 44, struct.pack(">9i", *(2**31 - 1, -(2**31), 0) * 3))),
)
_file(
    "upside down",
    "",
    ".mp4",
    _changed(
        "video.mp4", (b"tkhd", 44, struct.pack(">9i", -65536, 0, 0, 0, -65536, 0, 0, 0, 2**30))
    ),
)
_file("an atom that never ends", "", ".mp4", _changed("video.mp4", (b"moov", -4, MOST)))
_file("atoms in atoms", NO_VIDEO, ".mp4", lambda place: _nested(100_000))


def _nested(depth: int) -> bytes:
    sizes = (8 * (depth - i) for i in range(depth))
    return b"".join(struct.pack(">I", size) + b"moov" for size in sizes)


@source("uneven frames", "")
def _(place):
    return shutil.copy(place.media / "uneven.mkv", place.folder / "x.mkv")


@source("a gap of a day", "timestamps jump from")
def _(place):
    times = np.array([0, 0.1, 86_400, 86_400.1])
    return write_video(place.folder / "x.mkv", video(4, 48, 64), times)


@source("a thousand frames a second", "")
def _(place):
    times = np.arange(60) / 1000
    return write_video(place.folder / "x.mkv", video(60, 48, 64), times)


# --- That refer to other files and addresses ------------------------------------------------------


def _references(place: Place) -> dict[str, str]:
    """What nobody named, by how it is referred to."""
    return {
        "a file": str(place.bait),
        "a file beside": place.beside.name,
        "an address": f"http://127.0.0.1:{place.port}/x.mp4",
        "an RTSP address": f"rtsp://127.0.0.1:{place.port}/x",
        "a TCP address": f"tcp://127.0.0.1:{place.port}",
        "files as one": f"concat:{place.bait}|{place.bait}",
        "a part of a file": f"subfile,,start,0,end,0,,:{place.bait}",
        "an encrypted file": f"crypto:{place.bait}",
    }


def _playlist(target: str) -> str:
    return (
        "#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXT-X-MEDIA-SEQUENCE:0\n#EXTINF:5,\n"
        f"{target}\n#EXT-X-ENDLIST\n"
    )


FORMS: dict[str, Callable[[str], str]] = {
    "a playlist": _playlist,
    "a list of files": lambda target: f"ffconcat version 1.0\nfile '{target}'\n",
    "a DASH description": lambda target: (
        '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" '
        'mediaPresentationDuration="PT5S"><Period><AdaptationSet mimeType="video/mp4">'
        f'<Representation id="1" bandwidth="1"><BaseURL>{target}</BaseURL></Representation>'
        "</AdaptationSet></Period></MPD>"
    ),
    "an ASX list": lambda target: f'<ASX version="3.0"><ENTRY><REF HREF="{target}"/></ENTRY></ASX>',
    "a Windows reference": lambda target: f"[Reference]\nRef1={target}\n",
    "a RAM list": lambda target: f"{target}\n",
    "a SMIL page": lambda target: f'<smil><body><video src="{target}"/></body></smil>',
    "subtitles by reference": lambda target: (
        f"# VobSub index file, v7 (do not modify this line!)\nid: en, index: 0\n{target}\n"
    ),
    "a filter": lambda target: f"movie={target}",
    "a script of AviSynth": lambda target: f'AVISource("{target}")\n',
    "a script of VapourSynth": lambda target: f"open({target!r}).read()\n",
}


def _add_references() -> None:
    for form, text in FORMS.items():
        for to in ("a file", "an address"):
            _file(
                f"{form} of {to}",
                NO_VIDEO,
                ".mp4",
                lambda place, text=text, to=to: text(_references(place)[to]).encode(),
            )
    for to in ("a file beside", "an RTSP address", "a TCP address", "files as one",
               "a part of a file", "an encrypted file"):  # fmt: skip
        _file(
            f"a playlist of {to}",
            NO_VIDEO,
            ".ts",
            lambda place, to=to: _playlist(_references(place)[to]).encode(),
        )


_add_references()


@source("a description of a session", NO_VIDEO)
def _(place):
    text = (
        "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\n"
        f"m=video {place.port} RTP/AVP 96\na=rtpmap:96 H264/90000\n"
    )
    path = place.folder / "x.mp4"
    path.write_text(text)
    return path


def _reference_movie(target: str) -> bytes:
    url = target.encode() + b"\0"
    reference = fault_videos.box(b"rdrf", bytes(4) + b"url " + struct.pack(">I", len(url)) + url)
    return fault_videos.box(
        b"moov", fault_videos.box(b"rmra", fault_videos.box(b"rmda", reference))
    )


def _elsewhere(data: bytes, target: bytes) -> bytes:
    """A MOV file whose frames are said to be in another one (an alias in its `dref`)."""
    alias = bytes(150) + struct.pack(">hH", 2, len(target)) + target + b"\xff\xff"
    entry = struct.pack(">I", 12 + len(alias)) + b"alis" + bytes(4) + alias
    at = data.index(b"dref") - 4
    (size,) = struct.unpack_from(">I", data, at)
    table = struct.pack(">I", 16 + len(entry)) + b"dref" + bytes(4) + struct.pack(">I", 1) + entry
    grown = bytearray(data[:at] + table + data[at + size :])
    for word in (b"moov", b"trak", b"mdia", b"minf", b"dinf"):
        place = grown.index(word) - 4
        (size_of_box,) = struct.unpack_from(">I", grown, place)
        struct.pack_into(">I", grown, place, size_of_box + len(table) - size)
    return bytes(grown)


_file(
    "a reference movie", "there is no video in it", ".mov", lambda p: _reference_movie(str(p.bait))
)
_file(
    "a reference movie of an address",
    "there is no video in it",
    ".mov",
    lambda place: _reference_movie(f"http://127.0.0.1:{place.port}/x.mov"),
)
_file(
    "frames in another file",
    "the video has no frames",
    ".mov",
    lambda place: _elsewhere(_of("video.mov")(place), str(place.bait).encode()),
)
_file(
    "subtitles that are a playlist",
    "the video has no frames",
    ".avi",
    lambda place: fault_videos.avi_with_subtitles(_playlist(str(place.bait)).encode()),
)


@source("a pattern of pictures", NO_VIDEO)
def _(place):
    shutil.copy(place.media / "plain.jpg", place.folder / "x%03d.mp4")
    return place.folder / "x%03d.mp4"


@source("a pattern in place of a file", "no such file or folder")
def _(place):
    return f"{place.folder}/beside%1d.dat"


@source("a protocol in place of a file", "no such file or folder")
def _(place):
    return f"concat:{place.bait}|{place.bait}"


@source("an address in place of a file", "no such file or folder")
def _(place):
    return f"http://127.0.0.1:{place.port}/x.mp4"


@source("standard input in place of a file", "no such file or folder")
def _(place):
    return "pipe:0"


# --- Folders of pictures --------------------------------------------------------------------------


def _pictures(name: str, text: str, spoil: Callable[[Place, Path], object]) -> None:
    """Adds a folder of twelve pictures, of which the fourth is spoilt."""

    def make(place: Place) -> Path:
        folder = write_pictures(place.folder / "x", video(12, 48, 64), 1)
        spoil(place, folder / "00004.jpg")
        return folder

    source(name, text)(make)


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
_pictures("a huge PNG", "00004.jpg", lambda _, p: p.write_bytes(_png((60_000, 60_000))))
_pictures(
    "a huge JPEG",
    "00004.jpg",
    lambda _, p: p.write_bytes(fault_pictures.resized(p.read_bytes(), "jpg", (65_000, 65_000))),
)
_pictures("twenty thousand scans", "00004.jpg", _scans)
_pictures("a large picture", "00004.jpg", lambda _, p: Image.new("L", (8000, 8000)).save(p))
_pictures("a missing picture", "frame 4 is missing", lambda _, p: p.unlink())
_pictures("a playlist as a picture", "00004.jpg", lambda d, p: p.write_text(_playlist(str(d.bait))))
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
