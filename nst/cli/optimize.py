"""`nst optimize`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.progress import TextColumn

from nst.cli.console import Debug, command, progress_bar, say
from nst.cli.options import (
    ContentWeightOption,
    DeviceOption,
    KeepColorOption,
    SeedOption,
    StrokeOption,
    StyleOption,
    StyleSizeOption,
    StyleStrengthOption,
    StyleWeightOption,
    StyleWeightsOption,
    TVWeightOption,
    VGGOption,
    check_image_target,
    check_rivals,
    expert,
    given_options,
    look,
    numbers,
    stroke_size,
    whole_numbers,
)
from nst.config import ObjectiveConfig, OptimizeConfig
from nst.errors import UsageError, needs_extra
from nst.formatting import clock, thousands
from nst.io.files import check_writable

_CONFIG = OptimizeConfig()
_OBJECTIVE = ObjectiveConfig()


def register(app: typer.Typer) -> None:
    """Add `nst optimize` to the command."""
    app.command("optimize")(optimize_command)


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
    from nst.io.images import load_image, save_image
    from nst.perceptual.style_image import prepare_style

    check_image_target(out, (content, *style))
    photograph = load_image(content)
    prepared = [prepare_style(path, config.objective.style_size) for path in style]
    styles = [image.image for image in prepared]
    check_writable(out)
    with needs_extra("nst optimize"):
        from nst.perceptual.gatys import OptimizeProgress, optimize

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
