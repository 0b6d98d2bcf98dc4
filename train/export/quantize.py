"""Smaller precisions of an exported graph: half floats, and 8-bit integers.

int8 is static and per channel, in the QDQ form that ONNX Runtime turns into integer convolutions
(Nagel et al. 2021, "A White Paper on Neural Network Quantization", gives the terms used here).
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

# Nodes that move values and change none: they work on integers as they do on floats.
_MOVES = frozenset({"Pad", "Reshape", "Resize", "Slice", "Transpose"})
# A wide convolution to few channels stays in float: integer kernels compute sixteen channels or
# more at once, so Johnson's 9×9 to RGB takes twice as long in them, and a gigabyte.
_FEW_CHANNELS, _WIDE = 8, 5
# Seven bits: the products of CPUs without VNNI saturate at eight (vpmaddubsw adds two in 16 bits).
_WEIGHT_MOST = 63


def to_fp16(model: onnx.ModelProto) -> onnx.ModelProto:
    """`model` (fp32) with weights and arithmetic in half precision; it still takes and gives uint8.

    Meant for GPUs: ONNX Runtime's CPU provider widens every node again, so what is compared there
    shows the rounding of the weights, not of the sums.

    Raises:
        ExportError: a weight is beyond what fp16 holds.
    """
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
    """`model` (fp32, of `nst.train.export.graph`) with its convolutions in 8-bit integers.

    The image's bytes feed the first convolution, and the last one's are the result if it is no
    wide one. What lies between two convolutions stays integer where it is padding, resizing, ReLU
    or the sum of two integer tensors; instance normalisation stays in float. Normalisation by a
    sample costs the whole frame nothing: it becomes the scale of the convolution's weights. ONNX
    Runtime has that for one image at a time, so such a file takes one.

    Args:
        photographs: content to calibrate on, HWC uint8 RGB.
    """
    model = copy.deepcopy(model)
    _equalize(model, photographs)
    return _Quantizer(model, photographs).run()


_BYTES = Params(np.float32(1), np.uint8(0))  # pixels are integers already


class _Quantizer:
    """Rebuilds a graph's list of nodes with integers between them."""

    def __init__(self, model: onnx.ModelProto, photographs: Sequence[Array]) -> None:
        self.model, self.photographs = model, photographs
        self.nodes = [copy.deepcopy(node) for node in model.graph.node]
        self.weights = {w.name: numpy_helper.to_array(w) for w in model.graph.initializer}
        # Of the graph as it was: `nodes` change while the new one is built.
        self.producer = {output: node for node in model.graph.node for output in node.output}
        self.consumers = _consumers(model.graph.node)
        self.integer_convs = {
            node.output[0] for node in self.nodes if node.op_type == "Conv" and self._narrow(node)
        }
        self.scaled = self._find_scaled()
        self.integers: dict[str, str] = {}  # float tensor -> its integer twin
        self.integer_only: set[str] = set()  # read by nobody as the float that it was
        self.params: dict[str, Params] = {}
        self.inputs = observe(
            model, [n for n in model.graph.node if n.output[0] in self.integer_convs], photographs
        )
        self.rounded: dict[str, tuple[NDArray[np.int8], Floats, Doubles]] = {}
        self.built: list[onnx.NodeProto] = []
        self.constants: dict[str, onnx.TensorProto] = {}

    def run(self) -> onnx.ModelProto:
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
            if output in pixels:  # uint8 goes on as it is
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
                self._move(node)
                continue
            else:
                self._float(node)
            if output == last and output in self.integer_convs:
                # Clip, Round and Cast are what quantising to whole levels does.
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
        """Convolutions whose channels are multiplied by what is computed, and the products."""
        return {
            node.input[0]: node.output[0]
            for node in self.nodes
            if node.op_type == "Mul"
            and not node.name.startswith(EXACT)
            and node.input[1] not in self.weights
        }

    def _tensors(self) -> set[str]:
        """Float tensors that get an integer twin: what feeds a convolution and what it gives."""
        fed: set[str] = set()
        for node in self.nodes:
            if node.output[0] in self.integer_convs:
                fed.add(self._root(node.input[0]))
                product = self.scaled.get(node.output[0], node.output[0])
                self.integer_only.add(self._after_relu(product))
            # A sum is of integers if both its terms are, as where normalisation folds away.
            if node.op_type == "Add" and all(
                self._root(name) in self.integer_only for name in node.input
            ):
                self.integer_only.add(self._after_relu(node.output[0]))
        self.integer_only.discard(self._last())  # whole levels, not 256 of its own
        return fed | self.integer_only

    def _root(self, name: str) -> str:
        """Where the values of a tensor were computed: up through nodes that only move them."""
        while (node := self.producer.get(name)) is not None and node.op_type in _MOVES:
            name = node.input[0]
        return name

    def _after_relu(self, name: str) -> str:
        users = self.consumers[name]
        alone = len(users) == 1 and users[0].op_type == "Relu"
        return str(users[0].output[0]) if alone else name

    def _pixels(self) -> set[str]:
        """Tensors that hold the image as floats."""
        return {
            node.output[0]
            for node in self.nodes
            if node.op_type == "Cast" and self._root(node.input[0]) == INPUT_NAME
        }

    def _last(self) -> str:
        """The output of the last convolution."""
        return str([node for node in self.nodes if node.op_type == "Conv"][-1].output[0])

    def _chain_down(self, name: str) -> list[str]:
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
        """A convolution's weights as integers, their scales, and the shift of what comes out."""
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
        """A convolution's bias as integers, and their scales: those of the products."""
        _, weight_scale, shift = self._rounded(node)
        scale = weight_scale * self.params[self._root(node.input[0])].scale
        bias = np.rint((self.weights[node.input[2]] - shift) / scale.astype(np.float64))
        return np.clip(bias, -(2**31) + 1, 2**31 - 1).astype(np.int32), scale

    def _scaled_conv(self, node: onnx.NodeProto, product: str) -> None:
        """conv(x) · scale, which is [1, C, 1, 1] and computed; then ReLU, if there is one.

        The sums of integers are what they were, and only count by another scale. Nothing could go
        into the bias as well: ONNX Runtime's fast kernels want one that is constant.
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
        output = f"{result}_quantized"
        attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        self._add("QLinearConv", inputs, output, **attributes)
        self.integers[result] = output

    def _move(self, node: onnx.NodeProto) -> None:
        """Padding, resizing and the like, on the integers."""
        node.input[0] = self.integers[node.input[0]]
        self.integers[node.output[0]] = node.output[0]
        self.built.append(node)

    def _float(self, node: onnx.NodeProto) -> None:
        integer_sum = node.op_type == "Add" and node.output[0] in self.integer_only
        for index, name in enumerate(node.input):
            root = self._root(name)
            moved = name != root  # there is no float version of it any more
            if name in self.integers and (moved or integer_sum or root in self.integer_only):
                node.input[index] = self._dequantize(self.integers[name], self.params[root])
        self.built.append(node)

    def _quantize(self, name: str, params: Params) -> str:
        output = f"{name}_quantized"
        self._add("QuantizeLinear", [name, *self._params(params)], output)
        return output

    def _dequantize(self, name: str, params: Params) -> str:
        output = f"{name}_float_{len(self.built)}"
        self._add("DequantizeLinear", [name, *self._params(params)], output)
        return output

    def _dequantize_constant(self, name: str, values: NDArray[Any], scale: Floats) -> str:
        zero = np.zeros(scale.shape, values.dtype)
        inputs = [
            self._constant(f"{name}_{part}", value)
            for part, value in (("integers", values), ("scale", scale), ("zero", zero))
        ]
        output = f"{name}_float_{len(self.built)}"
        self._add("DequantizeLinear", inputs, output, axis=0)
        return output

    def _params(self, params: Params) -> list[str]:
        scale = self._constant(f"scale_{float(params.scale)!r}", np.asarray(params.scale))
        return [scale, self._constant(f"zero_{int(params.zero)}", np.asarray(params.zero))]

    def _constant(self, name: str, value: NDArray[Any]) -> str:
        self.constants[name] = numpy_helper.from_array(np.asarray(value, order="C"), name)
        return name

    def _add(self, kind: str, inputs: Sequence[str], output: str, **attributes: Any) -> None:
        self.built.append(helper.make_node(kind, inputs, [output], name=output, **attributes))


def _equalize(model: onnx.ModelProto, photographs: Sequence[Array]) -> None:
    """Give every channel before an instance normalisation mean 0 and deviation 1, in place.

    The normalisation undoes it, and one 8-bit scale then serves all channels alike. Where its ε
    counts, because a channel hardly varies, the normalisation's own scale makes up for it.
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
        made_up = numpy_helper.to_array(scale) * np.sqrt(variance / deviation**2 + epsilon)
        scale.CopyFrom(numpy_helper.from_array(made_up.astype(np.float32), scale.name))
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
