"""What a folded network knows of the frame as a whole: a few numbers, read from a thumbnail.

Instance normalisation by the statistics of a thumbnail (Chen et al. 2022, "Towards
Ultra-Resolution Neural Style Transfer via Thumbnail Instance Normalization") makes no pixel depend
on far ones but through these numbers. They cost next to nothing, all tiles of an image share them,
and a video may hold them steady.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nst.models.config import thumbnail_steps

EPSILON = 1e-3


def thumbnail(image: Tensor) -> Tensor:
    """Every second pixel down and across, or every third, …, of a large image.

    Args:
        image: [B, C, H, W].

    Returns:
        [B, C, h, w], h and w at most `THUMBNAIL_SIDE`.
    """
    down, right = thumbnail_steps(image.shape[-2], image.shape[-1])
    return image[..., down // 2 :: down, right // 2 :: right]


class Statistics:
    """Means and deviations of channels, layer after layer: read from a pass, or given to one.

    Args:
        given: [B, K, 2], the mean and the deviation of the channels of all normalisations in
            their order; None to take them from what passes.
    """

    def __init__(self, given: Tensor | None = None) -> None:
        self._given = given
        self._found: list[Tensor] = []
        self._place = 0

    def of(self, x: Tensor, epsilon: Tensor) -> Tensor:
        """Those of the next layer, [B, C, 2], whose values `x` are [B, C, H, W].

        Args:
            epsilon: [C], added to the variances.
        """
        if self._given is None:
            variance, mean = torch.var_mean(x.float(), (2, 3), correction=0)
            self._found.append(torch.stack([mean, torch.sqrt(variance + epsilon)], 2))
            return self._found[-1]
        start, self._place = self._place, self._place + x.shape[1]
        return self._given[:, start : self._place]

    def found(self) -> Tensor:
        """What was read, as `given` takes it."""
        return torch.cat(self._found, 1)


class ThumbnailNorm(nn.Module):
    """Instance normalisation with a learned scale and shift, by statistics that are handed in."""

    epsilon: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("epsilon", torch.full((channels,), EPSILON), persistent=False)

    def forward(self, x: Tensor, statistics: Statistics) -> Tensor:
        mean, deviation = statistics.of(x, self.epsilon).unbind(2)
        scale = self.weight / deviation
        shift = self.bias - mean * scale
        return x * scale[..., None, None].to(x.dtype) + shift[..., None, None].to(x.dtype)
