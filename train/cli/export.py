"""`nst export`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nst.cli.console import Debug, command, say
from nst.cli.options import DeviceOption, words
from nst.errors import UsageError, needs_extra
from nst.io.files import check_writable
from nst.train.config import PRECISIONS, check_precisions, model_name

if TYPE_CHECKING:
    from nst.train.export.export import Exported

PrecisionOption = Annotated[
    str, typer.Option(help=f"Precisions of the models, with commas: {', '.join(PRECISIONS)}.")
]
SHOWN = 5  # skipped files that are named


@command
def export_command(
    checkpoint: Annotated[Path, typer.Argument(help="Checkpoint of a run, a .safetensors file.")],
    precision: PrecisionOption = "int8",
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder, or an .onnx file for one precision. Default: the checkpoint's folder."
        ),
    ] = None,
    style: Annotated[
        list[Path] | None,
        typer.Option(help="Style image, or several, for a checkpoint that holds none."),
    ] = None,
    content: Annotated[
        Path | None,
        typer.Option(help="Folder of photographs to calibrate int8 on. Default: built-in."),
    ] = None,
    vgg: Annotated[
        str | None, typer.Option("--vgg", help="VGG-19 weights. Default: those of the training.")
    ] = None,
    device: DeviceOption = "auto",
    debug: Debug = False,
) -> None:
    """Export a trained network again: fp32, fp16 for GPUs, int8 for CPUs.

    Compares each file with fp32 on photographs that the network never saw.
    """
    precisions = words(precision)
    check_precisions(precisions)
    single = out is not None and out.suffix == ".onnx"
    if single and len(precisions) > 1:
        raise UsageError(f"--out {out} is one file for {len(precisions)} precisions: name a folder")
    with needs_extra("nst export"):
        from nst.train.content.dataset import open_content
        from nst.train.export.export import export_checkpoint

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
        report_skipped(images.skipped)
    report_exports(exported)


def report_skipped(skipped: Mapping[Path, str]) -> None:
    """Print the first few content files that could not be used."""
    for path in sorted(skipped)[:SHOWN]:
        say(f"skipped: {skipped[path]}")
    if len(skipped) > SHOWN:
        say(f"… {len(skipped)} files skipped in all")


def report_exports(exported: Sequence[Exported]) -> None:
    """Print the files that were written; warn where a precision differs much from fp32."""
    for file in exported:
        say(f"model    {file.path}")
        if file.precision != "fp32":
            say(f"         {file.words()}")
        if not file.within:
            say(f"warning: {file.path} differs from fp32 by more than 3 %: look at its images")
