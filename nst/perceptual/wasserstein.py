"""The sliced Wasserstein distance of features as a style loss (Heitz et al. 2021, section 3)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

STYLE_SAMPLES = 4096  # positions of the style images that stand for all of them
POSITIONS = 4096  # positions of an image that are compared when nothing is drawn at random
DIRECTIONS = 48  # directions that are drawn for each step of a training


class SlicedWassersteinLoss(nn.Module):
    """Squared sliced Wasserstein distance to the style's features, one per image: [B].

    Features are projected on directions; the sorted projections of the image and of the style are
    subtracted, squared and averaged (Rabin et al. 2011, section 2.2). Unlike Gram matrices, this
    compares the whole distribution of the features, not only its second moments.

    Args:
        samples: the style's features at some positions, [N, C].
    """

    samples: Tensor
    directions: Tensor
    quantiles: Tensor

    def __init__(self, samples: Tensor) -> None:
        super().__init__()
        channels = samples.shape[1]
        generator = torch.Generator().manual_seed(0)
        basis = torch.linalg.qr(torch.randn(channels, channels, generator=generator))[0]
        self.register_buffer("samples", samples)
        self.register_buffer("directions", basis.to(samples))
        self.register_buffer("quantiles", (self.directions @ samples.T).sort().values)

    def forward(self, features: Tensor, positions: int | None = None) -> Tensor:
        """Compute the loss of `features`, [B, C, H, W].

        Args:
            positions: positions to draw at random in the image; directions are drawn too, anew in
                each call, so that the expected value is the distance over all directions. None
                for a fixed orthogonal basis at fixed positions, so that calls compare.
        """
        _, channels, height, width = features.shape
        area = height * width
        with torch.autocast(features.device.type, enabled=False):
            if positions is None:
                places = spread(area, min(area, POSITIONS)).to(features.device)
                directions, quantiles = self.directions, self.quantiles
            else:
                places = _draw(area, min(area, positions), features.device)
                directions = torch.randn(DIRECTIONS, channels, device=features.device)
                directions = F.normalize(directions).to(self.samples)
                count = len(self.samples)
                some = self.samples[_draw(count, min(count, 2 * positions), features.device)]
                quantiles = (directions @ some.T).sort().values
            flat = features.permute(0, 2, 3, 1).reshape(-1, area, channels)  # a view of NHWC
            if len(places) < area:
                flat = flat.index_select(1, places)
            projected = (flat.to(directions) @ directions.T).mT.contiguous()
            # Each sorted value is compared with the mean of its share of the style's.
            targets = F.adaptive_avg_pool1d(quantiles[None], len(places))
            return (projected.sort().values - targets).square().mean((1, 2))

    def energy(self) -> float:
        """Return the loss of features that are 0 everywhere."""
        return float(self.samples.square().mean())

    @staticmethod
    def energy_of(features: Tensor) -> float:
        """Return what `energy` is for a style with `features`, [B, C, H, W]."""
        return float(features.square().mean())


def share_out(shares: Sequence[float], count: int) -> list[int]:
    """Divide `count` into whole parts in proportion to `shares`, which sum to 1."""
    ends = [round(count * end) for end in accumulate(shares)]
    return [end - start for start, end in pairwise([0, *ends])]


def sample(features: Tensor, count: int) -> Tensor:
    """Take the features of `count` positions, spread evenly: [1, C, H, W] to [count, C]."""
    flat = features[0].flatten(1).T
    return flat[spread(len(flat), count).to(flat.device)]


def spread(area: int, count: int) -> Tensor:
    """Return `count` positions of `area`, one in each of as many equal parts; always the same."""
    generator = torch.Generator().manual_seed(area)
    return _one_in_each_part(area, count, torch.rand(count, generator=generator))


def _draw(area: int, count: int, device: torch.device) -> Tensor:
    """Draw `count` positions of `area`, one in each of as many equal parts."""
    return _one_in_each_part(area, count, torch.rand(count, device=device))


def _one_in_each_part(area: int, count: int, chance: Tensor) -> Tensor:
    parts = torch.arange(count, device=chance.device, dtype=torch.float64)
    return ((parts + chance) * (area / max(1, count))).long().clamp_(max=area - 1)
