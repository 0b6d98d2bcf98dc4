"""Options that the commands of this folder share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from nst.config import KeepColor, Provider

ProviderOption = Annotated[Provider, typer.Option(help="Where to compute; see nst info.")]
StrengthOption = Annotated[
    float, typer.Option(help="0 leaves the picture as it is, 1 is the full style.")
]
KeepColorOption = Annotated[
    Literal[KeepColor, "none"] | None,
    typer.Option(
        help="Keep the photograph's colours: all of them under the painting's brightness "
        "(luminance), or their mean and spread (linear), or each channel's histogram. "
        "Default: none, but for a model trained to keep them."
    ),
]
ContentOption = Annotated[
    list[Path] | None,
    typer.Option(
        help="Folder of photographs, or a file; may be given again. Without it, two that training "
        "never sees.",
        show_default=False,
    ),
]
StabilizeOption = Annotated[
    bool, typer.Option("--stabilize", help="Blend each frame with the last where nothing moves.")
]
ThreadsOption = Annotated[int, typer.Option(help="CPU threads; 0 for one a core.")]
