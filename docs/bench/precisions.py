"""Measure what fp16 and int8 cost on photographs: loss, difference, size of the file.

    python docs/bench/precisions.py CHECKPOINT PHOTOGRAPHS [--page page.png]

CHECKPOINT is a run's .safetensors file with its exports in fp32, fp16 and int8 beside it. The
middle squares of the photographs are repainted at 256×256.

Prints a line for each precision: losses relative to fp32, differences from it in levels, and the
size of the file. `--page` draws crops of the two held-out photographs at a height of 480.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

import nst
from nst.io.images import Array, resize_short, save_image
from nst.io.sample_images import held_out, load_photographs
from nst.perceptual.losses import build_objective
from nst.train.config import PRECISIONS, model_name
from nst.train.evaluation.score import (
    image_losses,
    mean_losses,
    squares,
    trained_objective,
)
from nst.train.run.checkpoint import load_checkpoint

CROP, ZOOM, GAP, GAIN = 150, 2, 10, 16
CORNERS = ((90, 250), (215, 330))  # (top, left) in the cat and in the cup


def labelled(tile: Array, label: str) -> Array:
    """Add a line of text above a tile."""
    strip = Image.new("RGB", (tile.shape[1], 24), "white")
    font = ImageFont.load_default(15)
    ImageDraw.Draw(strip).text((0, 2), label, "black", font)
    return np.vstack([np.asarray(strip), tile])


def page(stylizers: dict[str, nst.Stylizer]) -> Array:
    """Draw crops of the held-out photographs in every precision, HWC uint8 RGB."""
    rows = []
    for photograph, (top, left) in zip(held_out(), CORNERS, strict=True):
        image = resize_short(photograph, 480)
        window = np.s_[top : top + CROP, left : left + CROP]
        painted = {name: stylizer(image)[window] for name, stylizer in stylizers.items()}
        tiles = {"photograph": image[window], **painted}
        for name in PRECISIONS[1:]:
            difference = painted[name].astype(int) - painted["fp32"]
            shown = np.clip(128 + GAIN * difference, 0, 255).astype(np.uint8)
            tiles[f"{name} minus fp32, {GAIN} times"] = shown
        rows.append(
            [labelled(tile.repeat(ZOOM, 0).repeat(ZOOM, 1), name) for name, tile in tiles.items()]
        )
    height, width = rows[0][0].shape[:2]
    shape = (len(rows) * (height + GAP) + GAP, len(rows[0]) * (width + GAP) + GAP, 3)
    sheet = np.full(shape, 255, np.uint8)
    for i, row in enumerate(rows):
        for j, tile in enumerate(row):
            y, x = GAP + i * (height + GAP), GAP + j * (width + GAP)
            sheet[y : y + height, x : x + width] = tile
    return sheet


parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("checkpoint", type=Path)
parser.add_argument("photographs", type=Path)
parser.add_argument("--page", type=Path)
arguments = parser.parse_args()

loaded = load_checkpoint(arguments.checkpoint)
config, weights = trained_objective(loaded.metadata)
objective = build_objective(loaded.styles, weights, config, torch.device("cpu"))
photographs = squares(load_photographs([arguments.photographs])[0])
folder, stem = arguments.checkpoint.parent, arguments.checkpoint.stem
stylizers = {
    name: nst.Stylizer(folder / model_name(stem, name), provider="cpu") for name in PRECISIONS
}
painted = {name: [s(p) for p in photographs] for name, s in stylizers.items()}
base = None
for name, images in painted.items():
    pairs = zip(photographs, images, strict=True)
    losses = mean_losses([image_losses(objective, p, image) for p, image in pairs])
    base = base or losses
    off = np.abs(np.array(images).astype(int) - np.array(painted["fp32"]))
    size = (folder / model_name(stem, name)).stat().st_size / 1e6
    print(
        f"{stem} {name}: total {losses.total_loss / 1e3:.1f}k "
        f"({losses.total_loss / base.total_loss - 1:+.2%}), "
        f"content {losses.content_loss / base.content_loss - 1:+.2%}, "
        f"style {losses.style_loss / base.style_loss - 1:+.2%}, "
        f"mean difference {off.mean():.2f}, 99.9 % within {np.percentile(off, 99.9):.0f}, "
        f"{size:.2f} MB",
        flush=True,
    )
if arguments.page:
    save_image(arguments.page, page(stylizers))
