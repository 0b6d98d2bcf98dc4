"""`nst train`: what it says at the end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import nst.train.engine.trainer as trainer
from nst.cli.app import app
from nst.train.run.progress import TrainProgress


def test_ctrl_c_says_how_to_go_on(
    tmp_path: Path, style_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train_style = trainer.train_style

    def train(config: Any, *others: Any) -> Any:
        def stop(progress: TrainProgress) -> None:
            if progress.step == 2:
                raise KeyboardInterrupt

        return train_style(config, stop, *others[1:])

    monkeypatch.setattr(trainer, "train_style", train)
    run = tmp_path / "run"
    given = ("train", "--style", style_path, "--out", run, "--steps", 10_000, "--size", 64)
    given = (*given, "--preset", "fast", "--device", "cpu", "--no-score", "--batch-size", 1)
    result = CliRunner().invoke(app, [str(a) for a in given])
    assert result.exit_code == 0
    lines = result.stderr.splitlines()
    assert lines[-1] == f"go on    nst train --resume {run}"
    assert any(line.startswith("stopped early at 2 steps") for line in lines)
