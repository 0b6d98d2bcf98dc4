"""Options of training, validated once, free of torch so that commands start fast."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from nst.config import Device, ObjectiveConfig, check_number, check_weights
from nst.errors import UsageError
from nst.models.config import preset_config

Precision = Literal["fp32", "fp16", "int8"]
PRECISIONS: tuple[str, ...] = get_args(Precision)


def check_precisions(precisions: Sequence[str]) -> None:
    """Raise `UsageError` unless there is at least one and all are known and different."""
    known = f"choose from {', '.join(PRECISIONS)}, with commas"
    if not precisions:
        raise UsageError(f"no precision is given: {known}")
    for precision in precisions:
        if precision not in PRECISIONS:
            raise UsageError(f"precision is {precision!r}: {known}")
    if len(set(precisions)) != len(precisions):
        raise UsageError(f"precisions are {', '.join(precisions)}: name each once")


def model_name(name: str, precision: str) -> str:
    """The file's name of a model: `wave.onnx` for fp32, `wave-int8.onnx` and so on else."""
    return f"{name}.onnx" if precision == "fp32" else f"{name}-{precision}.onnx"


@dataclass(frozen=True)
class TrainConfig:
    """Options of `nst.train.engine.trainer.train_style`.

    Args:
        style: paths of the style images.
        style_weights: one per style image; empty for equal parts.
        content: folder of training photographs, searched recursively; `coco` for COCO's val2017,
            downloaded once; None for the built-in ones.
        out: folder of the run; None for `runs/STYLE`, numbered if that exists.
        preset: name of the network's shape.
        from_scratch: begin with random weights, not with the preset's base network.
        objective: what is minimised.
        teacher: `optimizer`, or a model (ONNX or checkpoint) to learn from beside the objective;
            None for neither.
        teacher_weight: of the difference from the teacher's pictures.
        temporal_weight: of the temporal loss, which keeps films from flickering; None for what
            suits the preset.
        checkerboard_weight: of the checkerboard loss, which keeps dots and meshes out of plain regions.
        teacher_images: crops that the optimiser paints as targets.
        teacher_iterations: of the optimiser on each.
        size: side of the training crops, pixels.
        batch_size: crops a step at the full size, over all processes; None for what suits the
            device.
        learning_rate: at its peak; None for what suits the preset.
        max_memory: GB of GPU memory that PyTorch may take; None for all.
        steps, seconds: the budget, one of them; both None for what suits the device.
        seed: of weights, crops and drawn scenes.
        device: `auto`, `cpu` or `cuda`.
        save_every: seconds from one checkpoint to the next.
        keep: how many checkpoints stay, beside the best.
        samples: how often in a run held-out photographs are repainted and judged.
        precisions: of the exported models: `fp32`, `fp16`, `int8`.
        score: whether to end with the iterations of the optimiser that the model is worth.
        title, artist, year: of the style, for the model's metadata; title None for the file's name.
    """

    style: tuple[Path, ...]
    style_weights: tuple[float, ...] = ()
    content: Path | None = None
    out: Path | None = None
    preset: str = "balanced"
    from_scratch: bool = False
    objective: ObjectiveConfig = ObjectiveConfig()
    teacher: str | None = None
    teacher_weight: float = 1.0
    temporal_weight: float | None = None
    checkerboard_weight: float = 25_000.0
    teacher_images: int = 64
    teacher_iterations: int = 100
    size: int = 256
    batch_size: int | None = None
    learning_rate: float | None = None
    steps: int | None = None
    seconds: float | None = None
    max_memory: float | None = None
    seed: int = 0
    device: Device = "auto"
    save_every: float = 30.0
    keep: int = 3
    samples: int = 10
    precisions: tuple[str, ...] = ("fp32",)
    score: bool = True
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
        check_precisions(self.precisions)
        check_number("size", self.size, least=64, most=2048)
        if self.learning_rate is not None:
            check_number("learning rate", self.learning_rate, above=True, most=1)
        check_number("seed", self.seed, most=2**63 - 1)
        if self.batch_size is not None:
            check_number("batch size", self.batch_size, least=1, most=4096)
        check_number("teacher weight", self.teacher_weight)
        if self.temporal_weight is not None:
            check_number("temporal weight", self.temporal_weight)
        check_number("checkerboard weight", self.checkerboard_weight)
        check_number("teacher images", self.teacher_images, least=1, most=100_000)
        check_number("teacher iterations", self.teacher_iterations, least=1, most=1000)
        check_number("save every", self.save_every)
        check_number("keep", self.keep, least=1)
        check_number("samples", self.samples)
        if self.max_memory is not None:
            check_number("max memory", self.max_memory, above=True)
        if self.steps is not None and self.seconds is not None:
            raise UsageError("steps and seconds are both given: choose one budget")
        if self.steps is not None:
            check_number("steps", self.steps, least=1)
        if self.seconds is not None:
            check_number("seconds", self.seconds, above=True)
