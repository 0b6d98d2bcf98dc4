"""Measures a model's three artefacts: checkerboard, border and the scale of its strokes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from nst.infer.diagnostics.border import Border, border, border_pixels
from nst.infer.diagnostics.checkerboard import Checkerboard, checkerboard, fields
from nst.infer.diagnostics.photographs import Stylize, check_photographs
from nst.infer.diagnostics.strokes import (
    HEIGHTS,
    StrokeScale,
    check_heights,
    stroke_pixels,
    stroke_scale,
)
from nst.io.images import Array


@dataclass(frozen=True)
class Inspection:
    """All three measurements of one model."""

    checkerboard: Checkerboard
    border: Border
    strokes: StrokeScale

    def to_dict(self) -> dict[str, Any]:
        """Return the numbers, without the images, ready for JSON."""
        return {part.name: _plain(getattr(self, part.name)) for part in dataclasses.fields(self)}


@dataclass(frozen=True)
class InspectionProgress:
    """The progress of `inspect`: pixels stylised, and pixels to stylise in all."""

    done: int
    total: int


def inspect(
    stylize: Stylize,
    photographs: Sequence[Array],
    *,
    heights: Sequence[int] = HEIGHTS,
    callback: Callable[[InspectionProgress], None] | None = None,
) -> Inspection:
    """Measure a model's checkerboard, border and stroke scale.

    Args:
        stylize: maps an image, HWC uint8 RGB, to one of the same shape.
        photographs: HWC uint8 RGB, of any size.
        heights: as for `stroke_scale`.
        callback: called after every stylised image.

    Raises:
        UsageError: there are no photographs, or the heights do not rise.
    """
    check_photographs(photographs)
    check_heights(heights)
    total = sum(image[..., 0].size for _, _, image in fields())
    total += sum(border_pixels(image) + stroke_pixels(image, heights) for image in photographs)
    done = 0

    def counted(image: Array) -> Array:
        nonlocal done
        painted = stylize(image)
        done += image[..., 0].size
        if callback is not None:
            callback(InspectionProgress(done, total))
        return painted

    return Inspection(
        checkerboard(counted),
        border(counted, photographs),
        stroke_scale(counted, photographs, heights),
    )


def _plain(value: Any) -> Any:
    """Turn dataclasses into dictionaries, without the fields that hold images."""
    if dataclasses.is_dataclass(value):
        kept = [f.name for f in dataclasses.fields(value) if f.repr]
        return {name: _plain(getattr(value, name)) for name in kept}
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return value
