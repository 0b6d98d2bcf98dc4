"""Small colourful images, synthesised."""

from __future__ import annotations

import cv2
import numpy as np

from nst.io.images import Array


def colorful(seed: int, height: int = 40, width: int = 56) -> Array:
    """Make an image of smooth, correlated colours and a little noise."""
    rng = np.random.default_rng(seed)
    fields = cv2.resize(
        rng.uniform(0, 1, (4, 5, 3)), (width, height), interpolation=cv2.INTER_CUBIC
    )
    mixed = fields @ rng.uniform(-1, 1, (3, 3)) + rng.normal(0, 0.02, fields.shape)
    low, high = np.sort(rng.uniform(0, 255, (2, 3)), 0)
    mixed = (mixed - mixed.min((0, 1))) / np.ptp(mixed, (0, 1))
    return np.rint(low + mixed * np.maximum(high - low, 60).clip(0, 255 - low)).astype(np.uint8)
