"""Draws text on frames."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from nst.io.images import Array


def draw_text(image: Array, lines: Sequence[str]) -> Array:
    """Return HWC uint8 RGB `image` with lines of white text, outlined in black, at its top left."""
    size = max(12, min(image.shape[:2]) // 28)
    canvas = Image.fromarray(image)
    ImageDraw.Draw(canvas).multiline_text(
        (size // 2, size // 2),
        "\n".join(lines),
        (255, 255, 255),
        ImageFont.load_default(size),
        spacing=size // 4,
        stroke_width=max(1, size // 10),
        stroke_fill=(0, 0, 0),
    )
    return np.asarray(canvas)
