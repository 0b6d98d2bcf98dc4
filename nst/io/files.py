"""Files appear whole or not at all."""

from __future__ import annotations

import os
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from nst.errors import NstError


@contextmanager
def replacing(target: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a path beside `target`; what is written there becomes `target` if all goes well.

    Folders above `target` are made. On any exception the half-written file is removed and
    `target` stays as it was.

    Raises:
        NstError: the folder can't be written, the disk is full, `target` is a folder.
    """
    target = Path(target)
    beside: Path | None = None
    try:
        if os.path.isdir(target):
            raise NstError(f"{target} is a folder: give the name of a file in it")
        target.parent.mkdir(parents=True, exist_ok=True)
        # The suffix stays, because writers choose the format by it.
        handle, name = tempfile.mkstemp(
            suffix=target.suffix, prefix=f".{target.stem[:40]}-", dir=target.parent
        )
        os.close(handle)
        beside = Path(name)
        yield beside
        beside.chmod(0o666 & ~_umask())  # mkstemp's 0600 would surprise
        beside.replace(target)
        beside = None
    except OSError as error:
        raise cannot_write(target, error) from error
    finally:
        if beside is not None:
            beside.unlink(missing_ok=True)


def check_writable(target: str | os.PathLike[str]) -> None:
    """Try whether `target` could be written, before hours of work are spent on it.

    Leaves nothing behind: where its folder is missing, the nearest one above is tried.

    Raises:
        NstError: as `replacing` would.
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
    """Whether both exist and are one file."""
    return os.path.exists(one) and os.path.exists(other) and os.path.samefile(one, other)


def cannot_write(target: str | os.PathLike[str], error: OSError) -> NstError:
    """The one line for a folder that can't be written or a disk that is full."""
    why = error.strerror or str(error)
    return NstError(f"cannot write {target}: {why}; choose another --out or free some space")


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


class Closing(ABC):
    """`with` closes it at the end, whatever happened."""

    @abstractmethod
    def close(self) -> None:
        """Release what it holds."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
