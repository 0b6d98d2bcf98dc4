"""Repaints a large image in tiles; the result equals that of the whole under equal statistics."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nst.io.images import Array

# Side in pixels of a tile, without the context around it. A subpixel network of 64 channels takes
# about 1 GB for one.
TILE_SIDE = 1536
GPU_TILE_SIDE = 4096  # the same on a GPU: frames of 4K, which tiles would slow down, fit in one
SAMPLE, PATCH = 1536, 512  # sides in pixels of the largest sample, and of the patches in it
GRID = 4  # the networks work on blocks of 4×4 pixels, so tiles start at multiples of it

# Called after each tile with the number of tiles done and the number of all.
TileCallback = Callable[[int, int], None]


@dataclass(frozen=True)
class Tile:
    """A piece of an image, as slices of rows and columns.

    Attributes:
        source: the part of the image that the network sees: the tile and the context around it.
        inner: the part of the network's result that equals the result of the whole image.
        target: the place of `inner` in the whole result.
    """

    source: tuple[slice, slice]
    inner: tuple[slice, slice]
    target: tuple[slice, slice]


def tiles(size: tuple[int, int], receptive_radius: int, side: int | None = None) -> list[Tile]:
    """Cut an image into tiles of nearly equal size.

    All sources have one size, because a GPU takes long to prepare for each new size.

    Args:
        size: (height, width) of the image in pixels.
        receptive_radius: how far the pixels that a result depends on lie from it, in pixels.
        side: most pixels of a tile's height and width; None for `TILE_SIDE`.
    """
    rows, columns = (list(_pieces(length, receptive_radius, side or TILE_SIDE)) for length in size)
    return [
        Tile(*((down, right) for down, right in zip(row, column, strict=True)))
        for row in rows
        for column in columns
    ]


def repaint_tiles(
    repaint: Callable[[Array], Array],
    batch: Array,
    receptive_radius: int,
    report: TileCallback | None = None,
    side: int | None = None,
) -> Array:
    """Repaint a batch in `tiles`.

    Args:
        repaint: maps uint8 [N, h, w, 3] RGB to the same shape.
        batch: uint8 [N, H, W, 3] RGB.
        receptive_radius, side: as for `tiles`.
        report: called after each tile.

    Returns:
        uint8 [N, H, W, 3] RGB.
    """
    plan = tiles(batch.shape[1:3], receptive_radius, side)
    stylized = np.empty_like(batch)
    for done, tile in enumerate(plan, 1):
        stylized[:, *tile.target] = repaint(batch[:, *tile.source])[:, *tile.inner]
        if report is not None:
            report(done, len(plan))
    return stylized


def _pieces(length: int, receptive_radius: int, side: int) -> Iterator[tuple[slice, slice, slice]]:
    """Yield (source, inner, target) of each tile along one axis."""
    receptive_radius += -receptive_radius % GRID
    count = -(-length // side)
    step = -(-length // (count * GRID)) * GRID
    seen = step + 2 * receptive_radius
    seen = min(length, seen + (length - seen) % GRID)
    for start in range(0, length, step):
        stop = min(length, start + step)
        before = min(max(0, start - receptive_radius), length - seen)
        inner = slice(start - before, stop - before)
        yield slice(before, before + seen), inner, slice(start, stop)


def sample(image: Array) -> Array:
    """Join patches from all over a large image, to estimate its statistics.

    An axis of at most `SAMPLE` pixels is kept whole.

    Args:
        image: uint8 [H, W, 3] RGB.

    Returns:
        uint8 [h, w, 3] RGB with h, w of at most `SAMPLE`.
    """
    rows, columns = (_spread(length) for length in image.shape[:2])
    if len(rows) == image.shape[0] and len(columns) == image.shape[1]:
        return image
    return np.ascontiguousarray(image[rows][:, columns])


def _spread(length: int) -> NDArray[np.int64]:
    """Return all indices along one axis, or those of evenly spread patches that make `SAMPLE`."""
    if length <= SAMPLE:
        return np.arange(length)
    starts = np.linspace(0, (length - PATCH) // GRID, SAMPLE // PATCH).round() * GRID
    return (starts.astype(np.int64)[:, None] + np.arange(PATCH)).ravel()
