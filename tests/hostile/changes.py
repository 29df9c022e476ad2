"""Ways to change a good file: its bytes, its text or values, or into something that is no file."""

import json
import os
import random
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

NUMBERS = (0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0x01000000)
# fmt: off
NAMES = (
    "../../outside", "/tmp/outside", "a/b", "..", "", ".hidden", "x" * 300, "a\nb", "ü", "a\\b",
    "nul\0", "ta\tb", "~", "$(touch outside)", "<script>", "con", " ", "train_000",
)
# What may stand where a number or a word is expected.
WORDS = (
    "", " ", "nan", "inf", "-inf", "1e400", "-1", "-0", "0.5", "1e300", "9" * 30, "9" * 5000, "1_0",
    "0x10", "None", "[]", "é", "\n", "a\nb", "\x1b[2J", "1,5", "true", "²", "٣", "[1", '"', "'",
    "\x00", "\ufeff", "\t", ",", "\r", "[[0, 1]]", "-5.jpg", "../../x.jpg",
)
VALUES = (
    *NAMES, 2**31, 2**53, 2**63 - 1, -1, 0, 10**30, 0.5, 1e308, None, True, [], {}, ["a"] * 1000,
    [[[]]], [2**62, 4], [0, 2**63], [5, 2], "F8_E4M3", "F128",
)
# fmt: on


def _flipped(rng: random.Random, content: bytes) -> bytes:
    new = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 3)) if new else 0):
        new[rng.randrange(len(new))] ^= 1 << rng.randrange(8)
    return bytes(new)


def _zeroed(rng: random.Random, content: bytes) -> bytes:
    start = rng.randrange(len(content) + 1)
    return content[:start] + bytes(len(content[start : start + 512])) + content[start + 512 :]


def _numbers(rng: random.Random, content: bytes) -> bytes:
    new = bytearray(content.ljust(8, b"\0"))
    for _ in range(rng.randrange(1, 4)):
        at = rng.randrange(min(len(new) - 4, rng.choice((400, 4000, 10**9))))
        struct.pack_into(rng.choice((">I", "<I")), new, at, rng.choice(NUMBERS))
    return bytes(new)


OF_BYTES: dict[str, Callable[[random.Random, bytes], bytes]] = {
    "cut": lambda rng, content: content[: rng.randrange(len(content) + 1)],
    "bits flipped": _flipped,
    "zeros": _zeroed,
    "numbers": _numbers,
    "empty": lambda rng, content: b"",
    "garbage": lambda rng, content: rng.randbytes(rng.randrange(2000)),
    "appended": lambda rng, content: content + rng.randbytes(rng.randrange(1, 100)),
    "JSON of another type": lambda rng, _: rng.choice((b"[]", b"{}", b"null", b"1", b'"x"')),
    "nested": lambda rng, content: b"[" * 100_000,
}


def damage(rng: random.Random, path: Path) -> str:
    way = rng.choice((*OF_BYTES, "bits flipped", "cut", "removed", "a pipe", "a folder", "a link"))
    if way in OF_BYTES:
        path.write_bytes(OF_BYTES[way](rng, path.read_bytes()))
        return way
    path.unlink()
    if way == "a pipe":
        os.mkfifo(path)
    elif way == "a folder":
        path.mkdir()
    elif way == "a link":
        path.symlink_to(path.with_name("nothing"))
    return way


def change_text(rng: random.Random, path: Path) -> str:
    """Changes a field, a place or a line of a text file, or its encoding; says which."""
    data, word = path.read_bytes(), rng.choice(WORDS).encode()
    lines, at = data.splitlines(keepends=True), rng.randrange(len(data) + 1)
    i = rng.randrange(len(lines))
    fields = lines[i].rstrip(b"\r\n").split(b",")
    fields[rng.randrange(len(fields))] = word
    ways = {
        "field": [*lines[:i], b",".join(fields) + b"\n", *lines[i + 1 :]],
        "text inserted": [data[:at], word, data[at:]],
        "line repeated": [*lines[:i], lines[i], *lines[i:]],
        "line removed": lines[:i] + lines[i + 1 :],
        "lines shuffled": rng.sample(lines, len(lines)),
        "CR": [data.replace(b"\n", b"\r")],
        "UTF-16": [data.decode().encode("utf-16")],
        "Latin-1": [data.replace(b"0", b"\xe9", 1)],
    }
    way = rng.choice(("field", "field", *ways))
    path.write_bytes(b"".join(ways[way]))
    return way


