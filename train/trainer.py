"""The loop: a style image becomes a network (Johnson et al. 2016)."""

from __future__ import annotations

import contextlib
import json
import math
import os
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import torch

from nst.devices import memory_advice, pick_device
from nst.errors import NstError
from nst.images import Array, load_style, resize_short, save_image
from nst.infer.session import Stylizer
from nst.losses import PerceptualLoss
from nst.models.config import preset_config
from nst.models.transformer import TransformerNet
from nst.photographs import held_out
from nst.train.checkpoint import save_checkpoint
from nst.train.config import TrainConfig, model_name
from nst.train.data import Content, batches, calibration_images, open_content
from nst.train.export import Exported, export_precisions, torch_stylizer
from nst.train.muon import Muon
from nst.train.run import describe, make_run_folder, preview_sheet, remove_empty
from nst.train.score import (
    ImageLosses,
    Score,
    build_objective,
    image_losses,
    mean_losses,
    score,
    squares,
)

WARM_UP = 0.03  # share of the budget in which the learning rate rises

SMALLEST_CROP = 64

# A CPU looks at many small crops first. Each phase ends at a share of the budget and divides the
# side of the crops; batches grow as crops shrink, so that all steps cost about the same.
Phases = tuple[tuple[float, int], ...]


@dataclass(frozen=True)
class DeviceDefaults:
    """What suits a device where the user says nothing."""

    seconds: float
    batch_size: int
    phases: Phases


DEFAULTS = {
    "cpu": DeviceDefaults(525, 1, ((0.4, 4), (0.75, 2), (1.0, 1))),
    "cuda": DeviceDefaults(60, 8, ((1.0, 1),)),
}


@dataclass(frozen=True)
class TrainProgress:
    """One step of training.

    Attributes:
        step: from 1.
        done: share of the budget, 0 to 1.
        content_loss, style_loss, tv_loss, total_loss: weighted, of this step's batch.
        images_per_second: over the last steps.
        seconds_left: as estimated now.
    """

    step: int
    done: float
    content_loss: float
    style_loss: float
    tv_loss: float
    total_loss: float
    images_per_second: float
    seconds_left: float


@dataclass(frozen=True)
class TrainResult:
    """What a run leaves.

    Attributes:
        model, checkpoint, preview: paths of the ONNX file, the weights and the preview sheet.
        exported: all ONNX files, one for each precision; `model` is the first.
        before: losses of the held-out photographs as they are, mean.
        after: losses of the same photographs, repainted by the network.
        score: `model` against the optimiser on the same photographs, if that was asked for.
        steps, seconds: of training.
        device: `cpu` or `cuda`.
        skipped: content files that could not be used, and why.
        interrupted: whether Ctrl-C ended the run before its budget.
    """

    model: Path
    checkpoint: Path
    preview: Path
    exported: tuple[Exported, ...]
    before: ImageLosses
    after: ImageLosses
    score: Score | None
    steps: int
    seconds: float
    device: str
    skipped: dict[Path, str]
    interrupted: bool


def train_style(
    config: TrainConfig,
    callback: Callable[[TrainProgress], None] | None = None,
    stage: Callable[[str], None] = lambda _: None,
) -> TrainResult:
    """Train a network on one style, export it, check, preview and score the export.

    Ctrl-C (KeyboardInterrupt) ends training early and exports what there is.

    Args:
        callback: called at every step.
        stage: called with the name of each stage as it begins: training, exporting, scoring.

    Raises:
        ImageError: a style image can't be used. NstError: no usable content, no such device,
        losses that cease to be finite, an output folder that can't be written.
    """
    device = pick_device(config.device)
    side = config.objective.style_size
    styles = [resize_short(load_style(path), side) for path in config.style]
    metadata = describe(config)  # the files may change while the network trains
    content = open_content(config.content, config.seed, config.size)

    torch.manual_seed(config.seed)
    if device.type == "cuda":
        torch.backends.cudnn.benchmark = True
    network = TransformerNet(preset_config(config.preset)).to(device)
    network = network.to(memory_format=torch.channels_last)
    objective = build_objective(styles, config.style_weights, config.objective, device)
    objective = objective.to(memory_format=torch.channels_last)
    folder = make_run_folder(config)

    stage("training")
    loop = _Loop(network, objective, config, content)
    try:
        loop.run(callback)
        interrupted = False
    except KeyboardInterrupt:
        if loop.step == 0:
            remove_empty(folder)
            raise
        interrupted = True
    except BaseException:
        remove_empty(folder)
        raise

    seconds = loop.budget.elapsed
    stage("exporting")
    network = network.cpu().eval()
    photographs = squares(held_out())
    before = mean_losses([image_losses(objective, p, p) for p in photographs])
    repaint = torch_stylizer(network)
    after = mean_losses([image_losses(objective, p, repaint(p)) for p in photographs])
    metadata |= {
        "steps": str(loop.step),
        "seconds": f"{seconds:.0f}",
        "losses": json.dumps(after.to_dict()),
    }
    name = config.style[0].stem
    checkpoint, preview = folder / f"{name}.safetensors", folder / "preview.png"
    save_checkpoint(checkpoint, network, metadata, styles)
    exported = export_precisions(
        network,
        {precision: folder / model_name(name, precision) for precision in config.precisions},
        metadata,
        calibration=lambda: calibration_images(content),
        photographs=photographs,
        total_loss=lambda p, image: image_losses(objective, p, image).total_loss,
    )
    result = None
    with Stylizer(exported[0].path, provider="cpu") as stylizer:
        save_image(preview, preview_sheet(styles, stylizer))
        if config.score:
            stage("scoring")
            weights = config.style_weights
            with contextlib.suppress(KeyboardInterrupt):  # all else is done
                result = score(
                    stylizer,
                    photographs,
                    styles,
                    objective,
                    style_weights=weights,
                    whole_curve=False,
                )
    return TrainResult(
        model=exported[0].path,
        checkpoint=checkpoint,
        preview=preview,
        exported=exported,
        before=before,
        after=after,
        score=result,
        steps=loop.step,
        seconds=seconds,
        device=device.type,
        skipped=content.skipped,
        interrupted=interrupted,
    )


