"""Normalisation by statistics of the whole frame, measured on a subset of its positions.

Instance normalisation (Ulyanov et al. 2016) subtracts the mean of a channel over the frame and
divides by the deviation. `SubsampledRMSNorm` divides by the root mean square, as RMSNorm does
(Zhang and Sennrich 2019). The results look as good, and one statistic per channel is enough. One
position in sixteen estimates it almost as well as all: an export computes a convolution there
first, and then scales the weights for the whole frame. Distant pixels affect each other only
through these statistics, so the tiles of an image can share them, and a video can keep them steady.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

STEP = 4  # the sample has every fourth row and column
EPSILON = 1e-3


class NormStatistics:
    """Root mean squares of channels, layer after layer: measured, or given.

    Args:
        given: [B, K], statistics of the channels of all normalisations in their order; None to
            measure them.
    """

    def __init__(self, given: Tensor | None = None) -> None:
        self._given = given
        self._found: list[Tensor] = []
        self._place = 0

    def of(self, sample: Tensor, epsilon: Tensor) -> Tensor:
        """Return the statistics of the next layer, [B, C].

        Args:
            sample: values of the layer, [B, C, H, W], to measure unless statistics are given.
            epsilon: [C], added to the mean squares.
        """
        if self._given is None:
            squares = sample.float().square().mean((2, 3))
            self._found.append(torch.sqrt(squares + epsilon))
            return self._found[-1]
        start, self._place = self._place, self._place + sample.shape[1]
        return self._given[:, start : self._place]

    def found(self) -> Tensor:
        """Return the measured statistics of all layers, in the form of `given`."""
        return torch.cat(self._found, 1)


class SubsampledRMSNorm(nn.Module):
    """Divides each channel by its root mean square in a sample of the frame, and scales it.

    The scale of a channel is learned. Takes and gives [B, C, H, W].
    """

    epsilon: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.register_buffer("epsilon", torch.full((channels,), EPSILON), persistent=False)

    def forward(self, x: Tensor, statistics: NormStatistics | None = None) -> Tensor:
        sample = x[..., ::STEP, ::STEP]
        scale = self.weight / (statistics or NormStatistics()).of(sample, self.epsilon)
        return x * scale[..., None, None].to(x.dtype)
