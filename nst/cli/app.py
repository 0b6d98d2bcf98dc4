"""The root of the `nst` command: a table of subcommands, each loaded when it is called."""

from __future__ import annotations

import typer

from nst.cli import color, optimize
from nst.infer.cli import flicker, image, info, inspect, video, webcam
from nst.train.cli import bench, export, score, train

app = typer.Typer(
    name="nst",
    help="Real-time neural style transfer: any picture becomes a network that repaints others.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for part in (
    *(train, image, video, webcam, optimize, color, export, score, inspect, flicker, bench, info),
):
    part.register(app)


@app.callback(invoke_without_command=True)
def _root(version: bool = typer.Option(False, "--version", help="Show the version.")) -> None:
    if version:
        from importlib.metadata import version as installed

        print(f"nst {installed('nst')}")
        raise typer.Exit


def main() -> None:
    """Run `nst`."""
    app()
