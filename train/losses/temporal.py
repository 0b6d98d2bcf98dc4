"""The temporal loss: a crop that moves a little must be stylized the same, moved.

It keeps video from flickering, and needs no video: the motion is synthetic, so it is known exactly,
where Ruder et al. (2016, section 4.2) estimate it as optical flow.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

# The largest changes, in either direction.
TURN = math.radians(3)
ZOOM = 0.04
SHIFT = 8.0  # pixels
BEND = 3.0  # pixels by which each point of a coarse grid moves
_POINTS = 5  # points of that grid along each axis
GAIN, OFFSET = 0.05, 6.0  # of brightness: relative, and in levels
NOISE = 4.0  # standard deviation, levels
_SHARE = 4  # one crop in so many is moved, at least one: each costs one more pass of the network


@dataclass(frozen=True)
class Moved:
    """Crops after a motion.

    Attributes:
        crops: float [B, 3, H, W] in [0, 255].
        grid: float [B, H, W, 2], where each pixel was, as (x, y) in [-1, 1] for `grid_sample`.
    """

    crops: Tensor
    grid: Tensor


def moving(count: int) -> int:
    """Return how many crops of a batch of `count` are moved."""
    return -(-count // _SHARE)


def move(crops: Tensor) -> Moved:
    """Turn, zoom, shift and bend crops, change their brightness and add noise, all at random.

    Args:
        crops: float [B, 3, H, W] in [0, 255].
    """
    count, _, height, width = crops.shape

    def chance(*shape: int) -> Tensor:
        return 2 * torch.rand(count, *shape, device=crops.device) - 1

    # In units of half a side, as in grid_sample. All numbers are drawn on the device, so that a
    # CUDA graph can record the step.
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
    gain, offset = 1 + GAIN * chance(1, 1, 1), OFFSET * chance(1, 1, 1)
    noise = NOISE * torch.rand(count, 1, 1, 1, device=crops.device)
    moved = moved * gain + offset + noise * torch.randn_like(moved)
    return Moved(moved.clamp(0, 255), grid)


def temporal_loss(before: Tensor, after: Tensor, grid: Tensor, context: int = 0) -> Tensor:
    """Measure how much stylized moved crops differ from the moved stylized crops.

    Differences are averaged over 2×2 pixels first: interpolation blurs finer detail invisibly, and
    penalising that would make the network paint softly.

    Args:
        before, after: float [B, 3, H, W], the stylized crops and the stylized moved crops.
        grid: grid of the motion over the crops with their context.
        context: pixels around the crops that were not stylized.

    Returns:
        float [B], mean squared differences in levels²; pixels that were outside before count as 0.
    """
    inside = slice(context, -context or None)
    x, y = (
        axis * (side / (side - 2 * context))
        for axis, side in zip(grid[:, inside, inside].unbind(3), grid.shape[2:0:-1], strict=True)
    )
    grid = torch.stack([x, y], 3)
    visible = (grid.abs() < 1).all(3, keepdim=True).permute(0, 3, 1, 2)
    expected = F.grid_sample(before, grid, "bicubic", "reflection", align_corners=False)
    difference = F.avg_pool2d((after - expected) * visible, 2)
    return difference.square().mean((1, 2, 3))
