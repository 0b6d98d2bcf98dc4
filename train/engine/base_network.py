"""Finds the base network of a preset, from which a training on any style starts.

A new style then starts from working edges, strokes and colours instead of noise. The weights are
found by Reptile (Nichol, Achiam and Schulman 2018): train on one style for a few steps, move the
weights a part of the way to the result, and repeat with the next style.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
import torch

import nst.models
from nst.config import Device, ObjectiveConfig
from nst.io.images import Array
from nst.models.config import preset_config
from nst.models.transformer import TransformerNet
from nst.perceptual.losses import build_objective
from nst.system.devices import pick_device
from nst.train.content.dataset import THREADS, Content, batches
from nst.train.engine.schedule import schedule
from nst.train.engine.step import TOTAL, TrainStep
from nst.train.run.checkpoint import load_checkpoint

FOLDER = Path(nst.models.__path__[0]) / "base"
ROUND = 100  # steps on one style
# The part of the way to a round's result that the weights move, in the first and the last round.
SHARES = 0.6, 0.15
# Factor of the learning rate in the last round; not 0, as a new style starts at the peak again.
LAST_LR_SCALE = 0.25


def base_network(preset: str) -> TransformerNet | None:
    """Load the network from which a style of the preset starts; None if the preset has none.

    Raises:
        ModelError: the file is damaged.
    """
    path = FOLDER / f"{preset}.safetensors"
    if not path.is_file():
        return None
    network = load_checkpoint(path).network
    return network if network.config == preset_config(preset) else None


def train_base(
    preset: str,
    styles: Sequence[Array],
    content: Content,
    *,
    rounds: int,
    batch_size: int = 16,
    side: int = 256,
    learning_rate: float = 1.8e-3,
    seed: int = 0,
    device: Device = "auto",
    config: ObjectiveConfig | None = None,
    callback: Callable[[int, float], None] = lambda *_: None,
) -> TransformerNet:
    """Find weights from which `ROUND` steps lower the loss of any style far (Reptile).

    Args:
        styles: style images, HWC uint8 RGB; each round takes another one.
        content: content that is opened for crops of `side` with the context of the network.
        side: side of the crops without that context, pixels.
        config: the objective; None for the default.
        callback: called after each round with the number of rounds and the last total loss.
    """
    where = pick_device(device)
    torch.manual_seed(seed)
    network = TransformerNet(preset_config(preset)).to(where).to(memory_format=torch.channels_last)
    config = config or ObjectiveConfig()
    objective = build_objective(styles[:1], (), config, where)
    objectives = [build_objective([s], (), config, where, objective.vgg) for s in styles]
    objective = objective.to(memory_format=torch.channels_last)
    update = TrainStep(network, objective, context=network.context)
    fast = [parameter.detach() for parameter in network.parameters()]
    slow = [values.clone() for values in fast]
    order = np.random.default_rng(seed).permutation(
        np.tile(np.arange(len(styles)), -(-rounds // len(styles)))
    )
    workers = min(THREADS, os.cpu_count() or 1)
    side += 2 * network.context
    with closing(batches(content, lambda _: (batch_size, side), workers)) as stream:
        for number in range(rounds):
            done = number / rounds
            objective.aim_at(objectives[order[number]])
            update.optimizer.load({})  # its state belongs to another style
            lr = learning_rate * (LAST_LR_SCALE + (1 - LAST_LR_SCALE) * schedule(done))
            for step in range(number * ROUND, (number + 1) * ROUND):
                values, _ = update(next(stream), batch_size, step * batch_size, lr)
            torch._foreach_lerp_(slow, fast, SHARES[0] + (SHARES[1] - SHARES[0]) * done)
            torch._foreach_copy_(fast, slow)
            callback(number + 1, values[TOTAL].item())
    return network.cpu()


def varied(style: Array, rng: np.random.Generator) -> Array:
    """Make another style of one: take a part, rotate it, permute or invert its colours."""
    height, width = (round(rng.uniform(0.5, 1) * side) for side in style.shape[:2])
    top = rng.integers(style.shape[0] - height + 1)
    left = rng.integers(style.shape[1] - width + 1)
    part = style[top : top + height, left : left + width, rng.permutation(3)]
    if rng.random() < 0.5:
        part = 255 - part
    return np.ascontiguousarray(np.rot90(part, int(rng.integers(4))))
