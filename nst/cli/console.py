"""What the commands share: one line for an error, progress on stderr."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from typing import Annotated, ParamSpec

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    TaskProgressColumn,
    TextColumn,
)

from nst.errors import NstError

P = ParamSpec("P")

out = Console(stderr=True, highlight=False, soft_wrap=True, emoji=False)

Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]


def command(function: Callable[P, None]) -> Callable[P, None]:
    """Wrap a command that has a `debug` option: errors of ours become one line and a status."""

    @functools.wraps(function)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            function(*args, **kwargs)
        except NstError as error:
            if kwargs.get("debug"):
                raise
            fail(error)
            raise typer.Exit(error.exit_status) from error
        except KeyboardInterrupt as error:
            out.print("interrupted", markup=False)
            raise typer.Exit(130) from error
        except BrokenPipeError as error:
            # Whoever reads our output has gone; Python must not complain of it at exit either.
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            raise typer.Exit(1) from error
        except OSError as error:
            # What no function has turned into a line of its own: a full pipe, a lost disk.
            if kwargs.get("debug"):
                raise
            fail(NstError(f"{error}: check the file and its folder"))
            raise typer.Exit(1) from error

    return wrapper


def fail(error: NstError) -> None:
    """Print an error as one line."""
    say(f"error: {' '.join(str(error).split())}")


def say(line: str) -> None:
    """Print a line on stderr, as it is."""
    out.print(line, markup=False)


def hush(quiet: bool) -> None:
    """Say nothing from here on, errors included; or speak again."""
    out.quiet = quiet


def progress_bar(*columns: ProgressColumn) -> Progress:
    """A bar on stderr that leaves nothing behind; silent where stderr is no terminal."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        TaskProgressColumn(),
        *columns,
        console=out,
        transient=True,
        disable=not out.is_terminal,
    )
