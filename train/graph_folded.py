"""The graph of the design `folded`: all convolutions at a quarter of the resolution.

The pixels of a block are channels there; upsampling and the full resolution exist only on paper,
and memory moves as bytes, in whole blocks.
"""

from __future__ import annotations

import numpy as np
from onnx import TensorProto, numpy_helper

from nst.infer.signature import HELD_NAME, INPUT_NAME, STATISTICS_NAME
from nst.models.config import THUMBNAIL_LEAST, THUMBNAIL_SIDE
from nst.models.layers import PhaseConv, PixelConv
from nst.models.thumbnail import ThumbnailNorm
from nst.models.transformer import RIM, TransformerNet
from nst.train.folding import blocks_as_channels, for_bytes, take_apart
from nst.train.graph_builder import FRAME, THUMBNAIL, GraphBuilder, as_array


def folded(graph: GraphBuilder, network: TransformerNet, sides: str) -> str:
    """The repainted image and its rim, uint8 NHWC.

    Args:
        sides: name of the image's height and width.
    """
    grid = network.grid
    if network.config.norm == "thumbnail":
        measured = _Measured(graph)
        graph.normalize = measured
        small = _thumbnail(graph, sides)
        small_sides = graph.add("Shape", [small], start=1, end=3)
        x, _ = _as_blocks(graph, small, small_sides, grid, network.margin)
        with graph.passing(THUMBNAIL):
            _encode(graph, network, x)
        graph.normalize = _Held(graph, measured)
    x, blocks = _as_blocks(graph, INPUT_NAME, sides, grid, RIM + network.margin)
    with graph.passing(FRAME):
        x = _encode(graph, network, x)
    x = graph.module(x, network.residuals)
    phases, pixels = network.decoder[0], network.output
    assert isinstance(phases, PhaseConv)
    assert isinstance(pixels, PixelConv)
    x = graph.add("Relu", [graph.plain_conv(x, *phases.kernel(), 1)])
    weight, bias = pixels.kernel()
    x = graph.bytes(graph.plain_conv(x, weight * 127.5, bias * 127.5 + 127.5, 1))

    x = graph.add("Transpose", [x], perm=[0, 2, 3, 1])
    # The first kernel is two blocks wide, so one block fewer comes out.
    fewer = graph.add("Sub", [blocks, graph.numbers(1)])
    across = graph.add("Gather", [fewer, graph.numbers(1)])
    x = graph.swap(x, graph.numbers(-1), across, graph.numbers(grid, 3 * grid))
    whole = graph.add("Mul", [fewer, graph.numbers(grid)])
    return graph.view(x, graph.numbers(-1), whole, graph.numbers(3))


def _as_blocks(
    graph: GraphBuilder, image: str, sides: str, grid: int, margin: int
) -> tuple[str, str]:
    """(uint8 NHWC, its border reflected, as floats [N, 3·grid², rows, columns]; rows, columns)."""
    number = graph.numbers
    # Blocks of grid × grid pixels that cover the image and its margins, by height and width.
    rounded = graph.add("Add", [sides, number(2 * margin + grid - 1)])
    blocks = graph.add("Div", [rounded, number(grid)])
    covered = graph.add("Mul", [blocks, number(grid)])
    after = graph.add("Sub", [graph.add("Sub", [covered, sides]), number(margin)])
    pads = graph.add("Concat", [number(0, margin, margin, 0, 0), after, number(0)], axis=0)
    x = graph.add("Pad", [image, pads], mode="reflect")
    across = graph.add("Gather", [blocks, number(1)])
    x = graph.swap(x, number(-1, grid), across, number(3 * grid))
    x = graph.view(x, number(-1), blocks, number(3 * grid**2))
    x = graph.add("Transpose", [x], perm=[0, 3, 1, 2])
    return graph.add("Cast", [x], to=TensorProto.FLOAT), blocks


def _encode(graph: GraphBuilder, network: TransformerNet, x: str) -> str:
    _, weight, bias, rest = take_apart(network.encoder[0])
    weight, bias = for_bytes(weight, bias)
    x = graph.plain_conv(x, blocks_as_channels(weight, network.grid), bias, 0)
    for module in (*rest, *network.encoder[1:]):
        x = graph.module(x, module)
    return x


