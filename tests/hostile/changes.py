"""Ways to change a good file: as bytes, as what it is, or into something that is no file."""

import json
import os
import random
import re
import struct
import zipfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

HUGE = (2**31, 2**53, 2**63 - 1, -1, 0, 10**30)
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
# fmt: on


def flipped(rng: random.Random, content: bytes) -> bytes:
    """One to three bits are the other way round."""
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
    "bits flipped": flipped,
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


# --- Text -----------------------------------------------------------------------------------------


def _line(change: Callable[[random.Random, list[bytes], int], Sequence[bytes]]):
    def changed(rng: random.Random, data: bytes) -> bytes:
        lines = data.splitlines(keepends=True)
        return b"".join(change(rng, lines, rng.randrange(len(lines)))) if lines else data

    return changed


def _field(rng: random.Random, lines: list[bytes], i: int) -> list[bytes]:
    fields = lines[i].rstrip(b"\r\n").split(b",")
    j, word = rng.randrange(len(fields)), rng.choice(WORDS).encode()
    fields[j : j + rng.randrange(2)] = rng.choice(([word], [word], []))
    return [*lines[:i], b",".join(fields) + b"\n", *lines[i + 1 :]]


def _inserted(rng: random.Random, data: bytes) -> bytes:
    at = rng.randrange(len(data) + 1)
    return data[:at] + rng.choice(WORDS).encode() + data[at:]


OF_TEXT: dict[str, Callable[[random.Random, bytes], bytes]] = {
    "field": _line(_field),
    "another field": _line(_field),
    "text inserted": _inserted,
    "line repeated": _line(lambda rng, lines, i: [*lines[:i], lines[i], *lines[i:]]),
    "line removed": _line(lambda rng, lines, i: lines[:i] + lines[i + 1 :]),
    "lines shuffled": _line(lambda rng, lines, i: rng.sample(lines, len(lines))),
    "blank lines": lambda rng, data: b"\n\n" + data.replace(b"\n", b"\n\n"),
    "CR": lambda rng, data: b"\r".join(data.splitlines()),
    "UTF-16": lambda rng, data: data.decode().encode("utf-16"),
    "Latin-1": lambda rng, data: data.replace(b"0", "é".encode("latin-1"), 1),
    "digits": lambda rng, data: re.sub(rb"\d+", rng.choice(WORDS).encode(), data, count=1),
    "minus signs": lambda rng, data: re.sub(rb"(\d+)", rb"-\1", data, count=1 + rng.randrange(9)),
}


def change_text(rng: random.Random, path: Path) -> str:
    way = rng.choice(list(OF_TEXT))
    path.write_bytes(OF_TEXT[way](rng, path.read_bytes()))
    return way


def change_json(rng: random.Random, path: Path) -> str:
    """Changes, removes or renames a value somewhere in a JSON file; says which."""
    content = json.loads(path.read_text())
    place, key = content, rng.choice(list(content) if isinstance(content, dict) else [0])
    while rng.random() < 0.6 and isinstance(place[key], dict | list) and place[key]:
        place = place[key]
        key = rng.choice(list(place) if isinstance(place, dict) else range(len(place)))
    value = rng.choice((*HUGE, *NAMES, None, [], {}, 0.5, 1e308, True, ["a"] * 1000, [[[]]]))
    if rng.random() < 0.15:
        del place[key]
        value = "removed"
    elif rng.random() < 0.15 and isinstance(place, dict):
        place[rng.choice(NAMES)] = place.pop(key)
        value = "renamed"
    else:
        place[key] = value
    path.write_text(json.dumps(content))
    return f"{key}: {str(value)[:40]!r}"


# --- Arrays ---------------------------------------------------------------------------------------


def change_header(rng: random.Random, path: Path) -> str:
    """Writes another header into a .safetensors file."""
    content = path.read_bytes()
    (size,) = struct.unpack("<Q", content[:8])
    header, data = json.loads(content[8 : 8 + size]), content[8 + size :]
    name = rng.choice([key for key in header if key != "__metadata__"])
    way = rng.choice(("dtype", "shape", "offsets", "name", "size", "metadata", "nested"))
    if way == "dtype":
        header[name]["dtype"] = rng.choice(("F8_E4M3", "F8_E5M2", "F4", "C64", "F128", "", 3, None))
    elif way == "shape":
        header[name]["shape"] = rng.choice(([2**62, 4], [-1], [0], "x", [[1]], [1] * 100, []))
    elif way == "offsets":
        header[name]["data_offsets"] = rng.choice(([0, 2**63], [5, 2], [0, 0], [], "x", [-4, 0]))
    elif way == "name":
        header[rng.choice(NAMES)] = header.pop(name)
    elif way == "metadata":
        header["__metadata__"] = rng.choice(({}, {"format": "pt"}, [], {"a": 1}, {"stage": "["}))
    text = b"[" * 100_000 if way == "nested" else json.dumps(header).encode()
    size = rng.choice((2**63, 2**40, 0, 7)) if way == "size" else len(text)
    path.write_bytes(struct.pack("<Q", size) + text + data)
    return f"{way} of {name}"


