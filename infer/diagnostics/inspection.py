"""How clean a model's pictures are: the checkerboard of its strides, its border, its stroke scale."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nst.errors import UsageError
from nst.infer.diagnostics.checkerboard import (
    LUMA,
    ROUNDING,
    Checkerboard,
    Stylize,
    Values,
    checkerboard,
    fields,
    hann,
)
from nst.io.images import Array, resize_image, resize_short

__all__ = [
    "Border",
    "Checkerboard",
    "Inspection",
    "InspectionProgress",
    "StrokeScale",
    "StrokeSize",
    "border",
    "check_heights",
    "checkerboard",
    "inspect",
    "stroke_scale",
]

HEIGHTS = (256, 480, 720, 1080)  # lines
FRAME = 16  # pixels along the border that count as its frame
DEPTH = 48  # pixels from the border to which it is measured

_CONTEXT, _CROP, _MARGIN = 512, 256, 64  # of the border's measure; multiples of every stride
_SHORTEST = 4.0  # pixels; shorter waves are the checkerboard's
_LONGEST = 1 / 4  # of the height; longer waves are light and shade


@dataclass(frozen=True)
class Border:
    """What `border` found: "frame" is the outer 16 pixels, "inside" the 32 after them.

    Attributes:
        shift: the frame's colour shift less that of the inside, in levels, of the channel where
            it is largest; its magnitude.
        channel_shift: the same for R, G and B, signed; above 0 is a frame too light.
        shift_error: standard error of `shift`, from its scatter over the crops.
        rms_ratio: RMS difference of the frame over that of the inside.
        contrast: standard deviation of the crop's frame over that of the same pixels in context.
        contrast_inside: the same for the inside, for comparison.
        crops: how many were averaged.
        profile_shift: by distance 0 to 47 from the border, mean difference in R, G and B.
        profile_rms: by distance, RMS difference.
        difference: [256, 256, 3], crop less context, mean over the crops, in levels.
        example: one stylised crop, and the same pixels stylised in context, HWC uint8 RGB.
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


@dataclass(frozen=True)
class StrokeSize:
    """The strokes at one height of the picture.

    Attributes:
        height: of the picture, in lines.
        pixels: the strokes' wavelength; None where the network changes nothing.
        percent: the same as a share of the height.
        strength: RMS of the change within the band, in levels.
    """

    height: int
    pixels: float | None
    percent: float | None
    strength: float


@dataclass(frozen=True)
class StrokeScale:
    """What `stroke_scale` found.

    Attributes:
        sizes: one for each height.
        hold: `percent` at the largest height over that at the smallest. 1: strokes keep their
            size within the picture. Smallest over largest height: they keep their pixels.
        examples: the first photograph, stylised at the smallest and at the largest height.
    """

    sizes: tuple[StrokeSize, ...]
    hold: float | None
    examples: tuple[Array, Array] = field(repr=False, compare=False)


@dataclass(frozen=True)
class Inspection:
    """All three measures of one model."""

    checkerboard: Checkerboard
    border: Border
    strokes: StrokeScale

    def to_dict(self) -> dict[str, Any]:
        """The numbers, without the pictures, ready for JSON."""
        return {part.name: _plain(getattr(self, part.name)) for part in dataclasses.fields(self)}


@dataclass(frozen=True)
class InspectionProgress:
    """How far `inspect` is: pixels stylised, and all that there will be."""

    done: int
    total: int


def inspect(
    stylize: Stylize,
    photographs: Sequence[Array],
    *,
    heights: Sequence[int] = HEIGHTS,
    callback: Callable[[InspectionProgress], None] | None = None,
) -> Inspection:
    """Measure a model's checkerboard, border and stroke scale.

    Args:
        stylize: maps an image, HWC uint8 RGB, to one of the same shape.
        photographs: HWC uint8 RGB, of any size.
        heights: see `stroke_scale`.
        callback: called after every stylised image.

    Raises:
        UsageError: no photographs, or heights that don't rise.
    """
    _check(photographs)
    check_heights(heights)
    total = sum(image[..., 0].size for _, _, image in fields())
    for photograph in photographs:
        context = _context(photograph)
        total += context[..., 0].size + len(_corners(context)) * _CROP**2
        total += sum(height * _width(photograph, height) for height in heights)
    done = 0

    def counted(image: Array) -> Array:
        nonlocal done
        painted = stylize(image)
        done += image[..., 0].size
        if callback is not None:
            callback(InspectionProgress(done, total))
        return painted

    return Inspection(
        checkerboard(counted),
        border(counted, photographs),
        stroke_scale(counted, photographs, heights),
    )


def border(stylize: Stylize, photographs: Sequence[Array]) -> Border:
    """The frame that a network paints along the border of its pictures.

    A crop of 256×256 is stylised alone and within the photograph it comes from; the same pixels are
    compared, so the content cancels. No network can know what lies beyond the crop, so some
    difference is everybody's: the frame's RMS exceeds the inside's. A shift of colour or a loss of
    contrast is a fault. Networks that normalise over the image differ inside too, which is why
    the inside is the measure of the frame.

    Photographs are first brought to 512 pixels on their short side (Lanczos, up or down; of
    panoramas beyond 2:1 the middle). Six crops of each, on a 2×3 grid at least 64 pixels from
    the photograph's border; all offsets are multiples of 8, so the strides fall in step. The ratios
    count the variance of rounding twice, once for each image, so that no difference gives 1.

    Raises:
        UsageError: no photographs.
    """
    _check(photographs)
    distance = _distance().ravel()
    counts = np.bincount(distance)[:DEPTH]

    def rings(values: Values) -> Values:
        """Mean by distance from the border: [48, 3]."""
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
            # Variance along each ring by itself, or a shift would count as contrast.
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


