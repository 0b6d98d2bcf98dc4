"""Builds an ONNX graph node by node."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from nst.errors import ExportError
from nst.infer.runtime.signature import HELD_NAME, INPUT_NAME, OUTPUT_NAME, STATISTICS_NAME
from nst.models.layers import ConvLayer, ResidualBlock
from nst.models.norm import STEP, SubsampledRMSNorm
from nst.train.export.folding import take_apart

OPSET = 18
IR_VERSION = 10  # the newest that the oldest supported ONNX Runtime reads
EXACT = "exact"  # prefix of the nodes and weights that stay in fp32 at every precision


class GraphBuilder:
    """Nodes and weights of a graph; each method adds nodes and returns the name of their output.

    Attributes:
        biases_apart: write a bias as an addition: on a CUDA GPU that takes half as long as a bias
            of Conv, and on a CPU ONNX Runtime fuses it again.
        measure: adds the scales [N, C] of a `SubsampledRMSNorm`, from the name of its sample.
        statistics: number of channels whose statistics the graph measures in a frame.
    """

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self._names: dict[tuple[Any, ...], str] = {}
        self._exact = False
        self.biases_apart = False
        self.measure: Callable[[str, SubsampledRMSNorm], str] | None = None
        self.statistics = 0

    def add(self, kind: str, inputs: Sequence[str], output: str = "", **attributes: Any) -> str:
        """Add a node of an operator `kind`."""
        prefix = f"{EXACT}_" if self._exact else ""
        output = output or f"{prefix}{kind.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [output], name=output, **attributes))
        return output

    @contextmanager
    def exact(self) -> Iterator[None]:
        """Keep the nodes and constants added inside in fp32 at every precision."""
        self._exact = True
        try:
            yield
        finally:
            self._exact = False

    def numbers(self, *values: int) -> str:
        """Add an int64 vector."""
        return self.constant(np.array(values))

    def constant(self, value: NDArray[Any] | np.float32, *, shared: bool = True) -> str:
        """Add a constant; equal ones are stored once, unless `shared` is False."""
        array = np.asarray(value, order="C")
        prefix = EXACT if self._exact else "constant"
        place = -1 if shared else len(self.weights)
        key = (prefix, place, array.dtype.str, array.shape, array.tobytes())
        if key not in self._names:
            self._names[key] = f"{prefix}_{len(self.weights)}"
            self.weights.append(numpy_helper.from_array(array, self._names[key]))
        return self._names[key]

    def reflect(self, x: str, pad: int) -> str:
        """Pad [N, C, H, W] by reflection on every side."""
        return self.add("Pad", [x, self.numbers(0, 0, pad, pad, 0, 0, pad, pad)], mode="reflect")

    def strip(self, x: str, axis: int, places: range) -> str:
        """Slice `x` along an axis; places below zero are counted from its end."""
        end = places.stop
        if (places.start < 0) != (end < 0):
            end = np.iinfo(np.int32).max * places.step  # to the end of the axis, or its beginning
        numbers = (places.start, end, axis, places.step)
        return self.add("Slice", [x, *(self.numbers(number) for number in numbers)])

    def trim(self, x: str, border: int) -> str:
        """Cut `border` positions off every side of [N, C, H, W]."""
        starts, ends, axes = ((border,) * 2, (-border,) * 2, (2, 3))
        return self.add("Slice", [x, *(self.numbers(*n) for n in (starts, ends, axes))])

    def conv(self, x: str, layer: nn.Conv2d, weight: Tensor, bias: Tensor | None) -> str:
        """Convolve with the padding and the stride of `layer`."""
        pad = int(layer.padding[0])
        x = self.reflect(x, pad) if pad else x
        return self.plain_conv(x, weight, bias, layer.stride)

    def plain_conv(
        self,
        x: str,
        weight: Tensor,
        bias: Tensor | None,
        strides: tuple[int, ...] = (1, 1),
    ) -> str:
        """Convolve without padding."""
        inputs = [x, self.constant(as_array(weight))]
        if bias is not None and not self.biases_apart:
            inputs.append(self.constant(as_array(bias)))
        x = self.add("Conv", inputs, kernel_shape=weight.shape[2:], strides=strides)
        if bias is not None and self.biases_apart:
            x = self.add("Add", [x, self.constant(as_array(bias)[None, :, None, None])])
        return x

    def normalized_conv(
        self, x: str, weight: Tensor, bias: Tensor | None, norm: SubsampledRMSNorm, stride: int = 1
    ) -> str:
        """Convolve and normalise: a sample of the positions is computed first, for the scales."""
        if self.measure is None:
            raise ExportError("SubsampledRMSNorm has no ONNX form in this architecture")
        sample = self.plain_conv(x, weight, bias, (STEP * stride,) * 2)
        scale = self.add("Cast", [self.measure(sample, norm)], to=TensorProto.FLOAT)
        scale = self.add("Unsqueeze", [scale, self.numbers(2, 3)])
        return self.add("Mul", [self.plain_conv(x, weight, bias, (stride, stride)), scale])

    def bytes(self, x: str) -> str:
        """Convert floats to pixels: clip to [0, 255], round, cast to uint8."""
        x = self.add("Clip", [x, self.constant(np.float32(0)), self.constant(np.float32(255))])
        return self.add("Cast", [self.add("Round", [x])], to=TensorProto.UINT8)

    def split(self, x: str, sizes: str, parts: int, axis: int) -> list[str]:
        """Split `x` into `parts` along an axis; return the name of each."""
        first = self.add("Split", [x, sizes], axis=axis)
        names = [first, *(f"{first}_{part}" for part in range(1, parts))]
        self.nodes[-1].output.extend(names[1:])
        return names

    def view(self, x: str, *shape: str) -> str:
        """Reshape `x`; `shape` names tensors that concatenate to the new shape."""
        return self.add("Reshape", [x, self.add("Concat", shape, axis=0)])

    def swap(self, x: str, *shape: str) -> str:
        """Reshape `x` to four axes, then exchange the middle two."""
        return self.add("Transpose", [self.view(x, *shape)], perm=[0, 2, 1, 3])

    def instance_norm(self, x: str, layer: nn.InstanceNorm2d) -> str:
        """Add an instance normalisation with weights of its own: quantisation changes each."""
        own = partial(self.constant, shared=False)
        inputs = [x, own(as_array(layer.weight)), own(as_array(layer.bias))]
        return self.add("InstanceNormalization", inputs, epsilon=layer.eps)

    def module(self, x: str, module: nn.Module) -> str:
        """Add a block of the networks.

        Raises:
            ExportError: the module has no ONNX form here.
        """
        if isinstance(module, nn.Sequential):
            children = list(module)
            if isinstance(module, ConvLayer):
                convolution, weight, bias, children = take_apart(module)
                if children and isinstance(norm := children[0], SubsampledRMSNorm):
                    x = self.normalized_conv(x, weight, bias, norm)
                    children = children[1:]
                else:
                    x = self.conv(x, convolution, weight, bias)
            for child in children:
                x = self.module(x, child)
            return x
        if isinstance(module, ResidualBlock):
            kept = self.trim(x, module.trim) if module.trim else x
            return self.add("Add", [kept, self.module(x, module.body)])
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
        """Make the model, uint8 [N, H, W, 3] in and out, of the nodes that its outputs need."""
        shape: list[str | int | None] = ["batch", "height", "width", 3]
        inputs = [helper.make_tensor_value_info(INPUT_NAME, TensorProto.UINT8, shape)]
        outputs = [helper.make_tensor_value_info(OUTPUT_NAME, TensorProto.UINT8, shape)]
        if self.statistics:
            make, count = helper.make_tensor_value_info, self.statistics
            # NaN, the default, means each frame's own; other values hold for all frames of a batch.
            inputs.append(make(HELD_NAME, TensorProto.FLOAT, [1, count]))
            outputs.append(make(STATISTICS_NAME, TensorProto.FLOAT, ["batch", count]))
        needed = {value.name for value in outputs}
        nodes: list[onnx.NodeProto] = []
        for node in reversed(self.nodes):
            if needed & set(node.output):
                needed.update(node.input)
                nodes.insert(0, node)
        weights = [weight for weight in self.weights if weight.name in needed]
        graph = helper.make_graph(nodes, name, inputs, outputs, weights)
        return helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", OPSET)],
            ir_version=IR_VERSION,
            producer_name="nst",
        )


def as_array(tensor: Tensor) -> NDArray[np.float32]:
    """Convert a weight to a float32 array on the CPU."""
    array: NDArray[np.float32] = tensor.detach().cpu().float().numpy()
    return array