def change_arrays(rng: random.Random, path: Path) -> str:
    """Changes or removes one of the arrays of an .npz file; says which."""
    with np.load(path) as file:
        arrays = dict(file)
    key = rng.choice(sorted(arrays))
    array = arrays[key]
    kind = rng.choice(("f8", "U3", "S3", "c16", "?", "u1", "M8[s]", "i4,i4"))
    changed = {
        "dtype": lambda: np.zeros(array.shape, kind),
        "shape": lambda: rng.choice((array[None], array.ravel(), array[..., None])),
        "fewer": lambda: array[: len(array) // 2],
        "more": lambda: np.concatenate([array, array]),
        "number": lambda: np.full(array.shape, min(rng.choice(HUGE), 2**63 - 1)),
        "nan": lambda: np.full(array.shape, rng.choice((np.nan, np.inf, -1, 1e30))),
        "empty": lambda: array[:0],
        "objects": lambda: np.array([{"a": 1}], object),
        "bomb": lambda: np.zeros(2**27, np.int8),
    }
    way = rng.choice((*changed, "removed", "header"))
    if way == "removed":
        del arrays[key]
    elif way != "header" and array.ndim:
        arrays[key] = changed[way]()
    (np.savez_compressed if way == "bomb" else np.savez)(path, **arrays)
    if way == "header":
        path.write_bytes(path.read_bytes().replace(b"'descr': ", b"'descr':(", 1))
    return f"{key}: {way}"


# --- Archives and pictures ------------------------------------------------------------------------


def change_zip(rng: random.Random, path: Path) -> str:
    """Packs a zip file anew with one file that is another, or with another entry; says which."""
    with zipfile.ZipFile(path) as file:
        members = {info.filename: file.read(info) for info in file.infolist()}
    name = rng.choice(list(members))
    way = rng.choice(("name", "bomb", "link", "flag", "method", "size", "content"))
    with zipfile.ZipFile(path, "w", rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))) as file:
        for other, content in members.items():
            info = zipfile.ZipInfo(rng.choice(NAMES) if (way, other) == ("name", name) else other)
            if (way, other) == ("link", name):
                info.external_attr, content = 0o120777 << 16, b"/etc/passwd"
            if (way, other) == ("bomb", name):
                content = bytes(2**27 + 1)
            if (way, other) == ("content", name):
                content = OF_BYTES[rng.choice(list(OF_BYTES))](rng, content)
            file.writestr(info, content, zipfile.ZIP_DEFLATED if len(content) > 2**20 else None)
    data = bytearray(path.read_bytes())
    at = data.rindex(b"PK\1\2")
    if way == "flag":
        data[at + 8] |= 1
    elif way == "method":
        struct.pack_into("<H", data, at + 10, rng.choice((1, 9, 12, 14, 93, 99)))
    elif way == "size":
        struct.pack_into("<L", data, at + rng.choice((20, 24, 42)), rng.choice(NUMBERS))
    path.write_bytes(data)
    return f"{name}: {way}"


def change_picture(rng: random.Random, path: Path) -> str:
    """Has a picture say another size, or a PNG have a chunk that unfolds or is too long."""
    data, size = bytearray(path.read_bytes()), rng.choice(((60_000, 60_000), (1, 2**27), (0, 48)))
    if path.suffix == ".jpg":
        at = max(data.find(b"\xff\xc0"), data.find(b"\xff\xc2"))
        struct.pack_into(">HH", data, at + 5, *(min(side, 0xFFFF) for side in size))
        what = f"{size}"
    elif rng.random() < 0.5:
        struct.pack_into(">II", data, 16, *size)
        struct.pack_into(">I", data, 29, zlib.crc32(data[12:29]))
        what = f"{size}"
    else:
        bomb = zlib.compress(bytes(2**28), 1)
        kind, body = rng.choice(
            ((b"zTXt", b"a\0\0"), (b"iCCP", b"a\0\0"), (b"iTXt", b"a\0\1\0\0\0"))
        )
        length = rng.choice((len(body + bomb), 2**31 - 1))
        chunk = struct.pack(">I", length) + kind + body + bomb
        data[33:33] = chunk + struct.pack(">I", zlib.crc32(chunk[4:]))
        what = f"{kind} of {length} bytes"
    path.write_bytes(data)
    return what
