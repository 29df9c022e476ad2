"""Networks in ONNX, a file each, as `python -m stormpsr_jax.export` writes them, run on the CPU.

A program has the preparation of pictures and the reading of outputs in it, so that nothing of flax
is needed to run it.

Dimension letters: B batch, D features, K components, S states.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np

from stormpsr_jax.base import memory
from stormpsr_jax.base.errors import one_line
from stormpsr_jax.base.files import fit, shorten
from stormpsr_jax.base.installed import check_extra
from stormpsr_jax.serving.content import ROLES, Content, FileEntry, Function, read_file, roles_of

PROGRAM = "onnx"  # the format, and the ending of the files
# Of each network, the names of its outputs; "parts" is absent where the detector has no such head.
OUTPUTS = {
    "locator": ("boxes", "confidences"),
    "encoder": ("embeddings",),
    "temporal": ("probabilities", "logits"),
    "detector": ("boxes", "classes", "confidences", "objectness", "states", "parts"),
}
_Figure = Annotated[float, msgspec.Meta(ge=0, le=1e15)]

MAX_BYTES = 2**31 - 1  # of a file: what a message of protocol buffers, as ONNX is, can have
_DTYPES = {"tensor(float)": "float32", "tensor(int32)": "int32"}


class _Exported(msgspec.Struct, forbid_unknown_fields=True):
    program: str
    int8: bool
    created: str
    made_with: dict[str, str]
    weights: FileEntry
    differs: dict[str, _Figure]


class Declared(FileEntry, forbid_unknown_fields=True):
    """What model.json says of a program."""

    width: Annotated[int, msgspec.Meta(ge=0, le=100_001)]  # D, K or S + 1; 0 of the locator
    # How many are computed at once on a CPU; None: as many as are asked for.
    rows: Annotated[int, msgspec.Meta(ge=1, le=64)] | None


class OnnxNetworks:
    """Exported programs, as `content.Networks`; by role, and what model.json says of them."""

    def __init__(
        self, declared: Mapping[str, Declared], of: Mapping[str, OnnxProgram] | None = None
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
                ROLES[role]: _grouped(role, program.function(batch))
                for role, program in self._of.items()
            }
        return self._made[batch]


def declared(data: Mapping[str, Any], place: str) -> OnnxNetworks:
    """The programs that model.json describes, none of which is read; ValueError has the place."""
    exported = fit(data.get("exported"), _Exported, f"{place}: exported")
    if exported.program != PROGRAM:
        raise ValueError(
            f"{place}: exported: program: {shorten(exported.program)} is not read; export the "
            f"model again with --format={PROGRAM}"
        )
    programs = {}
    for role, entry in roles_of(data, place).items():
        programs[role] = fit(entry, Declared, f"{place}: networks.{role}")
        if not 0 < programs[role].size <= MAX_BYTES:
            raise ValueError(f"{place}: networks.{role}: size: is not in 1…{MAX_BYTES}")
    return OnnxNetworks(programs)


def read(path: Path, data: Mapping[str, Any], content: Content) -> OnnxNetworks:
    """The programs; ValueError: a file does not fit model.json, or onnxruntime is missing."""
    programs: dict[str, OnnxProgram] = {}
    networks = content.networks
    assert isinstance(networks, OnnxNetworks)
    for role, declared in networks.declared.items():
        file = path.with_name(f"{role}.{PROGRAM}")
        # Its bytes, what is made of them, and for a while once more.
        written = read_file(file, data["networks"][role], 3)
        programs[role] = OnnxProgram(file, written, declared.rows)
    return OnnxNetworks(networks.declared, programs)


def _grouped(role: str, function: Function) -> Function:
    """The same outputs as the networks of flax have them."""
    if role == "encoder":
        return lambda x: function(x)[0]
    if role in ("locator", "temporal"):
        return lambda x: tuple(function(x))

    def detect(images: np.ndarray) -> tuple:
        boxes, classes, confidences, objectness, states, *parts = function(images)
        return boxes, classes, confidences, (objectness, states, parts[0] if parts else None)

    return detect


# --- One program ----------------------------------------------------------------------------------


class OnnxProgram:
    """A session of onnxruntime."""

    def __init__(self, path: Path, data: bytes, rows: int | None):
        """Opens the content of a file, to compute so many rows at once; None: as are asked for.

        Raises:
            ValueError: onnxruntime cannot read it; one line that names it.
        """
        check_extra("export", ["onnxruntime"], f"{path}: a model in ONNX")
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4  # not errors, which are raised: they hold names of the file
        # Threads that wait would take the processor from what decodes the next picture.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        # A file may look like onnxruntime's own format too.
        options.add_session_config_entry("session.load_model_format", "ONNX")
        with _told(path):
            self._session = onnxruntime.InferenceSession(
                data, options, providers=["CPUExecutionProvider"]
            )
        self._path, self._rows = path, rows

    def function(self, batch: int) -> Function:
        """Rows (B, …), of which there may be none → a list of outputs (B, …), `batch` at a time."""
        batch = min(batch, self._rows or batch)
        name, outputs = self._session.get_inputs()[0].name, self._session.get_outputs()

        def run(x: np.ndarray) -> list[np.ndarray]:
            if not len(x):
                return [np.zeros((0, *node.shape[1:]), _DTYPES[node.type]) for node in outputs]
            memory.check_fits(min(batch, len(x)) * x[0].nbytes, f"a batch of {batch:,} rows")
            parts = []
            for start in range(0, len(x), batch):
                rows = np.ascontiguousarray(x[start : start + batch])
                with _told(self._path):
                    parts.append(self._session.run(None, {name: rows}))
            return [np.concatenate(column) for column in zip(*parts, strict=True)]

        return run


@contextlib.contextmanager
def _told(path: Path) -> Iterator[None]:
    """Errors of onnxruntime, which have no common class, as ValueErrors of one line."""
    try:
        yield
    except (ValueError, MemoryError):
        raise
    except Exception as error:
        if "Failed to allocate memory" in str(error) or "bad_alloc" in str(error):
            raise MemoryError(f"{path}: onnxruntime has no memory for a batch") from error
        raise ValueError(one_line(f"{path}: onnxruntime cannot run it ({error})", 400)) from error
