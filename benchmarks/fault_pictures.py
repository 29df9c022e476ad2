"""Pictures and zip files that somebody made to do harm, for `fault_media.py`."""

import random
import shutil
import struct
import zipfile
import zlib
from pathlib import Path

from fault_files import NAMES, damage
from fault_videos import Way, hostile_video
from PIL import Image

PICTURES = 6  # of a folder
BOMB = 2**28  # bytes of zeros, which a zip file of 256 KiB holds


# --- Pictures -------------------------------------------------------------------------------------


def hostile_picture(rng: random.Random, media: Path, place: Path, port: int) -> Way:
    """Makes bench3 a folder of pictures, one of which is not what it should be."""
    del port
    folder = place / "videos" / "bench3"
    folder.mkdir()
    kind = rng.choice(("jpg", "jpg", "png"))
    for i in range(PICTURES):
        shutil.copy(media / f"plain.{kind}", folder / f"{i:06d}.{kind}")
    path = folder / f"{rng.randrange(PICTURES):06d}.{kind}"
    content = path.read_bytes()
    way = rng.choice(
        ("cut", "cut", "damage", "damage", "scans", "size", "size", "chunk", "exif", "other",
         "mode", "number", "missing", "large")
    )  # fmt: skip
    what = f"{path.name}: {way}"
    if way == "cut":
        kept = rng.randrange(len(content))
        path.write_bytes(content[:kept])
        # The end of either format holds no picture: two bytes of JPEG, a chunk of PNG.
        whole = kept >= len(content) - (2 if kind == "jpg" else 16)
        return Way(f"{what} to {kept}", path.name, "" if whole else "fail", PICTURES)
    if way == "damage":
        how = damage(rng, path, media / "plain.jpg")
        gone = how in ("removed", "a pipe", "a folder", "a broken link")
        has_to = "fail" if gone or how in ("empty", "garbage") else ""
        # What is at the ends may be missing: the labels are said to be wrong then, if they are.
        has_to = "" if gone and path.stem in ("000000", f"{PICTURES - 1:06d}") else has_to
        return Way(f"{what}: {how}", "bench3" if gone else path.name, has_to)
    if way == "scans":
        data = (media / "progressive.jpg").read_bytes()
        last = data.rindex(b"\xff\xda")
        count = rng.choice((50, 101, 20_000))
        path.with_suffix(".jpg").write_bytes(data[:last] + data[last:-2] * count + data[-2:])
        if kind == "png":
            path.unlink()
        return Way(f"{what}: {count}", path.stem, "fail" if count > 100 else "")
    if way == "size":
        size = rng.choice(((0xFFFF, 0xFFFF), (0x7FFF, 0x1000), (0, 48), (1, 1), (0xFFFF, 1)))
        path.write_bytes(resized(content, kind, size))
        # Of the first one, the others have another size.
        return Way(f"{what} {size}", "bench3" if path.stem == "000000" else path.name, "fail")
    if way == "chunk":
        path.unlink()
        (folder / f"{path.stem}.png").write_bytes(_with_chunk(rng, media))
        return Way(what, path.stem)
    if way == "exif":
        path.unlink()
        image = Image.open(media / "plain.jpg")
        tags = bytearray(_exif(rng))
        for _ in range(rng.randrange(6)):
            tags[rng.randrange(6, len(tags))] = rng.randrange(256)
        image.save(folder / f"{path.stem}.jpg", exif=bytes(tags))
        return Way(what, path.stem)
    if way == "other":
        other = rng.choice(sorted(media.glob("other.*")))
        shutil.copy(other, path)
        return Way(f"{what}: {other.name}", path.name, "fail")
    if way == "mode":
        other = rng.choice([media / "cmyk.jpg", *media.glob("*.png")])
        path.unlink()
        shutil.copy(other, folder / f"{path.stem}{other.suffix}")
        return Way(f"{what}: {other.name}", path.stem, "work", PICTURES)
    if way == "number":
        name = rng.choice(("999999999", "0", "-1", "1e3", "000001 (1)", "9" * 200, "٣"))
        path.rename(folder / f"{name}.{kind}")
        return Way(f"{what}: {name}", "bench3")
    if way == "missing":
        path.unlink()
        ends = path.stem in ("000000", f"{PICTURES - 1:06d}")
        return Way(what, "bench3", "" if ends else "fail")
    for other in folder.iterdir():
        other.unlink()
    side = rng.choice((5_700, 5_900))  # 2²⁵ pixels are between them
    Image.new("1", (side, side)).save(folder / "000000.png")
    return Way(f"one of {side}x{side}", "000000.png", "fail" if side == 5_900 else "")


def resized(content: bytes, kind: str, size: tuple[int, int]) -> bytes:
    """A picture whose head says another width and height."""
    data = bytearray(content)
    if kind == "png":
        struct.pack_into(">II", data, 16, *size)
        struct.pack_into(">I", data, 29, zlib.crc32(data[12:29]))
    else:
        struct.pack_into(">HH", data, data.index(b"\xff\xc0") + 5, *size[::-1])
    return bytes(data)


