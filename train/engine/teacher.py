"""Distillation: a loss that pulls a network towards the optimiser's images or another network's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from nst.infer.runtime.stylizer import Stylizer
from nst.io.cache import content_hash, read_cached_array, write_cached_array
from nst.io.images import Array
from nst.perceptual.gatys import optimize_batch
from nst.perceptual.losses import PerceptualLoss
from nst.train.config import TrainConfig
from nst.train.content.dataset import Content
from nst.train.engine.distributed import World
from nst.train.evaluation.score import objective_key
from nst.train.run.checkpoint import load_checkpoint

SHARE = 4  # crops of a batch for one painted target
_VERSION = 1  # raised with every change that paints other targets


# Takes a batch and the index of its first image; returns crops (the batch itself, or others) and
# the images that a network should make of them, both float [N, 3, H, W] RGB in [0, 255].
DistillationTarget = Callable[[Tensor, int], tuple[Tensor, Tensor]]


class Teacher:
    """The teacher loss: the content loss between a network's images and its targets.

    Args:
        target: makes crops and their targets.
        objective: supplies VGG-19 and the content layers.
        weight: weight of the loss.
    """

    def __init__(
        self, target: DistillationTarget, objective: PerceptualLoss, weight: float
    ) -> None:
        self._target, self._objective, self._weight = target, objective, weight

    def __call__(self, network: nn.Module, content: Tensor, stylized: Tensor, image: int) -> Tensor:
        """Compute the weighted loss, a number per image of the batch: [B].

        Args:
            network: the network that learns.
            content, stylized: the batch before and after the network, float [B, 3, H, W] RGB in
                [0, 255].
            image: index of the batch's first image.
        """
        with torch.no_grad():
            crops, targets = self._target(content, image)
        repainted = stylized if crops is content else network(crops)
        layers = self._objective.config.content_layers
        features = self._objective.vgg(repainted, layers)
        wanted = self._objective.content_features(targets)
        terms = [self._objective.content(features[layer], wanted[layer]) for layer in layers]
        return self._weight * torch.stack(terms).sum(0).mean().expand(len(content))


def make_teacher(
    config: TrainConfig,
    styles: Sequence[Array],
    content: Content,
    objective: PerceptualLoss,
    world: World,
    stage: Callable[[str], None],
) -> Teacher | None:
    """Make the teacher that `config.teacher` names; None without one.

    Raises:
        NstError: the model can't be read.
    """
    if config.teacher is None or config.teacher_weight == 0:
        return None
    if config.teacher != "optimizer":
        target = _model_target(Path(config.teacher), objective.vgg.mean.device)
        return Teacher(target, objective, config.teacher_weight)
    stage("painting")
    crops = [content.crop(index, config.size) for index in range(config.teacher_images)]
    painted = world.broadcast(_paint(config, crops, styles, objective) if world.main else None)
    assert painted is not None
    target = _painted_target(np.stack(crops), painted, config.seed)
    return Teacher(target, objective, config.teacher_weight)


def _painted_target(crops: Array, painted: Array, seed: int) -> DistillationTarget:
    """Draw targets from crops that the optimiser painted (Gatys et al. 2016), uint8 NHWC."""

    def target(content: Tensor, image: int) -> tuple[Tensor, Tensor]:
        count = min(len(crops), max(1, len(content) // SHARE))
        rng = np.random.default_rng((seed, 1 << 42, image))
        chosen = rng.choice(len(crops), count, replace=False)
        return _to_batch(crops[chosen], content), _to_batch(painted[chosen], content)

    return target


def _model_target(path: Path, device: torch.device) -> DistillationTarget:
    """Repaint every batch by another network: a checkpoint, or an ONNX model."""
    if path.suffix == ".safetensors":
        network = load_checkpoint(path).network.to(device)
        return lambda content, _: (content, network(content, network.export_padding).clamp(0, 255))
    stylizer = Stylizer(path)

    def target(content: Tensor, _: int) -> tuple[Tensor, Tensor]:
        images = content.round().byte().permute(0, 2, 3, 1).contiguous().cpu().numpy()
        return content, _to_batch(stylizer(images), content)

    return target


def _paint(
    config: TrainConfig, crops: list[Array], styles: Sequence[Array], objective: PerceptualLoss
) -> Array:
    """Paint `crops` by the optimiser, uint8 [N, H, W, 3]; cache the result on disk."""
    named = objective_key(styles, config.style_weights, objective)
    key = content_hash(*crops, named, f"{_VERSION} {config.teacher_iterations}")
    found = read_cached_array("targets", key)
    if found is not None and found.shape == (len(crops), *crops[0].shape):
        return found
    painted = np.stack(optimize_batch(crops, objective, config.teacher_iterations))
    write_cached_array("targets", key, painted)
    return painted


def _to_batch(images: Array, like: Tensor) -> Tensor:
    """Convert uint8 NHWC to float NCHW on the device of `like`."""
    return torch.from_numpy(images).to(like.device).permute(0, 3, 1, 2).float()
