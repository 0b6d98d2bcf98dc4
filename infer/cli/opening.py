"""Opens the model and the photographs that a command works on, and reports what is wrong."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from nst.cli.console import fail, progress_bar, say
from nst.config import Provider

if TYPE_CHECKING:
    from rich.progress import Progress

    from nst.infer.runtime.stylizer import Stylizer
    from nst.io.images import Array


@contextmanager
def open_model(
    model: Path, provider: Provider, threads: int
) -> Iterator[tuple[Stylizer, Progress]]:
    """Open a model, print its notes, and show a progress bar until the block ends."""
    from nst.infer.runtime.stylizer import Stylizer

    with Stylizer(model, provider=provider, threads=threads) as stylizer, progress_bar() as bar:
        say_notes(stylizer.notes)
        yield stylizer, bar


def open_photographs(
    content: Sequence[Path] | None, most: int | None = None, *, debug: bool = False
) -> tuple[list[Array], bool]:
    """Load the photographs that `--content` names, or the built-in ones.

    Prints an error for each file that can't be read; with `debug` the first one is raised.

    Returns:
        The photographs, HWC uint8 RGB, and whether files were skipped.
    """
    from nst.io.sample_images import held_out, load_photographs

    if not content:
        return held_out(), False
    photographs, skipped = load_photographs(content, most)
    for error in skipped:
        if debug:
            raise error
        fail(error)
    return photographs, bool(skipped)


def say_notes(notes: Sequence[str]) -> None:
    """Print a line for each note."""
    for note in notes:
        say(f"note: {note}")
