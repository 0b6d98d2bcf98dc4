"""The console output that commands share: errors in one line, progress on stderr."""

from __future__ import annotations

import functools
import io
import os
import sys
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, ParamSpec

import typer

from nst.errors import NstError

P = ParamSpec("P")

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]


def command(function: Callable[P, None]) -> Callable[P, None]:
    """Wrap a command that has a `debug` option: turn errors into one line and an exit status.

    Hides Pillow's warnings about large images and odd tags: an image that can't be read raises.
    """

    @functools.wraps(function)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> None:
        if isinstance(sys.stdout, io.TextIOWrapper):  # some encodings lack ×, ± and –
            sys.stdout.reconfigure(errors="backslashreplace")
        try:
            with warnings.catch_warnings():  # process-wide, so here, where no other thread runs
                warnings.filterwarnings("ignore", module=r"PIL\.")
                function(*args, **kwargs)
        except NstError as error:
            if kwargs.get("debug"):
                raise
            fail(error)
            raise typer.Exit(error.exit_status) from error
        except KeyboardInterrupt as error:
            say("interrupted")
            raise typer.Exit(130) from error
        except BrokenPipeError as error:
            # The reader of our output is gone; keep Python from complaining about it at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            raise typer.Exit(1) from error
        except OSError as error:
            # An error that no function made readable, such as that of a full or lost disk.
            if kwargs.get("debug"):
                raise
            fail(NstError(f"{error}: check the file and its folder"))
            raise typer.Exit(1) from error

    return wrapper


def fail(error: NstError) -> None:
    """Print an error as one line."""
    say(f"error: {' '.join(str(error).split())}")


def say(line: str) -> None:
    """Print a line on stderr, without markup."""
    _console().print(line, markup=False)


def hush(quiet: bool) -> None:
    """Stop all output on stderr, errors too, or start it again."""
    _console().quiet = quiet


def progress_bar(*fields: str) -> Progress:
    """Make a bar on stderr that vanishes at its end; it is off if stderr is no terminal.

    Args:
        fields: names of the task's fields to show behind the bar.
    """
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        TaskProgressColumn(),
        *(TextColumn(f"{{task.fields[{field}]}}") for field in fields),
        console=_console(),
        transient=True,
        disable=not _console().is_terminal,
    )


@functools.cache
def _console() -> Console:
    from rich.console import Console  # takes a tenth of a second

    return Console(stderr=True, highlight=False, soft_wrap=True, emoji=False)
