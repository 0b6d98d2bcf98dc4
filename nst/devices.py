"""Which torch device to compute on."""

from __future__ import annotations

import torch

from nst.config import Device
from nst.errors import NstError, UsageError


def pick_device(name: Device) -> torch.device:
    """`auto` is CUDA where it works, else the CPU.

    Raises:
        UsageError: an unknown name. NstError: `cuda` without a CUDA device.
    """
    if name not in ("auto", "cpu", "cuda"):
        raise UsageError(f"device is {name!r}: choose auto, cpu or cuda")
    if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise NstError("no CUDA device is available: use --device cpu, or check nvidia-smi")
    return torch.device("cuda")
