"""The log of a run: whole after a kill, continuous after a resume, plotted at the end."""

from __future__ import annotations

import math
import re
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_runs import SMALL, make_small, small_run

from nst.errors import NstError
from nst.io.images import load_image
from nst.models.transformer import TransformerNet
from nst.train.run.environment import environment
from nst.train.run.folder import RunFolder, discard
from nst.train.run.log import COLUMNS, LogRow, RunLog, read_log
from nst.train.run.plot import plot_losses, smooth


def row(step: int, **more: object) -> LogRow:
    loss = 1e4 * round(16 + 300 / step)  # six digits are kept
    values = LogRow(
        step=step,
        seconds=0.5 * step,
        images=8 * step,
        learning_rate=6e-4,
        content_loss=loss / 4,
        style_loss=loss / 2,
        tv_loss=0.0,
        teacher_loss=0.0,
        temporal_loss=0.0,
        checkerboard_loss=0.0,
        total_loss=loss,
        gradient_norm=1.5,
        images_per_second=16.0,
        waiting=0.05,
        gpu_memory=None,
    )
    return replace(values, **more)  # type: ignore[arg-type]


def write(folder: Path, steps: Iterable[int], resume_step: int | None = None) -> RunLog:
    log = RunLog(folder, resume_step)
    for step in steps:
        log.write(row(step))
    log.flush()
    return log


@pytest.fixture
def _no_board(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)


@pytest.mark.usefixtures("_no_board")
def test_rows_come_back(tmp_path: Path) -> None:
    rows = [
        row(1),
        row(2, total_loss=math.inf, gpu_memory=3.25, note='skipped,\n "not finite"'),
        row(3, validation_loss=150e3),
    ]
    log = RunLog(tmp_path)
    for each in rows:
        log.write(each)
    log.close()
    log.close()
    assert [path.name for path in tmp_path.iterdir()] == ["log.csv"]
    assert (tmp_path / "log.csv").read_text().splitlines()[0] == ",".join(COLUMNS)
    found = read_log(tmp_path / "log.csv")
    assert found[0] == row(1)
    assert found[1] == replace(rows[1], note='skipped, "not finite"')
    assert found[2] == rows[2]


@pytest.mark.usefixtures("_no_board")
@pytest.mark.parametrize("tail", ["", "31,15.5,248,0.0006,12", "31", "\0\0\0\0", "4\r1,\n7,8\n"])
def test_a_resumed_log_is_one_series(tmp_path: Path, tail: str) -> None:
    log = write(tmp_path, range(1, 31))  # killed: never closed
    with (tmp_path / "log.csv").open("a") as file:
        file.write(tail)
    write(tmp_path, range(21, 41), resume_step=20).close()
    assert read_log(tmp_path / "log.csv") == [row(step) for step in range(1, 41)]
    del log


@pytest.mark.usefixtures("_no_board")
@pytest.mark.parametrize("removed", [False, True])
@pytest.mark.skipif(sys.platform == "win32", reason="an open file stays")
def test_a_run_that_ends_is_plotted_unless_it_was_removed(
    tmp_path: Path, style_path: Path, monkeypatch: pytest.MonkeyPatch, removed: bool
) -> None:
    make_small(monkeypatch)
    config, network = small_run(style_path, None), TransformerNet(SMALL)
    run = RunFolder(tmp_path, config, network, lambda: (0.0, np.zeros((1, 1, 3), np.uint8)), {}, ())
    if removed:
        discard(tmp_path)
    run.close()
    assert (tmp_path / "losses.png").exists() is not removed
    assert any(tmp_path.iterdir()) is not removed


@pytest.mark.usefixtures("_no_board")
def test_a_log_that_is_lost_begins_anew(tmp_path: Path) -> None:
    write(tmp_path, range(21, 23), resume_step=20).close()
    assert [r.step for r in read_log(tmp_path / "log.csv")] == [21, 22]


