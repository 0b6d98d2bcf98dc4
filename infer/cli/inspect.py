"""`nst inspect`."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nst.cli.console import Debug, command, say
from nst.cli.options import JsonOption, whole_numbers
from nst.config import check_number
from nst.errors import needs_extra
from nst.infer.cli.opening import open_model, open_photographs
from nst.infer.cli.options import ContentOption, ProviderOption, ThreadsOption
from nst.io.files import check_writable

if TYPE_CHECKING:
    from nst.infer.diagnostics.inspection import Inspection, InspectionProgress

HEIGHTS = "256,480,720,1080"
MOST = 24


@command
def inspect_command(
    model: Annotated[Path, typer.Argument(help="Model that nst-train made, an .onnx file.")],
    content: ContentOption = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder for the pictures. Default: MODEL-inspection in the current folder.",
            show_default=False,
        ),
    ] = None,
    limit: Annotated[
        int, typer.Option(help="Greatest number of photographs, taken evenly from those found.")
    ] = MOST,
    heights: Annotated[
        str, typer.Option(help="Heights in pixels at which the strokes are measured, rising.")
    ] = HEIGHTS,
    as_json: JsonOption = False,
    provider: ProviderOption = "auto",
    threads: ThreadsOption = 0,
    debug: Debug = False,
) -> None:
    """Measure and draw a model's artefacts: checkerboard, border and stroke scale.

    A photograph that can't be read is named and left out; the exit status is then 1.
    """
    lines = whole_numbers("--heights", heights)
    check_number("limit", limit, least=1)
    with needs_extra("nst inspect"):
        importlib.import_module("matplotlib")  # now, not after a minute of measuring
    from nst.infer.diagnostics.inspection import inspect
    from nst.infer.diagnostics.inspection_plots import PICTURES, save_pictures
    from nst.infer.diagnostics.strokes import check_heights

    check_heights(lines)
    photographs, skipped = open_photographs(content, limit, debug=debug)
    folder = Path(f"{model.stem}-inspection") if out is None else out
    with open_model(model, provider, threads) as (stylizer, bar):
        check_writable(folder / PICTURES[0])
        say(f"style {stylizer.name} on {stylizer.provider}, photographs: {len(photographs)}")
        task = bar.add_task("inspecting", total=None)

        def report(progress: InspectionProgress) -> None:
            bar.update(task, total=progress.total, completed=progress.done)

        found = inspect(stylizer, photographs, heights=lines, callback=report)
        save_pictures(found, folder, stylizer.name)
    facts = {"model": str(model), "style": stylizer.name, "provider": stylizer.provider}
    values = {**facts, "photographs": len(photographs), **found.to_dict()}
    print(json.dumps(values, indent=2) if as_json else "\n".join(table(found)))
    say(f"pictures: {', '.join(str(folder / name) for name in PICTURES)}")
    if skipped:
        raise typer.Exit(1)


def table(found: Inspection) -> list[str]:
    """Return one line per number, with a note on how to read it."""
    border, strokes = found.border, found.strokes
    lines = []

    def row(name: str, value: str, reading: str) -> None:
        lines.append(f"{name:<23}{value:<28}{reading}")

    for p in found.checkerboard.periods:
        value = f"{p.decibels:+.1f} dB, {p.amplitude:.2f} levels"
        row(f"checkerboard of {p.period} px", value, "0 dB: no checkerboard of that period")
    value = f"{border.shift:.1f} ± {border.shift_error:.1f} levels"
    row("border, colour", value, "0: the outer 16 pixels have no colour shift")
    row("border, difference", f"{border.rms_ratio:.2f}", "1: no more there than further inside")
    value = f"{border.contrast:.2f}, inside {border.contrast_inside:.2f}"
    row("border, contrast", value, "1: as much as the same pixels have in context")
    known = [(size.height, size.pixels) for size in strokes.sizes if size.pixels is not None]
    if known:
        heights = ", ".join(str(height) for height, _ in known)
        wavelengths = ", ".join(f"{pixels:.1f}" for _, pixels in known)
        row("strokes", f"{wavelengths} px", f"wavelength at heights of {heights}")
    if strokes.hold is not None:
        fixed = strokes.sizes[0].height / strokes.sizes[-1].height
        reading = f"1: they grow with the image; {fixed:.2f}: they do not"
        row("strokes hold", f"{strokes.hold:.2f}", reading)
    return lines
