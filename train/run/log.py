"""The log of a training run: a row a step in `log.csv`, TensorBoard events, and a picture."""

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

BOARD_SECONDS = 0.25  # between the rows that TensorBoard gets: a row costs it about a millisecond


@dataclass(frozen=True)
class LogRow:
    """One step of training. What is not known is None, what is not finite stays so.

    Attributes:
        step: from 1, rising.
        seconds: of training so far.
        images: crops seen so far.
        learning_rate: of this step.
        content_loss, style_loss, tv_loss, teacher_loss, temporal_loss, checkerboard_loss, total_loss:
            weighted, of this batch.
        gradient_norm: before any clipping.
        images_per_second: over the last steps.
        waiting: share of the time spent waiting for content, 0 to 1.
        gpu_memory: GB at its peak; None on a CPU.
        validation_loss: loss of the validation photographs; only at samples.
        note: what was out of the ordinary, one line.
    """

    step: int
    seconds: float
    images: int
    learning_rate: float
    content_loss: float
    style_loss: float
    tv_loss: float
    teacher_loss: float
    temporal_loss: float
    checkerboard_loss: float
    total_loss: float
    gradient_norm: float
    images_per_second: float
    waiting: float
    gpu_memory: float | None
    validation_loss: float | None = None
    note: str = ""


COLUMNS = tuple(field.name for field in fields(LogRow))
_TEXT: dict[str, Any] = {"encoding": "utf-8", "newline": ""}
# Columns that logs of earlier versions lack.
_LATER = {"temporal_loss": "0", "checkerboard_loss": "0"}
_WHOLE, _MAYBE = ("step", "images"), ("gpu_memory", "validation_loss")


class RunLog:
    """Writes `log.csv`, `samples/`, `tensorboard/` and at the end `losses.png` in a run's folder.

    TensorBoard gets its events where its package is installed; whatever goes wrong there is left
    to go wrong, and training goes on.

    Args:
        folder: of the run; it exists.
        resume_step: the step of the checkpoint from which the run goes on; what was logged after
            it is dropped. None for a new run.

    Raises:
        NstError: the folder can't be written, or the disk is full; so do all methods.
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
        """Keep what the network paints at a step, HWC uint8 RGB, as `samples/000400.jpg`."""
        save_image(self._folder / "samples" / f"{step:06d}.jpg", image)
        self._to_board(lambda board: board.add_image("sample", image, step, dataformats="HWC"))

    def flush(self) -> None:
        """Bring all rows so far to the disk: a checkpoint written after this has them all."""
        try:
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise cannot_write(self._path, error) from error
        self._to_board(lambda board: board.flush())

    def close(self) -> None:
        """Flush, and draw `losses.png`. A second call does nothing."""
        if self._file.closed:
            return
        try:
            self.flush()
        finally:
            with contextlib.suppress(OSError):  # flush has told
                self._file.close()
            self._to_board(lambda board: board.close())
        if self._path.exists():  # a run that came to nothing is taken away while it ends
            from nst.train.run.plot import plot_losses

            plot_losses(read_log(self._path), self._folder / "losses.png")

    def _to_board(self, act: Callable[[Any], object]) -> None:
        if self._board is not None:
            try:
                act(self._board)
            except Exception:  # a broken TensorBoard must not break a training
                self._board = None


def read_log(path: Path) -> list[LogRow]:
    """The rows of a `log.csv`, without those that are damaged.

    Raises:
        NstError: it can't be read.
    """
    try:
        text = path.read_text("utf-8", errors="replace")
    except OSError as error:
        raise NstError(f"cannot read {path}: {error.strerror}") from error
    rows = []
    header, *lines = text.split("\n")
    columns = header.split(",") if set(header.split(",")) <= set(COLUMNS) else COLUMNS
    for line in lines[:-1]:  # what no line end follows was cut off
        with contextlib.suppress(ValueError, csv.Error, StopIteration):
            values = {**_LATER, **dict(zip(columns, next(csv.reader([line])), strict=True))}
            rows.append(LogRow(**{name: _parse(name, text) for name, text in values.items()}))
    return rows


def _kept(path: Path, last_step: int) -> list[LogRow]:
    """The rows up to a step; a process that was killed may have left more."""
    return [row for row in read_log(path) if row.step <= last_step] if path.exists() else []


def _parse(name: str, text: str) -> Any:
    if name == "note":
        return text
    if name in _WHOLE:
        return int(text)
    return None if name in _MAYBE and not text else float(text)


def _cells(row: LogRow) -> list[str]:
    """A row of the file: six digits are more than a loss has, and a note is one line."""
    *values, note = astuple(row)
    cells = [f"{v:.6g}" if isinstance(v, float) else "" if v is None else str(v) for v in values]
    return [*cells, " ".join(note.split())]


def _open_board(folder: Path, resume_step: int | None) -> Any:
    """A SummaryWriter; None without the package, or with a broken one."""
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
