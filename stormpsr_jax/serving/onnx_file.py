"""What an ONNX file is made of, before anything runs it.

An ONNX file can name other files for its data, bring operators of other libraries and loop for
ever. None of that is in what `stormpsr_jax.export` writes, and a file that has it is refused. The
message is read as far as that takes, by the numbers of its fields (onnx.proto of ONNX 1.23); large
arrays are passed over.
"""

from collections.abc import Iterator
from pathlib import Path

from stormpsr_jax.base.errors import visible

OPSETS = (13, 23)  # versions of the operators: int8 per channel came with the first
# Of the networks of `architectures`, as jax2onnx and onnxruntime's int8 write them.
OPERATORS = frozenset(
    "Abs Add And ArgMax Cast CastLike Ceil Clip Concat Constant ConstantOfShape Conv ConvInteger "
    "DequantizeLinear Div Dropout DynamicQuantizeLinear Einsum Equal Erf Exp Expand Flatten Floor "
    "Gather GatherElements GatherND Gelu Gemm Greater GreaterOrEqual Identity "
    "InstanceNormalization LayerNormalization Less LessOrEqual Log LogSoftmax MatMul "
    "MatMulInteger Max Min Mod Mul Neg Not Or Pad Pow QuantizeLinear Range Reciprocal ReduceMax "
    "ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare Relu Reshape ScatterND Shape "
    "Sigmoid Sign Slice Softmax Split Sqrt Squeeze Sub Tanh Tile Transpose Unsqueeze Where".split()
)
_DEPTH = 8  # of messages in messages

# By message, the fields that are messages of interest.
_INSIDE: dict[str, dict[int, str]] = {
    "model": {7: "graph", 8: "opset"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
}
_EXTERNAL, _LOCATION = 13, 14  # of a tensor
_OPERATOR, _NODE_DOMAIN = 4, 7
_SET_DOMAIN, _SET_VERSION = 1, 2
_TRAINING, _FUNCTIONS = 20, 25  # of a model


def check(path: Path, data: bytes) -> None:
    """Raises ValueError for an ONNX file that no export writes; one line that names the file."""
    try:
        versions = _check("model", memoryview(data), 0)
    except _Refused as error:
        raise ValueError(f"{path}: {error}") from error
    except (IndexError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: is no ONNX file, or is damaged") from error
    if len(versions) != 1 or not OPSETS[0] <= versions[0] <= OPSETS[1]:
        have = ", ".join(map(str, versions[:5])) or "none"
        raise ValueError(
            f"{path}: has the operators of version {have}, known are {OPSETS[0]}…{OPSETS[1]}; "
            "export the model again with this version of stormpsr_jax"
        )


class _Refused(Exception):
    """Why a file is refused."""


def _check(kind: str, message: memoryview, depth: int) -> list[int]:
    """Checks a message and those in it; returns the versions of operators that it asks for."""
    if depth > 3 * _DEPTH:
        raise _Refused("has graphs in graphs beyond all measure")
    versions: list[int] = []
    domain, version = "", 0
    for number, value in _fields(message):
        if kind == "model" and number in (_TRAINING, _FUNCTIONS):
            raise _Refused("holds functions or training, which no export writes")
        if kind == "tensor" and (number == _EXTERNAL or (number == _LOCATION and value)):
            raise _Refused("takes data from another file, which no export does")
        if kind == "node" and number == _OPERATOR:
            if (name := _text(value)) not in OPERATORS:
                what = f"has the operator {visible(name[:40])!r}, which no export writes"
                raise _Refused(what)
        if (kind, number) in (("node", _NODE_DOMAIN), ("opset", _SET_DOMAIN)):
            domain = _text(value)
        if (kind, number) == ("opset", _SET_VERSION) and isinstance(value, int):
            version = value
        inside = _INSIDE.get(kind, {}).get(number)
        if inside and isinstance(value, memoryview):
            versions += _check(inside, value, depth + 1)
    if domain not in ("", "ai.onnx"):
        raise _Refused(f"has operators of {visible(domain[:40])!r}, which no export writes")
    return [version] if kind == "opset" else versions


def _text(value: int | memoryview) -> str:
    return bytes(value).decode() if isinstance(value, memoryview) else ""


def _fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """The fields of a message of protocol buffers: numbers, and their integers or bytes.

    Raises:
        IndexError: it is none.
    """
    at = 0
    while at < len(message):
        key, at = _integer(message, at)
        wire = key & 7
        value: int | memoryview
        if wire == 0:
            value, at = _integer(message, at)
        elif wire in (1, 5):
            size = 8 if wire == 1 else 4
            value, at = message[at : at + size], at + size
        elif wire == 2:
            size, at = _integer(message, at)
            value, at = message[at : at + size], at + size
        else:
            raise IndexError("no such type")
        if at > len(message):
            raise IndexError("cut off")
        yield key >> 3, value


def _integer(message: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at
        if shift > 63:
            raise IndexError("too long")
