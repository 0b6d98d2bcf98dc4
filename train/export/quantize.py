"""Converts an exported graph to fp16 or int8.

int8 is static and per channel, in the QDQ form that ONNX Runtime turns into integer convolutions
(for the terms see Nagel et al. 2021, "A White Paper on Neural Network Quantization").
"""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from nst.errors import ExportError
from nst.infer.runtime.signature import HELD_NAME, INPUT_NAME
from nst.io.images import Array
from nst.train.export.calibrate import Floats, Params, best_params, calibrate, channel_moments
from nst.train.export.graph_builder import EXACT
from nst.train.export.rounding import Doubles, observe, round_weights

# Operators that move values without changing them, so they work on integers as on floats.
_MOVES = frozenset({"Pad", "Reshape", "Resize", "Slice", "Transpose"})
# A convolution with fewer output channels and a larger kernel stays in float: integer kernels
# compute 16 channels or more at once, so Johnson's 9×9 to RGB takes twice as long, and a gigabyte.
_FEW_CHANNELS, _WIDE = 8, 5
# Seven bits, because CPUs without VNNI add pairs of products in 16 bits (vpmaddubsw saturates).
_WEIGHT_MOST = 63


def to_fp16(model: onnx.ModelProto) -> onnx.ModelProto:
    """Convert a `model` (fp32) to weights and arithmetic in fp16; input and output stay uint8.

    It is meant for GPUs: ONNX Runtime's CPU provider computes in fp32, so a comparison there shows
    the rounding of the weights, not of the sums.

    Raises:
        ExportError: a weight is too large for fp16.
    """
    # Libraries do worse: onnxconverter-common 1.16 makes invalid graphs of ours, ONNX Runtime 1.32
    # (transformers.float16) unsorted ones with 51 more Casts, and both clip large weights silently.
    half = copy.deepcopy(model)
    kept = {node.input[2] for node in half.graph.node if node.op_type == "Resize"} | {HELD_NAME}
    for weight in half.graph.initializer:
        exact = weight.name in kept or weight.name.startswith(EXACT)
        if weight.data_type == TensorProto.FLOAT and not exact:
            with np.errstate(over="ignore"):
                values = numpy_helper.to_array(weight).astype(np.float16)
            if not np.isfinite(values).all():
                raise ExportError("the network's weights are too large for fp16: export fp32")
            weight.CopyFrom(numpy_helper.from_array(values, weight.name))
    for node in half.graph.node:
        for attribute in () if node.name.startswith(EXACT) else node.attribute:
            if node.op_type == "Cast" and attribute.i == TensorProto.FLOAT:
                attribute.i = TensorProto.FLOAT16
    return half


def to_int8(model: onnx.ModelProto, photographs: Sequence[Array]) -> onnx.ModelProto:
    """Convert a `model` (fp32, of `nst.train.export.graph`) to convolutions in 8-bit integers.

    The bytes of the image feed the first convolution, and those of the last convolution are the
    result, unless it stays in float. Between convolutions, padding, resizing, ReLU and sums of two
    integer tensors stay in integers; instance normalisation stays in float. `SubsampledRMSNorm`
    becomes the scale of the convolution's weights, at no cost for the whole frame. ONNX Runtime
    supports that for one image at a time, so such a file takes a batch of one.

    Args:
        photographs: images to calibrate on, HWC uint8 RGB.
    """
    model = copy.deepcopy(model)
    _equalize(model, photographs)
    return _Quantizer(model, photographs).run()


_BYTES = Params(np.float32(1), np.uint8(0))  # pixels are integers already