class _Budget:
    """Steps or seconds; the share that is used up drives every schedule."""

    def __init__(self, config: TrainConfig, default_seconds: float) -> None:
        self._steps = config.steps
        self._seconds = config.seconds or default_seconds
        self._start = time.monotonic()

    def start(self) -> None:
        self._start = time.monotonic()

    @property
    def elapsed(self) -> float:
        return time.monotonic() - self._start

    def done(self, step: int) -> float:
        """Share of the budget that is used up when `step` steps are made."""
        if self._steps is not None:
            return min(1.0, step / self._steps)
        return min(1.0, self.elapsed / self._seconds)

    def left(self, step: int) -> float:
        """Estimated seconds to the end."""
        if self._steps is None:
            return max(0.0, self._seconds - self.elapsed)
        return self.elapsed / max(1, step) * (self._steps - step)


class _Loop:
    """Muon under a warm-up and a cosine, and nothing else."""

    def __init__(
        self,
        network: TransformerNet,
        objective: PerceptualLoss,
        config: TrainConfig,
        content: Content,
    ) -> None:
        self.network, self.objective = network, objective
        self.config, self.content = config, content
        self.device = next(network.parameters()).device
        self.defaults = DEFAULTS[self.device.type]
        self.budget = _Budget(config, self.defaults.seconds)
        self.optimizer = Muon(network.parameters(), config.learning_rate)
        # Older cards only emulate bf16, slowly.
        self.autocast = self.device.type == "cuda" and torch.cuda.is_bf16_supported(
            including_emulation=False
        )
        self.step = 0

    def run(self, callback: Callable[[TrainProgress], None] | None) -> None:
        workers = 1 if self.device.type == "cpu" else min(8, os.cpu_count() or 1)
        bad_steps, learned = 0, False
        recent: deque[tuple[float, int]] = deque(maxlen=20)  # (time, images) of the last steps
        self.budget.start()
        with (
            memory_advice("lower --batch-size or --size"),
            closing(batches(self.content, self._plan, workers)) as stream,
        ):
            for batch in stream:
                done = self.budget.done(self.step)
                if done >= 1 and self.step > 0:
                    break
                for group in self.optimizer.param_groups:
                    group["lr"] = self.config.learning_rate * schedule(done)
                losses = self._update(batch)
                self.step += 1
                if not all(map(math.isfinite, losses)):
                    bad_steps += 1
                    if bad_steps == 10:
                        break
                    continue
                bad_steps, learned = 0, True
                recent.append((self.budget.elapsed, len(batch)))
                if callback is not None:
                    callback(self._progress(losses, recent))
        if bad_steps == 10 or not learned:
            raise NstError("the losses ceased to be finite: lower --style-weight or --lr")

    def _progress(
        self, losses: Sequence[float], recent: Sequence[tuple[float, int]]
    ) -> TrainProgress:
        span = recent[-1][0] - recent[0][0]
        images = sum(count for _, count in recent) - recent[0][1]
        content_loss, style_loss, tv_loss, total_loss = losses
        return TrainProgress(
            step=self.step,
            done=self.budget.done(self.step),
            content_loss=content_loss,
            style_loss=style_loss,
            tv_loss=tv_loss,
            total_loss=total_loss,
            images_per_second=images / span if span else 0.0,
            seconds_left=self.budget.left(self.step),
        )

    def _plan(self, step: int) -> tuple[int, int]:
        """(batch size, side of the crops) of a step."""
        done = self.budget.done(step)
        divisor = next((d for until, d in self.defaults.phases if done < until), 1)
        while self.config.size // divisor < SMALLEST_CROP:
            divisor //= 2
        batch_size = self.config.batch_size or self.defaults.batch_size
        return batch_size * divisor, self.config.size // divisor

    def _update(self, batch: Array) -> list[float]:
        """One step: content, style, tv and total loss. What isn't finite changes nothing."""
        content = torch.from_numpy(batch).to(self.device, non_blocking=True)
        content = content.permute(0, 3, 1, 2).float()  # a view of NHWC: channels_last already
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.autocast):
            stylized = self.network(content)
            losses = self.objective(stylized, self.objective.content_features(content))
        self.optimizer.zero_grad()
        losses.total_loss.mean().backward()
        gradients = [p.grad for p in self.network.parameters() if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        terms = (losses.content_loss, losses.style_loss, losses.tv_loss, losses.total_loss)
        *values, norm_value = torch.stack([*(t.mean() for t in terms), norm]).tolist()
        if not math.isfinite(norm_value) or not all(map(math.isfinite, values)):
            return [math.nan] * 4
        self.optimizer.step()
        return values


def schedule(done: float) -> float:
    """The learning rate's factor when a share `done` of the budget is used up."""
    if done < WARM_UP:
        return 0.1 + 0.9 * done / WARM_UP
    return 0.5 * (1 + math.cos(math.pi * (done - WARM_UP) / (1 - WARM_UP)))