def test_a_kill_loses_nothing_that_was_flushed(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys\nfrom pathlib import Path\n"
        "sys.modules['torch.utils.tensorboard'] = None\n"
        "from nst.train.run.log import LogRow, RunLog\n"
        f"log = RunLog(Path({str(tmp_path)!r}))\n"
        "for step in range(1, 1000):\n"
        "    log.write(LogRow(step, *[1.0] * 13, None))\n"
        "    if step == 700: log.flush()\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=False, timeout=120)
    steps = [r.step for r in read_log(tmp_path / "log.csv")]
    assert steps == list(range(1, len(steps) + 1))
    assert len(steps) >= 700


def test_tensorboard_shows_a_resumed_run_as_one(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    image = np.full((32, 48, 3), 200, np.uint8)
    first = write(tmp_path, range(1, 8))
    for step in (2, 6):
        first.sample(step, image)
    first.flush()
    second = RunLog(tmp_path, resume_step=4)
    assert [path.name for path in (tmp_path / "samples").iterdir()] == ["000002.jpg"]
    for step in range(5, 10):
        second.write(row(step, note="restored step 4" if step == 5 else ""))
    second.sample(8, image)
    second.close()
    assert np.abs(load_image(tmp_path / "samples" / "000008.jpg").astype(int) - image).max() < 3

    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    found = events.Scalars("loss/total")
    assert [e.step for e in found] == list(range(1, 10))
    assert found[-1].value == pytest.approx(row(9).total_loss)
    assert [e.step for e in events.Images("sample")] == [2, 8]
    assert {"loss/style", "learning_rate", "images_per_second"} <= set(events.Tags()["scalars"])


def test_a_broken_tensorboard_breaks_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("tensorboard")
    from torch.utils.tensorboard import SummaryWriter

    def fail(*_: Any, **__: Any) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(SummaryWriter, "add_scalar", fail)
    write(tmp_path, range(1, 4)).close()
    assert len(read_log(tmp_path / "log.csv")) == 3
    monkeypatch.setattr(SummaryWriter, "__init__", fail)
    write(tmp_path, range(1, 4)).close()


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(NstError, match="cannot write"):
        RunLog(tmp_path / "file")
    with pytest.raises(NstError, match="cannot read"):
        read_log(tmp_path / "none.csv")


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("count", [0, 1, 10, 20_000])
def test_a_picture_of_any_length(tmp_path: Path, count: int) -> None:
    rows = [row(step, note="skipped: not finite" if step % 7 == 0 else "") for step in range(1, 30)]
    rows = [replace(rows[k % 29], step=k + 1) for k in range(count)]
    plot_losses(rows, tmp_path / "losses.png")
    assert load_image(tmp_path / "losses.png").shape == (780, 1430, 3)


@pytest.mark.filterwarnings("error")
def test_a_picture_without_a_finite_loss(tmp_path: Path) -> None:
    losses = dict.fromkeys(("content_loss", "style_loss", "total_loss"), math.nan)
    rows = [row(step, **losses, validation_loss=math.inf) for step in range(1, 4)]
    plot_losses(rows, tmp_path / "losses.png")
    assert (tmp_path / "losses.png").is_file()


def test_smoothing_keeps_jumps_and_passes_over_gaps() -> None:
    values = np.where(np.arange(400) < 200, 8.0, 2.0)
    values[[30, 31, 250]] = np.nan, 1e9, np.nan
    assert np.array_equal(smooth(values), np.where(np.arange(400) < 200, 8.0, 2.0))


def test_the_environment_is_told_without_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "sesame")
    monkeypatch.setattr(sys, "argv", ["nst-train", "--style", "wave.jpg"])
    found = environment()
    assert found["command"] == ["nst-train", "--style", "wave.jpg"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", found["started"])
    assert {"nst", "torch", "torchvision", "numpy", "onnx"} <= set(found["versions"])
    assert "sesame" not in str(found)
