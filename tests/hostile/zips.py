"""Zip files that somebody made to do harm."""

import random
import shutil
import struct
import zipfile
from pathlib import Path
from typing import NamedTuple

from tests.hostile.damage import NAMES, damage, flipped

BOMB = 2**28  # bytes of zeros, which a zip file of 256 KiB holds


class Spoilt(NamedTuple):
    """What was done to a zip file, what an error has to name, and whether it has to be one."""

    what: str
    name: str = ""
    fails: bool = False


def pack(rng: random.Random, folder: Path, path: Path) -> None:
    """Puts the regular files of a folder into a zip file, compressed or not, in its place."""
    method = rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))
    with zipfile.ZipFile(path, "w", method, strict_timestamps=False) as archive:
        for member in sorted(folder.rglob("*")):
            if member.is_file():
                archive.write(member, member.relative_to(folder))
    shutil.rmtree(folder)


# fmt: off
WAYS_OF_ZIPS = (
    "name", "bomb", "encrypted", "damage", "damage", "flipped", "flipped", "link", "deep", "method",
    "size", "twice",
)
# fmt: on


def spoil_zip(rng: random.Random, way: str, path: Path, member: str, other: Path) -> Spoilt:
    """Spoils a zip file; `member` is a file in it, `other` one that is whole."""
    if way == "damage":
        how = damage(rng, path, other)
        may_work = ("bits flipped", "zeros", "appended", "a link")
        return Spoilt(f"zip: {how}", path.name, how not in may_work)
    if way in ("flipped", "encrypted", "method", "size"):
        data = bytearray(path.read_bytes())
        with zipfile.ZipFile(path) as archive:
            info = archive.getinfo(member)
        start = info.header_offset + 30 + len(member)
        head = data.rindex(member.encode()) - 46  # in the directory, at the end
        if way == "flipped":
            end = start + info.compress_size
            data[start:end] = flipped(rng, data[start:end])
        elif way == "encrypted":
            data[head + 8] |= 1
            data[info.header_offset + 6] |= 1
        elif way == "method":
            struct.pack_into("<H", data, head + 10, rng.choice((1, 9, 12, 14, 93, 99)))
        else:
            at = head + rng.choice((20, 24, 42))  # either size, or where it is
            struct.pack_into("<I", data, at, rng.choice((0, 1, 2**31, 2**32 - 2, 10**6)))
        path.write_bytes(data)
        return Spoilt(f"zip: {way}", Path(member).stem, way == "encrypted")
    with zipfile.ZipFile(path, "a") as archive:
        if way == "name":
            name = rng.choice([n for n in NAMES if n] + ["C:/x", "/etc/x", "..\\x", "./../x"])
            archive.write(other, f"{name}{other.suffix}")
            return Spoilt(f"zip: name {name!r}")
        if way == "bomb":
            archive.writestr("bench4/000000.jpg", bytes(BOMB), zipfile.ZIP_DEFLATED, 1)
            return Spoilt("zip: a picture of zeros", "", True)
        if way == "large":
            # The head of a video, far away from its end.
            data = struct.pack(">I", BOMB) + b"free" + bytes(BOMB - 8) + other.read_bytes()
            archive.writestr("bench4.mp4", data, zipfile.ZIP_DEFLATED, 1)
            return Spoilt("zip: a video behind zeros", "bench4", True)  # it has no labels
        if way == "link":
            info = zipfile.ZipInfo(f"bench4{other.suffix}")
            info.external_attr = 0o120777 << 16
            archive.writestr(info, "../secret/secret.mp4")
            return Spoilt("zip: a link", "bench4", True)
        if way == "deep":
            archive.writestr("a/" * rng.choice((65, 5000)) + "x.mp4", b"x")
            return Spoilt("zip: deep folders", path.name, True)
        archive.write(other, f"./{member}")
        return Spoilt("zip: a file twice", path.name, True)
