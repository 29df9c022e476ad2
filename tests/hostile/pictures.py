"""Folders of pictures, one of which is broken, lies, or is something else."""

import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

from PIL import Image

from tests.hostile.damage import damage
from tests.hostile.references import playlist
from tests.hostile.sources import SHOWN, Place, Source, resized
from tests.support.recognise_data import write_pictures

PICTURES = 12
BOMB = 2**28  # bytes of zeros, which a PNG file of 256 KiB holds


def _pictures(spoil: Callable[[Place, Path], object]) -> Callable[[Place], Path]:
    """Makes a folder of twelve pictures, of which the fifth is spoilt."""

    def make(place: Place) -> Path:
        folder = write_pictures(place.path(), SHOWN[:PICTURES], 0)
        spoil(place, folder / "00004.jpg")
        return folder

    return make


def _written(content: Callable[[Place], bytes]) -> Callable[[Place], Path]:
    return _pictures(lambda place, path: path.write_bytes(content(place)))


def _part(kind: bytes, body: bytes, length: int | None = None) -> bytes:
    """A chunk of a PNG file."""
    size = len(body) if length is None else length
    return struct.pack(">I", size) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def _png(size: tuple[int, int]) -> bytes:
    """A PNG file that says its size, and has no picture."""
    head = _part(b"IHDR", struct.pack(">IIBBBBB", *size, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + _part(b"IDAT", b"") + _part(b"IEND", b"")


def _jpeg_of(size: tuple[int, int]) -> Callable[[Place], Path]:
    """Pictures of which one says another width and height."""

    def spoil(place: Place, path: Path) -> None:
        data = bytearray(path.read_bytes())
        struct.pack_into(">HH", data, data.index(b"\xff\xc0") + 5, *size[::-1])
        path.write_bytes(data)

    return _pictures(spoil)


def _scans(place: Place) -> bytes:
    data = place.read("progressive.jpg")
    last = data.rindex(b"\xff\xda")
    return data[:last] + data[last:-2] * place.rng.choice((101, 20_000)) + data[-2:]


def _cut(place: Place, path: Path) -> None:
    """Without more than its last two bytes, which hold no picture."""
    content = path.read_bytes()
    path.write_bytes(content[: place.rng.randrange(len(content) - 2)])


def _cut_png(place: Place, path: Path) -> None:
    content = place.read("plain.png")
    path.unlink()
    path.with_suffix(".png").write_bytes(content[: place.rng.randrange(len(content) - 16)])


def _any_size(place: Place) -> Path:
    size = place.rng.choice(((0xFFFF, 0xFFFF), (0x7FFF, 0x1000), (0, 48), (1, 1), (0xFFFF, 1)))
    if place.rng.random() < 0.7:
        return _jpeg_of(size)(place)
    return _written(lambda place: resized(place.read("plain.png"), size))(place)


CHUNKS = (b"zTXt", b"iCCP", b"iTXt", b"tEXt", b"PLTE", b"tRNS", b"acTL", b"fcTL", b"fdAT", b"IDAT",
          b"gAMA", b"cHRM", b"pHYs", b"eXIf", b"sRGB", b"cICP", b"IHDR", b"IEND")  # fmt: skip


def _chunk(place: Place, path: Path) -> None:
    """A PNG file with a chunk that unfolds, is too long, or is given twice."""
    content, rng = place.read("plain.png"), place.rng
    kind, bomb = rng.choice(CHUNKS), zlib.compress(bytes(BOMB), 1)
    data = {b"zTXt": b"a\0\0" + bomb, b"iCCP": b"a\0\0" + bomb, b"iTXt": b"a\0\1\0\0\0" + bomb}
    body = data.get(kind) or rng.randbytes(rng.choice((0, 1, 5, 1000)))
    chunk = _part(kind, body, rng.choice((len(body), len(body), 2**31 - 1)))
    path.unlink()
    path.with_suffix(".png").write_bytes(content[:33] + chunk + content[33:])


def _exif(place: Place, path: Path) -> None:
    rng, exif = place.rng, Image.Exif()
    exif[0x0112] = rng.choice((1, 3, 6, 9, 0, 65535))
    exif[0x010E] = "x" * rng.choice((1, 1000))
    tags = bytearray(exif.tobytes())
    for _ in range(rng.randrange(6)):
        tags[rng.randrange(6, len(tags))] = rng.randrange(256)
    Image.open(place.media / "plain.jpg").save(path, exif=bytes(tags))


def _other(place: Place) -> bytes:
    return place.read(place.rng.choice(sorted(p.name for p in place.media.glob("other.*"))))


def _mode(place: Place, path: Path) -> None:
    names = sorted(p.name for p in place.media.glob("*.png"))
    other = place.media / place.rng.choice(("cmyk.jpg", *names))
    path.unlink()
    path.with_suffix(other.suffix).write_bytes(other.read_bytes())


def _number(place: Place, path: Path) -> None:
    name = place.rng.choice(("999999999", "0", "-1", "1e3", "000001 (1)", "9" * 200, "٣"))
    path.rename(path.with_name(f"{name}.jpg"))


def _alone(place: Place) -> Path:
    """One picture of about as many pixels as one may have, 2²⁵."""
    place.path().mkdir()
    Image.new("1", (place.rng.choice((5_700, 5_900)),) * 2).save(place.path() / "00000.png")
    return place.path()


FOLDERS = {
    "nine tenths of a picture": Source(
        "the JPEG is damaged",
        _pictures(lambda _, p: p.write_bytes(p.read_bytes()[: p.stat().st_size * 9 // 10])),
    ),
    "an empty picture": Source("is empty", _written(lambda p: b"")),
    "a long PNG": Source("134217728x1", _written(lambda p: _png((1, 2**27)))),
    "a huge PNG": Source("00004.jpg", _written(lambda p: _png((60_000, 60_000)))),
    "a huge JPEG": Source("00004.jpg", _jpeg_of((65_000, 65_000))),
    "thousands of scans": Source("00004.jpg", _written(_scans)),
    "a large picture": Source(
        "00004.jpg", _pictures(lambda _, p: Image.new("L", (8000, 8000)).save(p))
    ),
    "a missing picture": Source("frame 4 is missing", _pictures(lambda _, p: p.unlink())),
    "a playlist as a picture": Source(
        "00004.jpg", _written(lambda p: playlist(str(p.bait)).encode())
    ),
    "a drawing that refers": Source(
        "00004.jpg", _written(lambda p: f'<svg><image href="{p.bait}"/></svg>'.encode())
    ),
    "a PostScript picture": Source(
        "00004.jpg", _written(lambda p: f"%!PS-Adobe-3.0 EPSF-3.0\n({p.bait}) run\n".encode())
    ),
    "a pipe as a picture": Source(
        "is no regular file", _pictures(lambda _, p: (p.unlink(), os.mkfifo(p)))
    ),
    "a number of a thousand millions": Source(
        "frame 4 is missing (999999988 of the frames",
        _pictures(lambda _, p: p.rename(p.with_name("999999999.jpg"))),
    ),
    "a cut JPEG": Source("00004.jpg", _pictures(_cut)),
    "a cut PNG": Source("00004.png", _pictures(_cut_png)),
    "a damaged picture": Source(
        None, _pictures(lambda place, p: damage(place.rng, p, place.media / "plain.jpg"))
    ),
    "a picture that says another size": Source("00004.jpg", _any_size),
    "a PNG with another chunk": Source(None, _pictures(_chunk)),
    "a picture with damaged EXIF": Source(None, _pictures(_exif)),
    "a picture of another format": Source("00004.jpg", _written(_other)),
    "a picture of another mode": Source("", _pictures(_mode), PICTURES),
    "another number": Source(None, _pictures(_number)),
    "one picture about as large as may be": Source(None, _alone),
}
