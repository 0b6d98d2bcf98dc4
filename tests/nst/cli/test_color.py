"""`nst color` and `nst color compare`: their files, their tables, and bad input."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from color_images import colorful
from typer.testing import CliRunner

from nst.cli.app import app
from nst.color.transfer import METHODS, idt_regrain, mkl, reinhard
from nst.io.images import load_image, load_picture, save_image


def run(*arguments: object) -> Any:
    return CliRunner().invoke(app, ["color", *map(str, arguments)])


def test_the_command_gives_other_colours(tmp_path: Path) -> None:
    image, reference, out = colorful(0), colorful(1), tmp_path / "out.png"
    alpha = np.arange(image[..., 0].size, dtype=np.int64).reshape(image.shape[:2]) % 256
    save_image(tmp_path / "a.png", image, alpha=alpha.astype(np.uint8))
    save_image(tmp_path / "b.png", reference)
    for words, options, method in (
        ((), ("--method", "mkl"), mkl(image, reference)),
        (("transfer",), ("--method", "reinhard", "--space", "cielab"), None),
        (
            (),
            ("--seed", "2", "--iterations", "3"),
            idt_regrain(image, reference, seed=2, iterations=3),
        ),
    ):
        result = run(*words, tmp_path / "a.png", tmp_path / "b.png", "--out", out, *options)
        assert result.exit_code == 0, result.output
        written = load_picture(out)
        assert written.alpha is not None
        np.testing.assert_array_equal(written.alpha, alpha)
        expected = reinhard(image, reference, space="cielab") if method is None else method
        np.testing.assert_array_equal(written.image, expected)


def test_the_command_compares(tmp_path: Path) -> None:
    image, reference = colorful(0), colorful(1)
    save_image(tmp_path / "a.png", image)
    save_image(tmp_path / "b.png", reference)
    out = tmp_path / "new" / "folder"
    result = run("compare", tmp_path / "a.png", tmp_path / "b.png", "--out", out, "--json")
    assert result.exit_code == 0, result.output
    rows = json.loads(result.stdout)
    assert [row["method"] for row in rows] == ["source", *METHODS]
    assert json.loads((out / "comparison.json").read_text()) == rows
    for name, method in METHODS.items():
        np.testing.assert_array_equal(load_image(out / f"{name}.png"), method(image, reference))
    assert load_image(out / "comparison.png").shape[0] > 500
    lines = (out / "comparison.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in lines] == ["method", "source", *METHODS]
    assert float(lines[4].split(",")[4]) == pytest.approx(rows[3]["wasserstein"][0], rel=1e-4)
    for suffix in ("md", "txt"):
        assert f"{rows[3]['wasserstein'][0]:.2f}" in (out / f"comparison.{suffix}").read_text()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("a.png", "missing.png", "--out", "c.png"), "does not exist"),
        (("a.png", "text.png", "--out", "c.png"), "not an image"),
        (("a.png", "b.png", "--out", "a.png"), "overwrite"),
        (("a.png", "b.png", "--out", "c.xyz"), "suffix"),
        (("a.png", "b.png", "--out", "c.png", "--method", "mkl", "--seed", "1"), "methods idt"),
        (("a.png", "b.png", "--out", "c.png", "--iterations", "0"), "1 or more"),
        (("a.png", "b.png", "--out", "c.png", "--quality", "0"), "quality"),
        (("a.png", "b.png", "--out", "c.png", "--method", "magic"), "magic"),
        (("compare", "a.png", "missing.png", "--out", "d"), "does not exist"),
        (("compare", "a.png", "b.png", "--out", "text.png"), "text.png"),
        (("compare", "a.png", "b.png", "--out", "d", "--json", "--markdown"), "choose one"),
    ],
)
def test_bad_input(
    arguments: tuple[str, ...], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    save_image("a.png", colorful(0))
    save_image("b.png", colorful(1))
    Path("text.png").write_text("no image")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    result = run(*arguments)
    assert result.exit_code != 0
    assert said in result.output
    assert "Traceback" not in result.output
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
