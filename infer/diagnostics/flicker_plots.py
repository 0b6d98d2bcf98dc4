"""Pictures of what `nst flicker` found on a film."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from nst.infer.diagnostics.flicker import ClipFlicker
from nst.io.files import replacing
from nst.io.images import save_image


def save_pictures(clip: ClipFlicker, folder: Path, name: str) -> list[Path]:
    """Draw the errors over time, one row of the film over time, and the last frame's difference.

    Raises:
        NstError: the folder can't be written.
    """
    paths = [folder / f"{what}.png" for what in ("flicker", "slice", "difference")]
    _draw_errors(clip, paths[0], name)
    # A frame is a row: a few frames are drawn taller.
    save_image(paths[1], np.repeat(clip.slice, max(1, round(240 / clip.frames)), axis=0))
    save_image(paths[2], clip.difference)
    return paths


def _draw_errors(clip: ClipFlicker, path: Path, name: str) -> None:
    from matplotlib.figure import Figure

    figure = Figure((8, 3.5), layout="constrained")
    axes = figure.add_subplot()
    numbers = np.arange(2, clip.frames + 1)
    name = name.replace("$", r"\$")  # no formula begins here
    axes.plot(numbers, clip.errors, label=f"{name}: {clip.rms:.1f} over all")
    axes.plot(numbers, clip.film_errors, label=f"the film itself: {clip.film:.1f}")
    axes.set(xlabel="frame", ylabel="warping error, levels", ylim=(0, None))
    axes.legend()
    with replacing(path) as beside:
        figure.savefig(beside, dpi=120)
