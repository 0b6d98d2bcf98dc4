"""Measure the dots that models leave in flat areas of photographs: skies, walls, backgrounds.

    python docs/bench/soft.py PHOTOGRAPHS MODEL …

`nst inspect` makes its own flat fields, and a network can be clean on them alone. Here windows of
72×72 pixels are chosen where a photograph departs least from a plane, at most 30 in a photograph.
The repainted luminance, minus its Gaussian mean (3 pixels), is averaged over blocks of 8×8 pixels.
The variance of the mean block is that of a checkerboard and, by chance, of strokes; blocks of 7×7
and 9×9 estimate the share of the strokes, which is subtracted.

Prints the number of windows, and for each model the RMS of the dots in levels.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from scipy.ndimage import gaussian_filter

from nst.infer.runtime.stylizer import Stylizer
from nst.io.images import Array, load_image

SIDE, STEP, EDGE, MOST = 72, 36, 24, 30
FLAT = 8.0  # standard deviation from a plane at most, levels
LUMINANCE = np.array([0.299, 0.587, 0.114])


def soft_windows(photograph: Array) -> list[tuple[int, int]]:
    """Find the flattest windows: top left corners on a grid of 8, the flattest first."""
    luminance = photograph @ LUMINANCE
    down, across = np.mgrid[:SIDE, :SIDE].reshape(2, -1)
    plane = np.stack([down, across, np.ones(SIDE * SIDE)], 1)
    found = []
    for top in range(EDGE, luminance.shape[0] - SIDE - EDGE, STEP):
        for left in range(EDGE, luminance.shape[1] - SIDE - EDGE, STEP):
            window = luminance[top : top + SIDE, left : left + SIDE].ravel()
            rest = window - plane @ np.linalg.lstsq(plane, window)[0]
            if rest.std() < FLAT:
                found.append((rest.std(), top - top % 8, left - left % 8))
    return [(top, left) for _, top, left in sorted(found)[:MOST]]


def folded(window: Array, period: int) -> float:
    """Return the variance of the mean block of `period`² pixels."""
    whole = SIDE // period * period
    blocks = window[:whole, :whole].reshape(whole // period, period, -1, period)
    return float(blocks.mean((0, 2)).var())


def dots(window: Array) -> float:
    """Return the variance in blocks of 8×8 pixels, without the strokes' share, in levels²."""
    detail = window - gaussian_filter(window, 3)
    return folded(detail, 8) - (folded(detail, 7) + folded(detail, 9)) / 2


def main(photographs: Path, models: Annotated[list[Path], typer.Argument()]) -> None:
    """Measure the dots that models leave in flat areas of photographs."""
    loaded = [load_image(path) for path in sorted(photographs.iterdir())]
    soft = [(photograph, soft_windows(photograph)) for photograph in loaded]
    soft = [(photograph, corners) for photograph, corners in soft if corners]
    print(f"{sum(len(corners) for _, corners in soft)} windows of {len(soft)} photographs")
    for model in models:
        stylizer, found = Stylizer(model), []
        for photograph, corners in soft:
            painted = stylizer(photograph) @ LUMINANCE
            found += [dots(painted[y : y + SIDE, x : x + SIDE]) for y, x in corners]
        print(f"{model}: {max(np.mean(found), 0) ** 0.5:.2f} levels")


if __name__ == "__main__":
    typer.run(main)
