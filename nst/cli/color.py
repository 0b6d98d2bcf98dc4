"""`nst color` and `nst color compare`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from typer.core import TyperGroup

from nst.cli.console import Debug, command, progress_bar, say
from nst.cli.fields import given_options
from nst.cli.help import SectionedCommand, make_app
from nst.cli.options import JsonOption, check_image_target
from nst.config import ColorMethod, check_number
from nst.errors import UsageError, needs_extra
from nst.io.files import check_writable, replacing

SourceArgument = Annotated[Path, typer.Argument(help="Image to recolour.")]
ReferenceArgument = Annotated[Path, typer.Argument(help="Image that gives the colours.")]


class _DefaultGroup(TyperGroup):
    """Group of commands that runs `nst color transfer A B` for `nst color A B`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in (*self.commands, "--help"):
            args = ["transfer", *args]
        return super().parse_args(ctx, args)


@command
def transfer_command(
    ctx: typer.Context,
    source: SourceArgument,
    reference: ReferenceArgument,
    out: Annotated[Path, typer.Option(help="Image to write; the suffix names the format.")],
    method: Annotated[
        ColorMethod, typer.Option(help="Method; nst color compare shows the result of each.")
    ] = "idt_regrain",
    space: Annotated[
        Literal["lalphabeta", "cielab"], typer.Option(help="Colour space of the method reinhard.")
    ] = "lalphabeta",
    iterations: Annotated[int, typer.Option(help="Rotations of idt and idt_regrain.")] = 10,
    seed: Annotated[int, typer.Option(help="Random seed of idt and idt_regrain.")] = 0,
    quality: Annotated[int, typer.Option(help="Quality of JPEG and WebP, 1 to 100.")] = 95,
    debug: Debug = False,
) -> None:
    """Give an image the colours of another; you may leave out the word transfer.

    Size, orientation, EXIF and transparency are kept.
    """
    owners = {"space": ("reinhard",), "iterations": _IDT, "seed": _IDT}
    given = {k: v for k, v in given_options(ctx, locals()).items() if k in owners}
    for name in given:
        if method not in owners[name]:
            raise UsageError(f"--{name} is for the methods {' and '.join(owners[name])} only")
    from nst.color.transfer import METHODS
    from nst.io.images import load_image, load_picture, save_image

    check_number("quality", quality, least=1, most=100)
    check_image_target(out, (source, reference))
    picture, colors = load_picture(source), load_image(reference)
    check_writable(out)
    result = METHODS[method](picture.image, colors, **given)
    save_image(out, result, alpha=picture.alpha, exif=picture.exif, quality=quality)
    say(f"{out}: {result.shape[1]}×{result.shape[0]}, {method}")


_IDT = ("idt", "idt_regrain")


@command
def compare_command(
    source: SourceArgument,
    reference: ReferenceArgument,
    out: Annotated[Path, typer.Option(help="Folder for the images and the table.")],
    as_json: JsonOption = False,
    markdown: Annotated[
        bool, typer.Option("--markdown", help="Print the table as Markdown instead of text.")
    ] = False,
    debug: Debug = False,
) -> None:
    """Recolour an image by every method, and measure how near each comes to the reference.

    The folder gets an image for each method, `comparison.png` with all of them above their
    histograms, and the table as `comparison.csv`, `.json`, `.md` and `.txt`.
    KL is the Kullback–Leibler divergence of the result's histogram from the reference's (256 bins,
    nats, no smoothing: inf where the reference lacks a level). W1 is the Wasserstein distance in
    levels.
    """
    if as_json and markdown:
        raise UsageError("--json and --markdown are both given: choose one")
    from nst.color import compare as color_compare
    from nst.color.transfer import METHODS
    from nst.io.images import load_image, save_image

    with needs_extra("nst color compare"):
        import matplotlib  # noqa: F401 - fails before seconds of work
    image, colors = load_image(source), load_image(reference)
    check_writable(out / "comparison.png")
    with progress_bar() as bar:
        task = bar.add_task("comparing", total=len(METHODS))
        rows, pictures = color_compare.compare_methods(
            image, colors, callback=lambda *_: bar.advance(task)
        )
    for name in METHODS:
        save_image(out / f"{name}.png", pictures[name])
    color_compare.save_figure(color_compare.draw(pictures, colors), out / "comparison.png")
    values = json.dumps(color_compare.as_json(rows), indent=2)
    text, table = color_compare.as_table(rows), color_compare.as_table(rows, markdown=True)
    files = {"csv": color_compare.as_csv(rows), "json": values, "md": table, "txt": text}
    for suffix, content in files.items():
        with replacing(out / f"comparison.{suffix}") as beside:
            beside.write_text(content.rstrip("\n") + "\n", "utf-8")
    print(values if as_json else table if markdown else text)
    say(f"pictures {out / 'comparison.png'}")


group = make_app(
    cls=_DefaultGroup,
    no_args_is_help=True,
    help="Give an image the colours of another: nst color SOURCE REFERENCE --out FILE.",
)
group.command("transfer", cls=SectionedCommand)(transfer_command)
group.command("compare", cls=SectionedCommand)(compare_command)
