"""The root of the `nst` command."""

from __future__ import annotations

from collections.abc import Callable

import typer

from nst.cli import color, optimize
from nst.cli.help import SectionedCommand, make_app
from nst.infer.cli import flicker, image, info, inspect, video, webcam
from nst.train.cli import bench, export, score, train

COMMANDS: dict[str, Callable[..., None]] = {
    "train": train.train_command,
    "image": image.image_command,
    "video": video.video_command,
    "webcam": webcam.webcam_command,
    "optimize": optimize.optimize_command,
    "export": export.export_command,
    "score": score.score_command,
    "inspect": inspect.inspect_command,
    "flicker": flicker.flicker_command,
    "bench": bench.bench_command,
    "info": info.info_command,
}

app = make_app(
    name="nst",
    help="Real-time neural style transfer: any picture becomes a network that repaints others.",
    no_args_is_help=True,
)
for name, function in COMMANDS.items():
    app.command(name, cls=SectionedCommand)(function)
app.add_typer(color.group, name="color")


@app.callback(invoke_without_command=True)
def _root(version: bool = typer.Option(False, "--version", help="Show the version.")) -> None:
    if version:
        from importlib.metadata import version as installed

        print(f"nst {installed('nst')}")
        raise typer.Exit


def main() -> None:
    """Run `nst`."""
    app()
