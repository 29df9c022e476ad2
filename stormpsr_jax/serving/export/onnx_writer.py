"""A function of JAX as ONNX, by jax2onnx, and in int8 by onnxruntime."""

import contextlib
import logging
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.extend
import jax.numpy as jnp

from stormpsr_jax.base.installed import check_extra
from stormpsr_jax.serving.content import Function
from stormpsr_jax.serving.onnx_networks import Array

OPSET = 21  # of onnxruntime 1.20 and later
_PRODUCTS = ("MatMul", "Gemm")


def check_libraries() -> None:
    """Raises ValueError if a library is missing, saying how to install it."""
    what = "a model in ONNX"
    check_extra("export", ["onnx", "onnx_ir", "onnxruntime"], what)
    try:
        check_extra("export", ["jax2onnx"], what)
    except ValueError as error:
        # It asks for an older orbax-checkpoint than training does, and uses none of it.
        raise ValueError(
            f"{what} needs 'jax2onnx': pip install --no-deps 'jax2onnx>=0.17.1,<0.18' "
            "(docs/recognise.md)"
        ) from error


def write(function: Function, row: Array, names: Sequence[str], int8: bool) -> bytes:
    """Returns the model of a function of rows (B, …), which gives arrays (B, …).

    Args:
        names: of its outputs, of which the last may be absent.
        int8: whether products of matrices are of 8-bit numbers, but for the first and the last:
            weights by output channel and signed, all rows of a call by one scale.
    """
    with _quiet():
        from jax2onnx import to_onnx

        model = to_onnx(
            *_traced(function, row),
            model_name="network",
            opset=OPSET,
            normalization_mode="prefer_native",  # a kernel each, which spelt out is ten
        )
    _rename(model, names)
    return _in_int8(model) if int8 else model.SerializeToString()


def _traced(function: Function, row: Array) -> tuple[Any, list]:
    """A function and what it takes, as jax2onnx wants them."""
    dtype = jnp.dtype(row.dtype)
    (batch,) = jax.export.symbolic_shape("batch", constraints=["batch >= 1"])
    x = jax.ShapeDtypeStruct((batch, *row.shape), dtype)
    traced = jax.jit(function).trace(x).jaxpr
    if any(equation.primitive.name == "scan" for equation in traced.jaxpr.eqns):
        # While jax2onnx traces it replaces functions that flax asks for the shape of a loop.
        return jax.extend.core.jaxpr_as_fun(traced), [x]
    return function, [jax.ShapeDtypeStruct(("batch", *row.shape), dtype)]


def _rename(model: Any, names: Sequence[str]) -> None:
    """Gives the inputs and outputs of a model their names."""
    graph = model.graph
    new = {graph.input[0].name: "rows"}
    new |= {output.name: name for output, name in zip(graph.output, names, strict=False)}
    for node in graph.node:
        for texts in (node.input, node.output):
            texts[:] = [new.get(text, text) for text in texts]
    for value in (*graph.input, *graph.output, *graph.value_info):
        value.name = new.get(value.name, value.name)


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
