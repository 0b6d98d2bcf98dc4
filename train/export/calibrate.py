"""Measures the tensors of a graph on photographs, and chooses 8-bit ranges for them."""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper

from nst.infer.runtime.signature import INPUT_NAME
from nst.io.images import Array

Floats = NDArray[np.float32]

_SAMPLES = 16384  # values kept for each tensor and photograph


@dataclass(frozen=True)
class Params:
    """Parameters of affine 8-bit quantisation: real value = scale · (integer − zero), 0 to 255."""

    scale: np.float32
    zero: np.uint8


def calibrate(
    model: onnx.ModelProto, names: Sequence[str], photographs: Sequence[Array]
) -> dict[str, Floats]:
    """Sample the values of each tensor in `names`; its extremes are always included."""
    rng = np.random.default_rng(0)
    kept: dict[str, list[Floats]] = defaultdict(list)
    for values in activations(model, names, photographs):
        for name, x in values.items():
            flat = x.ravel()
            kept[name].append(flat[rng.integers(flat.size, size=_SAMPLES)])
            kept[name].append(np.array([flat.min(), flat.max()], np.float32))
    return {name: np.concatenate(parts) for name, parts in kept.items()}


def best_params(values: Floats) -> Params:
    """Choose the range with the least mean squared error, clipping included (Nagel et al., 3.1)."""
    low, high = min(float(values.min()), 0.0), max(float(values.max()), 0.0)
    if high - low < 1e-9:
        return Params(np.float32(1), np.uint8(0))
    best, least = Params(np.float32((high - low) / 255), np.uint8(0)), np.inf
    for share in np.linspace(0.3, 1, 29):
        scale = np.float32(share * (high - low) / 255)
        zero = np.clip(np.rint(-share * low / scale), 0, 255)
        integers = np.clip(np.rint(values / scale) + zero, 0, 255)
        error = float(np.square((integers - zero) * scale - values).mean())
        if error < least:
            best, least = Params(scale, np.uint8(zero)), error
    return best


def channel_moments(
    model: onnx.ModelProto, names: Sequence[str], photographs: Sequence[Array]
) -> dict[str, tuple[Floats, Floats]]:
    """Return the mean and variance of each channel of the tensors `names` over all photographs."""
    sums: dict[str, NDArray[np.float64]] = {}
    for values in activations(model, names, photographs):
        for name, x in values.items():
            flat = x.transpose(1, 0, 2, 3).reshape(x.shape[1], -1).astype(np.float64)
            moments = np.stack([flat.mean(1), np.square(flat).mean(1)])
            sums[name] = sums.get(name, 0) + moments / len(photographs)
    return {name: (mean, np.maximum(square - mean**2, 0)) for name, (mean, square) in sums.items()}


def activations(
    model: onnx.ModelProto, names: Sequence[str], photographs: Sequence[Array]
) -> Iterable[dict[str, Floats]]:
    """Compute the tensors `names` for each photograph in turn."""
    probed = copy.deepcopy(model)
    for name in names:
        probed.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(
        probed.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    for photograph in photographs:
        found = session.run(list(names), {INPUT_NAME: photograph[None]})
        yield dict(zip(names, found, strict=True))
