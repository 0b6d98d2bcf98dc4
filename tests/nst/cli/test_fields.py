"""Options that dataclasses declare appear in commands, with their defaults, types and texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
import typer
from typer.testing import CliRunner

from nst.cli.console import Debug, command
from nst.cli.fields import make_config, with_options
from nst.cli.help import SectionedCommand, make_app
from nst.options import Option, option_fields


@dataclass(frozen=True)
class Inner:
    depth: Annotated[int, Option("Depth in pixels.", "Experts")] = 3
    silent: int = 0


@dataclass(frozen=True)
class Outer:
    files: Annotated[tuple[Path, ...], Option("Files to read.")]
    inner: Inner = Inner()
    shares: Annotated[tuple[float, ...], Option("Shares, with commas.", "How it looks")] = ()
    names: Annotated[tuple[str, ...], Option("Names, with commas.", "Experts")] = ("a", "b")
    mode: Annotated[Literal["fast", "slow"], Option("Mode of work.", name="how")] = "fast"
    rate: Annotated[float | None, Option("Rate.", "Experts")] = None
    plot: Annotated[bool, Option("Draw a plot.")] = True
    cold: Annotated[bool, Option("Start cold.")] = False


def run(*arguments: str, **options: Any) -> tuple[str, dict[str, Any]]:
    """What a command prints, and the arguments that it receives."""
    seen: dict[str, Any] = {}

    @command
    @with_options(Outer, **options)
    def work(
        target: Annotated[str, typer.Argument(help="Target.")],
        given: Mapping[str, Any],
        size: Annotated[int, typer.Option(help="Size.")] = 5,
        debug: Debug = False,
    ) -> None:
        """Work hard."""
        seen.update(target=target, given=dict(given), size=size)

    app = make_app()
    app.command("work", cls=SectionedCommand)(work)
    result = CliRunner().invoke(app, arguments, env={"COLUMNS": "100"})
    return result.output + result.stderr, seen


def test_the_fields_that_declare_an_option_are_found_in_nested_dataclasses_too() -> None:
    found = list(option_fields(Outer))
    assert [o.name for o in found] == [
        *("files", "depth", "shares", "names", "how", "rate", "plot", "cold"),
    ]
    assert {o.name: o.owner for o in found}["depth"] is Inner
    assert {o.name: o.field for o in found}["how"] == "mode"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], {}),
        (["--files", "a", "--files", "b/c"], {"files": (Path("a"), Path("b/c"))}),
        (["--shares", "1,.5"], {"shares": (1.0, 0.5)}),
        (["--names", "x, y"], {"names": ("x", "y")}),
        (["--how", "slow"], {"how": "slow"}),
        (["--depth", "3"], {"depth": 3}),  # given, though it is the default
        (["--rate", "2", "--no-plot", "--cold"], {"rate": 2.0, "plot": False, "cold": True}),
        (["--size", "7"], {"size": 7}),
    ],
)
def test_what_the_command_line_gives_is_parsed(
    arguments: Sequence[str], expected: dict[str, Any]
) -> None:
    output, seen = run("here", *arguments)
    assert output == ""
    assert seen["given"] == {"target": "here", **expected}
    assert seen["size"] == expected.get("size", 5)


def test_what_is_given_makes_the_dataclasses() -> None:
    given = {"files": (Path("a"),), "how": "slow", "depth": 9, "size": 7}
    made = make_config(Outer, given, inner=make_config(Inner, given))
    assert made == Outer((Path("a"),), inner=Inner(9), mode="slow")


def test_the_help_shows_texts_and_defaults_under_their_headings() -> None:
    output, _ = run("--help")
    headings = [line.rstrip(":") for line in output.splitlines() if line.endswith(":")]
    assert headings == ["Arguments", "Options", "How it looks", "Experts"]
    lines = {line.split()[0]: line for line in output.splitlines() if "--" in line}
    assert "Depth in pixels." in lines["--depth"]
    assert "[default: 3]" in lines["--depth"]
    assert "[default: a,b]" in lines["--names"]
    assert "default" not in lines["--rate"]
    assert "Work hard." in output


def test_a_command_leaves_options_out_or_shows_no_defaults() -> None:
    output, _ = run("--help", leave_out=("names",), panel="Everything")
    assert "--names" not in output
    assert "[default: 3]" not in output
    assert run("here", "--depth", "4", panel="Everything")[1]["given"]["depth"] == 4


@pytest.mark.parametrize(
    ("arguments", "word"), [(["--shares", "1,x"], "--shares"), (["--how", "so"], "so")]
)
def test_bad_values_are_refused_in_a_line(arguments: list[str], word: str) -> None:
    output, seen = run("here", *arguments)
    assert word in output
    assert not seen
