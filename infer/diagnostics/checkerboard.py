"""Measures the checkerboard: dots and meshes that strides leave in flat regions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache

import numpy as np
from numpy.typing import NDArray

from nst.infer.diagnostics.photographs import Stylize
from nst.io.images import Array

Values = NDArray[np.float64]

PERIODS = (2, 4, 8)  # pixels; the strides of networks of this kind
LUMA = np.array([0.299, 0.587, 0.114])
ROUNDING = 1 / 12  # variance of rounding to whole levels
# Side in pixels of a field's measured inside; a multiple of 8 puts the checkerboard on whole bins.
INSIDE = 192

_FIELD = 256
_SURROUND = 32  # pixels of texture around a field
_GRAIN = 1.0  # standard deviation in levels, as of a good camera in good light
_COLORS = (
    *((level, level, level) for level in (16, 72, 128, 184, 240)),
    *((224, 32, 32), (224, 224, 32), (32, 224, 32), (32, 224, 224), (32, 32, 224), (224, 32, 224)),
    *((112, 160, 216), (216, 172, 140)),  # sky and skin
)
_LOBE, _RING = 1, (3, 5)  # bins: half width of a Hann window's main lobe; its neighbours


@dataclass(frozen=True)
class Period:
    """The checkerboard of one period.

    Attributes:
        period: period in pixels.
        ratio: power at the checkerboard's frequencies divided by that of the frequencies around
            them, both averaged over all fields; 1 without a checkerboard.
        median_ratio, worst_ratio: median and maximum of the single fields' ratios.
        worst_field: name of the field with the worst ratio.
        amplitude: RMS over all fields of the power that exceeds the frequencies around, in levels
            of 0 to 255.
        constant, grain, ramp: the same RMS over the fields of one kind.
    """

    period: int
    ratio: float
    median_ratio: float
    worst_ratio: float
    worst_field: str
    amplitude: float
    constant: float
    grain: float
    ramp: float

    @property
    def decibels(self) -> float:
        """`ratio` in dB; 0 without a checkerboard."""
        return 10 * math.log10(self.ratio)


@dataclass(frozen=True)
class Checkerboard:
    """The checkerboards of all periods that `checkerboard` found.

    Attributes:
        periods: one for each of 2, 4 and 8 pixels.
        painted: name and stylised inside of each field, HWC uint8 RGB.
        spectrum: power spectrum of the luminance, mean over the fields, [192, 192] in levels², in
            the order of `numpy.fft.fft2`; it sums to the mean variance.
    """

    periods: tuple[Period, ...]
    painted: tuple[tuple[str, Array], ...] = field(repr=False, compare=False)
    spectrum: Values = field(repr=False, compare=False)


def checkerboard(stylize: Stylize) -> Checkerboard:
    """Measure the checkerboard of 2, 4 and 8 pixels in fields without detail: flat ones and ramps.

    The fields of 256×256 are 13 constant colours; the same with a grain of 1 level, in a surround
    of 32 pixels of texture; and 6 smooth ramps. (On a constant image, a network that normalises
    over the image divides zero by zero and outputs no pattern. Flat regions of photographs contain
    grain, and there its checkerboard shows.)

    A cubic trend is removed from the luminance of the inner 192×192, and the power spectrum is
    taken under a Hann window. The checkerboard of period p has the frequencies (a/p, b/p) that no
    shorter period has. The power at each, over the window's main lobe (3×3 bins), is compared with
    the mean power of the bins 3 to 5 away; for frequencies on an axis, where ramps and edges
    concentrate their power, with that of the bins along the axis. The power of rounding to 8 bits,
    a variance of 1/12 per pixel, is added to both, so that a flat output gives a ratio of 1.

    Args:
        stylize: maps HWC uint8 RGB to the same shape.
    """
    kinds, names, painted = [], [], []
    for kind, name, image in fields():
        kinds.append(kind)
        names.append(name)
        cut = (image.shape[0] - INSIDE) // 2
        painted.append(stylize(image)[cut:-cut, cut:-cut])
    spectra = np.stack([_spectrum(image @ LUMA) for image in painted])
    periods = tuple(_period(spectra, kinds, names, period) for period in PERIODS)
    return Checkerboard(periods, tuple(zip(names, painted, strict=True)), spectra.mean(0))


def checkerboard_bins(period: int, side: int) -> NDArray[np.int64]:
    """Return the bins of a `side` × `side` FFT that hold the checkerboard of `period`: [n, 2].

    Those of shorter periods are left out. A frequency and its negative are both included, as in the
    spectrum, so that power sums to mean squares. `period` is a power of 2 and divides `side`.
    """
    steps = [(a, b) for a in range(period) for b in range(period) if math.gcd(a, b, period) == 1]
    return np.array(steps) * (side // period)


def fields() -> list[tuple[str, str, Array]]:
    """Make the test fields: kind (`constant`, `grain` or `ramp`), name, and HWC uint8 RGB."""
    rng = np.random.default_rng(0)
    texture = _texture(_FIELD + 2 * _SURROUND, rng)
    place = slice(_SURROUND, -_SURROUND)
    flat, grained = [], []
    for color in _COLORS:
        name = f"grey {color[0]}" if len(set(color)) == 1 else "rgb {} {} {}".format(*color)
        image = np.full((_FIELD, _FIELD, 3), color, np.uint8)
        flat.append(("constant", name, image))
        canvas = texture.copy()
        grain = rng.normal(0, _GRAIN, (_FIELD, _FIELD, 1))
        canvas[place, place] = np.clip(np.rint(image + grain), 0, 255)
        grained.append(("grain", f"{name} with grain", canvas))
    # One level per pixel: rounding any other slope would add a checkerboard.
    y, x = np.mgrid[:_FIELD, :_FIELD]
    grey = np.full_like(x, 128)
    ramps = {
        "grey ramp across": (x, x, x),
        "grey ramp down": (y, y, y),
        "blue to orange across": (x, grey, 255 - x),
        "magenta to green down": (255 - y, y, 255 - y),
        "ramp along one diagonal": (x, y, 255 - x),
        "ramp along the other": (255 - y, 255 - x, y),
    }
    smooth = [("ramp", name, np.stack(r, 2).astype(np.uint8)) for name, r in ramps.items()]
    return flat + grained + smooth


def hann(count: int) -> Values:
    """Return a periodic Hann window; a wave on a bin leaks only into the two bins beside it."""
    return np.hanning(count + 1)[:-1]


def _texture(side: int, rng: np.random.Generator) -> Array:
    """Make coloured noise with the 1/f amplitudes of photographs; standard deviation 50 levels."""
    frequency = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.fftfreq(side))
    frequency[0, 0] = np.inf
    white = rng.standard_normal((side, side, 3))
    noise = np.fft.ifft2(np.fft.fft2(white, axes=(0, 1)) / frequency[..., None], axes=(0, 1)).real
    return np.clip(128 + 50 * noise / noise.std(), 0, 255).astype(np.uint8)


@cache
def _trend() -> Values:
    """Return an orthonormal basis of the cubics over a field's inside: [pixels, 10]."""
    y, x = np.mgrid[-1 : 1 : INSIDE * 1j, -1 : 1 : INSIDE * 1j]
    terms = [x**i * y**j for i in range(4) for j in range(4 - i)]
    return np.linalg.qr(np.stack([term.ravel() for term in terms], 1))[0]


