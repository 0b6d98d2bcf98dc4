"""Draws an inspection: `checkerboard.png`, `border.png` and `size.png`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nst.infer.diagnostics.border import DEPTH, FRAME, Border
from nst.infer.diagnostics.checkerboard import (
    INSIDE,
    ROUNDING,
    Checkerboard,
    Values,
    checkerboard_bins,
)
from nst.infer.diagnostics.inspection import Inspection
from nst.infer.diagnostics.strokes import StrokeScale
from nst.io.files import replacing
from nst.io.images import Array, resize_image

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PICTURES = ("checkerboard.png", "border.png", "size.png")

_INK, _SOFT, _FAINT, _PAPER = "#1f2328", "#6b7280", "#d5d9de", "#ffffff"
_CHANNELS = (("red", "#c2453c"), ("green", "#3b8a57"), ("blue", "#3a6fb5"))
_PERIOD_COLORS = {2: "#d1495b", 4: "#e0942f", 8: "#2a9d8f"}
_DPI = 100
_MARGIN = 48  # pixels
_COLORS_SHOWN = ("grey 72", "grey 184", "rgb 112 160 216", "rgb 216 172 140")
_RAMPS_SHOWN = (
    "grey ramp across",
    "magenta to green down",
    "ramp along one diagonal",
    "ramp along the other",
)
_PATCH, _ENLARGED = 56, 4
# Expected strokes: powers of the height, beside that of measured strokes that grow; dashes.
_EXPECTED = (
    (0, "if they grew with the image", (6, 3)),
    (-1, "if they kept their pixels", (1.5, 2.5)),
)


def save_pictures(inspection: Inspection, folder: Path, title: str) -> list[Path]:
    """Draw the three pictures into `folder`, each whole or not at all.

    Args:
        title: name of the model for the headings.

    Returns:
        Paths of the three files.

    Raises:
        ModuleNotFoundError: matplotlib is not installed.
        NstError: the folder can't be written.
    """
    figures = (
        draw_checkerboard(inspection.checkerboard, title),
        draw_border(inspection.border, title),
        draw_size(inspection.strokes, title),
    )
    paths = [folder / name for name in PICTURES]
    for path, figure in zip(paths, figures, strict=True):
        with replacing(path) as beside:
            figure.savefig(beside, format="png", dpi=_DPI)
    return paths


def draw_checkerboard(found: Checkerboard, title: str) -> Figure:
    """Draw enlarged flat fields and ramps, the mean spectrum, and the checkerboard's power."""
    note = (
        f"Fields without detail, stylised: {_PATCH}×{_PATCH} pixels of each, enlarged {_ENLARGED} "
        "times, deviations from the smooth trend multiplied as stated."
    )
    page = _Page(1600, 1370, f"{title}: the checkerboard of its strides", note)
    painted = dict(found.painted)
    grained = tuple(f"{name} with grain" for name in _COLORS_SHOWN)
    rows = (
        ("constant", _COLORS_SHOWN, _patch),
        ("with a grain of one level", grained, _patch),
        ("the same, folded: the mean of all cells of 8×8, side by side", grained, _folded),
        ("smooth ramps", _RAMPS_SHOWN, _patch),
    )
    side = _PATCH * _ENLARGED
    for row, (words, names, cut) in enumerate(rows):
        top = 152 + row * (side + 76)
        patches = [cut(painted[name]) for name in names]
        factor = _factor(np.stack([deviation for _, deviation in patches]), most=70)
        page.heading(_MARGIN, top - 26, f"{words}, ×{factor}")
        for column, (name, (mean, deviation)) in enumerate(zip(names, patches, strict=True)):
            left = _MARGIN + column * (side + 16)
            page.image(left, top, side, side, _bytes(mean + factor * deviation))
            page.text(left, top + side + 6, name, size=11, color=_SOFT)
    _draw_spectrum(page, found, left=1130, top=152)
    _draw_periods(page, found, left=1130, top=726)
    return page.figure


