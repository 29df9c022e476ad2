"""From a model folder with weights to one with programs.

Dimension letters: B batch.
"""

import datetime
import hashlib
import importlib.metadata
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from stormpsr_jax.base import files
from stormpsr_jax.networks import architectures
from stormpsr_jax.serving import functions
from stormpsr_jax.serving.card import CARD, card
from stormpsr_jax.serving.content import Content, Function
from stormpsr_jax.serving.export import onnx_writer
from stormpsr_jax.serving.folder import model_folder, read_model
from stormpsr_jax.serving.functions import FlaxNetworks
from stormpsr_jax.serving.model_files import MODEL, with_checksum
from stormpsr_jax.serving.onnx_networks import MAX_BYTES, OUTPUTS, PROGRAM, Array, OnnxProgram
from stormpsr_jax.serving.writing import weights_of

FORMAT = 4  # of a folder with programs
# By how much an output may differ from the model's, of its largest value and at least of 1.
# Networks round to a hundredth of it; a wrong operator is off by far more.
TOLERANCE = 1e-3
ROWS = 5  # that are compared, at once and one by one
LIBRARIES = ("jax", "jax2onnx", "onnx", "onnxruntime")


def export_model(
    folder: str | Path, out: str | Path, *, int8: bool = False, modules: Collection[str] = ()
) -> list[str]:
    """Writes a model folder with programs in place of weights; it appears whole or not at all.

    `modules`: see `load_model`; an export needs none.

    Returns:
        A line for each output: by how much it differs from the model's.

    Raises:
        ValueError: `folder` is no model with weights, `out` is not empty, a library is missing, or
            an output differs by more than TOLERANCE.
        OSError: it cannot be written; names the file.
    """
    source, out = model_folder(folder), Path(out)
    networks = weights_of(source, modules)
    content = read_model(source, modules)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"{out}: exists already; give a folder that is to be made")
    onnx_writer.check_libraries()
    with files.replacing_folder(out) as part:
        differs = _write(source, networks, content, part, int8)
    return [f"{name} differs by {value:.1e}" for name, value in differs.items()]


def _write(
    source: Path, networks: FlaxNetworks, content: Content, out: Path, int8: bool
) -> dict[str, float]:
    """Writes all files into a folder; returns by how much outputs differ from the model's."""
    bodies = functions.bodies(functions.statistics(content.pictures), content.max_detections)
    entries: dict[str, Any] = {}
    differs: dict[str, float] = {}
    for role, network in networks.of.items():
        # onnxruntime has no bfloat16 on CPUs.
        module = architectures.in_float32(architectures.inference(network.module))
        variables = functions.needed(role, module, network.variables, content.pictures)

        def function(x: Any, body: Any = bodies[role][1], of: Any = (module, variables)) -> tuple:
            return tuple(jax.tree.leaves(body(*of, x)))  # parts that it does not know are none

        row = Array("float32" if role == "temporal" else "uint8", content.input_shape(role, 1)[1:])
        names = OUTPUTS[role]
        # Of detectors, whose few products of matrices decide a state by small differences and cost
        # next to nothing, int8 would be no gain.
        rounded = int8 and role not in ("detector", "locator")
        written = onnx_writer.write(function, row, names, rounded)
        if len(written) > MAX_BYTES:
            raise ValueError(f"{source}: the {role} has over 2 GiB, more than a program may have")
        path = out / f"{role}.{PROGRAM}"
        with files.replacing(path) as file:
            file.write_bytes(written)
        # Of int8, one scale is for all of a call, and a picture is to round by itself.
        rows = 1 if rounded else None
        found = {"width": networks.widths[role], "rows": rows, "size": len(written)}
        entries[role] = found | {"sha256": hashlib.sha256(written).hexdigest()}
        opened = OnnxProgram(path, written, rows)
        tolerance = np.inf if rounded else TOLERANCE
        differs |= _compare(path, function, opened, row, names, tolerance)
    whole = files.read_json(source / MODEL)
    whole.pop("checksum", None)
    data = {key: value for key, value in whole.items() if key != "weights"}
    data["format"], data["networks"] = FORMAT, entries
    data["exported"] = exported = {
        "program": PROGRAM,
        "int8": int8,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "made_with": {name: importlib.metadata.version(name) for name in LIBRARIES},
        "weights": {key: whole["weights"][key] for key in ("sha256", "size")},
        "differs": {name: float(f"{value:.2e}") for name, value in differs.items()},
    }
    files.write_json(out / MODEL, with_checksum(data))
    counts = {
        role: sum(a.size for a in jax.tree.leaves(network.variables["params"]))
        for role, network in networks.of.items()
    }
    files.write_text(out / CARD, card(whole, counts, exported))
    read_model(out)  # which checks all of it
    return differs


def _compare(
    path: Path,
    function: Function,
    opened: OnnxProgram,
    row: Array,
    names: Sequence[str],
    tolerance: float,
) -> dict[str, float]:
    """By how much a program differs from its network on random rows, at once and one by one."""
    rng = np.random.default_rng(0)
    x = rng.normal(0, row.shape[-1] ** -0.5, (ROWS, *row.shape)).astype(np.float32)
    if row.dtype == "uint8":  # pictures with edges, not noise alone
        x = rng.integers(0, 256, (ROWS, *row.shape), np.uint8)
        x[:, : row.shape[0] // 2, : row.shape[1] // 2] //= 4
    wanted = [np.asarray(array, np.float64) for array in jax.jit(function)(x)]
    ways = [opened.function(batch)(x) for batch in (ROWS, 1)]
    found = {}
    for name, want, *have in zip(names, wanted, *ways, strict=False):
        found[name] = max(float(np.abs(want - other).max(initial=0)) for other in have)
        limit = tolerance * max(1.0, float(np.abs(want).max(initial=0)))
        # Which of two equal boxes is the best may turn out either way.
        if name not in ("boxes", "classes") and not found[name] <= limit:
            raise ValueError(
                f"{path}: {name} differs by {found[name]:.1e} from the model's: this version of "
                "the libraries does not export it rightly"
            )
    return found