def _with_chunk(rng: random.Random, media: Path) -> bytes:
    """A PNG file with a chunk that unfolds, is too long, or is given twice."""
    content = (media / "plain.png").read_bytes()
    kind = rng.choice(
        (b"zTXt", b"iCCP", b"iTXt", b"tEXt", b"PLTE", b"tRNS", b"acTL", b"fcTL", b"fdAT", b"IDAT",
         b"gAMA", b"cHRM", b"pHYs", b"eXIf", b"sRGB", b"cICP", b"IHDR", b"IEND")
    )  # fmt: skip
    bomb = zlib.compress(bytes(BOMB), 1)
    data = {b"zTXt": b"a\0\0" + bomb, b"iCCP": b"a\0\0" + bomb, b"iTXt": b"a\0\1\0\0\0" + bomb}
    body = data.get(kind) or rng.randbytes(rng.choice((0, 1, 5, 1000)))
    length = rng.choice((len(body), len(body), 2**31 - 1))
    chunk = struct.pack(">I", length) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
    return content[:33] + chunk + content[33:]


def _exif(rng: random.Random) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = rng.choice((1, 3, 6, 9, 0, 65535))
    exif[0x010E] = "x" * rng.choice((1, 1000))
    return exif.tobytes()


# --- Zip files ------------------------------------------------------------------------------------


def hostile_zip(rng: random.Random, media: Path, place: Path, port: int) -> Way:
    """Packs the recordings into videos.zip, with something in it or about it that is not right."""
    way = rng.choice(("file", "file", "name", "bomb", "large", "encrypted", "damage", "damage",
                      "flipped", "flipped", "link", "deep", "method", "size", "twice"))  # fmt: skip
    shutil.copy(media / "video.mp4", place / "videos" / "bench3.mp4")
    if way == "file":
        (place / "videos" / "bench3.mp4").unlink()
        make = rng.choice((hostile_video, hostile_picture))
        made = make(rng, media, place, port)
        pack(rng, place / "videos", place / "videos.zip")
        # What cannot be packed is not there.
        with zipfile.ZipFile(place / "videos.zip") as archive:
            gone = not any(name.startswith("bench3") for name in archive.namelist())
        return made._replace(what=f"zip: {made.what}", has_to="" if gone else made.has_to)
    pack(rng, place / "videos", place / "videos.zip")
    return spoil_zip(rng, way, place / "videos.zip", "bench3.mp4", media / "video.mp4")


def pack(rng: random.Random, folder: Path, path: Path) -> None:
    """Puts the regular files of a folder into a zip file, compressed or not, in its place."""
    method = rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))
    with zipfile.ZipFile(path, "w", method, strict_timestamps=False) as archive:
        for member in sorted(folder.rglob("*")):
            if member.is_file():
                archive.write(member, member.relative_to(folder))
    shutil.rmtree(folder)


WAYS_OF_ZIPS = (
    *("name", "bomb", "encrypted", "damage", "damage", "flipped", "flipped", "link", "deep"),
    *("method", "size", "twice"),
)


def spoil_zip(rng: random.Random, way: str, path: Path, member: str, other: Path) -> Way:
    """Spoils a zip file; `member` is a file in it, `other` one that is whole."""
    if way == "damage":
        how = damage(rng, path, other)
        fails = how not in ("bits flipped", "zeros", "appended", "a link")
        return Way(f"zip: {how}", path.name, "fail" if fails else "")
    if way in ("flipped", "encrypted", "method", "size"):
        data = bytearray(path.read_bytes())
        with zipfile.ZipFile(path) as archive:
            info = archive.getinfo(member)
        start = info.header_offset + 30 + len(member)
        head = data.rindex(member.encode()) - 46  # in the directory, at the end
        if way == "flipped":
            for _ in range(rng.choice((1, 20))):
                data[start + rng.randrange(info.compress_size)] ^= 1 << rng.randrange(8)
        elif way == "encrypted":
            data[head + 8] |= 1
            data[info.header_offset + 6] |= 1
        elif way == "method":
            struct.pack_into("<H", data, head + 10, rng.choice((1, 9, 12, 14, 93, 99)))
        else:
            at = head + rng.choice((20, 24, 42))  # either size, or where it is
            struct.pack_into("<I", data, at, rng.choice((0, 1, 2**31, 2**32 - 2, 10**6)))
        path.write_bytes(data)
        return Way(f"zip: {way}", Path(member).stem, "fail" if way == "encrypted" else "")
    with zipfile.ZipFile(path, "a") as archive:
        if way == "name":
            name = rng.choice([n for n in NAMES if n] + ["C:/x", "/etc/x", "..\\x", "./../x"])
            archive.write(other, f"{name}{other.suffix}")
            return Way(f"zip: name {name!r}", "")
        if way == "bomb":
            archive.writestr("bench4/000000.jpg", bytes(BOMB), zipfile.ZIP_DEFLATED, 1)
            return Way("zip: a picture of zeros", "", "fail")
        if way == "large":
            # The head of a video, far away from its end.
            content = other.read_bytes()
            data = struct.pack(">I", BOMB) + b"free" + bytes(BOMB - 8) + content
            archive.writestr("bench4.mp4", data, zipfile.ZIP_DEFLATED, 1)
            return Way("zip: a video behind zeros", "bench4", "fail")  # it has no labels
        if way == "link":
            info = zipfile.ZipInfo(f"bench4{other.suffix}")
            info.external_attr = 0o120777 << 16
            archive.writestr(info, "../secret/secret.mp4")
            return Way("zip: a link", "bench4", "fail")
        if way == "deep":
            archive.writestr("a/" * rng.choice((65, 5000)) + "x.mp4", b"x")
            return Way("zip: deep folders", path.name, "fail")
        archive.write(other, f"./{member}")
        return Way("zip: a file twice", path.name, "fail")