class _Quantizer:
    """Rebuilds the nodes of a graph with integer tensors between them."""

    def __init__(self, model: onnx.ModelProto, photographs: Sequence[Array]) -> None:
        self.model, self.photographs = model, photographs
        self.nodes = [copy.deepcopy(node) for node in model.graph.node]
        self.weights = {w.name: numpy_helper.to_array(w) for w in model.graph.initializer}
        # Of the original graph: `nodes` change while the new graph is built.
        self.producer = {output: node for node in model.graph.node for output in node.output}
        self.consumers = _consumers(model.graph.node)
        self.integer_convs = {
            node.output[0] for node in self.nodes if node.op_type == "Conv" and self._narrow(node)
        }
        self.scaled = self._find_scaled()
        self.integers: dict[str, str] = {}  # float tensor -> its integer version
        self.integer_only: set[str] = set()  # float tensors that only integer nodes read
        self.params: dict[str, Params] = {}
        self.inputs = observe(
            model, [n for n in model.graph.node if n.output[0] in self.integer_convs], photographs
        )
        self.rounded: dict[str, tuple[NDArray[np.int8], Floats, Doubles]] = {}
        self.built: list[onnx.NodeProto] = []
        self.constants: dict[str, onnx.TensorProto] = {}

    def run(self) -> onnx.ModelProto:
        """Build the quantised model."""
        wanted = self._tensors()
        pixels = self._pixels()
        ranges = calibrate(self.model, sorted(wanted - pixels), self.photographs)
        self.params = {name: best_params(values) for name, values in ranges.items()}
        self.params |= dict.fromkeys(pixels, _BYTES)
        last = self._last()
        skipped: set[str] = set()
        for node in self.nodes:
            output = node.output[0]
            if output in skipped:
                continue
            if output in pixels:  # the uint8 pixels replace the float ones
                self.integers[output] = node.input[0]
                continue
            if output in self.scaled:
                product = self.scaled[output]
                skipped.update((product, self._after_relu(product)))
                self._scaled_conv(node, product)
                continue
            if output in self.integer_convs:
                self._conv(node)
            elif node.op_type in _MOVES and node.input[0] in self.integers:
                node.input[0] = self.integers[node.input[0]]
                self.integers[output] = output
                self.built.append(node)
                continue
            else:
                self._float(node)
            if output == last and output in self.integer_convs:
                # Quantising to whole levels replaces Clip, Round and Cast.
                tail = self._chain_down(output)
                self.integers[tail[-1]] = self._quantize(output, _BYTES)
                skipped.update(tail)
            elif output in self.params:
                self.integers[output] = self._quantize(output, self.params[output])
        del self.model.graph.node[:], self.model.graph.initializer[:]
        self.model.graph.node.extend(self.built)
        used = {name for node in self.built for name in node.input}
        for name, value in self.weights.items():
            if name in used:
                self.constants[name] = numpy_helper.from_array(np.asarray(value, order="C"), name)
        self.model.graph.initializer.extend(self.constants.values())
        if self.scaled:
            for value in (*self.model.graph.input, *self.model.graph.output):
                value.type.tensor_type.shape.dim[0].dim_value = 1
        return self.model

    def _narrow(self, convolution: onnx.NodeProto) -> bool:
        channels, _, height, _ = self.weights[convolution.input[1]].shape
        return channels >= _FEW_CHANNELS or height <= _WIDE

    def _find_scaled(self) -> dict[str, str]:
        """Map convolutions whose channels are multiplied by computed scales to the products."""
        return {
            node.input[0]: node.output[0]
            for node in self.nodes
            if node.op_type == "Mul"
            and not node.name.startswith(EXACT)
            and node.input[1] not in self.weights
        }

    def _tensors(self) -> set[str]:
        """Return the float tensors to quantise: the inputs and outputs of convolutions."""
        fed: set[str] = set()
        for node in self.nodes:
            if node.output[0] in self.integer_convs:
                fed.add(self._root(node.input[0]))
                product = self.scaled.get(node.output[0], node.output[0])
                self.integer_only.add(self._after_relu(product))
            # A sum of two integer tensors is integer, as where normalisation is folded away.
            if node.op_type == "Add" and all(
                self._root(name) in self.integer_only for name in node.input
            ):
                self.integer_only.add(self._after_relu(node.output[0]))
        self.integer_only.discard(self._last())  # it is quantised to whole levels
        return fed | self.integer_only

    def _root(self, name: str) -> str:
        """Return the tensor whose values `name` holds, moved by `_MOVES` or not at all."""
        while (node := self.producer.get(name)) is not None and node.op_type in _MOVES:
            name = node.input[0]
        return name

    def _after_relu(self, name: str) -> str:
        users = self.consumers[name]
        alone = len(users) == 1 and users[0].op_type == "Relu"
        return str(users[0].output[0]) if alone else name

    def _pixels(self) -> set[str]:
        """Return the tensors that hold the image as floats."""
        return {
            node.output[0]
            for node in self.nodes
            if node.op_type == "Cast" and self._root(node.input[0]) == INPUT_NAME
        }

    def _last(self) -> str:
        """Return the output of the last convolution."""
        return str([node for node in self.nodes if node.op_type == "Conv"][-1].output[0])

    def _chain_down(self, name: str) -> list[str]:
        """Return the outputs of the nodes that turn the tensor `name` into pixels."""
        chain = []
        while (user := self.consumers[name][0]).op_type in ("Clip", "Round", "Cast"):
            name = user.output[0]
            chain.append(name)
        return chain

    def _conv(self, node: onnx.NodeProto) -> None:
        root = self._root(node.input[0])
        x = self._dequantize(self.integers[node.input[0]], self.params[root])
        rounded, scale, _ = self._rounded(node)
        inputs = [x, self._dequantize_constant(node.input[1], rounded, scale)]
        if len(node.input) > 2:
            bias = self._rounded_bias(node)
            inputs.append(self._dequantize_constant(f"{node.input[1]}_bias", *bias))
        del node.input[:]
        node.input.extend(inputs)
        self.built.append(node)

    def _rounded(self, node: onnx.NodeProto) -> tuple[NDArray[np.int8], Floats, Doubles]:
        """Return a convolution's weights as integers, their scales, and the mean output error."""
        name = node.input[1]
        if name not in self.rounded:
            weight: Floats = self.weights[name]
            scale = np.abs(weight).max(axis=(1, 2, 3)) / _WEIGHT_MOST
            scale = np.maximum(scale, np.float32(1e-12)).astype(np.float32)
            noise = float(self.params[self._root(node.input[0])].scale) ** 2 / 12
            rounded, shift = round_weights(weight, scale, self.inputs[name], noise, _WEIGHT_MOST)
            self.rounded[name] = rounded, scale, shift
        return self.rounded[name]

    def _rounded_bias(self, node: onnx.NodeProto) -> tuple[NDArray[np.int32], Floats]:
        """Return a convolution's bias as integers, and their scales: those of the products."""
        _, weight_scale, shift = self._rounded(node)
        scale = weight_scale * self.params[self._root(node.input[0])].scale
        bias = np.rint((self.weights[node.input[2]] - shift) / scale.astype(np.float64))
        return np.clip(bias, -(2**31) + 1, 2**31 - 1).astype(np.int32), scale

    def _scaled_conv(self, node: onnx.NodeProto, product: str) -> None:
        """Add conv(x) · scale and the ReLU after it, where scale [1, C, 1, 1] is computed.

        The scale multiplies that of the weights, so the integer sums do not change. It could not
        change the bias too: ONNX Runtime's fast kernels need a constant bias.
        """
        root, name, result = self._root(node.input[0]), node.name, self._after_relu(product)
        rounded, weight_scale, _ = self._rounded(node)
        flat = self._constant("flat", np.array([-1]))
        scales = [f"{name}_scale", self._constant(f"{name}_own_scale", weight_scale)]
        self._add("Reshape", [self.producer[product].input[1], flat], scales[0])
        self._add("Mul", scales, f"{name}_weight_scale")
        weight = self._constant(f"{node.input[1]}_integers", rounded)
        zero = self._constant(f"{node.input[1]}_zero", np.zeros(len(rounded), np.int8))
        inputs = [self.integers[node.input[0]], *self._params(self.params[root])]
        inputs += [weight, f"{name}_weight_scale", zero, *self._params(self.params[result])]
        if len(node.input) > 2:
            bias, _ = self._rounded_bias(node)
            inputs.append(self._constant(f"{node.input[1]}_bias_integers", bias))
        attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        self.integers[result] = self._add(
            "QLinearConv", inputs, f"{result}_quantized", **attributes
        )

    def _float(self, node: onnx.NodeProto) -> None:
        integer_sum = node.op_type == "Add" and node.output[0] in self.integer_only
        for index, name in enumerate(node.input):
            root = self._root(name)
            moved = name != root  # its float version no longer exists
            if name in self.integers and (moved or integer_sum or root in self.integer_only):
                node.input[index] = self._dequantize(self.integers[name], self.params[root])
        self.built.append(node)

    def _quantize(self, name: str, params: Params) -> str:
        return self._add("QuantizeLinear", [name, *self._params(params)], f"{name}_quantized")

    def _dequantize(self, name: str, params: Params) -> str:
        output = f"{name}_float_{len(self.built)}"
        return self._add("DequantizeLinear", [name, *self._params(params)], output)

    def _dequantize_constant(self, name: str, values: NDArray[Any], scale: Floats) -> str:
        zero = np.zeros(scale.shape, values.dtype)
        inputs = [
            self._constant(f"{name}_{part}", value)
            for part, value in (("integers", values), ("scale", scale), ("zero", zero))
        ]
        output = f"{name}_float_{len(self.built)}"
        return self._add("DequantizeLinear", inputs, output, axis=0)

    def _params(self, params: Params) -> list[str]:
        scale = self._constant(f"scale_{float(params.scale)!r}", np.asarray(params.scale))
        return [scale, self._constant(f"zero_{int(params.zero)}", np.asarray(params.zero))]

    def _constant(self, name: str, value: NDArray[Any]) -> str:
        self.constants[name] = numpy_helper.from_array(np.asarray(value, order="C"), name)
        return name

    def _add(self, kind: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        self.built.append(helper.make_node(kind, inputs, [output], name=output, **attributes))
        return output


def _equalize(model: onnx.ModelProto, photographs: Sequence[Array]) -> None:
    """Give every channel before an instance normalisation mean 0 and deviation 1, in place.

    The normalisation undoes the change, and one 8-bit scale then serves all channels alike. Its
    own scale compensates for its ε, which counts in a channel that hardly varies.
    """
    nodes = list(model.graph.node)
    consumers = _consumers(nodes)
    pairs = [
        (node, consumers[node.output[0]][0])
        for node in nodes
        if node.op_type == "Conv"
        and [user.op_type for user in consumers[node.output[0]]] == ["InstanceNormalization"]
    ]
    if not pairs:
        return
    weights = {w.name: w for w in model.graph.initializer}
    moments = channel_moments(model, [conv.output[0] for conv, _ in pairs], photographs)
    for conv, norm in pairs:
        mean, variance = moments[conv.output[0]]
        epsilon = norm.attribute[0].f
        deviation = np.sqrt(variance + epsilon)
        scale = weights[norm.input[1]]
        compensated = numpy_helper.to_array(scale) * np.sqrt(variance / deviation**2 + epsilon)
        scale.CopyFrom(numpy_helper.from_array(compensated.astype(np.float32), scale.name))
        weight = weights[conv.input[1]]
        values = numpy_helper.to_array(weight) / deviation[:, None, None, None]
        weight.CopyFrom(numpy_helper.from_array(values.astype(np.float32), weight.name))
        bias = -mean / deviation
        if len(conv.input) > 2:
            bias += numpy_helper.to_array(weights[conv.input[2]]) / deviation
            del conv.input[2]
        name = f"{weight.name}_bias"
        model.graph.initializer.append(numpy_helper.from_array(bias.astype(np.float32), name))
        conv.input.append(name)


def _consumers(nodes: Sequence[onnx.NodeProto]) -> dict[str, list[onnx.NodeProto]]:
    found: dict[str, list[onnx.NodeProto]] = defaultdict(list)
    for node in nodes:
        for name in node.input:
            found[name].append(node)
    return found
