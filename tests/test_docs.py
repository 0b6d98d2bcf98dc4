"""Docs and commands agree; the example is what its script draws."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import typer.main
from typer.testing import CliRunner

from nst.cli.app import app
from nst.io.images import load_image

COMMANDS = (
    *("train", "image", "video", "webcam", "optimize", "color", "export"),
    *("score", "inspect", "flicker", "bench", "info"),
)


def pages(root: Path) -> list[Path]:
    return [root / "README.md", root / "CONTRIBUTING.md", *sorted((root / "docs").glob("*.md"))]


def documented_commands(root: Path) -> list[tuple[Path, list[str]]]:
    """Every `nst …` line of the code blocks in README and docs, split as a shell would."""
    found = []
    for path in pages(root):
        for block in re.findall(r"```(?:sh|console|bash)\n(.*?)```", path.read_text("utf-8"), re.S):
            for line in block.replace("\\\n", " ").splitlines():
                for part in re.split(r"&&|\|", line.split("  #")[0]):
                    words = shlex.split(part)
                    if words[:2] == ["uv", "run"]:
                        words = words[2:]
                    if words and words[0] in ("nst", "nst-train"):
                        found.append((path, words))
    return found


def test_every_documented_command_and_option_exists(root: Path) -> None:
    commands = documented_commands(root)
    assert len(commands) >= 4
    group = typer.main.get_command(app)
    for path, words in commands:
        name = "train" if words[0] == "nst-train" else words[1]
        assert name in COMMANDS or name.startswith("--"), f"{path}: {' '.join(words)}"
        if name.startswith("--"):
            continue
        command = group.commands[name]  # type: ignore[attr-defined]
        parts = [command, *getattr(command, "commands", {}).values()]
        options = {o for part in parts for p in part.params for o in (*p.opts, *p.secondary_opts)}
        for word in words:
            if word.startswith("--"):
                assert word.partition("=")[0] in options, f"{path}: {' '.join(words)}"


def test_every_command_is_in_the_readme(root: Path) -> None:
    readme = (root / "README.md").read_text("utf-8")
    assert set(typer.main.get_command(app).commands) == set(COMMANDS)  # type: ignore[attr-defined]
    for name in COMMANDS:
        assert f"nst {name}" in readme or f"nst-{name}" in readme
        assert CliRunner().invoke(app, [name, "--help"]).exit_code == 0


def test_relative_links_of_the_docs_lead_somewhere(root: Path) -> None:
    for path in pages(root):
        for target in re.findall(r"\]\(([^)#]+)[^)]*\)", path.read_text("utf-8")):
            if "://" not in target:
                linked = path.parent / target
                assert linked.exists(), f"{path.name} links to {target}"
                assert linked.is_dir() or linked.stat().st_size > 100


@pytest.mark.parametrize("name", ["wave"])
def test_examples_are_what_their_scripts_draw(root: Path, tmp_path: Path, name: str) -> None:
    script = tmp_path / f"make_{name}.py"
    script.write_bytes((root / "examples" / f"make_{name}.py").read_bytes())
    subprocess.run([sys.executable, str(script)], check=True, timeout=120)
    drawn, kept = (load_image(f / f"{name}.jpg") for f in (tmp_path, root / "examples"))
    assert drawn.shape == kept.shape
    assert np.abs(drawn.astype(int) - kept).mean() < 2
