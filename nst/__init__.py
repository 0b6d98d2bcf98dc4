"""Real-time neural style transfer: the perceptual core, and what all folders share.

The names below load on first use: `import nst` itself loads no torch, ONNX Runtime or NumPy.
"""

from __future__ import annotations

import importlib
import os
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

# ONNX Runtime, as it loads, would give this machine a name and report its use to Microsoft.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

_HOMES = {  # modules of the public names
    "nst.config": ("ObjectiveConfig", "OptimizeConfig"),
    "nst.errors": ("ExportError", "ImageError", "ModelError", "NstError", "UsageError"),
    "nst.infer.runtime.stylizer": ("Stylizer",),
    "nst.io.images": ("load_image", "save_image"),
    "nst.models.config": ("TransformerConfig",),
    "nst.models.transformer": ("TransformerNet",),
    "nst.perceptual.gatys": ("optimize",),
    "nst.perceptual.losses": ("PerceptualLoss",),
    "nst.perceptual.vgg": ("VGG19Features",),
    "nst.train.config": ("TrainConfig",),
    "nst.train.engine.trainer": ("resume_style", "train_style"),
    "nst.train.evaluation.score": ("score",),
}

# A line each: training and using a style, the optimiser, the parts of both, the errors.
__all__ = ["Stylizer", "TrainConfig", "load_image", "resume_style", "save_image", "train_style"]
__all__ += ["OptimizeConfig", "optimize", "score"]
__all__ += ["ObjectiveConfig", "PerceptualLoss", "TransformerConfig", "TransformerNet"]
__all__ += ["VGG19Features", "__version__"]
__all__ += ["ExportError", "ImageError", "ModelError", "NstError", "UsageError"]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("nst")
    home = next((module for module, names in _HOMES.items() if name in names), None)
    if home is None:
        raise AttributeError(f"module 'nst' has no attribute {name!r}")
    from nst.errors import needs_extra

    with needs_extra(f"nst.{name}"):
        return getattr(importlib.import_module(home), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
