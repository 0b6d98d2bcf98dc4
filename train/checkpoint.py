"""A trained network on disk: weights, the config that rebuilds it, the style images it learned."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from nst.errors import ModelError
from nst.files import replacing
from nst.images import Array
from nst.models.transformer import TransformerConfig, TransformerNet

_STYLE = "style."  # prefix of the style images among the tensors


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint holds.

    Attributes:
        network: in evaluation mode, on the CPU.
        metadata: what the trainer said of style and run.
        styles: the style images as VGG saw them, HWC uint8 RGB; with them an export can be judged.
    """

    network: TransformerNet
    metadata: dict[str, str]
    styles: tuple[Array, ...] = ()


def save_checkpoint(
    path: Path, network: TransformerNet, metadata: dict[str, str], styles: Sequence[Array] = ()
) -> None:
    """Write the network's weights with its config, `metadata` and `styles` (safetensors)."""
    state = {name: value.cpu().contiguous() for name, value in network.state_dict().items()}
    for number, style in enumerate(styles):
        state[f"{_STYLE}{number}"] = torch.tensor(style)
    header = {**metadata, "network": json.dumps(network.config.to_dict())}
    with replacing(path) as beside:
        beside.write_bytes(save(state, header))


def load_checkpoint(path: Path) -> Checkpoint:
    """Read what `save_checkpoint` wrote.

    Raises:
        ModelError: missing, not a checkpoint of ours, or of a newer version.
    """
    if not path.is_file():
        raise ModelError(f"{path} does not exist: give the checkpoint of a run")
    try:
        with safe_open(path, "pt") as file:
            metadata: dict[str, str] = dict(file.metadata() or {})
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        values: dict[str, Any] = json.loads(metadata.pop("network"))
        names = [name for name in state if name.startswith(_STYLE)]
        names.sort(key=lambda name: int(name.removeprefix(_STYLE)))
        styles = tuple(state.pop(name).numpy() for name in names)
        network = TransformerNet(TransformerConfig.from_dict(values))
        network.load_state_dict(state)
    except (SafetensorError, KeyError, TypeError, ValueError, RuntimeError, OSError) as error:
        raise ModelError(
            f"{path} is not a checkpoint that this nst reads ({error}): give the one of a run"
        ) from error
    if not all(torch.isfinite(tensor).all() for tensor in state.values()):
        raise ModelError(f"{path} holds numbers that are not finite: train again")
    return Checkpoint(network.eval(), metadata, styles)
