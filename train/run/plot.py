"""Plots the losses of a training run."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter
from numpy.typing import NDArray

from nst.formatting import clock, thousands
from nst.io.files import replacing
from nst.train.run.log import LogRow

INK, GREY = "#222222", "#777777"
COLORS = {"total": "#222222", "style": "#c8442b", "content": "#33658a", "teacher": "#5b8c5a"}
MAX_POINTS = 3000  # more than the image has columns
MAX_NOTES = 10  # with more, their words are left out
Floats = NDArray[np.float64]


def plot_losses(rows: Sequence[LogRow], path: Path) -> None:
    """Plot raw and smoothed losses, the validation loss, notes and the learning rate as a PNG.

    Raises:
        NstError: `path` can't be written.
    """
    figure = Figure(figsize=(11, 6), layout="constrained")
    losses, rates = figure.subplots(2, 1, sharex=True, height_ratios=(5, 1))
    _losses(losses, rows)
    _notes(losses, rows)
    _rates(rates, rows)
    if rows:
        last = rows[-1]
        count = f"{last.step:,} step" + "s" * (last.step > 1)
        title = f"{path.absolute().parent.name}: {count} in {clock(last.seconds)}"
        losses.set_title(title, color=INK, fontsize=12, loc="left", pad=9)
    save_figure(figure, path)


def save_figure(figure: Figure, path: Path) -> None:
    """Draw a grid and no frame in all axes, and write a PNG.

    Raises:
        NstError: `path` can't be written.
    """
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25, linewidth=0.6)
    with replacing(path) as beside:
        figure.savefig(beside, dpi=130, format="png")


def label_logarithmic(axis: Axis, unit: float = 1.0) -> None:
    """Label a logarithmic axis at 1, 2, 5, 10, … in multiples of `unit`."""
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value / unit:,g}"))
    axis.set_minor_formatter(NullFormatter())


def smooth(values: Floats) -> Floats:
    """Take the moving median over a fortieth of the values; it keeps jumps sharp and skips NaN."""
    half = len(values) // 80
    padded = np.pad(values, half, constant_values=np.nan)
    windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * half + 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # windows with only NaN
        return np.nanmedian(windows, axis=1)


def _stride(rows: Sequence[LogRow]) -> int:
    return max(1, -(-len(rows) // MAX_POINTS))


def _losses(axes: Axes, rows: Sequence[LogRow]) -> None:
    shown = rows[:: _stride(rows)]
    steps = [row.step for row in shown]
    edges: list[float] = []

    def add(name: str, steps: Sequence[int], values: Floats, **look: Any) -> None:
        known = values[~np.isnan(values)]
        if known.size:
            axes.plot(steps, values, label=f"{name} {thousands(float(known[-1]))}", **look)
            edges.extend((known.min(), known.max()))

    for name, color in COLORS.items():
        raw = _loggable([getattr(row, f"{name}_loss") for row in shown])
        if np.isnan(raw).all():
            continue
        axes.plot(steps, raw, color=color, alpha=0.22, linewidth=0.7, zorder=1)
        width, order = (2.2, 3) if name == "total" else (1.6, 2)
        dots = {"marker": _marker(shown), "markersize": 3}
        add(name, steps, smooth(raw), color=color, linewidth=width, zorder=order, **dots)
    validated = [row for row in rows if row.validation_loss is not None]
    add(
        "validation photographs",
        [row.step for row in validated],
        _loggable([row.validation_loss for row in validated]),
        color="white",
        linestyle="",
        marker="o",
        markersize=6,
        markeredgecolor=INK,
        markeredgewidth=1.4,
        zorder=4,
    )
    axes.set(yscale="log", ylabel="loss, thousands")
    if edges:  # of the smoothed lines, so that one extreme step does not flatten the rest
        axes.set_ylim(min(edges) / 1.5, max(edges) * 1.5)
        axes.legend(
            loc="lower right",
            bbox_to_anchor=(1, 1),
            ncols=len(COLORS) + 1,
            frameon=False,
            fontsize=9,
            columnspacing=1.4,
            handlelength=1.4,
        )
    label_logarithmic(axes.yaxis, unit=1e3)


def _notes(axes: Axes, rows: Sequence[LogRow]) -> None:
    """Draw a tick for each note, with its words if there are few notes."""
    noted = [row for row in rows if row.note]
    red, heights = COLORS["style"], axes.get_xaxis_transform()  # y from 0 to 1
    axes.vlines([row.step for row in noted], 0, 0.03, color=red, linewidth=1.2, transform=heights)
    for row in noted if len(noted) <= MAX_NOTES else ():
        axes.axvline(row.step, color=red, linewidth=0.6, linestyle=":", zorder=1)
        axes.annotate(
            row.note[:40],
            (row.step, 0.99),
            xycoords=heights,
            xytext=(-3, 0),
            textcoords="offset points",
            rotation=90,
            fontsize=8,
            color=red,
            ha="right",
            va="top",
        )


def _rates(axes: Axes, rows: Sequence[LogRow]) -> None:
    shown = rows[:: _stride(rows)]
    rates = [row.learning_rate for row in shown]
    axes.plot([row.step for row in shown], rates, color=GREY, marker=_marker(shown), markersize=3)
    axes.set(xlabel="step", ylabel="learning\nrate")
    peak = max(rates, default=0.0)
    if peak > 0:
        axes.set_yticks([0, peak], ["0", f"{peak:.2g}"])
        axes.set_ylim(0, peak * 1.15)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    if len(shown) == 1:
        axes.set_xlim(shown[0].step - 1, shown[0].step + 1)


def _marker(shown: Sequence[LogRow]) -> str:
    """Return dots as markers where a line has too few points to be seen."""
    return "o" if len(shown) < 40 else ""


def _loggable(values: Sequence[float | None]) -> Floats:
    """Replace values that have no logarithm by NaN."""
    array = np.array(values, np.float64)
    return np.where(np.isfinite(array) & (array > 0), array, np.nan)
