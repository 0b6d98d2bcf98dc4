"""`nst train`, also installed as `nst-train`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nst.cli.console import Debug, command, hush, progress_bar, say
from nst.cli.fields import with_options
from nst.cli.help import SectionedCommand, make_app
from nst.cli.options import StrokeOption, check_rivals, stroke_size
from nst.errors import UsageError, needs_extra
from nst.formatting import clock, thousands
from nst.io.files import same_file
from nst.train.cli.export import report_exports, report_skipped
from nst.train.config import TrainConfig
from nst.train.config_file import KEYS, load_config, make_config, merge_options
from nst.train.config_file import save_config as save_config_file

if TYPE_CHECKING:
    from nst.train.engine.trainer import TrainResult
    from nst.train.run.progress import TrainProgress

WAITING = 0.05  # share of the time spent waiting for content from which the command mentions it


def main() -> None:
    """Run `nst-train`."""
    app = make_app()
    app.command("nst-train", cls=SectionedCommand)(train_command)
    app()


@command
@with_options(TrainConfig)
def train_command(
    given: Mapping[str, Any],
    stroke: StrokeOption = 1.0,
    resume: Annotated[
        Path | None,
        typer.Option(
            help="Folder of a run to resume; takes no other option.",
            rich_help_panel="Run and files",
        ),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(
            help="TOML file to read options from; those given here come first.",
            rich_help_panel="Run and files",
        ),
    ] = None,
    save_config: Annotated[
        Path | None,
        typer.Option(
            help="TOML file to write all options to; then end.", rich_help_panel="Run and files"
        ),
    ] = None,
    debug: Debug = False,
) -> None:
    """Train a network on a style image; export it to ONNX; show what it does.

    Ctrl-C ends training early and exports the network as it is.
    """
    if resume is None:
        options = _read_options(given)
        if save_config is not None:
            _save_options(save_config, options)
            return
    elif others := given.keys() - {"resume", "debug"}:
        names = ", ".join(sorted(f"--{name}".replace("_", "-") for name in others))
        raise UsageError(f"--resume uses the options of the run: leave out {names}")
    with needs_extra("nst train"):
        from nst.train.engine.trainer import resume_style, train_style

    # Of several processes under torchrun only the first prints.
    first = os.environ.get("RANK", "0") == "0"
    hush(not first)
    with progress_bar("losses") as bar:
        bar.disable |= not first
        task = bar.add_task("training", total=1.0, losses="")

        def report(progress: TrainProgress) -> None:
            losses = (
                f"content {thousands(progress.content_loss)}  "
                f"style {thousands(progress.style_loss)}  "
                f"total {thousands(progress.total_loss)}  "
                f"{progress.images_per_second:.1f} images/s  {clock(progress.seconds_left)} left"
            )
            bar.update(task, completed=progress.done, losses=losses)

        def stage(name: str) -> None:
            bar.update(task, description=name)
            if name == "training":  # from here on each process has errors of its own
                hush(False)

        def notice(line: str) -> None:
            say(f"note: {line}")

        if resume is None:
            result = train_style(options, report, stage, notice)
        else:
            result = resume_style(resume, report, stage, notice)
    if not first:
        return
    report_skipped(result.skipped)
    ended = "stopped early at" if result.interrupted else "trained"
    say(f"{ended} {result.steps} steps in {clock(result.seconds)} on {_place(result)}")
    before, after = result.before, result.after
    say(
        f"held-out photographs: total loss {thousands(before.total_loss)} as they are, "
        f"{thousands(after.total_loss)} repainted "
        f"(content {thousands(after.content_loss)}, style {thousands(after.style_loss)})"
    )
    if result.score is not None:
        say(f"the model is {result.score.words()}")
    say(f"preview  {result.preview}")
    report_exports(result.exported)
    say(f"try it   nst image PHOTO.jpg --style {result.model} --out PAINTED.jpg")
    if result.interrupted:
        say(f"go on    nst train --resume {result.folder}")


def _place(result: TrainResult) -> str:
    """Describe the device, its peak memory, and the time spent waiting."""
    words = "the GPU" if result.device == "cuda" else "the CPU"
    if result.peak_memory is not None:
        words += f", {result.peak_memory:.1f} GB at the peak"
    if result.waiting >= WAITING:
        words += f", {result.waiting:.0%} of the time waiting for content"
    return words


def _read_options(given: Mapping[str, Any]) -> TrainConfig:
    """Merge the options of the command line with those of `--config`."""
    check_rivals(given)
    options = {name: value for name, value in given.items() if name in KEYS}
    if "stroke" in given:
        options["style_size"] = stroke_size(given["stroke"])
    file = load_config(given["config"]) if "config" in given else {}
    merged = merge_options(file, options)
    if not merged.get("style"):
        raise UsageError("no style image is given: name one with --style")
    return make_config(merged)


def _save_options(path: Path, options: TrainConfig) -> None:
    if path.suffix != ".toml":
        raise UsageError(
            f"--save-config {path} has not the suffix .toml: name a file such as run.toml"
        )
    for style in options.style:
        if same_file(style, path):
            raise UsageError(f"--save-config would overwrite {style}: name another file")
    save_config_file(path, options)
    say(f"options  {path}; train with  nst-train --config {path}")
