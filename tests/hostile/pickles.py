"""Pickles of protocol 2, put together opcode by opcode, and those that do harm."""

import struct
from collections.abc import Mapping

import numpy as np

MARK, TUPLE, EMPTY_TUPLE, REDUCE, PERSISTENT, BUILD, STOP = b"(", b"t", b")", b"R", b"Q", b"b", b"."


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def integer(value: int) -> bytes:
    raw = value.to_bytes(16, "little", signed=True)
    return b"\x8a" + bytes([len(raw)]) + raw


def tuple_of(*items: bytes) -> bytes:
    return MARK + b"".join(items) + TUPLE


def call(module: str, name: str, *arguments: bytes) -> bytes:
    return f"c{module}\n{name}\n".encode() + tuple_of(*arguments) + REDUCE


def dict_of(**items: bytes) -> bytes:
    return b"}" + MARK + b"".join(text(k) + v for k, v in items.items()) + b"u"


def storage(key="0", kind="FloatStorage", numel=12) -> bytes:
    reference = (text("storage"), f"ctorch\n{kind}\n".encode(), text(key), text("cpu"))
    return tuple_of(*reference, integer(numel)) + PERSISTENT


def tensor(size, stride, offset=0, of=None) -> bytes:
    return call(
        "torch._utils",
        "_rebuild_tensor_v2",
        of or storage(),
        integer(offset),
        tuple_of(*map(integer, size)),
        tuple_of(*map(integer, stride)),
        b"\x89",
        call("collections", "OrderedDict"),
    )


