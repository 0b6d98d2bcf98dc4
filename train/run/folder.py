"""The folder of a run: its name, what is kept in it as training goes on, its preview."""

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
from nst.train.progress import TrainProgress
from nst.train.run.checkpoint import Checkpoint, Snapshot, load_checkpoint, save_checkpoint
from nst.train.run.environment import environment
from nst.train.run.log import COLUMNS, LogRow, RunLog, read_log
from nst.train.run.plot import plot_losses

CONFIG, LOG, RESULT, CHECKPOINTS = "run.toml", "log.csv", "result.json", "checkpoints"


def make_run_folder(config: TrainConfig) -> Path:
    """The folder of a new run, made and proven writable.

    Raises:
        NstError: it can't be written, or holds another run.
    """
    name = config.style[0].stem
    if config.out is not None:
        folder = config.out
        if folder.suffix == ".onnx":
            raise UsageError(f"--out {folder} is a file's name: name the folder of the run")
        if os.path.exists(folder) and not (os.path.isdir(folder) and not any(folder.iterdir())):
            raise NstError(f"{folder} exists and is not an empty folder: choose another --out")
        check_writable(folder / f"{name}.onnx")
        folder.mkdir(parents=True, exist_ok=True)
        return folder
    check_writable(Path("runs") / f"{name}.onnx")
    Path("runs").mkdir(exist_ok=True)
    for number in itertools.count(1):
        folder = Path("runs") / (name if number == 1 else f"{name}-{number}")
        with contextlib.suppress(FileExistsError):
            folder.mkdir()  # of two runs at once, one gets the name
            break
    return folder


def preview_sheet(styles: list[Array], stylize: Callable[[Array], Array]) -> Array:
    """Rows of content beside stylized, the style images on top: HWC uint8 RGB."""
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
    """What checkpoint and export say of the style and of the run; paths are cut to names."""
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
        metadata["keep_color"] = "luminance"  # the network paints no colours: nst image keeps them
    # A file's name need not be valid text.
    return {key: value.encode(errors="replace").decode() for key, value in metadata.items()}


class RunFolder:
    """What a training leaves as it goes on; the `TrainingCallback` of `nst.train.engine.loop.Loop`.

    In the folder: `run.toml`, `environment.json`, `log.csv`, `losses.png`, `samples/`,
    `tensorboard/`, and `checkpoints/` with the last `config.keep` states and the best network.

    Args:
        validate: returns the validation loss of the network, and an image to look at.
        header: what all checkpoints say of themselves.
        resumed: the state from which an earlier process's run goes on.
    """

    def __init__(
        self,
        path: Path,
        config: TrainConfig,
        network: TransformerNet,
        validate: Callable[[], tuple[float, Array]],
        header: dict[str, str],
        styles: Sequence[Array],
        resumed: Snapshot | None = None,
    ) -> None:
        self.path, self._config, self._network = path, config, network
        self._validate, self._header, self._styles = validate, header, styles
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
        """Write a checkpoint if it is time for one, and remove those that are too old."""
        if not now and time.monotonic() - self._saved < self._config.save_every:
            return
        self._log.flush()  # first, so that a resumed run finds the rows of every step before
        target = self._folder / f"step-{snapshot.step:07d}.safetensors"
        save_checkpoint(target, self._network, self._header, self._styles, snapshot)
        for old in checkpoints(self.path)[self._config.keep :]:
            old.unlink(missing_ok=True)
        self._saved = time.monotonic()

    def validate(self, step: int) -> float:
        """Judge the network on the held-out photographs; keep the picture, and the best weights."""
        loss, image = self._validate()
        self._log.sample(step, image)
        if loss < self.best:
            self.best = loss
            header = {**self._header, "step": str(step), "validation_loss": repr(loss)}
            save_checkpoint(self._best_path, self._network, header, self._styles)
        return loss

    def load_best(self) -> int:
        """Give the network the best weights that were seen; their step."""
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
    """Take away a run that came to nothing: what it wrote, and the folder if that is all."""
    for name in (CONFIG, "environment.json", "log.csv", "losses.png"):
        (folder / name).unlink(missing_ok=True)
    for name in (CHECKPOINTS, "samples", "tensorboard"):
        shutil.rmtree(folder / name, ignore_errors=True)


def checkpoints(folder: Path) -> list[Path]:
    """The states of training in a run's folder, the newest first."""
    return sorted((folder / CHECKPOINTS).glob("step-*.safetensors"), reverse=True)


def load_state(folder: Path, notice: Callable[[str], None]) -> Checkpoint:
    """The newest state of training in a run's folder that can be read.

    Raises:
        NstError: there is none, or the run is complete.
    """
    if not (folder / CONFIG).is_file():
        raise NstError(f"{folder} is not the folder of a run: it holds no {CONFIG}")
    if (folder / RESULT).exists():
        raise NstError(f"{folder} is a run that came to its end: start another one with --config")
    for path in checkpoints(folder):
        try:
            found = load_checkpoint(path)
        except ModelError as error:
            notice(f"{error}; going back to the one before")
            continue
        if found.snapshot is not None:
            return found
    raise NstError(f"{folder} holds no checkpoint to go on from: start the run again")
