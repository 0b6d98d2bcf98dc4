"""What a film is to look like: one style, or several over time with a cross-fade between them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
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
    """What is done to the frames of a film.

    Args:
        styles: the models' paths, each with the second of the repainted film at which it begins;
            the first begins at 0.
        fade: seconds of the cross-fade with which each style begins.
        strength: 0 to 1.
        keep_color: how to give each frame its own colours back, or `none`; None for what each
            style asks for.
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
    """Styles one after another.

    Args:
        scenes: what repaints HWC uint8 RGB, each with the second at which it begins.
        fade: seconds of the cross-fade with which each but the first begins.

    Raises:
        UsageError: none, or the seconds don't rise from 0.
    """

    def __init__(self, scenes: Sequence[tuple[Stylize, float]], fade: float = FADE) -> None:
        starts = [start for _, start in scenes]
        if not starts or starts[0] != 0 or not all(a < b < inf for a, b in pairwise(starts)):
            raise UsageError(
                "the styles begin at "
                f"{', '.join(f'{start:g}' for start in starts) or 'no'} s: let the first begin at "
                "0 and the others later, each after the one before"
            )
        self._scenes, self._fade = list(scenes), fade

    def at(self, image: Array, seconds: float) -> Array:
        """Repaint the frame, HWC uint8 RGB, that is shown at `seconds`."""
        begun = [k for k, (_, start) in enumerate(self._scenes) if start <= seconds + 1e-6]
        return self._faded(begun[-1] if begun else 0, image, seconds)

    def _faded(self, number: int, image: Array, seconds: float) -> Array:
        """A style, and those before it as far as they are still in sight."""
        stylize, start = self._scenes[number]
        stylized = stylize(image)
        share = max(0.0, seconds - start) / self._fade if self._fade else 1.0
        if number == 0 or share >= 1:
            return stylized
        before = self._faded(number - 1, image, seconds)
        return np.asarray(cv2.addWeighted(stylized, share, before, 1 - share, 0), np.uint8)


class VideoStylizer(Closing):
    """The models of a `VideoStyle`, ready to repaint a film's frames in their order.

    Args:
        offset: seconds of the film before its part that is to be repainted.

    Attributes:
        notes: a line for what was out of the ordinary.
        name: of the styles; provider: where they are computed.
    """

    def __init__(self, look: VideoStyle, offset: float = 0.0) -> None:
        self._offset = offset
        self._stack = ExitStack()
        try:
            stylizers = [
                self._stack.enter_context(
                    Stylizer(path, provider=look.provider, threads=look.threads)
                )
                for path, _ in look.styles
            ]
            scenes = [
                (_stylize(stylizer, look), start)
                for stylizer, (_, start) in zip(stylizers, look.styles, strict=True)
            ]
            self._scenes = StyleSchedule(scenes, look.fade)
        except BaseException:
            self._stack.close()
            raise
        self.notes = tuple(dict.fromkeys(note for s in stylizers for note in s.notes))
        self.name = ", ".join(stylizer.name for stylizer in stylizers)
        self.provider = stylizers[0].provider

    def at(self, image: Array, seconds: float) -> Array:
        """Repaint the frame, HWC uint8 RGB, that is shown at `seconds`."""
        return self._scenes.at(image, seconds + self._offset)

    def close(self) -> None:
        """Release the models."""
        self._stack.close()


def parse_styles(text: str) -> tuple[tuple[Path, float], ...]:
    """`a.onnx@0,b.onnx@5.0` as paths and seconds.

    Raises:
        UsageError: it is not of that kind.
    """
    styles = []
    for part in text.split(","):
        path, _, seconds = part.rpartition("@")
        try:
            styles.append((Path(path.strip()), float(seconds)))
        except ValueError:
            path = ""
        if not path.strip():
            raise UsageError(f"--styles has {part!r}: write MODEL@SECONDS, as a.onnx@0,b.onnx@5.5")
    return tuple(styles)


def _stylize(stylizer: Stylizer, look: VideoStyle) -> Stylize:
    steady = TemporalStylizer(stylizer, stabilize=look.stabilize)
    keep = look.keep_color or stylizer.keep_color

    def stylize(image: Array) -> Array:
        stylized = steady(image, look.strength)
        if keep is None or keep == "none":
            return stylized
        return color.keep_color(stylized, image, keep)

    return stylize
