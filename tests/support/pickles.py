"""A small assembler for pickles of protocol 2, opcode by opcode."""

import struct

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
