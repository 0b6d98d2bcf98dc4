"""Options that several commands share, and how their texts are parsed."""

from __future__ import annotations

import os
from collections.abc import Container, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from nst.config import Device, KeepColor, ObjectiveConfig, check_number
from nst.errors import ImageError, UsageError
from nst.io.files import same_file

_OBJECTIVE = ObjectiveConfig()

# Options in groups of the help.
look = partial(typer.Option, rich_help_panel="How it looks")
expert = partial(typer.Option, rich_help_panel="Experts")

StyleOption = Annotated[
    list[Path], typer.Option("--style", help="Style image; repeat for a blend of several.")
]
StyleWeightsOption = Annotated[
    str, typer.Option(help="Shares of the style images, as 0.7,0.3. Default: equal parts.")
]
StyleStrengthOption = Annotated[
    float, look(help="How far to leave the photograph: 2 is farther, 0.5 closer.")
]
StrokeOption = Annotated[float, look(help="Size of the strokes: 2 is twice as large.")]
KeepColorOption = Annotated[
    KeepColor | None,
    look(
        help="Keep the photograph's colours: paint its luminance alone, or give the style image "
        "the photograph's colours first (linear, histogram)."
    ),
]
TVWeightOption = Annotated[float, look(help="Smoothness: weight of total variation.")]
StyleWeightOption = Annotated[
    float | None,
    expert(help="Of the style loss, instead of --style-strength. Default: measured for the style."),
]
ContentWeightOption = Annotated[float, expert(help="Of the content loss.")]
StyleSizeOption = Annotated[
    int,
    expert(help="Short side of the style image for VGG, pixels, instead of --stroke."),
]
VGGOption = Annotated[
    str,
    expert(
        "--vgg", help="VGG-19 weights: caffe, torchvision (download), FILE:caffe, FILE:torchvision."
    ),
]
DeviceOption = Annotated[Device, typer.Option(help="Where to compute.")]
SeedOption = Annotated[int, expert(help="Of everything random.")]


def numbers(name: str, text: str) -> tuple[float, ...]:
    """`0.7,0.3` as numbers.

    Raises:
        UsageError: something between the commas is none.
    """
    try:
        return tuple(float(part) for part in text.split(",") if part.strip())
    except ValueError as error:
        raise UsageError(f"{name} is {text!r}: give numbers with commas, as 0.7,0.3") from error


def whole_numbers(name: str, text: str) -> tuple[int, ...]:
    """`256,512` as numbers.

    Raises:
        UsageError: something between the commas is none.
    """
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise UsageError(f"{name} is {text!r}: give whole numbers, as 256,512") from error


def words(text: str) -> tuple[str, ...]:
    """`fp32, int8` as its parts."""
    return tuple(part.strip() for part in text.split(",") if part.strip())


def given_options(ctx: typer.Context, values: Mapping[str, Any]) -> dict[str, Any]:
    """Those of a command's arguments `values` that the command line gives, not their defaults."""
    sources = {name: ctx.get_parameter_source(name) for name in ctx.params}
    return {
        name: values[name]  # not ctx.params[name], which need not have the type asked for
        for name, source in sources.items()
        if source is not None and source.name == "COMMANDLINE"
    }


def check_rivals(given: Container[str]) -> None:
    """Raise `UsageError` where an option is given and the one that it stands in for too."""
    for one, other in (("style_strength", "style_weight"), ("stroke", "style_size")):
        if one in given and other in given:
            names = f"--{one} and --{other}".replace("_", "-")
            raise UsageError(f"{names} are both given: choose one")


def stroke_size(stroke: float) -> int:
    """The style size for `--stroke`.

    Raises:
        UsageError: not of 0.1 to 10.
    """
    check_number("stroke", stroke, least=0.1, most=10)
    return round(_OBJECTIVE.style_size * stroke)


def check_image_target(out: Path, sources: Iterable[Path]) -> None:
    """Raise before any work where an image can't be written to `--out`, or would go over another.

    Raises:
        ImageError: no suffix of an image format. UsageError: it is one of the sources.
    """
    from nst.io.images import WRITE_FORMATS

    if not os.path.isdir(out) and out.suffix.lower() not in WRITE_FORMATS:
        known = " ".join(sorted(WRITE_FORMATS))
        raise ImageError(f"--out {out} has no suffix that names an image format: use {known}")
    for source in sources:
        if same_file(source, out):
            raise UsageError(f"--out would overwrite {source}: name another file")
