"""A style image becomes a network (Johnson et al. 2016): trained, exported, checked, scored."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock, Timeout

from nst.color.transfer import keep_color
from nst.config import KeepColor
from nst.errors import NstError
from nst.infer.runtime.stylizer import Stylizer
from nst.io.files import replacing
from nst.io.images import Array, save_image
from nst.io.sample_images import held_out
from nst.models.config import preset_config
from nst.models.transformer import TransformerNet
from nst.perceptual.losses import PerceptualLoss, build_objective
from nst.perceptual.style_image import prepare_style
from nst.perceptual.tensors import to_image, to_tensor
from nst.system.devices import limit_memory, peak_memory
from nst.train.config import TrainConfig, model_name
from nst.train.config_file import load_config, make_config
from nst.train.content.coco import DownloadProgress
from nst.train.content.dataset import Content, calibration_images, open_content
from nst.train.engine.base_network import base_network
from nst.train.engine.distributed import join_world
from nst.train.engine.loop import NOT_FINITE, Loop, Step
from nst.train.engine.teacher import make_teacher
from nst.train.evaluation.score import (
    ImageLosses,
    Score,
    image_losses,
    mean_losses,
    score,
    squares,
)
from nst.train.export.export import Exported, export_precisions, torch_stylizer
from nst.train.run.checkpoint import Checkpoint, save_checkpoint
from nst.train.run.folder import (
    CONFIG,
    RESULT,
    RunFolder,
    describe,
    discard,
    load_state,
    make_run_folder,
    preview_sheet,
)

TrainProgress = Step
Say = Callable[[str], None]


@dataclass(frozen=True)
class TrainResult:
    """What a run leaves.

    Attributes:
        folder: of the run.
        model, checkpoint, preview: paths of the ONNX file, the weights and the preview sheet.
        exported: all ONNX files, one for each precision; `model` is the first.
        before: losses of the held-out photographs as they are, mean.
        after: losses of the same photographs, repainted by the network.
        score: `model` against the optimiser on the same photographs, if that was asked for.
        steps, seconds: of training, over all processes that took part one after another.
        device: `cpu` or `cuda`.
        peak_memory: GB, of the GPU as PyTorch took it or of the process on a CPU; None if unknown.
        waiting: share of the training's time spent waiting for content.
        skipped: content files that could not be used, and why.
        interrupted: whether Ctrl-C ended the run before its budget.
    """

    folder: Path
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
    peak_memory: float | None
    waiting: float
    skipped: dict[Path, str]
    interrupted: bool

    def to_dict(self) -> dict[str, Any]:
        """Values for JSON; paths are relative to the folder."""
        return {
            "model": self.model.name,
            "exported": [e.path.name for e in self.exported],
            "before": self.before.to_dict(),
            "after": self.after.to_dict(),
            "score": None if self.score is None else self.score.to_dict(),
            "steps": self.steps,
            "seconds": self.seconds,
            "device": self.device,
            "peak_memory": self.peak_memory,
            "waiting": self.waiting,
            "skipped": len(self.skipped),
        }


def train_style(
    config: TrainConfig,
    callback: Callable[[TrainProgress], None] | None = None,
    stage: Say = lambda _: None,
    notice: Say = lambda _: None,
) -> TrainResult:
    """Train a network on one style, export it, check, preview and score the export.

    Ctrl-C (KeyboardInterrupt) ends training early and exports what there is. Under torchrun all
    processes train one network; the first writes the files, and all return the same result.

    Args:
        callback: called at every step that was made.
        stage: called with the name of each stage as it begins: painting, training, exporting,
            scoring.
        notice: called with one line for what is out of the ordinary: memory that ran out, steps
            that were not finite, a style image of an odd shape.

    Raises:
        ImageError: a style image can't be used. NstError: no usable content, no such device,
        losses that cease to be finite, an output folder that can't be written.
    """
    return _train(config, None, callback, stage, notice)


def resume_style(
    folder: Path,
    callback: Callable[[TrainProgress], None] | None = None,
    stage: Say = lambda _: None,
    notice: Say = lambda _: None,
) -> TrainResult:
    """Go on with a run that was stopped, whatever stopped it, from its last checkpoint.

    With a budget of steps, on a CPU with the same number of threads, the network becomes the same
    bit for bit as if the run had never stopped. A budget of seconds is continued where it was.

    Raises:
        NstError: not a run's folder, or one that came to its end, or is at work in another
        process; and as `train_style`.
    """
    state = load_state(folder, notice)
    config = make_config(load_config(folder / CONFIG))
    return _train(config, (folder, state), callback, stage, notice)


def _train(
    config: TrainConfig,
    resumed: tuple[Path, Checkpoint] | None,
    callback: Callable[[TrainProgress], None] | None,
    stage: Say,
    notice: Say,
) -> TrainResult:
    with contextlib.ExitStack() as stack:
        world, device = stack.enter_context(join_world(config.device))
        if device.type == "cuda":
            stack.enter_context(limit_memory(config.max_memory))
        if resumed is None:
            side = config.objective.style_size
            prepared = [prepare_style(path, side) for path in config.style]
            notes = [note for style in prepared for note in style.notes]
            styles = tuple(style.image for style in prepared)
            metadata = describe(config)  # the files may change while the network trains
            content = _open_content(config, stage)
            metadata["content"] = content.fingerprint
            folder = world.broadcast(make_run_folder(config) if world.main else Path())
            snapshot = None
        else:
            folder, state = resumed
            styles, metadata, snapshot = state.styles, state.metadata, state.snapshot
            content = _open_content(config, stage)
            notes = []
            if content.fingerprint != metadata["content"]:
                notes = ["the content has changed since the run began: on with what is there"]
        if world.main:
            stack.enter_context(_alone(folder))
        torch.manual_seed(config.seed)
        network = None if config.from_scratch or resumed else base_network(config.preset)
        network = network or TransformerNet(preset_config(config.preset))
        network = network.to(device).to(memory_format=torch.channels_last).train()
        objective = build_objective(styles, config.style_weights, config.objective, device)
        objective = objective.to(memory_format=torch.channels_last)

        judge = _Judge(network, objective)
        keeper, loop = None, None
        try:
            if world.main:
                keeper = RunFolder(folder, config, network, judge, metadata, styles, snapshot)
            teacher = make_teacher(config, styles, content, objective, world, stage)
            for note in notes:  # now nothing is wrong with the input
                notice(note)
            stage("training")
            loop = Loop(
                network,
                objective,
                config,
                content,
                teacher=teacher,
                world=world,
                notice=notice,
                start=snapshot,
            )
            loop.run(callback, keeper)
        except BaseException:
            if keeper is not None:
                keeper.close()
            if world.main and resumed is None and (loop is None or loop.snapshot.step == 0):
                discard(folder)
            elif world.main:
                notice(f"nothing is lost: go on with  nst-train --resume {folder}")
            raise
        result = None
        if keeper is not None:
            try:
                result = _finish(
                    config, loop, keeper, judge, metadata, styles, content, stage, notice
                )
            finally:  # the model comes first: losses take seconds to draw
                keeper.close()
        result = world.broadcast(result)
        assert result is not None
        return result


def _open_content(config: TrainConfig, stage: Say) -> Content:
    def report(progress: DownloadProgress) -> None:
        stage(f"{progress.stage} COCO {progress.done / max(1, progress.total):.0%}")

    side = config.size + 2 * preset_config(config.preset).context
    return open_content(config.content, config.seed, side, report)


def _finish(
    config: TrainConfig,
    loop: Loop,
    keeper: RunFolder,
    judge: _Judge,
    metadata: dict[str, str],
    styles: tuple[Array, ...],
    content: Content,
    stage: Say,
    notice: Say,
) -> TrainResult:
    """Export, check, preview and score what was trained."""
    stage("exporting")
    network, objective, device = loop.network, loop.objective, loop.device
    memory = peak_memory(device)
    last, _ = judge()
    if not last <= keeper.best:  # a loss that is no number is not, either
        if keeper.best == math.inf:
            raise NstError(NOT_FINITE)
        step = keeper.load_best()
        notice(f"the network of step {step} is better than the last, and is the one exported")
    network = network.cpu().eval()
    photographs = squares(held_out())
    before = mean_losses([image_losses(objective, p, p) for p in photographs])
    repaint = torch_stylizer(network)
    after = mean_losses([image_losses(objective, p, repaint(p)) for p in photographs])
    if not math.isfinite(after.total_loss):
        raise NstError(NOT_FINITE)
    seconds = loop.budget.elapsed
    metadata = metadata | {
        "steps": str(loop.step),
        "seconds": f"{seconds:.0f}",
        "losses": json.dumps(after.to_dict()),
    }
    name = config.style[0].stem
    folder = keeper.path
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
    scored = None
    with Stylizer(exported[0].path, provider="cpu") as stylizer:
        paint: Callable[[Array], Array] = stylizer
        if (how := stylizer.keep_color) is not None:
            paint = partial(_in_own_colors, stylizer, how)
        save_image(preview, preview_sheet(list(styles), paint))
        if config.score:
            stage("scoring")
            with contextlib.suppress(KeyboardInterrupt):  # all else is done
                scored = score(
                    stylizer,
                    photographs,
                    styles,
                    objective,
                    style_weights=config.style_weights,
                    whole_curve=False,
                )
    result = TrainResult(
        folder=folder,
        model=exported[0].path,
        checkpoint=checkpoint,
        preview=preview,
        exported=exported,
        before=before,
        after=after,
        score=scored,
        steps=loop.step,
        seconds=seconds,
        device=device.type,
        peak_memory=memory,
        waiting=loop.waited / max(seconds, 1e-9),
        skipped=content.skipped,
        interrupted=loop.interrupted,
    )
    if not loop.interrupted:  # that one may go on
        with replacing(folder / RESULT) as beside:
            beside.write_text(json.dumps(result.to_dict(), indent=2))
    return result


def _in_own_colors(stylizer: Stylizer, how: KeepColor, image: Array) -> Array:
    return keep_color(stylizer(image), image, how)


class _Judge:
    """How good a network is now: on the held-out photographs, as it trains."""

    def __init__(self, network: TransformerNet, objective: PerceptualLoss) -> None:
        self._network, self._objective = network, objective
        self._device = objective.vgg.mean.device
        self._photographs = squares(held_out())
        self._batches = [to_tensor(photograph).to(self._device) for photograph in self._photographs]
        self._targets = [objective.content_features(batch) for batch in self._batches]

    @torch.inference_mode()
    def __call__(self) -> tuple[float, Array]:
        """Total loss, mean, and a picture of the photographs beside the results."""
        self._network.eval()
        total, rows = 0.0, []
        for photograph, batch, targets in zip(
            self._photographs, self._batches, self._targets, strict=True
        ):
            image = to_image(self._network(batch, self._network.export_padding))
            losses = self._objective(to_tensor(image).to(self._device), targets)
            total += float(losses.total_loss)
            rows.append(np.hstack([photograph, image]))
        self._network.train()
        return total / len(rows), np.vstack(rows)


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keep other processes from training in the same folder."""
    lock = FileLock(folder / ".lock", timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        raise NstError(f"{folder} is at work in another process: wait for its end") from error
    try:
        yield
    finally:
        lock.release()
        (folder / ".lock").unlink(missing_ok=True)
        if not any(folder.iterdir()):  # the run came to nothing
            folder.rmdir()
