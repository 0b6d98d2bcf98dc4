"""Blocks of the transformer networks, all on float [B, C, H, W]."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from nst.models.config import Norm
from nst.models.thumbnail import Statistics, ThumbnailNorm

PaddingMode = Literal["reflect", "zeros"]
RESIDUAL_GAIN = 0.3  # of what a block without normalisation adds at first


class Chain(nn.Sequential):
    """Modules one after another; those that need the frame's statistics get them."""

    def forward(self, x: Tensor, statistics: Statistics | None = None) -> Tensor:
        for module in self:
            takes = isinstance(module, Chain | ResidualBlock | ThumbnailNorm)
            x = module(x, statistics) if takes else module(x)
        return x


class ConvLayer(Chain):
    """Padding, convolution, normalisation and, if wanted, ReLU.

    Args:
        padding: how wide; None for half the kernel.
        padding_mode: `reflect`, because zeros at the edge would be painted as a frame, or `zeros`.
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
        padding_mode: PaddingMode = "reflect",
    ) -> None:
        parts: list[nn.Module] = [
            nn.Conv2d(
                inputs,
                outputs,
                kernel,
                stride,
                kernel // 2 if padding is None else padding,
                padding_mode=padding_mode,
                bias=norm == "none",
            )
        ]
        if norm == "instance":
            parts.append(nn.InstanceNorm2d(outputs, affine=True))
        elif norm == "thumbnail":
            parts.append(ThumbnailNorm(outputs))
        elif norm == "batch":
            parts.append(nn.BatchNorm2d(outputs))
        if relu:
            parts.append(nn.ReLU())
        super().__init__(*parts)


class ResidualBlock(nn.Module):
    """Two 3×3 convolutions beside the identity, no ReLU after the sum.

    Johnson et al. 2016, supplementary material, after Gross and Wilber.
    """

    def __init__(
        self, channels: int, norm: Norm = "instance", padding_mode: PaddingMode = "reflect"
    ) -> None:
        super().__init__()
        last = ConvLayer(channels, channels, 3, norm=norm, padding_mode=padding_mode, relu=False)
        if norm == "none":  # so that the sum of many blocks does not grow out of hand
            for weight in last.parameters():
                weight.data.mul_(RESIDUAL_GAIN)
        self.body = Chain(
            ConvLayer(channels, channels, 3, norm=norm, padding_mode=padding_mode), last
        )

    def forward(self, x: Tensor, statistics: Statistics | None = None) -> Tensor:
        out: Tensor = x + self.body(x, statistics)
        return out


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
        padding_mode: PaddingMode = "reflect",
    ) -> None:
        super().__init__(
            nn.Upsample(scale_factor=2, mode="nearest"),
            ConvLayer(inputs, outputs, kernel, norm=norm, padding_mode=padding_mode),
        )
