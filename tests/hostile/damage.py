"""Ways to damage a file, or to make one up, for every family of attempts."""

import collections
import json
import os
import random
import re
import shutil
import struct
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

HUGE = (2**31, 2**53, 2**63 - 1, -1, 0, 10**30)
# fmt: off
NAMES = (
    "../../outside", "/tmp/outside", "a/b", "..", "", ".hidden", "x" * 300, "a\nb", "ü", "a\\b",
    "nul\0", "ta\tb", "~", "$(touch outside)", "<script>", "con", " ", "train_000",
)
# What may stand where a number or a word is expected.
WORDS = (
    "", " ", "nan", "inf", "-inf", "1e400", "-1", "-0", "0.5", "1e300", "9" * 30, "9" * 5000, "1_0",
    "0x10", "None", "[]", "é", "\n", "a\nb", "\x1b[2J", "1,5", "true",
)
CELLS = (
    *WORDS, "²", "٣", "[1", '"', "'", "\x00", "\ufeff", "\t", ",", "\r", "[[0, 1]]", "-5.jpg",
    "../../x.jpg",
)
# fmt: on


def choose(rng: random.Random, folders: Sequence[Path], without: Sequence[str] = ()) -> Path:
    """A file below the folders; of each kind, which name and folder tell, equally often."""
    kinds = collections.defaultdict(list)
    for folder in folders:
        for path in sorted(folder.rglob("*")):
            parts = path.relative_to(folder).parts
            if path.is_file() and not set(parts) & set(without):
                name = re.sub(r"[0-9a-f]{32}|[\d.]+", "0", path.name)
                kinds[parts[0] if len(parts) > 1 else "", name].append(path)
    return rng.choice(kinds[rng.choice(sorted(kinds))])


def flipped(rng: random.Random, content: bytes) -> bytes:
    """One to three bits are the other way round."""
    new = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 3)) if new else 0):
        new[rng.randrange(len(new))] ^= 1 << rng.randrange(8)
    return bytes(new)


def _zeroed(rng: random.Random, content: bytes) -> bytes:
    start = rng.randrange(len(content) + 1)
    return content[:start] + bytes(len(content[start : start + 512])) + content[start + 512 :]


OF_BYTES: dict[str, Callable[[random.Random, bytes], bytes]] = {
    "cut": lambda rng, content: content[: rng.randrange(len(content) + 1)],
    "bits flipped": flipped,
    "zeros": _zeroed,
    "empty": lambda rng, content: b"",
    "garbage": lambda rng, content: rng.randbytes(rng.randrange(2000)),
    "appended": lambda rng, content: content + rng.randbytes(rng.randrange(1, 100)),
    "JSON of another type": lambda rng, _: rng.choice((b"[]", b"{}", b"null", b"1", b'"x"')),
    "nested": lambda rng, content: b"[" * 100_000,
}
GONE = ("removed", "a pipe", "a folder", "a broken link")  # as is what a link leads elsewhere


def damage(rng: random.Random, path: Path, outside: Path) -> str:
    """Damages a file and says how; `outside` is a file that a link may lead to."""
    way = rng.choice((*OF_BYTES, "bits flipped", "cut", *GONE, "a link"))
    if way in OF_BYTES:
        path.write_bytes(OF_BYTES[way](rng, path.read_bytes()))
        return way
    path.unlink()
    if way == "a pipe":
        os.mkfifo(path)
    elif way == "a folder":
        path.mkdir()
    elif way == "a link":
        path.symlink_to(outside)
    elif way == "a broken link":
        path.symlink_to(outside.with_name("nothing"))
    return way


def _of_lines(change: Callable[[random.Random, list[bytes], int], list[bytes]]):
    def changed(rng: random.Random, data: bytes) -> bytes:
        lines = data.splitlines(keepends=True)
        return b"".join(change(rng, lines, rng.randrange(len(lines))))

    return changed


def _of_fields(change: Callable[[list[bytes], int, bytes], object]):
    def changed(rng: random.Random, lines: list[bytes], i: int) -> list[bytes]:
        fields = lines[i].rstrip(b"\r\n").split(b",")
        change(fields, rng.randrange(len(fields)), rng.choice(CELLS).encode())
        return [*lines[:i], b",".join(fields) + b"\n", *lines[i + 1 :]]

    return _of_lines(changed)


def _inserted(rng: random.Random, data: bytes) -> bytes:
    at = rng.randrange(len(data))
    return data[:at] + rng.choice(CELLS).encode() + data[at:]


def _made_large(rng: random.Random, data: bytes) -> bytes:
    count = 1 + rng.randrange(data.count(b"\n") + 1)
    return re.sub(rb"\d+", rb"\g<0>00000000000", data, count=count)


