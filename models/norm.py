"""Normalisation by a sample: what a folded network knows of the frame as a whole.

Instance normalisation (Ulyanov et al. 2016) divides what is left of a channel without its mean by
its deviation over the frame. Here a channel is divided by its root mean square, as in RMSNorm
(Zhang and Sennrich 2019), which paints as well and leaves one number to know of each channel. One
position of sixteen tells it almost as well as all do: a convolution is computed there first, and
what is found scales the weights for the whole. No pixel depends on far ones but through these
numbers, so the tiles of an image may share them, and a video may hold them steady.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

STEP = 4  # every fourth position, down and across, is in the sample
EPSILON = 1e-3


class NormStatistics:
    """Root mean squares of channels, layer after layer: of what passes, or given.

    Args:
        given: [B, K], those of the channels of all normalisations in their order; None to take
            them from what passes.
    """

    def __init__(self, given: Tensor | None = None) -> None:
        self._given = given
        self._found: list[Tensor] = []
        self._place = 0

    def of(self, sample: Tensor, epsilon: Tensor) -> Tensor:
        """Those of the next layer, [B, C], of whose values [B, C, H, W] are a sample.

        Args:
            epsilon: [C], added to the squares.
        """
        if self._given is None:
            squares = sample.float().square().mean((2, 3))
            self._found.append(torch.sqrt(squares + epsilon))
            return self._found[-1]
        start, self._place = self._place, self._place + sample.shape[1]
        return self._given[:, start : self._place]

    def found(self) -> Tensor:
        """What was taken, as `given` has it."""
        return torch.cat(self._found, 1)


class SubsampledRMSNorm(nn.Module):
    """Every channel at a learned scale, over its root mean square in a sample of the frame."""

    epsilon: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.register_buffer("epsilon", torch.full((channels,), EPSILON), persistent=False)

    def forward(self, x: Tensor, statistics: NormStatistics | None = None) -> Tensor:
        sample = x[..., ::STEP, ::STEP]
        scale = self.weight / (statistics or NormStatistics()).of(sample, self.epsilon)
        return x * scale[..., None, None].to(x.dtype)
