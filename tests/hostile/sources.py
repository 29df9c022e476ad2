"""Videos and folders that are broken or that lie; what refers elsewhere has a module of its own.

All are made by code. `tests/hostile/test_sources.py` gives each to `recognise`, and the family
"hostile media" draws from them for `data_prep.own`.
"""

import os
import random
import re
import shutil
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tests.hostile.damage import NAMES, damage
from tests.hostile.mp4 import fragmented, mp4
from tests.support.recognise_data import write_video

FRAMES, SECONDS = 25, 5  # of a video of the base, resampled to 5 frames a second
# fmt: off
CODECS = {
    "mp4": "libx264", "mov": "mpeg4", "avi": "mjpeg", "mkv": "mpeg4", "webm": "libvpx",
    "flv": "flv", "ts": "mpeg2video", "mpg": "mpeg1video", "wmv": "wmv2", "3gp": "h263",
}
# fmt: on
SAYS_ITS_LENGTH = ("mp4", "mov", "avi", "mkv", "webm", "flv", "3gp")
NUMBERS = (0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0x01000000)
NO_VIDEO = "is not a video that can be read"
NO_END = "is cut off: it begins as an MP4"
# Of 48 x 64 pixels, all different.
SHOWN = np.random.default_rng(0).integers(0, 256, (60, 6, 8, 3), np.uint8).repeat(8, 1).repeat(8, 2)


class Place(NamedTuple):
    """Where a source is made.

    Attributes:
        folder: for it.
        media: sound videos and pictures, by name.
        bait: a file that nobody names.
        beside: another one, in the folder.
        port: of this machine, that nobody names.
        rng: for what is drawn.
        name: of the source, without ending.
    """

    folder: Path
    media: Path
    bait: Path
    beside: Path
    port: int
    rng: random.Random
    name: str = "x"

    def path(self, ending: str = "") -> Path:
        """That of the source."""
        return self.folder / f"{self.name}{ending}"

    def read(self, name: str) -> bytes:
        """The content of a sound file."""
        return (self.media / name).read_bytes()

    def copy(self, name: str, ending: str) -> Path:
        """A sound file as the source."""
        return Path(shutil.copy(self.media / name, self.path(ending)))


class Source(NamedTuple):
    """A source.

    Attributes:
        text: what the line says that names it; "" of a sound one, None where either is right.
        make: makes it; returns the path to recognise.
        frames: that it has at least, if it works.
    """

    text: str | None
    make: Callable[[Place], Path | str]
    frames: int = 0


def file(ending: str, content: Callable[[Place], bytes]) -> Callable[[Place], Path]:
    """Makes a file of this content."""

    def make(place: Place) -> Path:
        place.path(ending).write_bytes(content(place))
        return place.path(ending)

    return make


def changed(name: str, word: bytes, offset: int, other: bytes) -> Callable[[Place], Path]:
    """Makes a sound video in which, so many bytes after a word, something else stands."""

    def content(place: Place) -> bytes:
        return _put(place.read(name), (word, offset, other))

    return file(Path(name).suffix, content)


def _put(data: bytes, *changes: tuple[bytes, int, bytes]) -> bytes:
    new = bytearray(data)
    for word, offset, other in changes:
        at = new.index(word) + offset
        new[at : at + len(other)] = other
    return bytes(new)


def part(name: str, share: float) -> Callable[[Place], Path]:
    """Makes the first part of a sound video."""
    return file(Path(name).suffix, lambda p: p.read(name)[: int(share * len(p.read(name)))])


def copy(name: str, ending: str) -> Callable[[Place], Path]:
    """Makes a sound file."""
    return lambda place: place.copy(name, ending)


def joined(name: str) -> Callable[[Place], Path]:
    """Makes a sound video twice, end to end."""
    return file(Path(name).suffix, lambda place: 2 * place.read(name))


# --- Broken ---------------------------------------------------------------------------------------


def _linked(place: Place, ending: str, target: str) -> Path:
    place.path(ending).symlink_to(target)
    return place.path(ending)


def _piped(place: Place, ending: str) -> Path:
    os.mkfifo(place.path(ending))
    return place.path(ending)


