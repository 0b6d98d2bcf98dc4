"""`nst optimize`."""

from __future__ import annotations

import os
from collections.abc import Container, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.progress import TextColumn

from nst.config import Device, KeepColor, ObjectiveConfig, OptimizeConfig, check_number
from nst.console import Debug, clock, command, progress_bar, say, thousands
from nst.errors import ImageError, UsageError, needs_extra
from nst.files import check_writable, same_file

_CONFIG = OptimizeConfig()
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


def register(app: typer.Typer) -> None:
    """Add `nst optimize` to the command."""
    app.command("optimize")(optimize_command)


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
    from nst.images import WRITE_FORMATS

    if not os.path.isdir(out) and out.suffix.lower() not in WRITE_FORMATS:
        known = " ".join(sorted(WRITE_FORMATS))
        raise ImageError(f"--out {out} has no suffix that names an image format: use {known}")
    for source in sources:
        if same_file(source, out):
            raise UsageError(f"--out would overwrite {source}: name another file")


@command
def optimize_command(
    ctx: typer.Context,
    content: Annotated[Path, typer.Argument(help="Photograph to repaint.")],
    style: StyleOption,
    out: Annotated[Path, typer.Option(help="Image to write; the suffix names the format.")],
    style_weights: StyleWeightsOption = "",
    size: Annotated[
        str,
        typer.Option(
            help="Long side, pixels; several, as 256,512,1024, work from coarse to fine; "
            "0 keeps the photograph's."
        ),
    ] = ",".join(map(str, _CONFIG.sizes)),
    iterations: Annotated[int, typer.Option(help="Steps at each size.")] = _CONFIG.iterations,
    save_every: Annotated[
        int, typer.Option(help="Also save every k-th image, as OUT-0050.png; 0 for none.")
    ] = 0,
    style_strength: StyleStrengthOption = _OBJECTIVE.style_strength,
    stroke: StrokeOption = 1.0,
    tv_weight: TVWeightOption = _OBJECTIVE.tv_weight,
    keep_color: KeepColorOption = _OBJECTIVE.keep_color,
    init: Annotated[str, look(help="Start from: content, noise, or an image file.")] = str(
        _CONFIG.init
    ),
    device: DeviceOption = _CONFIG.device,
    style_weight: StyleWeightOption = _OBJECTIVE.style_weight,
    content_weight: ContentWeightOption = _OBJECTIVE.content_weight,
    style_size: StyleSizeOption = _OBJECTIVE.style_size,
    optimizer: Annotated[
        Literal["lbfgs", "adam"], expert(help="Gradient method.")
    ] = _CONFIG.optimizer,
    learning_rate: Annotated[
        float, expert("--lr", help="Adam's step, in levels of 0 to 255.")
    ] = _CONFIG.learning_rate,
    vgg: VGGOption = _OBJECTIVE.vgg,
    seed: SeedOption = _CONFIG.seed,
    debug: Debug = False,
) -> None:
    """Repaint one photograph by optimising its pixels (Gatys et al.): slow, the best quality."""
    given = given_options(ctx, locals())
    check_rivals(given)
    config = OptimizeConfig(
        objective=ObjectiveConfig(
            content_weight=content_weight,
            style_weight=style_weight,
            style_strength=style_strength,
            tv_weight=tv_weight,
            style_size=stroke_size(stroke) if "stroke" in given else style_size,
            vgg=vgg,
            keep_color=keep_color,
        ),
        style_weights=numbers("--style-weights", style_weights),
        iterations=iterations,
        sizes=() if size.strip() == "0" else whole_numbers("--size", size),
        optimizer=optimizer,
        learning_rate=learning_rate,
        init=init if init in ("content", "noise") else Path(init),
        seed=seed,
        device=device,
    )
    if save_every < 0:
        raise UsageError(f"--save-every is {save_every}: give a number of steps, or 0")
    from nst.images import load_image, save_image
    from nst.styles import prepare_style

    check_image_target(out, (content, *style))
    photograph = load_image(content)
    prepared = [prepare_style(path, config.objective.style_size) for path in style]
    styles = [image.image for image in prepared]
    check_writable(out)
    with needs_extra("nst optimize"):
        from nst.gatys import OptimizeProgress, optimize

    with progress_bar(TextColumn("{task.fields[losses]}")) as bar:
        task = bar.add_task("optimizing", total=None, losses="")
        last: OptimizeProgress | None = None

        def report(progress: OptimizeProgress) -> None:
            nonlocal last
            if last is None:  # now nothing is wrong with the input
                for note in (note for image in prepared for note in image.notes):
                    say(f"note: {note}")
            last = progress
            losses = (
                f"content {thousands(progress.content_loss)}  "
                f"style {thousands(progress.style_loss)}  "
                f"total {thousands(progress.total_loss)}  "
                f"{clock(progress.seconds_left)} left"
            )
            bar.update(task, total=progress.steps, completed=progress.step, losses=losses)
            if save_every and progress.step % save_every == 0:
                frame = out.with_name(f"{out.stem}-{progress.step:04d}{out.suffix}")
                save_image(frame, progress.image())

        result = optimize(photograph, styles, config, report)
    save_image(out, result)
    if last is not None:
        stopped = "" if last.step == last.steps else f" (stopped at {last.step} of {last.steps})"
        say(
            f"{out}: {result.shape[1]}×{result.shape[0]}, total loss "
            f"{thousands(last.total_loss)}, content {thousands(last.content_loss)}, "
            f"style {thousands(last.style_loss)}{stopped}"
        )
