"""The folder of a run: its name, what its files say of themselves, its preview."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np

from nst.errors import NstError, UsageError
from nst.files import check_writable
from nst.images import Array, resize_image, resize_short
from nst.photographs import held_out
from nst.train.config import TrainConfig


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
    # A file's name need not be valid text.
    return {key: value.encode(errors="replace").decode() for key, value in metadata.items()}


def remove_empty(folder: Path) -> None:
    """Take away the folder of a run that came to nothing."""
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()
