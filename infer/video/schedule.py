"""Chooses the style of each frame of a video: one style, or several with cross-fades."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from math import inf
from pathlib import Path
from typing import Literal

import cv2
import numpy as np

from nst.color import transfer as color
from nst.config import KeepColor, Provider, check_number
from nst.errors import UsageError
from nst.infer.runtime.stylizer import Stylizer
from nst.infer.video.temporal import TemporalStylizer
from nst.io.files import Closing
from nst.io.images import Array

FADE = 1.0  # seconds

Stylize = Callable[[Array], Array]


@dataclass(frozen=True)
class VideoStyle:
    """Options for repainting the frames of a video.

    Args:
        styles: the models' paths, each with the second of the repainted video at which it begins;
            the first begins at 0.
        fade: seconds of the cross-fade with which each style but the first begins.
        strength: 0 to 1.
        keep_color: method that keeps each frame's own colours, or `none`; None for each model's
            default.
        stabilize: see `nst.infer.video.temporal.TemporalStylizer`.
        provider, threads: see `nst.infer.runtime.stylizer.Stylizer`.
    """

    styles: tuple[tuple[Path, float], ...]
    fade: float = FADE
    strength: float = 1.0
    keep_color: KeepColor | Literal["none"] | None = None
    stabilize: bool = False
    provider: Provider = "auto"
    threads: int = 0

    def __post_init__(self) -> None:
        check_number("fade", self.fade)
        check_number("strength", self.strength, most=1)


class StyleSchedule:
    """Repaints frames in several styles, one after another, with cross-fades.

    Args:
        styles: functions from and to HWC uint8 RGB, each with the second at which it begins.
        fade: seconds of the cross-fade with which each style but the first begins.

    Raises:
        UsageError: there is no style, or the seconds don't rise from 0.
    """

    def __init__(self, styles: Sequence[tuple[Stylize, float]], fade: float = FADE) -> None:
        starts = [start for _, start in styles]
        if not starts or starts[0] != 0 or not all(a < b < inf for a, b in pairwise(starts)):
            raise UsageError(
                "the styles begin at "
                f"{', '.join(f'{start:g}' for start in starts) or 'no'} s: let the first begin at "
                "0 and the others later, each after the one before"
            )
        self._styles, self._fade = list(styles), fade

    def at(self, image: Array, seconds: float) -> Array:
        """Repaint the frame, HWC uint8 RGB, that is shown at `seconds`."""
        begun = [k for k, (_, start) in enumerate(self._styles) if start <= seconds + 1e-6]
        return self._blended(begun[-1] if begun else 0, image, seconds)

    def _blended(self, number: int, image: Array, seconds: float) -> Array:
        """Repaint in a style, blended with earlier ones while its cross-fade lasts."""
        stylize, start = self._styles[number]
        stylized = stylize(image)
        share = max(0.0, seconds - start) / self._fade if self._fade else 1.0
        if number == 0 or share >= 1:
            return stylized
        before = self._blended(number - 1, image, seconds)
        return np.asarray(cv2.addWeighted(stylized, share, before, 1 - share, 0), np.uint8)


class VideoStylizer(Closing):
    """Repaints the frames of a video, in their order, with the models of a `VideoStyle`.

    Args:
        offset: second of the whole video at which the part to repaint begins.

    Attributes:
        notes: lines for the user from opening the models.
        name: names of the styles.
        provider: where the models run.
    """

    def __init__(self, style: VideoStyle, offset: float = 0.0) -> None:
        self._offset = offset
        with ExitStack() as stack:
            stylizers = [
                stack.enter_context(Stylizer(path, provider=style.provider, threads=style.threads))
                for path, _ in style.styles
            ]
            functions = [
                (_stylize_function(stylizer, style), start)
                for stylizer, (_, start) in zip(stylizers, style.styles, strict=True)
            ]
            self._schedule = StyleSchedule(functions, style.fade)
            self._stack = stack.pop_all()
        self.notes = tuple(dict.fromkeys(note for s in stylizers for note in s.notes))
        self.name = ", ".join(stylizer.name for stylizer in stylizers)
        self.provider = stylizers[0].provider

    def at(self, image: Array, seconds: float) -> Array:
        """Repaint the frame, HWC uint8 RGB, that is shown at `seconds`."""
        return self._schedule.at(image, seconds + self._offset)

    def close(self) -> None:
        """Release the models."""
        self._stack.close()


def parse_styles(text: str) -> tuple[tuple[Path, float], ...]:
    """Parse a text such as `a.onnx@0,b.onnx@5.0` into paths and seconds.

    Raises:
        UsageError: it has another form.
    """
    styles = []
    for part in text.split(","):
        path, _, seconds = part.rpartition("@")
        try:
            styles.append((Path(path.strip()), float(seconds)))
        except ValueError:
            path = ""
        if not path.strip():
            raise UsageError(f"styles has {part!r}: write MODEL@SECONDS, as a.onnx@0,b.onnx@5.5")
    return tuple(styles)


def keeping_color(stylize: Stylize, method: KeepColor | None) -> Stylize:
    """Make a function that repaints as `stylize` does and keeps each image's own colours.

    Args:
        stylize: maps HWC uint8 RGB to the same shape.
        method: as for `nst.color.transfer.keep_color`; None returns `stylize` itself.
    """
    if method is None:
        return stylize
    return lambda image: color.keep_color(stylize(image), image, method)


def _stylize_function(stylizer: Stylizer, style: VideoStyle) -> Stylize:
    temporal = TemporalStylizer(stylizer, stabilize=style.stabilize)
    keep = style.keep_color or stylizer.keep_color
    repaint = partial(temporal, strength=style.strength)
    return keeping_color(repaint, None if keep == "none" else keep)