def _thumbnail(graph: GraphBuilder, sides: str) -> str:
    """`nst.models.thumbnail.thumbnail` of the image, uint8 NHWC."""
    number = graph.numbers
    most = graph.add("ReduceMax", [sides], keepdims=1)
    step = graph.add("Add", [most, number(THUMBNAIL_SIDE - 1)])
    step = graph.add("Div", [step, number(THUMBNAIL_SIDE)])
    limit = graph.add("Div", [sides, number(THUMBNAIL_LEAST)])
    steps = graph.add("Max", [graph.add("Min", [step, limit]), number(1)])
    starts = graph.add("Div", [steps, number(2)])
    return graph.add("Slice", [INPUT_NAME, starts, sides, number(1, 2), steps])


class _Measured:
    """Normalises each layer by its own statistics, and keeps them."""

    def __init__(self, graph: GraphBuilder) -> None:
        self.graph = graph
        self.norms: list[ThumbnailNorm] = []
        self.means: list[str] = []
        self.deviations: list[str] = []

    def __call__(self, x: str, norm: ThumbnailNorm) -> str:
        graph, sides = self.graph, self.graph.numbers(2, 3)
        with graph.exact():
            weight, bias, epsilon = (
                graph.constant(as_array(part).reshape(-1, 1, 1))
                for part in (norm.weight, norm.bias, norm.epsilon)
            )
            values = graph.add("Cast", [x], to=TensorProto.FLOAT)
            mean = graph.add("ReduceMean", [values, sides], keepdims=1)
            off = graph.add("Sub", [values, mean])
            variance = graph.add("ReduceMean", [graph.add("Mul", [off, off]), sides], keepdims=1)
            deviation = graph.add("Sqrt", [graph.add("Add", [variance, epsilon])])
            scale = graph.add("Div", [weight, deviation])
            shift = graph.add("Sub", [bias, graph.add("Mul", [mean, scale])])
        self.norms.append(norm)
        self.means.append(mean)
        self.deviations.append(deviation)
        return graph.scale_and_shift(x, scale, shift)


class _Held:
    """Normalises each layer by the statistics of the thumbnail, or by those that are handed in."""

    def __init__(self, graph: GraphBuilder, measured: _Measured) -> None:
        self.graph = graph
        weight, bias = (
            np.concatenate([as_array(part).reshape(-1, 1) for part in parts])
            for parts in zip(*((norm.weight, norm.bias) for norm in measured.norms), strict=True)
        )
        widths = graph.numbers(*(norm.weight.numel() for norm in measured.norms))
        graph.statistics = len(weight)
        with graph.exact():
            means, deviations = (
                graph.add("Concat", parts, axis=1)
                for parts in (measured.means, measured.deviations)
            )
            own = graph.add("Concat", [means, deviations], axis=2)
            own = graph.add("Squeeze", [own, graph.numbers(3)], STATISTICS_NAME)
            unknown = np.full((1, len(weight), 2), np.nan, np.float32)
            graph.weights.append(numpy_helper.from_array(unknown, HELD_NAME))
            used = graph.add("Where", [graph.add("IsNaN", [HELD_NAME]), own, HELD_NAME])
            mean, deviation = graph.split(used, graph.numbers(1, 1), 2, axis=2)
            scale = graph.add("Div", [graph.constant(weight), deviation])
            shift = graph.add("Mul", [mean, scale])
            shift = graph.add("Sub", [graph.constant(bias), shift])
            scales, shifts = (
                graph.split(
                    graph.add("Unsqueeze", [part, graph.numbers(3)]),
                    widths,
                    len(measured.norms),
                    axis=1,
                )
                for part in (scale, shift)
            )
        self._parts = zip(scales, shifts, strict=True)

    def __call__(self, x: str, _: ThumbnailNorm) -> str:
        return self.graph.scale_and_shift(x, *next(self._parts))
