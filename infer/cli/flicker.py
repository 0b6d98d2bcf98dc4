"""`nst flicker`."""

from __future__ import annotations

import importlib
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nst.cli.console import Debug, command, say
from nst.cli.options import JsonOption
from nst.config import check_number
from nst.errors import needs_extra
from nst.infer.cli.opening import open_model, open_photographs
from nst.infer.cli.options import ContentOption, ProviderOption, StabilizeOption, ThreadsOption
from nst.io.files import check_writable

if TYPE_CHECKING:
    from nst.infer.diagnostics.flicker import ClipFlicker, MotionError
    from nst.io.images import Array

FRAMES = 120
MOST = 8
READINGS = {
    "shift": "moved by whole pixels",
    "slide": "moved by fractions of a pixel",
    "turn": "turned by a degree",
    "zoom": "made smaller by a hundredth",
    "bend": "bent by up to two pixels",
    "noise": "with noise of three levels",
    "light": "lighter by 4 %",
}


@command
def flicker_command(
    model: Annotated[Path, typer.Argument(help="Style model, an .onnx file.")],
    video: Annotated[
        Path | None, typer.Argument(help="Video to measure on as well.", show_default=False)
    ] = None,
    content: ContentOption = None,
    limit: Annotated[int, typer.Option(help="Greatest number of photographs.")] = MOST,
    frames: Annotated[int, typer.Option(help="Greatest number of video frames.")] = FRAMES,
    stabilize: StabilizeOption = False,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder for the video's pictures. Default: MODEL-flicker in the current folder.",
            show_default=False,
        ),
    ] = None,
    as_json: JsonOption = False,
    provider: ProviderOption = "auto",
    threads: ThreadsOption = 0,
    debug: Debug = False,
) -> None:
    """Measure how much a model's results flicker: on moving photographs, and on a video.

    The video is repainted as by nst video. The exit status is 1 if a photograph can't be read.
    """
    check_number("limit", limit, least=1)
    check_number("frames", frames, least=2)
    folder = Path(f"{model.stem}-flicker") if out is None else out
    if video is not None:
        with needs_extra("nst flicker"):
            importlib.import_module("matplotlib")  # now, not after a minute of measuring
    photographs, skipped = open_photographs(content, limit, debug=debug)
    from nst.infer.diagnostics.flicker import clip_flicker, motion_flicker, to_dict
    from nst.infer.video.schedule import keeping_color
    from nst.infer.video.temporal import TemporalStylizer

    clip = None
    with open_model(model, provider, threads) as (stylizer, bar):
        say(f"style {stylizer.name} on {stylizer.provider}, photographs: {len(photographs)}")
        if video is not None:
            check_writable(folder / "flicker.png")
            task = bar.add_task("video", total=frames)
            steady = TemporalStylizer(stylizer, stabilize=stabilize)
            clip = clip_flicker(
                keeping_color(steady, steady.keep_color),
                _film(video, frames),
                lambda done: bar.update(task, completed=done),
            )
            bar.update(task, total=clip.frames)
        task = bar.add_task("moving photographs", total=None)
        motions = motion_flicker(
            keeping_color(stylizer, stylizer.keep_color),
            photographs,
            lambda done, total: bar.update(task, completed=done, total=total),
        )
    facts = {"model": str(model), "style": stylizer.name, "photographs": len(photographs)}
    values = {**facts, **to_dict(motions, clip)}
    print(json.dumps(values, indent=2) if as_json else "\n".join(table(motions, clip)))
    if clip is not None:
        from nst.infer.diagnostics.flicker_plots import save_pictures

        pictures = save_pictures(clip, folder, stylizer.name)
        say(f"pictures: {', '.join(map(str, pictures))}")
    if skipped:
        raise typer.Exit(1)


def table(motions: tuple[MotionError, ...], clip: ClipFlicker | None) -> list[str]:
    """Return one line per number, with a note on how to read it."""
    lines = []

    def row(name: str, rms: float, reading: str) -> None:
        lines.append(f"{name:<8}{f'{rms:.1f} levels':>14}  {reading}")

    for motion in motions:
        own = f"{motion.photographs:.1f} in the photographs themselves"
        row(motion.motion, motion.rms, f"{READINGS[motion.motion]}; {own}")
    if clip is not None:
        reading = f"from frame to frame, over {clip.frames}; {clip.film:.1f} in the video itself"
        row("video", clip.rms, reading)
    return lines


def _film(path: Path, most: int) -> Iterator[Array]:
    """Yield the first frames of a video."""
    from nst.infer.video.pipeline import open_source
    from nst.infer.video.reader import Frame

    with open_source(path, extras=False) as reader:
        frames = (part.image for part in reader if isinstance(part, Frame))
        yield from itertools.islice(frames, most)
