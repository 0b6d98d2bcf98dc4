"""Convolutions rewritten as others: the same numbers as the plain way, in double precision."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from nst.io.images import Array
from nst.models.config import TransformerConfig
from nst.models.layers import ConvLayer
from nst.models.norm import SubsampledRMSNorm
from nst.models.transformer import TransformerNet
from nst.perceptual.tensors import to_tensor
from nst.train.export.folding import (
    SMALLEST_SCALE,
    blocks_as_channels,
    equalize,
    take_apart,
)

small = st.integers(1, 4)


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def gather(x: Tensor, grid: int) -> Tensor:
    """[B, C, H, W] as [B, grid·grid·C, H / grid, W / grid], C innermost: by slices."""
    rows = [x[:, :, i::grid, j::grid] for i in range(grid) for j in range(grid)]
    return torch.cat(rows, 1)


@settings(max_examples=30)
@given(small, small, st.integers(1, 4), st.integers(1, 3), st.integers(0, 99))
def test_strides_as_blocks(inputs: int, outputs: int, grid: int, blocks: int, seed: int) -> None:
    x = normal(seed, 2, inputs, grid * (blocks + 2), grid * (blocks + 1))
    weight = normal(seed + 1, outputs, inputs, grid * blocks, grid * blocks)
    expected = F.conv2d(x, weight, stride=grid)
    torch.testing.assert_close(
        F.conv2d(gather(x, grid), blocks_as_channels(weight, grid)), expected
    )


@settings(max_examples=10)
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


@settings(max_examples=10)
@given(st.integers(0, 99))
def test_equalizing_leaves_the_network_as_it_was(seed: int) -> None:
    """In double precision: the normalisation undoes it, and epsilon goes along."""
    torch.manual_seed(seed)
    network = TransformerNet(
        TransformerConfig(6, 2, "subsampled_rms", "subpixel", half_channels=4)
    ).double()
    norms = [module for module in network.modules() if isinstance(module, SubsampledRMSNorm)]
    for norm in norms:
        nn.init.normal_(norm.weight)
        norm.weight.data += torch.sign(norm.weight) * 0.01  # those that are nearly nothing change
    with torch.no_grad():
        network.encoder[0][0].weight[0] *= 1e-3  # a channel that hardly varies
    images = [smooth(seed + index) for index in range(2)]
    equal = equalize(network, images)
    batch = to_tensor(images[0]).double()
    with torch.no_grad():
        torch.testing.assert_close(equal(batch), network(batch), rtol=1e-6, atol=1e-3)
        first = torch.cat(
            [
                equal.encoder[0][0](equal._padded(to_tensor(i).double(), equal.export_padding))
                for i in images
            ]
        )
    # A root mean square of 1, epsilon left out, in the sample.
    squares = first[..., ::4, ::4].square().mean((0, 2, 3)) + equal.encoder[0][1].epsilon
    torch.testing.assert_close(squares, torch.ones(6).double())
    network.encoder[0][1].weight.data[:2] = torch.tensor([0.0, -1e-9])
    scales = equalize(network, images).encoder[0][1].weight[:2].tolist()
    assert scales == pytest.approx([SMALLEST_SCALE, -SMALLEST_SCALE])


def smooth(seed: int) -> Array:
    """A random image, HWC uint8 RGB, with structure."""
    rng = np.random.default_rng(seed)
    return cv2.resize(rng.integers(0, 256, (9, 12, 3), np.uint8), (52, 44))