def _spectrum(values: Values) -> Values:
    """Return the power spectrum without the cubic trend; it sums to the variance."""
    flat = values.ravel() - _trend() @ (_trend().T @ values.ravel())
    window = np.outer(hann(INSIDE), hann(INSIDE))
    power = np.abs(np.fft.fft2(flat.reshape(values.shape) * window)) ** 2
    return power / (values.size * np.square(window).sum())


def _period(spectra: Values, kinds: Sequence[str], names: Sequence[str], period: int) -> Period:
    steps = np.arange(-_RING[1], _RING[1] + 1)
    offsets = np.stack(np.meshgrid(steps, steps, indexing="ij"), 2).reshape(-1, 2)
    away = np.abs(offsets)
    lobe, ring = away.max(1) <= _LOBE, away.max(1) >= _RING[0]
    bins = checkerboard_bins(period, INSIDE)
    at = (bins[:, None] + offsets) % INSIDE
    near = spectra[:, at[..., 0], at[..., 1]]  # [fields, frequencies, offsets]
    beside = (bins[:, None] != 0) | (away <= _LOBE)  # on an axis: no bins off it
    neighbours = ring & beside.all(2)
    found = near[..., lobe].sum((1, 2))
    expected = ((near * neighbours).sum(2) / neighbours.sum(1)).sum(1) * lobe.sum()
    floor = ROUNDING * len(bins) * lobe.sum() / INSIDE**2
    ratios = (found + floor) / (expected + floor)
    excess = found - expected
    by_kind = {kind: _root(excess[np.array(kinds) == kind]) for kind in set(kinds)}
    return Period(
        period=period,
        ratio=float((found.mean() + floor) / (expected.mean() + floor)),
        median_ratio=float(np.median(ratios)),
        worst_ratio=float(ratios.max()),
        worst_field=names[int(ratios.argmax())],
        amplitude=_root(excess),
        **by_kind,
    )


def _root(excess: Values) -> float:
    """Return the root of the mean excess; noise may push the mean a little below 0."""
    return math.sqrt(max(0.0, float(excess.mean())))
