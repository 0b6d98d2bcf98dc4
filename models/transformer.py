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

SMALLEST_SIDE = 32  # pixels, of an image


class TransformerNet(nn.Module):
    """An encoder to a quarter of the resolution, residual blocks, a decoder back to RGB.

    Call it with float [B, 3, H, W] RGB in [0, 255], of any H and W from 32 on. It returns the same
    shape and range, not clipped.

    Attributes:
        context: pixels by which every image is extended, as no convolution pads; from the config.
        export_padding: pixels by which an export extends the image by reflection and then crops the
            result, so that the effects of padding on the border are not visible.
        grid: number of pixels of which the padded sides must be multiples.
    """

    def __init__(self, config: TransformerConfig | None = None) -> None:
        super().__init__()
        self.config = config or TransformerConfig()
        self.context = self.config.context
        if self.config.architecture == "subpixel":
            self._build_subpixel()
        else:
            self._build_johnson()

        # Start near mid-grey: a first output of high contrast misleads the first steps.
        assert self.output.bias is not None
        nn.init.zeros_(self.output.bias)
        with torch.no_grad():
            self.output.weight.mul_(0.1)

    def _build_johnson(self) -> None:
        """Build two strided convolutions, the blocks, two upsamplings and a 9×9 convolution."""
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
        # VGG pads with zeros, so training makes the network paint a strip of about three pixels.
        self.grid, self.export_padding = 1, 8

    def _build_subpixel(self) -> None:
        """Build a convolution of stride 4, the blocks, an upsampling, a sub-pixel convolution."""
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
        """Return the radius on which a pixel depends, given the statistics; None for all pixels."""
        if self.config.norm == "instance":
            return None
        if self.config.architecture == "johnson":
            # Half of each kernel times its stride, plus the rounding of the upsampling.
            return 24 + 8 * self.config.blocks
        return self.context + 3  # plus the pixels of the block itself

    def statistics(self, image: Tensor, export_padding: int = 0) -> Tensor | None:
        """Measure the statistics of the whole frame that the network uses: [B, K].

        They are the root mean squares of K channels; None for a network that takes no statistics.
        Arguments are those of `forward`.
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
        """Repaint images.

        Args:
            image: float [B, 3, H, W] RGB in [0, 255].
            export_padding: pixels by which to extend the image by reflection before, and to crop
                the result after.
            statistics: [B, K], from another frame, or from the image of which this is a tile; None
                to measure those of `image`.
            has_context: the outermost `context` pixels of `image` are its surroundings and are not
                repainted: the result is smaller by them.

        Returns:
            Float [B, 3, H, W] RGB in [0, 255], not clipped.
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
        # Strides round up, so the result is at least as large as the image: crop it. In float,
        # because bf16 cannot represent 256 levels.
        x = x[..., export_padding:, export_padding:][..., :height, :width]
        return x.float() * 127.5 + 127.5

    def _padded(self, image: Tensor, export_padding: int, around: int = 0) -> Tensor:
        """Scale `image` to [-1, 1] and extend it by reflection for the first convolution.

        Args:
            around: pixels of context that `image` has already.
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
    """Split a context into successive reflections, each possible for the smallest image."""
    parts = -(-context // (SMALLEST_SIDE - 4))  # leaves room for 3 pixels more, for whole blocks
    return [len(range(part, context, parts)) for part in range(parts)]
