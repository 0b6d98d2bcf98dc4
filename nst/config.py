"""Options of the objective and of the optimiser, free of torch so that commands start fast."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from nst.errors import UsageError
from nst.options import Option

Device = Literal["auto", "cpu", "cuda"]

# Execution providers of ONNX Runtime that run a model (see `nst.infer.runtime.providers`).
Provider = Literal["auto", "cpu", "cuda", "tensorrt", "openvino", "coreml", "directml"]
PROVIDERS: tuple[str, ...] = get_args(Provider)

# Methods of colour transfer (see `nst.color.transfer`).
ColorMethod = Literal[
    "reinhard", "idt", "idt_regrain", "mkl", "cholesky", "pca", "luminance", "histogram"
]
# Statistics of VGG-19's features that a style loss compares (see `nst.perceptual.losses`).
StyleStatistic = Literal["swd", "gram"]
# Ways in which a repainted photograph keeps its colours (see `nst.color.transfer.keep_color`).
KeepColor = Literal["luminance", "linear", "histogram"]

_LOOK, _EXPERTS = "How it looks", "Experts"  # headings of the command's help

VGG_LAYERS = tuple(
    f"relu{block}_{index}"
    for block, depth in enumerate((2, 2, 4, 4, 4), start=1)
    for index in range(1, depth + 1)
)


def check_number(
    name: str,
    value: float,
    *,
    least: float = 0.0,
    above: bool = False,
    most: float = math.inf,
    whole: bool = False,
) -> None:
    """Check that `value` is a finite number from `least` to `most`.

    Args:
        name: what the message calls the value.
        above: exclude `least` itself.
        whole: require an `int`.

    Raises:
        UsageError: `value` is not such a number.
    """
    if whole and type(value) is not int:  # nor a bool
        raise UsageError(f"{name} is {value!r}: give a whole number")
    if abs(value) > sys.float_info.max:  # an int that is too large for a float
        value = math.inf
    low = value <= least if above else value < least
    if not math.isfinite(value) or low or value > most:
        bound = f"{'above' if above else 'of at least'} {least:g}"
        if most != math.inf:
            bound += f" and at most {most:g}"
        kind = "whole" if whole else "finite"
        raise UsageError(f"{name} is {value:g}: it must be a {kind} number {bound}")


def check_numbers(config: object, *names: str, **bounds: Any) -> None:
    """Check the fields `names` of a config; None passes if it is the default of the field.

    Args:
        bounds: as for `check_number`.

    Raises:
        UsageError: a value is not such a number.
    """
    for name in names:
        value = getattr(config, name)
        if value is not None or getattr(type(config), name) is not None:
            check_number(name.replace("_", " "), value, **bounds)


def check_weights(name: str, weights: Sequence[float], count: int) -> tuple[float, ...]:
    """Scale `weights` so that they sum to one; return `count` equal ones if there are none.

    Raises:
        UsageError: there are not `count` weights, one is negative or not finite, or all are zero.
    """
    if not weights:
        return (1 / count,) * count
    if len(weights) != count:
        numbers = "one number" if len(weights) == 1 else f"{len(weights)} numbers"
        images = "one style image" if count == 1 else f"{count} style images"
        raise UsageError(f"{name} has {numbers} for {images}: give one each")
    for weight in weights:
        check_number(name, weight)
    total = sum(weights)
    if total == 0:
        raise UsageError(f"{name} are all zero: give at least one style a positive weight")
    return tuple(weight / total for weight in weights)


@dataclass(frozen=True)
class ObjectiveConfig:
    """Options of the objective that trainer, optimiser and score share (see `PerceptualLoss`).

    If `style_weight` is None, the weight is measured for the style, so that `style_strength` means
    the same for every style; with a fixed weight, the strength has no effect.

    Raises:
        UsageError: an option is invalid, alone or together with another.
    """

    content_layers: Annotated[
        tuple[str, ...], Option("VGG-19 layers of the content loss, with commas.", _EXPERTS)
    ] = ("relu3_3",)
    style_layers: Annotated[
        tuple[str, ...], Option("VGG-19 layers of the style loss, with commas.", _EXPERTS)
    ] = ("relu1_2", "relu2_2", "relu3_3", "relu4_3")
    content_weight: Annotated[float, Option("Weight of the content loss.", _EXPERTS)] = 1.0
    style_loss: Annotated[
        StyleStatistic,
        Option(
            "Style statistic to match: swd, the sliced Wasserstein distance of features and "
            "colours, or gram, the Gram matrices of the papers.",
            _LOOK,
        ),
    ] = "swd"
    style_weight: Annotated[
        float | None,
        Option(
            "Weight of the style loss, instead of --style-strength. Default: measured for the "
            "style.",
            _EXPERTS,
        ),
    ] = None
    style_strength: Annotated[
        float, Option("Strength of the style: 2 departs further from the photograph.", _LOOK)
    ] = 1.0
    tv_weight: Annotated[
        float, Option("Weight of total variation, which smooths the image.", _LOOK)
    ] = 0.0
    style_size: Annotated[
        int,
        Option(
            "Short side in pixels at which VGG-19 sees the style image, instead of --stroke.",
            _EXPERTS,
        ),
    ] = 384
    vgg: Annotated[
        str,
        Option(
            "VGG-19 weights: caffe (the original ones in 8 bits), torchvision (a download), "
            "FILE:caffe or FILE:torchvision.",
            _EXPERTS,
        ),
    ] = "caffe"
    keep_color: Annotated[
        KeepColor | None,
        Option(
            "Keep the photograph's colours: paint its luminance alone, or give the style image "
            "the photograph's colours first (linear, histogram).",
            _LOOK,
        ),
    ] = None

    def __post_init__(self) -> None:
        check_numbers(self, "content_weight", "style_weight", "tv_weight")
        check_numbers(self, "style_strength", above=True, most=1000)
        check_numbers(self, "style_size", least=32, most=4096, whole=True)
        if not self.content_layers or not self.style_layers:
            raise UsageError("content and style need at least one layer each")
        if self.content_weight == self.style_weight == 0:
            raise UsageError("content and style weight are both 0: there is nothing to aim at")
        if self.style_loss not in get_args(StyleStatistic):
            raise UsageError(
                f"style loss is {self.style_loss!r}: choose {', '.join(get_args(StyleStatistic))}"
            )
        if self.keep_color not in (None, *get_args(KeepColor)):
            raise UsageError(
                f"keep color is {self.keep_color!r}: choose {', '.join(get_args(KeepColor))}"
            )
        for layer in (*self.content_layers, *self.style_layers):
            if layer not in VGG_LAYERS:
                raise UsageError(f"VGG-19 has no layer {layer!r}: name one of relu1_1 … relu5_4")


@dataclass(frozen=True)
class OptimizeConfig:
    """Options of `nst.optimize`.

    `sizes` is empty for the content's own size.

    Raises:
        UsageError: an option is invalid, alone or together with another.
    """

    objective: ObjectiveConfig = ObjectiveConfig()
    style_weights: Annotated[
        tuple[float, ...],
        Option("Shares of several style images, as 0.7,0.3. Default: equal.", _LOOK),
    ] = ()
    iterations: Annotated[int, Option("Steps of the optimiser at each size.")] = 200
    sizes: Annotated[
        tuple[int, ...],
        Option(
            "Long side in pixels; several, as 256,512,1024, work from coarse to fine; "
            "0 keeps the photograph's.",
            name="size",
        ),
    ] = (512,)
    optimizer: Annotated[Literal["lbfgs", "adam"], Option("Gradient method.", _EXPERTS)] = "lbfgs"
    learning_rate: Annotated[
        float, Option("Levels per step of Adam, of 0 to 255.", _EXPERTS, "lr")
    ] = 5.0
    init: Annotated[
        str | Path, Option("Image to start from: content, noise, or an image file.", _LOOK)
    ] = "content"
    seed: Annotated[int, Option("Random seed of the noise.", _EXPERTS)] = 0
    device: Annotated[Device, Option("Device to compute on.")] = "auto"

    def __post_init__(self) -> None:
        check_numbers(self, "iterations", least=1, whole=True)
        check_numbers(self, "learning_rate", above=True)
        check_numbers(self, "seed", most=2**63 - 1, whole=True)
        for size in self.sizes:
            check_number("size", size, least=32, most=8192, whole=True)
        if list(self.sizes) != sorted(self.sizes):
            raise UsageError(f"sizes are {self.sizes}: give them from coarse to fine")
        if self.optimizer not in ("lbfgs", "adam"):
            raise UsageError(f"optimizer is {self.optimizer!r}: choose lbfgs or adam")
