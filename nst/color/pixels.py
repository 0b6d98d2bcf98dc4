"""Code that the methods of colour transfer share: checks, types, bands of rows on all cores."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from nst.errors import UsageError

ColorImage = NDArray[Any]  # HWC RGB, uint8 or float in [0, 255]
Matrix = NDArray[np.float64]
LEVELS = 256
BAND = 1 << 17  # pixels processed at once; they fit into the CPU's caches
T = TypeVar("T")


def histograms(image: ColorImage) -> NDArray[np.int64]:
    """Count the pixels of uint8 HWC at each level, by channel: [3, 256]."""
    image = np.ascontiguousarray(image)
    counts = [cv2.calcHist([image], [k], None, [LEVELS], [0, LEVELS]).ravel() for k in range(3)]
    return np.stack(counts).astype(np.int64)


def check_images(*images: ColorImage) -> None:
    """Raise `UsageError` unless all are images that colours can be moved between."""
    for image in images:
        kind = image.dtype == np.uint8 or np.issubdtype(image.dtype, np.floating)
        if image.ndim != 3 or image.shape[2] != 3 or not image.size or not kind:
            raise UsageError(
                f"an image is {image.dtype} of {image.shape}: give uint8 or float RGB, height first"
            )


def as_float(image: ColorImage) -> ColorImage:
    """Convert to float32; keep float64.

    Raises:
        UsageError: not an image, or a value is not finite.
    """
    check_images(image)
    wide = image if image.dtype == np.float64 else image.astype(np.float32)
    if image.dtype != np.uint8 and not np.isfinite(wide).all():
        raise UsageError("an image has values that are not finite")
    return wide


def as_type_of(result: ColorImage, image: ColorImage) -> ColorImage:
    """Convert `result` to the type of `image`; round and clip for uint8."""
    if image.dtype != np.uint8:
        return result.astype(image.dtype)
    return np.rint(result).clip(0, 255).astype(np.uint8)


def as_bytes(image: ColorImage) -> ColorImage:
    """Convert to uint8 by rounding and clipping; keep uint8."""
    check_images(image)
    return image if image.dtype == np.uint8 else np.rint(image).clip(0, 255).astype(np.uint8)


def in_bands(pixels: ColorImage, work: Callable[[ColorImage], T]) -> list[T]:
    """Apply `work` to bands of rows on all cores; return the results from top to bottom."""
    rows = max(1, BAND // pixels.shape[1])
    bands = [pixels[top : top + rows] for top in range(0, len(pixels), rows)]
    if len(bands) == 1:
        return [work(bands[0])]
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        return list(pool.map(work, bands))
