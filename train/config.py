"""Options of a training, checked once, free of torch so that commands start fast."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, get_args

from nst.config import Device, ObjectiveConfig, check_numbers, check_weights
from nst.errors import UsageError
from nst.models.config import PRESETS, preset_config
from nst.options import Option

Precision = Literal["fp32", "fp16", "int8"]
PRECISIONS: tuple[str, ...] = get_args(Precision)
# Headings of the command's help.
_LOOK, _CONTENT, _QUALITY = "How it looks", "Content", "Quality"
_MACHINE, _RUN = "Machine and memory", "Run and files"
_MODEL, _EXPERTS = "Model and its description", "Experts"


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
    """Name the file of a model: `wave.onnx` for fp32, `wave-int8.onnx` and so on for others."""
    return f"{name}.onnx" if precision == "fp32" else f"{name}-{precision}.onnx"


@dataclass(frozen=True)
class TrainConfig:
    """Options of `nst.train_style`; the command `nst-train` shows the text of each.

    `None` stands for a default that depends on the device, the preset or the style image.

    Raises:
        UsageError: an option makes no sense by itself or beside another.
    """

    style: Annotated[
        tuple[Path, ...], Option("Style image, or several, each with its own --style.")
    ]
    seconds: Annotated[
        float | None, Option("Time to train. Default: 60 on a GPU, 525 on a CPU.")
    ] = None
    out: Annotated[Path | None, Option("Folder of the run. Default: runs/STYLE.")] = None
    objective: ObjectiveConfig = ObjectiveConfig()
    style_weights: Annotated[
        tuple[float, ...],
        Option("Shares of several style images, as 0.7,0.3. Default: equal.", _LOOK),
    ] = ()
    content: Annotated[
        Path | None,
        Option(
            "Folder of photographs, or coco (0.8 GB, downloaded once). Default: built-in.", _CONTENT
        ),
    ] = None
    size: Annotated[int, Option("Side of the training crops in pixels.", _CONTENT)] = 256
    preset: Annotated[str, Option(f"Network preset: {', '.join(PRESETS)}.", _QUALITY)] = "balanced"
    from_scratch: Annotated[
        bool, Option("Begin with random weights, not with the base network.", _QUALITY)
    ] = False
    steps: Annotated[int | None, Option("Steps to train, instead of --seconds.", _QUALITY)] = None
    teacher: Annotated[
        str | None,
        Option(
            "Learn also from: optimizer, or an ONNX file or checkpoint. Default: none.", _QUALITY
        ),
    ] = None
    score: Annotated[bool, Option("Compare with the optimiser at the end.", _QUALITY)] = True
    device: Annotated[Device, Option("Device to train on.", _MACHINE)] = "auto"
    batch_size: Annotated[
        int | None,
        Option(
            "Crops of full size in a step, over all processes; smaller ones at first, and more. "
            "Default: 4 on a GPU, 1 on a CPU.",
            _MACHINE,
        ),
    ] = None
    max_memory: Annotated[
        float | None, Option("Most GPU memory to take, GB. Default: all.", _MACHINE)
    ] = None
    samples: Annotated[
        int, Option("Number of times that a run repaints and judges photographs.", _RUN)
    ] = 10
    save_every: Annotated[float, Option("Seconds between checkpoints.", _RUN)] = 30.0
    keep: Annotated[int, Option("Checkpoints to keep, beside the best.", _RUN)] = 3
    precisions: Annotated[
        tuple[str, ...],
        Option(
            f"Precisions of the models, with commas: {', '.join(PRECISIONS)}.", _MODEL, "precision"
        ),
    ] = ("fp32",)
    title: Annotated[
        str | None, Option("Title of the style. Default: the file's name.", _MODEL)
    ] = None
    artist: Annotated[str, Option("Artist of the style.", _MODEL)] = ""
    year: Annotated[str, Option("Year of the style.", _MODEL)] = ""
    learning_rate: Annotated[
        float | None,
        Option("Peak learning rate. Default: what suits the preset.", _EXPERTS, "lr"),
    ] = None
    teacher_weight: Annotated[float, Option("Weight of the teacher loss.", _EXPERTS)] = 1.0
    temporal_weight: Annotated[
        float | None,
        Option(
            "Weight of the temporal loss, which keeps video from flickering. "
            "Default: what suits the preset.",
            _EXPERTS,
        ),
    ] = None
    checkerboard_weight: Annotated[
        float,
        Option(
            "Weight of the checkerboard loss, which keeps dots and meshes out of flat regions.",
            _EXPERTS,
        ),
    ] = 25_000.0
    teacher_images: Annotated[
        int, Option("Crops that the optimiser paints as targets.", _EXPERTS)
    ] = 64
    teacher_iterations: Annotated[
        int, Option("Iterations of the optimiser on each of them.", _EXPERTS)
    ] = 100
    seed: Annotated[int, Option("Random seed.", _EXPERTS)] = 0

    def __post_init__(self) -> None:
        if not self.style:
            raise UsageError("no style image is given: name one")
        check_weights("style weights", self.style_weights, len(self.style))
        try:
            preset_config(self.preset)
        except ValueError as error:
            raise UsageError(str(error)) from error
        check_precisions(self.precisions)
        check_numbers(self, "size", least=64, most=2048, whole=True)
        check_numbers(self, "learning_rate", above=True, most=1)
        check_numbers(self, "seed", most=2**63 - 1, whole=True)
        check_numbers(self, "batch_size", least=1, most=4096, whole=True)
        check_numbers(self, "teacher_weight", "temporal_weight", "checkerboard_weight")
        check_numbers(self, "teacher_images", least=1, most=100_000, whole=True)
        check_numbers(self, "teacher_iterations", least=1, most=1000, whole=True)
        check_numbers(self, "save_every")
        check_numbers(self, "samples", whole=True)
        check_numbers(self, "max_memory", "seconds", above=True)
        check_numbers(self, "keep", "steps", least=1, whole=True)
        if self.steps is not None and self.seconds is not None:
            raise UsageError("steps and seconds are both given: choose one budget")
