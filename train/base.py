"""The base network of a preset: trained on many styles at once, a start for any other.

A new style then begins with edges, strokes and colours that work, not with noise. All styles share
the weights; each has its own gain for every output channel and its own offset for every bias, as in
conditional instance normalisation (Dumoulin et al. 2017). The base is what they have in common,
under the mean of gains and offsets.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call

from nst.config import Device, ObjectiveConfig
from nst.devices import pick_device
from nst.images import Array
from nst.losses import build_objective
from nst.models.config import preset_config
from nst.models.transformer import TransformerNet
from nst.train.checkpoint import load_checkpoint
from nst.train.data import THREADS, Content, batches
from nst.train.loop import schedule
from nst.train.update import Update

FOLDER = Path(__file__).parent.parent / "models" / "base"
# Gains and offsets see one step in as many as there are styles, so they take larger ones.
OWN_SPEED = 16.0
REPORT = 100  # steps from one report to the next


def base_network(preset: str) -> TransformerNet | None:
    """The network from which a style of the preset starts; None if the preset has no base.

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
    steps: int,
    batch_size: int = 16,
    side: int = 256,
    learning_rate: float = 1e-3,
    seed: int = 0,
    device: Device = "auto",
    callback: Callable[[int, float], None] = lambda *_: None,
) -> TransformerNet:
    """Train one network on all styles in turn, one a step, and merge what they have in common.

    Args:
        styles: style images, HWC uint8 RGB.
        callback: called now and then with the step and the mean total loss since the last call.
    """
    where = pick_device(device)
    torch.manual_seed(seed)
    network = TransformerNet(preset_config(preset)).to(memory_format=torch.channels_last)
    config = ObjectiveConfig()
    objective = build_objective(styles[:1], (), config, where)
    objectives = [build_objective([s], (), config, where, objective.vgg) for s in styles]
    bank = StyleBank(network, len(styles)).to(where)
    update = Update(bank, objective.to(memory_format=torch.channels_last))
    order = np.random.default_rng(seed).permutation(
        np.tile(np.arange(len(styles)), -(-steps // len(styles)))
    )
    workers = min(THREADS, os.cpu_count() or 1)
    losses = torch.zeros((), device=where)
    with closing(batches(content, lambda _: (batch_size, side), workers)) as stream:
        for step in range(1, steps + 1):
            style = int(order[step - 1])
            bank.chosen.fill_(style)
            objective.aim_at(objectives[style])
            rate = learning_rate * schedule(step / steps)
            values, _ = update(next(stream), batch_size, step * batch_size, rate)
            losses += torch.nan_to_num(values[4])
            if step % REPORT == 0 or step == steps:
                callback(step, losses.item() / ((step - 1) % REPORT + 1))
                losses.zero_()
    return bank.merged().cpu()


def varied(style: Array, rng: np.random.Generator) -> Array:
    """Another style made of one: a part of it, turned, with its colours exchanged or inverted."""
    height, width = (round(rng.uniform(0.5, 1) * side) for side in style.shape[:2])
    top = rng.integers(style.shape[0] - height + 1)
    left = rng.integers(style.shape[1] - width + 1)
    part = style[top : top + height, left : left + width, rng.permutation(3)]
    if rng.random() < 0.5:
        part = 255 - part
    return np.ascontiguousarray(np.rot90(part, int(rng.integers(4))))


class StyleBank(nn.Module):
    """A network that knows several styles, one of them at a time.

    Attributes:
        chosen: index of the style that it paints in, int64 [1].
    """

    chosen: Tensor

    def __init__(self, network: TransformerNet, count: int) -> None:
        super().__init__()
        self.network = network
        self.count = count
        # One axis each, so that Adam trains them.
        self.own = nn.ParameterList(
            nn.Parameter(torch.zeros(count * len(parameter))) for parameter in network.parameters()
        )
        self.register_buffer("chosen", torch.zeros(1, dtype=torch.int64), persistent=False)

    def forward(self, image: Tensor, *, unbounded: bool = False) -> Tensor:
        mine = (own.view(self.count, -1).index_select(0, self.chosen)[0] for own in self.own)
        stylized: Tensor = functional_call(
            self.network, self._under(mine), (image,), {"unbounded": unbounded}
        )
        return stylized

    def merged(self) -> TransformerNet:
        """The network under the mean of what the styles have of their own."""
        network = copy.deepcopy(self.network)
        means = (own.detach().view(self.count, -1).mean(0) for own in self.own)
        network.load_state_dict({k: v.detach() for k, v in self._under(means).items()})
        return network

    def _under(self, own: Iterable[Tensor]) -> dict[str, Tensor]:
        values = {}
        for (name, shared), mine in zip(self.network.named_parameters(), own, strict=True):
            if shared.ndim > 1:
                gain = 1 + OWN_SPEED * mine
                values[name] = shared * gain.view(-1, *[1] * (shared.ndim - 1))
            else:
                values[name] = shared + OWN_SPEED * mine
        return values
