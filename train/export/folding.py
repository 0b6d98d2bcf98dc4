"""Rewrites convolutions as equivalent ones that run faster or quantise better."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from nst.io.images import Array
from nst.models.layers import ConvLayer
from nst.models.norm import SubsampledRMSNorm
from nst.models.transformer import TransformerNet
from nst.perceptual.tensors import to_tensor

SMALLEST_SCALE = 1e-3  # least scale of a normalised channel that 8-bit integers can represent


def take_apart(
    layer: nn.Module,
) -> tuple[nn.Conv2d, Tensor, Tensor | None, list[nn.Module]]:
    """Split a `ConvLayer` into its convolution, weight, bias and the modules after it.

    A batch normalisation is folded into weight and bias.
    """
    assert isinstance(layer, ConvLayer)
    convolution, *rest = layer
    assert isinstance(convolution, nn.Conv2d)
    if rest and isinstance(rest[0], nn.BatchNorm2d):
        return convolution, *fold(convolution, rest[0]), rest[1:]
    return convolution, convolution.weight, convolution.bias, rest


def fold(convolution: nn.Conv2d, norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Fold a batch normalisation into the weight and bias of the convolution before it.

    The normalisation is the one of evaluation mode, with its running statistics.
    """
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
    bias = convolution.bias
    mean = norm.running_mean if bias is None else norm.running_mean - bias
    return convolution.weight * scale.view(-1, 1, 1, 1), norm.bias - mean * scale


@torch.no_grad()
def equalize(network: TransformerNet, photographs: Sequence[Array]) -> TransformerNet:
    """Return an equivalent copy in which all channels before a `SubsampledRMSNorm` have one scale.

    Each has a root mean square of 1 over all photographs, so that one 8-bit scale serves all
    channels alike; the normalisation undoes the change. Its own scales are kept from vanishing.
    Networks without that normalisation are returned unchanged.

    Args:
        photographs: HWC uint8 RGB.
    """
    if network.config.norm != "subsampled_rms":
        return network
    network = copy.deepcopy(network)
    kind = network.output.weight.dtype
    seen = [network.statistics(to_tensor(p).to(kind), network.export_padding) for p in photographs]
    squares = torch.cat([s.double().square() for s in seen if s is not None]).mean(0)
    start = 0
    for layer in network.modules():
        if not isinstance(layer, ConvLayer) or not isinstance(norm := layer[1], SubsampledRMSNorm):
            continue
        convolution, stop = layer[0], start + norm.weight.numel()
        assert isinstance(convolution, nn.Conv2d)
        assert convolution.bias is not None
        unit = torch.sqrt(squares[start:stop]).to(kind)
        start = stop
        convolution.weight /= unit.view(-1, 1, 1, 1)
        convolution.bias /= unit
        norm.epsilon /= unit**2
        least = torch.copysign(torch.tensor(SMALLEST_SCALE), norm.weight)
        norm.weight.copy_(torch.where(norm.weight.abs() < SMALLEST_SCALE, least, norm.weight))
    return network


def for_bytes(weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor]:
    """Adapt a first convolution made for pixels in [-1, 1] to pixels of 0 to 255."""
    shift = -weight.sum(dim=(1, 2, 3))  # exact at borders too, as padding reflects
    return weight / 127.5, shift if bias is None else bias + shift


def blocks_as_channels(weight: Tensor, grid: int) -> Tensor:
    """Turn a convolution of stride `grid` into one of stride 1 on blocks of grid × grid pixels.

    Args:
        weight: [O, C, K, K], K a multiple of `grid`.

    Returns:
        [O, grid·grid·C, K / grid, K / grid], with the pixels of a block row by row, C innermost.
    """
    outputs, inputs, side, _ = weight.shape
    blocks = side // grid
    # Axes: output, input, block row, row in the block, block column, column in the block.
    x = weight.reshape(outputs, inputs, blocks, grid, blocks, grid)
    return x.permute(0, 3, 5, 1, 2, 4).reshape(outputs, -1, blocks, blocks)