OF_TEXT: dict[str, Callable[[random.Random, bytes], bytes]] = {
    "field replaced": _of_fields(lambda fields, j, word: fields.__setitem__(j, word)),
    "field inserted": _of_fields(lambda fields, j, word: fields.insert(j, word)),
    "field removed": _of_fields(lambda fields, j, word: fields.pop(j)),
    "text inserted": _inserted,
    "line repeated": _of_lines(lambda rng, lines, i: [*lines[:i], lines[i], *lines[i:]]),
    "line removed": _of_lines(lambda rng, lines, i: lines[:i] + lines[i + 1 :]),
    "lines shuffled": _of_lines(lambda rng, lines, i: rng.sample(lines, len(lines))),
    "header removed": _of_lines(lambda rng, lines, i: lines[1:]),
    "blank lines": lambda rng, data: b"\n\n" + data.replace(b"\n", b"\n\n"),
    "CRLF": lambda rng, data: b"\r\n".join(data.splitlines()),
    "CR": lambda rng, data: b"\r".join(data.splitlines()),
    "BOM": lambda rng, data: b"\xef\xbb\xbf" + data,
    "UTF-16": lambda rng, data: data.decode().encode("utf-16"),
    "Latin-1": lambda rng, data: data.replace(b"0", "é".encode("latin-1"), 1),
    "digits made large": _made_large,
    "minus signs": lambda rng, data: re.sub(rb"(\d+)", rb"-\1", data, count=1 + rng.randrange(9)),
    "semicolons": lambda rng, data: data.replace(b",", b";"),
}


def damage_text(rng: random.Random, path: Path, outside: Path) -> str:
    """Damages a text of lines and says how: as a text, or as any file."""
    if rng.random() < 0.4:
        return damage(rng, path, outside)
    way = rng.choice(list(OF_TEXT))
    path.write_bytes(OF_TEXT[way](rng, path.read_bytes()))
    return way


def damage_header(rng: random.Random, path: Path, outside: Path) -> str:
    """Writes another header into a .safetensors file."""
    del outside
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


def craft(rng: random.Random, data: Path) -> str:
    """Changes the labels, the settings or the procedure of a data folder; says what."""
    kind = rng.choice(("labels", "labels", "settings", "procedure", "shards"))
    if kind == "labels":
        path = data / "labels" / f"{rng.choice(('train', 'val', 'cad'))}.npz"
        return f"labels/{path.name}: {craft_arrays(rng, path)}"
    if kind == "shards":
        first, second = rng.sample(sorted(data.glob("clips-*")), 2)
        content = first.read_bytes()
        shutil.copy(second, first)
        second.write_bytes(content)
        return f"{first.name} and {second.name} exchanged"
    return change_json(rng, data / f"{kind}.json")


def change_json(rng: random.Random, path: Path) -> str:
    """Changes, removes or renames a value somewhere in a JSON file; says which."""
    content = json.loads(path.read_text())
    place, key = content, rng.choice(list(content))
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
    return f"{path.name}: {key}: {str(value)[:40]!r}"


def craft_arrays(rng: random.Random, path: Path) -> str:
    """Changes or removes one of the arrays of an .npz file; says which."""
    with np.load(path) as file:
        arrays = dict(file)
    key = rng.choice(sorted(arrays))
    array = arrays[key]
    way = rng.choice(
        ("name", "dtype", "shape", "fewer", "more", "number", "nan", "empty", "header", "removed",
         "objects", "bomb")
    )  # fmt: skip
    if way == "name" and array.dtype.kind == "U":
        names = array.tolist()
        names[rng.randrange(len(names))] = rng.choice(NAMES)
        array = np.array(names)
    elif way == "dtype":
        kind = rng.choice(("f8", "U3", "S3", "c16", "?", "u1", "M8[s]", "i4,i4"))
        array = np.zeros(array.shape, kind)
    elif way == "shape":
        array = rng.choice((array[None], array.ravel(), array[..., None], array.ravel()[:1][0]))
    elif way == "fewer":
        array = array[: len(array) // 2]
    elif way == "more":
        array = np.concatenate([array, array])
    elif way == "number" and array.dtype.kind in "iu":
        array = array.astype(np.int64)
        array.flat[rng.randrange(array.size)] = min(rng.choice(HUGE), 2**63 - 1)
    elif way == "nan" and array.dtype.kind == "f":
        array = np.full_like(array, rng.choice((np.nan, np.inf, -1, 1e30)))
    elif way == "empty":
        array = array[:0]
    elif way == "objects":
        array = np.array([{"a": 1}], object)
    arrays[key] = array
    if way == "removed":
        del arrays[key]
    if way == "bomb":
        np.savez_compressed(path, **arrays | {key: np.zeros(2**28, np.int8)})
    else:
        np.savez(path, **arrays)
    if way == "header":
        path.write_bytes(path.read_bytes().replace(b"'descr': ", b"'descr':(", 1))
    return f"{key}: {way}"
