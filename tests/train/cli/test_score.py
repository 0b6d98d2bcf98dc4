"""The command's defaults are the library's."""

from __future__ import annotations

import inspect

from nst.train.cli import score as cli_score
from nst.train.evaluation import score


def test_defaults_are_the_librarys() -> None:
    options = inspect.signature(cli_score.score_command).parameters
    assert options["iterations"].default == score.ITERATIONS
    assert score.MILESTONES[-1] == cli_score.MOST_ITERATIONS
