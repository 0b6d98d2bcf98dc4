"""The temporal loss: a crop that moves a little is to be painted the same, moved.

It keeps films from flickering without films: the motion is made, so it is known to the last
fraction of a pixel (after Ruder et al. 2016, section 4.2, where optical flow tells it).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

TURN = math.radians(3)  # the greatest motions, either way
ZOOM = 0.04
SHIFT = 8.0  # pixels
BEND = 3.0  # pixels by which the points of a coarse grid move, each for itself
_POINTS = 5  # of that grid, each way
GAIN, OFFSET = 0.05, 6.0  # of the light; levels
NOISE = 4.0  # its standard deviation at most, levels
_SHARE = 4  # one crop of so many in a batch is moved, at least one: each costs the network again


@dataclass(frozen=True)
class Moved:
    """Crops after a motion.

    Attributes:
        crops: float [B, 3, H, W] in [0, 255].
        grid: [B, H, W, 2], where each pixel was, as `grid_sample` wants it.
    """

    crops: Tensor
    grid: Tensor


def moving(count: int) -> int:
    """How many of the crops of a batch move."""
    return -(-count // _SHARE)


def move(crops: Tensor) -> Moved:
    """Turn, zoom, shift and bend crops, change their light and add noise, each by chance.

    Args:
        crops: float [B, 3, H, W] in [0, 255].
    """
    count, _, height, width = crops.shape

    def chance(*shape: int) -> Tensor:
        return 2 * torch.rand(count, *shape, device=crops.device) - 1

    # In units of half a side, as grid_sample has them. No number comes from the host: a step that
    # a GPU records can't wait for one.
    across, down = 2 / width, 2 / height
    angle, scale = TURN * chance(), 1 + ZOOM * chance()
    cos, sin = scale * angle.cos(), scale * angle.sin()
    right, below = SHIFT * across * chance(), SHIFT * down * chance()
    aspect = height / width
    theta = torch.stack([cos, -sin * aspect, right, sin / aspect, cos, below], 1)
    grid = F.affine_grid(theta.view(-1, 2, 3), [count, 3, height, width], align_corners=False)
    bend = F.interpolate(chance(2, _POINTS, _POINTS), (height, width), mode="bicubic")
    grid = grid + BEND * torch.stack([across * bend[:, 0], down * bend[:, 1]], 3)
    moved = F.grid_sample(crops, grid, "bicubic", "reflection", align_corners=False)
    light = 1 + GAIN * chance(1, 1, 1), OFFSET * chance(1, 1, 1)
    noise = NOISE * torch.rand(count, 1, 1, 1, device=crops.device)
    moved = moved * light[0] + light[1] + noise * torch.randn_like(moved)
    return Moved(moved.clamp(0, 255), grid)


def temporal_loss(before: Tensor, after: Tensor, grid: Tensor, context: int = 0) -> Tensor:
    """How much pictures of moved crops differ from the moved pictures.

    Differences are averaged over 2×2 pixels first: what moving between pixels blurs, and no eye
    sees, would make the network paint softly.

    Args:
        before, after: float [B, 3, H, W], the pictures of the crops and of the moved crops.
        grid: of the motion, over the crops with their contexts.
        context: pixels around the crops that were not repainted.

    Returns:
        [B], mean squared differences in levels²; pixels that were out of sight before count as 0.
    """
    inside = slice(context, -context or None)
    x, y = (
        axis * (side / (side - 2 * context))
        for axis, side in zip(grid[:, inside, inside].unbind(3), grid.shape[2:0:-1], strict=True)
    )
    grid = torch.stack([x, y], 3)
    seen = (grid.abs() < 1).all(3, keepdim=True).permute(0, 3, 1, 2)
    expected = F.grid_sample(before, grid, "bicubic", "reflection", align_corners=False)
    difference = F.avg_pool2d((after - expected) * seen, 2)
    return difference.square().mean((1, 2, 3))
