"""`nst train`, also installed as `nst-train`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import MISSING, fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import TextColumn

from nst.cli.console import Debug, command, hush, progress_bar, say
from nst.cli.options import (
    ContentWeightOption,
    KeepColorOption,
    SeedOption,
    StrokeOption,
    StyleSizeOption,
    StyleStrengthOption,
    StyleWeightOption,
    TVWeightOption,
    VGGOption,
    check_rivals,
    expert,
    given_options,
    look,
    numbers,
    stroke_size,
    words,
)
from nst.config import Device, ObjectiveConfig
from nst.errors import UsageError, needs_extra
from nst.formatting import clock, thousands
from nst.io.files import same_file
from nst.models.config import PRESETS
from nst.train.cli.export import report_exports, report_skipped
from nst.train.config import PRECISIONS, TrainConfig
from nst.train.config_file import KEYS, load_config, make_config, merge_options
from nst.train.config_file import save_config as save_config_file

if TYPE_CHECKING:
    from nst.train.engine.trainer import TrainResult

_DEFAULT: dict[str, Any] = {
    f.name: f.default for f in fields(TrainConfig) if f.default is not MISSING
}
_PRECISIONS = ",".join(_DEFAULT["precisions"])
_OBJECTIVE = ObjectiveConfig()
# Options in groups of the help.
_content = partial(typer.Option, rich_help_panel="Content")
_quality = partial(typer.Option, rich_help_panel="Quality")
_machine = partial(typer.Option, rich_help_panel="Machine and memory")
_run = partial(typer.Option, rich_help_panel="Run and files")
_model = partial(typer.Option, rich_help_panel="Model and its description")
WAITING = 0.05  # share of the time from which it is told


def register(app: typer.Typer) -> None:
    """Add `nst train` to the command."""
    app.command("train")(train_command)


def main() -> None:
    """Run `nst-train`."""
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command("nst-train")(train_command)
    app()


@command
def train_command(
    ctx: typer.Context,
    style: Annotated[
        list[Path] | None,
        typer.Option(help="Style image, or several, each with its own --style."),
    ] = None,
    seconds: Annotated[
        float | None, typer.Option(help="Time to train. Default: 60 on a GPU, 525 on a CPU.")
    ] = _DEFAULT["seconds"],
    out: Annotated[
        Path | None, typer.Option(help="Folder of the run. Default: runs/STYLE.")
    ] = _DEFAULT["out"],
    style_strength: StyleStrengthOption = _OBJECTIVE.style_strength,
    stroke: StrokeOption = 1.0,
    style_weights: Annotated[
        str, look(help="Shares of several styles, as 0.7,0.3. Default: equal.")
    ] = "",
    tv_weight: TVWeightOption = _OBJECTIVE.tv_weight,
    keep_color: KeepColorOption = _OBJECTIVE.keep_color,
    content: Annotated[
        Path | None,
        _content(
            help="Folder of photographs, or coco (0.8 GB, downloaded once). Default: built-in."
        ),
    ] = _DEFAULT["content"],
    size: Annotated[int, _content(help="Side of the training crops, pixels.")] = _DEFAULT["size"],
    preset: Annotated[
        str, _quality(help=f"Shape of the network: {', '.join(PRESETS)}.")
    ] = _DEFAULT["preset"],
    from_scratch: Annotated[
        bool, _quality("--from-scratch", help="Begin with noise, not with the base network.")
    ] = _DEFAULT["from_scratch"],
    steps: Annotated[int | None, _quality(help="Steps to train, instead of --seconds.")] = _DEFAULT[
        "steps"
    ],
    teacher: Annotated[
        str | None, _quality(help="Learn also from: optimizer, or a model's file. Default: none.")
    ] = _DEFAULT["teacher"],
    score: Annotated[
        bool, _quality("--score/--no-score", help="Compare with the optimiser at the end.")
    ] = _DEFAULT["score"],
    device: Annotated[Device, _machine(help="Where to train.")] = _DEFAULT["device"],
    batch_size: Annotated[
        int | None, _machine(help="Crops a step. Default: 16 on a GPU, 1 on a CPU.")
    ] = _DEFAULT["batch_size"],
    max_memory: Annotated[
        float | None, _machine(help="GPU memory to take at most, GB. Default: all.")
    ] = _DEFAULT["max_memory"],
    resume: Annotated[
        Path | None, _run(help="Folder of a run to go on with; takes no other option.")
    ] = None,
    samples: Annotated[
        int, _run(help="How often in a run photographs are repainted and judged.")
    ] = _DEFAULT["samples"],
    save_every: Annotated[float, _run(help="Seconds between checkpoints.")] = _DEFAULT[
        "save_every"
    ],
    keep: Annotated[int, _run(help="Checkpoints that stay, beside the best.")] = _DEFAULT["keep"],
    config: Annotated[
        Path | None, _run(help="Read options from a TOML file; those given here come first.")
    ] = None,
    save_config: Annotated[
        Path | None, _run(help="Write all options to a TOML file, and end.")
    ] = None,
    precision: Annotated[
        str, _model(help=f"One or more, with commas: {', '.join(PRECISIONS)}.")
    ] = _PRECISIONS,
    title: Annotated[str | None, _model(help="Of the style. Default: the file's name.")] = _DEFAULT[
        "title"
    ],
    artist: Annotated[str, _model(help="Of the style.")] = _DEFAULT["artist"],
    year: Annotated[str, _model(help="Of the style.")] = _DEFAULT["year"],
    style_weight: StyleWeightOption = _OBJECTIVE.style_weight,
    content_weight: ContentWeightOption = _OBJECTIVE.content_weight,
    style_size: StyleSizeOption = _OBJECTIVE.style_size,
    style_layers: Annotated[str, expert(help="Of VGG-19, with commas.")] = ",".join(
        _OBJECTIVE.style_layers
    ),
    content_layers: Annotated[str, expert(help="Of VGG-19, with commas.")] = ",".join(
        _OBJECTIVE.content_layers
    ),
    vgg: VGGOption = _OBJECTIVE.vgg,
    lr: Annotated[
        float | None,
        expert(help="Learning rate at its peak. Default: what suits the preset."),
    ] = _DEFAULT["learning_rate"],
    teacher_weight: Annotated[float, expert(help="Of the difference from the teacher.")] = _DEFAULT[
        "teacher_weight"
    ],
    temporal_weight: Annotated[
        float | None,
        expert(help="Of what makes films flicker. Default: what suits the preset."),
    ] = _DEFAULT["temporal_weight"],
    checkerboard_weight: Annotated[
        float, expert(help="Of dots and meshes in plain regions.")
    ] = _DEFAULT["checkerboard_weight"],
    teacher_images: Annotated[
        int, expert(help="Crops that the optimiser paints as targets.")
    ] = _DEFAULT["teacher_images"],
    teacher_iterations: Annotated[int, expert(help="Of the optimiser on each.")] = _DEFAULT[
        "teacher_iterations"
    ],
    seed: SeedOption = _DEFAULT["seed"],
    debug: Debug = False,
) -> None:
    """Train a network on a style image; export it to ONNX; show what it does.

    Ctrl-C ends training early and exports what there is.
    """
    # What is not given is the affair of the config file, or of the dataclass.
    given = given_options(ctx, locals())
    if resume is None:
        options = _read_options(given)
        if save_config is not None:
            _save_options(save_config, options)
            return
    elif others := given.keys() - {"resume", "debug"}:
        names = ", ".join(sorted(f"--{name}".replace("_", "-") for name in others))
        raise UsageError(f"--resume goes on with the options of the run: leave out {names}")
    with needs_extra("nst train"):
        from nst.train.engine.trainer import TrainProgress, resume_style, train_style

    # Of several processes under torchrun the first speaks for all.
    first = os.environ.get("RANK", "0") == "0"
    hush(not first)
    with progress_bar(TextColumn("{task.fields[losses]}")) as bar:
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
            if name == "training":  # from here on an error is this process's own
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


def _place(result: TrainResult) -> str:
    """The device, what it took of memory, and whether it had to wait."""
    words = "the GPU" if result.device == "cuda" else "the CPU"
    if result.peak_memory is not None:
        words += f", {result.peak_memory:.1f} GB at the peak"
    if result.waiting >= WAITING:
        words += f", {result.waiting:.0%} of the time waiting for content"
    return words


def _read_options(given: Mapping[str, Any]) -> TrainConfig:
    """The options of the command line over those of `--config`."""
    check_rivals(given)
    options = {name: value for name, value in given.items() if name in KEYS}
    for name in ("precision", "style_layers", "content_layers"):
        if name in options:
            options[name] = words(options[name])
    if "style" in options:
        options["style"] = tuple(options["style"])
    if "style_weights" in options:
        options["style_weights"] = numbers("--style-weights", options["style_weights"])
    if "stroke" in given:
        options["style_size"] = stroke_size(given["stroke"])
    file = load_config(given["config"]) if "config" in given else {}
    return make_config(merge_options(file, options))


def _save_options(path: Path, options: TrainConfig) -> None:
    if path.suffix != ".toml":
        raise UsageError(f"--save-config {path} is no TOML file: name one, as run.toml")
    for style in options.style:
        if same_file(style, path):
            raise UsageError(f"--save-config would overwrite {style}: name another file")
    save_config_file(path, options)
    say(f"options  {path}; train with  nst-train --config {path}")
