"""What the kernels of a compiled step do and move, read from its optimised HLO.

Compilers for GPU say nothing of cost, and a total over a step hides that one kernel waits for
memory while another one computes. So each kernel is counted by itself: one instruction of the
program's main computation, or of the body of a loop that runs a known number of times.

Matrix products and convolutions are counted as two operations a product and sum. Bytes are those of
a kernel's operands and results, each once, as if whatever a kernel reads were in no cache; of an
operand that a fusion only cuts pieces out of, the pieces. Results in a TPU's own memory (S(1) in a
layout) cost nothing.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterable, Iterator

BYTES = {
    **{name: 1 for name in ("pred", "s8", "u8", "s4", "u4", "f8e4m3fn", "f8e5m2")},
    **{name: 2 for name in ("bf16", "f16", "s16", "u16")},
    **{name: 4 for name in ("f32", "s32", "u32")},
    **{name: 8 for name in ("f64", "s64", "u64", "c64")},
}
# What takes no kernel, or is counted where it starts.
FREE = {"parameter", "constant", "bitcast", "get-tuple-element", "tuple", "after-all", "iota"}
FREE |= {"copy-done", "all-reduce-done", "all-gather-done", "async-done", "partition-id"}
PIECES = {"slice", "dynamic-slice", "gather"}
_HEADER = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\) -> .* \{$")
_LINE = re.compile(r"^\s+(?:ROOT )?%?([\w.\-]+) = (\(.*?\)|\S+) ([\w\-]+)\((.*)$")
_SHAPE = re.compile(r"\b([a-z]\w*)\[([\d,]*)\](\{[^}]*\})?")
_NAME = re.compile(r"%([\w.\-]+)")


@dataclasses.dataclass(frozen=True)
class Kernel:
    """One kernel.

    Attributes:
        name: of its instruction.
        source: the JAX operation that it came from, "" if none is told.
        times: that it runs in a step.
        flops: of matrix products and convolutions, each time.
        bytes: read and written, each time.
    """

    name: str
    source: str
    times: int
    flops: float
    bytes: float


@dataclasses.dataclass(frozen=True)
class Instruction:
    """A line of HLO."""

    name: str
    shape: str
    opcode: str
    rest: str
    root: bool

    @property
    def operands(self) -> list[str]:
        """Names of the instructions whose results it takes."""
        return _NAME.findall(self.rest[: _closing(self.rest)])

    def called(self, what: str) -> str:
        """The computation that it names as `what`, or ""."""
        found = re.search(rf"\b{what}=%?([\w.\-]+)", self.rest)
        return found[1] if found else ""


def kernels(text: str) -> list[Kernel]:
    """The kernels of a compiled program.

    Args:
        text: `Compiled.as_text()`, of a GPU or a TPU.

    Raises:
        ValueError: there is no main computation in it.
    """
    computations, main = _computations(text)
    if not main:
        raise ValueError("the text is no HLO module with an ENTRY computation")
    return list(_of(computations, main, 1))


# Bytes/s of a device's memory, by its kind.
BANDWIDTHS = {"NVIDIA H100": 3.35e12, "NVIDIA A100": 2.04e12, "TPU v5 lite": 819e9}


def seconds(found: Iterable[Kernel], peak: float, bandwidth: float) -> float:
    """What the kernels take one after the other at best, each for what it takes longer for.

    Args:
        found: of a step.
        peak: FLOP/s of matrix products.
        bandwidth: bytes/s of the device's memory.
    """
    return sum(k.times * max(k.flops / peak, k.bytes / bandwidth) for k in found)


def _computations(text: str) -> tuple[dict[str, list[Instruction]], str]:
    """The instructions of every computation by its name, and the name of the main one."""
    found: dict[str, list[Instruction]] = {}
    main, current = "", None
    for line in text.splitlines():
        if header := _HEADER.match(line):
            current = found.setdefault(header[2], [])
            main = header[2] if header[1] else main
        elif current is not None and (match := _LINE.match(line)):
            current.append(Instruction(*match.groups(), "ROOT " in line[:10]))
    return found, main


def _of(computations: dict, name: str, times: int) -> Iterator[Kernel]:
    body = computations[name]
    shapes = {i.name: i.shape for i in body}
    for i in body:
        if i.opcode in FREE:
            continue
        if i.opcode == "while":
            count = re.search(r'"known_trip_count":\{"n":"(\d+)"', i.rest)
            yield from _of(
                computations, i.called("body"), times * int(count[1]) if count else times
            )
            continue
        if i.opcode in ("call", "conditional"):
            if target := i.called("to_apply"):
                yield from _of(computations, target, times)
            continue
        inside = computations.get(i.called("calls"), []) if "calls=" in i.rest else []
        source = re.search(r'op_name="([^"]*)"', i.rest)
        yield Kernel(
            i.name,
            source[1] if source else "",
            times,
            _flops(i, shapes) + sum(_all_flops(computations, j, inside) for j in inside),
            _bytes(i, shapes, inside),
        )


def _all_flops(computations: dict, i: Instruction, body: list[Instruction]) -> float:
    shapes = {j.name: j.shape for j in body}
    inner = computations.get(i.called("calls"), []) if i.opcode == "fusion" else []
    return _flops(i, shapes) + sum(_all_flops(computations, j, inner) for j in inner)


def _flops(i: Instruction, shapes: dict[str, str]) -> float:
    """Of one instruction that is a product, or a library's kernel of one."""
    if i.opcode == "dot":
        return _product_flops(i, shapes, re.search(r"lhs_contracting_dims=\{([\d,]*)\}", i.rest))
    if i.opcode == "convolution":
        labels = re.search(r"dim_labels=\w+_(\w+)->", i.rest)
        kernel = _dims(shapes[i.operands[1]])
        return 2.0 * _size(i.shape) * math.prod(kernel) / kernel[labels[1].index("o")]
    target = re.search(r'custom_call_target="([^"]*)"', i.rest)
    if i.opcode != "custom-call" or not target:
        return 0.0
    if "matmul" in target[1] or "gemm" in target[1]:
        axes = re.search(r'"lhs_contracting_dimensions":\[([^\]]*)\]', i.rest)
        return _product_flops(i, shapes, axes)
    if "fmha" in target[1]:
        B, T, N, d = _dims(shapes[i.operands[0]])
        products = 5 if "Backward" in target[1] else 2  # backwards, the logits once more
        return products * 2.0 * B * N * T * _dims(shapes[i.operands[1]])[1] * d
    if "conv" in target[1]:
        return _conv_flops(i, shapes, target[1])
    return 0.0


