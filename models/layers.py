"""Layers of the transformer networks, all on float [B, C, H, W]."""

from __future__ import annotations

import itertools
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nst.models.config import Norm
from nst.models.norm import NormStatistics, SubsampledRMSNorm

RESIDUAL_GAIN = 0.3  # initial factor of the residual in a block without normalisation


class Chain(nn.Sequential):
    """A sequence of modules that passes the frame's statistics to those that take them."""

    def forward(self, x: Tensor, statistics: NormStatistics | None = None) -> Tensor:
        for module in self:
            takes = isinstance(module, Chain | ResidualBlock | SubsampledRMSNorm)
            x = module(x, statistics) if takes else module(x)
        return x


class ConvLayer(Chain):
    """Padding by reflection, convolution, normalisation and an optional ReLU.

    Args:
        padding: width of the padding; None for half the kernel. With zeros there, the network would
            paint a frame.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        stride: int = 1,
        *,
        norm: Norm = "instance",
        relu: bool = True,
        padding: int | None = None,
    ) -> None:
        pad = kernel // 2 if padding is None else padding
        mode: Literal["reflect", "zeros"] = "reflect" if pad else "zeros"
        bias = norm in ("none", "subsampled_rms")
        conv = nn.Conv2d(inputs, outputs, kernel, stride, pad, padding_mode=mode, bias=bias)
        parts: list[nn.Module] = [conv]
        if norm == "instance":
            parts.append(nn.InstanceNorm2d(outputs, affine=True))
        elif norm == "subsampled_rms":
            parts.append(SubsampledRMSNorm(outputs))
        elif norm == "batch":
            parts.append(nn.BatchNorm2d(outputs))
        if relu:
            parts.append(nn.ReLU())
        super().__init__(*parts)


class ResidualBlock(nn.Module):
    """Two 3×3 convolutions and a skip connection, without a ReLU after the sum.

    Johnson et al. 2016, supplementary material, after Gross and Wilber.

    Args:
        padding: padding of each convolution, 1 or 0. With 0 the skip connection is cropped by two
            positions on every side, as the convolutions shrink their input.
    """

    def __init__(self, channels: int, norm: Norm = "instance", padding: int = 1) -> None:
        super().__init__()
        self.trim = 2 * (1 - padding)
        # One normalisation in a block is as good as two, and this one costs time.
        before: Norm = "none" if norm == "subsampled_rms" else norm
        first = ConvLayer(channels, channels, 3, norm=before, padding=padding)
        last = ConvLayer(channels, channels, 3, norm=norm, padding=padding, relu=False)
        if norm == "none":  # so that the sum over many blocks stays bounded
            for weight in last.parameters():
                weight.data.mul_(RESIDUAL_GAIN)
        self.body = Chain(first, last)

    def forward(self, x: Tensor, statistics: NormStatistics | None = None) -> Tensor:
        kept = F.pad(x, [-self.trim] * 4) if self.trim else x
        out: Tensor = kept + self.body(x, statistics)
        return out


class PolyphaseUpConv(nn.Module):
    """Bilinear upsampling by 2 and a 3×3 convolution, as one convolution at the lower resolution.

    The four phases of the result, the pixels of a 2×2 block, lie side by side as channels. Bilinear
    upsampling avoids the steps that nearest neighbours make of smooth ramps, and as a part of the
    kernel it costs nothing.

    Takes [B, C, H, W] and gives [B, 4·O, H - 2, W - 2]: the pixels of 2×2 blocks row by row, O
    innermost.
    """

    spread: Tensor

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        initial = nn.Conv2d(inputs, outputs, 3)
        self.weight, self.bias = initial.weight, initial.bias
        # spread[p, k, d]: share of the row d - 1 away that row p of a block sees by tap k.
        spread = torch.zeros(2, 3, 3)
        for p, k in itertools.product(range(2), range(3)):
            block, row = divmod(p + k - 1, 2)
            spread[p, k, block + 1] += 0.75
            spread[p, k, block + (2 if row else 0)] += 0.25
        self.register_buffer("spread", spread, persistent=False)

    def kernel(self) -> tuple[Tensor, Tensor]:
        """Compute weight [4·O, C, 3, 3] and bias [4·O] of the equivalent convolution."""
        assert self.bias is not None
        weight = torch.einsum("pkd,qle,ockl->pqocde", self.spread, self.spread, self.weight)
        return weight.flatten(0, 2), self.bias.repeat(4)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, *self.kernel())


class SubpixelConv(nn.Module):
    """A 3×3 sub-pixel convolution to 2×2 blocks of RGB and a 3×3 blur, as one convolution.

    The blur (1 2 1) removes the checkerboard of two pixels' period that a pixel shuffle leaves.
    Where the features are constant, so is the image.

    Takes the result of `PolyphaseUpConv`, [B, 4·C, H, W], and gives [B, 48, H - 2, W - 2]: the
    pixels of 4×4 blocks row by row, RGB innermost.
    """

    spread: Tensor

    def __init__(self, inputs: int) -> None:
        super().__init__()
        # All pixels of a block start with the same kernel (Aitken et al. 2017).
        initial = nn.Conv2d(inputs, 3, 3)
        self.weight = nn.Parameter(initial.weight.detach().repeat_interleave(4, 0))
        self.bias = nn.Parameter(torch.zeros(3))
        # spread[f, s, k, r, d]: share of phase r in the row of blocks d - 1 away that row f of a
        # 4×4 block takes by tap k of the kernel for row s of a 2×2 block.
        spread = torch.zeros(4, 2, 3, 2, 3)
        for f, (t, share), k in itertools.product(
            range(4), ((-1, 0.25), (0, 0.5), (1, 0.25)), range(3)
        ):
            cell, s = divmod(f + t, 2)
            d, r = divmod(cell + k - 1, 2)
            spread[f, s, k, r, d + 1] += share
        # Flat, because `to(memory_format=torch.channels_last)` rejects tensors of five axes.
        self.register_buffer("spread", spread.flatten(), persistent=False)

    def kernel(self) -> tuple[Tensor, Tensor]:
        """Compute weight [48, 4·C, 3, 3] and bias [48] of the equivalent convolution."""
        weight = self.weight.reshape(3, 2, 2, *self.weight.shape[1:])
        spread = self.spread.view(4, 2, 3, 2, 3)
        weight = torch.einsum("fskrd,gtlqe,ostckl->fgorqcde", spread, spread, weight)
        return weight.flatten(3, 5).flatten(0, 2), self.bias.repeat(16)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, *self.kernel())


class UpsampleLayer(Chain):
    """Nearest-neighbour upsampling by 2, then a `ConvLayer`.

    It replaces Johnson's fractionally strided convolution, which leaves a checkerboard
    (Odena et al. 2016).
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, norm: Norm = "instance") -> None:
        super().__init__(
            nn.Upsample(scale_factor=2, mode="nearest"),
            ConvLayer(inputs, outputs, kernel, norm=norm),
        )