def change_values(rng: random.Random, content: Any) -> str:
    """Changes, removes or renames a value somewhere in what a JSON file holds; says which."""
    place, key = content, rng.choice(list(content) if isinstance(content, dict) else [0])
    while rng.random() < 0.6 and isinstance(place[key], dict | list) and place[key]:
        place = place[key]
        key = rng.choice(list(place) if isinstance(place, dict) else range(len(place)))
    value = rng.choice(VALUES)
    if rng.random() < 0.15:
        del place[key]
        value = "removed"
    elif rng.random() < 0.15 and isinstance(place, dict):
        place[rng.choice(NAMES)] = place.pop(key)
        value = "renamed"
    else:
        place[key] = value
    return f"{key}: {str(value)[:40]!r}"


def change_json(rng: random.Random, path: Path) -> str:
    content = json.loads(path.read_text())
    what = change_values(rng, content)
    path.write_text(json.dumps(content))
    return what


def change_header(rng: random.Random, path: Path) -> str:
    """Writes another header into a .safetensors file; says which."""
    data = path.read_bytes()
    (size,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + size])
    what = change_values(rng, header)
    text = json.dumps(header).encode()
    said = rng.choice((len(text), len(text), len(text), 2**63, 2**40, 0, 7))
    path.write_bytes(struct.pack("<Q", said) + text + data[8 + size :])
    return f"header of {said} bytes, {what}"


def change_arrays(rng: random.Random, path: Path) -> str:
    """Changes or removes one of the arrays of an .npz file; says which."""
    with np.load(path) as file:
        arrays = dict(file)
    key = rng.choice(sorted(arrays))
    array = np.atleast_1d(arrays[key])
    kind = rng.choice(("f8", "U3", "S3", "c16", "?", "u1", "M8[s]", "i4,i4"))
    changed = {
        "dtype": lambda: np.zeros(array.shape, kind),
        "shape": lambda: rng.choice((array[None], array.ravel(), array[..., None])),
        "fewer": lambda: array[: len(array) // 2],
        "more": lambda: np.concatenate([array, array]),
        "number": lambda: np.full(array.shape, rng.choice((np.nan, np.inf, -1, 2**53, 1e30))),
        "objects": lambda: np.array([{"a": 1}], object),
        "bomb": lambda: np.zeros(2**27, np.int8),
    }
    way = rng.choice((*changed, "removed"))
    del arrays[key]
    if way != "removed":
        arrays[key] = changed[way]()
    (np.savez_compressed if way == "bomb" else np.savez)(path, **arrays)
    return f"{key}: {way}"


def change_zip(rng: random.Random, path: Path) -> str:
    """Packs a zip file anew with one of its files under another name, or another one; says it."""
    with zipfile.ZipFile(path) as file:
        members = {name: file.read(name) for name in file.namelist()}
    name, way = rng.choice(list(members)), rng.choice(("name", "bomb", *OF_BYTES))
    content = members.pop(name)
    if way in OF_BYTES:
        content = OF_BYTES[way](rng, content)
    elif way == "bomb":
        content = bytes(2**27 + 1)
    with zipfile.ZipFile(path, "w") as file:
        for other, its in {
            **members,
            rng.choice(NAMES) if way == "name" else name: content,
        }.items():
            file.writestr(zipfile.ZipInfo(other), its, zipfile.ZIP_DEFLATED)
    return f"{name}: {way}"


def change_picture(rng: random.Random, path: Path) -> str:
    """Has a picture say another size, or a PNG have a chunk that unfolds or is too long."""
    data, size = bytearray(path.read_bytes()), rng.choice(((60_000, 60_000), (1, 2**27), (0, 48)))
    what = f"{size}"
    if path.suffix == ".jpg":
        at = max(data.find(b"\xff\xc0"), data.find(b"\xff\xc2"))
        struct.pack_into(">HH", data, at + 5, *(min(side, 0xFFFF) for side in size))
    elif rng.random() < 0.5:
        struct.pack_into(">II", data, 16, *size)
        struct.pack_into(">I", data, 29, zlib.crc32(data[12:29]))
    else:
        body = rng.choice((b"zTXta\0\0", b"iCCPa\0\0", b"iTXta\0\1\0\0\0"))
        body += zlib.compress(bytes(2**28), 1)
        length = rng.choice((len(body) - 4, 2**31 - 1))
        data[33:33] = struct.pack(">I", length) + body + struct.pack(">I", zlib.crc32(body))
        what = f"{body[:4]!r} of {length} bytes"
    path.write_bytes(data)
    return what
