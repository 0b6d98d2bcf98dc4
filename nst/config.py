"""Options of the objective and of the optimiser, free of torch so that commands start fast."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from nst.errors import UsageError

Device = Literal["auto", "cpu", "cuda"]

# Where a model repaints: an execution provider of ONNX Runtime (see `nst.infer.runtime.providers`).
Provider = Literal["auto", "cpu", "cuda", "tensorrt", "openvino", "coreml", "directml"]
PROVIDERS: tuple[str, ...] = get_args(Provider)

# Methods of colour transfer (see `nst.color.transfer`).
ColorMethod = Literal[
    "reinhard", "idt", "idt_regrain", "mkl", "cholesky", "pca", "luminance", "histogram"
]
# How a repainted photograph keeps its colours (see `nst.color.transfer.keep_color`).
KeepColor = Literal["luminance", "linear", "histogram"]

VGG_LAYERS = tuple(
    f"relu{block}_{index}"
    for block, depth in enumerate((2, 2, 4, 4, 4), start=1)
    for index in range(1, depth + 1)
)


def check_number(
    name: str, value: float, *, least: float = 0.0, above: bool = False, most: float = math.inf
) -> None:
    """Raise `UsageError` unless `value` is finite and `least <= value <= most` (`<` if `above`)."""
    if abs(value) > sys.float_info.max:  # a whole number that no float holds
        value = math.inf
    low = value <= least if above else value < least
    if not math.isfinite(value) or low or value > most:
        bound = f"{'above' if above else 'of at least'} {least:g}"
        if most != math.inf:
            bound += f" and at most {most:g}"
        raise UsageError(f"{name} is {value:g}: it must be a finite number {bound}")


def check_weights(name: str, weights: Sequence[float], count: int) -> tuple[float, ...]:
    """`weights` scaled to sum to one; equal ones if empty.

    Raises:
        UsageError: not `count` of them, negative, not finite, or all zero.
    """
    if not weights:
        return (1 / count,) * count
    if len(weights) != count:
        raise UsageError(
            f"{name} has {len(weights)} numbers for {count} style images: give one each"
        )
    for weight in weights:
        check_number(name, weight)
    total = sum(weights)
    if total == 0:
        raise UsageError(f"{name} are all zero: give at least one style a positive weight")
    return tuple(weight / total for weight in weights)


@dataclass(frozen=True)
class ObjectiveConfig:
    """The objective that trainer, optimiser and score share (see `PerceptualLoss`).

    Args:
        content_layers, style_layers: names of VGG-19 activations, `relu1_1` … `relu5_4`.
        content_weight, tv_weight: finite, at least 0.
        style_weight: likewise, not 0 together with `content_weight`; None for one measured for
            the style, so that `style_strength` means the same for every style.
        style_strength: multiplies the measured weight, above 0 and at most 1000; of a fixed
            `style_weight` it changes nothing.
        style_size: short side in pixels at which a style image meets VGG; sets the stroke size.
        vgg: `caffe`, `torchvision`, or a file as `FILE:caffe` or `FILE:torchvision`.
        keep_color: the style image is seen in the photographs' colours, or grey, and they with it;
            see `nst.color.transfer.style_in_colors_of`.
    """

    content_layers: tuple[str, ...] = ("relu3_3",)
    style_layers: tuple[str, ...] = ("relu1_2", "relu2_2", "relu3_3", "relu4_3")
    content_weight: float = 1.0
    style_weight: float | None = None
    style_strength: float = 1.0
    tv_weight: float = 0.0
    style_size: int = 384
    vgg: str = "caffe"
    keep_color: KeepColor | None = None

    def __post_init__(self) -> None:
        check_number("content weight", self.content_weight)
        if self.style_weight is not None:
            check_number("style weight", self.style_weight)
        check_number("style strength", self.style_strength, above=True, most=1000)
        check_number("tv weight", self.tv_weight)
        if not self.content_layers or not self.style_layers:
            raise UsageError("content and style need at least one layer each")
        if self.content_weight == self.style_weight == 0:
            raise UsageError("content and style weight are both 0: there is nothing to aim at")
        check_number("style size", self.style_size, least=32, most=4096)
        if self.keep_color not in (None, *get_args(KeepColor)):
            raise UsageError(
                f"keep color is {self.keep_color!r}: choose {', '.join(get_args(KeepColor))}"
            )
        for layer in (*self.content_layers, *self.style_layers):
            if layer not in VGG_LAYERS:
                raise UsageError(f"VGG-19 has no layer {layer!r}: name one of relu1_1 … relu5_4")


@dataclass(frozen=True)
class OptimizeConfig:
    """Options of `nst.perceptual.gatys.optimize`.

    Args:
        objective: what is minimised.
        style_weights: one per style image; empty for equal parts.
        iterations: steps of the optimiser at each size.
        sizes: long sides in pixels, coarse to fine; empty for the content's own size.
        optimizer: `lbfgs` (Gatys et al.) or `adam`.
        learning_rate: Adam's step in units of the 0–255 scale.
        init: `content`, `noise`, or the path of an image.
        seed: of the noise.
        device: `auto`, `cpu` or `cuda`.
    """

    objective: ObjectiveConfig = ObjectiveConfig()
    style_weights: tuple[float, ...] = ()
    iterations: int = 200
    sizes: tuple[int, ...] = (512,)
    optimizer: Literal["lbfgs", "adam"] = "lbfgs"
    learning_rate: float = 5.0
    init: str | Path = "content"
    seed: int = 0
    device: Device = "auto"

    def __post_init__(self) -> None:
        check_number("iterations", self.iterations, least=1)
        check_number("learning rate", self.learning_rate, above=True)
        check_number("seed", self.seed, most=2**63 - 1)
        for size in self.sizes:
            check_number("size", size, least=32, most=8192)
        if list(self.sizes) != sorted(self.sizes):
            raise UsageError(f"sizes are {self.sizes}: give them from coarse to fine")
        if self.optimizer not in ("lbfgs", "adam"):
            raise UsageError(f"optimizer is {self.optimizer!r}: choose lbfgs or adam")
