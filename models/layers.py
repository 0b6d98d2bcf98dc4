"""Blocks of the transformer networks, all on float [B, C, H, W]."""

from __future__ import annotations

from torch import Tensor, nn


class ConvLayer(nn.Sequential):
    """Reflection padding, convolution, and optionally instance normalisation and ReLU.

    Reflection, because zeros at the edge would be painted as a frame.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        stride: int = 1,
        *,
        norm: bool = True,
        relu: bool = True,
    ) -> None:
        convolution = nn.Conv2d(
            inputs, outputs, kernel, stride, kernel // 2, padding_mode="reflect", bias=not norm
        )
        parts: list[nn.Module] = [convolution]
        if norm:
            parts.append(nn.InstanceNorm2d(outputs, affine=True))
        if relu:
            parts.append(nn.ReLU())
        super().__init__(*parts)


class ResidualBlock(nn.Module):
    """Two 3×3 convolutions beside the identity, no ReLU after the sum.

    Johnson et al. 2016, supplementary material, after Gross and Wilber.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            ConvLayer(channels, channels, 3), ConvLayer(channels, channels, 3, relu=False)
        )

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.body(x)
        return out


class UpsampleLayer(nn.Sequential):
    """Nearest-neighbour upsampling by 2, then a `ConvLayer`.

    In place of Johnson's fractionally strided convolution, which leaves a checkerboard
    (Odena et al. 2016).
    """

    def __init__(self, inputs: int, outputs: int, kernel: int) -> None:
        super().__init__(
            nn.Upsample(scale_factor=2, mode="nearest"), ConvLayer(inputs, outputs, kernel)
        )
