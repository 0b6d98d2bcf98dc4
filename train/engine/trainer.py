"""Train a network on a style image (Johnson et al. 2016); export, check and score it."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

from nst.color.transfer import keep_color
from nst.errors import NstError
from nst.infer.runtime.stylizer import Stylizer
from nst.io.files import replacing
from nst.io.images import Array, save_image
from nst.io.sample_images import held_out
from nst.models.config import preset_config
from nst.models.transformer import TransformerNet
from nst.perceptual.losses import build_objective
from nst.perceptual.style_image import prepare_style
from nst.system.devices import limit_memory, peak_memory
from nst.train.config import TrainConfig, model_name
from nst.train.config_file import load_config, make_config
from nst.train.content.coco import DownloadProgress
from nst.train.content.dataset import Content, calibration_images, open_content
from nst.train.engine.base_network import base_network
from nst.train.engine.distributed import join_world
from nst.train.engine.loop import NOT_FINITE, Loop
from nst.train.engine.schedule import temporal_weight
from nst.train.engine.teacher import make_teacher
from nst.train.engine.validation import Validator
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
from nst.train.run.progress import TrainProgress

Say = Callable[[str], None]


@dataclass(frozen=True)
class TrainResult:
    """Files and figures of a run.

    Attributes:
        folder: folder of the run.
        model, checkpoint, preview: paths of the ONNX file, the weights and the preview sheet.
        exported: all ONNX files, one for each precision; `model` is the first.
        before: mean losses of the held-out photographs themselves.
        after: mean losses of the same photographs, repainted by the network.
        score: score of `model` on the same photographs; None if it was not computed.
        steps, seconds: length of the training, that of resumed runs included.
        device: `cpu` or `cuda`.
        peak_memory: GB that PyTorch took of the GPU, or the process of the machine on a CPU; None
            if unknown.
        waiting: share of the training's time spent waiting for content.
        skipped: content files that could not be used, each with the reason.
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
        """Return values for JSON; paths are relative to the folder."""
        unchanged = ("steps", "seconds", "device", "peak_memory", "waiting")
        return {
            "model": self.model.name,
            "exported": [e.path.name for e in self.exported],
            "before": self.before.to_dict(),
            "after": self.after.to_dict(),
            "score": None if self.score is None else self.score.to_dict(),
            **{name: getattr(self, name) for name in unchanged},
            "skipped": len(self.skipped),
        }


def train_style(
    config: TrainConfig,
    callback: Callable[[TrainProgress], None] | None = None,
    stage: Say = lambda _: None,
    notice: Say = lambda _: None,
) -> TrainResult:
    """Train a network on a style; export it; check, preview and score the export.

    Ctrl-C (KeyboardInterrupt) ends training early and exports the network as it is. Under torchrun
    all processes train one network; the first writes the files, and all return the same result.

    Args:
        callback: called after each step with a finite loss.
        stage: called with the name of each stage as it begins: painting, training, exporting,
            scoring.
        notice: called with one line about an unusual event: memory that ran out, steps that were
            not finite, a style image of an unusual shape.

    Raises:
        ImageError: a style image can't be used.
        NstError: there is no usable content or no such device, the losses cease to be finite, or
            the output folder can't be written.
    """
    return _train(config, None, callback, stage, notice)


