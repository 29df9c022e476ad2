"""An ONNX graph with fewer operators, where runtimes gain by it: GELUs and group norms.

Runtimes have a kernel for a GELU, and none for the chain that JAX traces it to; onnxruntime has
none for a group norm on CPUs. What they bring is in benchmarks/results/recognise-export.md. A chain
that is not found stays as it is; what comes out is compared with the network (`exporting`).
"""

import math
from typing import Any

import numpy as np

_CLOSE = 1e-6  # of constants, which are float32


class _Graph:
    """A graph of an ONNX model, and where each value comes from."""

    def __init__(self, graph: Any):
        from onnx import numpy_helper

        self.graph = graph
        self.constants = {one.name: numpy_helper.to_array(one) for one in graph.initializer}
        self._made = {name: node for node in graph.node for name in node.output}
        self._dims = {value.name: value.type.tensor_type.shape.dim for value in graph.value_info}

    def made(self, name: str, *kinds: str) -> Any:
        """The node that makes a value, if it is of one of these operators; otherwise None."""
        node = self._made.get(name)
        return node if node is not None and node.op_type in kinds else None

    def factor(self, node: Any, value: float) -> str | None:
        """Of a product or sum with this constant, the other side; otherwise None."""
        for i, name in enumerate(node.input):
            constant = self.constants.get(name)
            if constant is not None and constant.size == 1:
                if math.isclose(constant.item(), value, rel_tol=_CLOSE):
                    return node.input[1 - i]
        return None

    def dims(self, name: str) -> list[int]:
        """The shape of a value, -1 for what is not known of it; [] if nothing is."""
        return [d.dim_value if d.HasField("dim_value") else -1 for d in self._dims.get(name, ())]

    def constant(self, name: str, values: np.ndarray) -> str:
        """Adds one; returns its name."""
        from onnx import numpy_helper

        self.graph.initializer.append(numpy_helper.from_array(values, name))
        return name


def rewrite(model: Any) -> None:
    """Rewrites a model (onnx.ModelProto) in place."""
    graph = _Graph(model.graph)
    nodes = []
    for node in model.graph.node:
        _gelu(graph, node)
        nodes += _group_norm(graph, node)
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    _prune(model.graph)


def _become(node: Any, kind: str, inputs: list[str], **attributes: Any) -> None:
    """Makes a node another one with the same output."""
    from onnx import helper

    new = helper.make_node(kind, inputs, list(node.output), name=node.name, **attributes)
    node.CopyFrom(new)


def _gelu(graph: _Graph, node: Any) -> None:
    """x · (½ · (1 + erf(x · √½)))."""
    if node.op_type != "Mul":
        return
    for x, half in (node.input, reversed(node.input)):
        if (product := graph.made(half, "Mul")) is None:
            continue
        if (inside := graph.factor(product, 0.5)) is None:
            continue
        if (plus := graph.made(inside, "Add")) is None:
            continue
        if (of := graph.factor(plus, 1.0)) is None or (erf := graph.made(of, "Erf")) is None:
            continue
        scaled = graph.made(erf.input[0], "Mul")
        if scaled is not None and graph.factor(scaled, math.sqrt(0.5)) == x:
            _become(node, "Gelu", [x])
            return


def _group_norm(graph: _Graph, node: Any) -> list[Any]:
    """A group's mean and variance are those of an instance with a channel for each group.

    onnxruntime has no kernel of its own for the former on CPUs.

    Returns:
        What stands in place of the node.
    """
    from onnx import helper

    if node.op_type != "GroupNormalization":
        return [node]
    x, scale, bias = node.input
    dims = graph.dims(x)  # (B, C, H, W)
    if len(dims) != 4 or -1 in dims[1:]:
        return [node]
    values = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    groups, name = values["num_groups"], node.output[0]

    def constant(of: str, array: np.ndarray) -> str:
        return graph.constant(f"{name}_{of}", array)

    def made(kind: str, *inputs: str, to: str = "", **attributes: Any) -> Any:
        return helper.make_node(kind, inputs, [to or f"{name}_{kind}"], **attributes)

    by_channel = (dims[1], 1, 1)
    grouped = made("Reshape", x, constant("groups", np.array([0, groups, -1])))
    normal = made(
        "InstanceNormalization",
        grouped.output[0],
        constant("ones", np.ones(groups, np.float32)),
        constant("zeros", np.zeros(groups, np.float32)),
        epsilon=values.get("epsilon", 1e-5),
    )
    whole = constant("dims", np.array([0, *dims[1:]]))
    back = made("Reshape", normal.output[0], whole, to=f"{name}_normal")
    gain = constant("gain", graph.constants[scale].reshape(by_channel))
    scaled = made("Mul", back.output[0], gain)
    offset = constant("offset", graph.constants[bias].reshape(by_channel))
    return [grouped, normal, back, scaled, made("Add", scaled.output[0], offset, to=name)]


def _prune(graph: Any) -> None:
    """Leaves out what nothing needs any more."""
    needed = {output.name for output in graph.output}
    kept = []
    for node in reversed(graph.node):
        if needed.intersection(node.output):
            kept.append(node)
            needed.update(node.input)
    del graph.node[:]
    graph.node.extend(reversed(kept))
    for values in (graph.initializer, graph.value_info):
        found = [value for value in values if value.name in needed]
        del values[:]
        values.extend(found)
