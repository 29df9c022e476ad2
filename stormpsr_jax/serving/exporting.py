"""From a model folder with weights to one with programs in ONNX, by jax2onnx and onnxruntime.

Dimension letters: B batch.
"""

import contextlib
import datetime
import hashlib
import importlib.metadata
import logging
import tempfile
import warnings
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.extend
import jax.numpy as jnp
import numpy as np

from stormpsr_jax.base import files
from stormpsr_jax.base.installed import check_extra
from stormpsr_jax.networks import architectures
from stormpsr_jax.serving import functions
from stormpsr_jax.serving.content import MODEL, Content, Function, with_checksum
from stormpsr_jax.serving.folder import model_folder, read_model
from stormpsr_jax.serving.functions import FlaxNetworks
from stormpsr_jax.serving.onnx_networks import MAX_BYTES, OUTPUTS, PROGRAM, OnnxProgram
from stormpsr_jax.serving.writing import CARD, card, weights_of

FORMAT = 4  # of a folder with programs
# By how much an output may differ from the model's, of its largest value and at least of 1.
# Networks round to a hundredth of it; a wrong operator is off by far more.
TOLERANCE = 1e-3
ROWS = 5  # that are compared, at once and one by one
LIBRARIES = ("jax", "jax2onnx", "onnx", "onnxruntime")
OPSET = 21  # of onnxruntime 1.20 and later
_PRODUCTS = ("MatMul", "Gemm")


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
    _check_libraries()
    with files.replacing_folder(out) as part:
        differs = _write(source, networks, content, part, int8)
    return [f"{name} differs by {value:.1e}" for name, value in differs.items()]


def _write(
    source: Path, networks: FlaxNetworks, content: Content, out: Path, int8: bool
) -> dict[str, float]:
    bodies = functions.bodies(content.pictures, content.max_detections)
    entries: dict[str, Any] = {}
    differs: dict[str, float] = {}
    for role, network in networks.of.items():
        # onnxruntime has no bfloat16 on CPUs.
        module = architectures.in_float32(architectures.inference(network.module))
        variables = functions.needed(role, module, network.variables, content.pictures)

        def function(x: Any, body: Any = bodies[role], of: Any = (module, variables)) -> tuple:
            return tuple(jax.tree.leaves(body(*of, x)))  # parts that it does not know are none

        dtype = jnp.dtype("float32" if role == "temporal" else "uint8")
        row = jax.ShapeDtypeStruct(content.input_shape(role, 1)[1:], dtype)
        names = OUTPUTS[role]
        # Of detectors, whose few products of matrices decide a state by small differences and cost
        # next to nothing, int8 would be no gain.
        rounded = int8 and role not in ("detector", "locator")
        written = _program(function, row, names, rounded)
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
    data["exported"] = {
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
    files.write_text(
        out / CARD, card(whole, counts, f"exported as {PROGRAM}{', in int8' * int8}: ")
    )
    read_model(out)  # which checks all of it
    return differs


def _compare(
    path: Path,
    function: Function,
    opened: OnnxProgram,
    row: jax.ShapeDtypeStruct,
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
    differences = {}
    for name, want, *have in zip(names, wanted, *ways, strict=False):
        differences[name] = max(float(np.abs(want - other).max(initial=0)) for other in have)
        limit = tolerance * max(1.0, float(np.abs(want).max(initial=0)))
        # Which of two equal boxes is the best may turn out either way.
        if name not in ("boxes", "classes") and not differences[name] <= limit:
            raise ValueError(
                f"{path}: {name} differs by {differences[name]:.1e} from the model's: this version "
                "of the libraries does not export it rightly"
            )
    return differences


# --- ONNX -----------------------------------------------------------------------------------------


def _check_libraries() -> None:
    purpose = "a model in ONNX"
    check_extra("export", ["onnx", "onnx_ir", "onnxruntime"], purpose)
    try:
        check_extra("export", ["jax2onnx"], purpose)
    except ValueError as error:
        # It asks for an older orbax-checkpoint than training does, and uses none of it.
        raise ValueError(
            f"{purpose} needs 'jax2onnx': pip install --no-deps 'jax2onnx>=0.17.1,<0.18' "
            "(docs/recognise.md)"
        ) from error


def _program(
    function: Function, row: jax.ShapeDtypeStruct, names: Sequence[str], int8: bool
) -> bytes:
    """The model of a function of rows (B, …), which gives arrays (B, …), the last maybe absent.

    With `int8` products of matrices are of 8-bit numbers, but for the first and the last: weights
    by output channel and signed, all rows of a call by one scale.
    """
    batch = jax.ShapeDtypeStruct((1, *row.shape), row.dtype)
    num_outputs = len(jax.eval_shape(function, batch))
    with _quiet():
        from jax2onnx import to_onnx

        model = to_onnx(
            *_traced(function, row),
            model_name="network",
            opset=OPSET,
            normalization_mode="prefer_native",  # a kernel each, which spelt out is ten
            input_names=["rows"],
            output_names=names[:num_outputs],
        )
    return _in_int8(model) if int8 else model.SerializeToString()


def _traced(function: Function, row: jax.ShapeDtypeStruct) -> tuple[Any, list]:
    """A function and what it takes, as jax2onnx wants them."""
    (batch,) = jax.export.symbolic_shape("batch", constraints=["batch >= 1"])
    x = jax.ShapeDtypeStruct((batch, *row.shape), row.dtype)
    traced = jax.jit(function).trace(x).jaxpr
    if any(equation.primitive.name == "scan" for equation in traced.jaxpr.eqns):
        # While jax2onnx traces it replaces functions that flax asks for the shape of a loop.
        return jax.extend.core.jaxpr_as_fun(traced), [x]
    return function, [jax.ShapeDtypeStruct(("batch", *row.shape), row.dtype)]


def _in_int8(model: Any) -> bytes:
    """The model with its products in int8, but for the first and the last one.

    What is rounded there is the picture, and what the outputs are made of: of all roundings those
    of the last product change them most by far, and both take next to no time.
    """
    from onnxruntime import quantization

    constants = {array.name for array in model.graph.initializer}
    products = [
        node.name
        for node in model.graph.node
        if node.op_type in _PRODUCTS and constants.intersection(node.input[:2])
    ]
    kept = {*products[:1], *products[-1:]}
    with tempfile.TemporaryDirectory() as folder, _quiet():
        path = Path(folder, "model.onnx")
        quantization.quantize_dynamic(
            model,
            path,
            op_types_to_quantize=list(_PRODUCTS),
            per_channel=True,
            weight_type=quantization.QuantType.QInt8,
            # A Gemm becomes a MatMul and an Add there before names are looked at.
            nodes_to_exclude=[*kept, *(f"{name}_MatMul" for name in kept)],
        )
        return path.read_bytes()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps what libraries say of their own examples and of unknown types from the user."""
    loud = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(loud)
