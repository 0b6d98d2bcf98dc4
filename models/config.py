"""Configurations of the transformer networks, free of torch so that commands start fast."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

Norm = Literal["instance", "subsampled_rms", "batch", "none"]
Architecture = Literal["johnson", "subpixel"]


@dataclass(frozen=True)
class TransformerConfig:
    """The configuration that rebuilds a `TransformerNet`; every checkpoint and export contains it.

    Args:
        width: channels of the first convolution. The residual blocks have four times as many in the
            architecture `johnson`, and as many in `subpixel`.
        blocks: number of residual blocks.
        norm: normalisation. `instance` (Ulyanov et al. 2016); `subsampled_rms`, by the root mean
            squares of one position in sixteen, for the architecture `subpixel` only; `batch`, which
            folds into the convolutions of the architecture `johnson`; or `none`.
        architecture: `johnson` (Johnson et al. 2016), or `subpixel`: convolutions and ReLUs only,
            all of which an export computes at a quarter of the resolution.
        half_channels: channels at half the resolution, for the architecture `subpixel` only.

    Raises:
        ValueError: a value is invalid, or the norm does not fit the architecture.
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
            raise ValueError(f"subpixel networks have no {self.norm} norm: choose subsampled_rms")
        if self.architecture == "johnson" and self.norm == "subsampled_rms":
            raise ValueError("subsampled_rms is for the architecture subpixel: choose instance")

    @property
    def context(self) -> int:
        """Return the pixels to add around an image so that nothing pads; 0 for `johnson`.

        The zeros of padding reveal the border, and a network trained with them paints a frame: it
        puts there what the style asks for and the photograph has no place for.
        """
        if self.architecture == "johnson":
            return 0
        # The first kernel extends two pixels beyond its block of 4×4, every other kernel one block.
        return 2 + 4 * (2 * self.blocks + 2)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TransformerConfig:
        """Rebuild a config from the dictionary of `to_dict`.

        Raises:
            ValueError: a key is unknown to this version, or a value is invalid.
        """
        unknown = set(values) - {field.name for field in fields(cls)}
        if unknown:
            raise ValueError(f"the network's config has {sorted(unknown)}: update nst to read it")
        return cls(**values)


PRESETS: dict[str, TransformerConfig] = {
    # The architecture `subpixel`: real time on two cores of a CPU.
    "fast": TransformerConfig(width=32, blocks=5, norm="subsampled_rms", architecture="subpixel"),
    "balanced": TransformerConfig(
        width=64, blocks=5, norm="subsampled_rms", architecture="subpixel"
    ),
    # Johnson et al. 2016 with instance normalisation (Ulyanov et al. 2016): 1.68 M parameters.
    "quality": TransformerConfig(width=32, blocks=5),
}


def preset_config(preset: str) -> TransformerConfig:
    """Return the config of a preset.

    Raises:
        ValueError: there is no such preset.
    """
    if preset not in PRESETS:
        raise ValueError(f"there is no preset {preset!r}: choose one of {', '.join(PRESETS)}")
    return PRESETS[preset]
