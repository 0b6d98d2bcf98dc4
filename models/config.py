"""Shapes of the transformer networks, free of torch so that commands start fast."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

Norm = Literal["instance", "subsampled_rms", "batch", "none"]
Architecture = Literal["johnson", "subpixel"]


@dataclass(frozen=True)
class TransformerConfig:
    """What rebuilds a `TransformerNet`; it travels in every checkpoint and export.

    Args:
        width: channels of the first convolution. In the architecture `johnson` the residual blocks have
            four times as many, in `subpixel` as many.
        blocks: number of residual blocks.
        norm: `instance` (Ulyanov et al. 2016); `subsampled_rms`, by the root mean
            squares of one position in sixteen, of the architecture `subpixel` only; `batch`, which folds
            into the convolutions of the architecture `johnson`; or `none`.
        architecture: `johnson` (Johnson et al. 2016), or `subpixel`: convolutions and ReLUs only, all of
            which an export computes at a quarter of the resolution.
        half_channels: channels at half the resolution; of the architecture `subpixel` only.
    """

    width: int = 32
    blocks: int = 5
    norm: Norm = "instance"
    architecture: Architecture = "johnson"
    half_channels: int = 16

    def __post_init__(self) -> None:
        for name in ("width", "blocks", "half_channels"):
            value = getattr(self, name)
            if type(value) is not int or not 1 <= value <= 1024:
                raise ValueError(f"{name} of the network is {value!r}: give a number of 1 to 1024")
        for name, choices in (("norm", get_args(Norm)), ("architecture", get_args(Architecture))):
            value = getattr(self, name)
            if value not in choices:
                raise ValueError(
                    f"{name} of the network is {value!r}: choose one of {', '.join(choices)}"
                )
        if self.architecture == "subpixel" and self.norm not in ("subsampled_rms", "none"):
            raise ValueError(f"{self.norm} normalisation does not fold: choose subsampled_rms")
        if self.architecture == "johnson" and self.norm == "subsampled_rms":
            raise ValueError("subsampled_rms is for the architecture subpixel: choose instance")

    @property
    def context(self) -> int:
        """Pixels around an image that its own see; 0 in the architecture `johnson`, which pads.

        The zeros of padding tell where the border is, and a network that learns with them paints a
        frame: what a style asks for and a photograph has no place for ends up there.
        """
        if self.architecture == "johnson":
            return 0
        # The first kernel reaches two pixels beyond its block of 4×4, every other one block.
        return 2 + 4 * (2 * self.blocks + 2)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TransformerConfig:
        """The inverse of `to_dict`.

        Raises:
            ValueError: a key that this version doesn't know.
        """
        unknown = set(values) - {field.name for field in fields(cls)}
        if unknown:
            raise ValueError(f"the network's config has {sorted(unknown)}: update nst to read it")
        return cls(**values)


PRESETS: dict[str, TransformerConfig] = {
    # Of our own architecture: real time on two cores of a CPU.
    "fast": TransformerConfig(width=32, blocks=5, norm="subsampled_rms", architecture="subpixel"),
    "balanced": TransformerConfig(
        width=64, blocks=5, norm="subsampled_rms", architecture="subpixel"
    ),
    # Johnson et al. 2016 with instance normalisation (Ulyanov et al. 2016): 1.68 M parameters.
    "quality": TransformerConfig(width=32, blocks=5),
}


def preset_config(preset: str) -> TransformerConfig:
    """The config of a preset's name.

    Raises:
        ValueError: no such preset.
    """
    if preset not in PRESETS:
        raise ValueError(f"there is no preset {preset!r}: choose one of {', '.join(PRESETS)}")
    return PRESETS[preset]
