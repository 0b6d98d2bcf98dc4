"""Measures whether strokes keep their size within the image as it gets larger."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from nst.errors import UsageError
from nst.infer.diagnostics.checkerboard import LUMA, ROUNDING, Values, hann
from nst.infer.diagnostics.photographs import Stylize, check_photographs, trim_panorama
from nst.io.images import Array, resize_image

HEIGHTS = (256, 480, 720, 1080)  # pixels
_SHORTEST = 4.0  # pixels; shorter waves belong to the checkerboard
_LONGEST = 1 / 4  # of the height; longer waves are light and shade


@dataclass(frozen=True)
class StrokeSize:
    """The size of the strokes at one height of the image.

    Attributes:
        height: height of the image in pixels.
        pixels: wavelength of the strokes in pixels; None if the network changes nothing.
        percent: wavelength of the strokes in percent of the height.
        strength: RMS of the network's change within the band, in levels of 0 to 255.
    """

    height: int
    pixels: float | None
    percent: float | None
    strength: float


@dataclass(frozen=True)
class StrokeScale:
    """The size of the strokes by the height of the image.

    Attributes:
        sizes: one for each height.
        hold: `percent` at the largest height divided by that at the smallest. It is 1 if strokes
            keep their size within the image, and the smallest divided by the largest height if
            they keep their size in pixels. None if the network changes nothing.
        examples: the first photograph, stylised at the smallest and at the largest height.
    """

    sizes: tuple[StrokeSize, ...]
    hold: float | None
    examples: tuple[Array, Array] = field(repr=False, compare=False)


def stroke_scale(
    stylize: Stylize, photographs: Sequence[Array], heights: Sequence[int] = HEIGHTS
) -> StrokeScale:
    """Measure whether strokes keep their size within the image as it gets larger.

    Each photograph is resized to each height (Lanczos, up or down; only the middle of panoramas
    beyond 2:1) and stylised. The measure takes the result's luminance, in the spectrum under a Hann
    window, in the band between wavelengths of 4 pixels, where the checkerboard ends, and a quarter
    of the height, where light and shade begin. The style's change is this minus the part that a
    quadratic of the content's R, G and B explains, by least squares within the same band. Its
    wavelength is the geometric mean, weighted by power, and over photographs the geometric mean.

    Args:
        stylize: maps HWC uint8 RGB to the same shape.
        photographs: HWC uint8 RGB, of any size.
        heights: two heights or more in pixels, rising, from 64 to 4320.

    Raises:
        UsageError: there are no photographs, or the heights are others.
    """
    check_photographs(photographs)
    check_heights(heights)
    waves: list[list[float]] = [[] for _ in heights]
    energies: list[list[float]] = [[] for _ in heights]
    examples: list[Array] = []
    for photograph in photographs:
        for index, height in enumerate(heights):
            size = (height, _width(photograph, height))
            content = resize_image(np.ascontiguousarray(trim_panorama(photograph)), size)
            stylized = stylize(content)
            wave, energy = _strokes(stylized, content)
            energies[index].append(energy)
            if energy > ROUNDING:  # or else rounding would be measured
                waves[index].append(math.log(wave))
            if photograph is photographs[0] and height in (heights[0], heights[-1]):
                examples.append(stylized)
    sizes = []
    for height, logs, squares in zip(heights, waves, energies, strict=True):
        pixels = math.exp(sum(logs) / len(logs)) if logs else None
        percent = None if pixels is None else 100 * pixels / height
        sizes.append(StrokeSize(height, pixels, percent, math.sqrt(sum(squares) / len(squares))))
    first, last = sizes[0].percent, sizes[-1].percent
    hold = None if first is None or last is None else last / first
    return StrokeScale(tuple(sizes), hold, (examples[0], examples[1]))


def stroke_pixels(photograph: Array, heights: Sequence[int]) -> int:
    """Return how many pixels `stroke_scale` stylises for a photograph."""
    return sum(height * _width(photograph, height) for height in heights)


def check_heights(heights: Sequence[int]) -> None:
    """Raise `UsageError` unless there are two heights or more, rising, of 64 to 4320 lines."""
    rising = all(a < b for a, b in itertools.pairwise(heights))
    if len(heights) < 2 or not rising or heights[0] < 64 or heights[-1] > 4320:
        words = ", ".join(map(str, heights))
        raise UsageError(f"heights are {words}: give two or more, rising, from 64 to 4320 lines")


def _width(photograph: Array, height: int) -> int:
    """Return the width that belongs to a height."""
    rows, columns = trim_panorama(photograph).shape[:2]
    return max(1, round(height * columns / rows))


def _strokes(stylized: Array, content: Array) -> tuple[float, float]:
    """Return the geometric mean wavelength in pixels and the mean square of the style's change."""
    height, width = stylized.shape[:2]
    window = np.outer(hann(height), hann(width))
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width))
    # Two bins below the checkerboard's frequency, because the window spreads it.
    highest = 1 / _SHORTEST - 2 / min(height, width)
    band = (frequency >= 1 / (_LONGEST * height)) & (frequency <= highest)
    # rfft2 omits the mirror images of most waves, so these count twice: √2, squared later.
    twice = np.full(frequency.shape, math.sqrt(2))
    twice[:, 0] = 1
    if width % 2 == 0:
        twice[:, -1] = 1

    def waves(values: Values) -> Values:
        """Return the Fourier coefficients within the band: real parts, then imaginary parts."""
        found = (np.fft.rfft2((values - values.mean()) * window) * twice)[band]
        return np.concatenate([found.real, found.imag])

    r, g, b = np.moveaxis(content / 255, 2, 0)
    known = np.stack([waves(v) for v in (r, g, b, r * r, g * g, b * b, r * g, g * b, b * r)])
    change = waves(stylized @ LUMA)
    # Fitted within the band: a fit to all waves would follow light and shade, not strokes.
    weights = np.linalg.lstsq(known @ known.T, known @ change, rcond=1e-10)[0]
    change -= weights @ known
    power = np.square(change).reshape(2, -1).sum(0)
    energy = float(power.sum()) / (height * width * np.square(window).sum())
    if power.sum() == 0:
        return 1.0, 0.0
    return math.exp(-(power @ np.log(frequency[band])) / power.sum()), energy