def _sparse(place: Place) -> Path:
    with place.path(".ts").open("wb") as file:
        file.truncate(2**32)
    return place.path(".ts")


def _folder(place: Place) -> Path:
    place.path(".mp4").mkdir()
    return place.path(".mp4")


def _twice(place: Place) -> Path:
    place.copy("video.mp4", ".mov")
    return place.copy("video.mp4", ".mp4").parent


NO_ROWS = [(b"stts", 8, bytes(4)), (b"stsz", 12, bytes(4)), (b"stsc", 8, bytes(4)),
           (b"stco", 8, bytes(4))]  # fmt: skip
CONTROL = "\n\x1b[31m.mp4"

BROKEN = {
    "empty": Source("is empty (0 bytes)", file(".mp4", lambda p: b"")),
    "one byte": Source(NO_VIDEO, file(".mp4", lambda p: b"\0")),
    "head alone": Source(NO_END, file(".mp4", lambda p: p.read("video.mp4")[:100])),
    "half an mp4": Source(NO_END, file(".mp4", lambda p: p.read("video.mp4")[:6000])),
    "half an mkv": Source("is cut off: it ends at", part("video.mkv", 0.5)),
    "half an avi": Source("is cut off: it ends at", part("video.avi", 0.5)),
    "zeros": Source(NO_VIDEO, file(".mov", lambda p: bytes(100_000))),
    "noise": Source(NO_VIDEO, file(".mkv", lambda p: np.random.default_rng(0).bytes(100_000))),
    "text": Source(NO_VIDEO, file(".mp4", lambda p: b"time,step\n1,0\n")),
    "a picture": Source(NO_VIDEO, copy("plain.jpg", ".mp4")),
    "an animation": Source(NO_VIDEO, copy("other.gif", ".webm")),
    "sound alone": Source("there is no video in it", copy("sound.mp4", ".mp4")),
    "no frames": Source(
        "the video has no frames", file(".mp4", lambda p: _put(p.read("video.mp4"), *NO_ROWS))
    ),
    "one frame": Source("", copy("one.mp4", ".mp4"), 1),
    "PNG pictures in MOV": Source("", copy("png.mov", ".mov"), FRAMES - 1),
    "an mkv called mp4": Source("", copy("video.mkv", ".mp4"), FRAMES - 1),
    "joined end to end": Source("timestamps go back", joined("video.mkv")),
    "joined streams": Source("timestamps go back", joined("video.ts")),
    "nothing there": Source("no such file or folder", lambda p: p.path(".mp4")),
    "a pipe": Source("is no regular file", lambda p: _piped(p, ".mp4")),
    "a device": Source("is no regular file", lambda p: _linked(p, ".mp4", "/dev/zero")),
    "a link to nothing": Source("no such file or folder", lambda p: _linked(p, ".mp4", "nothing")),
    "a pipe among videos": Source("is no regular file", lambda p: _piped(p, ".mp4").parent),
    "a link to nothing among videos": Source(
        "is a link to nothing.mp4, where nothing is",
        lambda p: _linked(p, ".mp4", "nothing.mp4").parent,
    ),
    "a pipe of control characters among videos": Source(
        "is no regular file", lambda p: _piped(p, CONTROL).parent
    ),
    "a folder in itself": Source("symlink loop", lambda p: _linked(p, "", str(p.folder)).parent),
    "a folder as a video": Source("no videos and no folders of pictures", _folder),
    "a name twice": Source(None, _twice),
    "a name of control characters": Source(
        "control characters", lambda p: p.copy("video.mp4", CONTROL)
    ),
    "four gigabytes of nothing": Source(NO_VIDEO, _sparse),
}

# --- Lying ----------------------------------------------------------------------------------------

SIDE = struct.pack(">HH", 60_000, 60_000)
MOST = b"\xff\xff\xff\xff"
LARGE = b"\x7f\xff\xff\xff"


