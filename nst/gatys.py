"""The optimiser of pixels (Gatys et al. 2016): the reference, and the teacher."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from nst.config import OptimizeConfig
from nst.devices import pick_device
from nst.errors import NstError
from nst.images import Array, load_image, resize_image, resize_long, resize_short
from nst.losses import PerceptualLoss
from nst.tensors import to_image, to_tensor


@dataclass(frozen=True)
class OptimizeProgress:
    """One step of the optimiser.

    Attributes:
        step, steps: counted over all sizes, from 1.
        size: (height, width) now at work.
        content_loss, style_loss, tv_loss, total_loss: weighted, before this step's move.
        image: a function that renders the present state, HWC uint8 RGB.
    """

    step: int
    steps: int
    size: tuple[int, int]
    content_loss: float
    style_loss: float
    tv_loss: float
    total_loss: float
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
        callback: called at every step; raising KeyboardInterrupt in it, or Ctrl-C, ends the run
            with what there is.

    Returns:
        HWC uint8 RGB at the last of `config.sizes` (the long side), or at the content's own size.

    Raises:
        NstError: the losses ceased to be finite, or there is no CUDA device where one is asked.
    """
    config = config or OptimizeConfig()
    device = pick_device(config.device)
    objective = PerceptualLoss(
        [to_tensor(resize_short(s, config.objective.style_size)).to(device) for s in styles],
        config.style_weights,
        config.objective,
    )
    sizes = config.sizes or (max(content.shape[:2]),)
    pixels: Tensor | None = None
    for index, size in enumerate(sizes):
        image = resize_long(content, size)
        target = to_tensor(image).to(device)
        if pixels is None:
            pixels = _start(config, image).to(device)
        else:
            pixels = F.interpolate(pixels, target.shape[-2:], mode="bicubic", align_corners=False)
        try:
            _descend(
                pixels, target, objective, config, index * config.iterations, len(sizes), callback
            )
        except KeyboardInterrupt:
            break
    assert pixels is not None
    return to_image(pixels)


def _start(config: OptimizeConfig, content: Array) -> Tensor:
    if config.init == "content":
        return to_tensor(content)
    if config.init == "noise":
        generator = torch.Generator().manual_seed(config.seed)
        noise = torch.randn(1, 3, *content.shape[:2], generator=generator)
        return (noise * 50 + 127.5).clamp(0, 255)
    height, width = content.shape[:2]
    return to_tensor(resize_image(load_image(Path(config.init)), (height, width)))


def _descend(
    pixels: Tensor,
    content: Tensor,
    objective: PerceptualLoss,
    config: OptimizeConfig,
    done: int,
    rounds: int,
    callback: Callable[[OptimizeProgress], None] | None,
) -> None:
    """`config.iterations` steps on `pixels`, in place."""
    targets = objective.content_features(content)
    pixels.requires_grad_(True)
    optimizer: torch.optim.Optimizer
    if config.optimizer == "adam":
        optimizer = torch.optim.Adam([pixels], lr=config.learning_rate)
    else:
        # One evaluation a step, as in Gatys's own code; the history lives across steps.
        optimizer = torch.optim.LBFGS(
            [pixels], max_iter=1, history_size=50, tolerance_grad=0, tolerance_change=0
        )
    last: list[float] = []

    def closure() -> float:
        optimizer.zero_grad()
        losses = objective(pixels, targets)
        total = losses.total_loss[0]
        total.backward()
        terms = (losses.content_loss, losses.style_loss, losses.tv_loss, losses.total_loss)
        last[:] = torch.stack(terms).detach()[:, 0].tolist()
        return last[-1]

    try:
        for step in range(1, config.iterations + 1):
            if config.optimizer == "lbfgs":
                # torch's first step moves the pixels by `lr` in sum, however many there are: three
                # levels each, lest ten iterations go by before anything moves. Then full steps.
                optimizer.param_groups[0]["lr"] = 3.0 * pixels.numel() if step == 1 else 1.0
            optimizer.step(closure)
            content_loss, style_loss, tv_loss, total_loss = last
            if not torch.isfinite(pixels.detach()).all() or total_loss != total_loss:
                raise NstError(
                    f"the losses ceased to be finite at step {done + step}: "
                    "lower --style-weight or --learning-rate"
                )
            if callback is not None:
                callback(
                    OptimizeProgress(
                        done + step,
                        config.iterations * rounds,
                        (pixels.shape[-2], pixels.shape[-1]),
                        content_loss,
                        style_loss,
                        tv_loss,
                        total_loss,
                        lambda: to_image(pixels),
                    )
                )
    finally:
        pixels.requires_grad_(False)
