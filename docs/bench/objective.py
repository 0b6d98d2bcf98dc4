"""Total loss on photographs at 256²: as they are, optimised, and repainted by a model.

    python docs/bench/objective.py --style STYLE.jpg --content DIR [--model M.onnx] \
        [--iterations 100] [--device cuda]

Each photograph is cropped to its middle square. Prints means over all photographs of the folder.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch

import nst
from nst.devices import pick_device
from nst.images import READ_SUFFIXES, Array, center_square, load_style, resize_short
from nst.tensors import to_tensor

parser = argparse.ArgumentParser()
parser.add_argument("--style", type=Path, required=True)
parser.add_argument("--content", type=Path, required=True)
parser.add_argument("--model", type=Path)
parser.add_argument("--iterations", type=int, default=0)
parser.add_argument("--device", default="auto")
arguments = parser.parse_args()

device = pick_device(arguments.device)
style = load_style(arguments.style)
objective = nst.PerceptualLoss([to_tensor(resize_short(style, 384)).to(device)])
files = sorted(p for p in arguments.content.rglob("*") if p.suffix.lower() in READ_SUFFIXES)
photographs = [center_square(nst.load_image(path), 256) for path in files]


@torch.no_grad()
def total_loss(photograph: Array, image: Array) -> float:
    targets = objective.content_features(to_tensor(photograph).to(device))
    return float(objective(to_tensor(image).to(device), targets).total_loss)


untouched = [total_loss(p, p) for p in photographs]
print(f"{len(photographs)} photographs, style {arguments.style.name}, device {device}")
print(f"as they are        {np.mean(untouched) / 1e3:9.1f}k")
if arguments.model:
    with nst.Stylizer(arguments.model) as stylizer:
        losses = [total_loss(p, stylizer(p)) for p in photographs]
    share = np.mean(losses) / np.mean(untouched)
    print(f"repainted          {np.mean(losses) / 1e3:9.1f}k  ({share:.4f} of the start)")
if arguments.iterations:
    config = nst.OptimizeConfig(iterations=arguments.iterations, sizes=(), device=device.type)
    curves = []
    for photograph in photographs:
        curve: list[float] = []
        image = nst.optimize(
            photograph, [style], config, lambda p, curve=curve: curve.append(p.total_loss)
        )
        curves.append([*curve, total_loss(photograph, image)])
    mean = np.mean(curves, axis=0)
    # Entry k is the loss after k iterations; the last one is that of the final uint8 image.
    for k in sorted({k for k in (5, 10, 25, 50, 100, 200) if k < len(mean)} | {len(mean) - 1}):
        worst = max(c[k] / c[0] for c in curves)
        print(
            f"optimised {k:4d} steps {mean[k] / 1e3:9.1f}k  ({mean[k] / mean[0]:.4f} of the start, "
            f"worst photograph {worst:.4f})"
        )
