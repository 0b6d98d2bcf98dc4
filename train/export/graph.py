"""Builds the ONNX graph of a `TransformerNet` node by node.

torch.onnx.export takes half a minute for this network on two cores, mostly for imports and tracing;
this takes a tenth of a second, and shows what is folded.
"""

from __future__ import annotations

import onnx
from onnx import TensorProto
from torch import nn

from nst.infer.runtime.signature import INPUT_NAME, OUTPUT_NAME
from nst.models.transformer import TransformerNet
from nst.train.export.folding import for_bytes, take_apart
from nst.train.export.graph_builder import GraphBuilder
from nst.train.export.graph_subpixel import subpixel_graph


def transformer_graph(network: TransformerNet, *, for_int8: bool = False) -> onnx.ModelProto:
    """Build the graph of `network`, from uint8 RGB of any size to the same.

    The scaling to [-1, 1] and back is folded into the first and the last convolution.

    Args:
        for_int8: pad and shuffle the image as bytes. For floats that gains nothing on a CPU, and
            ONNX Runtime's CUDA provider can't pad bytes and waits for the GPU to compute a shape.
    """
    graph = GraphBuilder()
    sides = graph.add("Shape", [INPUT_NAME], start=1, end=3)
    if network.config.architecture == "subpixel":
        x = subpixel_graph(graph, network, sides, for_int8)
    else:
        x = _johnson(graph, network)
    # Cut off the padding, and what strides have rounded up.
    padding = network.export_padding
    starts, axes = graph.numbers(padding, padding), graph.numbers(1, 2)
    ends = graph.add("Add", [sides, starts]) if padding else sides
    graph.add("Slice", [x, starts, ends, axes], OUTPUT_NAME)
    return graph.build("TransformerNet")


def _johnson(graph: GraphBuilder, network: TransformerNet) -> str:
    x = graph.add("Transpose", [INPUT_NAME], perm=[0, 3, 1, 2])
    x = graph.add("Cast", [x], to=TensorProto.FLOAT)
    x = graph.reflect(x, network.export_padding)
    convolution, weight, bias, rest = take_apart(network.encoder[0])
    x = graph.conv(x, convolution, *for_bytes(weight, bias))
    for module in (*rest, *network.encoder[1:], network.residuals, network.decoder):
        x = graph.module(x, module)
    last = network.output
    assert isinstance(last, nn.Conv2d)
    assert last.bias is not None
    x = graph.bytes(graph.conv(x, last, last.weight * 127.5, last.bias * 127.5 + 127.5))
    return graph.add("Transpose", [x], perm=[0, 2, 3, 1])
