"""Measure what a step of training costs under each style loss.

    python docs/bench/steps.py STYLE.jpg [--device cuda] [--repeats 5]

On a GPU the steps are recorded ones of 4 and 16 crops of 256², for `balanced` and `quality`; on a
CPU those of the three phases of a training of `balanced`, with its temporal loss. The losses take
turns; the first rounds are warm-up. Prints a Markdown table of medians in milliseconds.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

import numpy as np
import torch

from nst.config import ObjectiveConfig
from nst.infer.diagnostics.machine import read_machine
from nst.models.config import PRESETS
from nst.models.transformer import TransformerNet
from nst.perceptual.losses import build_objective
from nst.perceptual.style_image import prepare_style
from nst.system.devices import pick_device
from nst.train.engine.step import TrainStep

WARM_UP, STEPS = 3, 10


def measure(
    style: Path, preset: str, side: int, count: int, device: torch.device, repeats: int
) -> dict[str, float]:
    """Return the milliseconds of a step for each style loss."""
    updates = {}
    for loss in ("gram", "swd"):
        config = ObjectiveConfig(style_loss=loss)
        image = prepare_style(style, config.style_size).image
        objective = build_objective([image], (), config, device)
        objective = objective.to(memory_format=torch.channels_last)
        network = TransformerNet(PRESETS[preset]).to(device).to(memory_format=torch.channels_last)
        weight = 0.0 if device.type == "cuda" else 500.0
        updates[loss] = TrainStep(
            network.train(), objective, context=network.context, temporal_weight=weight
        )
    around = side + 2 * PRESETS[preset].context
    batch = np.random.default_rng(0).integers(0, 256, (count, around, around, 3), np.uint8)
    at_once = STEPS if device.type == "cuda" else 1
    rounds = repeats if device.type == "cuda" else repeats * STEPS // 4
    found: dict[str, list[float]] = {loss: [] for loss in updates}
    for number in range(WARM_UP + rounds):
        for loss, update in updates.items():
            started = time.perf_counter()
            for _ in range(at_once):
                update(batch, count, 0, 1e-5)
            if device.type == "cuda":
                torch.cuda.synchronize()
            if number >= WARM_UP:
                found[loss].append(1000 * (time.perf_counter() - started) / at_once)
    return {loss: statistics.median(times) for loss, times in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("style", type=Path)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    device = pick_device(args.device)
    print(read_machine().line)
    print("| preset | crops | gram, ms | swd, ms | ratio |\n|---|---|---:|---:|---:|")
    cases = [(preset, 256, count) for preset in ("balanced", "quality") for count in (4, 16)]
    if device.type == "cpu":
        cases = [("balanced", 64, 4), ("balanced", 128, 2), ("balanced", 256, 1)]
    for preset, side, count in cases:
        found = measure(args.style, preset, side, count, device, args.repeats)
        gram, swd = found["gram"], found["swd"]
        row = f"| {preset} | {count} of {side}² | {gram:.2f} | {swd:.2f} | {swd / gram:.2f} |"
        print(row, flush=True)


if __name__ == "__main__":
    main()
