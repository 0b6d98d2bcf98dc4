"""`nst video`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from nst.cli.console import Debug, command, progress_bar, say
from nst.config import check_number
from nst.errors import UsageError
from nst.formatting import clock
from nst.infer.cli.opening import say_notes
from nst.infer.cli.options import (
    KeepColorOption,
    ProviderOption,
    StabilizeOption,
    StrengthOption,
    ThreadsOption,
)


@command
def video_command(
    source: Annotated[Path, typer.Argument(metavar="IN", help="Video to repaint.")],
    out: Annotated[
        Path, typer.Argument(metavar="OUT", help="Video to write; its suffix sets the container.")
    ],
    style: Annotated[
        Path | None, typer.Option(help="Model that nst-train made, an .onnx file.")
    ] = None,
    styles: Annotated[
        str | None,
        typer.Option(
            help="Several models over time: a.onnx@0,b.onnx@5.5 changes after 5.5 seconds."
        ),
    ] = None,
    fade: Annotated[
        float, typer.Option(help="Duration of a change between styles, seconds.")
    ] = 1.0,
    size: Annotated[
        int | None, typer.Option(help="Long side of OUT in pixels. Default: that of IN.")
    ] = None,
    start: Annotated[float, typer.Option(help="Start of the part to repaint, seconds.")] = 0.0,
    duration: Annotated[
        float | None,
        typer.Option(help="Duration of the part to repaint, seconds. Default: the rest."),
    ] = None,
    fps: Annotated[float, typer.Option(help="Frames per second, if IN is numbered images.")] = 25.0,
    strength: StrengthOption = 1.0,
    keep_color: KeepColorOption = None,
    codec: Annotated[
        str | None,
        typer.Option(
            help="h264, hevc, av1, vp9, or an FFmpeg encoder. Default: one that suits OUT."
        ),
    ] = None,
    crf: Annotated[
        int | None,
        typer.Option(help="Quality; lower is better, but larger. Default: depends on the codec."),
    ] = None,
    preset: Annotated[
        str | None, typer.Option(help="Speed of the encoder, such as medium or slow.")
    ] = None,
    hardware: Annotated[
        bool, typer.Option("--hardware", help="Encode in hardware, if there is any.")
    ] = False,
    stabilize: StabilizeOption = False,
    workers: Annotated[
        int, typer.Option(help="Processes, each of which repaints a part of the video.")
    ] = 1,
    provider: ProviderOption = "auto",
    threads: ThreadsOption = 0,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print errors only.")] = False,
    debug: Debug = False,
) -> None:
    """Repaint a video file. Sound, subtitles, chapters and timing stay as they are.

    Ctrl-C ends the work and keeps the part that is done.
    """

    from nst.infer.video.parallel import repaint_in_parallel
    from nst.infer.video.pipeline import VideoProgress, repaint_video
    from nst.infer.video.schedule import VideoStyle, VideoStylizer, parse_styles
    from nst.infer.video.sequence import is_sequence
    from nst.infer.video.writer import EncodeConfig

    if (style is None) == (styles is None):
        raise UsageError("give --style MODEL, or --styles MODEL@SECONDS,… for several over time")
    look = VideoStyle(
        ((style, 0.0),) if style is not None else parse_styles(styles or ""),
        fade=fade,
        strength=strength,
        keep_color=keep_color,
        stabilize=stabilize,
        provider=provider,
        threads=threads,
    )
    options: dict[str, Any] = {
        "size": size,
        "start": start,
        "duration": duration,
        "encode": EncodeConfig(codec, crf, preset, hardware),
    }
    check_number("workers", workers, least=1)
    with VideoStylizer(look) as painter, progress_bar("pace") as bar:
        say_notes(painter.notes)
        if not quiet:
            say(f"style {painter.name} on {painter.provider}")
        task = bar.add_task("repainting", total=None, pace="")

        def report(progress: VideoProgress) -> None:
            pace = f"{progress.frames_per_second:.1f} frames/s"
            if progress.seconds_left is not None:
                pace += f"  {clock(progress.seconds_left)} left"
            total = None if progress.done is None else 1.0
            bar.update(task, total=total, completed=progress.done or 0.0, pace=pace)

        if workers == 1:
            result = repaint_video(painter, source, out, fps=fps, callback=report, **options)
        else:
            painter.close()  # the workers open the models for themselves
            result = repaint_in_parallel(look, source, out, workers, callback=report, **options)
    say_notes(result.notes)
    if result.interrupted:
        say(f"stopped: {out} holds the first {result.frames} frames")
        raise typer.Exit(130)
    if not quiet:
        pace = result.frames / max(result.seconds, 1e-9)
        say(
            f"{out}  {result.frames} frames in {clock(result.seconds)} ({pace:.1f} frames/s), "
            f"{result.encoder}"
        )
    if result.shortfall or result.damaged:
        missing = f"{result.shortfall:.2f} s of it are missing" if result.shortfall else ""
        parts = "images" if is_sequence(source) else "packets"
        damaged = f"{result.damaged} damaged {parts} were left out" if result.damaged else ""
        said = ", and ".join(part for part in (missing, damaged) if part)
        say(f"error: {source} is damaged or cut off: {said}")
        raise typer.Exit(1)
