"""Convolutions rewritten as others: the same numbers as the plain way, in double precision."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from nst.models.layers import ConvLayer
from nst.train.folding import (
    blocks_as_channels,
    phases_as_channels,
    pixels_in_order,
    take_apart,
)

small = st.integers(1, 4)


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def gather(x: Tensor, grid: int) -> Tensor:
    """[B, C, H, W] as [B, grid·grid·C, H / grid, W / grid], C innermost: by slices."""
    rows = [x[:, :, i::grid, j::grid] for i in range(grid) for j in range(grid)]
    return torch.cat(rows, 1)


@settings(max_examples=30, deadline=None)
@given(small, small, st.integers(1, 4), st.integers(1, 3), st.integers(0, 99))
def test_strides_as_blocks(inputs: int, outputs: int, grid: int, blocks: int, seed: int) -> None:
    x = normal(seed, 2, inputs, grid * (blocks + 2), grid * (blocks + 1))
    weight = normal(seed + 1, outputs, inputs, grid * blocks, grid * blocks)
    expected = F.conv2d(x, weight, stride=grid)
    torch.testing.assert_close(
        F.conv2d(gather(x, grid), blocks_as_channels(weight, grid)), expected
    )


@settings(max_examples=30, deadline=None)
@given(small, small, st.integers(1, 5), st.integers(1, 5), st.integers(0, 99))
def test_half_the_resolution_as_phases(
    inputs: int, outputs: int, height: int, width: int, seed: int
) -> None:
    x = normal(seed, 2, inputs, 2 * height, 2 * width)
    weight, bias = normal(seed + 1, outputs, inputs, 3, 3), normal(seed + 2, outputs)
    expected = gather(F.conv2d(x, weight, bias, padding=1), 2)
    got = F.conv2d(gather(x, 2), phases_as_channels(weight), bias.repeat(4), padding=1)
    torch.testing.assert_close(got, expected)


@settings(max_examples=30, deadline=None)
@given(small, small, st.integers(1, 5), st.integers(1, 5), st.integers(0, 99))
def test_upsampling_on_paper(inputs: int, outputs: int, height: int, width: int, seed: int) -> None:
    x, weight = normal(seed, 2, inputs, height, width), normal(seed + 1, outputs, inputs, 3, 3)
    enlarged = x.repeat_interleave(2, 2).repeat_interleave(2, 3)
    expected = gather(F.conv2d(enlarged, weight, padding=1), 2)
    got = F.conv2d(x, phases_as_channels(weight, upsampled=True), padding=1)
    torch.testing.assert_close(got, expected)


def test_pixels_in_order() -> None:
    """What PixelShuffle(2) makes of both phases, read off as 4×4 blocks."""
    x = normal(0, 2, 12, 6, 10)
    expected = gather(nn.PixelShuffle(2)(x), 4)
    got = pixels_in_order(gather(x, 2).transpose(0, 1)).transpose(0, 1)
    torch.testing.assert_close(got, expected)


@settings(max_examples=10, deadline=None)
@given(st.booleans(), st.booleans(), st.integers(0, 99))
def test_batch_normalisation_goes_into_the_convolution(
    relu: bool, with_bias: bool, seed: int
) -> None:
    layer = ConvLayer(3, 4, 3, norm="batch", relu=relu).double().eval()
    convolution, norm = layer[0], layer[1]
    if with_bias:
        convolution.bias = nn.Parameter(normal(seed, 4))
    with torch.no_grad():
        for index, tensor in enumerate((norm.weight, norm.bias, norm.running_mean)):
            tensor.copy_(normal(seed + index, 4))
        norm.running_var.copy_(normal(seed + 4, 4).abs() + 0.1)
    same, weight, bias, rest = take_apart(layer)
    assert same is convolution
    assert [type(module) for module in rest] == [nn.ReLU] * relu
    x = normal(seed + 5, 2, 3, 9, 8)
    got = F.conv2d(F.pad(x, [1] * 4, mode="reflect"), weight, bias)
    torch.testing.assert_close(got.relu() if relu else got, layer(x))
