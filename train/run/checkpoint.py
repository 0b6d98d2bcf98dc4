"""Checkpoints: a network's weights, the config that rebuilds it, and its style images.

During training the file also holds the optimiser's state, so that a run can be resumed.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from nst.errors import ModelError
from nst.io.files import replacing
from nst.io.images import Array
from nst.models.transformer import TransformerConfig, TransformerNet

# Prefixes of the tensors' names; the network's own have none.
_STYLE, _TRAINING = "style.", "training."


@dataclass(frozen=True)
class Snapshot:
    """A state of training, from which it goes on as if it had never stopped.

    Attributes:
        step, images, seconds: steps made, images seen and time trained until then.
        lr_scale: factor of the learning rate; below 1 after a restore.
        parts: pieces of a batch that pass through the network in turn.
        network: the network's state dict.
        state: state of the optimiser (`optimizer.INDEX.NAME`) and of the random generators
            (`random.DEVICE`).
    """

    step: int
    images: int
    seconds: float
    lr_scale: float
    parts: int
    network: dict[str, Tensor]
    state: dict[str, Tensor]


@dataclass(frozen=True)
class Checkpoint:
    """The content of a checkpoint file.

    Attributes:
        network: the network in evaluation mode, on the CPU.
        metadata: metadata of style and run.
        styles: the style images as VGG saw them, HWC uint8 RGB; an export is judged by them.
        snapshot: the state of training; None in the final file of a run.
    """

    network: TransformerNet
    metadata: dict[str, str]
    styles: tuple[Array, ...] = ()
    snapshot: Snapshot | None = None


def save_checkpoint(
    path: Path,
    network: TransformerNet,
    metadata: dict[str, str],
    styles: Sequence[Array] = (),
    snapshot: Snapshot | None = None,
) -> None:
    """Write a network with its config, `metadata` and `styles` (safetensors).

    Args:
        snapshot: state to write, its weights in place of the network's own.
    """
    tensors = dict(network.state_dict() if snapshot is None else snapshot.network)
    for number, style in enumerate(styles):
        tensors[f"{_STYLE}{number}"] = torch.tensor(style)
    header = {**metadata, "network": json.dumps(network.config.to_dict())}
    if snapshot is not None:
        tensors |= {_TRAINING + name: value for name, value in snapshot.state.items()}
        numbers = {k: v for k, v in vars(snapshot).items() if k not in ("network", "state")}
        header["training"] = json.dumps(numbers)
    on_cpu = {name: value.cpu().contiguous() for name, value in tensors.items()}
    with replacing(path) as beside:
        beside.write_bytes(save(on_cpu, header))


def load_checkpoint(path: Path) -> Checkpoint:
    """Load a file that `save_checkpoint` wrote.

    Raises:
        ModelError: it is missing, no checkpoint of nst, or one of another version.
    """
    if not path.is_file():
        raise ModelError(f"{path} does not exist: give the checkpoint of a run")
    try:
        with safe_open(path, "pt") as file:
            metadata: dict[str, str] = dict(file.metadata() or {})
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        values: dict[str, Any] = json.loads(metadata.pop("network"))
        numbers: dict[str, Any] | None = json.loads(metadata.pop("training", "null"))
        styles = _take(tensors, _STYLE)
        state = _take(tensors, _TRAINING)
        snapshot = None if numbers is None else Snapshot(**numbers, network=tensors, state=state)
        network = TransformerNet(TransformerConfig.from_dict(values))
        network.load_state_dict(tensors)
    except (SafetensorError, KeyError, TypeError, ValueError, RuntimeError, OSError) as error:
        raise ModelError(
            f"{path} is no checkpoint that this version of nst reads ({error}): give one of a run"
        ) from error
    if not all(torch.isfinite(tensor).all() for tensor in tensors.values()):
        raise ModelError(f"{path} holds numbers that are not finite: train again")
    images = tuple(styles[name].numpy() for name in sorted(styles, key=int))
    return Checkpoint(network.eval(), metadata, images, snapshot)


def _take(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Remove the tensors whose name begins with `prefix`; return them without it."""
    names = [name for name in tensors if name.startswith(prefix)]
    return {name.removeprefix(prefix): tensors.pop(name) for name in names}
