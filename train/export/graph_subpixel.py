"""Builds the ONNX graph of the architecture `subpixel`.

All its convolutions run at a quarter of the resolution, where the pixels of a 4×4 block are
channels; nothing is upsampled, and for int8 pixels move as bytes, in whole blocks.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper

from nst.infer.runtime.signature import HELD_NAME, INPUT_NAME, STATISTICS_NAME
from nst.models.layers import PolyphaseUpConv, SubpixelConv
from nst.models.norm import SubsampledRMSNorm
from nst.models.transformer import TransformerNet, reflection_steps
from nst.train.export.folding import blocks_as_channels, for_bytes, take_apart
from nst.train.export.graph_builder import GraphBuilder, as_array


def subpixel_graph(graph: GraphBuilder, network: TransformerNet, sides: str, for_int8: bool) -> str:
    """Add the network; the result is uint8 NHWC RGB, with sides rounded up to whole blocks.

    Args:
        sides: name of the tensor that holds the image's height and width.
        for_int8: as in `nst.train.export.graph.transformer_graph`.
    """
    grid = network.grid
    graph.biases_apart = not for_int8
    _, weight, bias, rest = take_apart(network.encoder[0])
    weight, bias = for_bytes(weight, bias)
    if for_int8:
        x, blocks = _as_blocks(graph, INPUT_NAME, sides, grid, network.context)
        weight, stride = blocks_as_channels(weight, grid), 1
    else:
        x, stride = _as_floats(graph, INPUT_NAME, network.context, grid - 1), grid
    statistics = _Statistics(graph, network)
    if isinstance(rest[0], SubsampledRMSNorm):
        graph.measure = statistics
        x = graph.normalized_conv(x, weight, bias, rest[0], stride)
        rest = rest[1:]
    else:
        x = graph.plain_conv(x, weight, bias, (stride, stride))
    for module in (*rest, network.residuals):
        x = graph.module(x, module)
    statistics.end()
    phases, pixels = network.decoder[0], network.output
    assert isinstance(phases, PolyphaseUpConv)
    assert isinstance(pixels, SubpixelConv)
    x = graph.add("Relu", [graph.plain_conv(x, *phases.kernel())])
    weight, bias = pixels.kernel()
    x = graph.plain_conv(x, weight * 127.5, bias * 127.5 + 127.5)
    if not for_int8:
        x = graph.bytes(graph.add("DepthToSpace", [x], blocksize=grid))
        return graph.add("Transpose", [x], perm=[0, 2, 3, 1])
    x = graph.add("Transpose", [graph.bytes(x)], perm=[0, 2, 3, 1])
    across = graph.add("Gather", [blocks, graph.numbers(1)])
    x = graph.swap(x, graph.numbers(-1), across, graph.numbers(grid, 3 * grid))
    whole = graph.add("Mul", [blocks, graph.numbers(grid)])
    return graph.view(x, graph.numbers(-1), whole, graph.numbers(3))


def _as_floats(graph: GraphBuilder, image: str, context: int, overhang: int) -> str:
    """Return the image as float NCHW, continued by reflection on every side.

    Each side gets `context` pixels; below and to the right, `overhang` more complete the last
    block. They are concatenated slices of the image: ONNX Runtime's CUDA provider can't pad bytes,
    and takes longer to pad floats than for all the rest of the network.
    """
    x = image
    for axis in (1, 2):
        reflected = _reflected(context, overhang)
        before, after = ([graph.strip(x, axis, run) for run in runs] for runs in reflected)
        x = graph.add("Concat", [*before, x, *after], axis=axis)
    x = graph.add("Transpose", [x], perm=[0, 3, 1, 2])
    return graph.add("Cast", [x], to=TensorProto.FLOAT)


def _reflected(context: int, overhang: int) -> tuple[list[range], list[range]]:
    """Find the places along an axis whose reflection makes the context before and after it.

    Args:
        overhang: pixels by which the context after the axis is longer.

    Returns:
        Ranges counted from the start of the axis, and ranges counted from its end.
    """
    length = 4 * context
    places = np.arange(length)
    *first, last = reflection_steps(context)
    for pad in first:
        places = np.pad(places, pad, "reflect")
    places = np.pad(places, (last, last + overhang), "reflect")
    return _runs(places[:context]), _runs(places[context + length :] - length)


def _runs(places: NDArray[np.int64]) -> list[range]:
    """Split integers into the ranges, up or down, of which they consist."""
    runs = []
    for part in np.split(places, np.flatnonzero(np.diff(places, 2)) + 2):
        first, last = int(part[0]), int(part[-1])
        step = 1 if last >= first else -1
        runs.append(range(first, last + step, step))
    return runs


def _as_blocks(
    graph: GraphBuilder, image: str, sides: str, grid: int, context: int
) -> tuple[str, str]:
    """Reflect the image by `context` pixels, and view it as blocks of grid × grid pixels.

    Returns:
        The blocks, float [N, 3·grid², rows, columns], and the name of the number of rows and
        columns of blocks that cover the image without its context.
    """
    number = graph.numbers
    rounded = graph.add("Add", [sides, number(grid - 1)])
    blocks = graph.add("Div", [rounded, number(grid)])
    *first, last = reflection_steps(context)
    x = image
    for pad in first:
        x = graph.add("Pad", [x, number(0, pad, pad, 0, 0, pad, pad, 0)], mode="reflect")
    overhang = graph.add("Sub", [graph.add("Mul", [blocks, number(grid)]), sides])
    after = graph.add("Add", [overhang, number(last)])
    pads = graph.add("Concat", [number(0, last, last, 0, 0), after, number(0)], axis=0)
    x = graph.add("Pad", [x, pads], mode="reflect")
    around = graph.add("Add", [blocks, number(2 * context // grid)])
    across = graph.add("Gather", [around, number(1)])
    # [N · rows, grid, columns, 3 · grid], and then the axes of a block side by side.
    x = graph.swap(x, number(-1, grid), across, number(3 * grid))
    x = graph.view(x, number(-1), around, number(3 * grid**2))
    x = graph.add("Transpose", [x], perm=[0, 3, 1, 2])
    return graph.add("Cast", [x], to=TensorProto.FLOAT), blocks


class _Statistics:
    """Adds the root mean squares of a frame's channels: the measured or the held ones."""

    def __init__(self, graph: GraphBuilder, network: TransformerNet) -> None:
        self.graph, self.found = graph, list[str]()
        norms = [module for module in network.modules() if isinstance(module, SubsampledRMSNorm)]
        widths = [norm.weight.numel() for norm in norms]
        graph.statistics = sum(widths)
        if not norms:
            return
        with graph.exact():
            unknown = np.full((1, graph.statistics), np.nan, np.float32)
            graph.weights.append(numpy_helper.from_array(unknown, HELD_NAME))
            parts = graph.split(HELD_NAME, graph.numbers(*widths), len(widths), axis=1)
            self._held = iter(parts)

    def __call__(self, sample: str, norm: SubsampledRMSNorm) -> str:
        """Add the scales of the next normalisation, [N, C]."""
        graph, sides = self.graph, self.graph.numbers(2, 3)
        with graph.exact():
            weight = graph.constant(as_array(norm.weight))
            epsilon = graph.constant(as_array(norm.epsilon))
            values = graph.add("Cast", [sample], to=TensorProto.FLOAT)
            squares = graph.add("Mul", [values, values])
            mean = graph.add("ReduceMean", [squares, sides], keepdims=0)
            own = graph.add("Sqrt", [graph.add("Add", [mean, epsilon])])
            self.found.append(own)
            held = next(self._held)
            used = graph.add("Where", [graph.add("IsNaN", [held]), own, held])
            return graph.add("Div", [weight, used])

    def end(self) -> None:
        """Add the output with all measured statistics."""
        graph = self.graph
        if graph.statistics:
            with graph.exact():
                graph.add("Concat", self.found, STATISTICS_NAME, axis=1)
