"""The console output of commands."""

from __future__ import annotations

import io
import sys
import warnings
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from nst.cli.app import app
from nst.cli.console import command
from nst.io.images import Array, load_image, save_image


def test_a_stdout_that_lacks_a_character_gets_its_code(monkeypatch: pytest.MonkeyPatch) -> None:
    data = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(data, "ascii", newline=""))
    command(lambda: print("0.5 ± 0.1", flush=True))()
    assert data.getvalue() == b"0.5 \\xb1 0.1\n"


def test_a_command_hides_pillows_warnings(
    tmp_path: Path, photograph: Array, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, out = tmp_path / "a.png", tmp_path / "b.png"
    save_image(path, photograph)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", photograph[..., 0].size - 1)
    arguments = ["color", str(path), str(path), "--out", str(out), "--method", "mkl"]
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        before = list(warnings.filters)
        result = CliRunner().invoke(app, arguments)
        assert warnings.filters == before
        assert seen == []
        load_image(path)
        assert [warning.category for warning in seen] == [Image.DecompressionBombWarning]
    assert result.exit_code == 0
    assert result.stderr.splitlines() == [f"{out}: 128×96, mkl"]
