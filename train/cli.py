"""`nst train`, also installed as `nst-train`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import TextColumn

from nst.cli import (
    ContentWeightOption,
    DeviceOption,
    SeedOption,
    StyleOption,
    StyleSizeOption,
    StyleWeightOption,
    StyleWeightsOption,
    TVWeightOption,
    VGGOption,
    numbers,
    words,
)
from nst.config import ObjectiveConfig
from nst.console import Debug, clock, command, progress_bar, say, thousands
from nst.errors import UsageError, needs_extra
from nst.files import check_writable
from nst.models.config import PRESETS
from nst.train.config import PRECISIONS, TrainConfig, check_precisions, model_name

if TYPE_CHECKING:
    from nst.train.export import Exported

PrecisionOption = Annotated[
    str, typer.Option(help=f"Of the models, one or more with commas: {', '.join(PRECISIONS)}.")
]

_DEFAULT: dict[str, Any] = {
    f.name: f.default for f in fields(TrainConfig) if f.default is not MISSING
}
_PRECISIONS = ",".join(_DEFAULT["precisions"])
_OBJECTIVE = ObjectiveConfig()
SHOWN = 5  # skipped files that are named one by one


def register(app: typer.Typer) -> None:
    """Add `nst train` to the command."""
    app.command("train")(train_command)
    app.command("export")(export_command)


def main() -> None:
    """Run `nst-train`."""
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command("nst-train")(train_command)
    app()


@command
def train_command(
    style: StyleOption,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the run. Default: runs/STYLE.")
    ] = _DEFAULT["out"],
    content: Annotated[
        Path | None,
        typer.Option(help="Folder of training photographs. Default: built-in content."),
    ] = _DEFAULT["content"],
    seconds: Annotated[
        float | None,
        typer.Option(help="Time to train. Default: 60 on a GPU, 525 on a CPU."),
    ] = _DEFAULT["seconds"],
    steps: Annotated[
        int | None, typer.Option(help="Steps to train, instead of --seconds.")
    ] = _DEFAULT["steps"],
    preset: Annotated[
        str, typer.Option(help=f"Shape of the network: {', '.join(PRESETS)}.")
    ] = _DEFAULT["preset"],
    style_weights: StyleWeightsOption = "",
    content_weight: ContentWeightOption = _OBJECTIVE.content_weight,
    style_weight: StyleWeightOption = _OBJECTIVE.style_weight,
    tv_weight: TVWeightOption = _OBJECTIVE.tv_weight,
    style_size: StyleSizeOption = _OBJECTIVE.style_size,
    size: Annotated[int, typer.Option(help="Side of the training crops.")] = _DEFAULT["size"],
    batch_size: Annotated[
        int | None, typer.Option(help="Crops a step. Default: 8 on a GPU, 1 on a CPU.")
    ] = _DEFAULT["batch_size"],
    learning_rate: Annotated[
        float, typer.Option("--lr", help="Learning rate at its peak.")
    ] = _DEFAULT["learning_rate"],
    title: Annotated[
        str | None, typer.Option(help="Style's title for the model. Default: the file's name.")
    ] = _DEFAULT["title"],
    artist: Annotated[str, typer.Option(help="Style's artist, for the model.")] = _DEFAULT[
        "artist"
    ],
    year: Annotated[str, typer.Option(help="Style's year, for the model.")] = _DEFAULT["year"],
    vgg: VGGOption = _OBJECTIVE.vgg,
    device: DeviceOption = _DEFAULT["device"],
    seed: SeedOption = _DEFAULT["seed"],
    precision: PrecisionOption = _PRECISIONS,
    score: Annotated[
        bool, typer.Option("--score/--no-score", help="Compare with the optimiser at the end.")
    ] = _DEFAULT["score"],
    debug: Debug = False,
) -> None:
    """Train a network on a style image; export it to ONNX; show what it does.

    Ctrl-C ends training early and exports what there is.
    """
    config = TrainConfig(
        style=tuple(style),
        style_weights=numbers("--style-weights", style_weights),
        content=content,
        out=out,
        preset=preset,
        objective=ObjectiveConfig(
            content_weight=content_weight,
            style_weight=style_weight,
            tv_weight=tv_weight,
            style_size=style_size,
            vgg=vgg,
        ),
        size=size,
        batch_size=batch_size,
        learning_rate=learning_rate,
        steps=steps,
        seconds=seconds,
        seed=seed,
        device=device,
        precisions=words(precision),
        score=score,
        title=title,
        artist=artist,
        year=year,
    )
    with needs_extra("nst train"):
        from nst.train.trainer import TrainProgress, train_style

    with progress_bar(TextColumn("{task.fields[losses]}")) as bar:
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

        result = train_style(config, report, stage)
    report_skipped(result.skipped, content)
    ended = "stopped early at" if result.interrupted else "trained"
    say(f"{ended} {result.steps} steps in {clock(result.seconds)} on {result.device}")
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


@command
def export_command(
    checkpoint: Annotated[Path, typer.Argument(help="Checkpoint of a run, a .safetensors file.")],
    precision: PrecisionOption = "int8",
    out: Annotated[
        Path | None,
        typer.Option(help="Folder, or an .onnx file for one precision. Default: beside it."),
    ] = None,
    style: Annotated[
        list[Path] | None,
        typer.Option(help="Style image, where the checkpoint holds none; repeat for several."),
    ] = None,
    content: Annotated[
        Path | None,
        typer.Option(help="Folder of photographs for int8 to calibrate on. Default: built-in."),
    ] = None,
    vgg: Annotated[
        str | None, typer.Option("--vgg", help="VGG-19 weights. Default: those of the training.")
    ] = None,
    device: DeviceOption = "auto",
    debug: Debug = False,
) -> None:
    """Export a trained network again: fp32, fp16 for GPUs, int8 for CPUs.

    Each file is compared with fp32 on photographs that the network never saw.
    """
    precisions = words(precision)
    check_precisions(precisions)
    single = out is not None and out.suffix == ".onnx"
    if single and len(precisions) > 1:
        raise UsageError(f"--out {out} is one file for {len(precisions)} precisions: name a folder")
    with needs_extra("nst export"):
        from nst.train.data import open_content
        from nst.train.export import export_checkpoint

    folder = out or checkpoint.parent
    targets = {
        name: out if single and out is not None else folder / model_name(checkpoint.stem, name)
        for name in precisions
    }
    for target in targets.values():
        check_writable(target)
    images = None if content is None else open_content(content)
    exported = export_checkpoint(
        checkpoint, targets, styles=style or (), content=images, vgg=vgg, device=device
    )
    if images is not None:
        report_skipped(images.skipped, content)
    report_exports(exported)


def report_skipped(skipped: Mapping[Path, str], folder: Path | None) -> None:
    """Name the content files that could not be used, the first few of them."""
    for path in sorted(skipped)[:SHOWN]:
        say(f"skipped: {skipped[path]}")
    if len(skipped) > SHOWN:
        say(f"… {len(skipped)} files of {folder} skipped in all")


def report_exports(exported: Sequence[Exported]) -> None:
    """Say what was written, and warn where a precision strays from fp32."""
    for file in exported:
        say(f"model    {file.path}")
        if file.precision != "fp32":
            say(f"         {file.words()}")
        if not file.within:
            say(f"warning: {file.path} is more than 3 % from fp32: look at its pictures")
