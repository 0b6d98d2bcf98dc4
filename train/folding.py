"""Convolutions rewritten as others that compute the same, cheaper to run."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from nst.images import Array
from nst.models.layers import ConvLayer
from nst.models.thumbnail import ThumbnailNorm
from nst.models.transformer import RIM, TransformerNet
from nst.tensors import to_tensor

SMALLEST_SCALE = 1e-3  # of a normalised channel that 8-bit integers can still be scaled by


def take_apart(
    layer: nn.Module,
) -> tuple[nn.Conv2d, Tensor, Tensor | None, list[nn.Module]]:
    """(convolution, its weight and bias with batch normalisation folded in, what follows)."""
    assert isinstance(layer, ConvLayer)
    convolution, *rest = layer
    assert isinstance(convolution, nn.Conv2d)
    if rest and isinstance(rest[0], nn.BatchNorm2d):
        return convolution, *fold(convolution, rest[0]), rest[1:]
    return convolution, convolution.weight, convolution.bias, rest


def fold(convolution: nn.Conv2d, norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Weight and bias of a convolution with the batch normalisation after it folded in.

    That normalisation is taken in evaluation mode: with its running statistics.
    """
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
    bias = convolution.bias
    mean = norm.running_mean if bias is None else norm.running_mean - bias
    return convolution.weight * scale.view(-1, 1, 1, 1), norm.bias - mean * scale


@torch.no_grad()
def equalize(network: TransformerNet, photographs: Sequence[Array]) -> TransformerNet:
    """A copy that computes the same, where every channel to be normalised comes at one scale.

    Its mean is 0 and its deviation 1 over all photographs, so that one 8-bit scale serves all
    channels alike; the normalisation undoes it. No scale is nearly nothing. A network that takes no
    thumbnail's statistics is left as it is.

    Args:
        photographs: HWC uint8 RGB.
    """
    if network.config.norm != "thumbnail":
        return network
    network = copy.deepcopy(network)
    layers = [
        (layer[0], layer[1])
        for layer in network.modules()
        if isinstance(layer, ConvLayer)
        and len(layer) > 1
        and isinstance(layer[0], nn.Conv2d)
        and isinstance(layer[1], ThumbnailNorm)
    ]
    seen: dict[nn.Module, Tensor] = {}
    sums = [torch.zeros(2, norm.weight.numel(), dtype=torch.float64) for _, norm in layers]

    def see(module: nn.Module, _: object, output: Tensor) -> None:
        seen[module] = output.double()  # of the thumbnail, then of the frame

    kind = network.output.weight.dtype
    hooks = [convolution.register_forward_hook(see) for convolution, _ in layers]
    for photograph in photographs:
        network(to_tensor(photograph).to(kind), RIM)
        for (convolution, _), total in zip(layers, sums, strict=True):
            x = seen[convolution]
            total += torch.stack([x.mean((0, 2, 3)), x.square().mean((0, 2, 3))])
    for hook in hooks:
        hook.remove()
    for (convolution, norm), total in zip(layers, sums, strict=True):
        mean, square = (total / len(photographs)).to(norm.weight.dtype)
        unit = torch.sqrt((square - mean**2).clamp(min=1e-12))
        convolution.weight /= unit.view(-1, 1, 1, 1)
        convolution.bias = nn.Parameter(-mean / unit)
        norm.epsilon /= unit**2
    for module in network.modules():
        if isinstance(module, ThumbnailNorm):
            least = torch.copysign(torch.tensor(SMALLEST_SCALE), module.weight)
            module.weight.copy_(
                torch.where(module.weight.abs() < SMALLEST_SCALE, least, module.weight)
            )
    return network


def for_bytes(weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor]:
    """A first convolution that takes pixels of 0 to 255 where it took them scaled to [-1, 1]."""
    shift = -weight.sum(dim=(1, 2, 3))  # seen through reflection padding
    return weight / 127.5, shift if bias is None else bias + shift


def blocks_as_channels(weight: Tensor, grid: int) -> Tensor:
    """A convolution of stride `grid` as one of stride 1 on blocks of grid × grid pixels.

    Args:
        weight: [O, C, K, K], K a multiple of `grid`.

    Returns:
        [O, grid·grid·C, K / grid, K / grid]; the pixels of a block row by row, C innermost.
    """
    outputs, inputs, side, _ = weight.shape
    blocks = side // grid
    x = weight.reshape(outputs, inputs, blocks, grid, blocks, grid)
    return x.permute(0, 3, 5, 1, 2, 4).reshape(outputs, -1, blocks, blocks)