def stroke_scale(
    stylize: Stylize, photographs: Sequence[Array], heights: Sequence[int] = HEIGHTS
) -> StrokeScale:
    """Whether strokes keep their size within the picture as it gets more lines.

    Each photograph is stylised at each height (Lanczos, also where that is larger than the
    original; of panoramas beyond 2:1 the middle). Of the result's luminance counts what lies
    between 4 pixels, where the checkerboard ends, and a quarter of the height, where light and shade
    begin, in the spectrum under a Hann window. What the style changed is that less the part which
    a quadratic of the content's R, G and B explains, by least squares within the same band. Its
    wavelength is the geometric mean, weighted by power; over photographs the geometric mean too.

    Args:
        heights: lines, two or more, rising, from 64 to 4320.

    Raises:
        UsageError: no photographs, or other heights than that.
    """
    _check(photographs)
    check_heights(heights)
    waves: list[list[float]] = [[] for _ in heights]
    energies: list[list[float]] = [[] for _ in heights]
    examples: list[Array] = []
    for photograph in photographs:
        for index, height in enumerate(heights):
            size = (height, _width(photograph, height))
            content = resize_image(np.ascontiguousarray(_middle(photograph)), size)
            stylized = stylize(content)
            wave, energy = _strokes(stylized, content)
            energies[index].append(energy)
            if energy > ROUNDING:  # else it is rounding that would be measured
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


def check_heights(heights: Sequence[int]) -> None:
    """Raise `UsageError` unless there are two heights or more, rising, of 64 to 4320 lines."""
    rising = all(a < b for a, b in itertools.pairwise(heights))
    if len(heights) < 2 or not rising or heights[0] < 64 or heights[-1] > 4320:
        words = ", ".join(map(str, heights))
        raise UsageError(f"heights are {words}: give two or more, rising, from 64 to 4320 lines")


def _middle(photograph: Array) -> Array:
    """The middle, at most twice as long as it is short; a panorama would fill the memory."""
    height, width = photograph.shape[:2]
    most = 2 * min(height, width)
    top, left = max(0, height - most) // 2, max(0, width - most) // 2
    return photograph[top : top + most, left : left + most]


def _context(photograph: Array) -> Array:
    """The photograph with a short side of 512, its sides trimmed to multiples of 8."""
    context = resize_short(np.ascontiguousarray(_middle(photograph)), _CONTEXT)
    height, width = context.shape[:2]
    return np.ascontiguousarray(context[: height // 8 * 8, : width // 8 * 8])


def _corners(context: Array) -> list[tuple[int, int]]:
    """Top and left of the crops: two by three along the longer side, in steps of 8."""
    height, width = context.shape[:2]
    counts = (2, 3) if width >= height else (3, 2)
    tops, lefts = (
        np.linspace(_MARGIN, side - _CROP - _MARGIN, count).astype(int) // 8 * 8
        for side, count in zip((height, width), counts, strict=True)
    )
    return [(int(top), int(left)) for top in tops for left in lefts]


def _distance() -> NDArray[np.int64]:
    """Each pixel's distance from the border of a crop; 0 on the border."""
    along = np.minimum(np.arange(_CROP), np.arange(_CROP)[::-1])
    return np.minimum(along[:, None], along)


def _width(photograph: Array, height: int) -> int:
    rows, columns = _middle(photograph).shape[:2]
    return max(1, round(height * columns / rows))


def _strokes(stylized: Array, content: Array) -> tuple[float, float]:
    """Geometric mean wavelength in pixels, and mean square, of what the style changed."""
    height, width = stylized.shape[:2]
    window = np.outer(hann(height), hann(width))
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width))
    # Two bins short of the checkerboard's frequency, for the window spreads it.
    highest = 1 / _SHORTEST - 2 / min(height, width)
    band = (frequency >= 1 / (_LONGEST * height)) & (frequency <= highest)
    # Each wave counts twice but where rfft2 leaves nothing out; roots, for they get squared.
    twice = np.full(frequency.shape, math.sqrt(2))
    twice[:, 0] = 1
    if width % 2 == 0:
        twice[:, -1] = 1

    def waves(values: Values) -> Values:
        """Those within the band, real and imaginary parts in a row."""
        found = (np.fft.rfft2((values - values.mean()) * window) * twice)[band]
        return np.concatenate([found.real, found.imag])

    r, g, b = np.moveaxis(content / 255, 2, 0)
    known = np.stack([waves(v) for v in (r, g, b, r * r, g * g, b * b, r * g, g * b, b * r)])
    change = waves(stylized @ LUMA)
    # Fitted within the band: a fit to all would trade light and shade for strokes.
    weights = np.linalg.lstsq(known @ known.T, known @ change, rcond=1e-10)[0]
    change -= weights @ known
    power = np.square(change).reshape(2, -1).sum(0)
    energy = float(power.sum()) / (height * width * np.square(window).sum())
    if power.sum() == 0:
        return 1.0, 0.0
    return math.exp(-(power @ np.log(frequency[band])) / power.sum()), energy


def _check(photographs: Sequence[Array]) -> None:
    if not photographs:
        raise UsageError("there are no photographs: give one at least")


def _rgb(values: Values) -> tuple[float, float, float]:
    r, g, b = (float(value) for value in values)
    return r, g, b


def _plain(value: Any) -> Any:
    """Dataclasses as dictionaries, less the fields that are kept for pictures."""
    if dataclasses.is_dataclass(value):
        kept = [f.name for f in dataclasses.fields(value) if f.repr]
        return {name: _plain(getattr(value, name)) for name in kept}
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return value
