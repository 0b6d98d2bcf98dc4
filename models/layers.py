"""Blocks of the transformer networks, all on float [B, C, H, W]."""

from __future__ import annotations

from torch import Tensor, nn

from nst.models.config import Norm


def _norm(kind: Norm, channels: int) -> nn.Module:
    if kind == "batch":
        return nn.BatchNorm2d(channels)
    return nn.InstanceNorm2d(channels, affine=True)


class ConvLayer(nn.Sequential):
    """Reflection padding, convolution, normalisation and, if wanted, ReLU.

    Reflection, because zeros at the edge would be painted as a frame.
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
    ) -> None:
        convolution = nn.Conv2d(
            inputs, outputs, kernel, stride, kernel // 2, padding_mode="reflect", bias=False
        )
        parts: list[nn.Module] = [convolution, _norm(norm, outputs)]
        if relu:
            parts.append(nn.ReLU())
        super().__init__(*parts)


class ResidualBlock(nn.Module):
    """Two 3×3 convolutions beside the identity, no ReLU after the sum.

    Johnson et al. 2016, supplementary material, after Gross and Wilber.
    """

    def __init__(self, channels: int, norm: Norm = "instance") -> None:
        super().__init__()
        self.body = nn.Sequential(
            ConvLayer(channels, channels, 3, norm=norm),
            ConvLayer(channels, channels, 3, norm=norm, relu=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.body(x)
        return out


class UpsampleLayer(nn.Sequential):
    """Nearest-neighbour upsampling by 2, then a `ConvLayer`.

    In place of Johnson's fractionally strided convolution, which leaves a checkerboard
    (Odena et al. 2016).
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, norm: Norm = "instance") -> None:
        super().__init__(
            nn.Upsample(scale_factor=2, mode="nearest"),
            ConvLayer(inputs, outputs, kernel, norm=norm),
        )