def _draw_spectrum(page: _Page, found: Checkerboard, left: int, top: int) -> None:
    size = 2 * INSIDE
    page.heading(left, top - 38, "mean power spectrum of the luminance, dB above rounding")
    axes = page.axes(left, top, size, size)
    level = 10 * np.log10(np.fft.fftshift(found.spectrum) * INSIDE**2 / ROUNDING + 1e-3)
    shown = axes.imshow(
        level, cmap="Greys_r", vmin=-5, vmax=45, extent=(-0.5, 0.5, 0.5, -0.5), resample=False
    )
    for period, color in _PERIOD_COLORS.items():
        bins = (checkerboard_bins(period, INSIDE) + INSIDE // 2) % INSIDE / INSIDE - 0.5
        y, x = bins.T
        axes.scatter(x, y, s=70, facecolors="none", edgecolors=color, lw=1.2, clip_on=False)
    axes.set(xlim=(-0.5, 0.5), ylim=(0.5, -0.5), xlabel="waves per pixel, across", ylabel="down")
    ticks, names = (-0.5, -0.25, 0, 0.25, 0.5), ("½", "¼", "0", "¼", "½")
    axes.set_xticks(ticks, names)
    axes.set_yticks(ticks, names)
    _clean(axes)
    axes.tick_params(pad=8)
    bar = page.axes(left + size + 24, top, 10, size)
    scale = page.figure.colorbar(shown, cax=bar)
    scale.outline.set_visible(False)
    bar.tick_params(length=0, labelsize=_pt(11), colors=_SOFT)


def _draw_periods(page: _Page, found: Checkerboard, left: int, top: int) -> None:
    page.heading(left, top, "power divided by that of the frequencies around")
    page.text(left, top + 22, "0 dB is no checkerboard", size=12, color=_SOFT)
    axes = page.axes(left, top + 54, 1600 - _MARGIN - left, 190)
    decibels = [p.decibels for p in found.periods]
    places = np.arange(len(found.periods))
    colors = [_PERIOD_COLORS[p.period] for p in found.periods]
    axes.barh(places, [max(0.0, value) for value in decibels], color=colors, height=0.5)
    label: dict[str, Any] = {"xytext": (6, 0), "textcoords": "offset points", "va": "center"}
    for place, value in zip(places, decibels, strict=True):
        words = f"{_signed(value)} dB"
        axes.annotate(words, (max(0.0, value), place), fontsize=_pt(13), color=_INK, **label)
    axes.set_yticks(places, [f"{p.period} px" for p in found.periods])
    axes.invert_yaxis()
    axes.set(xlim=(0, max(25.0, 1.2 * max(decibels))), xticks=[])
    _clean(axes)
    axes.axvline(0, color=_INK, lw=0.8)

    top += 282
    page.heading(left, top, "amplitude, levels of 0 to 255 (RMS)")
    heads = ("", "constant", "grain", "ramps", "all")
    rows = [
        (f"{p.period} px", *(f"{v:.2f}" for v in (p.constant, p.grain, p.ramp, p.amplitude)))
        for p in found.periods
    ]
    for line, row in enumerate((heads, *rows)):
        for column, word in enumerate(row):
            color = _INK if line and column else _SOFT
            page.text(left - 36 + 96 * column, top + 32 + 28 * line, word, color=color)


def draw_border(found: Border, title: str) -> Figure:
    """Draw the difference by distance from the border, its mean image, and one crop."""
    note = (
        f"{found.crops} crops of 256×256, each stylised alone and within its photograph; the same "
        "pixels are compared. Shaded: the frame, 16 pixels."
    )
    page = _Page(1680, 1200, f"{title}: what it paints along the border", note)
    middle = np.arange(DEPTH) + 0.5
    page.heading(_MARGIN, 118, "mean difference, levels")
    axes = _profile_axes(page, _MARGIN + 44)
    profile = np.array(found.profile_shift)
    for channel, (name, color) in enumerate(_CHANNELS):
        axes.plot(middle, profile[:, channel], color=color, lw=2, label=name)
    reach = max(4.0, 1.1 * float(np.abs(profile).max()))
    axes.set_ylim(-reach, reach)
    axes.axhline(0, color=_INK, lw=0.8)
    _legend(axes, loc="lower right", ncols=3, bbox_to_anchor=(1, 1))
    words = (
        f"Frame minus inside: {found.shift:.1f} ± {found.shift_error:.1f} levels in the worst "
        f"channel ({_signed(*found.channel_shift)} in red, green, blue)."
    )
    page.text(_MARGIN + 44, 522, words)
    page.heading(876, 118, "RMS difference, levels")
    axes = _profile_axes(page, 908)
    axes.plot(middle, found.profile_rms, color=_INK, lw=2)
    axes.set_ylim(0, max(4.0, 1.15 * max(found.profile_rms)))
    words = (
        f"Frame divided by inside: {found.rms_ratio:.2f}.  Contrast of the frame: "
        f"{found.contrast:.2f} of that in context (inside {found.contrast_inside:.2f})."
    )
    page.text(908, 522, words)
    factor = _factor(found.difference, most=110)
    alone, within = found.example
    pictures = (
        (f"mean difference about grey, ×{factor}", _bytes(128 + factor * found.difference)),
        ("a crop stylised alone", alone),
        ("the same pixels, stylised in context", within),
    )
    side = 512
    for column, (words, image) in enumerate(pictures):
        left = _MARGIN + column * (side + 24)
        page.heading(left, 596, words)
        page.image(left, 624, side, side, image)
    return page.figure


def draw_size(found: StrokeScale, title: str) -> Figure:
    """Draw a photograph at the least and the greatest height, and the strokes' scale by height."""
    rows, across = found.examples[0].shape[:2]
    half = 744  # width of a column
    width = min(half, 560 * across / rows)
    height = round(width * rows / across)
    columns = (_MARGIN, 1600 - _MARGIN - half)
    note = "The same photograph, stylised at two sizes and shown at one size."
    page = _Page(1600, height + 590, f"{title}: do strokes grow with the image?", note)
    ends = found.sizes[0], found.sizes[-1]
    for image, size, left in zip(found.examples, ends, columns, strict=True):
        page.heading(left, 118, f"stylised at a height of {size.height}")
        shown = resize_image(np.ascontiguousarray(image), (height, round(width)))
        page.image(left, 146, round(width), height, shown)
    top = 146 + height + 90
    heights = [size.height for size in found.sizes]
    panels = (
        ("wavelength of the strokes, pixels", [size.pixels for size in found.sizes], 1),
        ("the same, percent of the height", [size.percent for size in found.sizes], 0),
    )
    for (words, values, growing), left in zip(panels, columns, strict=True):
        page.heading(left, top - 34, words)
        axes = page.axes(left + 36, top, half - 36, 240)
        known = [(x, y) for x, y in zip(heights, values, strict=True) if y is not None]
        if known:
            x, y = zip(*known, strict=True)
            for power, label, dashes in _EXPECTED:
                steps = np.linspace(x[0], x[-1], 50)
                curve = y[0] * (steps / x[0]) ** (growing + power)
                axes.plot(steps, curve, color=_SOFT, lw=1.3, dashes=dashes, label=label)
            axes.plot(x, y, "o-", color=_CHANNELS[2][1], lw=2, label="measured")
            axes.set_ylim(0, 1.1 * max(y[0] * (x[-1] / x[0]) ** growing, *y))
            if growing:
                _legend(axes, loc="upper left")
        axes.set_xticks(heights, [str(height) for height in heights])
        axes.set_xlabel("height, pixels")
        _clean(axes, grid=True)
    words = "The network changed nothing that could be measured."
    if found.hold is not None:
        words = (
            f"From a height of {heights[0]} to {heights[-1]} the strokes hold {found.hold:.2f} of "
            f"their size within the image; 1.00 is all of it, {heights[0] / heights[-1]:.2f} is "
            "that of fixed pixels."
        )
    page.text(_MARGIN, top + 304, words)
    return page.figure


class _Page:
    """A figure whose parts are placed in pixels from the top left corner."""

    def __init__(self, width: int, height: int, title: str, note: str) -> None:
        from matplotlib.figure import Figure

        self.width, self.height = width, height
        self.figure = Figure(figsize=(width / _DPI, height / _DPI), dpi=_DPI, facecolor=_PAPER)
        self.text(_MARGIN, 30, title, size=24, weight="bold")
        self.text(_MARGIN, 70, note, size=14, color=_SOFT)

    def heading(self, left: float, top: float, words: str) -> None:
        self.text(left, top, words, weight="bold")

    def text(self, left: float, top: float, words: str, size: float = 13, **options: str) -> None:
        # Align by the baseline: the tops of "all" and "ramps" differ.
        place = left / self.width, 1 - (top + 0.8 * size) / self.height
        style: dict[str, Any] = {"color": _INK, "fontsize": _pt(size), **options}
        self.figure.text(*place, words, **style)

    def axes(self, left: float, top: float, width: float, height: float) -> Axes:
        across, down = self.width, self.height
        place = (left / across, 1 - (top + height) / down, width / across, height / down)
        return self.figure.add_axes(place)

    def image(self, left: float, top: float, width: float, height: float, image: Array) -> None:
        axes = self.axes(left, top, width, height)
        axes.imshow(image, interpolation="nearest", aspect="auto")
        axes.set_axis_off()


def _pt(pixels: float) -> float:
    return pixels * 72 / _DPI


def _clean(axes: Axes, grid: bool = False) -> None:
    """Remove the axes' box and ticks, and draw thin grid lines."""
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0, labelsize=_pt(12), colors=_SOFT)
    for axis in (axes.xaxis, axes.yaxis):
        axis.label.set(color=_SOFT, size=_pt(12))
    if grid:
        axes.grid(axis="y", color=_FAINT, lw=0.8)
        axes.set_axisbelow(True)


