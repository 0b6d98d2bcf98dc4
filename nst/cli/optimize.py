"""`nst optimize`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from nst.cli.console import Debug, command, progress_bar, say
from nst.cli.fields import make_config, with_options
from nst.cli.options import StrokeOption, StyleOption, check_image_target, check_rivals, stroke_size
from nst.config import ObjectiveConfig, OptimizeConfig
from nst.errors import UsageError, needs_extra
from nst.formatting import clock, thousands
from nst.io.files import check_writable


@command
@with_options(OptimizeConfig)
def optimize_command(
    content: Annotated[Path, typer.Argument(help="Photograph to repaint.")],
    style: StyleOption,
    out: Annotated[Path, typer.Option(help="Image to write; the suffix names the format.")],
    given: Mapping[str, Any],
    save_every: Annotated[
        int, typer.Option(help="Also save the image of every k-th step, as OUT-0050.png; 0: none.")
    ] = 0,
    stroke: StrokeOption = 1.0,
    debug: Debug = False,
) -> None:
    """Repaint one photograph by optimising its pixels (Gatys et al.): slow, of the best quality."""
    check_rivals(given)
    options = dict(given)
    if "stroke" in given:
        options["style_size"] = stroke_size(stroke)
    if options.get("size") == (0,):
        options["size"] = ()
    if options.get("init") not in (None, "content", "noise"):
        options["init"] = Path(options["init"])
    objective = make_config(ObjectiveConfig, options)
    config: OptimizeConfig = make_config(OptimizeConfig, options, objective=objective)
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

    with progress_bar("losses") as bar:
        task = bar.add_task("optimizing", total=None, losses="")
        last: OptimizeProgress | None = None

        def report(progress: OptimizeProgress) -> None:
            nonlocal last
            if last is None:  # after the first step the input is known to be good
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
