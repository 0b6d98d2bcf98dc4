"""Draws the flicker that was measured on a video."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from nst.infer.diagnostics.flicker import ClipFlicker
from nst.io.files import replacing
from nst.io.images import save_image


def save_pictures(clip: ClipFlicker, folder: Path, name: str) -> list[Path]:
    """Draw the errors over time, one row of the video over time, and the last frame's difference.

    Args:
        folder: folder for `flicker.png`, `slice.png` and `difference.png`.
        name: name of the model for the legend.

    Returns:
        Paths of the three files.

    Raises:
        ModuleNotFoundError: matplotlib is not installed.
        NstError: the folder can't be written.
    """
    paths = [folder / f"{what}.png" for what in ("flicker", "slice", "difference")]
    _draw_errors(clip, paths[0], name)
    # Each frame is one row: rows are repeated if there are few.
    save_image(paths[1], np.repeat(clip.slice, max(1, round(240 / clip.frames)), axis=0))
    save_image(paths[2], clip.difference)
    return paths


def _draw_errors(clip: ClipFlicker, path: Path, name: str) -> None:
    from matplotlib.figure import Figure

    figure = Figure((8, 3.5), layout="constrained")
    axes = figure.add_subplot()
    numbers = np.arange(2, clip.frames + 1)
    name = name.replace("$", r"\$")  # or else matplotlib reads a formula
    axes.plot(numbers, clip.errors, label=f"{name}: {clip.rms:.1f} over all")
    axes.plot(numbers, clip.film_errors, label=f"the video itself: {clip.film:.1f}")
    axes.set(xlabel="frame", ylabel="warping error, levels", ylim=(0, None))
    axes.legend()
    with replacing(path) as beside:
        figure.savefig(beside, dpi=120)
