"""Options that several commands share, and the parsers of their texts."""

from __future__ import annotations

import os
from collections.abc import Container, Iterable
from pathlib import Path
from typing import Annotated

import typer

from nst.config import Device, ObjectiveConfig, check_number
from nst.errors import ImageError, UsageError
from nst.io.files import same_file

_OBJECTIVE = ObjectiveConfig()

StyleOption = Annotated[
    list[Path], typer.Option("--style", help="Style image, or several, each with its own --style.")
]
StrokeOption = Annotated[
    float,
    typer.Option(help="Size of the strokes: 2 is twice as large.", rich_help_panel="How it looks"),
]
DeviceOption = Annotated[Device, typer.Option(help="Device to compute on.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]


def numbers(name: str, text: str) -> tuple[float, ...]:
    """Parse `0.7,0.3`, the text of option `name`.

    Raises:
        UsageError: a part is not a number.
    """
    try:
        return tuple(float(part) for part in text.split(",") if part.strip())
    except ValueError as error:
        raise UsageError(f"{name} is {text!r}: give numbers with commas, as 0.7,0.3") from error


def whole_numbers(name: str, text: str) -> tuple[int, ...]:
    """Parse `256,512`, the text of option `name`.

    Raises:
        UsageError: a part is not a whole number.
    """
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise UsageError(f"{name} is {text!r}: give whole numbers, as 256,512") from error


def words(text: str) -> tuple[str, ...]:
    """Split `fp32, int8` at its commas."""
    return tuple(part.strip() for part in text.split(",") if part.strip())


def check_rivals(given: Container[str]) -> None:
    """Raise `UsageError` if two options are given of which one replaces the other."""
    for one, other in (("style_strength", "style_weight"), ("stroke", "style_size")):
        if one in given and other in given:
            names = f"--{one} and --{other}".replace("_", "-")
            raise UsageError(f"{names} are both given: choose one")


def stroke_size(stroke: float) -> int:
    """Return the style size in pixels for a value of `--stroke`.

    Raises:
        UsageError: the value is not from 0.1 to 10.
    """
    check_number("stroke", stroke, least=0.1, most=10)
    return round(_OBJECTIVE.style_size * stroke)


def check_image_target(out: Path, sources: Iterable[Path]) -> None:
    """Check before any work that `--out` names an image format and overwrites no source.

    Raises:
        ImageError: the suffix is not that of an image format. UsageError: it is one of the sources.
    """
    from nst.io.images import WRITE_FORMATS

    if not os.path.isdir(out) and out.suffix.lower() not in WRITE_FORMATS:
        known = " ".join(sorted(WRITE_FORMATS))
        raise ImageError(f"--out {out} has no suffix that names an image format: use {known}")
    for source in sources:
        if same_file(source, out):
            raise UsageError(f"--out would overwrite {source}: name another file")
