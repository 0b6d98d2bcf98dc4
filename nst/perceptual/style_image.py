"""Style images of any size and shape, made ready for VGG."""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np

from nst.io.images import Array, load_style, resize_image, resize_short

LONGEST = 3.0  # times the short side: up to that a style image is seen in one piece
MOST_PIECES = 64
SOFT = 1.1  # an enlargement that can be seen
FLAT = 4.0  # standard deviation, of 255


@dataclass(frozen=True)
class StyleImage:
    """A style image as VGG is to see it.

    Attributes:
        image: HWC uint8 RGB, its short side at the style size.
        notes: what a person should know about it, a line each.
    """

    image: Array
    notes: tuple[str, ...]


def prepare_style(path: str | os.PathLike[str], short_side: int) -> StyleImage:
    """Load a style image for `short_side` pixels, the `style_size` of the objective.

    Raises:
        ImageError: it can't be read, has too many pixels, or is smaller than 32.
    """
    image = load_style(path, hint=2 * short_side)  # a huge JPEG then takes little memory
    height, width = image.shape[:2]
    notes: list[str] = []
    name = os.fspath(path)
    enlarged = short_side / min(height, width)
    if enlarged >= SOFT:
        notes.append(
            f"{name} is {width}×{height} pixels: enlarged {enlarged:.1f} times for "
            f"--style-size {short_side}, its strokes will be soft; "
            "a larger image or a smaller --style-size is better"
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
    """`image` at `short_side` pixels, and in pieces near square where it is long.

    A Gram matrix is a mean over places: the mean over the pieces, by area, is that of the whole
    image but for the seams (VGG pads with zeros there, which deep layers notice), and never takes
    more memory than one piece.

    Args:
        image: HWC uint8 RGB.

    Returns:
        The pieces, HWC uint8 RGB, and their weights, which sum to 1.
    """
    scale = short_side / min(image.shape[:2])
    cuts = cut_pieces(image)
    if len(cuts) > MOST_PIECES:  # evenly spread ones tell as much
        cuts = [cuts[i * len(cuts) // MOST_PIECES] for i in range(MOST_PIECES)]
    pieces = tuple(
        resize_image(cut, (round(cut.shape[0] * scale), round(cut.shape[1] * scale)))
        for cut in cuts
    )
    area = sum(cut.size for cut in cuts)
    return pieces, tuple(cut.size / area for cut in cuts)


def cut_pieces(image: Array) -> list[Array]:
    """`image`, HWC, whole or cut across its long side: views near square that tile it."""
    height, width = image.shape[:2]
    ratio = max(height, width) / min(height, width)
    if ratio <= LONGEST:
        return [image]
    return np.array_split(image, round(ratio), axis=0 if height > width else 1)