def resized(data: bytes, size: tuple[int, int], count: int | None = None) -> bytes:
    """A file whose PNG pictures, or the first of them, say another size than they have."""
    new, at = bytearray(data), data.find(b"IHDR")
    while at >= 0:
        struct.pack_into(">II", new, at + 4, *size)
        struct.pack_into(">I", new, at + 17, zlib.crc32(new[at : at + 17]))
        at = -1 if count == 1 else new.find(b"IHDR", at + 4)
    return bytes(new)


def _huge(side: int, *changes: tuple[bytes, int, bytes]) -> Callable[[Place], Path]:
    return file(".mov", lambda p: resized(_put(p.read("png.mov"), *changes), (side, side)))


def _huge_avi(place: Place) -> bytes:
    return re.sub(rb"(\xff\xc0..\x08)....", rb"\1" + SIDE, place.read("video.avi"), flags=re.S)


def _nested(depth: int) -> bytes:
    sizes = (8 * (depth - i) for i in range(depth))
    return b"".join(struct.pack(">I", size) + b"moov" for size in sizes)


def _frames(pictures: np.ndarray, times) -> Callable[[Place], Path]:
    return lambda place: write_video(place.path(".mkv"), pictures, np.asarray(times))


def _matrix(*numbers: int) -> Callable[[Place], Path]:
    return changed("video.mp4", b"tkhd", 44, struct.pack(">9i", *numbers))


TOO_MUCH = "takes more memory than 384 MiB"
LYING = {
    # What a container says of its pictures' size does not count, where these say themselves.
    "a huge head": Source("", changed("png.mov", b"stsd", 44, SIDE)),
    "a huge head of an mp4": Source("", changed("video.mp4", b"stsd", 44, SIDE)),
    "a huge head of an avi": Source(
        "", changed("video.avi", b"strf", 12, struct.pack("<ii", 60_000, 60_000))
    ),
    "huge pictures": Source(NO_VIDEO, _huge(60_000)),
    "large pictures": Source(NO_VIDEO, _huge(30_000)),
    "huge pictures of an avi": Source(NO_VIDEO, file(".avi", _huge_avi)),
    "huge pictures and a huge head": Source(NO_VIDEO, _huge(60_000, (b"stsd", 44, SIDE))),
    "a million samples a minute apart": Source(
        "frames; of a file of", file(".mp4", lambda p: mp4(10**6, 711_000, gap=59, ticks=1))
    ),
    "edits that each show everything": Source(
        TOO_MUCH, file(".mp4", lambda p: mp4(2000, 30_000, edits=20_000))
    ),
    "a fragment of a hundred million samples": Source(
        TOO_MUCH, file(".mp4", lambda p: fragmented(10**8))
    ),
    "frames of 4096 x 4097": Source(NO_VIDEO, _frames(np.zeros((1, 4097, 4096, 3), np.uint8), [0])),
    "no ticks a second": Source("", changed("video.mp4", b"mdhd", 16, bytes(4))),
    "ticks of a quarter nanosecond": Source("", changed("video.mp4", b"mdhd", 16, MOST)),
    "a tick a second": Source("", changed("video.mp4", b"mdhd", 16, b"\0\0\0\1")),
    "frames of a day": Source("", changed("video.mp4", b"stts", 16, LARGE)),
    "billions of frames": Source(NO_VIDEO, changed("video.mp4", b"stsz", 12, LARGE)),
    "billions of times": Source("", changed("video.mp4", b"stts", 12, LARGE)),
    "frames elsewhere": Source("the video has no frames", changed("video.mp4", b"stco", 12, LARGE)),
    "a matrix of nothing": Source("", _matrix(*[0] * 9)),
    "a matrix of the largest numbers": Source("", _matrix(*[2**31 - 1, -(2**31), 0] * 3)),
    "upside down": Source("", _matrix(-65536, 0, 0, 0, -65536, 0, 0, 0, 2**30)),
    "an atom that never ends": Source("", changed("video.mp4", b"moov", -4, MOST)),
    "atoms in atoms": Source(NO_VIDEO, file(".mp4", lambda p: _nested(100_000))),
    "uneven frames": Source("", copy("uneven.mkv", ".mkv"), FRAMES - 1),
    "a gap of a day": Source(
        "timestamps jump from", _frames(SHOWN[:4], [0, 0.1, 86_400, 86_400.1])
    ),
    "a thousand frames a second": Source("", _frames(SHOWN, np.arange(60) / 1000)),
}