def _legend(axes: Axes, **options: Any) -> None:
    axes.legend(frameon=False, fontsize=_pt(12), labelcolor=_SOFT, **options)


def _profile_axes(page: _Page, left: int) -> Axes:
    """Make axes over the distance from the border, with the frame shaded."""
    axes = page.axes(left, 148, 724, 330)
    axes.axvspan(0, FRAME, color="#f1ead9", lw=0)
    ticks = range(0, DEPTH + 1, 8)
    axes.set(xlim=(0, DEPTH), xticks=ticks, xlabel="distance from the border, pixels")
    _clean(axes, grid=True)
    return axes


def _patch(image: Array) -> tuple[Values, Values]:
    """Return the mean colour and the deviation from a plane of the middle of a field's inside."""
    start = (INSIDE - _PATCH) // 2
    patch = image[start : start + _PATCH, start : start + _PATCH].reshape(-1, 3).astype(np.float64)
    y, x = np.mgrid[:_PATCH, :_PATCH]
    plane = np.stack([np.ones(x.size), x.ravel(), y.ravel()], 1)
    deviation = patch - plane @ np.linalg.lstsq(plane, patch, rcond=None)[0]
    return patch.mean(0), deviation.reshape(_PATCH, _PATCH, 3)


def _folded(image: Array) -> tuple[Values, Values]:
    """Return the mean colour, and the deviation of the mean cell of 8×8 pixels, repeated."""
    cells = image.reshape(INSIDE // 8, 8, INSIDE // 8, 8, 3).astype(np.float64)
    mean = image.mean((0, 1))
    return mean, np.tile(cells.mean((0, 2)) - mean, (_PATCH // 8, _PATCH // 8, 1))


def _factor(deviations: Values, most: float) -> int:
    """Return the factor by which 98 % of the deviations stay within `most` levels."""
    reach = float(np.quantile(np.abs(deviations), 0.98))
    return next((factor for factor in (16, 8, 4, 2) if factor * reach <= most), 1)


def _bytes(values: Values) -> Array:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def _signed(*values: float) -> str:
    return ", ".join(f"{value:+.1f}" for value in values).replace("-", "−")
