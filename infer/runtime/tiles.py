"""Repainting a large image piece by piece, as the whole would be under the same statistics."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nst.io.images import Array

TILE_SIDE = (
    1536  # of the pieces that are kept; one takes a folded network of 64 channels about 1 GB
)
GPU_TILE_SIDE = 4096  # the same on a GPU: room for films of 4K, which would wait for tiles
SAMPLE, PATCH = 1536, 512  # sides of the largest sample, and of the patches in it
GRID = 4  # the networks work on blocks of 4×4 pixels, which must lie as they do in the whole

Report = Callable[[int, int], None]


@dataclass(frozen=True)
class Tile:
    """A piece of an image, as slices of rows and columns.

    Attributes:
        source: what the network sees, the network's receptive radius around it included.
        inner: what is right in its result.
        target: where that belongs in the whole.
    """

    source: tuple[slice, slice]
    inner: tuple[slice, slice]
    target: tuple[slice, slice]


def tiles(size: tuple[int, int], receptive_radius: int, side: int | None = None) -> list[Tile]:
    """Cut (height, width) into pieces of about one size, at most `side` high and wide.

    The network sees the same size of all: for each new one, a GPU prepares for long.

    Args:
        receptive_radius: how many pixels around one its result depends on.
        side: None for `TILE_SIDE`.
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
    report: Report | None = None,
    side: int | None = None,
) -> Array:
    """Repaint uint8 [N, H, W, 3] in `tiles`.

    Args:
        report: called after each with how many are done, and of how many.
    """
    plan = tiles(batch.shape[1:3], receptive_radius, side)
    stylized = np.empty_like(batch)
    for done, tile in enumerate(plan, 1):
        stylized[:, *tile.target] = repaint(batch[:, *tile.source])[:, *tile.inner]
        if report is not None:
            report(done, len(plan))
    return stylized


def _pieces(length: int, receptive_radius: int, side: int) -> Iterator[tuple[slice, slice, slice]]:
    """(source, inner, target) along one axis."""
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
    """What of a large image tells its statistics: patches from all over it, side by side.

    An image of up to `SAMPLE` a side is its own sample.

    Args:
        image: uint8 [H, W, 3] RGB.
    """
    rows, columns = (_spread(length) for length in image.shape[:2])
    if len(rows) == image.shape[0] and len(columns) == image.shape[1]:
        return image
    return np.ascontiguousarray(image[rows][:, columns])


def _spread(length: int) -> NDArray[np.int64]:
    """All places along one axis, or those of as many patches as make `SAMPLE`."""
    if length <= SAMPLE:
        return np.arange(length)
    starts = np.linspace(0, (length - PATCH) // GRID, SAMPLE // PATCH).round() * GRID
    return (starts.astype(np.int64)[:, None] + np.arange(PATCH)).ravel()
