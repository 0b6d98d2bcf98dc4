"""Numbers for the look of a picture that agree with what eyes prefer (docs/look.md)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from nst.io.images import Array

Gray = NDArray[np.float32]

DIRECTIONS = 32  # directions in RGB along which colours are compared
PIXELS = 1 << 15  # about as many pixels of a large image stand for all of them
QUANTILES = 512  # of the colours along each direction
SLIGHT_BLUR, BLUR = 0.7, 1.5  # standard deviations in pixels: before gradients; of what is no grain
NEIGHBORHOOD = 9  # side of the window in which an area is flat or not, pixels
FLAT = 4.0  # largest standard deviation of a flat area, levels


@dataclass(frozen=True)
class Look:
    """How a picture looks, in numbers; see `color_distance`, `edges_kept` and `grain`."""

    color_distance: float
    edges_kept: float
    grain: float


def mean_look(looks: Sequence[Look]) -> Look:
    """Average looks number by number."""
    return Look(*np.mean([astuple(x) for x in looks], 0).tolist())


def look(image: Array, photograph: Array, styles: Sequence[Array]) -> Look:
    """Measure a stylized `image` of `photograph`, both HWC uint8 RGB of one size.

    Args:
        styles: style images, HWC uint8 RGB; the nearest one counts for the colours.
    """
    return Look(
        color_distance=min(color_distance(image, style) for style in styles),
        edges_kept=edges_kept(image, photograph),
        grain=grain(image, photograph),
    )


def color_distance(image: Array, style: Array) -> float:
    """Compute the sliced Wasserstein distance W1 of the colours of two images, in levels.

    0 is for images with the same colours in the same shares, wherever they are (Rabin et al. 2011,
    section 2.2). Both are HWC uint8 RGB of any size.
    """
    rng = np.random.default_rng(0)
    directions = rng.standard_normal((3, DIRECTIONS))
    directions /= np.linalg.norm(directions, axis=0)
    shares = (np.arange(QUANTILES) + 0.5) / QUANTILES
    one, other = (np.quantile(_some_pixels(x) @ directions, shares, axis=0) for x in (image, style))
    return float(np.abs(one - other).mean())


def edges_kept(image: Array, photograph: Array) -> float:
    """Correlate the strength of the edges of two images of one size, HWC uint8 RGB.

    1 is for edges of the same strength in the same places, up to a factor; 0 for nothing in common.
    The strength is the norm of the gradient of the luminance (Scharr 2000).
    """
    one, other = (_edges(_luminance(x)) for x in (image, photograph))
    most = float(np.sqrt(np.square(one).sum() * np.square(other).sum()))
    return float((one * other).sum()) / most if most else float(not (one.any() or other.any()))


def grain(image: Array, photograph: Array) -> float:
    """Measure dots, meshes and dirt: fine detail in `image` where `photograph` is flat, in levels.

    Both are HWC uint8 RGB of one size. It is the mean difference of the luminance from its blurred
    self over the pixels whose surroundings are flat in the photograph; 0 if no area is flat.
    """
    before, after = _luminance(photograph), _luminance(image)
    window = (NEIGHBORHOOD, NEIGHBORHOOD)
    mean = cv2.blur(before, window)
    variance = cv2.blur(np.square(before - 128), window) - np.square(mean - 128)
    flat = variance < FLAT**2
    detail = np.abs(after - cv2.GaussianBlur(after, (0, 0), BLUR))
    return float(detail[flat].mean()) if flat.any() else 0.0


def _some_pixels(image: Array) -> NDArray[np.float32]:
    """Take pixels spread over the image, [N, 3]."""
    flat = image.reshape(-1, 3)
    count = min(len(flat), PIXELS)
    places = np.random.default_rng(0).uniform(size=count) + np.arange(count)
    return flat[(places * (len(flat) / count)).astype(int)].astype(np.float32)


def _luminance(image: Array) -> Gray:
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), np.float32)


def _edges(luminance: Gray) -> Gray:
    smooth = cv2.GaussianBlur(luminance, (0, 0), SLIGHT_BLUR)
    across, down = (cv2.Scharr(smooth, cv2.CV_32F, dx, 1 - dx) for dx in (1, 0))
    return np.hypot(across, down)
