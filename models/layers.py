"""Blocks of the transformer networks, all on float [B, C, H, W]."""

from __future__ import annotations

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nst.models.config import Norm
from nst.models.norm import NormStatistics, SubsampledRMSNorm

RESIDUAL_GAIN = 0.3  # of what a block without normalisation adds at first


class Chain(nn.Sequential):
    """Modules one after another; those that need the frame's statistics get them."""

    def forward(self, x: Tensor, statistics: NormStatistics | None = None) -> Tensor:
        for module in self:
            takes = isinstance(module, Chain | ResidualBlock | SubsampledRMSNorm)
            x = module(x, statistics) if takes else module(x)
        return x


class ConvLayer(Chain):
    """Padding by reflection, convolution, normalisation and, if wanted, ReLU.

    Args:
        padding: how wide; None for half the kernel. Zeros there would be painted as a frame.
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
        parts: list[nn.Module] = [
            nn.Conv2d(
                inputs,
                outputs,
                kernel,
                stride,
                pad,
                padding_mode="reflect" if pad else "zeros",
                bias=norm in ("none", "subsampled_rms"),
            )
        ]
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
    """Two 3×3 convolutions beside the identity, no ReLU after the sum.

    Johnson et al. 2016, supplementary material, after Gross and Wilber.

    Args:
        padding: of each convolution, 1 or 0. Without it the identity is trimmed, as they leave two
            positions out on every side.
    """

    def __init__(self, channels: int, norm: Norm = "instance", padding: int = 1) -> None:
        super().__init__()
        self.trim = 2 * (1 - padding)
        # Once a block is as good as twice, where normalisation has its price.
        before: Norm = "none" if norm == "subsampled_rms" else norm
        first = ConvLayer(channels, channels, 3, norm=before, padding=padding)
        last = ConvLayer(channels, channels, 3, norm=norm, padding=padding, relu=False)
        if norm == "none":  # so that the sum of many blocks does not grow out of hand
            for weight in last.parameters():
                weight.data.mul_(RESIDUAL_GAIN)
        self.body = Chain(first, last)

    def forward(self, x: Tensor, statistics: NormStatistics | None = None) -> Tensor:
        kept = F.pad(x, [-self.trim] * 4) if self.trim else x
        out: Tensor = kept + self.body(x, statistics)
        return out


class PolyphaseUpConv(nn.Module):
    """Bilinear upsampling by 2 and a 3×3 convolution, computed before the upsampling.

    The four pixels that come of one lie side by side as channels. Bilinear, because nearest
    neighbours would make steps of smooth ramps; folded in, it costs nothing.

    Takes [B, C, H, W] and gives [B, 4·O, H - 2, W - 2], a 2×2 block row by row, O innermost.
    """

    spread: Tensor

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        plain = nn.Conv2d(inputs, outputs, 3)
        self.weight, self.bias = plain.weight, plain.bias
        # Row p of a block sees, through tap k, so much of the block d - 1 away.
        spread = torch.zeros(2, 3, 3)
        for p, k in itertools.product(range(2), range(3)):
            block, row = divmod(p + k - 1, 2)
            spread[p, k, block + 1] += 0.75
            spread[p, k, block + (2 if row else 0)] += 0.25
        self.register_buffer("spread", spread, persistent=False)

    def kernel(self) -> tuple[Tensor, Tensor]:
        """Weight [4·O, C, 3, 3] and bias [4·O] of the convolution that does it all."""
        assert self.bias is not None
        weight = torch.einsum("pkd,qle,ockl->pqocde", self.spread, self.spread, self.weight)
        return weight.flatten(0, 2), self.bias.repeat(4)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, *self.kernel())


class SubpixelConv(nn.Module):
    """A 3×3 convolution to the pixels of 2×2 blocks, blurred over 3×3 pixels, from phases.

    The blur (1 2 1) takes away what a shuffle of pixels leaves: a mesh of two pixels' period.
    Where the features are constant, so is the picture.

    Takes what `PolyphaseUpConv` gives, [B, 4·C, H, W], and gives [B, 48, H - 2, W - 2]: the pixels of
    4×4 blocks row by row, RGB innermost.
    """

    spread: Tensor

    def __init__(self, inputs: int) -> None:
        super().__init__()
        # One kernel for all pixels of a block at first (Aitken et al. 2017).
        plain = nn.Conv2d(inputs, 3, 3)
        self.weight = nn.Parameter(plain.weight.detach().repeat_interleave(4, 0))
        self.bias = nn.Parameter(torch.zeros(3))
        # Row f of a block takes, of the pixels s within theirs and through tap k, so much of phase
        # r of the block d - 1 away.
        spread = torch.zeros(4, 2, 3, 2, 3)
        for f, (t, share), k in itertools.product(
            range(4), ((-1, 0.25), (0, 0.5), (1, 0.25)), range(3)
        ):
            cell, s = divmod(f + t, 2)
            d, r = divmod(cell + k - 1, 2)
            spread[f, s, k, r, d + 1] += share
        # Flat, because `to(memory_format=torch.channels_last)` refuses five axes.
        self.register_buffer("spread", spread.flatten(), persistent=False)

    def kernel(self) -> tuple[Tensor, Tensor]:
        """Weight [48, 4·C, 3, 3] and bias [48] of the convolution that does it all."""
        weight = self.weight.reshape(3, 2, 2, *self.weight.shape[1:])
        spread = self.spread.view(4, 2, 3, 2, 3)
        weight = torch.einsum("fskrd,gtlqe,ostckl->fgorqcde", spread, spread, weight)
        return weight.flatten(3, 5).flatten(0, 2), self.bias.repeat(16)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, *self.kernel())


class UpsampleLayer(Chain):
    """Nearest-neighbour upsampling by 2, then a `ConvLayer`.

    In place of Johnson's fractionally strided convolution, which leaves a checkerboard
    (Odena et al. 2016).
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        norm: Norm = "instance",
    ) -> None:
        super().__init__(
            nn.Upsample(scale_factor=2, mode="nearest"),
            ConvLayer(inputs, outputs, kernel, norm=norm),
        )