def entries(state: Mapping[str, np.ndarray]) -> dict[str, bytes]:
    """The pickles of tensors, each of a storage of its own."""
    return {
        name: tensor(
            array.shape,
            [step // array.itemsize for step in array.strides],
            of=storage(str(i), numel=array.size),
        )
        for i, (name, array) in enumerate(state.items())
    }


# Functions that a pickle may name; {} is a file that would be there if one were called.
CALLS = [
    ("os", "system", ["touch {}"]),
    ("posix", "system", ["touch {}"]),
    ("builtins", "eval", ["open('{}', 'w')"]),
    ("builtins", "exec", ["open('{}', 'w')"]),
    ("__builtin__", "open", ["{}", "w"]),
    ("builtins", "getattr", ["", "__class__"]),
    ("subprocess", "Popen", ["touch {}"]),
    ("subprocess", "getoutput", ["touch {}"]),
    ("os", "mkdir", ["{}"]),
    ("pathlib", "Path.touch", ["{}"]),
    ("runpy", "run_path", ["{}"]),
    ("importlib", "import_module", ["antigravity"]),
    ("torch", "load", ["{}"]),
    ("torch.storage", "_load_from_bytes", ["{}"]),
    ("torch._utils", "_rebuild_tensor_v2.__globals__", []),
    ("collections", "OrderedDict.fromkeys", []),
    ("numpy.core.multiarray", "scalar", []),
    ("numpy.core.multiarray", "_reconstruct", []),
    ("argparse", "Namespace", []),
]


def ways_to_call(module: str, name: str, *arguments: bytes) -> dict[str, bytes]:
    """By opcode, every way that the pickle format has to call a function."""
    loaded, given = f"c{module}\n{name}\n".encode(), b"".join(arguments)
    stacked = text(module) + text(name) + b"\x93"
    return {
        "reduce": call(module, name, *arguments),
        "stack_global": stacked + tuple_of(given) + REDUCE,
        "obj": MARK + loaded + given + b"o",
        "inst": MARK + given + f"i{module}\n{name}\n".encode(),
        "newobj": loaded + tuple_of(given) + b"\x81",
        "newobj_ex": loaded + tuple_of(given) + b"}\x92",
        "persid": stacked + PERSISTENT,
        "build": loaded + b"}" + BUILD,
    }


# Damaged or hostile, and what the error has to say of it.
BROKEN = [
    (tensor((13,), (1,)), r"\(13,\) does not fit its storage of 12"),
    (tensor((2,), (12,)), "does not fit"),
    (tensor((1,), (1,), 12), "does not fit"),
    (tensor((10**9, 12), (0, 1)), "does not fit"),
    (tensor((2,), (-1,), 5), "malformed"),
    (tensor((2,), (1,), -1), "malformed"),
    (tensor((2, 2), (1,)), "malformed"),
    (tensor((2**100,), (0,)), "malformed"),
    (tensor((1,) * 9, (1,) * 9), "malformed"),
    (tensor((1,), (1,), of=text("no storage")), "malformed"),
    (storage(key="7"), "'data/7' is missing"),
    (storage(key="../data.pkl"), "is missing"),
    (text("storage") + PERSISTENT, "no storage"),
    (integer(1) + BUILD, "damaged"),
    (b"h\x05", "damaged"),  # a memo entry that was never written
    (b"\x96" + struct.pack("<Q", 2**40), "damaged"),  # a bytearray of 1 TB
    (b"X" + struct.pack("<I", 2**32 - 1), "damaged"),  # a string of 4 GB
    (b"\x82\x01", "opcode EXT1"),  # the extension registry
    (b"(ios\nsystem\n", "opcode INST"),
    (b"P1\n", "opcode PERSID"),
    (b"]2", "opcode DUP"),
    (b"\x97", "opcode NEXT_BUFFER"),
    (b"\x8f(" + text("a") + b"\x90", "opcode EMPTY_SET"),
    (b"ctorch\nSize\n" + tuple_of(tuple_of()) + b"\x81", "opcode NEWOBJ"),
    (tensor((12,), (1,)) + text("a") + b"a", "a ndarray where a list"),  # APPEND
    (storage() + MARK + text("a") + b"e", "a _Storage where a list"),  # APPENDS
    (tensor((12,), (1,)) + integer(0) + integer(7) + b"s", "for a ndarray"),  # SETITEM
    (storage() + MARK + integer(0) + integer(7) + b"u", "for a _Storage"),  # SETITEMS
    (b"}" + MARK + text("a") + b"u", "1 keys and values"),
    (b"}" + MARK + tensor((12,), (1,)) + b"Nu", "a ndarray as a key"),
    (b"}" + MARK + b"\x8a\x08" + (2**61 - 1).to_bytes(8, "little") + b"Nu", "a int as a key"),
    (b"}" + MARK + b"\x8a\x01\xffNu", "a int as a key"),  # -1
    (b"}" + MARK + b"G" + bytes(8) + b"Nu", "a float as a key"),
    (b"}" + MARK + b"\x88Nu", "a bool as a key"),
    (text("collections.OrderedDict") + b")R", "a str where a _Name"),
    (b"ccollections\nOrderedDict\n]R", "a list where a tuple"),
    (b"ctorch\nFloatStorage\n" + tuple_of(integer(2**40)) + REDUCE, "of 1 arguments"),
    (call("torch.", "Size", text("no tuple")), "refused to load"),
    (call("torch", "Size", text("no tuple")), "of 1 arguments"),
    (call("torch._utils", "_rebuild_parameter", storage()), "of 1 arguments"),
    (tensor((2**47, 2**47, 0), (1, 1, 1)), "damaged"),
]

# Little that asks for much, and is followed by a sound state dict, or is one.
BOMBS = {
    "nested tuples": b")" + b"\x85" * 10**6 + b"0",
    "nested lists": b"]" + b"]a" * 10**6,
    "nested marks": b"(" * 10**6,
    "lists in a list": b"](" + b"]" * 10**6 + b"e",
    "doubled": b")" + b"".join(b"q%ch%c\x86" % (i, i) for i in range(200)),
    "far memo": b"]r\xff\xff\xff\x7f",
    "memo": b"]" + b"".join(b"r" + struct.pack("<I", i) for i in range(10**6)),
    "long text": b"X" + struct.pack("<I", 2**32 - 1),
    "long number": b"\x8b" + struct.pack("<i", 2**31 - 1),
    "large number": b"\x8b" + struct.pack("<i", 10**6) + b"\x7f" * 10**6,
    "long digits": b"L" + b"9" * 10**6 + b"L\n",
    "number as a key": b"}\x8a\xff" + b"\x7f" * 255 + b"Ns",
    "many calls": call("collections", "OrderedDict") * 10**5,
    "itself": b"}q\x00" + text("a") + b"h\x00s",
    "large": b"N0" * 2**23,
    "shared": dict_of(**{f"w{i}": tensor((12,), (1,), of=storage()) for i in range(10**4)}),
}
