"""Counts the multiply-accumulates (MACs) of a model on its ONNX graph."""

from __future__ import annotations

import tempfile
from math import prod

import onnx
import onnxruntime
from onnx import helper, shape_inference

from nst.errors import ExportError

# Position of the weights among the inputs; DequantizeLinear keeps their shape.
_CONVOLUTIONS = {"Conv": 1, "ConvInteger": 1, "QLinearConv": 3}
_PRODUCTS = {"MatMul", "MatMulInteger", "QLinearMatMul"}
# Operators that multiply too, and that no style model has needed so far.
_UNKNOWN = {"Attention", "DeformConv", "Einsum", "GRU", "LSTM", "RNN", "If", "Loop", "Scan"}


def count_macs(model: onnx.ModelProto, size: tuple[int, int]) -> int:
    """Count the multiply-accumulates of convolutions and matrix products for one image.

    As is usual, products with padding count and element-wise operations do not.

    Args:
        model: a model that takes one image, [N, H, W, 3] or [N, 3, H, W].
        size: (height, width) of the image; a size fixed in the model takes precedence.

    Raises:
        ExportError: the shapes can't be inferred, or an operator can't be counted.
    """
    sized = onnx.ModelProto()
    sized.CopyFrom(model)
    batch = _set_size(sized, size)
    try:
        try:
            return _count(sized) // batch
        except KeyError:
            return _count(_fold_sizes(sized)) // batch
    except shape_inference.InferenceError as error:
        raise ExportError(f"the model's shapes cannot be inferred: {error}") from error
    except KeyError as error:
        raise ExportError(f"the shape of {error} cannot be inferred") from error


def _count(model: onnx.ModelProto) -> int:
    """Count the multiply-accumulates of a model whose input size is fixed.

    Raises:
        KeyError: the shape of a tensor is unknown.
    """
    graph = shape_inference.infer_shapes(model, data_prop=True).graph
    shapes = {weight.name: tuple(weight.dims) for weight in graph.initializer}
    for value in (*graph.input, *graph.value_info, *graph.output):
        tensor = value.type.tensor_type
        dims = tensor.shape.dim
        if tensor.HasField("shape") and all(dim.HasField("dim_value") for dim in dims):
            shapes[value.name] = tuple(dim.dim_value for dim in dims)
    return sum(_node_macs(node, shapes) for node in graph.node)


def _fold_sizes(model: onnx.ModelProto) -> onnx.ModelProto:
    """Fold computations on sizes into constants: onnx infers shapes through only some of them.

    Raises:
        ExportError: ONNX Runtime can't load the model.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    with tempfile.TemporaryDirectory() as folder:
        options.optimized_model_filepath = f"{folder}/folded.onnx"
        try:
            onnxruntime.InferenceSession(
                model.SerializeToString(), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # ONNX Runtime's exceptions have no common base
            raise ExportError(f"the model's shapes cannot be inferred: {error}") from error
        return onnx.load(options.optimized_model_filepath)


def _set_size(model: onnx.ModelProto, size: tuple[int, int]) -> int:
    """Fix the open sides of the input in place; return its batch size."""
    graph = model.graph
    weights = {weight.name for weight in graph.initializer}
    images = [value for value in graph.input if value.name not in weights]
    if len(images) != 1 or len(images[0].type.tensor_type.shape.dim) != 4:
        raise ExportError("the model takes more than one image, or none: it cannot be counted")
    dims = images[0].type.tensor_type.shape.dim
    channels_last = dims[3].dim_value == 3 and dims[1].dim_value != 3
    wanted = (1, *size, 3) if channels_last else (1, 3, *size)
    for dim, side in zip(dims, wanted, strict=True):
        dim.dim_value = dim.dim_value or side
    # Inner shapes in the file were inferred for open sizes.
    del graph.value_info[:]
    for value in graph.output:
        value.type.tensor_type.ClearField("shape")
    batch: int = dims[0].dim_value
    return batch


def _node_macs(node: onnx.NodeProto, shapes: dict[str, tuple[int, ...]]) -> int:
    kind = node.op_type
    if node.domain not in ("", "ai.onnx") or kind in _UNKNOWN:
        # Operators of other domains, of which only these are known not to multiply.
        if kind in ("QuantizeLinear", "DequantizeLinear"):
            return 0
        raise ExportError(f"the operator {kind} of {node.domain or 'ONNX'} cannot be counted")
    if kind in _CONVOLUTIONS:
        weights = shapes[node.input[_CONVOLUTIONS[kind]]]
        return prod(shapes[node.output[0]]) * prod(weights[1:])
    if kind == "ConvTranspose":
        return prod(shapes[node.input[0]]) * prod(shapes[node.input[1]][1:])
    if kind == "Gemm":
        flags = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        depth = shapes[node.input[0]][0 if flags.get("transA") else 1]
        return prod(shapes[node.output[0]]) * depth
    if kind in _PRODUCTS:
        return prod(shapes[node.output[0]]) * shapes[node.input[0]][-1]
    return 0
