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
from nst.losses import PerceptualLoss
from nst.tensors import to_image, to_tensor

ASTRAY = 10  # times the best loss
SMALLEST_SIDE = 32  # VGG halves four times before its last layers


@dataclass(frozen=True)
class OptimizeProgress:
    """One step of the optimiser.

    Attributes:
        step, steps: counted over all sizes, from 1.
        size: (height, width) now at work.
        content_loss, style_loss, tv_loss, total_loss: weighted, before this step's move.
        seconds_left: at this size, as estimated now.
        image: a function that renders the present state, HWC uint8 RGB.
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
) -> Array:
    """Repaint `content` by gradient descent on its pixels (Gatys et al. 2016, section 2.3).

    Args:
        content, styles: HWC uint8 RGB.
        callback: called at every step. Ctrl-C (KeyboardInterrupt) ends the run with what there is.

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

    def closure() -> float:
        pixels.grad = None
        losses = objective(pixels, targets)
        losses.total_loss.sum().backward()
        values = (losses.content_loss, losses.style_loss, losses.tv_loss, losses.total_loss)
        terms[:] = torch.stack(values).detach()[:, 0].tolist()
        return terms[-1]

    pixels.requires_grad_(True)
    optimizer, fresh = _optimizer(pixels, config), True
    best, best_loss = pixels.detach().clone(), math.inf
    first_move = 3.0
    started = time.monotonic()
    try:
        for step in range(1, config.iterations + 1):
            if config.optimizer == "lbfgs":
                # torch's first step moves all pixels together by `lr`: three levels each, lest
                # ten iterations go by before anything moves. Then full steps.
                optimizer.param_groups[0]["lr"] = first_move * pixels.numel() if fresh else 1.0
            here = pixels.detach().clone()
            optimizer.step(closure)
            fresh = False
            if terms[-1] < best_loss:
                best, best_loss = here, terms[-1]
            elif not terms[-1] < ASTRAY * best_loss:
                if best_loss == math.inf:
                    raise NstError("the losses are not finite: lower the weights")
                # Without a line search L-BFGS jumps astray now and then. Small jumps it mends by
                # itself; after a great one, back to the best, and more carefully from there.
                pixels.data.copy_(best)
                optimizer, fresh = _optimizer(pixels, config), True
                first_move /= 8
            if callback is not None:
                total = config.iterations * rounds
                pace = (time.monotonic() - started) / step
                content_loss, style_loss, tv_loss, total_loss = terms
                callback(
                    OptimizeProgress(
                        step=before + step,
                        steps=total,
                        size=(pixels.shape[-2], pixels.shape[-1]),
                        content_loss=content_loss,
                        style_loss=style_loss,
                        tv_loss=tv_loss,
                        total_loss=total_loss,
                        seconds_left=pace * (config.iterations - step),
                        image=lambda: to_image(pixels),
                    )
                )
    finally:
        with torch.no_grad():
            last = float(objective(pixels, targets).total_loss.sum())
        if not last <= best_loss:
            pixels.data.copy_(best)
        pixels.requires_grad_(False)


def _optimizer(pixels: Tensor, config: OptimizeConfig) -> torch.optim.Optimizer:
    if config.optimizer == "adam":
        return torch.optim.Adam([pixels], lr=config.learning_rate)
    # One evaluation a step, as in Gatys's own code; the history lives across steps.
    return torch.optim.LBFGS(
        [pixels], max_iter=1, history_size=50, tolerance_grad=0, tolerance_change=0
    )
