"""Logs a training run: one row per step in `log.csv`, TensorBoard events, sample images."""

from __future__ import annotations

import contextlib
import csv
import math
import os
from collections.abc import Callable
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Any

from nst.errors import NstError
from nst.io.files import cannot_write, replacing
from nst.io.images import Array, save_image
from nst.train.run.progress import StepFigures

BOARD_SECONDS = 0.25  # between rows for TensorBoard, as each takes about a millisecond


@dataclass(frozen=True)
class LogRow(StepFigures):
    """One step of training. Unknown values are None; values that are not finite are kept.

    Attributes:
        gpu_memory: peak memory in GB; None on a CPU.
        validation_loss: loss of the validation photographs; None at steps without validation.
        note: one line about an unusual event, or empty.
    """

    gpu_memory: float | None
    validation_loss: float | None = None
    note: str = ""


COLUMNS = tuple(field.name for field in fields(LogRow))
_TEXT: dict[str, Any] = {"encoding": "utf-8", "newline": ""}
_INTEGERS, _OPTIONAL = ("step", "images"), ("gpu_memory", "validation_loss")


class RunLog:
    """Writes `log.csv`, `samples/` and `tensorboard/` in a run's folder.

    TensorBoard events are written if its package is installed; its errors don't stop a training.

    Args:
        folder: folder of the run, which exists.
        resume_step: step of the checkpoint from which the run is resumed; later rows and samples
            are dropped. None for a new run.

    Raises:
        NstError: the folder can't be written, or the disk is full; all methods raise it too.
    """

    def __init__(self, folder: Path, resume_step: int | None = None) -> None:
        self._folder, self._path = folder, folder / "log.csv"
        kept = [] if resume_step is None else _kept(self._path, resume_step)
        with replacing(self._path) as beside, beside.open("w", **_TEXT) as file:
            csv.writer(file, lineterminator="\n").writerows([COLUMNS, *map(_cells, kept)])
        if resume_step is not None:
            for path in (folder / "samples").glob("*.jpg"):
                if path.stem.isdigit() and int(path.stem) > resume_step:
                    path.unlink(missing_ok=True)
        self._file = self._path.open("a", **_TEXT)
        self._writer = csv.writer(self._file, lineterminator="\n")
        self._board = _open_board(folder / "tensorboard", resume_step)
        self._board_next = -math.inf

    def write(self, row: LogRow) -> None:
        """Add the row of a step."""
        try:
            self._writer.writerow(_cells(row))
        except OSError as error:
            raise cannot_write(self._path, error) from error
        if row.seconds >= self._board_next or row.validation_loss is not None:
            self._board_next = row.seconds + BOARD_SECONDS
            self._to_board(lambda board: _add_row(board, row))

    def sample(self, step: int, image: Array) -> None:
        """Save an image of a step, HWC uint8 RGB, as `samples/000400.jpg`."""
        save_image(self._folder / "samples" / f"{step:06d}.jpg", image)
        self._to_board(lambda board: board.add_image("sample", image, step, dataformats="HWC"))

    def flush(self) -> None:
        """Write all rows to the disk, so that a later checkpoint never lacks the rows before it."""
        try:
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise cannot_write(self._path, error) from error
        self._to_board(lambda board: board.flush())

    def close(self) -> None:
        """Flush and close the files. A second call does nothing."""
        if self._file.closed:
            return
        try:
            self.flush()
        finally:
            with contextlib.suppress(OSError):  # flush has raised it
                self._file.close()
            self._to_board(lambda board: board.close())

    def _to_board(self, act: Callable[[Any], object]) -> None:
        if self._board is not None:
            try:
                act(self._board)
            except Exception:  # a broken TensorBoard must not break a training
                self._board = None


def read_log(path: Path) -> list[LogRow]:
    """Read the rows of a `log.csv`, skipping damaged ones.

    Raises:
        NstError: the file can't be read.
    """
    try:
        text = path.read_text("utf-8", errors="replace")
    except OSError as error:
        raise NstError(f"cannot read {path}: {error.strerror}") from error
    rows = []
    for line in text.split("\n")[1:-1]:  # without the header, and a last line that was cut off
        with contextlib.suppress(ValueError, csv.Error, StopIteration):
            cells = zip(COLUMNS, next(csv.reader([line])), strict=True)
            rows.append(LogRow(**{name: _parse(name, cell) for name, cell in cells}))
    return rows


def _kept(path: Path, last_step: int) -> list[LogRow]:
    """Read the rows up to a step; a process that was killed may have left more."""
    return [row for row in read_log(path) if row.step <= last_step] if path.exists() else []


def _parse(name: str, text: str) -> Any:
    if name == "note":
        return text
    if name in _INTEGERS:
        return int(text)
    return None if name in _OPTIONAL and not text else float(text)


def _cells(row: LogRow) -> list[str]:
    """Format a row: floats with six digits, enough for a loss, and the note as one line."""
    *values, note = astuple(row)
    cells = [f"{v:.6g}" if isinstance(v, float) else "" if v is None else str(v) for v in values]
    return [*cells, " ".join(note.split())]


def _open_board(folder: Path, resume_step: int | None) -> Any:
    """Open a SummaryWriter; return None if its package is missing or broken."""
    try:
        from torch.utils.tensorboard import SummaryWriter

        purge = None if resume_step is None else resume_step + 1
        return SummaryWriter(str(folder), purge_step=purge)
    except Exception:
        return None


def _add_row(board: Any, row: LogRow) -> None:
    for name in COLUMNS:
        value = getattr(row, name)
        if name.endswith("_loss"):
            name = f"loss/{name.removesuffix('_loss')}"
        if isinstance(value, (int, float)) and name not in ("step", "seconds"):
            board.add_scalar(name, value, row.step)
    if row.note:
        board.add_text("note", row.note, row.step)
