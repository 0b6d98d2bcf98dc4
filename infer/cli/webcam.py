"""`nst webcam`."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Annotated, Literal

import typer

from nst.cli.console import Debug, command, say
from nst.config import KeepColor
from nst.errors import UsageError
from nst.infer.cli.opening import say_notes
from nst.infer.cli.options import ProviderOption, StabilizeOption, StrengthOption, ThreadsOption
from nst.io.files import same_file

_FIRST = 20.0  # seconds to wait for a source's first frame


@command
def webcam_command(
    style: Annotated[
        list[Path],
        typer.Option(help="Model that nst-train made, an .onnx file; repeat to switch by keys."),
    ],
    source: Annotated[
        str, typer.Option(help="Number of a camera, a video file, or the URL of a stream.")
    ] = "0",
    size: Annotated[
        int | None, typer.Option(help="Long side in pixels. Default: the camera's.")
    ] = None,
    fps: Annotated[
        float | None, typer.Option(help="Frame rate to keep, by adapting the size.")
    ] = None,
    strength: StrengthOption = 1.0,
    keep_color: Annotated[
        Literal[KeepColor, "none"] | None,
        typer.Option(
            help="Keep each frame's colours; the key c switches this. Default: the model's."
        ),
    ] = None,
    stabilize: StabilizeOption = False,
    mirror: Annotated[bool, typer.Option("--mirror", help="Swap left and right.")] = False,
    record: Annotated[
        Path | None, typer.Option(help="Video file to record from the start.")
    ] = None,
    snapshots: Annotated[
        Path, typer.Option(help="Folder for pictures and recordings that the keys save.")
    ] = Path(),
    window: Annotated[bool, typer.Option("--window/--no-window", help="Show a window.")] = True,
    virtual_camera: Annotated[
        bool, typer.Option("--virtual-camera", help="Act as a camera for other programs.")
    ] = False,
    seconds: Annotated[
        float | None, typer.Option(help="Seconds after which to end. Default: never.")
    ] = None,
    provider: ProviderOption = "auto",
    threads: ThreadsOption = 0,
    debug: Debug = False,
) -> None:
    """Repaint a camera live. In the window the key h shows all keys, q quits."""
    if record is not None and same_file(source, record):
        raise UsageError(f"--record would overwrite {source}: name another file")
    if not window and record is None and not virtual_camera:
        raise UsageError("--no-window shows nothing: add --record FILE or --virtual-camera")
    from nst.infer.live.camera import Camera
    from nst.infer.live.webcam import WebcamConfig, run_webcam
    from nst.infer.live.window import OpenCVWindow, VirtualCamera, check_display, source_of
    from nst.infer.runtime.stylizer import Stylizer
    from nst.infer.video.temporal import TemporalStylizer

    config = WebcamConfig(
        size=size,
        fps=fps,
        strength=strength,
        keep_color=keep_color,
        mirror=mirror,
        snapshots=snapshots,
        record=record,
        seconds=seconds,
    )
    if window:
        check_display()
    with contextlib.ExitStack() as stack:
        models = [
            stack.enter_context(Stylizer(path, provider=provider, threads=threads))
            for path in style
        ]
        say_notes(tuple(dict.fromkeys(note for model in models for note in model.notes)))
        camera = stack.enter_context(Camera(source_of(source)))
        sinks = []
        if virtual_camera:
            first = camera.newest(_FIRST)
            if first is None:
                raise UsageError(f"--source {source} gave no frame within {_FIRST:g} s")
            sink = stack.enter_context(VirtualCamera(first.image.shape[:2], camera.rate or 30.0))
            sinks.append(sink)
            say(f"virtual camera {sink.device}")
        shown = None
        if window:
            shown = stack.enter_context(OpenCVWindow(f"nst {source}"))
        styles = [TemporalStylizer(model, stabilize=stabilize) for model in models]
        result = run_webcam(styles, camera, shown, config, sinks, say)
    pace = result.frames / max(result.seconds, 1e-9)
    say(
        f"{result.frames} of {result.captured} frames in {result.seconds:.0f} s "
        f"({pace:.1f} frames/s), {1000 * result.age:.0f} ms old when shown"
    )
