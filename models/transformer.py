"""The feed-forward network that repaints an image in one pass (Johnson et al. 2016)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nst.models.config import PRESETS, TransformerConfig, preset_config
from nst.models.layers import ConvLayer, ResidualBlock, UpsampleLayer

__all__ = ["PRESETS", "TransformerConfig", "TransformerNet", "preset_config"]


# VGG pads with zeros, so training teaches a network to paint a strip of about three pixels along
# the border. An export sees a reflected rim of this width, and the strip goes with it.
RIM = 8


class TransformerNet(nn.Module):
    """Two strided convolutions, residual blocks, two upsamplings, a 9×9 convolution to RGB.

    Call it with float [B, 3, H, W] RGB in [0, 255], H and W at least 32 and multiples of
    nothing; it returns the same shape and range, not clipped.
    """

    def __init__(self, config: TransformerConfig | None = None) -> None:
        super().__init__()
        self.config = config or TransformerConfig()
        width, norm = self.config.width, self.config.norm
        self.encoder = nn.Sequential(
            ConvLayer(3, width, 9, norm=norm),
            ConvLayer(width, 2 * width, 3, 2, norm=norm),
            ConvLayer(2 * width, 4 * width, 3, 2, norm=norm),
        )
        self.residuals = nn.Sequential(
            *(ResidualBlock(4 * width, norm) for _ in range(self.config.blocks))
        )
        self.decoder = nn.Sequential(
            UpsampleLayer(4 * width, 2 * width, 3, norm), UpsampleLayer(2 * width, width, 3, norm)
        )
        self.output = nn.Conv2d(width, 3, 9, padding=4, padding_mode="reflect")

        # A first output near mid-grey: a loud one sends the first steps astray.
        assert self.output.bias is not None
        nn.init.zeros_(self.output.bias)
        with torch.no_grad():
            self.output.weight.mul_(0.1)

    def forward(self, image: Tensor) -> Tensor:
        height, width = image.shape[-2:]
        x = self.encoder(image / 127.5 - 1)
        x = self.output(self.decoder(self.residuals(x)))
        # Strides round up, so the result covers the image: its overhang goes. In float, because
        # bf16 has no room for 256 levels.
        return x[..., :height, :width].float() * 127.5 + 127.5
