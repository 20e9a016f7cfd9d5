"""Writes the ONNX graphs of all-MiniLM-L6-v2: ``python -m infra.embedding.minilm_graph``.

The graphs are committed beside this file: a few kilobytes each, since they hold no weights. Every weight of
``minilm.onnx`` is *external data* that points at its place in ``model.safetensors``, so ONNX Runtime maps the file
that the model's package carries and nothing is converted or stored twice. Only this script needs the ``onnx`` package;
the processes that embed do not import it.

The graph is BERT (6 layers, 384 wide, 12 heads) with mean pooling and normalisation to unit length inside. Linear
layers are ``Gemm`` with ``transB`` over all tokens of the batch, because PyTorch stores ``[out, in]``; attention and
GELU are fused operators of ONNX Runtime, written out here rather than left to its optimiser, which costs load time in
every process.
Padding is id 0, found in the graph: the only input is ``input_ids``, int32, shape (texts, tokens).
"""

import json
import struct
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper

from infra.embedding.minilm_weights import QUANTISED, WEIGHTS_FILE, WEIGHTS_SHA256, model_folder

LAYERS, HEADS, WIDTH = 6, 12, 384
EPSILON = 1e-12  # layer_norm_eps in the model's config.json
MICROSOFT = "com.microsoft"
HERE = Path(__file__).parent


class GraphWriter:
    """Collects nodes and initialisers in the order in which they run."""

    def __init__(self, tensors: Mapping[str, Any], data_start: int) -> None:
        self._tensors = tensors
        self._data_start = data_start
        self._initializers: dict[str, TensorProto] = {}
        self.nodes: list[NodeProto] = []

    def weight(self, name: str) -> str:
        """Name of a tensor of ``model.safetensors``, in place."""
        begin, end = self._tensors[name]["data_offsets"]
        self._external(name, TensorProto.FLOAT, self._tensors[name]["shape"], self._data_start + begin, end - begin)
        return name

    def quantised(self, name: str) -> tuple[str, str]:
        """Names of a linear layer's int8 weights ``[in, out]`` and scales ``[out]``, given when the session is made."""
        outputs, inputs = self._tensors[name]["shape"]
        values, scales = f"{name}{QUANTISED}", f"{name}.scale"
        self._external(values, TensorProto.INT8, [inputs, outputs], 0, inputs * outputs)
        self._external(scales, TensorProto.FLOAT, [outputs], 0, outputs * 4)
        return values, scales

    def constant(self, name: str, values: list[int]) -> str:
        self._initializers[name] = helper.make_tensor(name, TensorProto.INT64, [len(values)], values)
        return name

    def node(self, kind: str, inputs: list[str], output: str, *, domain: str = "", **attributes: Any) -> str:
        self.nodes.append(helper.make_node(kind, inputs, [output], name=output, domain=domain, **attributes))
        return output

    def graph(self) -> GraphProto:
        ids = helper.make_tensor_value_info("input_ids", TensorProto.INT32, ["texts", "tokens"])
        vectors = helper.make_tensor_value_info("vectors", TensorProto.FLOAT, ["texts", WIDTH])
        return helper.make_graph(self.nodes, "all-MiniLM-L6-v2", [ids], [vectors], list(self._initializers.values()))

    def _external(self, name: str, kind: int, shape: list[int], offset: int, length: int) -> None:
        tensor = TensorProto(name=name, data_type=kind, dims=shape, data_location=TensorProto.EXTERNAL)
        for key, value in (("location", WEIGHTS_FILE), ("offset", str(offset)), ("length", str(length))):
            tensor.external_data.add(key=key, value=value)
        self._initializers[name] = tensor


def linear(writer: GraphWriter, x: str, layer: str, output: str, *, int8: bool, bias: bool = True) -> str:
    """``x @ weight.T + bias`` over rows of tokens."""
    biases = [writer.weight(f"{layer}.bias")] if bias else []
    if not int8:
        return writer.node("Gemm", [x, writer.weight(f"{layer}.weight"), *biases], output, transB=1)
    values, scales = writer.quantised(f"{layer}.weight")
    return writer.node("DynamicQuantizeMatMul", [x, values, scales, "", *biases], output, domain=MICROSOFT)


