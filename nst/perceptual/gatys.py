"""Optimisation of an image's pixels (Gatys et al. 2016): the reference, and the teacher."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from nst.color.transfer import grey, keep_color
from nst.config import OptimizeConfig, check_number
from nst.errors import NstError, UsageError
from nst.io.images import Array, load_image, resize_image, resize_long
from nst.perceptual.lbfgs import BoxLBFGS
from nst.perceptual.losses import PerceptualLoss, build_objective
from nst.perceptual.tensors import to_image, to_images, to_tensor
from nst.system.devices import memory_advice, pick_device

SMALLEST_CONTENT = 32  # pixels; VGG halves four times before its last layers
AT_ONCE = {"cpu": 1, "cuda": 16}  # more images at once are not faster


@dataclass(frozen=True)
class OptimizeProgress:
    """One step of the optimiser.

    Attributes:
        step, steps: step now done, counted over all sizes from 1, and their number.
        size: (height, width) of the image at this stage.
        content_loss, style_loss, tv_loss, total_loss: weighted, of the best image so far.
        seconds_left: estimated time for the remaining steps at this size.
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


@dataclass(frozen=True)
class BatchProgress:
    """One step of the optimiser on a batch of images.

    Attributes:
        first: index of the batch's first image among all; the others follow it.
        step, steps: step now done, counted from 1, and their number. A batch that the GPU can't
            hold begins again with fewer images.
        total_losses: weighted, of the best images so far, one for each.
        images: a function that renders the best images so far, each HWC uint8 RGB.
    """

    first: int
    step: int
    steps: int
    total_losses: tuple[float, ...]
    images: Callable[[], list[Array]]


def optimize(
    content: Array,
    styles: Sequence[Array],
    config: OptimizeConfig | None = None,
    callback: Callable[[OptimizeProgress], None] | None = None,
    objective: PerceptualLoss | None = None,
) -> Array:
    """Repaint `content` by gradient descent on its pixels (Gatys et al. 2016, section 2.3).

    Pixels stay within [0, 255] at every step, and a step is one evaluation of the losses.
    Ctrl-C (KeyboardInterrupt) ends the run early; the best image so far is then returned.

    Args:
        content: HWC uint8 RGB.
        styles: images, each HWC uint8 RGB.
        callback: called after every step.
        objective: an existing objective for `styles` and `config` on the device, to save time.

    Returns:
        HWC uint8 RGB whose long side is the last of `config.sizes`, or of the content's own size.

    Raises:
        UsageError: there is no style image, or the content is too small for VGG.
        NstError: the losses are not finite, the memory is too small, or the config names cuda and
            there is no CUDA device.
    """
    config = config or OptimizeConfig()
    if not styles:
        raise UsageError("no style image is given")
    device = pick_device(config.device)
    sizes = config.sizes or (max(content.shape[:2]),)
    images = [resize_long(content, size) for size in sizes]
    _check_size(images[0])
    if objective is None:
        objective = build_objective(
            styles, config.style_weights, config.objective, device, photographs=[content]
        )
    keep = config.objective.keep_color
    contents = {image.shape: image for image in images}

    def finish(pixels: Tensor) -> Array:
        image = to_image(pixels)
        return keep_color(image, contents[image.shape], keep) if keep == "luminance" else image

    if keep == "luminance":  # only the luminance is optimised
        images = [grey(image) for image in images]
    pixels = _start(config, images[0]).to(device)
    learning_rate = None if config.optimizer == "lbfgs" else config.learning_rate
    with suppress(KeyboardInterrupt), memory_advice("lower the size of the image"):
        for index, image in enumerate(images):
            target = to_tensor(image).to(device)
            height, width = target.shape[-2:]
            if pixels.shape != target.shape:
                pixels = F.interpolate(pixels, (height, width), mode="bicubic", align_corners=False)
            started = time.monotonic()
            descent = _descend(pixels, target, objective, config.iterations, learning_rate)
            for step, terms in enumerate(descent, start=1):
                if callback is not None:
                    content_loss, style_loss, tv_loss, total_loss = terms[:, 0].tolist()
                    pace = (time.monotonic() - started) / step
                    progress = OptimizeProgress(
                        step=index * config.iterations + step,
                        steps=config.iterations * len(images),
                        size=(height, width),
                        content_loss=content_loss,
                        style_loss=style_loss,
                        tv_loss=tv_loss,
                        total_loss=total_loss,
                        seconds_left=pace * (config.iterations - step),
                        image=partial(finish, pixels),
                    )
                    callback(progress)
    return finish(pixels)


