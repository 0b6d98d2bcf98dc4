"""Real-time neural style transfer.

The names below load on first use: `import nst` itself costs no torch, ONNX Runtime or NumPy.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nst.config import ObjectiveConfig, OptimizeConfig
    from nst.errors import ExportError, ImageError, ModelError, NstError, UsageError
    from nst.infer.runtime.stylizer import Stylizer
    from nst.io.images import load_image, save_image
    from nst.models.config import TransformerConfig
    from nst.models.transformer import TransformerNet
    from nst.perceptual.gatys import optimize
    from nst.perceptual.losses import PerceptualLoss
    from nst.perceptual.vgg import VGG19Features
    from nst.train.config import TrainConfig
    from nst.train.engine.trainer import resume_style, train_style
    from nst.train.evaluation.score import score

_HOMES = {
    "ObjectiveConfig": "nst.config",
    "OptimizeConfig": "nst.config",
    "ExportError": "nst.errors",
    "ImageError": "nst.errors",
    "ModelError": "nst.errors",
    "NstError": "nst.errors",
    "UsageError": "nst.errors",
    "optimize": "nst.perceptual.gatys",
    "load_image": "nst.io.images",
    "save_image": "nst.io.images",
    "Stylizer": "nst.infer.runtime.stylizer",
    "PerceptualLoss": "nst.perceptual.losses",
    "TransformerConfig": "nst.models.config",
    "TransformerNet": "nst.models.transformer",
    "TrainConfig": "nst.train.config",
    "score": "nst.train.evaluation.score",
    "resume_style": "nst.train.engine.trainer",
    "train_style": "nst.train.engine.trainer",
    "VGG19Features": "nst.perceptual.vgg",
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
