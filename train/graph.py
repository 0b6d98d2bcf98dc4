"""The ONNX graph of a `TransformerNet`, written node by node.

torch.onnx.export takes half a minute for this network on two cores, most of it imports and
tracing; written by hand it takes a tenth of a second, and folding is plain to see.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from nst.errors import ExportError
from nst.infer.signature import INPUT_NAME, OUTPUT_NAME
from nst.models.layers import ConvLayer, ResidualBlock, UpsampleLayer
from nst.models.transformer import RIM, TransformerNet
from nst.train.folding import blocks_as_channels, phases_as_channels, pixels_in_order, take_apart

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
        return self.plain_conv(x, weight, bias, pad, layer.stride)

    def plain_conv(
        self,
        x: str,
        weight: Tensor,
        bias: Tensor | None,
        pad: int,
        strides: tuple[int, ...] = (1, 1),
    ) -> str:
        inputs = [x, self.constant(_array(weight))]
        if bias is not None:
            inputs.append(self.constant(_array(bias)))
        return self.add(
            "Conv", inputs, kernel_shape=weight.shape[2:], strides=strides, pads=[pad] * 4
        )

    def bytes(self, x: str) -> str:
        """Floats as pixels: clipped, rounded, uint8."""
        x = self.add("Clip", [x, self.constant(np.float32(0)), self.constant(np.float32(255))])
        return self.add("Cast", [self.add("Round", [x])], to=TensorProto.UINT8)

    def view(self, x: str, *shape: str) -> str:
        """`x` in another shape, given in parts that are computed."""
        return self.add("Reshape", [x, self.add("Concat", shape, axis=0)])

    def swap(self, x: str, *shape: str) -> str:
        """View `x` in a `shape` of four axes, then exchange the middle ones."""
        return self.add("Transpose", [self.view(x, *shape)], perm=[0, 2, 1, 3])

    def instance_norm(self, x: str, layer: nn.InstanceNorm2d) -> str:
        inputs = [x, self.constant(_array(layer.weight)), self.constant(_array(layer.bias))]
        return self.add("InstanceNormalization", inputs, epsilon=layer.eps)

    def module(self, x: str, module: nn.Module) -> str:
        """Add any block of the networks.

        Raises:
            ExportError: a module that has no ONNX form here.
        """
        if isinstance(module, ConvLayer):
            convolution, weight, bias, rest = take_apart(module)
            x = self.conv(x, convolution, weight, bias)
            for child in rest:
                x = self.module(x, child)
            return x
        if isinstance(module, nn.Sequential):
            for child in module:
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
    sides = graph.add("Shape", [INPUT_NAME], start=1, end=3)
    if network.config.design == "folded":
        x = _folded(graph, network, sides)
    else:
        x = _johnson(graph, network)
    # The rim goes, and with it what strides have rounded up.
    starts, axes = graph.constant(np.array([RIM, RIM])), graph.constant(np.array([1, 2]))
    ends = graph.add("Add", [sides, starts])
    graph.add("Slice", [x, starts, ends, axes], OUTPUT_NAME)
    return graph.build("TransformerNet")


def _johnson(graph: GraphBuilder, network: TransformerNet) -> str:
    x = graph.add("Transpose", [INPUT_NAME], perm=[0, 3, 1, 2])
    x = graph.add("Cast", [x], to=TensorProto.FLOAT)
    x = graph.reflect(x, RIM)
    convolution, weight, bias, rest = take_apart(network.encoder[0])
    x = graph.conv(x, convolution, *_for_bytes(weight, bias))
    for module in (*rest, *network.encoder[1:], network.residuals, network.decoder):
        x = graph.module(x, module)
    last = network.output
    assert last.bias is not None
    x = graph.bytes(graph.conv(x, last, last.weight * 127.5, last.bias * 127.5 + 127.5))
    return graph.add("Transpose", [x], perm=[0, 2, 3, 1])


def _folded(graph: GraphBuilder, network: TransformerNet, sides: str) -> str:
    """All convolutions at a quarter of the resolution, the pixels of a block as channels.

    Memory moves as bytes, in whole blocks; upsampling and the full resolution exist only on paper.
    """
    grid, margin = network.grid, RIM + network.margin

    def number(*values: int) -> str:
        return graph.constant(np.array(values))

    # Blocks of grid × grid pixels that cover the image and its margins, by height and width.
    rounded = graph.add("Add", [sides, number(2 * margin + grid - 1)])
    blocks = graph.add("Div", [rounded, number(grid)])
    covered = graph.add("Mul", [blocks, number(grid)])
    after = graph.add("Sub", [graph.add("Sub", [covered, sides]), number(margin)])
    pads = graph.add("Concat", [number(0, margin, margin, 0, 0), after, number(0)], axis=0)
    x = graph.add("Pad", [INPUT_NAME, pads], mode="reflect")
    across = graph.add("Gather", [blocks, number(1)])
    x = graph.swap(x, number(-1, grid), across, number(3 * grid))
    x = graph.view(x, number(-1), blocks, number(3 * grid**2))
    x = graph.add("Transpose", [x], perm=[0, 3, 1, 2])
    x = graph.add("Cast", [x], to=TensorProto.FLOAT)

    _, weight, bias, rest = take_apart(network.encoder[0])
    weight, bias = _for_bytes(weight, bias)
    x = graph.plain_conv(x, blocks_as_channels(weight, grid), bias, 0)
    for module in (*rest, network.residuals):
        x = graph.module(x, module)
    upsample = network.decoder[0]
    assert isinstance(upsample, UpsampleLayer)
    _, weight, bias, rest = take_apart(upsample[1])
    assert bias is not None
    x = graph.plain_conv(x, phases_as_channels(weight, upsampled=True), bias.repeat(4), 1)
    for module in rest:
        x = graph.module(x, module)
    last = network.output
    assert last.bias is not None
    weight = pixels_in_order(phases_as_channels(last.weight))
    bias = pixels_in_order(last.bias.repeat(4))
    x = graph.bytes(graph.plain_conv(x, weight * 127.5, bias * 127.5 + 127.5, 1))

    x = graph.add("Transpose", [x], perm=[0, 2, 3, 1])
    # The first kernel is two blocks wide, so one block fewer comes out.
    fewer = graph.add("Sub", [blocks, number(1)])
    across = graph.add("Gather", [fewer, number(1)])
    x = graph.swap(x, number(-1), across, number(grid, 3 * grid))
    return graph.view(x, number(-1), graph.add("Mul", [fewer, number(grid)]), number(3))


def _for_bytes(weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor]:
    """A first convolution that takes pixels of 0 to 255 where it took them scaled to [-1, 1]."""
    shift = -weight.sum(dim=(1, 2, 3))  # seen through reflection padding
    return weight / 127.5, shift if bias is None else bias + shift


def _array(tensor: Tensor) -> NDArray[np.float32]:
    array: NDArray[np.float32] = tensor.detach().cpu().float().numpy()
    return array
