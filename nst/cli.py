"""`nst optimize`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.progress import TextColumn

from nst.config import Device, ObjectiveConfig, OptimizeConfig
from nst.console import Debug, clock, command, progress_bar, say, thousands
from nst.errors import ImageError, UsageError, needs_extra
from nst.files import check_writable, same_file

_CONFIG = OptimizeConfig()
_OBJECTIVE = ObjectiveConfig()

StyleOption = Annotated[
    list[Path], typer.Option("--style", help="Style image; repeat for a blend of several.")
]
StyleWeightsOption = Annotated[
    str, typer.Option(help="Shares of the style images, as 0.7,0.3. Default: equal parts.")
]
ContentWeightOption = Annotated[float, typer.Option(help="Weight of the content loss.")]
StyleStrengthOption = Annotated[
    float, typer.Option(help="How far to leave the photograph: 2 is twice the style.")
]
StyleWeightOption = Annotated[
    float | None,
    typer.Option(help="Fixed weight of the style loss. Default: measured for the style."),
]
TVWeightOption = Annotated[float, typer.Option(help="Weight of total variation (smoothness).")]
StyleSizeOption = Annotated[
    int, typer.Option(help="Short side of the style image for VGG: larger means larger strokes.")
]
VGGOption = Annotated[
    str,
    typer.Option(
        "--vgg", help="VGG-19 weights: caffe, torchvision (download), FILE:caffe, FILE:torchvision."
    ),
]
DeviceOption = Annotated[Device, typer.Option(help="Where to compute.")]
SeedOption = Annotated[int, typer.Option(help="Of everything random.")]


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


@command
def optimize_command(
    content: Annotated[Path, typer.Argument(help="Photograph to repaint.")],
    style: StyleOption,
    out: Annotated[Path, typer.Option(help="Image to write; the suffix names the format.")],
    style_weights: StyleWeightsOption = "",
    content_weight: ContentWeightOption = _OBJECTIVE.content_weight,
    style_strength: StyleStrengthOption = _OBJECTIVE.style_strength,
    style_weight: StyleWeightOption = _OBJECTIVE.style_weight,
    tv_weight: TVWeightOption = _OBJECTIVE.tv_weight,
    style_size: StyleSizeOption = _OBJECTIVE.style_size,
    size: Annotated[
        str,
        typer.Option(
            help="Long side in pixels; several, as 256,512,1024, work from coarse to fine; "
            "0 keeps the photograph's."
        ),
    ] = ",".join(map(str, _CONFIG.sizes)),
    iterations: Annotated[int, typer.Option(help="Steps at each size.")] = _CONFIG.iterations,
    optimizer: Annotated[
        Literal["lbfgs", "adam"], typer.Option(help="Gradient method.")
    ] = _CONFIG.optimizer,
    learning_rate: Annotated[
        float, typer.Option("--lr", help="Adam's step, in levels of 0 to 255.")
    ] = _CONFIG.learning_rate,
    init: Annotated[str, typer.Option(help="Start from: content, noise, or an image file.")] = str(
        _CONFIG.init
    ),
    save_every: Annotated[
        int, typer.Option(help="Also save every k-th image, as OUT-0050.png; 0 for none.")
    ] = 0,
    vgg: VGGOption = _OBJECTIVE.vgg,
    device: DeviceOption = _CONFIG.device,
    seed: SeedOption = _CONFIG.seed,
    debug: Debug = False,
) -> None:
    """Repaint one photograph by optimising its pixels (Gatys et al.): slow, the best quality."""
    config = OptimizeConfig(
        objective=ObjectiveConfig(
            content_weight=content_weight,
            style_weight=style_weight,
            style_strength=style_strength,
            tv_weight=tv_weight,
            style_size=style_size,
            vgg=vgg,
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
    from nst.images import WRITE_FORMATS, load_image, load_style, save_image

    if not os.path.isdir(out) and out.suffix.lower() not in WRITE_FORMATS:
        known = " ".join(sorted(WRITE_FORMATS))
        raise ImageError(f"--out {out} has no suffix that names an image format: use {known}")
    for source in (content, *style):
        if same_file(source, out):
            raise UsageError(f"--out would overwrite {source}: name another file")
    photograph = load_image(content)
    styles = [load_style(path) for path in style]
    check_writable(out)
    with needs_extra("nst optimize"):
        from nst.gatys import OptimizeProgress, optimize

    with progress_bar(TextColumn("{task.fields[losses]}")) as bar:
        task = bar.add_task("optimizing", total=None, losses="")
        last: OptimizeProgress | None = None

        def report(progress: OptimizeProgress) -> None:
            nonlocal last
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