def embeddings(writer: GraphWriter) -> str:
    """Words, positions and the one segment, normalised; as rows of tokens."""
    segment = writer.node("Sub", ["input_ids", "input_ids"], "segment_ids")
    tables = [writer.weight(f"embeddings.{kind}_embeddings.weight") for kind in ("word", "position", "token_type")]
    norm = [writer.weight("embeddings.LayerNorm.weight"), writer.weight("embeddings.LayerNorm.bias")]
    outputs = ["embedded", "embedded_mask_index"]
    writer.nodes.append(
        helper.make_node(
            "EmbedLayerNormalization",
            ["input_ids", segment, *tables, *norm],
            outputs,
            name="embedded",
            domain=MICROSOFT,
            epsilon=EPSILON,
        )
    )
    return writer.node("Reshape", ["embedded", writer.constant("rows", [-1, WIDTH])], "embedded_rows")


def layer(writer: GraphWriter, x: str, number: int, *, int8: bool) -> str:
    """Self-attention and the feed-forward part, each added to its input and normalised."""
    prefix = f"encoder.layer.{number}"
    projected = []
    for role in ("query", "key", "value"):
        rows = linear(writer, x, f"{prefix}.attention.self.{role}", f"{role}_{number}_rows", int8=int8)
        projected.append(writer.node("Reshape", [rows, "texts_shape"], f"{role}_{number}"))
    attended = writer.node(
        "MultiHeadAttention", [*projected, "", "mask"], f"attended_{number}", domain=MICROSOFT, num_heads=HEADS
    )
    attended = writer.node("Reshape", [attended, "rows"], f"attended_{number}_rows")
    x = add_and_normalise(writer, x, attended, f"{prefix}.attention.output", f"attention_{number}", int8=int8)
    inner = linear(writer, x, f"{prefix}.intermediate.dense", f"inner_{number}", int8=int8, bias=False)
    bias = writer.weight(f"{prefix}.intermediate.dense.bias")
    inner = writer.node("BiasGelu", [inner, bias], f"gelu_{number}", domain=MICROSOFT)
    return add_and_normalise(writer, x, inner, f"{prefix}.output", f"layer_{number}", int8=int8)


def add_and_normalise(writer: GraphWriter, x: str, y: str, prefix: str, output: str, *, int8: bool) -> str:
    """``LayerNorm(x + linear(y))``. Not the fused ``SkipLayerNormalization``: on a CPU it costs 6 % of the whole."""
    dense = linear(writer, y, f"{prefix}.dense", f"{output}_dense", int8=int8)
    total = writer.node("Add", [dense, x], f"{output}_sum")
    norm = [writer.weight(f"{prefix}.LayerNorm.weight"), writer.weight(f"{prefix}.LayerNorm.bias")]
    return writer.node("LayerNormalization", [total, *norm], output, axis=-1, epsilon=EPSILON)


def pool(writer: GraphWriter, x: str) -> None:
    """The sum over a text's tokens, at unit length: the direction of the mean, so no division by the count."""
    tokens = writer.node("Reshape", [x, "texts_shape"], "last_hidden_state")
    weights = writer.node("Cast", ["mask"], "mask_float", to=TensorProto.FLOAT)
    weights = writer.node("Unsqueeze", [weights, writer.constant("axis_1", [1])], "pooling_weights")
    pooled = writer.node("MatMul", [weights, tokens], "pooled")
    pooled = writer.node("Squeeze", [pooled, "axis_1"], "sums")
    writer.node("LpNormalization", [pooled], "vectors", axis=-1, p=2)


def build(*, int8: bool) -> ModelProto:
    """The whole model, without weights."""
    with (model_folder() / WEIGHTS_FILE).open("rb") as file:
        (header_bytes,) = struct.unpack("<Q", file.read(8))
        tensors = json.loads(file.read(header_bytes))
    writer = GraphWriter(tensors, 8 + header_bytes)
    mask = writer.node("Cast", ["input_ids"], "is_token", to=TensorProto.BOOL)
    writer.node("Cast", [mask], "mask", to=TensorProto.INT32)
    shape = writer.node("Shape", ["input_ids"], "ids_shape")
    writer.node("Concat", [shape, writer.constant("width", [WIDTH])], "texts_shape", axis=0)
    x = embeddings(writer)
    for number in range(LAYERS):
        x = layer(writer, x, number, int8=int8)
    pool(writer, x)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid(MICROSOFT, 1)]
    model = helper.make_model(writer.graph(), opset_imports=opsets, ir_version=8, producer_name="leat")
    helper.set_model_props(model, {"weights_sha256": WEIGHTS_SHA256})
    return model


def main() -> None:
    for name, int8 in (("minilm.onnx", False), ("minilm_int8.onnx", True)):
        data = build(int8=int8).SerializeToString(deterministic=True)
        (HERE / name).write_bytes(data)
        sys.stdout.write(f"{name}: {len(data)} bytes\n")


if __name__ == "__main__":
    main()