# --- Drawn ----------------------------------------------------------------------------------------


def _cut(endings: tuple[str, ...]) -> Callable[[Place], Path]:
    def make(place: Place) -> Path:
        ending = place.rng.choice(endings)
        return part(f"video.{ending}", place.rng.random() * 1.02)(place)

    return make


def _any(place: Place) -> Path:
    ending = place.rng.choice(list(CODECS))
    return place.copy(f"video.{ending}", f".{ending}")


def _damaged(place: Place) -> Path:
    path = _any(place)
    damage(place.rng, path, place.media / "video.mp4")
    return path


def _numbers(place: Place) -> Path:
    rng, path = place.rng, _any(place)
    data = bytearray(path.read_bytes())
    for _ in range(rng.randrange(1, 4)):
        at = rng.randrange(min(len(data) - 4, rng.choice((400, 4000, 10**9))))
        struct.pack_into(rng.choice((">I", "<I")), data, at, rng.choice(NUMBERS))
    path.write_bytes(data)
    return path


ATOMS = ("mvhd", "tkhd", "elst", "mdhd", "hdlr", "stsd", "avc1", "avcC", "stts", "stss", "ctts",
         "stsc", "stsz", "stco", "dref", "moov", "trak", "mdat")  # fmt: skip


def _atoms(place: Place) -> bytes:
    data = bytearray(place.read("video.mp4"))
    at = data.find(place.rng.choice(ATOMS).encode())
    for _ in range(place.rng.randrange(1, 4)):
        offset = place.rng.choice((-4, *range(0, 40, 4)))
        struct.pack_into(">I", data, max(0, at + offset), place.rng.choice(NUMBERS))
    return bytes(data)


def _rate(place: Place) -> Path:
    number = place.rng.choice((*NUMBERS, 10**6, 2))
    return changed("video.mp4", b"mdhd", 16, struct.pack(">I", number))(place)


def _rotation(place: Place) -> Path:
    return _matrix(*place.rng.choices((0, 0x10000, -0x10000, 2**31 - 1, -(2**31)), k=9))(place)


def _sizes(place: Place) -> bytes:
    """PNG pictures declare another size than their head, or the head a huge one."""
    rng, data = place.rng, place.read("png.mov")
    size = rng.choice(((30_000, 30_000), (2**31 - 1, 1), (4_000, 5_000), (1, 2**24), (0, 0)))
    which = rng.choice(("pictures", "one picture", "head", "all"))
    if which in ("head", "all"):
        data = _put(data, (b"stsd", 44, struct.pack(">HH", *(min(side, 0xFFFF) for side in size))))
    return data if which == "head" else resized(data, size, 1 if which == "one picture" else None)


def _picture(place: Place) -> Path:
    other = place.rng.choice(sorted(p.name for p in place.media.glob("[opc]*.*g")))
    return place.copy(other, f".{place.rng.choice(list(CODECS))}")


def _name(place: Place) -> Path | str:
    """A name that no file should have."""
    name = place.rng.choice([n for n in NAMES if "\0" not in n and len(n) < 200])
    name = name.replace("/", "") or "."
    return Path(shutil.copy(place.media / "video.mp4", place.folder / f"{name}.mp4"))


OTHERS = tuple(sorted(set(CODECS) - set(SAYS_ITS_LENGTH)))
DRAWN = {
    # Of what is said to be 5 s long, a quarter of a second and some may be missing.
    "cut, and its length is known": Source(None, _cut(SAYS_ITS_LENGTH), FRAMES - 3),
    "cut, and nothing says how long it is": Source(None, _cut(OTHERS)),
    "damaged": Source(None, _damaged),
    "numbers anywhere": Source(None, _numbers),
    "numbers in an atom": Source(None, file(".mp4", _atoms)),
    "some ticks a second": Source(None, _rate),
    "some rotation": Source(None, _rotation),
    "sizes that differ": Source(None, file(".mov", _sizes)),
    "any picture": Source(NO_VIDEO, _picture),
    "any odd name": Source(None, _name),
}
