"""An ONNX file that holds what no export writes is refused before anything runs it."""

from pathlib import Path

import pytest

from stormpsr_jax.serving.onnx_program import OnnxProgram

onnx = pytest.importorskip("onnx", reason="needs the extra export")
pytest.importorskip("onnxruntime", reason="needs the extra export")


def sum_with_nine():
    """Of four numbers."""
    make, number = onnx.helper, onnx.TensorProto.FLOAT
    x, y = (make.make_tensor_value_info(name, number, ["b", 4]) for name in "xy")
    constants = [make.make_tensor("nine", number, [4], [9.0] * 4)]
    nodes = [make.make_node("Add", ["x", "nine"], ["y"])]
    graph = make.make_graph(nodes, "g", [x], [y], constants)
    opsets = [make.make_opsetid("", 21)]
    return make.make_model(graph, opset_imports=opsets, ir_version=10)


def elsewhere():
    """An array of a file of the system."""
    array = onnx.TensorProto(name="a", data_type=1, dims=[1])
    array.data_location = onnx.TensorProto.EXTERNAL
    array.external_data.add(key="location", value="../../../etc/passwd")
    return array


def inner():
    return onnx.helper.make_graph([], "inner", [], [], [elsewhere()])


def add_attribute(model, value):
    model.graph.node[0].attribute.append(onnx.helper.make_attribute("body", value))


TAMPERED = {
    "array": (
        lambda model: model.graph.initializer.append(elsewhere()),
        "takes data from another file",
    ),
    "inner graph": (lambda model: add_attribute(model, inner()), "takes data from another file"),
    "value": (lambda model: add_attribute(model, elsewhere()), "takes data from another file"),
    "library": (
        lambda model: model.opset_import.add(domain="com.example", version=1),
        "operators of 'com.example'",
    ),
    "its operator": (
        lambda model: setattr(model.graph.node[0], "domain", "com.example"),
        "operators of 'com.example'",
    ),
    "endless": (
        lambda model: setattr(model.graph.node[0], "op_type", "Loop"),
        "the operator 'Loop'",
    ),
    "newer": (
        lambda model: setattr(model.opset_import[0], "version", 99),
        "the operators of version 99, known are",
    ),
    "functions": (lambda model: model.functions.add(name="f"), "holds functions or training"),
}


@pytest.mark.parametrize(("change", "message"), TAMPERED.values(), ids=TAMPERED)
def test_an_onnx_file_that_no_export_writes_is_refused(change, message):
    model, path = sum_with_nine(), Path("encoder.onnx")
    assert OnnxProgram(path, model.SerializeToString(), None).gives[0].shape == (4,)
    change(model)
    with pytest.raises(ValueError, match=f"^encoder.onnx: .*{message}"):
        OnnxProgram(path, model.SerializeToString(), None)
