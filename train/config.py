"""Options of training, validated once, free of torch so that commands start fast."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from nst.config import Device, ObjectiveConfig, check_number, check_weights
from nst.errors import UsageError
from nst.models.config import preset_config


@dataclass(frozen=True)
class TrainConfig:
    """Options of `nst.train.trainer.train_style`.

    Args:
        style: paths of the style images.
        style_weights: one per style image; empty for equal parts.
        content: folder of training photographs, searched recursively; None for the built-in ones.
        out: folder of the run; None for `runs/STYLE`, numbered if that exists.
        preset: name of the network's shape.
        objective: what is minimised.
        size: side of the training crops, pixels.
        batch_size: crops a step at the full size; None for what suits the device.
        learning_rate: at its peak.
        steps, seconds: the budget, one of them; both None for what suits the device.
        seed: of weights, crops and drawn scenes.
        device: `auto`, `cpu` or `cuda`.
        title, artist, year: of the style, for the model's metadata; title None for the file's name.
    """

    style: tuple[Path, ...]
    style_weights: tuple[float, ...] = ()
    content: Path | None = None
    out: Path | None = None
    preset: str = "quality"
    objective: ObjectiveConfig = ObjectiveConfig()
    size: int = 256
    batch_size: int | None = None
    learning_rate: float = 6e-4
    steps: int | None = None
    seconds: float | None = None
    seed: int = 0
    device: Device = "auto"
    title: str | None = None
    artist: str = ""
    year: str = ""

    def __post_init__(self) -> None:
        if not self.style:
            raise UsageError("no style image is given: name one with --style")
        check_weights("style weights", self.style_weights, len(self.style))
        try:
            preset_config(self.preset)
        except ValueError as error:
            raise UsageError(str(error)) from error
        check_number("size", self.size, least=64, most=2048)
        check_number("learning rate", self.learning_rate, above=True, most=1)
        check_number("seed", self.seed, most=2**63 - 1)
        if self.batch_size is not None:
            check_number("batch size", self.batch_size, least=1, most=4096)
        if self.steps is not None and self.seconds is not None:
            raise UsageError("steps and seconds are both given: choose one budget")
        if self.steps is not None:
            check_number("steps", self.steps, least=1)
        if self.seconds is not None:
            check_number("seconds", self.seconds, above=True)
