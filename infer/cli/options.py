"""The options that the commands of this folder share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from nst.config import KeepColor, Provider

ProviderOption = Annotated[
    Provider, typer.Option(help="Execution provider to compute with; see nst info.")
]
StrengthOption = Annotated[
    float,
    typer.Option(help="Strength of the style: 0 leaves the image as it is, 1 is the full style."),
]
KeepColorOption = Annotated[
    Literal[KeepColor, "none"] | None,
    typer.Option(
        help="Keep the photograph's colours: all of them, with the painting's brightness "
        "(luminance), or their mean and spread (linear), or each channel's histogram. Default: "
        "luminance for a model trained to keep colours, else none."
    ),
]
ContentOption = Annotated[
    list[Path] | None,
    typer.Option(
        help="Photograph, or folder of photographs; repeat for several. Default: two photographs "
        "that training never uses.",
        show_default=False,
    ),
]
StabilizeOption = Annotated[
    bool,
    typer.Option("--stabilize", help="Blend each frame with the last one where nothing moves."),
]
ThreadsOption = Annotated[int, typer.Option(help="CPU threads; 0 for one per core.")]