def resume_style(
    folder: Path,
    callback: Callable[[TrainProgress], None] | None = None,
    stage: Say = lambda _: None,
    notice: Say = lambda _: None,
) -> TrainResult:
    """Resume a run that was stopped, from its last checkpoint.

    With a budget of steps, on a CPU with the same number of threads, the network becomes bit for
    bit the same as if the run had never stopped. A budget of seconds goes on where it was.

    Raises:
        NstError: `folder` is no run's folder, or holds a run that has ended or is trained by
            another process; and as `train_style`.
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
            metadata = describe(config)  # now, as the files may change while the network trains
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
                notes = ["the content has changed since the run began: training goes on with it"]
        if world.main:
            stack.enter_context(_alone(folder))
        torch.manual_seed(config.seed)
        network = None if config.from_scratch or resumed else base_network(config.preset)
        network = network or TransformerNet(preset_config(config.preset))
        network = network.to(device).to(memory_format=torch.channels_last).train()
        objective = build_objective(styles, config.style_weights, config.objective, device)
        objective = objective.to(memory_format=torch.channels_last)

        validator = Validator(
            network,
            objective,
            temporal_weight=temporal_weight(config, network.config.architecture),
            checkerboard_weight=config.checkerboard_weight,
        )
        run, loop = None, None
        try:
            if world.main:
                run = RunFolder(folder, config, network, validator, metadata, styles, snapshot)
            teacher = make_teacher(config, styles, content, objective, world, stage)
            for note in notes:  # here the input is known to be good
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
            loop.run(callback, run)
        except BaseException:
            if run is not None:
                run.close()
            if world.main and resumed is None and (loop is None or loop.snapshot.step == 0):
                discard(folder)
            elif world.main:
                notice(f"the last checkpoint is kept: resume the run in {folder}")
            raise
        result = None
        if run is not None:
            with contextlib.closing(run):  # after the export, because the plot takes seconds
                result = _finish(loop, run, stage)
        result = world.broadcast(result)
        assert result is not None
        return result


def _open_content(config: TrainConfig, stage: Say) -> Content:
    def report(progress: DownloadProgress) -> None:
        stage(f"{progress.stage} COCO {progress.done / max(1, progress.total):.0%}")

    side = config.size + 2 * preset_config(config.preset).context
    return open_content(config.content, config.seed, side, report)


def _finish(loop: Loop, run: RunFolder, stage: Say) -> TrainResult:
    """Export, check, preview and score the network with the best validation loss."""
    stage("exporting")
    config, content, objective = loop.config, loop.content, loop.objective
    memory = peak_memory(loop.device)
    last, _ = run.validator()
    if not last <= run.best:  # NaN included
        if run.best == math.inf:
            raise NstError(NOT_FINITE)
        step = run.load_best()
        loop.notice(f"the network of step {step} is better than the last: it is the one exported")
    network = loop.network.cpu().eval()
    photographs = squares(held_out())
    before = mean_losses([image_losses(objective, p, p) for p in photographs])
    repaint = torch_stylizer(network)
    after = mean_losses([image_losses(objective, p, repaint(p)) for p in photographs])
    if not math.isfinite(after.total_loss):
        raise NstError(NOT_FINITE)
    seconds = loop.budget.elapsed
    metadata = run.header | {
        "steps": str(loop.step),
        "seconds": f"{seconds:.0f}",
        "losses": json.dumps(after.to_dict()),
    }
    name = config.style[0].stem
    folder, styles = run.path, run.styles
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

        def paint(image: Array) -> Array:
            how = stylizer.keep_color
            return stylizer(image) if how is None else keep_color(stylizer(image), image, how)

        save_image(preview, preview_sheet(list(styles), paint))
        if config.score:
            stage("scoring")
            with contextlib.suppress(KeyboardInterrupt):  # everything else is done
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
        device=loop.device.type,
        peak_memory=memory,
        waiting=loop.waited / max(seconds, 1e-9),
        skipped=content.skipped,
        interrupted=loop.interrupted,
    )
    if not loop.interrupted:  # an interrupted run can be resumed
        with replacing(folder / RESULT) as beside:
            beside.write_text(json.dumps(result.to_dict(), indent=2))
    return result


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Lock a run's folder, so that no other process trains in it."""
    lock = FileLock(folder / ".lock", timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        raise NstError(f"another process trains in {folder}: wait until it ends") from error
    try:
        yield
    finally:
        lock.release()
        (folder / ".lock").unlink(missing_ok=True)
        if not any(folder.iterdir()):  # the run was discarded
            folder.rmdir()
