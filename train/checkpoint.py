"""A trained network on disk: weights, and the config that rebuilds it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from nst.errors import ModelError
from nst.files import replacing
from nst.models.transformer import TransformerConfig, TransformerNet


def save_checkpoint(path: Path, network: TransformerNet, metadata: dict[str, str]) -> None:
    """Write the network's weights with its config and `metadata` as a safetensors file."""
    state = {name: value.cpu().contiguous() for name, value in network.state_dict().items()}
    header = {**metadata, "network": json.dumps(network.config.to_dict())}
    with replacing(path) as beside:
        beside.write_bytes(save(state, header))


def load_checkpoint(path: Path) -> tuple[TransformerNet, dict[str, str]]:
    """The network, in evaluation mode on the CPU, and the metadata it was saved with.

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
        network = TransformerNet(TransformerConfig.from_dict(values))
        network.load_state_dict(state)
    except (SafetensorError, KeyError, TypeError, ValueError, RuntimeError, OSError) as error:
        raise ModelError(
            f"{path} is not a checkpoint that this nst reads ({error}): give the one of a run"
        ) from error
    if not all(torch.isfinite(tensor).all() for tensor in state.values()):
        raise ModelError(f"{path} holds numbers that are not finite: train again")
    return network.eval(), metadata