def _conv_flops(i: Instruction, shapes: dict[str, str], target: str) -> float:
    """Of cuDNN's convolutions: products of the output's (or gradient's) pixels and the kernel."""
    labels = re.search(r"dim_labels=\w+_(\w+)->", i.rest)
    result = _SHAPE.search(i.shape)[0]
    first, second = (shapes[name] for name in i.operands[:2])
    # Of input, kernel and output, two are operands and the third is the result.
    kernel, pixels = {
        "Forward": (second, result),
        "BackwardInput": (second, first),
        "BackwardFilter": (result, second),
    }[target.split("conv")[-1].split("$")[-1].removeprefix("BiasActivation")]
    dims = _dims(kernel)
    return 2.0 * _size(pixels) * math.prod(dims) / dims[labels[1].index("o")]


def _product_flops(i: Instruction, shapes: dict[str, str], axes: re.Match | None) -> float:
    left = _dims(shapes[i.operands[0]])
    summed = [left[int(axis)] for axis in re.findall(r"\d+", axes[1])] if axes else []
    return 2.0 * math.prod(_dims(i.shape)) * math.prod(summed)


def _bytes(i: Instruction, shapes: dict[str, str], inside: list[Instruction]) -> float:
    """What a kernel reads and writes."""
    written = 0.0
    updated = {j.operands[0]: j.operands[1] for j in inside if j.opcode == "dynamic-update-slice"}
    within = {j.name: j.shape for j in inside}
    read, parameters = 0.0, [j for j in inside if j.opcode == "parameter"]
    number = {int(re.match(r"\d+", p.rest)[0]): p.name for p in parameters}
    for index, name in enumerate(dict.fromkeys(i.operands)):
        whole = _nbytes(shapes.get(name, ""))
        users = [j for j in inside if index in number and number[index] in j.operands]
        if users and all(j.opcode in PIECES and j.operands[0] == number[index] for j in users):
            whole = min(whole, sum(_nbytes(j.shape) for j in users))
        elif index in number and number[index] in updated:
            whole = 0.0  # updated in place
        read += whole
    if updated and len(updated) == len([j for j in inside if j.root]):
        written = sum(_nbytes(within[name]) for name in updated.values())
    else:
        written = _nbytes(i.shape, results=True)
    return read + written


def _dims(shape: str) -> list[int]:
    found = _SHAPE.search(shape)
    return [int(n) for n in found[2].split(",") if n] if found else []


def _size(shape: str) -> int:
    """Elements of the first array of a shape."""
    return math.prod(_dims(shape))


def _nbytes(shape: str, results: bool = False) -> float:
    """Of all arrays of a shape; a kernel's second result of bytes is its workspace."""
    total = 0.0
    for dtype, dims, layout in _SHAPE.findall(shape):
        if dtype not in BYTES or "S(" in layout or (results and dtype in ("s8", "u8")):
            continue
        total += BYTES[dtype] * math.prod(int(n) for n in dims.split(",") if n)
    return total


def _closing(text: str) -> int:
    """Where the bracket closes that was open before."""
    depth = 1
    for at, char in enumerate(text):
        depth += {"(": 1, ")": -1}.get(char, 0)
        if not depth:
            return at
    return len(text)
