"""Pickles of protocol 2, put together opcode by opcode, and those that do harm."""

import pickle
import struct

MARK, TUPLE, REDUCE, PERSISTENT, BUILD, STOP = b"(", b"t", b"R", b"Q", b"b", b"."


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


def storage(key="0", kind="FloatStorage", numel=12, further=b"") -> bytes:
    reference = (text("storage"), f"ctorch\n{kind}\n".encode(), text(key), text("cpu"))
    return tuple_of(*reference, integer(numel), further) + PERSISTENT


def old_file(content: bytes, data: dict[str, tuple[int, bytes]], little=True, keys=None) -> bytes:
    """What PyTorch wrote before 1.6, with storages of so many elements and these bytes."""
    system = {"protocol_version": 1001, "little_endian": little, "type_sizes": {"int": 4}}
    first = [pickle.dumps(part, 2) for part in (0x1950A86A20F9469CFC6C, 1001, system)]
    parts = [*first, b"\x80\x02" + content + STOP, pickle.dumps(keys or list(data), 2)]
    return b"".join(parts) + b"".join(struct.pack("<q", n) + raw for n, raw in data.values())


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


# Functions that a pickle may name; {} is a file that would be there if one were called.
CALLS = [
    ("os", "system", ["touch {}"]),
    ("builtins", "eval", ["open('{}', 'w')"]),
    ("__builtin__", "open", ["{}", "w"]),
    ("builtins", "getattr", ["", "__class__"]),
    ("torch", "load", ["{}"]),
    ("torch._utils", "_rebuild_tensor_v2.__globals__", []),
    ("numpy.core.multiarray", "_reconstruct", []),
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


# Damaged or hostile.
BROKEN = [
    tensor((13,), (1,)),
    tensor((1,), (1,), 12),
    tensor((10**9, 12), (0, 1)),
    tensor((2,), (-1,), 5),
    tensor((2,), (1,), -1),
    tensor((2**100,), (0,)),
    tensor((1,) * 9, (1,) * 9),
    tensor((1,), (1,), of=text("no storage")),
    # Twelve times the last element is a view that fits; twelve elements from there on are not.
    tensor((12,), (1,), of=tensor((12,), (0,), 11)),
    tensor((2**47, 2**47, 0), (1, 1, 1)),
    storage(key="../data.pkl"),
    text("storage") + PERSISTENT,
    integer(1) + BUILD,
    b"h\x05",  # a memo entry that was never written
    b"]r\xff\xff\xff\x7f",  # one of number 2^31: in an array it would take 16 GB
    b"\x96" + struct.pack("<Q", 2**40),  # a bytearray of 1 TB
    b"X" + struct.pack("<I", 2**32 - 1),  # a string of 4 GB
    b"\x8b" + struct.pack("<i", 2**31 - 1),  # a number of 2 GB
    b"L" + b"9" * 10**5 + b"L\n",
    b"\x82\x01",  # the extension registry
    tensor((12,), (1,)) + text("a") + b"a",  # APPEND
    tensor((12,), (1,)) + integer(0) + integer(7) + b"s",  # SETITEM
    # Keys: of these, all would be looked for at the place of all others, or without an end.
    b"}" + MARK + tensor((12,), (1,)) + b"Nu",
    b"}" + MARK + b"\x8a\x08" + (2**61 - 1).to_bytes(8, "little") + b"Nu",
    b"}" + MARK + b"\x8a\x01\xffNu",  # -1
    b"})" + b"\x85" * 200_000 + b"Ns",
    b"ccollections\nOrderedDict\n]R",
    b"ctorch\nFloatStorage\n" + tuple_of(integer(2**40)) + REDUCE,
    call("torch._utils", "_rebuild_parameter", storage()),
    # Each was handed to __setstate__ or __dict__ of the object itself: bfloat16 got an itemsize of
    # -1 for the whole process, an array lost the bytes that others were views of.
    b"ctorch\nBFloat16Storage\n"
    + tuple_of(integer(3) + text("<") + b"NNN" + integer(-1) + integer(-1) + integer(63))
    + BUILD,
    storage() + tuple_of(integer(1), tuple_of(integer(0)), b"ctorch\nByteStorage\n\x89]") + BUILD,
    storage() + dict_of(array=text("a")) + BUILD,
    tensor((12,), (1,)) + dict_of(a=integer(1)) + BUILD,
    b"ctorch._utils\n_rebuild_tensor_v2\n" + dict_of(a=integer(1)) + BUILD,
    b"ctorch._utils\n_rebuild_tensor_v2\n" + tuple_of(b"N", dict_of(text=text("a"))) + BUILD,
]
