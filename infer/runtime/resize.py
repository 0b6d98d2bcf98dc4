"""Resizes frames, fast enough for video."""

from __future__ import annotations

import cv2
import numpy as np

from nst.io.images import Array


def resized(image: Array, size: tuple[int, int]) -> Array:
    """Resize HWC uint8 to `size` = (height, width): area averages down, bicubic up."""
    if image.shape[:2] == size:
        return image
    height, width = size
    shrinks = height < image.shape[0] or width < image.shape[1]
    how = cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(image, (width, height), interpolation=how), np.uint8)


def scaled(size: tuple[int, int], long_side: int, least: int = 1) -> tuple[int, int]:
    """Scale a (height, width) until its longer side is `long_side`; no side falls below `least`."""
    scale = long_side / max(size)
    return max(least, round(size[0] * scale)), max(least, round(size[1] * scale))
