"""The ONNX graph of a `TransformerNet`, written node by node.

torch.onnx.export takes half a minute for this network on two cores, most of it imports and
tracing; written by hand it takes a tenth of a second, and folding is plain to see.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from nst.errors import ExportError
from nst.infer.signature import INPUT_NAME, OUTPUT_NAME
from nst.models.layers import ConvLayer, ResidualBlock
from nst.models.transformer import RIM, TransformerNet

OPSET = 18
IR_VERSION = 10  # the newest that the oldest supported ONNX Runtime reads


class GraphBuilder:
    """Nodes and weights of a graph; each method adds nodes and returns the name of its output."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []

    def add(self, kind: str, inputs: Sequence[str], output: str = "", **attributes: Any) -> str:
        output = output or f"{kind.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [output], name=output, **attributes))
        return output

    def constant(self, value: NDArray[Any] | np.float32) -> str:
        name = f"constant_{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.asarray(value, order="C"), name))
        return name

    def reflect(self, x: str, pad: int) -> str:
        pads = np.array([0, 0, pad, pad, 0, 0, pad, pad], np.int64)
        return self.add("Pad", [x, self.constant(pads)], mode="reflect")

    def conv(self, x: str, layer: nn.Conv2d, weight: Tensor, bias: Tensor | None) -> str:
        pad = layer.kernel_size[0] // 2
        if pad and layer.padding_mode == "reflect":
            x, pad = self.reflect(x, pad), 0
        inputs = [x, self.constant(_array(weight))]
        if bias is not None:
            inputs.append(self.constant(_array(bias)))
        return self.add(
            "Conv", inputs, kernel_shape=layer.kernel_size, strides=layer.stride, pads=[pad] * 4
        )

    def instance_norm(self, x: str, layer: nn.InstanceNorm2d) -> str:
        inputs = [x, self.constant(_array(layer.weight)), self.constant(_array(layer.bias))]
        return self.add("InstanceNormalization", inputs, epsilon=layer.eps)

    def module(self, x: str, module: nn.Module) -> str:
        """Add any block of the networks.

        Raises:
            ExportError: a module that has no ONNX form here.
        """
        if isinstance(module, nn.Sequential):
            children = list(module)
            for child, after in zip(children, [*children[1:], None], strict=True):
                if isinstance(child, nn.Conv2d):
                    x = self.conv(x, child, *fold(child, after))
                elif not isinstance(child, nn.BatchNorm2d):  # it went into the convolution
                    x = self.module(x, child)
            return x
        if isinstance(module, ResidualBlock):
            return self.add("Add", [x, self.module(x, module.body)])
        if isinstance(module, nn.InstanceNorm2d):
            return self.instance_norm(x, module)
        if isinstance(module, nn.Upsample):
            scales = self.constant(np.array([1, 1, 2, 2], np.float32))
            return self.add(
                "Resize",
                [x, "", scales],
                mode="nearest",
                coordinate_transformation_mode="asymmetric",
                nearest_mode="floor",
            )
        if isinstance(module, nn.ReLU):
            return self.add("Relu", [x])
        raise ExportError(f"{type(module).__name__} has no ONNX form in nst")

    def build(self, name: str) -> onnx.ModelProto:
        """The model with its uint8 [N, H, W, 3] input and output."""
        shape: list[str | int | None] = ["batch", "height", "width", 3]
        graph = helper.make_graph(
            self.nodes,
            name,
            [helper.make_tensor_value_info(INPUT_NAME, TensorProto.UINT8, shape)],
            [helper.make_tensor_value_info(OUTPUT_NAME, TensorProto.UINT8, shape)],
            self.weights,
        )
        return helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", OPSET)],
            ir_version=IR_VERSION,
            producer_name="nst",
        )


def transformer_graph(network: TransformerNet) -> onnx.ModelProto:
    """`network` with everything around it: uint8 RGB of any size in, the same out.

    The scaling to [-1, 1] and back is folded into the first and the last convolution.
    """
    graph = GraphBuilder()
    x = graph.add("Transpose", [INPUT_NAME], perm=[0, 3, 1, 2])
    x = graph.add("Cast", [x], to=TensorProto.FLOAT)

    x = graph.reflect(x, RIM)

    first, *encoder = network.encoder
    assert isinstance(first, ConvLayer)
    convolution, *rest = first
    assert isinstance(convolution, nn.Conv2d)
    weight, bias = fold(convolution, rest[0])
    shift = -weight.sum(dim=(1, 2, 3))  # the -1 of x / 127.5 - 1, seen through reflection padding
    x = graph.conv(x, convolution, weight / 127.5, shift if bias is None else bias + shift)
    if isinstance(rest[0], nn.BatchNorm2d):
        rest = rest[1:]
    for module in (*rest, *encoder, network.residuals, network.decoder):
        x = graph.module(x, module)

    last = network.output
    assert last.bias is not None
    x = graph.conv(x, last, last.weight * 127.5, last.bias * 127.5 + 127.5)

    x = graph.add("Clip", [x, graph.constant(np.float32(0)), graph.constant(np.float32(255))])
    x = graph.add("Cast", [graph.add("Round", [x])], to=TensorProto.UINT8)
    # The rim goes, and with it what strides have rounded up.
    starts, axes = graph.constant(np.array([RIM, RIM])), graph.constant(np.array([2, 3]))
    ends = graph.add("Add", [graph.add("Shape", [INPUT_NAME], start=1, end=3), starts])
    x = graph.add("Slice", [x, starts, ends, axes])
    graph.add("Transpose", [x], OUTPUT_NAME, perm=[0, 2, 3, 1])
    return graph.build("TransformerNet")


def fold(convolution: nn.Conv2d, after: nn.Module | None = None) -> tuple[Tensor, Tensor | None]:
    """Weight and bias of a convolution, with a batch normalisation that follows it folded in.

    That normalisation is taken in evaluation mode: with its running statistics.
    """
    weight, bias = convolution.weight, convolution.bias
    if not isinstance(after, nn.BatchNorm2d):
        return weight, bias
    assert after.running_mean is not None
    assert after.running_var is not None
    scale = after.weight / torch.sqrt(after.running_var + after.eps)
    mean = after.running_mean if bias is None else after.running_mean - bias
    return weight * scale.view(-1, 1, 1, 1), after.bias - mean * scale


def _array(tensor: Tensor) -> NDArray[np.float32]:
    array: NDArray[np.float32] = tensor.detach().cpu().float().numpy()
    return array
