"""Compares methods of colour transfer on a pair of images: results, histograms, distances, time."""

from __future__ import annotations

import csv
import io
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nst.color.pixels import LEVELS, ColorImage, Matrix, as_bytes, histograms
from nst.color.transfer import METHODS
from nst.config import ColorMethod
from nst.io.files import replacing
from nst.io.images import Array, resize_long

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CHANNELS = ("red", "green", "blue")
UNTOUCHED = "source"  # name of the row for the unchanged image
_INKS = ("#c2453c", "#3b8a57", "#3a6fb5")
_SHOWN = 640  # long side of an image in the figure, in pixels


@dataclass(frozen=True)
class Compared:
    """The distance from the reference after one method, and its time.

    Attributes:
        method: name of the method, or `source` for the unchanged image.
        kl: Kullback–Leibler divergence of the result's histogram from the reference's, in nats, for
            red, green and blue; see `kl_divergence`.
        wasserstein: Wasserstein distance of the histograms in levels, for red, green and blue.
        seconds: time of the method.
    """

    method: str
    kl: tuple[float, float, float]
    wasserstein: tuple[float, float, float]
    seconds: float


def kl_divergence(image: ColorImage, reference: ColorImage, smoothing: float = 0.0) -> Matrix:
    """Compute the divergence (Kullback–Leibler) of an image from a reference, by channel: [3].

    Σ p log(p / q) in nats over histograms of 256 bins of one level, p of the image and q of the
    reference; `inf` if the image has a level that the reference lacks.

    Args:
        smoothing: added to the count of every bin.
    """
    p, q = (histograms(as_bytes(i)) + smoothing for i in (image, reference))
    p, q = (counts / counts.sum(1, keepdims=True) for counts in (p, q))
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = np.where(p > 0, p * np.log(p / q), 0.0)
    total: Matrix = terms.sum(1)
    return total


def wasserstein(image: ColorImage, reference: ColorImage) -> Matrix:
    """Compute the Wasserstein distance W1 of the histograms in levels, by channel: [3]."""
    p, q = (
        histograms(as_bytes(i)).cumsum(1) / (i.shape[0] * i.shape[1]) for i in (image, reference)
    )
    distance: Matrix = np.abs(p - q).sum(1)
    return distance


def compare_methods(
    image: Array,
    reference: Array,
    methods: Sequence[ColorMethod] = tuple(METHODS),
    callback: Callable[[str, Array], object] = lambda *_: None,
) -> tuple[list[Compared], dict[str, Array]]:
    """Recolour an image, HWC uint8 RGB, by each method; measure the distance from the reference.

    Args:
        callback: called with each method's name and result.

    Returns:
        The rows, the unchanged image's first, and the results by name.
    """
    pictures: dict[str, Array] = {UNTOUCHED: image}
    times = {UNTOUCHED: 0.0}
    for name in methods:
        start = time.perf_counter()
        pictures[name] = METHODS[name](image, reference)
        times[name] = time.perf_counter() - start
        callback(name, pictures[name])
    rows = []
    for label, picture in pictures.items():
        kl, moved = (f(picture, reference).tolist() for f in (kl_divergence, wasserstein))
        rows.append(Compared(label, tuple(kl), tuple(moved), times[label]))
    return rows, pictures


def as_json(rows: Sequence[Compared]) -> list[dict[str, Any]]:
    """Convert rows to JSON values; infinity, which JSON lacks, becomes null."""
    return [
        {**asdict(row), "kl": [value if math.isfinite(value) else None for value in row.kl]}
        for row in rows
    ]


def as_csv(rows: Sequence[Compared]) -> str:
    """Format rows as CSV, with a column for every number."""
    names = [f"{kind}_{channel}" for kind in ("kl", "wasserstein") for channel in CHANNELS]
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["method", *names, "seconds"])
    for row in rows:
        values = (*row.kl, *row.wasserstein, row.seconds)
        writer.writerow([row.method, *(f"{value:.6g}" for value in values)])
    return file.getvalue()


def as_table(rows: Sequence[Compared], *, markdown: bool = False) -> str:
    """Format rows as a table in plain text or in Markdown."""
    head = ["method", "KL red", "green", "blue", "W1 red", "green", "blue", "seconds"]
    cells = [
        [
            row.method,
            *(f"{value:.3f}" for value in row.kl),
            *(f"{value:.2f}" for value in row.wasserstein),
            f"{row.seconds:.3f}" if row.method != UNTOUCHED else "",
        ]
        for row in rows
    ]
    if markdown:
        rule = ["---", *["---:"] * (len(head) - 1)]
        return "\n".join(f"| {' | '.join(line)} |" for line in (head, rule, *cells))
    widths = [max(len(line[i]) for line in (head, *cells)) for i in range(len(head))]
    return "\n".join(
        "  ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])]).rstrip()
        for line in (head, *cells)
    )


def draw(pictures: dict[str, Array], reference: Array) -> Figure:
    """Draw images above their histograms, the reference first."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    shown = {"reference": reference, **pictures}
    columns = 5
    lines = -(-len(shown) // columns)
    figure = Figure(figsize=(3.2 * columns, 3.9 * lines), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(2 * lines, columns, height_ratios=[2.2, 1] * lines)
    for ax in axes.flat:
        ax.set_axis_off()
    for index, (name, image) in enumerate(shown.items()):
        line, column = divmod(index, columns)
        above, below = axes[2 * line, column], axes[2 * line + 1, column]
        above.imshow(resize_long(image, min(_SHOWN, max(image.shape[:2]))))
        above.set_title(name.replace("_", " + "), fontsize=11)
        below.set_axis_on()
        for counts, ink in zip(histograms(image), _INKS, strict=True):
            share = 100 * counts / counts.sum()
            below.fill_between(range(LEVELS), share, step="mid", color=ink, alpha=0.22, lw=0)
            below.step(range(LEVELS), share, where="mid", color=ink, lw=0.8)
        # The scale ignores the peak of clipped levels, so that the rest stays visible.
        below.set(xlim=(0, LEVELS - 1), ylim=(0, 4), yticks=[], xticks=[0, 128, 255])
        below.tick_params(labelsize=8)
        for side in ("top", "left", "right"):
            below.spines[side].set_visible(False)
    return figure


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure as PNG, whole or not at all."""
    with replacing(path) as beside:
        figure.savefig(beside, format="png")
