"""The folder of a run: its name, its files, its preview."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import math
import os
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from nst.errors import ModelError, NstError, UsageError
from nst.io.files import check_writable, replacing
from nst.io.images import Array, resize_image, resize_short
from nst.io.sample_images import held_out
from nst.models.transformer import TransformerNet
from nst.system.devices import peak_memory
from nst.train.config import TrainConfig
from nst.train.config_file import save_config
from nst.train.run.checkpoint import Checkpoint, Snapshot, load_checkpoint, save_checkpoint
from nst.train.run.environment import environment
from nst.train.run.log import COLUMNS, LogRow, RunLog, read_log
from nst.train.run.plot import plot_losses
from nst.train.run.progress import TrainProgress

CONFIG, LOG, RESULT, CHECKPOINTS = "run.toml", "log.csv", "result.json", "checkpoints"


def make_run_folder(config: TrainConfig) -> Path:
    """Make the folder of a new run and check that it is writable.

    Raises:
        NstError: it can't be written, or is not empty.
    """
    name = config.style[0].stem
    if config.out is not None:
        folder = config.out
        if folder.suffix == ".onnx":
            raise UsageError(f"out is {folder}, the name of a file: name the folder of the run")
        if os.path.exists(folder) and not (os.path.isdir(folder) and not any(folder.iterdir())):
            raise NstError(f"{folder} exists and is not an empty folder: choose another one")
        check_writable(folder / f"{name}.onnx")
        folder.mkdir(parents=True, exist_ok=True)
        return folder
    check_writable(Path("runs") / f"{name}.onnx")
    Path("runs").mkdir(exist_ok=True)
    for number in itertools.count(1):
        folder = Path("runs") / (name if number == 1 else f"{name}-{number}")
        with contextlib.suppress(FileExistsError):
            folder.mkdir()  # of two runs that start at once, one gets the name
            break
    return folder


def preview_sheet(styles: list[Array], stylize: Callable[[Array], Array]) -> Array:
    """Draw the style images above rows of content beside stylized, HWC uint8 RGB."""
    gap, height = 12, 360
    rows = []
    for photograph in held_out():
        image = resize_short(photograph, height)
        rows.append(np.hstack([image, np.full((height, gap, 3), 255, np.uint8), stylize(image)]))
    tops = [resize_image(s, (height, round(s.shape[1] * height / s.shape[0]))) for s in styles]
    rows.insert(0, np.hstack(tops))
    width = max(row.shape[1] for row in rows) + 2 * gap
    sheet = np.full((gap + len(rows) * (height + gap), width, 3), 255, np.uint8)
    for index, row in enumerate(rows):
        y, x = gap + index * (height + gap), (width - row.shape[1]) // 2
        sheet[y : y + row.shape[0], x : x + row.shape[1]] = row
    return sheet


def describe(config: TrainConfig) -> dict[str, str]:
    """Return the metadata of checkpoint and export; paths are cut to names."""
    from importlib.metadata import version

    digests = [hashlib.sha256(path.read_bytes()).hexdigest() for path in config.style]
    values = asdict(config)
    values["style"] = [path.name for path in config.style]
    values["content"] = config.content.name if config.content else "built-in"
    values["objective"]["vgg"] = Path(config.objective.vgg).name
    del values["out"]
    metadata = {
        "title": config.title or " + ".join(path.stem for path in config.style),
        "artist": config.artist,
        "year": config.year,
        "style_sha256": " ".join(digests),
        "preset": config.preset,
        "config": json.dumps(values),
        "nst_version": version("nst"),
    }
    if config.objective.keep_color == "luminance":
        metadata["keep_color"] = "luminance"  # tells nst image to keep the colours
    # A file's name may be invalid text.
    return {key: value.encode(errors="replace").decode() for key, value in metadata.items()}


class RunFolder:
    """The files of a training; the `TrainingCallback` of `nst.train.engine.loop.Loop`.

    In the folder: `run.toml`, `environment.json`, `log.csv`, `losses.png`, `samples/`,
    `tensorboard/`, and `checkpoints/` with the last `config.keep` states and the best network.

    Args:
        validator: returns the validation loss of the network, and an image to look at.
        header: metadata of all checkpoints.
        resumed: the state from which an earlier run goes on.
    """

    def __init__(
        self,
        path: Path,
        config: TrainConfig,
        network: TransformerNet,
        validator: Callable[[], tuple[float, Array]],
        header: dict[str, str],
        styles: Sequence[Array],
        resumed: Snapshot | None = None,
    ) -> None:
        self.path, self._config, self._network = path, config, network
        self.validator, self.header, self.styles = validator, header, styles
        self._folder = path / CHECKPOINTS
        self._best_path = self._folder / "best.safetensors"
        self._saved = time.monotonic()
        self.best = math.inf
        if resumed is None:
            save_config(path / CONFIG, replace(config, out=None))  # for other runs too
            with replacing(path / "environment.json") as beside:
                beside.write_text(json.dumps(environment(), indent=2))
        elif self._best_path.exists():
            best = load_checkpoint(self._best_path)
            if int(best.metadata["step"]) <= resumed.step:
                self.best = float(best.metadata["validation_loss"])
        self._log = RunLog(path, None if resumed is None else resumed.step)

    def log(self, progress: TrainProgress, validation_loss: float | None) -> None:
        """Add a step to the log."""
        values = {name: getattr(progress, name) for name in COLUMNS if hasattr(progress, name)}
        device = next(self._network.parameters()).device
        used = peak_memory(device) if device.type == "cuda" else None
        self._log.write(LogRow(**values, gpu_memory=used, validation_loss=validation_loss))

    def keep(self, snapshot: Snapshot, *, now: bool = False) -> None:
        """Write a checkpoint if it is time for one, and remove the oldest."""
        if not now and time.monotonic() - self._saved < self._config.save_every:
            return
        self._log.flush()  # first, so that a resumed run finds the rows of every step before
        target = self._folder / f"step-{snapshot.step:07d}.safetensors"
        save_checkpoint(target, self._network, self.header, self.styles, snapshot)
        for old in checkpoints(self.path)[self._config.keep :]:
            old.unlink(missing_ok=True)
        self._saved = time.monotonic()

    def validate(self, step: int) -> float:
        """Validate the network; keep the image, and the weights if they are the best so far."""
        loss, image = self.validator()
        self._log.sample(step, image)
        if loss < self.best:
            self.best = loss
            header = {**self.header, "step": str(step), "validation_loss": repr(loss)}
            save_checkpoint(self._best_path, self._network, header, self.styles)
        return loss

    def load_best(self) -> int:
        """Give the network its best weights; return their step."""
        best = load_checkpoint(self._best_path)
        self._network.load_state_dict(best.network.state_dict())
        return int(best.metadata["step"])

    def close(self) -> None:
        """Close the log and plot the losses."""
        self._log.close()
        log = self.path / LOG
        if log.exists():  # a discarded run has none
            plot_losses(read_log(log), self.path / "losses.png")


def discard(folder: Path) -> None:
    """Remove the files of a run that never learned; others in the folder stay."""
    for name in (CONFIG, "environment.json", "log.csv", "losses.png"):
        (folder / name).unlink(missing_ok=True)
    for name in (CHECKPOINTS, "samples", "tensorboard"):
        shutil.rmtree(folder / name, ignore_errors=True)


def checkpoints(folder: Path) -> list[Path]:
    """List the states of training in a run's folder, the newest first."""
    return sorted((folder / CHECKPOINTS).glob("step-*.safetensors"), reverse=True)


def load_state(folder: Path, notice: Callable[[str], None]) -> Checkpoint:
    """Load the newest readable state of training in a run's folder.

    Raises:
        NstError: there is none, or the run is complete.
    """
    if not (folder / CONFIG).is_file():
        raise NstError(f"{folder} is not the folder of a run: it holds no {CONFIG}")
    if (folder / RESULT).exists():
        raise NstError(f"{folder} holds a run that has ended: start another one with its {CONFIG}")
    for path in checkpoints(folder):
        try:
            found = load_checkpoint(path)
        except ModelError as error:
            notice(f"{error}; the checkpoint before it is used")
            continue
        if found.snapshot is not None:
            return found
    raise NstError(f"{folder} holds no checkpoint to resume from: start the run again")
