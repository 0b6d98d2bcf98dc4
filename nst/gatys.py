"""The optimiser of pixels (Gatys et al. 2016): the reference, and the teacher."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from nst.config import OptimizeConfig
from nst.devices import memory_advice, pick_device
from nst.errors import NstError, UsageError
from nst.images import Array, load_image, resize_image, resize_long, resize_short
from nst.lbfgs import BoxLBFGS
from nst.losses import PerceptualLoss
from nst.tensors import to_image, to_tensor

SMALLEST_SIDE = 32  # VGG halves four times before its last layers


@dataclass(frozen=True)
class OptimizeProgress:
    """One step of the optimiser.

    Attributes:
        step, steps: counted over all sizes, from 1.
        size: (height, width) now at work.
        content_loss, style_loss, tv_loss, total_loss: weighted, of the best image so far.
        seconds_left: at this size, as estimated now.
        image: a function that renders the best image so far, HWC uint8 RGB.
    """

    step: int
    steps: int
    size: tuple[int, int]
    content_loss: float
    style_loss: float
    tv_loss: float
    total_loss: float
    seconds_left: float
    image: Callable[[], Array]


def optimize(
    content: Array,
    styles: Sequence[Array],
    config: OptimizeConfig | None = None,
    callback: Callable[[OptimizeProgress], None] | None = None,
    objective: PerceptualLoss | None = None,
) -> Array:
    """Repaint `content` by gradient descent on its pixels (Gatys et al. 2016, section 2.3).

    Pixels stay within [0, 255] at every step, and a step is one evaluation of the losses.

    Args:
        content, styles: HWC uint8 RGB.
        callback: called at every step. Ctrl-C (KeyboardInterrupt) ends the run with what there is.
        objective: one that stands ready for `styles` and `config` on the device; it saves time.

    Returns:
        HWC uint8 RGB at the last of `config.sizes` (the long side), or at the content's own size.

    Raises:
        UsageError: the content is too small for VGG. NstError: the losses are not finite, or
        there is no CUDA device where one is asked for.
    """
    config = config or OptimizeConfig()
    if not styles:
        raise UsageError("no style image is given")
    device = pick_device(config.device)
    sizes = config.sizes or (max(content.shape[:2]),)
    images = [resize_long(content, size) for size in sizes]
    if min(images[0].shape[:2]) < SMALLEST_SIDE:
        height, width = images[0].shape[:2]
        raise UsageError(f"{width}×{height} pixels are too few: the short side needs 32 or more")
    if objective is None:
        objective = PerceptualLoss(
            [to_tensor(resize_short(s, config.objective.style_size)).to(device) for s in styles],
            config.style_weights,
            config.objective,
        )
    pixels = _start(config, images[0]).to(device)
    try:
        for index, image in enumerate(images):
            target = to_tensor(image).to(device)
            if pixels.shape != target.shape:
                shape = target.shape[-2:]
                pixels = F.interpolate(pixels, shape, mode="bicubic", align_corners=False)
            before = index * config.iterations
            with memory_advice("lower --size"):
                _descend(pixels, target, objective, config, before, len(sizes), callback)
    except KeyboardInterrupt:
        pass
    return to_image(pixels)


def _start(config: OptimizeConfig, content: Array) -> Tensor:
    if config.init == "content":
        return to_tensor(content)
    height, width = content.shape[:2]
    if config.init == "noise":
        generator = torch.Generator().manual_seed(config.seed)
        noise = torch.randn(1, 3, height, width, generator=generator)
        return (noise * 50 + 127.5).clamp(0, 255)
    return to_tensor(resize_image(load_image(Path(config.init)), (height, width)))


def _descend(
    pixels: Tensor,
    content: Tensor,
    objective: PerceptualLoss,
    config: OptimizeConfig,
    before: int,
    rounds: int,
    callback: Callable[[OptimizeProgress], None] | None,
) -> None:
    """`config.iterations` steps on `pixels`, in place; they end at the best that was seen."""
    targets = objective.content_features(content)
    terms: list[float] = []

    def function(x: Tensor) -> tuple[float, Tensor]:
        x = x.detach().clone().requires_grad_(True)
        losses = objective(x, targets)
        losses.total_loss.sum().backward()
        values = (losses.content_loss, losses.style_loss, losses.tv_loss, losses.total_loss)
        terms[:] = torch.stack(values).detach()[:, 0].tolist()
        assert x.grad is not None
        return terms[-1], x.grad

    lbfgs = config.optimizer == "lbfgs"
    descent = BoxLBFGS(pixels, function) if lbfgs else _Adam(pixels, function, config.learning_rate)
    if not math.isfinite(descent.loss):
        raise NstError("the losses are not finite: lower the weights")
    kept = list(terms)
    started = time.monotonic()
    try:
        for step in range(1, config.iterations + 1):
            descent.step()
            if terms[-1] == descent.loss:  # not a try that was taken back
                kept = list(terms)
            if callback is not None:
                pace = (time.monotonic() - started) / step
                content_loss, style_loss, tv_loss, total_loss = kept
                callback(
                    OptimizeProgress(
                        step=before + step,
                        steps=config.iterations * rounds,
                        size=(pixels.shape[-2], pixels.shape[-1]),
                        content_loss=content_loss,
                        style_loss=style_loss,
                        tv_loss=tv_loss,
                        total_loss=total_loss,
                        seconds_left=pace * (config.iterations - step),
                        image=lambda: to_image(descent.x),
                    )
                )
    finally:
        pixels.copy_(descent.x)


class _Adam:
    """Adam inside [0, 255]; `x` is the best that was seen, `loss` its loss."""

    def __init__(
        self, x: Tensor, function: Callable[[Tensor], tuple[float, Tensor]], learning_rate: float
    ) -> None:
        self.x = x.clamp_(0, 255).clone()
        self._function = function
        self._now = x.clone()
        self._adam = torch.optim.Adam([self._now], lr=learning_rate)
        self.loss, self._gradient = function(x)

    def step(self) -> None:
        self._now.grad = self._gradient
        self._adam.step()
        self._now.clamp_(0, 255)
        loss, self._gradient = self._function(self._now)
        if loss < self.loss:
            self.loss = loss
            self.x.copy_(self._now)
