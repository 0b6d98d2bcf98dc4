"""Multiply-accumulates, against formulas by hand and against arithmetic with ones."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from nst.errors import ExportError
from nst.models.transformer import PRESETS, TransformerConfig, TransformerNet
from nst.train.export.graph import transformer_graph
from nst.train.export.macs import count_macs

OPEN = ["n", 3, "h", "w"]


def model(
    nodes: list[onnx.NodeProto],
    weights: dict[str, np.ndarray[Any, Any]],
    shape: list[Any] = OPEN,
    gives: int = TensorProto.FLOAT,
) -> onnx.ModelProto:
    """A graph from the float image `x` to `y`."""
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", gives, None)],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def ones(*shape: int) -> np.ndarray[Any, Any]:
    return np.ones(shape, np.float32)


def products(made: onnx.ModelProto, x: np.ndarray[Any, Any]) -> int:
    """With ones for input and weights and no padding, the outputs sum up the multiplications."""
    session = onnxruntime.InferenceSession(
        made.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return int(session.run(None, {"x": x})[0].sum(dtype=np.float64))


def johnson(height: int, width: int, config: TransformerConfig) -> int:
    """The network of Johnson et al. with nearest upsampling, layer by layer."""
    c = config.width
    export_padding = TransformerNet(config).export_padding
    sides = [(height + 2 * export_padding, width + 2 * export_padding)]
    for _ in range(2):  # strides of 2 round up
        sides.append((-(-sides[-1][0] // 2), -(-sides[-1][1] // 2)))
    full, half, quarter = (h * w for h, w in sides)
    return (
        full * 9 * 9 * 3 * c
        + half * 3 * 3 * c * 2 * c
        + quarter * 3 * 3 * 2 * c * 4 * c
        + config.blocks * 2 * quarter * 3 * 3 * 4 * c * 4 * c
        + 4 * quarter * 3 * 3 * 4 * c * 2 * c
        + 16 * quarter * 3 * 3 * 2 * c * c
        + 16 * quarter * 9 * 9 * c * 3
    )


@pytest.mark.parametrize("size", [(480, 640), (333, 517), (32, 33)])
@pytest.mark.parametrize("config", [TransformerConfig(), TransformerConfig(width=8, blocks=2)])
def test_the_network_of_johnson(config: TransformerConfig, size: tuple[int, int]) -> None:
    graph = transformer_graph(TransformerNet(config))
    before = graph.SerializeToString()
    assert count_macs(graph, size) == johnson(*size, config)
    assert graph.SerializeToString() == before


def test_quality_is_as_heavy_as_is_known() -> None:
    """47.2 GMAC at 640×480 without export padding."""
    network = TransformerNet(PRESETS["quality"])
    bare = (480 - 2 * network.export_padding, 640 - 2 * network.export_padding)
    assert count_macs(transformer_graph(network), bare) == pytest.approx(47.2e9, rel=2e-3)


@settings(max_examples=25)
@given(
    kernel=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    strides=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    dilations=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    group=st.sampled_from([1, 3]),
    outputs=st.integers(1, 2),
    size=st.tuples(st.integers(5, 9), st.integers(5, 9)),
    transposed=st.booleans(),
)
def test_any_convolution(
    kernel: tuple[int, int],
    strides: tuple[int, int],
    dilations: tuple[int, int],
    group: int,
    outputs: int,
    size: tuple[int, int],
    transposed: bool,
) -> None:
    kind = "ConvTranspose" if transposed else "Conv"
    shape = (3, outputs) if transposed else (3 * outputs, 3 // group)
    node = helper.make_node(
        kind, ["x", "w"], ["y"], strides=strides, dilations=dilations, group=group
    )
    made = model([node], {"w": ones(*shape, *kernel)})
    assert count_macs(made, size) == products(made, ones(1, 3, *size))


@pytest.mark.parametrize("transposed", [0, 1])
def test_matrix_products(transposed: int) -> None:
    nodes = [
        helper.make_node("Flatten", ["x"], ["a"], axis=1),
        helper.make_node("Transpose", ["a"], ["at"], perm=[1, 0]),
        helper.make_node("Gemm", ["at" if transposed else "a", "b"], ["y"], transA=transposed),
    ]
    made = model(nodes, {"b": ones(3 * 4 * 5, 7)})
    assert count_macs(made, (4, 5)) == products(made, ones(1, 3, 4, 5)) == 3 * 4 * 5 * 7
    made = model([helper.make_node("MatMul", ["x", "b"], ["y"])], {"b": ones(5, 7)})
    assert count_macs(made, (4, 5)) == products(made, ones(1, 3, 4, 5)) == 3 * 4 * 5 * 7


def test_quantised_graphs_count_as_the_floats_they_stand_for() -> None:
    weight = np.ones((6, 3, 3, 3), np.int8)
    scale, zero, zero_w = np.float32(0.1), np.uint8(0), np.int8(0)
    constants = {"w": weight, "s": np.array(scale), "z": np.array(zero), "zw": np.array(zero_w)}
    quantise = helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"])
    behind = [
        quantise,
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"]),
        helper.make_node("DequantizeLinear", ["w", "s", "zw"], ["dw"]),
        helper.make_node("Conv", ["d", "dw"], ["y"]),
    ]
    linear = helper.make_node("QLinearConv", ["q", "s", "z", "w", "s", "zw", "s", "z"], ["y"])
    integer = helper.make_node("ConvInteger", ["q", "w", "z", "zw"], ["y"])
    for nodes, gives in (
        (behind, TensorProto.FLOAT),
        ([quantise, linear], TensorProto.UINT8),
        ([quantise, integer], TensorProto.INT32),
    ):
        assert count_macs(model(nodes, constants, gives=gives), (10, 12)) == 6 * 8 * 10 * 27


def test_a_file_with_a_size_of_its_own_counts_at_that() -> None:
    node = helper.make_node("Conv", ["x", "w"], ["y"])
    made = model([node], {"w": ones(2, 3, 1, 1)}, [4, 3, 20, 30])
    assert count_macs(made, (480, 640)) == 20 * 30 * 6


@pytest.mark.parametrize(
    ("node", "why"),
    [
        (helper.make_node("FusedConv", ["x", "w"], ["y"], domain="com.microsoft"), "FusedConv"),
        (helper.make_node("Einsum", ["x", "w"], ["y"], equation="nchw,ocij->nohw"), "Einsum"),
    ],
)
def test_what_cannot_be_counted_says_so(node: onnx.NodeProto, why: str) -> None:
    with pytest.raises(ExportError, match=why):
        count_macs(model([node], {"w": ones(2, 3, 1, 1)}), (64, 64))


def test_shapes_that_cannot_be_inferred() -> None:
    nodes = [
        helper.make_node("NonZero", ["x"], ["i"]),
        helper.make_node("Cast", ["i"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("MatMul", ["w", "f"], ["y"]),
    ]
    with pytest.raises(ExportError, match="cannot be inferred"):
        count_macs(model(nodes, {"w": ones(2, 4)}), (64, 64))
    with pytest.raises(ExportError, match="more than one image"):
        count_macs(model([helper.make_node("Relu", ["x"], ["y"])], {}, ["n", "d"]), (64, 64))
    wrong = helper.make_node("MatMul", ["x", "w"], ["y"])
    with pytest.raises(ExportError, match="cannot be inferred"):
        count_macs(model([wrong], {"w": ones(2, 5)}), (64, 64))
