"""Rounds weights to int8, minimising the output error on calibration data.

Weights are rounded in turn, and those not yet rounded compensate for the errors so far as far as
their inputs correlate (GPTQ: Frantar et al. 2022). The mean of the remaining error is subtracted
from the bias (Nagel et al. 2021, section 4.2).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from nst.io.images import Array
from nst.train.export.calibrate import Floats, activations

Doubles = NDArray[np.float64]

_PATCHES = 400  # patches sampled from each photograph
_DAMPING = 1e-6  # share of the mean variance that is added to every variance


@dataclass(frozen=True)
class Inputs:
    """Moments of the input patches under the kernel of a convolution.

    Attributes:
        mean: [K], K = C · height · width in the order of a weight [O, C, height, width].
        covariance: [K, K].
    """

    mean: Doubles
    covariance: Doubles


def observe(
    model: onnx.ModelProto, convolutions: Iterable[onnx.NodeProto], photographs: Sequence[Array]
) -> dict[str, Inputs]:
    """Measure the inputs of convolutions; return them by the name of the weight.

    Of several convolutions that share a weight, the first is measured.

    Args:
        photographs: HWC uint8 RGB.
    """
    weights = {w.name: numpy_helper.to_array(w) for w in model.graph.initializer}
    chosen: dict[str, onnx.NodeProto] = {}
    for node in convolutions:
        chosen.setdefault(node.input[1], node)
    sums = {
        name: (np.zeros(weights[name][0].size), np.zeros([weights[name][0].size] * 2))
        for name in chosen
    }
    rng = np.random.default_rng(0)
    count = 0
    for values in activations(model, sorted({n.input[0] for n in chosen.values()}), photographs):
        count += _PATCHES
        for name, node in chosen.items():
            x, kernel = values[node.input[0]][0], weights[name].shape[2:]
            windows = np.lib.stride_tricks.sliding_window_view(x, kernel, (1, 2))
            rows, columns = (rng.integers(side, size=_PATCHES) for side in windows.shape[1:3])
            patches = windows[:, rows, columns].swapaxes(0, 1).reshape(_PATCHES, -1)
            total, products = sums[name]
            total += patches.sum(0, dtype=np.float64)
            products += patches.T.astype(np.float64) @ patches
    found = {}
    for name, (total, products) in sums.items():
        mean = total / count
        found[name] = Inputs(mean, products / count - np.outer(mean, mean))
    return found


def round_weights(
    weight: Floats, scale: Floats, inputs: Inputs, noise: float, most: int
) -> tuple[NDArray[np.int8], Doubles]:
    """Round weights to int8, minimising the output error on calibration data (GPTQ).

    Args:
        weight: [O, C, height, width].
        scale: [O], real value of one integer step for each output channel.
        inputs: moments of the convolution's inputs.
        noise: variance of the rounding error of each input.
        most: largest magnitude of the integers.

    Returns:
        The integers, [O, C, height, width], and the mean error of the outputs, [O].
    """
    exact = weight.reshape(len(weight), -1).astype(np.float64)
    variance = noise + _DAMPING * inputs.covariance.diagonal().mean() + 1e-12
    spread = inputs.covariance + variance * np.eye(len(inputs.mean))
    # Row i holds how weight i and those after it change to compensate for an error of weight i.
    rows = np.linalg.cholesky(np.linalg.inv(spread)).T
    left, unit = exact.copy(), scale.astype(np.float64)
    rounded = np.empty_like(exact)
    for i, row in enumerate(rows):
        rounded[:, i] = np.clip(np.rint(left[:, i] / unit), -most, most)
        error = (left[:, i] - rounded[:, i] * unit) / row[i]
        left[:, i:] -= np.outer(error, row[i:])
    shift = (rounded * unit[:, None] - exact) @ inputs.mean
    return rounded.reshape(weight.shape).astype(np.int8), shift
