"""Real-time neural style transfer.

The names below load on first use: `import nst` itself costs no torch, ONNX Runtime or NumPy.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nst.config import ObjectiveConfig, OptimizeConfig
    from nst.errors import ExportError, ImageError, ModelError, NstError, UsageError
    from nst.gatys import optimize
    from nst.images import load_image, save_image
    from nst.infer.session import Stylizer
    from nst.losses import PerceptualLoss
    from nst.models.config import TransformerConfig
    from nst.models.transformer import TransformerNet
    from nst.train.config import TrainConfig
    from nst.train.score import score
    from nst.train.trainer import resume_style, train_style
    from nst.vgg import VGG19Features

_HOMES = {
    "ObjectiveConfig": "nst.config",
    "OptimizeConfig": "nst.config",
    "ExportError": "nst.errors",
    "ImageError": "nst.errors",
    "ModelError": "nst.errors",
    "NstError": "nst.errors",
    "UsageError": "nst.errors",
    "optimize": "nst.gatys",
    "load_image": "nst.images",
    "save_image": "nst.images",
    "Stylizer": "nst.infer.session",
    "PerceptualLoss": "nst.losses",
    "TransformerConfig": "nst.models.config",
    "TransformerNet": "nst.models.transformer",
    "TrainConfig": "nst.train.config",
    "score": "nst.train.score",
    "resume_style": "nst.train.trainer",
    "train_style": "nst.train.trainer",
    "VGG19Features": "nst.vgg",
}

__all__ = [  # noqa: RUF022 - in the order in which a reader meets them
    "TrainConfig",
    "train_style",
    "resume_style",
    "Stylizer",
    "load_image",
    "save_image",
    "OptimizeConfig",
    "optimize",
    "score",
    "ObjectiveConfig",
    "PerceptualLoss",
    "VGG19Features",
    "TransformerConfig",
    "TransformerNet",
    "NstError",
    "UsageError",
    "ImageError",
    "ModelError",
    "ExportError",
    "__version__",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("nst")
    if name not in _HOMES:
        raise AttributeError(f"module 'nst' has no attribute {name!r}")
    from nst.errors import needs_extra

    with needs_extra(f"nst.{name}"):
        return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
