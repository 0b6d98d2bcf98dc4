"""The feed-forward network that repaints an image in one pass (Johnson et al. 2016)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nst.models.config import PRESETS, TransformerConfig, preset_config
from nst.models.layers import (
    Chain,
    ConvLayer,
    PolyphaseUpConv,
    ResidualBlock,
    SubpixelConv,
    UpsampleLayer,
)
from nst.models.norm import NormStatistics

__all__ = ["PRESETS", "TransformerConfig", "TransformerNet", "preset_config"]

SMALLEST_SIDE = 32  # side of an image, in pixels


class TransformerNet(nn.Module):
    """An encoder to a quarter of the resolution, residual blocks, a decoder back to RGB.

    Call it with float [B, 3, H, W] RGB in [0, 255], H and W at least 32 and multiples of
    nothing; it returns the same shape and range, not clipped.

    Attributes:
        export_padding: pixels by which an export continues the image by reflection, and which it cuts off
            again, so that nothing is seen of what padding does to the border.
        context: of its config; every image is continued by it, as no convolution pads.
    """

    def __init__(self, config: TransformerConfig | None = None) -> None:
        super().__init__()
        self.config = config or TransformerConfig()
        self.context = self.config.context
        if self.config.architecture == "subpixel":
            self._build_subpixel()
        else:
            self._build_johnson()

        # A first output near mid-grey: a loud one sends the first reflection_steps astray.
        assert self.output.bias is not None
        nn.init.zeros_(self.output.bias)
        with torch.no_grad():
            self.output.weight.mul_(0.1)

    def _build_johnson(self) -> None:
        """Two strided convolutions, two upsamplings, a 9×9 convolution."""
        width, norm = self.config.width, self.config.norm
        self.encoder = Chain(
            ConvLayer(3, width, 9, norm=norm),
            ConvLayer(width, 2 * width, 3, 2, norm=norm),
            ConvLayer(2 * width, 4 * width, 3, 2, norm=norm),
        )
        self.residuals = Chain(*(ResidualBlock(4 * width, norm) for _ in range(self.config.blocks)))
        self.decoder = Chain(
            UpsampleLayer(4 * width, 2 * width, 3, norm), UpsampleLayer(2 * width, width, 3, norm)
        )
        self.output: nn.Conv2d | SubpixelConv
        self.output = nn.Conv2d(width, 3, 9, padding=4, padding_mode="reflect")
        # VGG pads with zeros, so training teaches to paint a strip of about three pixels.
        self.grid, self.export_padding = 1, 8

    def _build_subpixel(self) -> None:
        """A convolution of stride 4, residual blocks, an upsampling, a convolution to pixels."""
        width, norm = self.config.width, self.config.norm
        self.encoder = Chain(ConvLayer(3, width, 8, 4, norm=norm, padding=0))
        self.residuals = Chain(
            *(ResidualBlock(width, norm, padding=0) for _ in range(self.config.blocks))
        )
        self.decoder = Chain(PolyphaseUpConv(width, self.config.half_channels), nn.ReLU())
        self.output = SubpixelConv(self.config.half_channels)
        self.grid, self.export_padding = 4, 0

    @property
    def receptive_radius(self) -> int | None:
        """Pixels around one on which its result depends, given the statistics; None for all."""
        if self.config.norm == "instance":
            return None
        if self.config.architecture == "johnson":
            # Half of each kernel times its stride, and what upsampling adds by rounding.
            return 24 + 8 * self.config.blocks
        return self.context + 3  # and the pixels of the block itself

    def statistics(self, image: Tensor, export_padding: int = 0) -> Tensor | None:
        """What the network takes from the frame as a whole: [B, K].

        The root mean squares of K channels; None for a network that can't be given them.
        """
        if self.config.norm != "subsampled_rms":
            return None
        found = NormStatistics()
        self.residuals(self.encoder(self._padded(image, export_padding), found), found)
        return found.found()

    def forward(
        self,
        image: Tensor,
        export_padding: int = 0,
        statistics: Tensor | None = None,
        *,
        has_context: bool = False,
    ) -> Tensor:
        """Repaint.

        Args:
            image: float [B, 3, H, W] in [0, 255].
            export_padding: how many pixels the image is continued by reflection, so that its border is inside.
            statistics: those of another frame, or of the image that this is a piece of; None for
                its own.
            has_context: the outermost `context` pixels are what surrounds the image, and are not
                repainted: the result is smaller by them.
        """
        around = self.context if has_context else 0
        height, width = (side - 2 * around for side in image.shape[-2:])
        taken = NormStatistics(statistics)
        x = self._padded(image, export_padding, around)
        x = self.residuals(self.encoder(x, taken), taken)
        x = self.output(self.decoder(x))
        if self.config.architecture == "subpixel":
            pixels = x.reshape(len(x), 16, 3, *x.shape[2:]).transpose(1, 2)
            x = F.pixel_shuffle(pixels.flatten(1, 2), 4)
        # Strides round up, so the result covers the image: its overhang goes. In float, because
        # bf16 has no room for 256 levels.
        x = x[
            ..., export_padding : export_padding + height, export_padding : export_padding + width
        ]
        return x.float() * 127.5 + 127.5

    def _padded(self, image: Tensor, export_padding: int, around: int = 0) -> Tensor:
        """What the first convolution sees: [-1, 1], with a context that is reflected.

        Args:
            around: so much of the context is there already.
        """
        x, pads = image, reflection_steps(export_padding + self.context - around)
        below, right = (
            -(2 * (export_padding - around) + side) % self.grid for side in image.shape[-2:]
        )
        for pad in pads[:-1]:
            x = F.pad(x, [pad] * 4, mode="reflect")
        last = pads[-1] if pads else 0
        if last or below or right:
            x = F.pad(x, [last, last + right, last, last + below], mode="reflect")
        return x / 127.5 - 1


def reflection_steps(context: int) -> list[int]:
    """A context in parts, one after another: the smallest image can't be reflected any further."""
    parts = -(-context // (SMALLEST_SIDE - 4))  # and 3 pixels more, for whole blocks
    return [len(range(part, context, parts)) for part in range(parts)]
