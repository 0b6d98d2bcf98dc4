"""`nst image`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nst.cli.console import Debug, command, fail, say
from nst.errors import NstError
from nst.infer.cli.opening import open_model
from nst.infer.cli.options import KeepColorOption, ProviderOption, StrengthOption, ThreadsOption


@command
def image_command(
    inputs: Annotated[
        list[str], typer.Argument(metavar="INPUT...", help="Images, folders, or - for stdin.")
    ],
    style: Annotated[Path, typer.Option(help="Model that nst-train made, an .onnx file.")],
    out: Annotated[
        str, typer.Option(help="Image for one input, folder for more, or - for stdout.")
    ],
    strength: StrengthOption = 1.0,
    keep_color: KeepColorOption = None,
    quality: Annotated[int, typer.Option(help="JPEG and WebP quality, 1 to 100.")] = 95,
    provider: ProviderOption = "auto",
    threads: ThreadsOption = 0,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print errors only.")] = False,
    debug: Debug = False,
) -> None:
    """Repaint photographs with a trained model: files, whole folders, or a pipe.

    Size, orientation, EXIF and transparency are kept. A bad file is reported and the rest go on.
    """
    from nst.infer.images.photos import plan_outputs, repaint_file
    from nst.infer.runtime.stylizer import check_strength

    check_strength(strength, quality)
    jobs = plan_outputs(inputs, out)
    failed = 0
    with open_model(style, provider, threads) as (stylizer, bar):
        if not quiet:
            say(f"style {stylizer.name} on {stylizer.provider}")
        keep = keep_color or stylizer.keep_color
        task = bar.add_task("repainting", total=len(jobs))
        for number, (source, target) in enumerate(jobs):

            def report(done: int, tiles: int, before: int = number) -> None:
                bar.update(task, completed=before + done / tiles)

            bar.update(task, completed=number)
            try:
                done = repaint_file(
                    stylizer,
                    source,
                    target,
                    strength=strength,
                    quality=quality,
                    keep_color=None if keep == "none" else keep,
                    report=report,
                )
            except NstError as error:
                if debug:
                    raise
                fail(error)
                failed += 1
                continue
            if not quiet and target != "-":
                height, width = done.size
                say(f"{target}  {width}×{height}  {done.seconds:.2f} s")
    if failed:
        if len(jobs) > 1:
            say(f"{failed} of {len(jobs)} images failed")
        raise typer.Exit(1)
