"""The `nst` command: gathers the command groups."""

from __future__ import annotations

import typer

from nst import cli as optimize_cli
from nst import cli_color
from nst.infer import cli as infer_cli
from nst.infer import cli_flicker, cli_info, cli_inspect, cli_video, cli_webcam
from nst.train import cli as train_cli
from nst.train import cli_bench, cli_score

app = typer.Typer(
    name="nst",
    help="Real-time neural style transfer: any picture becomes a network that repaints others.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
parts = (
    train_cli,
    infer_cli,
    cli_video,
    cli_webcam,
    optimize_cli,
    cli_color,
    cli_score,
    cli_inspect,
    cli_flicker,
    cli_bench,
    cli_info,
)
for part in parts:
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


if __name__ == "__main__":
    main()
