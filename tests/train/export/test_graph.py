"""The two forms of the folded architecture's graph: one for floats, one for bytes."""

from __future__ import annotations

import functools

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto

from nst.models.config import Norm
from nst.models.transformer import TransformerConfig, TransformerNet
from nst.train.export.graph import transformer_graph
from nst.train.export.quantize import to_fp16


@functools.cache
def graphs(norm: Norm) -> tuple[onnx.ModelProto, onnx.ModelProto]:
    torch.manual_seed(0)
    net = TransformerNet(TransformerConfig(width=8, blocks=2, architecture="subpixel", norm=norm))
    torch.nn.init.normal_(net.output.weight, std=1.5)
    return transformer_graph(net), transformer_graph(net, for_int8=True)


@functools.cache
def sessions(norm: Norm) -> list[onnxruntime.InferenceSession]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return [
        onnxruntime.InferenceSession(
            graph.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        for graph in graphs(norm)
    ]


@settings(max_examples=40)
@given(
    norm=st.sampled_from(["subsampled_rms", "none"]),
    shape=st.tuples(st.integers(1, 2), st.integers(32, 75), st.integers(32, 75)),
    seed=st.integers(0, 99),
)
def test_both_paint_the_same_at_any_size(
    norm: Norm, shape: tuple[int, int, int], seed: int
) -> None:
    images = np.random.default_rng(seed).integers(0, 256, (*shape, 3), dtype=np.uint8)
    one, other = (session.run(None, {"image": images}) for session in sessions(norm))
    assert one[0].shape == images.shape
    assert one[0].std() > 5
    assert np.abs(one[0].astype(int) - other[0]).max() <= 1
    if norm == "subsampled_rms":
        np.testing.assert_allclose(one[1], other[1], rtol=1e-4)
        held = {"image": images, "held_statistics": 1.5 * one[1][:1]}
        again, expected = (session.run(None, held)[0] for session in sessions(norm))
        assert np.abs(again.astype(int) - expected).max() <= 1
        assert (again != one[0]).any()


@pytest.mark.parametrize("half", [False, True])
def test_a_gpu_need_not_be_left(half: bool) -> None:
    """ONNX Runtime's CUDA provider pads slowly or on the CPU, and computes shapes there."""
    graph = graphs("subsampled_rms")[0]
    graph = onnx.shape_inference.infer_shapes(to_fp16(graph) if half else graph).graph
    kinds = {
        value.name: value.type.tensor_type.elem_type
        for value in (*graph.value_info, *graph.input, *graph.output)
    }
    computed = {name for node in graph.node for name in node.output}
    assert "Pad" not in {node.op_type for node in graph.node}
    numbers = [
        node.op_type
        for node in graph.node
        if any(kinds.get(name) == TensorProto.INT64 for name in {*node.input} & computed)
    ]
    assert numbers == ["Slice"]  # the image's own size, cut out at the end