def optimize_batch(
    contents: Sequence[Array],
    objective: PerceptualLoss,
    iterations: int,
    callback: Callable[[BatchProgress], bool | None] | None = None,
    at_once: int | None = None,
) -> list[Array]:
    """Repaint many images in batches, each as `optimize` does alone: L-BFGS from the content.

    Ctrl-C (KeyboardInterrupt) is left to the caller.

    Args:
        contents: HWC uint8 RGB, all of one shape.
        objective: objective to minimise, on the device to compute on.
        iterations: steps for each image.
        callback: called after every step; if it returns True, the current batch ends with its best
            images so far, and the next begins.
        at_once: largest number of images in a batch; None for 1 on a CPU and 16 on a GPU. It is
            halved while the GPU's memory is too small.

    Returns:
        HWC uint8 RGB, one for each of `contents`.

    Raises:
        UsageError: `contents` differ in shape or are too small for VGG, or `iterations` or
            `at_once` is below 1.
        NstError: the losses are not finite, or the GPU has too little memory for one image.
    """
    device = objective.vgg.mean.device
    at_once = AT_ONCE[device.type] if at_once is None else at_once
    check_number("at_once", at_once, least=1)
    check_number("iterations", iterations, least=1)
    shapes = sorted({content.shape for content in contents})
    if len(shapes) > 1:
        raise UsageError(f"the images differ in shape ({shapes[0]}, {shapes[1]}): resize them")
    done: list[Array] = []
    while len(done) < len(contents):
        batch = contents[len(done) : len(done) + at_once]
        _check_size(batch[0])
        with memory_advice("use the CPU (device cpu)"):
            try:
                done += _repaint_batch(batch, objective, iterations, len(done), callback)
                continue
            except torch.OutOfMemoryError:
                if len(batch) == 1:
                    raise
        at_once = len(batch) // 2  # outside the handler, which keeps the batch in memory
        torch.cuda.empty_cache()
    return done


def _check_size(image: Array) -> None:
    height, width = image.shape[:2]
    if min(height, width) < SMALLEST_CONTENT:
        raise UsageError(f"{width}×{height} pixels are too few: the short side needs 32 or more")


def _start(config: OptimizeConfig, content: Array) -> Tensor:
    if config.init == "content":
        return to_tensor(content)
    height, width = content.shape[:2]
    if config.init == "noise":
        generator = torch.Generator().manual_seed(config.seed)
        noise = torch.randn(1, 3, height, width, generator=generator)
        return (noise * 50 + 127.5).clamp(0, 255)
    return to_tensor(resize_image(load_image(Path(config.init)), (height, width)))


def _repaint_batch(
    contents: Sequence[Array],
    objective: PerceptualLoss,
    iterations: int,
    first: int,
    callback: Callable[[BatchProgress], bool | None] | None,
) -> list[Array]:
    """Repaint one batch of `optimize_batch`."""
    target = torch.cat([to_tensor(content) for content in contents]).to(objective.vgg.mean.device)
    pixels = target.clone()
    for step, terms in enumerate(_descend(pixels, target, objective, iterations), start=1):
        if callback is not None:
            totals = tuple(terms[3].tolist())
            if callback(BatchProgress(first, step, iterations, totals, lambda: to_images(pixels))):
                break
    return to_images(pixels)


def _descend(
    pixels: Tensor,
    contents: Tensor,
    objective: PerceptualLoss,
    iterations: int,
    learning_rate: float | None = None,
) -> Iterator[Tensor]:
    """Optimise `pixels` [B, 3, H, W] in place, by L-BFGS or by Adam with `learning_rate`.

    `pixels` always hold the best images so far. Yields their weighted terms after each step:
    content, style, TV and total loss, [4, B].
    """
    targets = objective.content_features(contents)
    terms = pixels.new_zeros(4, len(pixels))

    def function(x: Tensor) -> tuple[Tensor, Tensor]:
        nonlocal terms
        x = x.detach().clone().requires_grad_(True)
        losses = objective(x, targets)
        losses.total_loss.sum().backward()
        values = (losses.content_loss, losses.style_loss, losses.tv_loss, losses.total_loss)
        terms = torch.stack(values).detach()
        assert x.grad is not None
        return terms[3], x.grad

    descent = (
        BoxLBFGS(pixels, function)
        if learning_rate is None
        else _Adam(pixels, function, learning_rate)
    )
    best = terms
    if not best[3].isfinite().all():
        raise NstError("the losses are not finite: lower the weights")
    for _ in range(iterations):
        moved = descent.step()
        best = torch.where(moved, terms, best)
        yield best


class _Adam:
    """Adam inside [0, 255]; `x` holds each sample's best values so far."""

    def __init__(
        self, x: Tensor, function: Callable[[Tensor], tuple[Tensor, Tensor]], learning_rate: float
    ) -> None:
        self.x = x.clamp_(0, 255)
        self._function = function
        self._now = x.clone()
        self._adam = torch.optim.Adam([self._now], lr=learning_rate)
        self._losses, self._gradients = function(x)

    def step(self) -> Tensor:
        """Evaluate once; return which samples are better than their best so far, bool [B]."""
        self._now.grad = self._gradients
        self._adam.step()
        self._now.clamp_(0, 255)
        losses, self._gradients = self._function(self._now)
        better = losses < self._losses
        self._losses = torch.where(better, losses, self._losses)
        self.x.copy_(torch.where(better[:, None, None, None], self._now, self.x))
        return better
