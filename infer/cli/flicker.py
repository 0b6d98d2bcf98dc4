"""`nst flicker`."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nst.cli.console import Debug, command, fail, progress_bar, say
from nst.config import KeepColor, check_number
from nst.errors import needs_extra
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
    as_json: Annotated[
        bool, typer.Option("--json", help="Write the numbers to the standard output as JSON.")
    ] = False,
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
    with needs_extra("nst flicker"):
        from nst.io.sample_images import held_out, load_photographs

        if video is not None:
            importlib.import_module("matplotlib")  # now, not after a minute of measuring
        photographs, skipped = load_photographs(content, limit) if content else (held_out(), [])
    from nst.color.transfer import keep_color
    from nst.infer.diagnostics.flicker import clip_flicker, motion_flicker, to_dict
    from nst.infer.runtime.stylizer import Stylizer
    from nst.infer.video.temporal import TemporalStylizer

    for error in skipped:
        if debug:
            raise error
        fail(error)
    clip = None

    def kept(paint: Callable[[Array], Array], how: KeepColor | None) -> Callable[[Array], Array]:
        """Keep each image's own colours, if the model needs that."""
        return paint if how is None else lambda image: keep_color(paint(image), image, how)

    with Stylizer(model, provider=provider, threads=threads) as stylizer, progress_bar() as bar:
        for note in stylizer.notes:
            say(f"note: {note}")
        say(f"style {stylizer.name} on {stylizer.provider}, photographs: {len(photographs)}")
        if video is not None:
            check_writable(folder / "flicker.png")
            task = bar.add_task("video", total=frames)
            steady = TemporalStylizer(stylizer, stabilize=stabilize)
            clip = clip_flicker(
                kept(steady, steady.keep_color),
                _film(video, frames),
                lambda done: bar.update(task, completed=done),
            )
            bar.update(task, total=clip.frames)
        task = bar.add_task("moving photographs", total=None)
        motions = motion_flicker(
            kept(stylizer, stylizer.keep_color),
            photographs,
            lambda done, total: bar.update(task, completed=done, total=total),
        )
    if as_json:
        facts = {"model": str(model), "style": stylizer.name, "photographs": len(photographs)}
        print(json.dumps({**facts, **to_dict(motions, clip)}, indent=2))
    else:
        print("\n".join(table(motions, clip)))
    if clip is not None:
        from nst.infer.diagnostics.flicker_plots import save_pictures

        pictures = save_pictures(clip, folder, stylizer.name)
        say(f"pictures: {', '.join(map(str, pictures))}")
    if skipped:
        raise typer.Exit(1)


def table(motions: tuple[MotionError, ...], clip: ClipFlicker | None) -> list[str]:
    """Return one line per number, with a note on how to read it."""
    rows = [
        (
            motion.motion,
            f"{motion.rms:.1f} levels",
            f"{READINGS[motion.motion]}; {motion.photographs:.1f} in the photographs themselves",
        )
        for motion in motions
    ]
    if clip is not None:
        reading = f"from frame to frame, over {clip.frames}; {clip.film:.1f} in the video itself"
        rows.append(("video", f"{clip.rms:.1f} levels", reading))
    return [f"{name:<8}{value:>14}  {reading}" for name, value, reading in rows]


def _film(path: Path, most: int) -> Iterator[Array]:
    """Yield the first frames of a video."""
    from nst.infer.video.pipeline import open_source
    from nst.infer.video.reader import Frame

    with open_source(path, extras=False) as reader:
        frames = (part.image for part in reader if isinstance(part, Frame))
        for _, image in zip(range(most), frames, strict=False):
            yield image
