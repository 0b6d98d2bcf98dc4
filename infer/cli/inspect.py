"""`nst inspect`."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nst.cli.console import Debug, command, fail, progress_bar, say
from nst.cli.options import whole_numbers
from nst.config import check_number
from nst.errors import needs_extra
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
    as_json: Annotated[
        bool, typer.Option("--json", help="Write the numbers to the standard output as JSON.")
    ] = False,
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
    from nst.infer.runtime.stylizer import Stylizer
    from nst.io.sample_images import held_out, load_photographs

    check_heights(lines)
    photographs, skipped = load_photographs(content, limit) if content else (held_out(), [])
    for error in skipped:
        if debug:
            raise error
        fail(error)
    folder = Path(f"{model.stem}-inspection") if out is None else out
    with Stylizer(model, provider=provider, threads=threads) as stylizer, progress_bar() as bar:
        check_writable(folder / PICTURES[0])
        for note in stylizer.notes:
            say(f"note: {note}")
        say(f"style {stylizer.name} on {stylizer.provider}, photographs: {len(photographs)}")
        task = bar.add_task("inspecting", total=None)

        def report(progress: InspectionProgress) -> None:
            bar.update(task, total=progress.total, completed=progress.done)

        found = inspect(stylizer, photographs, heights=lines, callback=report)
        facts = {"model": str(model), "style": stylizer.name, "provider": stylizer.provider}
        save_pictures(found, folder, stylizer.name)
    if as_json:
        facts_and_numbers = {**facts, "photographs": len(photographs), **found.to_dict()}
        print(json.dumps(facts_and_numbers, indent=2))
    else:
        print("\n".join(table(found)))
    say(f"pictures: {', '.join(str(folder / name) for name in PICTURES)}")
    if skipped:
        raise typer.Exit(1)


def table(found: Inspection) -> list[str]:
    """Return one line per number, with a note on how to read it."""
    border, strokes = found.border, found.strokes
    rows = [
        (
            f"checkerboard of {p.period} px",
            f"{p.decibels:+.1f} dB, {p.amplitude:.2f} levels",
            "0 dB: no checkerboard of that period",
        )
        for p in found.checkerboard.periods
    ]
    rows += [
        (
            "border, colour",
            f"{border.shift:.1f} ± {border.shift_error:.1f} levels",
            "0: the outer 16 pixels have no colour shift",
        ),
        (
            "border, difference",
            f"{border.rms_ratio:.2f}",
            "1: no more there than further inside",
        ),
        (
            "border, contrast",
            f"{border.contrast:.2f}, inside {border.contrast_inside:.2f}",
            "1: as much as the same pixels have in context",
        ),
    ]
    known = [size for size in strokes.sizes if size.pixels is not None]
    if known:
        rows.append(
            (
                "strokes",
                ", ".join(f"{size.pixels:.1f}" for size in known) + " px",
                f"wavelength at heights of {', '.join(str(size.height) for size in known)}",
            )
        )
    if strokes.hold is not None:
        fixed = strokes.sizes[0].height / strokes.sizes[-1].height
        rows.append(
            (
                "strokes hold",
                f"{strokes.hold:.2f}",
                f"1: they grow with the image; {fixed:.2f}: they do not",
            )
        )
    return [f"{name:<20}{value:<28}{reading}" for name, value, reading in rows]
