"""Writes files that appear whole or not at all, and checks paths before work starts."""

from __future__ import annotations

import os
import secrets
import stat
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from nst.errors import NstError


@contextmanager
def replacing(target: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a hidden path beside `target`, and rename it to `target` if the body succeeds.

    Creates missing folders above `target`. On any exception the half-written file is removed and
    `target` stays as it was.

    Raises:
        NstError: the folder can't be written, the disk is full, or `target` is a folder.
    """
    target = Path(target)
    beside: Path | None = None
    try:
        if os.path.isdir(target):
            raise NstError(f"{target} is a folder: give the name of a file in it")
        target.parent.mkdir(parents=True, exist_ok=True)
        # The suffix stays, because writers choose the format by it.
        hidden = target.with_name(f".{target.stem[:40]}-{secrets.token_hex(8)}{target.suffix}")
        hidden.touch(mode=0o666, exist_ok=False)  # the system applies the umask
        beside = hidden
        mode = stat.S_IMODE(beside.stat().st_mode)
        yield beside
        beside.chmod(mode)  # a writer such as safetensors' puts a private file of its own there
        beside.replace(target)
        beside = None
    except OSError as error:
        raise cannot_write(target, error) from error
    finally:
        if beside is not None:
            beside.unlink(missing_ok=True)


def check_writable(target: str | os.PathLike[str]) -> None:
    """Check that `target` can be written, before hours of work are spent on it.

    Leaves nothing behind: where the folder is missing, the nearest existing one above is tried.

    Raises:
        NstError: it can't, as `replacing` would raise.
    """
    target = Path(target)
    if os.path.isdir(target):
        raise NstError(f"{target} is a folder: give the name of a file in it")
    try:
        folder = target.parent
        while not os.path.exists(folder) and folder != folder.parent:
            folder = folder.parent
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise cannot_write(target, error) from error


def same_file(one: str | os.PathLike[str], other: str | os.PathLike[str]) -> bool:
    """Return whether both paths exist and are the same file."""
    return os.path.exists(one) and os.path.exists(other) and os.path.samefile(one, other)


def cannot_write(target: str | os.PathLike[str], error: OSError) -> NstError:
    """Make the error for a folder that can't be written or a disk that is full."""
    why = error.strerror or str(error)
    return NstError(f"cannot write {target}: {why}; choose another path or free some space")


class Closing(ABC):
    """Base class of objects that a `with` statement closes at its end, even after an error."""

    @abstractmethod
    def close(self) -> None:
        """Release all resources."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self.close()
