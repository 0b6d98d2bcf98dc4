"""Prepares style images of any size and shape for VGG."""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np

from nst.io.images import Array, load_style, resize_image, resize_short

LONGEST = 3.0  # aspect ratio up to which a style image stays in one piece
MOST_PIECES = 64
SOFT = 1.1  # enlargement from which on blur is visible
FLAT = 4.0  # standard deviation of levels, of 255, below which an image has little style


@dataclass(frozen=True)
class StyleImage:
    """A style image, prepared for VGG.

    Attributes:
        image: HWC uint8 RGB, whose short side is the style size.
        notes: remarks for the user, one line each.
    """

    image: Array
    notes: tuple[str, ...]


def prepare_style(path: str | os.PathLike[str], short_side: int) -> StyleImage:
    """Load a style image and resize its short side to `short_side`, the objective's `style_size`.

    Raises:
        ImageError: it can't be read, has too many pixels, or a side is under 32 pixels.
    """
    image = load_style(path, hint=2 * short_side)  # so that a huge JPEG takes little memory
    height, width = image.shape[:2]
    notes: list[str] = []
    name = os.fspath(path)
    enlarged = short_side / min(height, width)
    if enlarged >= SOFT:
        notes.append(
            f"{name} is {width}×{height} pixels: enlarged {enlarged:.1f} times for "
            f"the style size {short_side}, its strokes will be soft; "
            "a larger image or a smaller style size is better"
        )
    if (count := len(style_pieces(image, short_side)[0])) > 1:
        shape = "wide as high" if width > height else "high as wide"
        notes.append(
            f"{name} is {max(height, width) / min(height, width):.1f} times as {shape}: "
            f"seen in {count} pieces; crop it to the part whose style you want"
        )
    image = resize_short(image, short_side)
    if image[::4, ::4].std((0, 1)).max() < FLAT:
        notes.append(f"{name} is nearly of one colour: there is little style to learn from it")
    return StyleImage(image, tuple(notes))


def style_pieces(image: Array, short_side: int) -> tuple[tuple[Array, ...], tuple[float, ...]]:
    """Resize `image` to `short_side` pixels; cut a long one into pieces that are nearly square.

    A Gram matrix is a mean over positions. So the mean of the pieces' Gram matrices, weighted by
    area, equals that of the whole image except at the seams (VGG pads with zeros there, which deep
    layers notice), and takes the memory of one piece only.

    Args:
        image: HWC uint8 RGB.
        short_side: short side of the pieces, in pixels.

    Returns:
        The pieces, HWC uint8 RGB, and their weights, which sum to 1.
    """
    scale = short_side / min(image.shape[:2])
    cuts = cut_pieces(image)
    if len(cuts) > MOST_PIECES:  # evenly spread ones have the same statistics
        cuts = [cuts[i * len(cuts) // MOST_PIECES] for i in range(MOST_PIECES)]
    pieces = tuple(
        resize_image(cut, (round(cut.shape[0] * scale), round(cut.shape[1] * scale)))
        for cut in cuts
    )
    area = sum(cut.size for cut in cuts)
    return pieces, tuple(cut.size / area for cut in cuts)


def cut_pieces(image: Array) -> list[Array]:
    """Cut a long `image`, HWC, across its long side into nearly square views; others stay whole."""
    height, width = image.shape[:2]
    ratio = max(height, width) / min(height, width)
    if ratio <= LONGEST:
        return [image]
    return np.array_split(image, round(ratio), axis=0 if height > width else 1)
