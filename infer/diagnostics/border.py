"""Measures the frame that a network paints along the border of its results."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from nst.infer.diagnostics.checkerboard import ROUNDING, Values
from nst.infer.diagnostics.photographs import Stylize, check_photographs, trim_panorama
from nst.io.images import Array, resize_short

FRAME = 16  # pixels along the border that count as its frame
DEPTH = 48  # pixels from the border to which it is measured

_CONTEXT, _CROP, _INSET = 512, 256, 64  # pixels; multiples of every stride


@dataclass(frozen=True)
class Border:
    """The differences between crops stylised alone and in context, along the crops' border.

    The frame is the outer 16 pixels of a crop, the inside the 32 pixels after them.

    Attributes:
        shift: magnitude of the frame's colour shift minus that of the inside, in levels of 0 to
            255, in the channel where it is largest.
        channel_shift: the same difference for R, G and B, signed; above 0 if the frame is too
            light.
        shift_error: standard error of `shift`, from its scatter over the crops.
        rms_ratio: RMS difference of the frame divided by that of the inside.
        contrast: standard deviation of the crop's frame divided by that of the same pixels in
            context.
        contrast_inside: the same ratio for the inside, for comparison.
        crops: number of crops averaged.
        profile_shift: mean difference in R, G and B at the distances 0 to 47 from the border.
        profile_rms: RMS difference at the same distances.
        difference: [256, 256, 3], crop minus context, mean over the crops, in levels.
        example: one stylised crop and the same pixels stylised in context, HWC uint8 RGB.
    """

    shift: float
    channel_shift: tuple[float, float, float]
    shift_error: float
    rms_ratio: float
    contrast: float
    contrast_inside: float
    crops: int
    profile_shift: tuple[tuple[float, float, float], ...]
    profile_rms: tuple[float, ...]
    difference: Values = field(repr=False, compare=False)
    example: tuple[Array, Array] = field(repr=False, compare=False)


def border(stylize: Stylize, photographs: Sequence[Array]) -> Border:
    """Measure the frame that a network paints along the border of its results.

    A crop of 256×256 is stylised alone and within the photograph it comes from, and the same pixels
    are compared, so that the content cancels. No network knows what lies beyond the crop, so the
    frame's RMS difference always exceeds the inside's. A shift of colour or a loss of contrast is a
    fault. Networks that normalise over the image differ inside too, so the frame is compared with
    the inside.

    Photographs are first resized to 512 pixels on their short side (Lanczos, up or down; only the
    middle of panoramas beyond 2:1). Six crops are taken of each, on a 2×3 grid at least 64 pixels
    from the photograph's border; all offsets are multiples of 8, so that crop and context share the
    phase of the strides. The ratios count the variance of rounding twice, once for each image, so
    that equal images give 1.

    Args:
        stylize: maps HWC uint8 RGB to the same shape.
        photographs: HWC uint8 RGB, of any size.

    Raises:
        UsageError: there are no photographs.
    """
    check_photographs(photographs)
    distance = _distance().ravel()
    counts = np.bincount(distance)[:DEPTH]

    def rings(values: Values) -> Values:
        """Average by distance from the border: [48, 3]."""
        sums = [np.bincount(distance, values[..., c].ravel())[:DEPTH] for c in range(3)]
        return np.stack(sums, 1) / counts[:, None]

    profiles, examples = [], []
    difference = np.zeros((_CROP, _CROP, 3))
    for photograph in photographs:
        context = _context(photograph)
        whole = stylize(context)
        for top, left in _corners(context):
            place = np.s_[top : top + _CROP, left : left + _CROP]
            examples.append((stylize(np.ascontiguousarray(context[place])), whole[place]))
            alone, within = (image.astype(np.float64) for image in examples[-1])
            delta = alone - within
            difference += delta
            # The variance along each ring by itself, or else a shift would count as contrast.
            spread = [rings(np.square(x)) - np.square(rings(x)) for x in (alone, within)]
            profiles.append([rings(delta), rings(np.square(delta)), *spread])
    table = np.array(profiles)  # [crops, 4, 48, 3]
    frame, inside = (
        np.average(table[:, :, part], axis=2, weights=counts[part])
        for part in (slice(FRAME), slice(FRAME, DEPTH))
    )
    shifts = frame[:, 0] - inside[:, 0]
    shift = shifts.mean(0)
    worst = int(np.abs(shift).argmax())
    contrast, contrast_inside = (
        math.sqrt((part[:, 2].mean() + ROUNDING) / (part[:, 3].mean() + ROUNDING))
        for part in (frame, inside)
    )
    squares = [part[:, 1].mean() + 2 * ROUNDING for part in (frame, inside)]
    return Border(
        shift=float(abs(shift[worst])),
        channel_shift=_rgb(shift),
        shift_error=float(shifts[:, worst].std(ddof=1) / math.sqrt(len(shifts))),
        rms_ratio=math.sqrt(squares[0] / squares[1]),
        contrast=contrast,
        contrast_inside=contrast_inside,
        crops=len(shifts),
        profile_shift=tuple(_rgb(row) for row in table[:, 0].mean(0)),
        profile_rms=tuple(np.sqrt(table[:, 1].mean((0, 2))).tolist()),
        difference=difference / len(shifts),
        example=examples[0],
    )


def border_pixels(photograph: Array) -> int:
    """Return how many pixels `border` stylises for a photograph."""
    context = _context(photograph)
    return context[..., 0].size + len(_corners(context)) * _CROP**2


def _context(photograph: Array) -> Array:
    """Resize a photograph to a short side of 512 and trim its sides to multiples of 8."""
    context = resize_short(np.ascontiguousarray(trim_panorama(photograph)), _CONTEXT)
    height, width = context.shape[:2]
    return np.ascontiguousarray(context[: height // 8 * 8, : width // 8 * 8])


def _corners(context: Array) -> list[tuple[int, int]]:
    """Place 2×3 crops, three along the longer side: (top, left) of each, multiples of 8."""
    height, width = context.shape[:2]
    counts = (2, 3) if width >= height else (3, 2)
    tops, lefts = (
        np.linspace(_INSET, side - _CROP - _INSET, count).astype(int) // 8 * 8
        for side, count in zip((height, width), counts, strict=True)
    )
    return [(int(top), int(left)) for top in tops for left in lefts]


def _distance() -> NDArray[np.int64]:
    """Return each pixel's distance from the border of a crop, [256, 256]; 0 on the border."""
    along = np.minimum(np.arange(_CROP), np.arange(_CROP)[::-1])
    return np.minimum(along[:, None], along)


def _rgb(values: Values) -> tuple[float, float, float]:
    r, g, b = (float(value) for value in values)
    return r, g, b
