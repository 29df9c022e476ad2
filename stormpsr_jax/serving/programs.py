"""Networks in ONNX: what `python -m stormpsr_jax.export` writes, a file for each network.

A program has the preparation of pictures and the reading of outputs in it, so that nothing of flax
is needed to run it. Its inputs and outputs are checked against model.json before the first picture.

Dimension letters: B batch, T frames of a clip, H W image, D features, K components, S states, M
detections of a picture.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np

from stormpsr_jax.base.errors import one_line
from stormpsr_jax.base.files import fit, shorten
from stormpsr_jax.serving.content import Content, Function, roles_of
from stormpsr_jax.serving.named_files import Named, read_file
from stormpsr_jax.serving.onnx_program import MAX_BYTES, Array, OnnxProgram

PROGRAM = "onnx"  # the format, and the ending of the files
# Of each network, the names of its outputs; "parts" is absent where the detector has no such head.
OUTPUTS = {
    "encoder": ("embeddings",),
    "temporal": ("probabilities", "logits"),
    "detector": ("boxes", "classes", "confidences", "objectness", "states", "parts"),
}
_FUNCTION = {"encoder": "encode", "temporal": "temporal", "detector": "detect"}
_Figure = Annotated[float, msgspec.Meta(ge=0, le=1e15)]


class _Exported(msgspec.Struct, forbid_unknown_fields=True):
    """What model.json says of an export."""

    program: str
    int8: bool
    created: str
    made_with: dict[str, str]
    weights: Named
    differs: dict[str, _Figure]


class Declared(Named, forbid_unknown_fields=True):
    """What model.json says of a program.

    Attributes:
        width: D, K or S + 1.
        rows: how many are computed at once on a CPU; None: as many as are asked for.
    """

    width: Annotated[int, msgspec.Meta(ge=1, le=100_001)]
    rows: Annotated[int, msgspec.Meta(ge=1, le=64)] | None


class Programs:
    """Exported programs, as `content.Networks`.

    Attributes:
        declared: what model.json says of them, by role.
    """

    def __init__(
        self,
        declared: Mapping[str, Declared],
        of: Mapping[str, OnnxProgram] | None = None,
    ):
        self.declared, self._of = dict(declared), dict(of or {})
        self._made: dict[int, dict[str, Function]] = {}

    @property
    def widths(self) -> Mapping[str, int]:
        """See `content.Networks`."""
        return {role: declared.width for role, declared in self.declared.items()}

    def functions(self, content: Content, batch: int) -> Mapping[str, Function]:
        """See `content.Networks`."""
        if batch not in self._made:
            self._made[batch] = {
                _FUNCTION[role]: _grouped(role, program.function(batch))
                for role, program in self._of.items()
            }
        return self._made[batch]


def declared(data: Mapping[str, Any], place: str) -> Programs:
    """The programs that model.json describes, none of which is read.

    Raises:
        ValueError: the first error, with its place.
    """
    exported = fit(data.get("exported"), _Exported, f"{place}: exported")
    if exported.program != PROGRAM:
        raise ValueError(
            f"{place}: exported: program: {shorten(exported.program)} is not read; export the "
            f"model again with --format={PROGRAM}"
        )
    found = {}
    for role, entry in roles_of(data, place).items():
        found[role] = fit(entry, Declared, f"{place}: networks.{role}")
        if not 0 < found[role].size <= MAX_BYTES:
            raise ValueError(f"{place}: networks.{role}: size: is not in 1…{MAX_BYTES}")
    return Programs(found)


def read(path: Path, data: Mapping[str, Any], content: Content) -> Programs:
    """The programs, from the files beside model.json.

    Raises:
        ValueError: a file is damaged or does not fit model.json, or onnxruntime is missing.
    """
    found: dict[str, OnnxProgram] = {}
    networks = content.networks
    assert isinstance(networks, Programs)
    for role, declared in networks.declared.items():
        file = path.with_name(f"{role}.{PROGRAM}")
        # Its bytes, what is made of them, and for a while once more.
        written = read_file(file, data["networks"][role], 3)
        found[role] = OnnxProgram(file, written, declared.rows)
        _check(file, role, found[role], content)
    return Programs(networks.declared, found)


def outputs(content: Content, role: str, found: Sequence[Array]) -> tuple[Array, ...]:
    """The outputs that a network has, each without its batch.

    Args:
        found: those that it does have, of which two may have one of two forms: a temporal network
            has one or three logits a component, and not every detector knows parts.
    """
    K, M = content.procedure.num_components, content.max_detections
    if role == "encoder":
        return (Array("float32", (content.input_shape("temporal", 1)[2],)),)
    if role == "temporal":
        three = len(found) > 1 and found[1].shape == (3 * K,)
        return Array("float32", (K,)), Array("float32", (3 * K if three else K,))
    wanted = (
        Array("float32", (M, 4)),
        Array("int32", (M,)),
        Array("float32", (M,)),
        Array("float32", ()),
        Array("float32", (content.networks.widths["detector"],)),
    )
    return wanted if len(found) == len(wanted) else (*wanted, Array("float32", (2 * K,)))


def _check(path: Path, role: str, program: OnnxProgram, content: Content) -> None:
    """Raises ValueError unless a program takes and gives what model.json says."""
    kind = "float32" if role == "temporal" else "uint8"
    takes = Array(kind, content.input_shape(role, 1)[1:])
    if program.takes != takes:
        raise ValueError(one_line(f"{path}: takes rows of {program.takes}, not of {takes}"))
    gives = outputs(content, role, program.gives)
    if program.gives != gives:
        have, want = (", ".join(map(str, arrays)) for arrays in (program.gives, gives))
        raise ValueError(one_line(f"{path}: gives rows of {have}, not of {want}", 400))


def _grouped(role: str, function: Function) -> Function:
    """The same outputs as the networks of flax have them."""
    if role == "encoder":
        return lambda x: function(x)[0]
    if role == "temporal":
        return lambda x: tuple(function(x))

    def detect(images: np.ndarray) -> tuple:
        boxes, classes, confidences, objectness, states, *parts = function(images)
        return boxes, classes, confidences, (objectness, states, parts[0] if parts else None)

    return detect
