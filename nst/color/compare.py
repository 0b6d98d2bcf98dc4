"""All methods of colour transfer on one pair of images: pictures, histograms, distances, time."""

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
UNTOUCHED = "source"  # the row of the image as it was
_INKS = ("#c2453c", "#3b8a57", "#3a6fb5")
_SHOWN = 640  # pixels of a picture's long side in the figure


@dataclass(frozen=True)
class Compared:
    """How near one method brings an image to its reference.

    Attributes:
        method: its name, or `source` for the image as it was.
        kl: Kullback–Leibler divergence of the result's histogram from the reference's, nats, for
            red, green and blue; see `kl_divergence`.
        wasserstein: how far levels are to be moved on average, for red, green and blue.
        seconds: that the method took.
    """

    method: str
    kl: tuple[float, float, float]
    wasserstein: tuple[float, float, float]
    seconds: float


def kl_divergence(image: ColorImage, reference: ColorImage, smoothing: float = 0.0) -> Matrix:
    """Kullback–Leibler divergence of an image's histogram from the reference's, by channel: [3].

    Σ p log(p / q) in nats over 256 bins of one level, p of the image, q of the reference; `inf`
    where the image has a level that the reference lacks.

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
    """How far the levels of a channel are to be moved on average, in levels, by channel: [3]."""
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
    """What each method makes of an image, HWC uint8 RGB, and how near that is to the reference.

    Args:
        callback: called with each method's name and picture.

    Returns:
        The rows, the untouched image first, and the pictures by name.
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
        red, green, blue = kl_divergence(picture, reference).tolist()
        moved = wasserstein(picture, reference).tolist()
        shifts = (moved[0], moved[1], moved[2])
        rows.append(Compared(label, (red, green, blue), shifts, times[label]))
    return rows, pictures


def mean_rows(pairs: Sequence[Sequence[Compared]]) -> list[Compared]:
    """Row by row the mean over several pairs of images, of which all were compared alike."""
    rows = []
    for same in zip(*pairs, strict=True):
        kl, moved = (np.mean([getattr(r, n) for r in same], 0) for n in ("kl", "wasserstein"))
        seconds = float(np.mean([row.seconds for row in same]))
        rows.append(Compared(same[0].method, tuple(kl.tolist()), tuple(moved.tolist()), seconds))
    return rows


def as_json(rows: Sequence[Compared]) -> list[dict[str, Any]]:
    """Values for JSON, which has no infinity: those are null."""
    return [
        {**asdict(row), "kl": [value if math.isfinite(value) else None for value in row.kl]}
        for row in rows
    ]


def as_csv(rows: Sequence[Compared]) -> str:
    """A table with a column for every number."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    names = [f"{kind}_{channel}" for kind in ("kl", "wasserstein") for channel in CHANNELS]
    writer.writerow(["method", *names, "seconds"])
    for row in rows:
        values = (*row.kl, *row.wasserstein, row.seconds)
        writer.writerow([row.method, *(f"{value:.6g}" for value in values)])
    return file.getvalue()


def as_table(rows: Sequence[Compared], *, markdown: bool = False) -> str:
    """A table for people, in plain text or in Markdown."""
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
    """Pictures above their histograms, the reference first."""
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
        # A spike of clipped levels must not flatten all else.
        below.set(xlim=(0, LEVELS - 1), ylim=(0, 4), yticks=[], xticks=[0, 128, 255])
        below.tick_params(labelsize=8)
        for side in ("top", "left", "right"):
            below.spines[side].set_visible(False)
    return figure


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure as PNG, whole or not at all."""
    with replacing(path) as beside:
        figure.savefig(beside, format="png")
