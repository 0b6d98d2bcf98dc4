"""Numbers for the look of a picture that agree with what eyes prefer (docs/look.md)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from nst.color.compare import wasserstein
from nst.io.images import Array

Gray = NDArray[np.float32]

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
    """Compute how far the colours of two images are apart, in levels.

    It is the Wasserstein distance W1 of the histograms, averaged over red, green and blue: 0 for
    the same levels in the same shares, wherever they are. Both are HWC uint8 RGB of any size.
    """
    return float(wasserstein(image, style).mean())


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


def _luminance(image: Array) -> Gray:
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), np.float32)


def _edges(luminance: Gray) -> Gray:
    smooth = cv2.GaussianBlur(luminance, (0, 0), SLIGHT_BLUR)
    across, down = (cv2.Scharr(smooth, cv2.CV_32F, dx, 1 - dx) for dx in (1, 0))
    return np.hypot(across, down)
